"""Runs in progress into a bar on a terminal or in a notebook, or a line in the log where there is neither."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from traced_threadpool.live.fields import LivePool, LiveRun
from traced_threadpool.model import forks
from traced_threadpool.model.lock_backoff import Event, OwnedLock
from traced_threadpool.model.observers import Observer
from traced_threadpool.model.records import RunRecord

logger = logging.getLogger("traced_threadpool")

REFRESH_SECONDS: Final = 0.2
LOG_SECONDS: Final = 10.0


def progress_line(run: LiveRun) -> str:
    """One run as a line of text."""
    planned = "" if run.planned is None else f" of {run.planned:,}"
    parts = [f"{run.done:,}{planned} nodes done"]
    if run.failed:
        parts.append(f"{run.failed:,} failed")
    parts.append(f"{len(run.running):,} running")
    if run.queued:
        parts.append(f"{len(run.queued):,} queued")
    end = run.predicted_end
    if end.seconds is not None and end.latest_seconds is not None and end.earliest_seconds is not None:
        parts.append(f"{_short(end.earliest_seconds)} to {_short(end.latest_seconds)} left")
    return f"{run.name}: " + ", ".join(parts)


def _short(seconds: float) -> str:
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    if seconds >= 120:
        return f"{int(seconds // 60)} min"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


class Progress:
    """Shows progress while the `with` block runs; see `FutureAdapter.progress`.

    Args:
        live: Gives the pool now.
        log_seconds: How often a line is logged where there is no terminal.
    """

    def __init__(self, live: Callable[[], LivePool], *, log_seconds: float = LOG_SECONDS) -> None:
        self._live = live
        self._log_seconds = log_seconds
        self._ended = Event()
        self._thread: threading.Thread | None = None
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        self._ended.clear()
        self._bars = _rich_bars()
        interval = self._log_seconds if self._bars is None else REFRESH_SECONDS
        self._thread = threading.Thread(
            target=self._work, args=(interval,), name="traced-threadpool-progress", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Takes the bar away; the terminal is as it was."""
        self._ended.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(5)
        bars, self._bars = self._bars, None
        if bars is not None:
            bars.stop()

    def _work(self, interval: float) -> None:
        while not self._ended.wait(interval):
            try:
                self._show(self._live())
            except Exception:  # a bar is not worth a job
                logger.debug("progress could not be shown", exc_info=True)
                return

    def _show(self, pool: LivePool) -> None:
        bars = self._bars
        if bars is None:
            for run in pool.runs:
                logger.info("%s", progress_line(run))
            return
        open_now = {run.id for run in pool.runs}
        for run in pool.runs:
            if run.id not in self._tasks:
                self._tasks[run.id] = bars.add_task(_escaped(run.name), total=run.planned, left="", running="")
            left = run.predicted_end.seconds
            bars.update(
                self._tasks[run.id],
                completed=run.done,
                total=run.planned,
                description=_escaped(run.name),
                running=", ".join(_escaped(node.name) for node in run.running[:3]),
                left="" if left is None else f"{_short(left)} left",
            )
        for run_id in [each for each in self._tasks if each not in open_now]:
            bars.remove_task(self._tasks.pop(run_id))
        if pool.runs:
            bars.start()
        else:  # after Ctrl-C a node may go on for long, and the terminal is the user's again
            bars.stop()


class ProgressOfRuns(Observer):
    """Shows progress for as long as a run is in progress: what `FutureAdapter(progress=True)` does."""

    component = "progress"

    def __init__(self, live: Callable[[], LivePool]) -> None:
        self._progress = Progress(live)
        self._forget()
        forks.register(self._forget)

    def _forget(self) -> None:
        self._lock = OwnedLock()
        self._runs: set[int] = set()

    def run_started(self, run: RunRecord) -> None:
        with self._lock:
            first = not self._runs
            self._runs.add(id(run))
            if first:
                self._progress.__enter__()

    def run_ended(self, run: RunRecord) -> None:
        with self._lock:
            self._runs.discard(id(run))
            if not self._runs:
                self._progress.close()


def _escaped(text: str) -> str:
    """A name may hold what rich takes for markup."""
    from rich.markup import escape

    return escape("".join(character if character.isprintable() else "?" for character in text))


def _rich_bars() -> Any:
    """A started `rich` display, or None where there is no terminal, no rich, or another display already."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars
    except ImportError:
        return None
    console = Console(file=sys.stderr)
    if not console.is_terminal and not console.is_jupyter:
        return None
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[running]}", style="dim"),
        console=console,
        transient=True,
    )
    try:
        bars.start()
    except Exception:  # another live display, such as Hamilton's own progress bar
        return None
    return bars
