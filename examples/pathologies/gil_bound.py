"""Access logs of eight web servers, taken apart in pure Python on eight threads.

What is wrong: a regular expression and a dictionary hold the GIL, so that one thread computes
and the others wait for it, however many CPUs there are. Threads make this no faster than a loop would be.

The cure: processes for the parsing, or a library that parses without the GIL. Fewer threads, in the meantime: what
waits for the GIL only gets in the way of what has it.
"""

import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

from .families import each, together
from .pathology import Amount, Pathology
from .program import main

HOSTS = ("alder", "birch", "cedar", "elm", "fir", "hazel", "maple", "oak")
LINES = 70_000
SESSION_SECONDS = 1_800

LINE = re.compile(
    r'(?P<client>\S+) - (?P<user>\S+) \[(?P<time>\d+)\] "(?P<method>[A-Z]+) (?P<path>\S+) HTTP/1\.[01]" '
    r'(?P<status>\d{3}) (?P<size>\d+|-) "(?P<referrer>[^"]*)" "(?P<agent>[^"]*)"'
)


class Request(NamedTuple):
    """One line of an access log."""

    client: str
    second: int
    path: str
    status: int
    size_bytes: int


@each(HOSTS, "requests_{}", host="{}")
def requests_of_host(access_logs: dict[str, list[str]], host: str) -> list[Request]:
    found = []
    for line in access_logs[host]:
        match = LINE.match(line)
        if match is not None:
            client, _, second, _, path, status, size, _, _ = match.groups()
            found.append(Request(client, int(second), path.partition("?")[0], int(status), int(size)))
    return found


@each(HOSTS, "sessions_{}", requests="requests_{}")
def sessions_of_host(requests: list[Request]) -> list[list[str]]:
    """The paths that a client asked for, without half an hour's pause in between."""
    last_seen: dict[str, int] = {}
    current: dict[str, list[str]] = {}
    sessions = []
    for request in sorted(requests, key=lambda request: (request.client, request.second)):
        if request.second - last_seen.get(request.client, -SESSION_SECONDS) >= SESSION_SECONDS:
            current[request.client] = []
            sessions.append(current[request.client])
        current[request.client].append(request.path)
        last_seen[request.client] = request.second
    return sessions


@together(HOSTS, requests="requests_{}")
def error_rates(requests: list[list[Request]]) -> dict[str, float]:
    """The share of answers that say the server failed, by path."""
    asked: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for of_host in requests:
        for request in of_host[::10]:
            asked[request.path] += 1
            failed[request.path] += request.status >= 500
    return {path: failed[path] / count for path, count in asked.items()}


@together(HOSTS, sessions="sessions_{}")
def ways_on(sessions: list[list[list[str]]]) -> dict[str, str]:
    """Where most go from each path."""
    followed: dict[str, Counter[str]] = defaultdict(Counter)
    for of_host in sessions:
        for session in of_host[::10]:
            for here, there in pairwise(session):
                followed[here][there] += 1
    return {here: there.most_common(1)[0][0] for here, there in followed.items()}


def report(error_rates: dict[str, float], ways_on: dict[str, str]) -> list[str]:
    worst = sorted(error_rates, key=lambda path: (-error_rates[path], path))[:5]
    return [f"{path}: {error_rates[path]:.1%} failed, then {ways_on.get(path, 'nothing')}" for path in worst]


@contextmanager
def _inputs(amount: Amount) -> Generator[Mapping[str, Any], None, None]:
    making = random.Random(amount.seed)
    distinct = [_line(making) for _ in range(2_000)]
    shares = amount.shares(HOSTS, LINES)
    yield {"access_logs": {host: making.choices(distinct, k=count) for host, count in shares.items()}}


def _line(making: random.Random) -> str:
    path = f"/{making.choice(('search', 'basket', 'login', 'item'))}/{making.randrange(12)}?page={making.randrange(9)}"
    client = f"10.0.{making.randrange(9)}.{making.randrange(1, 90)}"
    status = making.choices((200, 304, 404, 503), (90, 5, 3, 2))[0]
    return (
        f'{client} - - [{making.randrange(86_400)}] "GET {path} HTTP/1.1" {status} {making.randrange(50_000)} '
        '"https://shop.example/" "Mozilla/5.0 (X11; Linux x86_64)"'
    )


PATHOLOGY = Pathology(output="report", workers=8, inputs=_inputs)

if __name__ == "__main__":
    sys.exit(main("gil_bound"))
