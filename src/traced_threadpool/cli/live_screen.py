"""Documents of the live view into a screen of text: each process, its pools, their runs, and what runs in these.

Everything is cut to the width that there is; what does not fit into the height is counted in the last line. Names come
from other processes: nothing in them is markup, and nothing is left that a terminal would obey.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text

from traced_threadpool.model.formatting import count, duration, one_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

MAX_STACK: Final = 20
LEAST_BAR: Final = 8
MOST_BAR: Final = 40
NARROW: Final = 72
VERY_NARROW: Final = 44

_STATES: Final = {"done": "green", "failed": "red", "running": "blue"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The last document of a process, when it came (monotonic seconds), and what is wrong now."""

    url: str
    document: Mapping[str, Any] | None = None
    answered: float | None = None
    fault: str | None = None


class Screen:
    """What the processes said last, drawn anew whenever the terminal is.

    Args:
        shown: Gives the processes.
        whole: All lines, however many, since they stay.
    """

    def __init__(self, shown: Callable[[], Sequence[Shown]], *, whole: bool = False) -> None:
        self._shown = shown
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(1, options.max_width)
        lines = list(self._lines(width))
        height = options.height or console.height
        if not self._whole and len(lines) > height:
            more = len(lines) - height + 1
            lines = [*lines[: height - 1], Text(f"{more:,} more lines: enlarge the terminal", style="dim")]
        for line in lines:
            line.truncate(width, overflow="crop" if options.ascii_only else "ellipsis")
            line.no_wrap = True
            yield line

    def _lines(self, width: int) -> Iterator[Text]:
        for place, process in enumerate(self._shown()):
            if place:
                yield Text()
            yield _heading(process)
            if process.document is not None:
                old = process.fault is not None
                for line in process_text(process.document, width=width):
                    if old:
                        line.stylize("dim")
                    yield line


def _heading(process: Shown) -> Text:
    line = Text(one_line(process.url), style="bold")
    if process.fault is not None:
        line.append(f"  {process.fault}", style="bold red")
        if process.answered is not None:
            line.append(f"; what follows is {_seconds(time.monotonic() - process.answered)} old", style="red")
    elif process.document is None:
        line.append("  connecting", style="dim")
    else:
        line.append(f"  process {process.document['pid']}", style="dim")
    return line


def process_text(document: Mapping[str, Any], *, width: int) -> list[Text]:
    """One process as lines.

    Raises:
        ValueError: It is not such a document.
    """
    try:
        lines = [line for pool in document["pools"] for line in _pool(pool, width)]
        lines += [Text(f"an adapter's view failed: {one_line(each)}", style="red") for each in document["problems"]]
        f"{document['pid']:d}"
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError("not a live view") from error
    return lines or [Text("no adapter is open in this process", style="dim")]


def _pool(pool: Mapping[str, Any], width: int) -> Iterator[Text]:
    line = Text(one_line(pool["pool"]), style="bold")
    for lane in pool["lanes"]:
        line.append(f"  {one_line(lane['name'])} {lane['active']:d} of {lane['limit']:d} busy", style="not bold")
        if lane["queued"]:
            line.append(
                f", {lane['queued']:d} queued, oldest for {_seconds(lane['oldest_queued_seconds'])}", style="yellow"
            )
    if pool["closed"]:
        line.append("  closed", style="dim")
    yield line
    if not pool["runs"]:
        yield Text("  no run is in progress", style="dim")
    for run in pool["runs"]:
        yield from _run(run, width)


def _run(run: Mapping[str, Any], width: int) -> Iterator[Text]:
    planned, done, failed, skipped, running = (
        run[name] for name in ("planned", "done", "failed", "skipped", "running")
    )
    of = "" if planned is None else f" of {planned:,d}"
    line = Text("  ")
    line.append(one_line(run["name"]), style="bold")
    line.append(f"  for {_seconds(run['elapsed_seconds'])}  ", style="dim")
    progress = Text(f"{done:,d}{of} done")
    if failed:
        progress.append(f", {failed:,d} failed", style="bold red")
    if skipped:
        progress.append(f", {skipped:,d} skipped", style="red")
    others = {"running": len(running), "queued": len(run["queued"]), "blocked": len(run["blocked"])}
    progress.append("".join(f", {number:,} {state}" for state, number in others.items() if number))
    place = min(MOST_BAR, width - len(line) - len(progress) - 2)
    if planned and place >= LEAST_BAR:
        line.append_text(_bar(place, planned, done - failed - skipped, failed + skipped, len(running)))
        line.append("  ")
        line.append_text(progress)
        yield line
    else:
        yield line
        yield Text("    ").append_text(progress)
    yield Text("    ").append_text(_end(run["predicted_end"]))
    if failed:
        yield Text(f"    failed: {_names(run['failed_names'], failed)}", style="red")
    yield from _running(running, width)
    chain = run["critical_chain"]
    if chain:
        shown = chain if len(chain) <= 7 else [*chain[:4], "...", *chain[-2:]]
        yield Text(f"    end waits for: {' > '.join(one_line(name) for name in shown)}", style="dim")
    if run["queued"]:
        yield Text(f"    queued: {_names([_label(node) for node in run['queued']])}", style="dim")
    if run["blocked"] and not running and not run["queued"]:
        node = run["blocked"][0]
        yield Text(f"    {_label(node)} waits for {_names(node['upstream'])}", style="dim")


