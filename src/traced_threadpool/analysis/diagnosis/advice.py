"""All words of a diagnosis, by cause: title, meaning, the sentences of evidence, and the advice. Nowhere else are any.

A sentence has places for what a detector fills in; durations, shares and names come as people read them.

>>> CAUSES_IN_WORDS["gil_bound"].title
'GIL-bound'
>>> CAUSES_IN_WORDS["sleeping_node"].says("replay", source="replay", instead="100 ms instead of 1.00 s")
'replay: if nobody slept, 100 ms instead of 1.00 s'
>>> finding = Finding(
...     cause="slow_network", nodes=("fetch",), evidence=("90 % on a socket",), advice="Cache.", gain_seconds=1.5
... )
>>> title(finding), tone(finding)
('Slow network: fetch', 'plain')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from traced_threadpool.analysis.diagnosis.causes import Cause, Finding
from traced_threadpool.model.formatting import MAX_NAME, duration, listed, one_line, percent
from traced_threadpool.model.recorded_run import RecordedRun

Tone = Literal["bad", "good", "plain"]
"""Whether something is broken, all is well, or something could be faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseInWords:
    """What is said of one cause. `evidence` and `advice` have a sentence under each key that its detector uses."""

    title: str
    meaning: str
    tone: Tone = "plain"
    evidence: Mapping[str, str]
    advice: Mapping[str, str]

    def says(self, key: str, **filled_in: object) -> str:
        """A sentence of evidence."""
        return self.evidence[key].format(**filled_in)

    def advises(self, key: str, **filled_in: object) -> str:
        """The advice."""
        return self.advice[key].format(**filled_in)


_MOST: Final = ": {of_nodes}; most of it {most}"
_ON_PATH: Final = "on the critical path: {of_run}"

