"""An explanation for a terminal: the findings first, then what they rest on.

Plain text where the output is no terminal; `rich` decides, and obeys NO_COLOR. Names go in as `Text`, never as
markup, and without anything that a terminal would obey.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from traced_threadpool.analysis.diagnosis.advice import expected_gain, title, tone
from traced_threadpool.analysis.diagnosis.diagnose import Finding
from traced_threadpool.analysis.difference import Difference, NodeDifference, Total
from traced_threadpool.model.formatting import change, count, duration, one_line, percent, signed
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.model.states import INFO
from traced_threadpool.recording.critical_path import OUTSIDE, Step
from traced_threadpool.report.curve import LIMITS, Curve, Point
from traced_threadpool.report.explanation import Explanation, StateRow, path_name
from traced_threadpool.report.prediction import Prediction

PLAIN_WIDTH: Final = 120
STEPS: Final = 15
SLOWEST: Final = 10
MAX_NAME: Final = 48

_TONES: Final = {"bad": "bold red", "good": "bold green", "plain": "bold"}


def plain(parts: Iterable[RenderableType], width: int = PLAIN_WIDTH) -> str:
    """The parts as text without colours, and without blanks at the ends of lines."""
    console = Console(
        width=width,
        file=StringIO(),
        color_system=None,
        force_terminal=False,
        markup=False,
        highlight=False,
        emoji=False,
    )
    with console.capture() as captured:
        render(console, parts)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def render(console: Console, parts: Iterable[RenderableType]) -> None:
    """Plain strings are not wrapped: a path or a command stays whole."""
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))


def explanation_text(explanation: Explanation) -> Iterator[RenderableType]:
    """What `explain` prints, part by part."""
    run = explanation.run
    yield run_line(run)
    yield from findings_text(explanation)
    yield from _problems(run)
    if not explanation.ran:
        return
    yield _path(explanation)
    yield from _states(explanation)
    yield _slowest(explanation)
    if explanation.curve is not None:
        yield _curve(explanation.curve)
    if explanation.estimated is not None:
        yield Group("", Text(f"note: {explanation.estimated}", style="yellow"))


def run_line(run: RecordedRun) -> RenderableType:
    """A run in one line."""
    facts = [count(len(run.nodes), "node")]
    if run.max_workers is not None:
        facts.append(count(run.max_workers, "worker"))
    if run.cpus is not None:
        facts.append(count(run.cpus, "CPU"))
    line = Text()
    line.append(one_line(run.name, MAX_NAME), style="bold")
    line.append(f": {duration(run.duration_ns)}, {', '.join(facts)}, ")
    outcome = run.outcome if run.error_type is None else f"{run.outcome} ({one_line(run.error_type, MAX_NAME)})"
    line.append(outcome, style="green" if run.outcome == "success" else "bold red")
    line.append(f", run {one_line(run.id, MAX_NAME)}", style="dim")
    return line


def findings_text(explanation: Explanation) -> Iterator[RenderableType]:
    """The findings, and what is remarked."""
    for number, finding in enumerate(explanation.findings, 1):
        yield _finding(number, finding, explanation.run)
    if explanation.remarks:
        yield Group("", *(Text(one_line(remark)) for remark in explanation.remarks))


def _finding(number: int, finding: Finding, run: RecordedRun) -> RenderableType:
    lines: list[RenderableType] = [Text(f"{number}. {one_line(title(finding))}", style=_TONES[tone(finding)])]
    bullets = Table.grid()
    for each in finding.evidence:
        bullets.add_row("- ", Text(one_line(each)))
    lines.append(_indented(bullets))
    if finding.advice:
        lines.append(_indented(Text(one_line(finding.advice))))
    gain = expected_gain(finding, run)
    if gain is not None:
        lines.append(_indented(Text(gain, style="bold")))
    return Group("", *lines)


def _problems(run: RecordedRun) -> Iterator[RenderableType]:
    lines = [Text(f"note: {one_line(problem)}", style="yellow") for problem in run.problems]
    if lines:
        yield Group("", *lines)


def _path(explanation: Explanation) -> RenderableType:
    run = explanation.run
    steps = [step for step in explanation.path.steps if step.duration_ns > 0]
    shown = sorted(sorted(steps, key=lambda step: -step.duration_ns)[:STEPS], key=lambda step: step.started_ns)
    table = table_of("from", "time", "of the run", "step")
    for step in shown:
        table.add_row(
            duration(step.started_ns - run.started_ns),
            duration(step.duration_ns),
            percent(step.duration_ns, run.duration_ns),
            _step(step, explanation),
        )
    left = len(steps) - len(shown)
    if left:
        rest = sum(step.duration_ns for step in steps) - sum(step.duration_ns for step in shown)
        table.add_row(
            "", duration(rest), percent(rest, run.duration_ns), Text(f"({left:,} shorter steps)", style="dim")
        )
    return section("Critical path, from the start of the run to its end", table)


def _step(step: Step, explanation: Explanation) -> Text:
    name = one_line(step.name, MAX_NAME)
    if step.kind == "node":
        return Text(name, style="bold")
    if step.kind == "queue":
        behind = explanation.run.by_key.get(step.behind) if step.behind is not None else None
        why = f" (worker busy with {one_line(behind.name, MAX_NAME)})" if behind is not None else ""
        return Text(f"queued {name}{why}", style="yellow")
    if step.kind == "dependency":
        return Text(f"{name} waits for inputs that are not in the record", style="yellow")
    return Text(path_name(OUTSIDE), style="dim")


def _states(explanation: Explanation) -> Iterator[RenderableType]:
    run, rows = explanation.run, explanation.state_rows
    total = explanation.nodes_ns
    if not rows:
        reason = f" ({one_line(run.attribution_reason)})" if run.attribution_reason else ""
        yield Group("", Text(f"The record does not tell where the nodes' time went{reason}.", style="dim"))
        return
    table = table_of("state", "of all nodes", "share", "on the path", "of the run", "", left=(0, 5))
    for row in rows:
        table.add_row(row.name, *explanation.state_cells(row), _bar(row, total))
    yield section("Where the time went", table)
    if run.gil_holders:
        holders = table_of("waiting it caused", "node or thread")
        for name, ns in sorted(run.gil_holders.items(), key=lambda item: -item[1])[:5]:
            holders.add_row(duration(ns), Text(one_line(name, MAX_NAME)))
        yield section("Who held the GIL while nodes waited for it", holders)


def _bar(row: StateRow, total: int) -> Text:
    """How much it is of all nodes' time, and what it is."""
    bar = Text(style="" if row.state is None else INFO[row.state].terminal)
    if row.nodes_ns and total:
        bar.append("#" * max(1, round(16 * row.nodes_ns / total)) + "  ")
    return bar.append(row.meaning, style="default")


