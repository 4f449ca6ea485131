"""Runs in progress as bars: on a terminal by `rich`, in a notebook by IPython's display protocol."""

from __future__ import annotations

import sys
from html import escape
from importlib import import_module
from typing import Any, Final, Protocol

from traced_threadpool.live.records import LiveRun

NAMES: Final = 3
"""How many of the running nodes a bar names."""


class Bars(Protocol):
    """A place for bars that is taken when they are made, on the caller's thread."""

    def show(self, runs: tuple[LiveRun, ...]) -> None:
        """A bar for each of these runs, and for no other."""

    def stop(self) -> None:
        """No bar; the terminal, or the cell, is as it was. `show` may be called again."""


def bars() -> Bars | None:
    """None where there is neither a notebook nor a terminal, no rich, or another display already."""
    try:
        return _notebook() or _RichBars.on_terminal()
    except Exception:  # another live display, such as Hamilton's own progress bar
        return None


def short(seconds: float) -> str:
    """A duration that changes while it is read."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    if seconds >= 120:
        return f"{int(seconds // 60)} min"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _left(run: LiveRun) -> str:
    left = run.predicted_end.seconds
    return "" if left is None else f"{short(left)} left"


def _running(run: LiveRun) -> str:
    return ", ".join(_printable(node.name) for node in run.running[:NAMES])


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


class _RichBars:
    def __init__(self, display: Any) -> None:
        self._display = display
        self._tasks: dict[str, Any] = {}
        display.start()

    @classmethod
    def on_terminal(cls) -> _RichBars | None:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        except ImportError:
            return None
        console = Console(file=sys.stderr, force_jupyter=False)
        if not console.is_terminal:
            return None
        return cls(
            Progress(
                TextColumn("{task.description}", markup=False),  # a name may hold what rich takes for markup
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                TextColumn("{task.fields[running]}", style="dim", markup=False),
                console=console,
                transient=True,
            )
        )

    def show(self, runs: tuple[LiveRun, ...]) -> None:
        display = self._display
        for run in runs:
            if run.id not in self._tasks:
                self._tasks[run.id] = display.add_task(_printable(run.name), total=run.planned, left="", running="")
            display.update(
                self._tasks[run.id], completed=run.done, total=run.planned, left=_left(run), running=_running(run)
            )
        for run_id in self._tasks.keys() - {run.id for run in runs}:
            display.remove_task(self._tasks.pop(run_id))
        if runs:
            display.start()
        else:
            display.stop()

    def stop(self) -> None:
        self._display.stop()


def _notebook() -> _NotebookBars | None:
    """Inside a kernel of Jupyter's, whatever shows its notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return _NotebookBars() if hasattr(shell, "kernel") else None


class _NotebookBars:
    """One output of the cell, which is written anew. It needs no widgets, which not every notebook shows."""

    def __init__(self) -> None:
        self._shown = ""
        display: Any = import_module("IPython.display").display
        self._output = display(_bundle(""), raw=True, display_id=True)

    def show(self, runs: tuple[LiveRun, ...]) -> None:
        text = "".join(map(_html, runs))
        if text != self._shown:
            self._shown = text
            self._output.update(_bundle(text), raw=True)

    def stop(self) -> None:
        self.show(())


def _bundle(html: str) -> dict[str, str]:
    return {"text/html": html, "text/plain": ""}


def _html(run: LiveRun) -> str:
    of = "" if run.planned is None else f" max={run.planned} value={run.done}"
    planned = "" if run.planned is None else f" of {run.planned:,}"
    words = [f"{run.done:,}{planned} done", f"{run.failed:,} failed" if run.failed else "", _left(run), _running(run)]
    name = escape(_printable(run.name))
    text = ", ".join(escape(each) for each in words if each)
    return f'<div><b>{name}</b> <progress{of} aria-label="{name}"></progress> {text}</div>'