CAUSES_IN_WORDS: Final[Mapping[Cause, CauseInWords]] = {
    "failing_upstream": CauseInWords(
        title="A node failed",
        meaning="a node raised an exception, and what depends on it never ran",
        tone="bad",
        evidence={
            "raised": "{node} raised {error} after {duration}",
            "raised_saying": "{node} raised {error} after {duration}: {message}",
            "many": "{many} nodes raised in total",
            "run": "the run ended with {error} after {duration}",
            "all_ran": "all other nodes ran",
            "never_ran": "{stopped} of {nodes} never ran, since a node upstream of them failed: {names}",
            "cancelled": "{cancelled} more had not started and were cancelled: {names}",
        },
        advice={
            "nodes": "Fix {nodes} first. How long the run would take without the failure, the record cannot tell.",
            "elsewhere": "No node in the record raised. Check what is done with the results, and whether spans are "
            "missing.",
        },
    ),
    "cancelled": CauseInWords(
        title="The run was stopped",
        meaning="the run was stopped before all its nodes were done",
        tone="bad",
        evidence={"stopped": "the run was stopped after {duration}; {never_ran} of {nodes} had not started"},
        advice={"": "The record shows the beginning of a run only. Explain a run that was not stopped."},
    ),
    "telemetry_loss": CauseInWords(
        title="The record is incomplete",
        meaning="the record lacks nodes, or where their time went",
        tone="bad",
        evidence={
            "missing": "{missing} of {nodes} ({share}) are not in the record",
            "waited": "{share} of the run is waiting for what the record does not hold",
            "many": "{many} problems of the record in total",
            "path": "the critical path: {most}",
            "nothing": "{ran} of {nodes} ran, in {duration}",
            "unknown": "what nodes did is not in the record for {of_run}{reason}",
            "durations": "by their durations alone nothing stands out; {at_once} nodes ran at once on average",
        },
        advice={
            "missing": "Check that all spans of a run arrive: a longer queue in the span processor "
            "(OTEL_BSP_MAX_QUEUE_SIZE), a flush before the program ends, a sampler that takes whole traces. All other "
            "findings rest on the nodes that are there.",
            "left_out": "Shorten the critical path, which is shown above. What fewer waits or more workers would "
            "gain, these spans cannot tell: replay the run in the process, FutureAdapter(record=True), or record it "
            "with Tracing(large_run=None).",
            "problems": "All other findings rest on what is in the record.",
            "nothing": "There is nothing to explain: choose a run that executed nodes.",
            "unknown": "Whether nodes waited for the GIL, a CPU, the network, the disk or a lock, or slept, cannot be "
            "said. Record a longer run, on Linux, with attribution on.",
        },
    ),
    "queued_behind_other_runs": CauseInWords(
        title="Queued behind other runs",
        meaning="ready nodes wait for a worker while nodes of other runs have the pool's workers",
        evidence={
            "queued": "{nodes} waited for a worker behind other runs, {total} in total, {share} of the queue waits "
            "({queued})",
            "on_path": _ON_PATH,
            "who": "who had the workers meanwhile: {runs}; most of it {most}",
            "unknown": "who had the workers meanwhile is not in the record",
            "alone": "{source}: without the other runs, {instead}",
            "alone_too": "without the other runs it would take {alone}",
            "workers": "{source}: with the other runs and {workers}, {instead}",
        },
        advice={
            "workers": "Set max_workers={workers} for all runs together, or give runs that must be quick a pool of "
            "their own.",
            "apart": "Give runs that must be quick a pool of their own, or start fewer runs at once.",
        },
    ),
    "gil_bound": CauseInWords(
        title="GIL-bound",
        meaning="nodes wait for the GIL while other threads hold it",
        evidence={
            "waited": "waiting for the GIL" + _MOST,
            "holders": "who held the GIL meanwhile: {most}",
            "replay": "{source}: if nobody waited for it, {instead}",
            "processes": "{source}: with {nodes} on {processes} worker processes, {instead}; even if moving arguments "
            "and results took {moving} for each execution, {moved}",
        },
        advice={
            "processes": "Run {nodes} on worker processes: backends={{'cpu': Processes({processes})}} and run_on= (or "
            "run_on='auto', which measures what moving takes); or use a library that releases the GIL (NumPy, Polars, "
            "Arrow).",
            "nodes": "In {nodes}, compute less in Python, or use a library that releases the GIL (NumPy, Polars, "
            "Arrow). Worker processes would gain too little here.",
            "nodes_short_of_cpus": "In {nodes}, compute less in Python, or use a library that releases the GIL (NumPy, "
            "Polars, Arrow). Nodes wait for a CPU too, and worker processes add none: what-if --run-on tells what they "
            "would gain.",
            "nodes_on_workers": "In {nodes}, on worker processes, let one thread compute: others of the same process "
            "have its GIL meanwhile. Or use a library that releases it (NumPy, Polars, Arrow).",
            "threads": "Keep thread {threads} from computing in this process while nodes run.",
        },
    ),
    "processor_starved": CauseInWords(
        title="CPU-starved",
        meaning="nodes are ready to compute, and wait for a CPU",
        evidence={
            "waited": "waiting for a CPU" + _MOST,
            "used": "nodes use {share} of {cpus}",
            "replay": "{source}: with {cpus} CPUs, {instead}",
            "replay_others": "{source}: if they had not waited for a CPU, {instead}",
        },
        advice={
            "more": "Give the program more CPUs (check the container's CPU limit first), or let {nodes} compute less.",
            "others": "Check what else runs on the machine, and the container's CPU limit: the nodes alone would not "
            "use up the CPUs.",
        },
    ),
    "lock_contention": CauseInWords(
        title="Lock contention",
        meaning="nodes wait for a lock that another thread holds",
        evidence={
            "waited": "waiting for a lock" + _MOST,
            "meet": "{nodes} meet at {lock}, which one node at a time may have: held for {share} of their own time",
            "meet_more": "{nodes} meet at {lock}, which {capacity} nodes at a time may have: held for {share} of their "
            "own time",
            "on_path": _ON_PATH,
            "replay": "{source}: if nobody waited for a lock, {instead}",
        },
        advice={
            "": "Find the lock that {nodes} wait for. Give each thread its own client or connection, or hold the lock "
            "briefly, and never while waiting for something else.",
            "found": "See what {lines} waits for. Give each thread its own client or connection, or hold the lock "
            "briefly, and never while waiting for something else.",
            "more": "Let more than {capacity} at a time through at {lines}, if what is behind it bears that; or hold "
            "it briefly, and never while waiting for something else.",
        },
    ),
    "sleeping_node": CauseInWords(
        title="Sleeping",
        meaning="a node sleeps",
        evidence={
            "waited": "sleeping" + _MOST,
            "on_path": _ON_PATH,
            "replay": "{source}: if nobody slept, {instead}",
        },
        advice={
            "": "Find the sleep in {nodes}: the pause between retries, a polling loop, a rate limit. Wait for the "
            "event itself, or sleep less.",
        },
    ),
    "pool_too_small": CauseInWords(
        title="The pool is too small",
        meaning="ready nodes wait for a free worker",
        evidence={
            "queued": "{nodes} waited for a worker, {total} in total; at most {most} ran at once{allowed}",
            "on_path": _ON_PATH,
            "replay": "{source}: with {workers}, {instead}",
            "replay_unknown": "{source}: with {workers}, {instead}, if the nodes wait and do not compute, which the "
            "record does not tell",
        },
        advice={
            "": "Set max_workers={workers}. {of_more}",
            "one_at_a_time": "Set max_workers={workers}. {of_more} It gains less if nodes share a lock: with one at a "
            "time none waits for it.",
        },
    ),
    "straggler": CauseInWords(
        title="Straggler",
        meaning="one node takes much longer than its siblings, and the run waits for it",
        evidence={
            "takes": "{node} takes {own}{without}; the median of its {siblings} siblings is {median}",
            "times": "{node} takes {own}{without}, {times} times as long as its siblings: the median of the other "
            "{siblings} is {median}",
            "state": "most of it is {state}, {duration}",
            "on_path": _ON_PATH,
            "replay": "{source}: if it took as long as its siblings, {instead}",
        },
        advice={
            "": "Check what {node} does that its siblings do not. Split it into parts of equal size, or start it "
            "first.",
        },
    ),
    "slow_network": CauseInWords(
        title="Slow network",
        meaning="nodes spend most of their time waiting for the network",
        evidence={
            "waited": "waiting for the network" + _MOST,
            "on_path": _ON_PATH,
            "replay": "{source}: if that took half as long, {instead}",
        },
        advice={
            "": "In {nodes}, request less data, batch requests, prefetch, or cache responses; or make the service "
            "faster.",
        },
    ),
    "slow_disk": CauseInWords(
        title="Slow disk",
        meaning="nodes spend most of their time waiting for the disk",
        evidence={
            "waited": "waiting for the disk" + _MOST,
            "on_path": _ON_PATH,
            "replay": "{source}: if that took half as long, {instead}",
        },
        advice={
            "": "In {nodes}, read and write larger blocks, and sync once for many writes; or use a faster disk.",
        },
    ),
    "transfer_bound": CauseInWords(
        title="Transfer-bound",
        meaning="moving arguments and results to a backend and back takes longer than what is gained there",
        evidence={
            "moved": "moving to a backend and back" + _MOST,
            "sizes": "{size} for each of {executions}",
            "on_path": _ON_PATH,
            "replay": "{source}: if nothing had to be moved, {instead}",
            "back": "{source}: with {nodes} on threads, {instead}",
        },
        advice={
            "less": "Let {nodes} hand on less: a path or a key rather than the data, a summary rather than the whole; "
            "or make one node of those that hand large values to each other.",
            "threads": "Run {nodes} on threads: take them out of run_on=, or their @run_on.",
        },
    ),
    "too_small_for_backend": CauseInWords(
        title="Nodes too small for their backend",
        meaning="nodes on a backend compute for less time than it takes to call them there",
        evidence={
            "short": "{executions} of {nodes} on a backend compute for {computing} each, and take {whole}",
            "back": "{source}: with {nodes} on threads, {instead}",
        },
        advice={
            "": "Run {nodes} on threads, or make fewer and larger nodes of them: a call to another process takes about "
            "0.4 ms, to a Dask cluster 4 to 13 ms.",
        },
    ),
    "remote_queue_bound": CauseInWords(
        title="Waiting for a backend",
        meaning="nodes wait for a free worker of their backend, or for its limit to let them run",
        evidence={
            "waited": "waiting for a worker of a backend" + _MOST,
            "held": "{nodes} of backend {backends} were ready and held back, {total} in total",
            "lane": "lane {lane} lets {most} run at once: {held} of it were ready and held back, {total} in total",
            "on_path": _ON_PATH,
            "replay": "{source}: if nobody waited for such a worker, {instead}",
            "processes": "{source}: with {processes} worker processes, {instead}",
            "wider": "{source}: if lane {lane} let {more} run at once, {instead}",
            "wider_or_twice": "{source}: if lane {lane} let {more} run at once, {instead}; with {twice}, {then}",
        },
        advice={
            "": "Add workers to the backend of {nodes}, or keep other work from it.",
            "starting": "Judge a later run: on worker processes this is the time in which they start, for their first "
            "nodes, after idle_seconds= without any and after max_tasks_per_worker=; or another adapter has them. More "
            "of them would not start sooner.",
            "processes": "Set Processes(max_workers={processes}).",
            "lane": "Set {kind}(max_workers={more}) for lane {lane}, if what its nodes use bears so many at once: the "
            "limit may be there for a database's connections, a service's rate limit, or memory, and the replay "
            "takes that to be as fast as before.",
        },
    ),
    "critical_path": CauseInWords(
        title="Critical path (dependency-bound)",
        meaning="a chain of nodes that depend on each other fills the run",
        evidence={
            "chain": "{nodes} in a row: {of_run}; most of it {most}",
            "states": "what they do: {most}",
            "at_once": "{at_once} nodes ran at once on average",
            "replay": "{source}: if these nodes were twice as fast, {instead}",
        },
        advice={
            "": "Make {nodes} faster, run independent parts in parallel, or start the chain earlier.",
        },
    ),
    "outside_nodes": CauseInWords(
        title="Time outside of nodes",
        meaning="the run's time passes outside of its nodes",
        evidence={
            "outside": "outside of nodes: {of_run}",
            "inside": "in nodes, and waiting for them: {of_run}",
        },
        advice={
            "": "Check what the caller does within the run: its result builder, the hooks of other adapters, "
            "Hamilton's own work for each node. Merge nodes that take next to no time.",
        },
    ),
    "pool_too_large": CauseInWords(
        title="The pool is too large",
        meaning="many nodes run at once, and only contend with each other",
        evidence={
            "at_once": "at most {most} nodes ran at once, {at_once} on average",
            "waited": "waiting for the GIL or a CPU: {of_nodes}",
            "replay": "{source}: with {workers}, {instead}",
        },
        advice={
            "": "Set max_workers={workers}. Nodes then compute one after the other instead of taking turns, and fewer "
            "results and arguments are in memory at once.",
        },
    ),
    "switch_interval": CauseInWords(
        title="I/O nodes wait for nodes that hold the GIL",
        meaning="nodes that wait for the network, a disk or a timer get the GIL late when they wake up",
        evidence={
            "waited": "{nodes} that mostly wait for the network, a disk or a timer spent {waited} more waiting for the "
            "GIL, {share} of their time; most of it {most}",
            "holders": "who held the GIL meanwhile: {most}",
        },
        advice={
            "": "Call sys.setswitchinterval(0.0005) at the program's start: who holds the GIL gives it away after 0.5 "
            "ms, and not after 5 ms, which is the default. It is a setting of the whole process.",
        },
    ),
    "healthy": CauseInWords(
        title="Healthy: nothing stands out",
        meaning="nothing stands out, and no setting would help",
        tone="good",
        evidence={
            "nodes": "{nodes} in {duration}, {at_once} at once on average",
            "waits": "of the nodes' time, {gil} is waiting for the GIL, {runqueue} for a CPU, {lock} for a lock, and "
            "{sleep} is sleep",
            "replay": "{source}: with more than {workers}, {instead}",
        },
        advice={
            "": "Leave it as it is: nothing that was replayed makes it {share} shorter. {of_more}",
        },
    ),
}

