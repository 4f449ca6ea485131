"""The one inventory of what users, dashboards and rules see: span attributes and metrics.

Prometheus names are derived from the OpenTelemetry ones: dots become underscores, the unit is appended, and
counters end in `_total`.

>>> QUEUE_WAIT.prometheus, NODES.prometheus
('hamilton_threadpool_queue_wait_seconds', 'hamilton_nodes_total')
"""

# Longer than 450 lines: it is one table of names.

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

SCOPE: Final = "traced_threadpool"
"""The instrumentation scope of all spans."""

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.33.0"
"""The version of the semantic conventions whose names are used below."""

DEFAULT_RUN_NAME: Final = "hamilton.run"

# Run span
RUN_ID: Final = "hamilton.run.id"
RUN_OUTPUTS: Final = "hamilton.run.outputs"
RUN_INPUTS: Final = "hamilton.run.inputs"
RUN_OVERRIDES: Final = "hamilton.run.overrides"
RUN_OUTCOME: Final = "hamilton.run.outcome"
RUN_NODE_COUNT: Final = "hamilton.run.node.count"
RUN_SPANS_LEFT_OUT: Final = "hamilton.run.node.spans.left_out"
RUN_PRIORITY: Final = "hamilton.run.priority"
RUN_PLACEMENT: Final = "hamilton.run.placement"
POOL_NAME: Final = "hamilton.threadpool.name"
POOL_LIMIT: Final = "hamilton.threadpool.workers.limit"
POOL_BACKENDS: Final = "hamilton.threadpool.backends"
GRAPH_VERSION: Final = "hamilton.graph.version"
RUN_CPU: Final = "hamilton.run.cpu.duration"
RUN_GIL_HOLDERS: Final = "hamilton.run.gil.holders"
RUN_STEAL: Final = "hamilton.run.steal.ratio"
ATTRIBUTION_METHOD: Final = "hamilton.attribution.method"
ATTRIBUTION_REASON: Final = "hamilton.attribution.reason"
CPUS_LIMIT: Final = "hamilton.cpus.limit"
CRITICAL_PATH: Final = "hamilton.run.critical_path"
RECORD_PROBLEMS: Final = "hamilton.run.problems"
RECORD_BESIDE: Final = "hamilton.run.beside"
CRITICAL_PATH_DURATIONS: Final = "hamilton.run.critical_path.durations"
RUN_QUEUE: Final = "hamilton.run.queue.duration"
RUN_FAILED_NODES: Final = "hamilton.run.failed_nodes"
RUN_FINDING: Final = "hamilton.run.finding"

# Queue span: a node's wait for a worker, on the critical path of its run; gap span: time there without one
QUEUE_NODE: Final = "hamilton.queue.node"
QUEUE_BEHIND: Final = "hamilton.queue.behind"
GAP_NODE: Final = "hamilton.gap.node"
# Span of steps of a large run's critical path that have no span of their own
PATH_NODES: Final = "hamilton.path.nodes"
PATH_NODE_COUNT: Final = "hamilton.path.node.count"
PATH_QUEUE: Final = "hamilton.path.queue.duration"

# Node span
NODE_NAME: Final = "hamilton.node.name"
NODE_UPSTREAM: Final = "hamilton.node.upstream"
NODE_OUTCOME: Final = "hamilton.node.outcome"
NODE_FAILED_UPSTREAM: Final = "hamilton.node.failed_upstream"
NODE_DEPENDENCY: Final = "hamilton.node.dependency.duration"
NODE_QUEUE: Final = "hamilton.node.queue.duration"
NODE_QUEUE_OTHERS: Final = "hamilton.node.queue.others.duration"
NODE_CPU: Final = "hamilton.node.cpu.duration"
NODE_BACKEND: Final = "hamilton.node.backend"
NODE_WORKER_PID: Final = "hamilton.node.worker.pid"
NODE_WORKER_HOST: Final = "hamilton.node.worker.host"
NODE_WORKER_ADDRESS: Final = "hamilton.node.worker.address"
NODE_SENT: Final = "hamilton.node.sent.size"
NODE_RECEIVED: Final = "hamilton.node.received.size"
NODE_FUNCTION_START: Final = "hamilton.node.function.start"
NODE_FUNCTION_END: Final = "hamilton.node.function.end"
NODE_ATTEMPTS: Final = "hamilton.node.attempts"
NODE_CLOCK_CORRECTION: Final = "hamilton.node.clock.correction"
NODE_LOCK_NAME: Final = "hamilton.node.lock.name"
NODE_LOCK_LINE: Final = "hamilton.node.lock.line"
NODE_LOCK_CAPACITY: Final = "hamilton.node.lock.capacity"
NODE_LOCK_WAITS: Final = "hamilton.node.lock.waits"
NODE_LOCK_FIRST: Final = "hamilton.node.lock.first"
NODE_LOCK_LAST: Final = "hamilton.node.lock.last"
NODE_SAMPLES: Final = "hamilton.node.wait.samples"
NODE_TAG_PREFIX: Final = "hamilton.node.tag."
TASK_ID: Final = "hamilton.task.id"
ATTRIBUTES_CUT: Final = "hamilton.attributes.cut"
LINK_PARAMETER: Final = "hamilton.link.parameter"

