"""What a replay takes for granted of a record and may be wrong about, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from traced_threadpool.analysis.replay.locks import FoundLock
from traced_threadpool.analysis.replay.others import MAX_NODES, Others
from traced_threadpool.analysis.replay.placing import CALL_NS, Placing
from traced_threadpool.analysis.replay.settings import ReplaySettings
from traced_threadpool.model.formatting import count, duration, share
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun
from traced_threadpool.model.records import THREADS

TELLING_LOCK_SHARE: Final = 0.05
"""Waiting for locks is worth a word from this part of the nodes' time on."""


class Assumptions:
    """Those of one record, `nodes` being what of it is replayed; `helped` ran within others."""

    def __init__(
        self,
        run: RecordedRun,
        nodes: Sequence[NodeExecution],
        *,
        workers: int,
        helped: int,
        unknown: Sequence[str],
        others: Others,
        locks: Sequence[FoundLock],
        placing: Placing,
    ) -> None:
        self._run = run
        self._placing = placing
        self._attribution = run.attribution
        self._unknown = unknown
        self._computes = any(node.states.get("cpu") for node in nodes)
        lock_ns = sum([node.states.get("lock", 0) for node in nodes]) - sum([lock.waited_ns for lock in locks])
        self._waits_for_locks = lock_ns > TELLING_LOCK_SHARE * sum([node.duration_ns for node in nodes])
        self._always = (*_always(run, nodes, workers, helped), *_of_others(run, others), *map(_of_lock, locks))

    def of(self, settings: ReplaySettings) -> tuple[str, ...]:
        """Those that matter to these settings."""
        said = list(self._always)
        if self._computes:
            if self._attribution == "none":
                said.append(
                    "waiting for the GIL was not measured; computing that overlapped is judged by its duration alone"
                )
            elif settings.gil and self._unknown:
                said.append(
                    f"{_names(self._unknown)} met nothing that would tell whether computing holds the GIL; it is taken "
                    "to hold it, as plain Python does"
                )
            if settings.cpus is None:
                said.append("the record does not say how many CPUs there were; there are taken to be enough")
        if settings.run_on:
            said += _of_moved(self._run, self._placing, settings)
        said += [
            f"what the nodes of {name!r} use is taken to be as fast with {most:,} at once as it was with "
            f"{self._run.backends[name].max_workers:,}"
            for name, most in settings.lanes.items()
            # The record may have none of that name: nodes are asked to be moved to it.
            if name in self._run.backends and most > self._run.backends[name].max_workers
        ]
        if self._waits_for_locks:
            said.append("waiting for locks stays as it was, though it may come of other nodes of the run")
        return tuple(said)


def _always(run: RecordedRun, nodes: Sequence[NodeExecution], workers: int, helped: int) -> list[str]:
    said = []
    if run.max_workers is None:
        said.append(f"the record does not say how many workers there were; at most {workers} had a node at once")
    nested = sum(node.ran for node in run.nodes) - len(nodes) - helped
    if nested:
        said.append(f"{count(nested, 'node')} of nested runs counted as part of the nodes that ran them")
    if helped:
        said.append(f"{count(helped, 'node')} ran on a worker whose own node waited, and counted as part of that node")
    missing = (run.expected_nodes or 0) - len(run.nodes)
    if missing > 0:
        said.append(f"{count(missing, 'node')} missing in the record, and in the replay")
    unknown = sum(not node.states for node in nodes)
    if unknown:
        said.append(f"no states recorded of {count(unknown, 'node')}: taken as waiting, which overlaps freely")
    return said


def _of_lock(lock: FoundLock) -> str:
    at = f" ({lock.line})" if lock.line else ""
    capacity = "one at a time" if lock.capacity == 1 else f"{lock.capacity:,} at a time"
    judged = "" if lock.is_known else ", judged by how many ran beside those that waited"
    if lock.is_sure:
        part = f"{share(lock.share)} of their own time"
    else:
        part = f"{share(lock.least)} to {share(lock.most)} of their own time"
    return f"{count(len(lock.members), 'node')} share {lock.name}{at}, {capacity}{judged}, for {part}"


def _of_moved(run: RecordedRun, placing: Placing, settings: ReplaySettings) -> list[str]:
    here = {THREADS, *[name for name, lane in run.backends.items() if lane.kind == THREADS]}
    there = [name for name, backend in settings.run_on.items() if backend not in here]
    back = [name for name, backend in settings.run_on.items() if backend in here]
    said = []
    unknown = [name for name in there if not placing.is_transfer_known(name, settings)]
    if unknown:
        said.append(
            f"how much {_names(unknown)} would move is not in the record; moving is taken to take {duration(CALL_NS)} "
            "for each execution, as it does for a few kilobytes"
        )
    if there:
        said.append("worker processes are taken to have been started, which takes each about 0.1 s once")
    if back and any(node.is_remote for node in run.nodes if node.name in back):
        said.append(f"{_names(back)} is taken to hold the GIL where it computes, as plain Python does")
    return said


def _of_others(run: RecordedRun, others: Others) -> list[str]:
    if not others.nodes:
        if run.queue_others_ns:
            return ["other runs had workers meanwhile, of which a replay of a run this large knows nothing"]
        return []
    known = others.run_count - others.unknown
    said = []
    if known:
        said.append(f"{count(known, 'other run')} in the pool, with the work and the arrival times that they had")
    if others.left_out:
        most = f"{MAX_NODES:,} nodes of others are replayed at most"
        said.append(f"{count(others.left_out, 'more run')} in the pool left out: {most}")
    if others.unknown:
        said.append(
            "other runs that are not in the record had workers while nodes waited; they are taken to keep those, and "
            "no others"
        )
    return said


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
