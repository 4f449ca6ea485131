"""The dashboard on nodes: which node, and what does it wait for?"""

from __future__ import annotations

from dashboards.generate import queries as q
from dashboards.generate.boards import board
from dashboards.generate.panels import (
    OF_ROW,
    OF_SERIES,
    STATE_COLOURS,
    bars,
    heat_map,
    rising,
    rows,
    time_series,
    trace_links,
)
from dashboards.generate.panels import Column as C


def nodes() -> str:
    """Its JSON."""
    links = trace_links(OF_SERIES)
    return board(
        uid="hamilton-nodes",
        title="Hamilton: nodes",
        description="Which node is slow, fails, or governs the runs, and what does it wait for?",
        variables=("datasource", "pool", "run", "node", "jaeger", "tempo", "service"),
        since="now-3h",
        rows=(
            (
                "RED: rate, errors, duration",
                (
                    time_series(
                        "Executions a second",
                        "The twenty most frequent nodes. A node that stands out may be worth doing once for many.",
                        q.NODE_RATE,
                        links=links,
                        width=8,
                    ),
                    time_series(
                        "Not successful, by outcome",
                        "error: the node raised. upstream_error: a node before it raised, so look for an error at the "
                        "same time. cancelled: the run was stopped. Click a series for its spans.",
                        q.NODE_OUTCOMES,
                        stacked=True,
                        links=links,
                        width=8,
                    ),
                    time_series(
                        "Duration, 95th percentile",
                        "The twenty slowest nodes, to within a bucket. A step up that stays is a change of code or "
                        "data: compare two traces with traced-threadpool diff.",
                        q.NODE_DURATION_P95,
                        links=links,
                        width=8,
                    ),
                    heat_map(
                        "Duration of the nodes chosen above",
                        "Each column is a moment, darker cells hold more executions. Two bands are two kinds of input, "
                        "or a cache. Points are traces: click one, and it opens in Jaeger or Tempo.",
                        q.NODE_DURATION_HEATMAP,
                        width=24,
                    ),
                ),
            ),
            (
                "Where the time goes",
                (
                    time_series(
                        "Nodes at work, by state",
                        "The height is how many nodes run on average; the colours are what they do. cpu computes; gil "
                        "and runqueue want to, and wait for the GIL and for a CPU; network, disk "
                        "and lock wait for these; other could not be told. The tallest colour is what to work on "
                        "(docs/waits.md).",
                        q.TIME_BY_STATE,
                        stacked=True,
                        colours=STATE_COLOURS,
                    ),
                    rows(
                        "Nodes and what they wait for",
                        "Seconds by node and state over the time shown, the largest first. Click a node for its spans; "
                        "one with much gil holds up nobody by itself: hamilton.run.gil.holders on the run's span says "
                        "who held the lock.",
                        C(title="Node", label="node", links=trace_links(OF_ROW)),
                        C(title="State", label="state"),
                        C(title="Time", query=q.NODE_STATES),
                        sorted_by="Time",
                        width=12,
                    ),
                ),
            ),
            (
                "What governs the runs' duration",
                (
                    bars(
                        "Share of the critical path",
                        "Only time on the critical path makes runs longer. Names with an underscore are waits: _queue "
                        "for a worker (more workers help), _dependency and _outside for what is not a node of the "
                        "pool. Making a node with a share of 30 % twice as fast shortens runs by up to 15 %.",
                        q.CRITICAL_SHARE,
                        limits=rising(0.25, 0.5),
                        highest=1,
                        links=links,
                    ),
                    time_series(
                        "Seconds on the critical path a second",
                        "The same over time, for the runs and nodes chosen above. A node that enters from below has "
                        "just become the bottleneck.",
                        q.CRITICAL_SECONDS,
                        stacked=True,
                        links=links,
                    ),
                ),
            ),
            (
                "Queued: which node waits for a worker, and behind whom",
                (
                    time_series(
                        "Nodes that wait for a worker",
                        "How many executions of each node wait on average, their inputs there. All of them high: the "
                        "pool is too small or shared with other runs. One alone: it is made ready in bursts.",
                        q.NODE_QUEUED,
                        stacked=True,
                        links=links,
                    ),
                    bars(
                        "Queued behind whom",
                        "Seconds that the critical path waited for a worker, by the node that had the worker, over the "
                        "time shown. The longest bar is the node to make shorter or to move to a backend of its own; "
                        "bars of one length mean more workers. In a trace, spans queued ... link to that node.",
                        q.QUEUED_BEHIND,
                        limits=rising(5, 60),
                        links=links,
                    ),
                ),
            ),
            (
                "Slowest and most variable",
                (
                    rows(
                        "Slowest nodes",
                        "Over the time shown. Sort by Total for what costs most, by p95 for what is slow when it is "
                        "slow. Click a node for its spans.",
                        C(title="Node", label="node", links=trace_links(OF_ROW)),
                        C(title="Executions", query=q.SLOWEST_EXECUTIONS),
                        C(title="Mean", query=q.SLOWEST_MEAN),
                        C(title="p95", query=q.SLOWEST_P95),
                        C(title="Total", query=q.SLOWEST_TOTAL),
                        sorted_by="Total",
                        width=14,
                    ),
                    bars(
                        "Most variable nodes",
                        "99th percentile over median, to within a bucket. 1 to 3 is even; 10 and more waits for "
                        "something now and then, or has inputs of very different size: look at its state table and at "
                        "its slowest traces.",
                        q.MOST_VARIABLE,
                        limits=rising(5, 20),
                        links=links,
                        width=10,
                    ),
                    time_series(
                        "Median duration",
                        "The twenty nodes with the longest median. If the median moves, every execution does: data "
                        "grew, or what the node calls became slower.",
                        q.NODE_DURATION_P50,
                        links=links,
                        width=24,
                    ),
                ),
            ),
        ),
    )