# OpenTelemetry's semantic conventions (https://opentelemetry.io/docs/specs/semconv/registry/attributes/)
THREAD_ID: Final = "thread.id"
THREAD_NAME: Final = "thread.name"
CODE_FUNCTION: Final = "code.function.name"
CODE_FILE: Final = "code.file.path"
CODE_LINE: Final = "code.line.number"
ERROR_TYPE: Final = "error.type"
CODE_STACKTRACE: Final = "code.stacktrace"
STALLED_EVENT: Final = "stalled"


def node_wait(state: str) -> str:
    """The attribute of a node's time in a state other than `cpu`.

    >>> node_wait("gil")
    'hamilton.node.wait.gil.duration'
    """
    return f"hamilton.node.wait.{state}.duration"


def run_wait(state: str) -> str:
    """The same summed over a run's nodes, on its span."""
    return f"hamilton.run.wait.{state}.duration"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a span, or of a link. Where it is one of many, the key has `<name>` where they differ."""

    key: str
    of: Literal["run", "node", "both", "queue", "link"]
    type: str
    description: str


ATTRIBUTES: Final[tuple[Attribute, ...]] = (
    Attribute(RUN_ID, "both", "string", "Hamilton's run id"),
    Attribute(POOL_NAME, "both", "string", "The adapter's `name=`"),
    Attribute(
        ATTRIBUTES_CUT,
        "both",
        "int",
        "Values of this span that are not whole, since a limit of the SDK cuts them (none: not there)",
    ),
    Attribute(RUN_OUTPUTS, "run", "string[]", "Names that were asked for"),
    Attribute(RUN_INPUTS, "run", "string[]", "Names of the inputs, never their values"),
    Attribute(RUN_OVERRIDES, "run", "string[]", "Names of the overrides, never their values"),
    Attribute(RUN_OUTCOME, "run", "string", "`success`, `error`, `cancelled`"),
    Attribute(RUN_NODE_COUNT, "run", "int", "Nodes submitted"),
    Attribute(
        RUN_SPANS_LEFT_OUT,
        "run",
        "int",
        "Nodes of a large run that have no span, if any ([large-runs.md](large-runs.md))",
    ),
    Attribute(
        RUN_PRIORITY,
        "run",
        "string",
        "Order of ready nodes: `critical_path`, `hops` (the same, nothing learned), `fifo`, `custom`",
    ),
    Attribute(
        RUN_PLACEMENT,
        "run",
        "string[]",
        'What `run_on="auto"` has sent to a backend, and why: `<node> on <backend>: <evidence>`',
    ),
    Attribute(POOL_LIMIT, "run", "int", "The limit of workers"),
    Attribute(
        POOL_BACKENDS,
        "run",
        "string[]",
        "The adapter's backends, if any: name, kind, and how many nodes may run there: `cpu processes 4`",
    ),
    Attribute(GRAPH_VERSION, "run", "string", "Hamilton's version of the graph, if it gives one"),
    Attribute(RUN_CPU, "run", "double, s", "CPU time of the run's nodes"),
    Attribute(run_wait("<state>"), "run", "double, s", "Time of the run's nodes in a state"),
    Attribute(
        RUN_GIL_HOLDERS,
        "run",
        "string[]",
        "Who held the GIL while nodes of the run waited for it, and for how long: `parse 1.69 s`",
    ),
    Attribute(RUN_STEAL, "run", "double", "Share of CPU time that a hypervisor took, over 1 %"),
    Attribute(ATTRIBUTION_METHOD, "run", "string", "How the states of nodes' time were measured"),
    Attribute(ATTRIBUTION_REASON, "run", "string", "What that lacked, if anything"),
    Attribute(CPUS_LIMIT, "run", "double", "Number of CPUs that the process may use"),
    Attribute(
        CRITICAL_PATH,
        "run",
        "string[]",
        "Names of the nodes on the run's critical path; `_queue` before a node that waited for a worker "
        "for 1 ms or longer. Of more than 100 steps the longest",
    ),
    Attribute(CRITICAL_PATH_DURATIONS, "run", "double[], s", "How long each of these steps took"),
    Attribute(RUN_QUEUE, "run", "double, s", "Sum of the time that each of the run's nodes waited for a worker"),
    Attribute(
        RUN_FINDING,
        "run",
        "string",
        "The cause that `explain` names first, such as `pool_too_small`: where finding it takes at most 1 % of the "
        "run's time and 0.5 s, and of each run that failed or was cancelled",
    ),
    Attribute(
        RUN_FAILED_NODES, "run", "string[]", "Names of the nodes that raised, in the order of their ends; 20 at most"
    ),
    Attribute(
        GAP_NODE,
        "queue",
        "string",
        "On a span `gap before <node>`: the node that had not been submitted, or waited for something that is no node",
    ),
    Attribute(QUEUE_NODE, "queue", "string", "The node that waited for a worker"),
    Attribute(
        QUEUE_BEHIND,
        "queue",
        "string",
        "The node that its worker ran meanwhile, of this or another run in the pool; its span is linked",
    ),
    Attribute(
        PATH_NODES,
        "queue",
        "string[]",
        "On a span `path <first node> to <last>` of a large run: the nodes whose time it stands for, in the order of "
        "their starts; the first 100",
    ),
    Attribute(PATH_NODE_COUNT, "queue", "int", "How many they are"),
    Attribute(PATH_QUEUE, "queue", "double, s", "How much of it they waited for workers"),
    Attribute(
        RECORD_PROBLEMS, "run", "string[]", "Only of a record that was saved: what it lacks, or what had to be repaired"
    ),
    Attribute(
        RECORD_BESIDE,
        "run",
        "boolean",
        "Only of a record that was saved: whether it is there for the sake of another run in the pool",
    ),
    Attribute(NODE_NAME, "node", "string", "The node's name"),
    Attribute(NODE_UPSTREAM, "node", "string[]", "Names of the upstream nodes, whole where the SDK truncates links"),
    Attribute(NODE_OUTCOME, "node", "string", "`success`, `error`, `upstream_error`, `cancelled`"),
    Attribute(NODE_FAILED_UPSTREAM, "node", "string", "With `upstream_error`: the node that raised"),
    Attribute(NODE_DEPENDENCY, "node", "double, s", "From being submitted to having all inputs"),
    Attribute(NODE_QUEUE, "node", "double, s", "From having all inputs to the start"),
    Attribute(NODE_QUEUE_OTHERS, "node", "double, s", "The part of that in which other runs had the workers, if any"),
    Attribute(NODE_CPU, "node", "double, s", "CPU time of the worker thread in the node"),
    Attribute(node_wait("<state>"), "node", "double, s", "Time in a state, where it is not 0"),
    Attribute(NODE_LOCK_NAME, "node", "string", "The lock it waited for, the same for all who did"),
    Attribute(NODE_LOCK_LINE, "node", "string", "The line of code that waited for it: `app.py:41`"),
    Attribute(NODE_LOCK_CAPACITY, "node", "int", "How many may have it at once, where that is known"),
    Attribute(NODE_LOCK_WAITS, "node", "int", "How often it was found to wait for it"),
    Attribute(NODE_LOCK_FIRST, "node", "double, s", "When the first of these began, after the start"),
    Attribute(NODE_LOCK_LAST, "node", "double, s", "When the last of them ended, likewise"),
    Attribute(NODE_SAMPLES, "node", "int", "Number of samples on which that division rests"),
    Attribute(NODE_BACKEND, "node", "string", "Where it ran, if not on the adapter's threads"),
    Attribute(NODE_WORKER_PID, "node", "int", "The worker process that ran it"),
    Attribute(NODE_WORKER_HOST, "node", "string", "The host of that process"),
    Attribute(NODE_WORKER_ADDRESS, "node", "string", "Its address in a cluster"),
    Attribute(NODE_SENT, "node", "int, B", "Size of the function and its arguments, as sent"),
    Attribute(NODE_RECEIVED, "node", "int, B", "Size of the result, as received"),
    Attribute(
        NODE_FUNCTION_START, "node", "double, s", "When its function began on that worker, after the node's start"
    ),
    Attribute(NODE_FUNCTION_END, "node", "double, s", "When it ended there, likewise"),
    Attribute(NODE_ATTEMPTS, "node", "int", "To how many workers it was sent"),
    Attribute(
        NODE_CLOCK_CORRECTION, "node", "double, s", "By how much the times of a worker on another host were moved"
    ),
    Attribute(f"{NODE_TAG_PREFIX}<tag>", "node", "string", "The node's tags"),
    Attribute(TASK_ID, "node", "string", "The task's id, in dynamic execution"),
    Attribute(THREAD_ID, "both", "int", "The worker thread; on the run, its caller's"),
    Attribute(THREAD_NAME, "node", "string", "Its name"),
    Attribute(CODE_FUNCTION, "node", "string", "The node's function"),
    Attribute(CODE_FILE, "node", "string", "The file that it is in"),
    Attribute(CODE_LINE, "node", "int", "The line at which it begins"),
    Attribute(
        CODE_STACKTRACE,
        "node",
        "string",
        "On the event `stalled`: files, lines and functions of the worker's stack, innermost last",
    ),
    Attribute(ERROR_TYPE, "both", "string", "The exception's type, on the run and on who raised"),
    Attribute(LINK_PARAMETER, "link", "string", "The parameter that took the upstream node's result"),
)
"""What `docs/spans.md` lists."""


OTHER_NODES: Final = "_other"
"""The `node` label of every node beyond `max_node_labels`."""

Kind = Literal["gauge", "counter", "histogram"]

DURATION_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Bounds in seconds for queue waits and nodes: three a decade where most nodes are, coarser above."""

