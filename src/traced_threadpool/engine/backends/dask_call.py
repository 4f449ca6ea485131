"""One call of a node's function on a Dask cluster, from the task that is sent to what it ends with."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Final

from traced_threadpool.engine.backends import remote_call
from traced_threadpool.engine.backends.base import Timing
from traced_threadpool.engine.backends.cluster import setup_error
from traced_threadpool.engine.backends.cluster_worker import Facts
from traced_threadpool.engine.backends.errors import ClusterLost, WorkerCrashed
from traced_threadpool.engine.backends.held import Held
from traced_threadpool.engine.backends.kept import Kept, brought

LISTEN_AFTER_SECONDS: Final = 1.0

FINISHED, ERROR, CANCELLED, UNSENT = "finished", "error", "cancelled", "unsent"


class DaskCall:
    """A task that is to go to the cluster, is on its way, or has ended.

    Its thread waits for `ended`; then `status` is what became of the task: what Dask says, or `UNSENT`. That it went
    well its worker tells, which is soonest. All else is Dask's to tell, which costs it a wait of its own for each task:
    so it is asked to only when a task fails, or has not ended at once.

    Args:
        node: The node's name, which its key begins with.
    """

    def __init__(self, node: str) -> None:
        self.key = f"{node}-{uuid.uuid4().hex}"
        self.status = "pending"
        self.ended = threading.Event()
        self.starts: list[Any] = []
        self.facts: Facts | None = None
        self.sent_ns = 0
        self.sent_bytes = 0
        self.cancelled = False
        self.scattered = False
        self.remote: Any = None
        self.error: Exception | None = None
        self._awaited = self._listened = False
        self._lock = threading.Lock()

    @property
    def may_repeat(self) -> bool:
        """Whether the call is sent again whose task is gone, with the worker that had its arguments."""
        return self.scattered and self.status == CANCELLED and not self.cancelled and not self.starts

    def sent(self, remote: Any) -> None:
        """It is on its way."""
        with self._lock:
            self.remote = remote
            awaited, cancelled = self._awaited, self.cancelled
        if awaited:
            self._listen()
        if cancelled:
            self.cancel()

    def failed(self, error: Exception) -> None:
        """It could not be sent."""
        self.status, self.error = UNSENT, error
        self.ended.set()

    def wait(self) -> None:
        """Until it has ended. Dask keeps a task to whose end somebody listens, so nobody does before this is called."""
        if not self.ended.wait(LISTEN_AFTER_SECONDS):
            self._want_end()
            self.ended.wait()

    def _want_end(self) -> None:
        """Has Dask tell of the end."""
        with self._lock:
            self._awaited = True
            is_sent = self.remote is not None
        if is_sent:
            self._listen()

    def _listen(self) -> None:
        with self._lock:
            if self._listened:
                return
            self._listened = True
        try:
            self.remote.add_done_callback(self._done)
        except Exception as error:  # the client has been closed meanwhile
            self.failed(error)

    def _done(self, remote: Any) -> None:
        self.status = remote.status
        self.ended.set()

    def hear(self, kind: int, facts: list[Any]) -> None:
        """What its worker tells."""
        if kind == 0:
            self.starts.append(facts)
            return
        raised, started, *rest = facts
        if started is not None:
            self.starts.append(started)
        self.facts = Facts(*rest)
        if raised:
            self._want_end()  # Dask may run it again
        else:
            self.status = FINISHED
            self.ended.set()

    def cancel(self) -> None:
        """Nobody wants it any more."""
        with self._lock:
            self.cancelled = True
            remote = self.remote
        if remote is not None:
            self._want_end()
            remote.cancel()

    def value(self, client: Any, node: str, timing: Timing) -> Held:
        """What stands for the value, once it has ended. Raises what the node fails with."""
        remote = self.remote
        if self.status == FINISHED:
            return Held(client, remote, partial(_bring, node, remote), self.facts.nbytes if self.facts else 0)
        if self.status == ERROR:
            raise _raised(node, _error_of(remote), timing)
        if self.status == UNSENT:
            raise ClusterLost(node, f"the call could not be sent: {self.error}") from self.error
        if self.cancelled:
            raise CancelledError(f"node {node!r} was cancelled on its cluster")
        raise ClusterLost(node, f"its task is {self.status}")


def _bring(node: str, remote: Any) -> Any:
    try:
        kept: Kept = remote.result()
    except CancelledError as error:
        raise ClusterLost(node, str(error)) from None
    except Exception as error:
        raise ClusterLost(node, f"its value could not be brought here: {error}") from error
    return brought(kept)


def _error_of(remote: Any) -> BaseException:
    try:
        error = remote.exception()
    except Exception as unreadable:
        error = unreadable
    return error if isinstance(error, BaseException) else RuntimeError("unknown")


def _raised(node: str, error: BaseException, timing: Timing) -> BaseException:
    """What the node fails with, by what Dask says of its task."""
    from distributed import KilledWorker

    from traced_threadpool.engine.backends.dask_worker import NodeRaised

    if isinstance(error, NodeRaised):
        return remote_call.error_of(error.described, error.answer)
    if isinstance(error, KilledWorker):
        timing.attempts = max(timing.attempts, error.allowed_failures + 1)
        return WorkerCrashed(node, timing.worker_pid)
    return setup_error(node, error)
