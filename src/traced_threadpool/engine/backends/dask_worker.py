"""The far side of a node on a Dask cluster: runs in a thread of a Dask worker.

What a node's function returns stays there. How it went is told by two events on the adapter's topic, one when the
function starts and one when it has ended: the client hears of an event before it hears of the task's end.
"""

from __future__ import annotations

import os
import pickle
import platform
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from distributed import get_worker
from distributed.protocol.serialize import dask_deserialize, dask_serialize

from traced_threadpool.engine.backends import cluster_worker
from traced_threadpool.engine.backends.kept import Kept
from traced_threadpool.engine.backends.pickling import Pickled
from traced_threadpool.model.exceptions import MAX_MESSAGE

STARTED: Final = 0
ENDED: Final = 1


class NodeRaised(Exception):
    """Carries what a node's function raised, as bytes, so that Dask sees a failure and may try again."""

    def __init__(self, stream: bytes, blocks: Sequence[bytes], described: tuple[str, str, str]) -> None:
        super().__init__(stream, blocks, described)
        self.answer = Pickled(memoryview(stream), [memoryview(block) for block in blocks])
        self.described = described

    def __str__(self) -> str:
        """Short: in the place of an exception with a long text, Dask sends a text of its own."""
        return f"{self.described[0]}: {self.described[1][:MAX_MESSAGE]}"

    def __repr__(self) -> str:
        """What Dask logs."""
        return f"NodeRaised({str(self)!r})"


class DaskKept(Kept):
    """A value that Dask moves as it moves arrays: what is large of it is not copied, whatever protocol is agreed on."""

    __slots__ = ()


@dask_serialize.register(DaskKept)  # type: ignore[no-untyped-call, untyped-decorator]  # it has no annotations
def _into_frames(kept: DaskKept) -> tuple[dict[str, Any], list[Any]]:
    facts, parts = kept.parts()
    return {"writeable": [not part.readonly for part in parts]}, [pickle.dumps(facts), *parts]


@dask_deserialize.register(DaskKept)  # type: ignore[no-untyped-call, untyped-decorator]  # it has no annotations
def _from_frames(header: dict[str, Any], frames: Sequence[Any]) -> Kept:
    facts, *parts = [memoryview(frame) for frame in frames]
    own = [
        memoryview(bytearray(part)) if writeable and part.readonly else part if writeable else part.toreadonly()
        for part, writeable in zip(parts, header["writeable"], strict=True)
    ]
    return DaskKept.of_parts(pickle.loads(facts), own)


def run(topic: str, key: str, head: bytes, versions: dict[str, str], payload: Any, upstream: Sequence[Any]) -> Any:
    """One call of a node's function. See `dask.Dask` for what is sent.

    Raises:
        NodeRaised: The function did.
        RuntimeError: This worker has another version of Python or of this package.
    """
    received_ns = time.monotonic_ns()
    request = cluster_worker.request_of(head, versions)
    worker = get_worker()
    here = worker.address, os.getpid(), platform.node(), threading.get_native_id()
    worker.log_event(topic, [key, STARTED, *here])
    moved_ns = _moved_ns(worker, key)
    facts, raised, answer = cluster_worker.perform(request, payload, upstream, received_ns, moved_ns, DaskKept)
    worker.log_event(topic, [key, ENDED, *facts])
    if raised is not None:
        raise NodeRaised(bytes(answer.stream), [bytes(block) for block in answer.blocks], raised)
    return answer


def _moved_ns(worker: Any, key: str) -> int:
    """How long this worker has fetched the task's inputs from others, as it tells; 0 where it does not."""
    try:
        steps = worker.state.tasks[key].startstops
        stretches = sorted((step["start"], step["stop"]) for step in steps if step["action"] == "transfer")
    except Exception:  # of Dask's own making, and of no version for certain
        return 0
    total, until = 0.0, 0.0
    for start, stop in stretches:  # they overlap
        total += max(0.0, stop - max(start, until))
        until = max(until, stop)
    return int(total * 1e9)