MORE_WORKERS_CANNOT_HELP: Final = "More workers cannot help."
"""After the advice for a cause that is none of the pool, where the replay says so."""

WITHOUT_CONTENTION: Final = " without its waits for the GIL, a CPU or a lock"
"""After how long a node takes by itself, where it waited for others besides."""

OVERLAP: Final = "gains overlap: this one is not in addition to those above"

REMARKS: Final[Mapping[str, str]] = {
    "of_nodes": "The largest part of the nodes' time is {what} ({of_nodes}). It is no finding: {why}.",
    "of_path": "The largest part of the critical path is {what} ({of_run}). It is no finding: {why}.",
    "of_both": "The largest part of the nodes' time ({of_nodes}) and of the critical path ({of_run}) is {what}. It is "
    "no finding: {why}.",
    "node": "{node} takes the largest part of the critical path ({of_run}). It is no finding of its own: {why}.",
}
"""What looks biggest in the tables and is no finding."""

WHY_NOT: Final[Mapping[str, str]] = {
    "removed": "{source}: without it, {instead}",
    "halved": "{source}: if it took half as long, {instead}",
    "twice": "{source}: twice as fast, {instead}",
    "work": "it is what the nodes are there for, and {more}",
    "after": "those above come first",
    "unknown": "the record does not tell what the nodes did",
    "dependency": "the record does not tell what they waited for",
    "outside": "it is less than half of the run",
}
"""Why that is none."""

