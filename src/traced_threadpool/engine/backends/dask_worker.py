"""The far side of a node on a Dask cluster: runs in a thread of a Dask worker.

What a node's function returns stays there. How it went is told by an event on the adapter's topic when the function
has ended: the client hears of an event before it hears of the task's end. That it has started is told by another, if it
has not ended soon.
"""

from __future__ import annotations

import os
import pickle
import platform
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from distributed import get_worker
from distributed.protocol.serialize import dask_deserialize, dask_serialize

from traced_threadpool.engine.backends import cluster_worker
from traced_threadpool.engine.backends.kept import Kept
from traced_threadpool.engine.backends.pickling import Pickled
from traced_threadpool.model.exceptions import MAX_MESSAGE

TELL_AFTER_SECONDS: Final = 0.02

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


class _Starts:
    """Tells of what has started and not ended soon: most nodes that are short are not worth a message of their own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._come = threading.Event()
        self._untold: dict[int, tuple[float, Callable[[], Any]]] = {}
        self._count = 0
        self._thread: threading.Thread | None = None

    def tell_later(self, tell: Callable[[], Any]) -> int:
        """Returns what to forget it by."""
        with self._lock:
            self._count += 1
            self._untold[self._count] = time.monotonic() + TELL_AFTER_SECONDS, tell
            if self._thread is None or not self._thread.is_alive():  # the latter in a forked child
                self._thread = threading.Thread(target=self._work, name="traced_threadpool-starts", daemon=True)
                self._thread.start()
            if not self._come.is_set():
                self._come.set()
            return self._count

    def forget(self, number: int) -> bool:
        """It has ended. Whether its start was told."""
        with self._lock:
            return self._untold.pop(number, None) is None

    def _work(self) -> None:
        while True:
            self._come.wait()
            time.sleep(TELL_AFTER_SECONDS)
            now = time.monotonic()
            with self._lock:
                if not self._untold:
                    self._come.clear()
                late = [number for number, (at, _) in self._untold.items() if at <= now]
                due = [self._untold.pop(number)[1] for number in late]
            for tell in due:
                tell()


_starts = _Starts()


def run(envelope: bytes, payload: Any, upstream: Sequence[Any]) -> Any:
    """One call of a node's function. See `dask.Dask` for what is sent.

    Raises:
        NodeRaised: The function did.
        RuntimeError: This worker has another version of Python or of this package.
    """
    received_ns = time.monotonic_ns()
    topic, key, head, versions = pickle.loads(envelope)
    if payload is None:  # it came beside the call
        *upstream, payload = upstream
    request = cluster_worker.request_of(head, versions)
    worker = get_worker()
    here = worker.address, os.getpid(), platform.node(), threading.get_native_id()
    moved_ns = _moved_ns(worker, key)
    started = _starts.tell_later(partial(worker.log_event, topic, [key, STARTED, *here]))
    try:
        facts, raised, answer = cluster_worker.perform(request, payload, upstream, received_ns, moved_ns, DaskKept)
    finally:
        told = _starts.forget(started)
    worker.log_event(topic, [key, ENDED, raised is not None, None if told else here, *facts])
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
