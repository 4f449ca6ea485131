"""The dashboard on pools: is one saturated, and would more workers help?"""

from __future__ import annotations

from dashboards.generate import queries as q
from dashboards.generate.boards import board
from dashboards.generate.panels import Column as C
from dashboards.generate.panels import heat_map, number, rising, rows, time_series


def pools() -> str:
    """Its JSON."""
    return board(
        uid="hamilton-pools",
        title="Hamilton: pools",
        description="Is a pool saturated, and would more workers help?",
        variables=("datasource", "pool", "run"),
        since="now-1h",
        rows=(
            (
                "At a glance",
                (
                    number(
                        "Workers busy",
                        "Share of the workers that run a node now. Near 100 % with a queue: too few workers, or "
                        "something holds them. Near 100 % without one: just enough.",
                        q.SATURATION,
                        limits=rising(0.8, 0.95),
                    ),
                    number(
                        "Queue wait, 95th percentile",
                        "One node in twenty waits at least this long for a worker. Compare it with how long nodes run: "
                        "if it is longer, runs spend most of their time waiting.",
                        q.QUEUE_WAIT_P95,
                        limits=rising(1, 5),
                    ),
                    number(
                        "Oldest in the queue",
                        "How long the node that waits longest has waited. If it grows by a second a second, no worker "
                        "comes free: look at the longest running.",
                        q.OLDEST_QUEUED,
                        limits=rising(60, 300),
                    ),
                    number(
                        "Longest running",
                        "Age of the node that has run longest. If it is far beyond what nodes take, it hangs: "
                        "traced-threadpool live URL --stacks shows where.",
                        q.OLDEST_ACTIVE,
                        limits=rising(300, 1800),
                    ),
                    number(
                        "Nodes that fail",
                        "Share of the nodes that ran and raised. The Nodes dashboard says which.",
                        q.NODE_ERROR_RATIO,
                        limits=rising(0.001, 0.01),
                    ),
                    number(
                        "Runs under way",
                        "Executions that have begun and not ended. If it only ever grows, more are started than the "
                        "pool can do.",
                        q.RUNS_ACTIVE,
                        limits=((None, "blue"),),
                    ),
                ),
            ),
            (
                "USE: utilization",
                (
                    time_series(
                        "Busy workers and their limit",
                        "Busy is a glance at each scrape, mean is exact (the rate of the nodes' durations, counted "
                        "when they end). At the limit for long: raise max_workers if queue depth is above 0 and the "
                        "GIL is not the wall.",
                        q.ACTIVE_WORKERS,
                        q.MEAN_RUNNING,
                        q.WORKER_THREADS,
                        q.WORKER_LIMIT,
                    ),
                    time_series(
                        "Share of workers busy",
                        "Saturation over time. A plateau at 100 % is a pool that is too small; a sawtooth is work in "
                        "bursts, which a larger pool would shorten.",
                        q.SATURATION,
                        limits=rising(0.8, 0.95),
                        highest=1,
                    ),
                ),
            ),
            (
                "USE: saturation",
                (
                    time_series(
                        "Queue depth, now and mean",
                        "Nodes that could run and have no worker. Mean is exact (the rate of the waits' sum). Steadily "
                        "above 0: more workers would help. Now high and mean low: a burst that has passed, or nodes "
                        "that still wait.",
                        q.QUEUE_DEPTH,
                        q.MEAN_QUEUE_DEPTH,
                    ),
                    time_series(
                        "Nodes blocked on their inputs",
                        "Submitted, and waiting for other nodes. High while the queue is empty: the DAG's shape is the "
                        "limit, and no worker would help; shorten the critical path (Nodes dashboard).",
                        q.BLOCKED_NODES,
                    ),
                    heat_map(
                        "Queue wait",
                        "How long nodes waited for a worker: each column is a moment, darker cells hold more nodes. A "
                        "dark band that climbs is a queue that grows. Points are traces: click one to open it.",
                        q.QUEUE_WAIT_HEATMAP,
                    ),
                    time_series(
                        "Queue wait, percentiles",
                        "Half, 95 % and 99 % of the nodes wait at most this long (to within a bucket). p50 near 0 and "
                        "p99 high: bursts. All high: too few workers, all the time.",
                        q.QUEUE_WAIT_P50,
                        q.QUEUE_WAIT_P95,
                        q.QUEUE_WAIT_P99,
                        limits=rising(1, 5),
                    ),
                    time_series(
                        "Oldest queued and longest running",
                        "Ages. A straight line upwards is one node that does not move: the longest running holds its "
                        "worker, the oldest queued waits behind such ones.",
                        q.OLDEST_QUEUED,
                        q.OLDEST_ACTIVE,
                    ),
                    time_series(
                        "Stalled nodes",
                        "Running for longer than stall_after, or five times what they usually take. Above 0: the log "
                        "has each one's stack and what it waits for, and /live shows them now.",
                        q.STALLED_NODES,
                        limits=rising(1, 1),
                    ),
                ),
            ),
            (
                "USE: errors",
                (
                    time_series(
                        "Share of nodes that fail",
                        "Of the nodes that ran, those that raised. Nodes that never ran because of it are not counted "
                        "here; they are in the rates below.",
                        q.NODE_ERROR_RATIO,
                        limits=rising(0.001, 0.01),
                        width=8,
                    ),
                    time_series(
                        "Failures of telemetry itself",
                        "They never fail a node, but make these dashboards lie. Above 0: the program's log has the "
                        "first of each component; often an exporter that cannot reach its collector.",
                        q.TELEMETRY_ERRORS,
                        limits=rising(1e-9, 0.1),
                        width=8,
                    ),
                    time_series(
                        "Spans lost",
                        "Made, and never arrived: queue is full (they come faster than they can be sent), endpoint "
                        "does not take them, file cannot be written (a full disk), adapter has more waiting than it "
                        "may. Above 0: traces have holes until it is fixed.",
                        q.SPANS_LOST,
                        limits=rising(1e-9, 1),
                        width=8,
                    ),
                ),
            ),
            (
                "RED: rate, errors, duration of nodes",
                (
                    time_series(
                        "Nodes ended a second",
                        "By outcome: error raised, upstream_error never ran because another raised, cancelled never "
                        "ran because the run was stopped. A fall with a full queue: nodes have become slower.",
                        q.NODES_PER_SECOND,
                        stacked=True,
                    ),
                    time_series(
                        "How long nodes run",
                        "Median and 99th percentile over all nodes of the pool. If they rise together with the number "
                        "of busy workers, nodes are in each other's way: see the GIL below.",
                        q.POOL_NODE_DURATION_P50,
                        q.POOL_NODE_DURATION_P99,
                    ),
                ),
            ),
            (
                "The GIL",
                (
                    time_series(
                        "Probe's wait for the lock",
                        "Share of time that a probe waited for the GIL; one thread that computes all the "
                        "time gives about 9 %. It tells of the whole process, nodes or not.",
                        q.GIL_PROBE_WAIT,
                        limits=rising(0.05, 0.2),
                    ),
                    time_series(
                        "Nodes' share of time in wait for the lock",
                        "How much nodes suffer. Above 25 %, more workers make it worse: move what computes in Python "
                        "to processes, or to a library that lets go of the lock. No data: no wait was seen, or the "
                        "states cannot be told apart here (next panel).",
                        q.GIL_SHARE,
                        limits=rising(0.1, 0.25),
                        highest=1,
                    ),
                    rows(
                        "How waits are told apart",
                        "The way in which each process finds out where its nodes' time goes, and what it lacks "
                        "(docs/waits.md). With a reason, some waits are under other.",
                        C(title="Method", label="method"),
                        C(title="Reason", label="reason"),
                        C(title="Processes", query=q.ATTRIBUTION),
                        sorted_by="Processes",
                    ),
                ),
            ),
        ),
    )