RUN_BUCKETS: Final = (
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
)  # fmt: skip
"""Bounds in seconds for whole runs."""


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric family, itself a key of dictionaries. `unit` is the instrument's UCUM unit, `s` or none."""

    otel: str
    kind: Kind
    labels: tuple[str, ...]
    description: str
    unit: Literal["s", ""] = ""
    buckets: tuple[float, ...] = ()

    @property
    def prometheus_base(self) -> str:
        """The name without `_total`, as client libraries want it."""
        return self.otel.replace(".", "_") + ("_seconds" if self.unit == "s" else "")

    @property
    def prometheus(self) -> str:
        """The name as it is scraped (histograms: without `_bucket`, `_sum`, `_count`)."""
        return self.prometheus_base + ("_total" if self.kind == "counter" else "")


QUEUE_DEPTH: Final = Metric(
    "hamilton.threadpool.queue.depth",
    "gauge",
    ("pool", "backend"),
    "Number of nodes that have all inputs and wait for a worker.",
)
BLOCKED_NODES: Final = Metric(
    "hamilton.threadpool.blocked.nodes",
    "gauge",
    ("pool", "backend"),
    "Number of nodes that were submitted and wait for inputs.",
)
ACTIVE_WORKERS: Final = Metric(
    "hamilton.threadpool.active.workers", "gauge", ("pool", "backend"), "Number of workers that run a node."
)
WORKERS: Final = Metric(
    "hamilton.threadpool.workers",
    "gauge",
    ("pool", "backend"),
    "Number of worker threads that are alive; of a backend, of its nodes that run.",
)
MAX_WORKERS: Final = Metric(
    "hamilton.threadpool.max.workers", "gauge", ("pool", "backend"), "Largest number of nodes that run at once."
)
OLDEST_QUEUED: Final = Metric(
    "hamilton.threadpool.oldest.queued",
    "gauge",
    ("pool", "backend"),
    "Time that the longest-waiting node in the queue has waited, in seconds; 0 when the queue is empty.",
    unit="s",
)
OLDEST_ACTIVE: Final = Metric(
    "hamilton.threadpool.oldest.active",
    "gauge",
    ("pool", "backend"),
    "Time that the longest-running node has run, in seconds; 0 when none runs.",
    unit="s",
)
STALLED_NODES: Final = Metric(
    "hamilton.stalled.nodes",
    "gauge",
    ("pool",),
    "Number of running nodes that are stalled: they have run for longer than `stall_after`.",
)
QUEUE_WAIT: Final = Metric(
    "hamilton.threadpool.queue.wait",
    "histogram",
    ("pool", "backend"),
    "Time a ready node waited for a worker, in seconds.",
    unit="s",
    buckets=DURATION_BUCKETS,
)
NODE_DURATION: Final = Metric(
    "hamilton.node.duration",
    "histogram",
    ("pool", "node", "outcome"),
    "Time from a node's start to its end, in seconds.",
    unit="s",
    buckets=DURATION_BUCKETS,
)
NODES: Final = Metric(
    "hamilton.nodes",
    "counter",
    ("pool", "node", "outcome"),
    "Number of nodes that ended, including those that never ran.",
)
NODE_TIME: Final = Metric(
    "hamilton.node.time",
    "counter",
    ("pool", "node", "state"),
    "Time that nodes spent in each state, in seconds.",
    unit="s",
)
NODE_QUEUE_TIME: Final = Metric(
    "hamilton.node.queue",
    "counter",
    ("pool", "node"),
    "Time that executions of a node waited for a worker with all inputs there, in seconds.",
    unit="s",
)
NODE_STALLS: Final = Metric(
    "hamilton.node.stalls",
    "counter",
    ("pool", "node"),
    "Number of executions of a node that stalled, counted while they run.",
)
RUN_DURATION: Final = Metric(
    "hamilton.run.duration",
    "histogram",
    ("pool", "run", "outcome"),
    "Time from the call of execute to the end of the run's last node, in seconds.",
    unit="s",
    buckets=RUN_BUCKETS,
)
RUNS_ACTIVE: Final = Metric(
    "hamilton.runs.active", "gauge", ("pool", "run"), "Number of runs that have started and not ended."
)
RUN_LAST_SUCCESS: Final = Metric(
    "hamilton.run.last.success.timestamp",
    "gauge",
    ("pool", "run"),
    "Unix time at which the last successful run ended, in seconds.",
    unit="s",
)
CRITICAL_PATH_TIME: Final = Metric(
    "hamilton.run.critical.path",
    "counter",
    ("pool", "run", "node"),
    "Time that each node was on the critical path, in seconds; waits between nodes start with `_`.",
    unit="s",
)
QUEUED_BEHIND: Final = Metric(
    "hamilton.run.queued.behind",
    "counter",
    ("pool", "run", "node"),
    "Time that the critical path waited for a worker that had this node, in seconds.",
    unit="s",
)
GIL_PROBE_WAIT: Final = Metric(
    "hamilton.gil.probe.wait",
    "counter",
    (),
    "Time that a probe, 20 times a second while nodes run, waited for the GIL, in seconds.",
    unit="s",
)
ATTRIBUTION: Final = Metric(
    "hamilton.attribution.info",
    "gauge",
    ("method", "reason"),
    "Always 1; the labels say how the states of nodes' time are measured, and what that lacks.",
)
SPANS_LOST: Final = Metric(
    "hamilton.telemetry.spans.lost",
    "counter",
    ("stage",),
    "Number of spans that were created and not delivered, by where they were lost.",
)
TELEMETRY_ERRORS: Final = Metric(
    "hamilton.telemetry.errors",
    "counter",
    ("component",),
    "Number of failures inside telemetry; they never fail a node.",
)

METRICS: Final[tuple[Metric, ...]] = tuple(each for each in [*globals().values()] if isinstance(each, Metric))
"""All of the above, in that order."""
