"""One call of a node's function on a Dask cluster, from the task that is sent to what it ends with."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
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

logger = logging.getLogger("traced_threadpool")

LISTEN_AFTER_SECONDS: Final = 1.0

FINISHED, ERROR, CANCELLED, UNSENT = "finished", "error", "cancelled", "unsent"


class DaskCall:
    """A task that is to go to the cluster, is on its way, or has ended.

    Its thread waits for `ended`; then `status` is what became of the task: what Dask says, or `UNSENT`. Dask tells by
    itself when somebody listens, which costs a wait on its side and a thread's turn for each task. So it is asked when
    the worker has told that all went well, and listened to only when a task fails, or has not ended after a while.

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
        self.scattered = False  # whether its arguments went to a worker beside it
        self.in_company = False  # whether it went with others
        self.cancelled = False
        self.remote: Any = None
        self.error: Exception | None = None
        self._then: Callable[[], None] | None = None
        self._awaited = self._listened = False
        self._lock = threading.Lock()

    @property
    def may_repeat(self) -> bool:
        """Whether the call is sent again: its task is gone, and perhaps for no reason of its own.

        With the worker that had its arguments; or with its graph, of which another task lacked a value.
        """
        gone = self.status == CANCELLED and not self.cancelled and not self.starts
        return gone and (self.scattered or self.in_company) and self.remote.client.status == "running"

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
        self.error = error
        self._end(UNSENT)

    def _end(self, status: str) -> None:
        with self._lock:
            if self.ended.is_set():
                return
            self.status = status
            self.ended.set()
            then, self._then = self._then, None
        if then is not None:
            try:
                then()
            except Exception:  # it is told of others' ends on this thread too
                logger.exception("the end of task %s could not be told", self.key)

    def when_ended(self, then: Callable[[], None]) -> None:
        """Has `then` called once it has ended, on any thread."""
        with self._lock:
            if not self.ended.is_set():
                self._then = then
                return
        then()

    def wait(self) -> None:
        """Until it has ended. Dask keeps a task to whose end somebody listens, so nobody does before this is called."""
        if not self.ended.wait(LISTEN_AFTER_SECONDS):
            self.want_end()
            self.ended.wait()

    def want_end(self) -> None:
        """Has Dask tell of the end, however it comes."""
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
        self._end(remote.status)

    def hear(self, kind: int, facts: list[Any]) -> bool:
        """What its worker tells. Whether that is that it has ended well, of which Dask is to be asked."""
        if kind == 0:
            self.starts.append(facts)
            return False
        raised, started, *rest = facts
        if started is not None:
            self.starts.append(started)
        self.facts = Facts(*rest)
        if raised or self.remote is None:
            self.want_end()  # Dask may run it again
            return False
        return True

    def is_confirmed(self) -> bool:
        """Whether Dask knows by now that it has ended well: until then, what dies with its worker is run again."""
        if self.remote.status != FINISHED:
            return False
        self._end(FINISHED)
        return True

    def cancel(self) -> None:
        """Nobody wants it any more."""
        with self._lock:
            self.cancelled = True
            remote = self.remote
        if remote is not None:
            self.want_end()
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
