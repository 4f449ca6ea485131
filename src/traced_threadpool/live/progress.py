"""Runs in progress into a bar on a terminal or in a notebook, or a line in the log where there is neither."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

from traced_threadpool.live.bars import Bars, bars, short
from traced_threadpool.live.records import LivePool, LiveRun
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
        parts.append(f"{short(end.earliest_seconds)} to {short(end.latest_seconds)} left")
    return f"{run.name}: " + ", ".join(parts)


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
        self._bars: Bars | None = None

    def __enter__(self) -> Progress:
        self._ended.clear()
        self._bars = bars()
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
        shown, self._bars = self._bars, None
        if shown is not None:
            shown.stop()

    def _work(self, interval: float) -> None:
        while not self._ended.wait(interval):
            try:
                self._show(self._live().runs)
            except Exception:  # a bar is not worth a job
                logger.debug("progress could not be shown", exc_info=True)
                return

    def _show(self, runs: tuple[LiveRun, ...]) -> None:
        if self._bars is not None:
            self._bars.show(runs)  # none after Ctrl-C: a node may go on for long, and the terminal is the user's again
            return
        for run in runs:
            logger.info("%s", progress_line(run))


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
