"""Runs whose worker processes are killed at random, and an account of what became of each node of theirs.

Nodes write down when they begin and end, in a file that outlives whoever is killed. So of each node it is known
whether it was killed within its function, and how often it was called.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.backends.calls import is_alive
from tests.dags import PATIENCE, driver_of, eventually, in_thread
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import Processes, WorkerCrashed

CALLERS: Final = 3
WORKERS: Final = 4
PAUSE_SECONDS: Final = 0.04
"""A worker is killed after a random time up to this."""

STARTING_SECONDS: Final = 0.5
"""A worker that is starting is killed no more often, nor is what forks them: a call starts three at most."""

SERVER_ONE_IN: Final = 6
"""So often, where it may be, it is that process which is killed, and all workers with it."""

BLOB_BYTES: Final = 3_000_000
"""Goes through shared memory."""

NODES: Final = ("left", "right", "blob", "joined", "total")
_Value = TypeVar("_Value")
_RECORD: Final = struct.Struct("<III")
_BEGAN, _ENDED = 1, 2


@dataclass(kw_only=True)
class Account:
    """What happened. `wrong` says in words what must not be."""

    runs: int = 0
    kills: int = 0
    starting: int = 0
    servers: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    within: int = 0
    """How many nodes were killed within their functions."""
    wrong: list[str] = field(default_factory=list)


class _Adapter(FutureAdapter):
    """Keeps the futures of a caller's run."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.mine = threading.local()

    def do_remote_execute(self, *, execute_lifecycle_for_node: Any, node: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = super().do_remote_execute(
            execute_lifecycle_for_node=execute_lifecycle_for_node, node=node, **kwargs
        )
        self.mine.futures[node.name] = future
        return future


def under_kills(runs: int, *, seed: int, directory: Path, marker: str) -> Account:
    """So many runs on worker processes that are killed all the while, of several callers at once.

    `marker` is a variable in the environment of all processes that are started.
    """
    log = directory / "log"
    log.touch()
    account, killed = Account(), set[int]()
    processes = Processes(WORKERS, env={marker: "1"})
    elsewhere = {name: "cpu" for name in NODES if name != "joined"}
    with _Adapter(CALLERS, metrics=False, attribution=False, backends={"cpu": processes}, run_on=elsewhere) as adapter:
        driver = driver_of(adapter, *_functions(str(log)))
        outcomes: dict[int, Mapping[str, Future[Any]]] = {}

        def caller(first: int) -> None:
            for number in range(first, runs, CALLERS):
                adapter.mine.futures = outcomes[number] = {}
                with suppress(Exception):  # what it is, its futures say
                    driver.execute(["total"], inputs={"number": number})

        with _killer(processes, marker, random.Random(seed), account, killed):
            for done in [in_thread(caller, first) for first in range(CALLERS)]:
                done.result(PATIENCE + runs)
        assert eventually(lambda: not any(map(is_alive, killed)))  # a kill may come when its target has a node again
        driver.execute(["total"], inputs={"number": _settle(outcomes, adapter, runs)})
    _judge(account, outcomes, log.read_bytes(), killed)
    return account


def _settle(outcomes: dict[int, Mapping[str, Future[Any]]], adapter: _Adapter, number: int) -> int:
    """One run more, after the last kill, has to work."""
    adapter.mine.futures = outcomes[number] = {}
    return number


def _functions(log: str) -> list[Callable[..., Any]]:
    def noted(number: int, node: int, value: _Value) -> _Value:
        import os
        import struct
        import time

        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        try:
            place = number * 5 + node
            os.write(file, struct.pack("<III", place, 1, os.getpid()))
            time.sleep(place * 7_919 % 13 / 1_000)
            os.write(file, struct.pack("<III", place, 2, os.getpid()))
        finally:
            os.close(file)
        return value

    def left(number: int) -> int:
        return noted(number, 0, number * 2)

    def right(number: int) -> int:
        return noted(number, 1, number * 3)

    def blob(number: int) -> bytes:
        return noted(number, 2, number.to_bytes(4, "little") * 750_000)

    def joined(left: int, right: int, number: int) -> int:
        return noted(number, 3, left + right)

    def total(joined: int, blob: bytes, number: int) -> tuple[int, bytes]:
        return noted(number, 4, (joined, blob[::-1]))

    return [left, right, blob, joined, total]


def _expected(number: int) -> dict[str, Any]:
    blob = number.to_bytes(4, "little") * (BLOB_BYTES // 4)
    total = (number * 5, blob[::-1])
    return {"left": number * 2, "right": number * 3, "blob": blob, "joined": number * 5, "total": total}


def _judge(account: Account, outcomes: Mapping[int, Mapping[str, Future[Any]]], log: bytes, killed: set[int]) -> None:
    began, ended = Counter[int](), Counter[int]()
    for place, event, _ in _RECORD.iter_unpack(log):
        (began if event == _BEGAN else ended)[place] += 1
    crashed = Counter[int]()
    for number, futures in outcomes.items():
        account.runs += 1
        if set(futures) != set(NODES):
            account.wrong.append(f"run {number}: has {sorted(futures)}")
        expected = _expected(number)
        raised = set[int]()
        for at, name in enumerate(NODES):
            place, future = number * len(NODES) + at, futures[name]
            what = f"run {number}: {name}"
            if not future.done():
                account.wrong.append(f"{what} is not resolved")
                continue
            if began[place] > 1:
                account.wrong.append(f"{what} was called {began[place]} times")
            error = future.exception()
            if error is None:
                account.outcomes["value"] += 1
                if future.result() != expected[name]:
                    account.wrong.append(f"{what} has another value")
                if not ended[place]:
                    account.wrong.append(f"{what} has a value, and its function never ended")
            elif not isinstance(error, WorkerCrashed):
                account.outcomes[type(error).__name__] += 1
                account.wrong.append(f"{what}: {error!r}")
            elif error.node == name:
                account.outcomes["crashed"] += 1
                raised.add(id(error))
                crashed[error.pid] += 1
                if error.pid not in killed:
                    account.wrong.append(f"{what}: {error}, and nobody killed that process")
            else:
                account.outcomes["below a crash"] += 1
                if id(error) not in raised or began[place]:
                    account.wrong.append(f"{what} has the failure of {error.node}, not that one's, or was called")
            if began[place] > ended[place]:
                account.within += 1
                if error is None or not isinstance(error, WorkerCrashed) or error.node != name:
                    account.wrong.append(f"{what} was killed within its function, and says {error!r}")
    account.wrong += [f"worker {pid} cost {count} nodes" for pid, count in crashed.items() if count > 1]


@contextmanager
def _killer(
    processes: Processes, marker: str, dice: random.Random, account: Account, killed: set[int]
) -> Iterator[None]:
    """Kills workers meanwhile, whatever they do: start, wait, read, run, answer."""
    stop = threading.Event()
    starting_at = time.monotonic()

    def kill() -> None:
        nonlocal starting_at
        while not stop.wait(dice.random() * PAUSE_SECONDS):
            workers = _workers(marker)
            if not workers:
                continue
            pid, in_turn = dice.choice(workers), time.monotonic() - starting_at > STARTING_SECONDS
            with suppress(ProcessLookupError):
                if in_turn and not dice.randrange(SERVER_ONE_IN):
                    server = _parent(pid)
                    if server in marked(marker):
                        os.kill(server, signal.SIGSTOP)  # so that it forks no worker that nobody here has seen
                        killed.update(_workers(marker))
                        os.kill(server, signal.SIGKILL)
                        account.servers += 1
                        starting_at = time.monotonic()
                    continue
                if pid not in _ready(processes):
                    if not in_turn:
                        continue
                    account.starting += 1
                    starting_at = time.monotonic()
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
                account.kills += 1

    killing = in_thread(kill)
    try:
        yield
    finally:
        stop.set()
        killing.result(PATIENCE)


def marked(marker: str) -> list[int]:
    """All processes with that variable in their environment, but those that have ended and wait to be asked for."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            with suppress(OSError):
                if f"\0{marker}=1\0".encode() in b"\0" + (each / "environ").read_bytes():
                    found.append(int(each.name))
    return found


def _workers(marker: str) -> list[int]:
    """Those whose parent has the variable as well, the server; not this one, while it is made by a child of ours."""
    found = set(marked(marker))
    return sorted(pid for pid in found if (parent := _parent(pid)) in found and _parent(parent) != os.getpid())


def _ready(processes: Processes) -> set[int]:
    """Those that take calls; the others are starting, or have ended."""
    with processes._changed:
        known = [*processes._idle, *processes._running.values()]
    return {each.pid for each in known if each is not None}


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0