def _bar(width: int, planned: int, done: int, failed: int, running: int) -> Text:
    """Exact to a character, and what is there at all has one."""
    bar, left = Text(), width
    for (state, style), number in zip(_STATES.items(), (done, failed, running), strict=True):
        cells = min(left, max(1 if number > 0 else 0, round(width * number / planned)))
        bar.append({"done": "#", "failed": "!", "running": "="}[state] * cells, style=style)
        left -= cells
    return bar.append("." * left, style="dim")


def _end(end: Mapping[str, Any]) -> Text:
    if end["seconds"] is None:
        return Text(f"end not predicted: {one_line(end['reason'] or 'no reason given')}", style="dim")
    at = time.strftime("%H:%M:%S", time.localtime(end["at"]))
    line = Text(f"{_seconds(end['seconds'])} left", style="bold green")
    between = f"{_seconds(end['earliest_seconds'])} to {_seconds(end['latest_seconds'])}"
    return line.append(f" ({between}), until {at}", style="not bold default")


def _running(nodes: Sequence[Mapping[str, Any]], width: int) -> Iterator[Text]:
    """A table: name, for how long, usually, what it does, where. Columns go, the last first, where it is narrow."""
    if not nodes:
        return
    columns = 5 if width >= NARROW else 3 if width >= VERY_NARROW else 2
    rows = [_cells(node) for node in nodes]
    order = [0, 1, 3, 2, 4][:columns]  # what it does matters more than how long it usually takes
    head = ["running", "for", "usually", "does", "worker"]
    widths = [max(len(head[at]), *(len(row[at]) for row in rows)) for at in range(5)]
    others = sum(widths[at] + 2 for at in order[1:])
    widths[0] = max(8, min(widths[0], width - 4 - others))
    yield _row([head[at] for at in order], [widths[at] for at in order], "dim")
    for node, row in zip(nodes, rows, strict=True):
        style = "bold red" if node["stalled"] else "yellow" if node["late_seconds"] > 0 else ""
        yield _row([row[at] for at in order], [widths[at] for at in order], style)
        stack = node["stack"] or ()
        if len(stack) > MAX_STACK:
            yield Text(f"      ... {len(stack) - MAX_STACK:,} calls", style="dim")
        for call in stack[-MAX_STACK:]:
            yield Text(f"      {one_line(call)}", style="dim")


def _row(cells: Sequence[str], widths: Sequence[int], style: str) -> Text:
    line = Text("    ", style=style)
    for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        part = Text(cell)
        part.truncate(width, overflow="crop" if cell.isascii() else "ellipsis", pad=place < len(cells) - 1)
        line.append_text(part).append("" if place == len(cells) - 1 else "  ")
    return line


def _cells(node: Mapping[str, Any]) -> list[str]:
    usual, late = node["usual"], node["late_seconds"]
    since = _seconds(node["elapsed_seconds"]) + (f", late by {_seconds(late)}" if late > 0 else "")
    usually = (
        ""
        if usual is None
        else f"{_seconds(usual['p50_seconds'])} to {_seconds(usual['p95_seconds'])} ({usual['count']:,d})"
    )
    does = " ".join(one_line(word) for word in (node["state"], node["on"]) if word)
    worker = node["worker"] if node["backend"] == "threads" else f"{node['backend']}: {node['worker']}"
    return [_label(node), since, usually, ("stalled: " if node["stalled"] else "") + does, one_line(worker)]


def _label(node: Mapping[str, Any]) -> str:
    task = node["task_id"]
    return one_line(node["name"]) + (f" [{one_line(task)}]" if task else "")


def _names(names: Sequence[str], number: int | None = None) -> str:
    """The first of them, and how many others there are; `number` in all, where not all names are known."""
    shown, others = names[:10], (len(names) if number is None else number) - min(10, len(names))
    return ", ".join(map(one_line, shown)) + (f" and {count(others, 'other')}" if others > 0 else "")


def _seconds(seconds: float) -> str:
    return duration(seconds * 1e9)
