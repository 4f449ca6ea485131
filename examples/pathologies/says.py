"""A recorded run into what the tool says of it: tables for a terminal, problems of the record, the first finding.

Where nobody could tell states apart, those that are not known are shown as such; their time is then in `other`.
"""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from traced_threadpool.analysis.diagnosis.diagnose import Diagnosis, diagnose
from traced_threadpool.model.formatting import duration
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.states import STATES

SLOWEST = 5
UNKNOWN = "unknown"
NOT_ATTRIBUTED = "none"


def what_the_tool_says(run: RecordedRun) -> list[RenderableType]:
    """The run as a whole, its time by state, slowest nodes, who held the GIL if anybody waited for it, the cause."""
    said: list[RenderableType] = [_whole(run), _by_state(run), _slowest(run)]
    if run.gil_holders:
        said.append(_gil_holders(run.gil_holders))
    return [*said, *map(escape, run.problems), _first_finding(diagnose(run))]


def seconds_by_state(nodes: Sequence[NodeExecution]) -> dict[str, float]:
    """The sum over these nodes of each state that is known of any of them.

    >>> times = {"submitted_ns": 0, "ready_ns": 0, "started_ns": 0, "ended_ns": 2 * 10**9}
    >>> one = NodeExecution(key="a", name="one", **times, states={"cpu": 5 * 10**8})
    >>> other = NodeExecution(key="b", name="other", **times, states={"disk": 2 * 10**9})
    >>> seconds_by_state([one, other])
    {'cpu': 0.5, 'disk': 2.0}
    """
    known = [state for state in STATES if any(state in node.states for node in nodes)]
    return {state: sum(node.states.get(state, 0) for node in nodes) / 1e9 for state in known}


def queued_seconds(run: RecordedRun) -> float:
    """How long nodes that could have run had no worker, added up."""
    return sum(node.queue_ns for node in run.nodes) / 1e9


def _whole(run: RecordedRun) -> Table:
    table = Table(title="The run", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("duration", duration(run.duration_ns))
    table.add_row("outcome", run.outcome)
    table.add_row("nodes", str(len(run.nodes)))
    table.add_row("workers at most", UNKNOWN if run.max_workers is None else str(run.max_workers))
    table.add_row("CPUs", UNKNOWN if run.cpus is None else str(run.cpus))
    reason = f" ({run.attribution_reason})" if run.attribution_reason else ""
    table.add_row("states told apart by", f"{run.attribution}{reason}")
    return table


def _by_state(run: RecordedRun) -> Table:
    known = seconds_by_state(run.nodes)
    total = sum(node.duration_ns for node in run.nodes) / 1e9
    table = Table(title="Where the nodes' time went, all nodes together", title_justify="left")
    table.add_column("state")
    table.add_column("time", justify="right")
    table.add_column("share", justify="right")
    for state in STATES:
        if state in known or run.attribution != NOT_ATTRIBUTED:
            seconds = known.get(state, 0.0)
            table.add_row(state, duration(seconds * 1e9), f"{seconds / total:.0%}" if total else "-")
        else:
            table.add_row(state, UNKNOWN, "")
    table.add_section()
    table.add_row("all states", duration(total * 1e9), "")
    table.add_row("in the queue, before", duration(queued_seconds(run) * 1e9), "")
    return table


def _slowest(run: RecordedRun) -> Table:
    table = Table(title="The slowest nodes", title_justify="left")
    table.add_column("node")
    for heading in ("duration", "queued"):
        table.add_column(heading, justify="right")
    table.add_column("states")
    for node in sorted(run.nodes, key=lambda node: -node.duration_ns)[:SLOWEST]:
        table.add_row(node.name, duration(node.duration_ns), duration(node.queue_ns), _states(node))
    return table


def _states(node: NodeExecution) -> str:
    largest = sorted(((held, state) for state, held in node.states.items() if held), reverse=True)
    return ", ".join(f"{state} {duration(held)}" for held, state in largest)


def _gil_holders(holders: Mapping[str, int]) -> Table:
    table = Table(title="Who held the GIL while nodes waited for it", title_justify="left")
    table.add_column("node, or thread outside of the pool")
    table.add_column("waiting that it caused", justify="right")
    for holder, held in sorted(holders.items(), key=lambda row: -row[1])[:SLOWEST]:
        table.add_row(holder, duration(held))
    return table


def _first_finding(diagnosis: Diagnosis) -> RenderableType:
    first = diagnosis.findings[0]
    bullets = Table.grid()
    for evidence in first.evidence:
        bullets.add_row("- ", Text(evidence))
    return Group(Text(f"First finding: {first.cause}", style="bold"), bullets, Text(first.advice))