def _slowest(explanation: Explanation) -> RenderableType:
    names = explanation.names
    table = table_of("time", "executions", "queue wait", "on the path", "mostly", "node", left=(4, 5))
    for each in explanation.slowest(SLOWEST):
        strongest = max(each.states_ns.items(), key=lambda item: item[1], default=None)
        table.add_row(
            duration(each.duration_ns),
            f"{each.executions:,}",
            duration(each.queue_ns),
            duration(each.critical_ns) if each.critical_ns else "-",
            f"{strongest[0]} {percent(strongest[1], each.duration_ns)}" if strongest and strongest[1] else "-",
            Text(one_line(each.name, MAX_NAME)),
        )
    return section(f"Slowest nodes, by total time{f' ({SLOWEST} of {names:,})' if names > SLOWEST else ''}", table)


def _curve(curve: Curve) -> RenderableType:
    table = _predictions(curve.recorded_ns, _telling(curve))
    return section("Predicted length of the run by number of workers", table, Text(curve.summary))


def _telling(curve: Curve) -> Sequence[Point]:
    """The points worth a row: powers of two, the recorded number, and the number beyond which nothing changes."""
    told = {curve.now, curve.scaling.enough_workers}
    most = 2 * max(told)
    told |= {number for number in (1, 2, 4, 8, 16, 32, 64) if number <= most}
    # Where a row says that more workers help, there is the row of those that do.
    for number in sorted(told):
        best = curve.scaling.best_beyond(number)
        if best is not None and best[1] < curve.scaling.makespan_ns.get(number, 0):
            told.add(best[0])
    return [point for point in curve.points if point.workers in told]


def _predictions(recorded_ns: int, points: Iterable[Point]) -> Table:
    table = table_of("workers", "run", "change", "limited by")
    for point in points:
        table.add_row(
            f"{point.workers:,}",
            duration(point.makespan_ns),
            change(before_ns=recorded_ns, after_ns=point.makespan_ns),
            Text(point.limit),
        )
    return table


