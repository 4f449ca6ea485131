"""`traced-threadpool live`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

import click
from rich.console import Console
from rich.live import Live

from traced_threadpool.cli.arguments import examples
from traced_threadpool.cli.errors import UNREADABLE, Failure
from traced_threadpool.cli.live_screen import Screen, Shown, process_text
from traced_threadpool.cli.output import print_json, print_parts, put
from traced_threadpool.telemetry.urls import Base, checked
from traced_threadpool.telemetry.urls import shown as shown_url

TIMEOUT_SECONDS: Final = 5.0
MOST_BYTES: Final = 64 << 20
FRAMES_A_SECOND: Final = 4
"""A terminal that was resized is drawn anew within a quarter of a second."""

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_TERMINATED: Final = 128 + 15


@click.command(
    epilog=examples(
        "live http://127.0.0.1:9464",
        "live 127.0.0.1:9464 127.0.0.1:9465",
        "live http://127.0.0.1:8000/ops/live",
        "live 127.0.0.1:9464 --once --stacks",
    )
)
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option(
    "--once", is_flag=True, help="Print the state now and end. This is the default where there is no terminal."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one document with --once, else one document a line.")
@click.option("--stacks", is_flag=True, help="Add the Python stack of each running node.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Ask each process again after this time.",
)
def live(urls: Sequence[str], once: bool, as_json: bool, stacks: bool, interval: float) -> int:
    """Show what runs do right now, and when they will be over.

    URL is where a process serves its live view: what setup_telemetry(prometheus_port=...) starts, such as
    http://127.0.0.1:9464, or the path at which an application has mounted traced_threadpool.live. Each of several
    URLs is a process. Ctrl-C ends it.
    """
    processes = [Process(url, stacks=stacks) for url in dict.fromkeys(urls)]
    is_terminal = sys.stdout.isatty() and not Console().is_dumb_terminal
    if once or not (is_terminal or as_json):
        return _once(processes, as_json=as_json)
    with _ending_on_signals():
        for each in processes:
            each.keep_asking(interval)
        show = _print_lines if as_json else _show_screen
        show(processes, interval)
    return 0


class Process:
    """One process: its last answer, and what went wrong since.

    Raises:
        click.UsageError: The URL cannot be one.
    """

    def __init__(self, url: str, *, stacks: bool) -> None:
        self.shown = shown_url(url)
        self._request = _request(url, stacks=stacks)
        self._opener = _opener(self._request.host)
        self._lock = threading.Lock()
        self._now = Shown(url=self.shown)

    @property
    def now(self) -> Shown:
        with self._lock:
            return self._now

    def ask(self) -> Shown:
        """One request."""
        before, found = self.now, Answer()
        try:
            found = Answer(document=self._read())
        except HTTPError as error:
            hint = ": there is no live view at this path" if error.code == 404 else ""
            found = Answer(fault=f"it answers with status {error.code}{hint}")
        except (OSError, HTTPException) as error:  # URLError and timeouts are the former
            reason = error.reason if isinstance(error, URLError) else error
            found = Answer(fault=f"it does not answer ({_why(reason)})")
        except ValueError:
            found = Answer(fault="what it answers is not a live view")
        now = time.monotonic()
        if found.fault is None:
            shown = Shown(url=self.shown, document=found.document, answered=now)
        else:
            shown = Shown(url=self.shown, document=before.document, answered=before.answered, fault=found.fault)
        with self._lock:
            self._now = shown
        return shown

    def keep_asking(self, interval: float) -> None:
        """Again and again, on a thread of its own: a process that does not answer holds up no other."""

        def work() -> None:
            while True:
                started = time.monotonic()
                self.ask()
                time.sleep(max(0.05, interval - (time.monotonic() - started)))

        threading.Thread(target=work, name=f"live {self.shown}", daemon=True).start()

    def _read(self) -> dict[str, Any]:
        with self._opener.open(self._request, timeout=TIMEOUT_SECONDS) as answer:
            body = answer.read(MOST_BYTES + 1)
        document = json.loads(body) if len(body) <= MOST_BYTES else None
        if not isinstance(document, dict) or document.get("version") != 1:
            raise ValueError
        process_text(document, width=80)  # raises for what cannot be shown
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A document, or what is wrong."""

    document: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None


def _request(url: str, *, stacks: bool) -> Request:
    try:
        base = checked("URL", url if "://" in url else f"http://{url}", example="http://127.0.0.1:9464")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    request = Request(_live_url(base, stacks=stacks), headers={"Accept": "application/json"})
    if base.authorization is not None:
        request.add_header("Authorization", base.authorization)
    return request


def _live_url(base: Base, *, stacks: bool) -> str:
    """A server's own address stands for its `/live.json`; any other path is where the application has mounted it."""
    path = base.parts.path
    parts = base.parts._replace(
        path="/live.json" if path in ("", "/metrics") else path, query="format=json" + ("&stacks=1" if stacks else "")
    )
    return parts.geturl()


def _opener(host: str) -> OpenerDirector:
    """No proxy is asked for this machine's own."""
    name = host.rpartition("@")[2].rpartition(":")[0] or host
    return build_opener(ProxyHandler({})) if name.strip("[]") in _LOOPBACK else build_opener()


def _why(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return f"nothing came within {TIMEOUT_SECONDS:.0f} s"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__ if isinstance(reason, BaseException) else str(reason)


def _once(processes: Sequence[Process], *, as_json: bool) -> int:
    threads = [threading.Thread(target=each.ask, daemon=True) for each in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [each.now for each in processes]
    if as_json:
        print_json(_as_json(found))
    else:
        print_parts([Screen(lambda: found, whole=True)])
    faults = [f"{each.url}: {each.fault}" for each in found if each.fault is not None]
    if faults:
        raise Failure("; ".join(faults), UNREADABLE)
    return 0


def _as_json(found: Sequence[Shown]) -> dict[str, Any]:
    return {
        "schema": 1,
        "processes": [
            {"url": each.url, "error": each.fault, "live": each.document if each.fault is None else None}
            for each in found
        ],
    }


def _print_lines(processes: Sequence[Process], interval: float) -> None:
    while True:
        time.sleep(interval)
        put(json.dumps(_as_json([each.now for each in processes]), separators=(",", ":")) + "\n")


def _show_screen(processes: Sequence[Process], interval: float) -> None:
    # A shell may have exported the size that the terminal had; it is asked for its size each time instead.
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    console = Console(markup=False, highlight=False, emoji=False, _environ=environment)
    screen = Screen(lambda: [each.now for each in processes])
    with Live(screen, console=console, screen=True, refresh_per_second=FRAMES_A_SECOND, redirect_stdout=False):
        while True:
            time.sleep(interval)


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Ctrl-C ends it without an error, and `kill` too gives the terminal back first."""

    def end(*_: object) -> None:
        raise SystemExit(_TERMINATED)

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
