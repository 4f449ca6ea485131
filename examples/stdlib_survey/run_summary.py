"""A run's spans into the few figures that tell how it went, and into what a terminal shows of them.

>>> second = 1_000_000_000
>>> nodes = (
...     NodeSpan(name="left", started_ns=0, ended_ns=2 * second, outcome="success"),
...     NodeSpan(name="right", started_ns=0, ended_ns=1 * second, outcome="success", queued_seconds=0.25),
... )
>>> summary = summarize(RunSpan(
...     name="run", trace_id="", started_ns=0, ended_ns=2 * second, outcome="success", workers=2, nodes=nodes
... ))
>>> summary.parallelism, summary.queued_p50_seconds, summary.queued_p95_seconds
(1.5, 0.0, 0.25)
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from traced_threadpool.model.formatting import duration

from .trace_lines import NodeSpan, RunSpan

NEVER_RAN = frozenset({"upstream_error", "cancelled"})
SLOWEST = 8

# The order in which states are shown; one that is not listed comes after these.
_STATES = ("cpu", "gil", "runqueue", "network", "disk", "lock", "sleep", "transfer", "remote_queue", "other")
_STYLES = {"success": "green", "error": "bold red", "upstream_error": "yellow", "cancelled": "yellow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSummary:
    """The nodes of one stage, taken together. States that were not recorded are not there."""

    stage: str
    nodes: int
    seconds: float
    state_seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """How a run went. `parallelism` is how many nodes ran at once on average."""

    nodes: int
    workers: int
    seconds: float
    node_seconds: float
    parallelism: float
    queued_p50_seconds: float
    queued_p95_seconds: float
    slowest: tuple[NodeSpan, ...]
    stages: tuple[StageSummary, ...]


def summarize(run: RunSpan) -> RunSummary:
    """Sum up the nodes that ran; those that never did count among the nodes and nowhere else."""
    ran = [node for node in run.nodes if node.outcome not in NEVER_RAN]
    node_seconds = sum(node.seconds for node in ran)
    queued = [node.queued_seconds for node in ran]
    return RunSummary(
        nodes=len(run.nodes),
        workers=run.workers,
        seconds=run.seconds,
        node_seconds=node_seconds,
        parallelism=node_seconds / run.seconds if run.seconds else 0.0,
        queued_p50_seconds=percentile(queued, 50),
        queued_p95_seconds=percentile(queued, 95),
        slowest=tuple(sorted(ran, key=lambda node: -node.seconds)[:SLOWEST]),
        stages=_stages(ran),
    )


def percentile(values: Collection[float], percent: float) -> float:
    """The smallest of the values that at least so many percent do not exceed; 0 of no values.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 50), percentile([4.0, 1.0, 3.0, 2.0], 95)
    (2.0, 4.0)
    """
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def summary_tables(summary: RunSummary) -> list[RenderableType]:
    """The run as three tables: the whole, the stages, the slowest nodes."""
    return [_whole(summary), _by_stage(summary.stages), _slowest(summary)]


def trace_tree(run: RunSpan) -> Tree:
    """The run with its node spans below it, in the order of their starts, and where their links lead."""
    tree = Tree(
        _line(
            (run.name, "bold"),
            (_duration(run.seconds), "cyan"),
            (run.outcome, _STYLES.get(run.outcome, "")),
            (f"trace {run.trace_id}", "dim"),
        )
    )
    times = Counter(node.name for node in run.nodes)
    for node in run.nodes:
        branch = f"[{node.task}]" if node.task and times[node.name] > 1 else ""
        tree.add(
            _line(
                (f"+{_duration((node.started_ns - run.started_ns) / 1e9)}", "dim"),
                (node.name, "bold"),
                (branch, "dim"),
                (_duration(node.seconds), "cyan"),
                (f"queued {_duration(node.queued_seconds)}", ""),
                (node.outcome, _STYLES.get(node.outcome, "")),
                (f"<- {_names(node.upstream)}" if node.upstream else "", "dim"),
            )
        )
    return tree


def _stages(nodes: Sequence[NodeSpan]) -> tuple[StageSummary, ...]:
    members: dict[str, list[NodeSpan]] = defaultdict(list)
    for node in nodes:
        members[node.stage].append(node)
    summaries = []
    for stage, spans in members.items():
        states: dict[str, float] = defaultdict(float)
        for span in spans:
            for state, seconds in span.state_seconds:
                states[state] += seconds
        summaries.append(
            StageSummary(
                stage=stage,
                nodes=len(spans),
                seconds=sum(span.seconds for span in spans),
                state_seconds=dict(states),
            )
        )
    return tuple(sorted(summaries, key=lambda summary: (-summary.seconds, summary.stage)))


def _whole(summary: RunSummary) -> Table:
    table = Table(title="The run as a whole", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("nodes", str(summary.nodes))
    table.add_row("workers at most", str(summary.workers))
    table.add_row("wall time", _duration(summary.seconds))
    table.add_row("sum of the nodes' durations", _duration(summary.node_seconds))
    table.add_row("parallelism (that sum / wall time)", f"{summary.parallelism:.2f}")
    table.add_row("queue wait, median", _duration(summary.queued_p50_seconds))
    table.add_row("queue wait, 95th percentile", _duration(summary.queued_p95_seconds))
    return table


def _by_stage(stages: Sequence[StageSummary]) -> Table:
    table = Table(title="Where the nodes' time went, by stage", title_justify="left")
    seen = {state for stage in stages for state in stage.state_seconds}
    states = [state for state in _STATES if state in seen] + sorted(seen.difference(_STATES))
    table.add_column("stage")
    for heading in ("nodes", "duration", *states):
        table.add_column(heading, justify="right")
    for stage in stages:
        table.add_row(
            stage.stage or "(none)",
            str(stage.nodes),
            _duration(stage.seconds),
            *(_duration(stage.state_seconds.get(state, 0.0)) for state in states),
        )
    return table


def _slowest(summary: RunSummary) -> Table:
    table = Table(title="Slowest nodes", title_justify="left")
    table.add_column("node")
    for heading in ("duration", "queued", "share of wall time"):
        table.add_column(heading, justify="right")
    for node in summary.slowest:
        table.add_row(
            node.name,
            _duration(node.seconds),
            _duration(node.queued_seconds),
            f"{node.seconds / summary.seconds:.0%}" if summary.seconds else "-",
        )
    return table


def _names(upstream: Sequence[str]) -> str:
    """Upstream nodes by name; branches of one node as a count.

    >>> _names(("total", "part", "part", "part"))
    'total, part x3'
    """
    return ", ".join(name if count == 1 else f"{name} x{count}" for name, count in Counter(upstream).items())


def _line(*parts: tuple[str, str]) -> Text:
    return Text("  ", no_wrap=True, overflow="ellipsis").join(
        Text(words, style=style) for words, style in parts if words
    )


def _duration(seconds: float) -> str:
    return duration(seconds * 1e9)
