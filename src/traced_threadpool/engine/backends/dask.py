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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet, WeakValueDictionary

from traced_threadpool.engine.backends import remote_call
from traced_threadpool.engine.backends.base import Call, CallOf, Timing, Within
from traced_threadpool.engine.backends.cluster import MAX_NODES, checked_integer, checked_resources, fill, placed
from traced_threadpool.engine.backends.dask_ahead import DaskAhead, Expected
from traced_threadpool.engine.backends.dask_call import UNSENT, DaskCall
from traced_threadpool.engine.backends.dask_outbox import Outbox, Outgoing
from traced_threadpool.engine.backends.dask_task import DaskTask, Stacks
from traced_threadpool.engine.backends.pickling import Pickled, dump_call, goes_by_reference
from traced_threadpool.engine.backends.process_options import checked_count
from traced_threadpool.engine.backends.requests import Requests
from traced_threadpool.model import forks
from traced_threadpool.model.keyword_hints import explains_keywords

if TYPE_CHECKING:
    from distributed import Client

    from traced_threadpool.model.records import NodeRecord

SCATTERED_BYTES: Final = 1 << 20
"""From this size on arguments go to a worker beside the call, and not by way of the scheduler."""

ASKED_AFTER_SECONDS: Final = 0.001
ASKED_TIMES: Final = 20

MAX_ATTEMPTS: Final = 3
"""How often a call is sent whose task is gone before it began: see `DaskCall.may_repeat`."""

NEEDS_DASK: Final = (
    "nodes on a Dask cluster need distributed, which is not installed; install it with: "
    "pip install 'traced_threadpool[dask]'"
)

_FAR_SIDE: Final = "traced_threadpool.engine.backends.dask_worker"