NEITHER_LOCK: Final = "{source}: if nobody waited for either, {instead}"
BOTH_LOCKS: Final = "{first} Then the other: by itself, neither gains much. {second}"
"""Where nodes wait for the GIL and for another lock by turns."""

ESTIMATED: Final = (
    "A run of {nodes} is not replayed whole: {asked} rest on bounds and {scheduled}, with waiting for the GIL, CPUs, "
    "locks and other runs as recorded, and whether fewer workers would do was not asked. what-if replays it whole."
)


def quoted(names: Sequence[str], limit: int = 4) -> str:
    """Names of nodes in a sentence.

    >>> quoted(["parse"]), quoted(["a", "b", "c"], limit=2)
    ('`parse`', '`a`, `b` and 1 more')
    """
    return listed([f"`{one_line(name, MAX_NAME - 2)}`" for name in names], limit)


NODES_IN_TITLE: Final = 3


def title(finding: Finding) -> str:
    """The cause, and the nodes that it is about."""
    words = CAUSES_IN_WORDS[finding.cause].title
    if not finding.nodes or finding.cause == "healthy":
        return words
    names = ", ".join(one_line(name, MAX_NAME) for name in finding.nodes[:NODES_IN_TITLE])
    more = len(finding.nodes) - NODES_IN_TITLE
    return f"{words}: {names}{f' and {more:,} more' if more > 0 else ''}"


def tone(finding: Finding) -> Tone:
    """Whether something is broken, all is well, or something could be faster."""
    return CAUSES_IN_WORDS[finding.cause].tone


def expected_gain(finding: Finding, run: RecordedRun) -> str | None:
    """What the replay expects of doing what the finding advises; None where it expects nothing."""
    if finding.gain_seconds is None or finding.gain_seconds <= 0:
        return None
    gain_ns = finding.gain_seconds * 1e9
    return f"Expected gain: {duration(gain_ns)}, {percent(gain_ns, run.duration_ns)} of the run."
