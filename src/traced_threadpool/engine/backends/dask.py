"""Nodes on a Dask cluster. Their values stay there: a node below on the same cluster finds them, and others fetch them.

What is sent is bytes and a function that every Python can read, so that a worker on which something cannot be imported
fails the node, and not its connection to the scheduler.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from traced_threadpool.engine.backends import remote_call
from traced_threadpool.engine.backends.base import Call, Timing
from traced_threadpool.engine.backends.cluster import (
    MAX_NODES,
    checked_integer,
    checked_resources,
    fill,
    placed,
    setup_error,
)
from traced_threadpool.engine.backends.cluster_worker import Facts
from traced_threadpool.engine.backends.dask_task import DaskTask, Stacks
from traced_threadpool.engine.backends.errors import ClusterLost, WorkerCrashed
from traced_threadpool.engine.backends.held import Held
from traced_threadpool.engine.backends.kept import Kept, brought
from traced_threadpool.engine.backends.near_call import Requests
from traced_threadpool.engine.backends.pickling import Pickled, dump_call
from traced_threadpool.engine.backends.process_options import checked_count
from traced_threadpool.model import forks
from traced_threadpool.model.keyword_hints import explains_keywords

if TYPE_CHECKING:
    from distributed import Client

    from traced_threadpool.model.records import NodeRecord

SCATTERED_BYTES: Final = 1 << 20
"""From this size on arguments go to a worker beside the call, and not by way of the scheduler."""

MAX_ATTEMPTS: Final = 3
"""How often a call is sent whose arguments were lost with a worker before it took them."""

NEEDS_DASK: Final = (
    "nodes on a Dask cluster need distributed, which is not installed; install it with: "
    "pip install 'traced_threadpool[dask]'"
)

_FAR_SIDE: Final = "traced_threadpool.engine.backends.dask_worker"


class _FarSide:
    """`dask_worker.run`, pickled as source: what a worker cannot import then fails where the node runs."""

    def __call__(self, *arguments: Any) -> Any:
        from importlib import import_module

        return import_module(_FAR_SIDE).run(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"lambda *given: __import__('importlib').import_module({_FAR_SIDE!r}).run(*given)",)


class Dask:
    """Runs nodes on a Dask cluster.

    Args:
        client: A `distributed.Client`, which stays yours, or the address of a scheduler.
        max_workers: How many nodes are on their way at once; the cluster's workers decide how many of them run.
        resources: What a worker must have, such as `{"GPU": 1}`; see Dask's documentation.
        priority: Of these nodes among other tasks on the cluster; higher ones go first.
        retries: How often Dask runs a node again that fails.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a value that cannot work.
        ImportError: distributed is not installed.
    """

    @explains_keywords("Dask")
    def __init__(
        self,
        client: Client | str,
        *,
        max_workers: int = MAX_NODES,
        resources: Mapping[str, float] | None = None,
        priority: int = 0,
        retries: int = 0,
    ) -> None:
        try:
            import distributed
        except ImportError as error:
            raise ImportError(NEEDS_DASK) from error
        if not isinstance(client, (str, distributed.Client)):
            raise TypeError(
                "Dask takes a distributed.Client or the address of a scheduler, such as 'tcp://10.0.0.1:8786', "
                f"not {client!r}"
            )
        if not isinstance(client, str) and client.asynchronous:
            raise TypeError("Dask takes a synchronous Client: make it without asynchronous=True")
        self._max_workers = checked_count("max_workers", max_workers)
        self._options = _checked_options(resources, priority, retries)
        self._address = client if isinstance(client, str) else None
        self._client: Any = None if isinstance(client, str) else client  # it has no annotations
        self._process = os.getpid()
        self._requests = Requests()
        self._topic = f"traced_threadpool-{uuid.uuid4().hex}"
        self._reset()
        forks.register(self._forget)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._listens = False
        self._waiting: dict[str, _Waiting] = {}  # by the task's key
        self._running: dict[Call, _Waiting] = {}
        self._stacks = Stacks()

    def _forget(self) -> None:
        """For a forked child: the parent's connection is not usable in it."""
        users = self._users
        self._reset()
        self._users = users
        if self._address is not None:
            self._client = None

    @property
    def max_workers(self) -> int:
        """How many nodes are on their way at once."""
        return self._max_workers

    @property
    def home(self) -> object:
        """Where values stay: what has the same client takes them there."""
        return self._client

    def __repr__(self) -> str:
        return f"<Dask on {self._address or self._client!r}>"

    def open(self, name: str) -> None:
        """An adapter begins to use it. Several may. Connects, if an address was given.

        Raises:
            ConnectionError: There is no scheduler at the address.
        """
        with self._lock:
            self._connect()
            self._users += 1

    def _connect(self) -> Any:
        """Under the lock."""
        client = self._client
        if client is None:
            import distributed

            make: Any = distributed.Client
            try:
                client = self._client = make(self._address, set_as_default=False)
            except (OSError, ValueError) as error:
                raise ConnectionError(f"no Dask scheduler answers at {self._address!r}: {error}") from error
            self._process = os.getpid()
            self._listens = False
        elif self._process != os.getpid():
            raise RuntimeError(
                "this Dask backend was made with a Client of the parent process, which does not work after a fork; "
                "make it with the scheduler's address instead"
            )
        if not self._listens:
            self._listens = True
            client.subscribe_topic(self._topic, self._hear)
        return client

    # One call

    def call(self, call: Call, timing: Timing) -> Any:
        """Runs a node's function on the cluster; see `base.Backend`. Returns a `Held`."""
        began_ns = time.monotonic_ns()
        node = call.record.name
        with self._lock:
            client = self._connect()
        head = pickle.dumps(self._requests.of(call))
        arguments, upstream = placed(call.arguments)
        pickled = dump_call(node, call.function, arguments)
        del arguments
        waiting = _Waiting()
        with self._lock:
            self._running[call] = waiting
        try:
            for attempt in range(MAX_ATTEMPTS):
                remote = self._submit(client, node, waiting, head, pickled, upstream, timing)
                waiting.ended.wait()
                if not (waiting.status == "cancelled" and waiting.may_repeat(attempt)):
                    break
        finally:
            with self._lock:
                del self._running[call]
                self._waiting.pop(waiting.key, None)
            self._fill(timing, waiting, began_ns)
        return _value(client, node, remote, waiting, timing)

    def _submit(
        self,
        client: Any,
        node: str,
        waiting: _Waiting,
        head: bytes,
        pickled: Pickled,
        upstream: list[Any],
        timing: Timing,
    ) -> Any:
        key = f"{node}-{uuid.uuid4().hex}"
        with self._lock:
            self._waiting.pop(waiting.key, None)
            self._waiting[key] = waiting
        waiting.again(key)
        payload = self._payload(client, pickled, waiting)
        timing.sent_bytes += pickled.nbytes
        waiting.sent_ns = time.monotonic_ns()
        try:
            remote = client.submit(
                _FarSide(),
                self._topic,
                key,
                head,
                dict(remote_call.VERSIONS),
                payload,
                upstream,
                key=key,
                pure=False,
                **self._options,
            )
        except Exception as error:
            raise ClusterLost(node, f"the call could not be sent: {error}") from error
        waiting.submitted(remote)
        return remote

    def _payload(self, client: Any, pickled: Pickled, waiting: _Waiting) -> Any:
        if pickled.nbytes < SCATTERED_BYTES:
            stream = bytes(pickled.stream)
            return [stream, *map(bytearray, pickled.blocks)] if pickled.blocks else stream  # arrays can be written to
        if not client.ncores():  # an adaptive cluster has workers once there is a task
            client.submit(len, (), pure=False, **self._options).result()
        parts = [pickle.PickleBuffer(part) for part in (pickled.stream, *pickled.blocks)]
        waiting.scattered = True
        return client.scatter([parts], hash=False)[0]

    def _hear(self, event: tuple[float, Any]) -> None:
        """What workers tell. Called on the client's event loop."""
        key, kind, *facts = event[1]
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.hear(kind, facts)

    def _fill(self, timing: Timing, waiting: _Waiting, began_ns: int) -> None:
        """What is known of the call into its timing."""
        timing.attempts = len(waiting.starts)
        if waiting.starts:
            timing.worker_address, timing.worker_pid, timing.worker_host, _ = waiting.starts[-1]
        if waiting.facts is not None:
            fill(timing, waiting.facts, began_ns=began_ns, sent_ns=waiting.sent_ns)

    def worker_of(self, node: NodeRecord) -> DaskTask | None:
        """Where a node is on the cluster now, for whoever looks at it."""
        with self._lock:
            client = self._client
            for call, waiting in self._running.items():
                if call.record is node:
                    started = waiting.starts[-1] if waiting.starts else None
                    return DaskTask(started, partial(self._stacks.of, client, waiting.key, self._started))
        return None

    def _started(self) -> list[str]:
        with self._lock:
            return [waiting.key for waiting in self._running.values() if waiting.starts]

    # Cancelling and closing

    def cancel(self, call: Call) -> None:
        """Dask is told so. A function that runs goes on there, and nobody waits for it."""
        waiting = self._running.get(call)
        if waiting is not None:
            waiting.cancel()

    def close(self) -> None:
        """Ends the connection, where an address was given, when the last adapter that uses it is closed."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users or self._client is None or self._process != os.getpid():
                return
            client = self._client
            if self._listens:
                self._listens = False
                with contextlib.suppress(Exception):  # it is closed
                    client.unsubscribe_topic(self._topic)
            if self._address is not None:
                self._client = None
                client.close()


class _Waiting:
    """A call that is on the cluster, as one thread waits for it."""

    def __init__(self) -> None:
        self.key = ""
        self.status = "pending"
        self.ended = threading.Event()
        self.starts: list[Any] = []
        self.facts: Facts | None = None
        self.sent_ns = 0
        self.cancelled = False
        self.scattered = False
        self._remote: Any = None
        self._lock = threading.Lock()

    def again(self, key: str) -> None:
        self.key = key
        self.ended.clear()

    def submitted(self, remote: Any) -> None:
        with self._lock:
            self._remote = remote
            cancelled = self.cancelled
        remote.add_done_callback(self._done)
        if cancelled:
            self.cancel()

    def _done(self, remote: Any) -> None:
        self.status = remote.status
        self.ended.set()

    def may_repeat(self, attempt: int) -> bool:
        """Whether the call is sent again whose task is gone: with the worker that had its arguments."""
        return self.scattered and not self.cancelled and not self.starts and attempt + 1 < MAX_ATTEMPTS

    def hear(self, kind: int, facts: list[Any]) -> None:
        if kind == 0:
            self.starts.append(facts)
        else:
            self.facts = Facts(*facts)

    def cancel(self) -> None:
        with self._lock:
            self.cancelled = True
            remote = self._remote
        if remote is not None:
            remote.cancel()


def _value(client: Any, node: str, remote: Any, waiting: _Waiting, timing: Timing) -> Any:
    if waiting.status == "finished":
        return Held(client, remote, partial(_bring, node, remote), waiting.facts.nbytes if waiting.facts else 0)
    if waiting.status == "error":
        raise _raised(node, _error_of(remote), timing)
    if waiting.cancelled:
        raise CancelledError(f"node {node!r} was cancelled on its cluster")
    raise ClusterLost(node, f"its task is {waiting.status}")


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


def _checked_options(resources: Any, priority: Any, retries: Any) -> dict[str, Any]:
    options = {
        "resources": checked_resources(resources),
        "priority": checked_integer("priority", priority),
        "retries": checked_integer("retries", retries, least=0),
    }
    return {name: value for name, value in options.items() if value}