def prediction_text(prediction: Prediction) -> Iterator[RenderableType]:
    """What `what-if` prints."""
    run, scaling = prediction.run, prediction.scaling
    yield run_line(run)
    words = prediction.settings.in_words
    heading = f"Predicted by replay{f', {one_line(words)}' if words else ''}"
    yield section(heading, _predictions(run.duration_ns, prediction.points))
    most = prediction.points[-1].workers
    if len(prediction.points) > 1 and scaling.enough_workers < most:
        yield Text(scaling.of_more_than(scaling.enough_workers))
    elif scaling.limit != "none":
        yield Text(f"Limited by {LIMITS[scaling.limit]}: {scaling.reason}.")
    for assumption in scaling.assumptions:
        yield Text(f"note: {one_line(assumption)}", style="yellow")


def difference_text(difference: Difference) -> Iterator[RenderableType]:
    """What `diff` prints: the change, what it is made of, and which nodes changed without mattering."""
    before_ns, after_ns = difference.before_ns, difference.after_ns
    changed = _changed(before_ns, after_ns)
    yield Text(f"The run took {duration(before_ns)} before and {duration(after_ns)} after: {changed}.", style="bold")
    notes = [Text(f"note: {one_line(note)}", style="yellow") for note in difference.notes]
    if notes:
        yield Group("", *notes)
    if difference.path_change_ns:
        table = table_of("before", "after", "change", "node")
        parts = list(difference.path_change_ns.items())
        on_path = {node.name: node for node in difference.nodes if node.inside is None}
        for name, by_ns in parts[:SLOWEST]:
            node = on_path.get(name)
            shown = Text(one_line(path_name(name), MAX_NAME))
            if node is not None:
                shown.append(_moved(node), style="dim")
            known = ("", "") if node is None else (_on_path(node.before), _on_path(node.after))
            table.add_row(*known, signed(by_ns), shown)
        if len(parts) > SLOWEST:
            rest = sum(by_ns for _, by_ns in parts[SLOWEST:])
            table.add_row("", "", signed(rest), Text(f"({len(parts) - SLOWEST:,} others)", style="dim"))
        yield section("The change on the critical path, by node", table)
    yield from _changed_nodes(difference)


def _on_path(total: Total) -> str:
    return duration(total.path_ns) if total.path_ns else "-"


def _moved(node: NodeDifference) -> str:
    """That a node is on one path alone, and whether it became slower or faster at that."""
    if bool(node.before.path_ns) == bool(node.after.path_ns):
        return ""
    moved = " joined the path" if node.after.path_ns else " left the path"
    how = {"same": "as long as before", "new": "new", "gone": "gone"}.get(node.kind, node.kind)
    return f"{moved}, {how}"


def _changed_nodes(difference: Difference) -> Iterator[RenderableType]:
    nodes = [node for node in difference.nodes if node.kind != "same"]
    nodes.sort(key=lambda node: -abs(node.change_ns))
    if not nodes:
        yield Group("", "The same nodes ran, and none became slower or faster by 10 % and 1 ms.")
        return
    mattering = {(node.name, node.inside) for node in difference.mattering}
    table = table_of("before", "after", "change", "mostly", "matters", "node", left=(3, 4, 5))
    for node in nodes[:SLOWEST]:
        name = Text(one_line(node.name, MAX_NAME))
        if node.inside is not None:
            name.append(f" in {one_line(node.inside, MAX_NAME)}", style="dim")
        state, by_ns = max(node.state_change_ns.items(), key=lambda item: abs(item[1]), default=("", 0))
        table.add_row(
            duration(node.before.duration_ns) if node.before.count else "-",
            duration(node.after.duration_ns) if node.after.count else "-",
            node.kind if node.kind in ("new", "gone") else signed(node.change_ns),
            f"{state} {signed(by_ns)}" if state else "-",
            "yes" if (node.name, node.inside) in mattering else "no",
            name,
        )
    of_all = f" (the first {SLOWEST} of {len(nodes):,})" if len(nodes) > SLOWEST else ""
    yield section(f"Nodes that changed{of_all}", table)


def _changed(before_ns: int, after_ns: int) -> str:
    return change(before_ns=before_ns, after_ns=after_ns).replace("none", "no change")


def table_of(*columns: str, left: Sequence[int] | None = None) -> Table:
    """Numbers to the right; texts, by default the last column, to the left."""
    texts = (len(columns) - 1,) if left is None else left
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        is_text = index in texts
        table.add_column(column, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    return table


def section(heading: str, *bodies: RenderableType) -> RenderableType:
    """A heading with what is under it."""
    return Group("", Text(heading, style="bold"), *bodies)


def _indented(body: RenderableType) -> RenderableType:
    return Padding(body, (0, 0, 0, 3), expand=False)