class _Run:
    """`dask_worker.run`, pickled as source: what a worker cannot import then fails where the node runs."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"lambda *given: __import__('importlib').import_module({_FAR_SIDE!r}).run(*given)",)


class _FarCall:
    """What a task calls. Opaque to Dask, which would else go through all that is sent, for keys and for a hash."""

    def __init__(self, key: str, *arguments: Any) -> None:
        self._key = key
        self._arguments = arguments

    def __call__(self, upstream: list[Any]) -> Any:
        """Never called here: what it is unpickled to is."""
        raise NotImplementedError

    def __dask_tokenize__(self) -> str:
        return self._key

    def __reduce__(self) -> tuple[Any, ...]:
        return partial, (_Run(), *self._arguments)


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
        self._on_cluster: WeakValueDictionary[str, DaskCall] = WeakValueDictionary()  # by key
        self._running: dict[Call, DaskCall] = {}
        self._told: dict[DaskCall, int] = {}  # how often Dask is still asked of them; by the client's event loop alone
        self._stacks = Stacks()
        self._outbox: Outbox | None = None
        self._pickled: WeakSet[Any] = WeakSet()  # functions that could be
        self._ahead = DaskAhead(self._send_ahead, lambda: self._client, self._has_space, self._is_known)

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
        if self._outbox is None or self._outbox.client is not client:
            self._outbox = Outbox(client, self._options)
        if not self._listens:
            self._listens = True
            client.subscribe_topic(self._topic, self._hear)
        return client

    # One call

    def prepare(self, call: Call, call_of: CallOf, within: Within) -> None:
        """A node is about to be submitted; see `dask_ahead`."""

        def known(future: Future[Any]) -> Expected | None:
            upstream = call_of(future)
            found: Expected | None = None if upstream is None else upstream.expected
            return found

        call.expected = Expected(call, known, within)

    def expect(self, call: Call) -> None:
        """It has been submitted."""
        self._ahead.expect(call.expected)

    def forward(self, call: Call, then: Callable[[], None]) -> None:
        """It is its turn."""
        try:
            with self._lock:
                self._connect()
        except Exception:  # `call` meets that again, and tells it
            then()
            return
        self._ahead.forward(call.expected, then)

    def call(self, call: Call, timing: Timing) -> Any:
        """Runs a node's function on the cluster; see `base.Backend`. Returns a `Held`."""
        began_ns = timing.handed_over_ns or time.monotonic_ns()
        expected: Expected | None = call.expected
        with self._lock:
            client = self._connect()
        try:
            on_cluster = None if expected is None else self._sent_ahead(expected, call, timing)
            if on_cluster is None:
                on_cluster = self._send_now(client, call, timing)
        finally:
            with self._lock:
                ended = self._running.pop(call, None)
            if expected is not None:
                self._ahead.ended(expected)
                call.expected = None  # they refer to each other, and to what stands for the value
            if ended is not None:
                self._fill(timing, ended, began_ns)
        return on_cluster.value(client, call.record.name, timing)

    def _sent_ahead(self, expected: Expected, call: Call, timing: Timing) -> DaskCall | None:
        """What was sent ahead, once it has ended; None if nothing was, or not with these arguments, or to no avail."""
        on_cluster = self._ahead.claim(expected)
        if on_cluster is None:
            return None
        if not expected.was_sent_with(call.arguments):
            on_cluster.cancel()
            return None
        with self._lock:
            self._running[call] = on_cluster
        on_cluster.wait()
        if on_cluster.may_repeat or on_cluster.status == UNSENT:
            return None
        timing.sent_bytes += on_cluster.sent_bytes
        return on_cluster

    def _send_now(self, client: Any, call: Call, timing: Timing) -> DaskCall:
        head = pickle.dumps(self._requests.of(call))
        arguments, upstream = placed(call.arguments)
        pickled = dump_call(call.record.name, call.function, arguments)
        if type(call.function) is FunctionType:
            self._pickled.add(call.function)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            on_cluster = DaskCall(call.record.name)
            with self._lock:
                self._running[call] = on_cluster
            payload, beside = self._payload(client, pickled)
            on_cluster.scattered = bool(beside)
            self._put(on_cluster, head, payload, [*upstream, *beside], pickled.nbytes, alone=attempt > 1)
            timing.sent_bytes += pickled.nbytes
            if call.expected is not None:
                self._ahead.sent(call.expected, on_cluster)
            on_cluster.wait()
            if attempt == MAX_ATTEMPTS or not on_cluster.may_repeat:
                break
        return on_cluster

    def _send_ahead(self, expected: Expected, on_cluster: DaskCall, arguments: dict[str, Any]) -> None:
        call = expected.call
        head = pickle.dumps(expected.within(partial(self._requests.of, call)))
        arguments, upstream = placed(arguments)
        pickled = dump_call(call.record.name, call.function, arguments)
        if pickled.nbytes >= SCATTERED_BYTES:
            raise ValueError("what is large goes on a way of its own, for which somebody waits")
        self._put(on_cluster, head, _inline(pickled), upstream, pickled.nbytes)
        self._ahead.sent(expected, on_cluster)

    def _put(
        self,
        on_cluster: DaskCall,
        head: bytes,
        payload: Any,
        upstream: Sequence[Any],
        nbytes: int,
        *,
        alone: bool = False,
    ) -> None:
        """Has it sent."""
        with self._lock:
            self._on_cluster[on_cluster.key] = on_cluster
            outbox = self._outbox
        if outbox is None:
            on_cluster.failed(RuntimeError("the backend is closed"))
            return
        on_cluster.sent_bytes = nbytes
        on_cluster.sent_ns = time.monotonic_ns()
        envelope = pickle.dumps((self._topic, on_cluster.key, head, remote_call.VERSIONS))
        function = _FarCall(on_cluster.key, envelope, payload)
        outbox.put(
            Outgoing(
                call=on_cluster,
                key=on_cluster.key,
                function=function,
                upstream=upstream,
                nbytes=nbytes,
                alone=alone,
            )
        )

    def _payload(self, client: Any, pickled: Pickled) -> tuple[Any, list[Any]]:
        """What is sent with the task; or None, and what goes beside it."""
        if pickled.nbytes < SCATTERED_BYTES:
            return _inline(pickled), []
        if not client.ncores():  # an adaptive cluster has workers once there is a task
            client.submit(len, (), pure=False, **self._options).result()
        parts = [pickle.PickleBuffer(part) for part in (pickled.stream, *pickled.blocks)]
        return None, client.scatter([parts], hash=False)

    def _hear(self, event: tuple[float, Any]) -> None:
        """What workers tell. Called on the client's event loop."""
        key, kind, *facts = event[1]
        on_cluster = self._on_cluster.get(key)
        if on_cluster is not None and on_cluster.hear(kind, facts):
            if not self._told:
                on_cluster.remote.client.loop.call_later(ASKED_AFTER_SECONDS, self._confirm)
            self._told[on_cluster] = ASKED_TIMES

    def _confirm(self) -> None:
        """Asks Dask of what workers have told that it has ended well. Called on the client's event loop."""
        told, self._told = self._told, {}
        for on_cluster, times in told.items():
            if not on_cluster.is_confirmed():
                if times:
                    self._told[on_cluster] = times - 1
                else:
                    on_cluster.want_end()
        if self._told:
            next(iter(self._told)).remote.client.loop.call_later(ASKED_AFTER_SECONDS, self._confirm)

    def _fill(self, timing: Timing, on_cluster: DaskCall, began_ns: int) -> None:
        """What is known of the call into its timing."""
        timing.attempts = len(on_cluster.starts)
        if on_cluster.starts:
            timing.worker_address, timing.worker_pid, timing.worker_host, _ = on_cluster.starts[-1]
        if on_cluster.facts is not None:
            fill(timing, on_cluster.facts, began_ns=began_ns, sent_ns=on_cluster.sent_ns)

    def _is_known(self, function: Any) -> bool:
        return type(function) is FunctionType and (function in self._pickled or goes_by_reference(function))

    def _has_space(self) -> bool:
        return len(self._running) + len(self._ahead) < self._max_workers

    def worker_of(self, node: NodeRecord) -> DaskTask | None:
        """Where a node is on the cluster now, for whoever looks at it."""
        with self._lock:
            client = self._client
            on_cluster = next((each for call, each in self._running.items() if call.record is node), None)
        if on_cluster is None and node.timing is not None and isinstance(call := node.timing.call, Call):
            on_cluster = None if call.expected is None else call.expected.sent_ahead
        if on_cluster is None:
            return None
        started = on_cluster.starts[-1] if on_cluster.starts else None
        return DaskTask(started, partial(self._stacks.of, client, on_cluster.key, self._started))

    def _started(self) -> list[str]:
        calls = [each() for each in self._on_cluster.valuerefs()]
        return [call.key for call in calls if call is not None and call.starts and not call.ended.is_set()]

    # Cancelling and closing

    def cancel(self, call: Call) -> None:
        """Dask is told so. A function that runs goes on there, and nobody waits for it."""
        on_cluster = self._running.get(call)
        if on_cluster is not None:
            on_cluster.cancel()
        elif call.expected is not None:
            self._ahead.drop(call.expected)

    def close(self) -> None:
        """Ends the connection, where an address was given, when the last adapter that uses it is closed."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users or self._client is None or self._process != os.getpid():
                return
            client = self._client
            outbox, self._outbox = self._outbox, None
        self._ahead.stop()
        if outbox is not None:
            outbox.stop()
        with self._lock:
            if self._listens:
                self._listens = False
                with contextlib.suppress(Exception):  # it is closed
                    client.unsubscribe_topic(self._topic)
            if self._address is not None:
                self._client = None
                client.close()


def _inline(pickled: Pickled) -> Any:
    stream = bytes(pickled.stream)
    return [stream, *map(bytearray, pickled.blocks)] if pickled.blocks else stream  # arrays can be written to


def _checked_options(resources: Any, priority: Any, retries: Any) -> dict[str, Any]:
    options = {
        "resources": checked_resources(resources),
        "priority": checked_integer("priority", priority),
        "retries": checked_integer("retries", retries, least=0),
    }
    return {name: value for name, value in options.items() if value}
