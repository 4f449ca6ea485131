"""Nodes on a Ray cluster. Their values stay there as objects: a node below takes them there, and others fetch them.

What goes there is a function that every worker can read and bytes, so that what cannot be imported there fails the node
with words of ours. A function's exception comes back as a value: Ray repeats what died, and not what failed.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Final

from traced_threadpool.engine.backends import cluster_worker, remote_call
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
from traced_threadpool.engine.backends.errors import ClusterLost, WorkerCrashed
from traced_threadpool.engine.backends.held import Held
from traced_threadpool.engine.backends.kept import Kept, brought
from traced_threadpool.engine.backends.pickling import Pickled, dump_call
from traced_threadpool.engine.backends.process_options import checked_count, checked_seconds
from traced_threadpool.engine.backends.requests import Requests
from traced_threadpool.model import forks
from traced_threadpool.model.keyword_hints import explains_keywords

logger = logging.getLogger("traced_threadpool")

MAX_RETRIES: Final = 3
"""How often Ray runs a node again whose worker died, by default: Ray's own."""

LOOK_SECONDS: Final = 1.0
"""How often a node on its way looks whether Ray is still there: what waits for it is not told when it is shut down."""

NEEDS_RAY: Final = (
    "nodes on a Ray cluster need ray, which is not installed; install it with: pip install 'traced_threadpool[ray]'"
)

_FAR_SIDE: Final = __name__


class Ray:
    """Runs nodes on a Ray cluster.

    Args:
        address: Where to connect, as `ray.init` takes it: `"auto"`, `"10.0.0.1:6379"`, or `"local"` for a cluster of
            this machine. The connection ends with the adapter. None: the one that this program has, which stays yours.
        max_workers: How many nodes are on their way at once; the cluster decides how many of them run.
        num_cpus: How many CPUs a node takes of the cluster's.
        num_gpus: How many GPUs.
        resources: What else a node takes, such as `{"license": 1}`; see Ray's documentation.
        max_retries: How often Ray runs a node again whose worker died; -1: without end.
        cancel_grace_seconds: How long a cancelled node may go on before its worker is killed.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a value that cannot work.
        ImportError: ray is not installed.
    """

    @explains_keywords("Ray")
    def __init__(
        self,
        address: str | None = None,
        *,
        max_workers: int = MAX_NODES,
        num_cpus: float = 1,
        num_gpus: float = 0,
        resources: Mapping[str, float] | None = None,
        max_retries: int = MAX_RETRIES,
        cancel_grace_seconds: float = 1.0,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError(NEEDS_RAY) from error
        if address is not None and not isinstance(address, str):
            raise TypeError(f"Ray takes an address, such as 'auto' or '10.0.0.1:6379', or None, not {address!r}")
        self._max_workers = checked_count("max_workers", max_workers)
        self._grace_seconds = checked_seconds("cancel_grace_seconds", cancel_grace_seconds)
        options = {
            "num_cpus": _checked_amount("num_cpus", num_cpus),
            "num_gpus": _checked_amount("num_gpus", num_gpus) or None,
            "resources": checked_resources(resources),
            "max_retries": checked_integer("max_retries", max_retries, least=-1),
        }
        self._max_retries = max_retries
        self._remote: Any = ray.remote(_far_side()).options(
            num_returns=2, **{name: value for name, value in options.items() if value is not None}
        )
        self._ray: Any = ray
        self._address = address
        self._connected = False  # by us
        self._process = os.getpid()
        self._requests = Requests()
        self._reset()
        forks.register(self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._running: dict[Call, _Waiting] = {}

    @property
    def max_workers(self) -> int:
        """How many nodes are on their way at once."""
        return self._max_workers

    @property
    def home(self) -> object:
        """Where values stay: what is connected to the same cluster takes them there."""
        if not self._ray.is_initialized():
            return self
        context = self._ray.get_runtime_context()
        return sys.intern(f"Ray, node {context.get_node_id()}, job {context.get_job_id()}")

    def __repr__(self) -> str:
        return f"<Ray on {self._address!r}>" if self._address else "<Ray>"

    def open(self, name: str) -> None:
        """An adapter begins to use it. Several may. Connects, if an address was given and nobody has.

        Raises:
            ConnectionError: Nothing answers at the address; or this program is not connected, and none was given.
        """
        with self._lock:
            self._refuse_fork()
            if not self._ray.is_initialized():
                if self._address is None:
                    raise ConnectionError(
                        "this program is not connected to a Ray cluster: call ray.init() before, or give an address, "
                        "such as Ray('auto') or, for a cluster of this machine, Ray('local')"
                    )
                try:
                    self._ray.init(self._address)
                except (OSError, ValueError, RuntimeError) as error:
                    raise ConnectionError(f"no Ray cluster answers at {self._address!r}: {error}") from error
                self._connected = True
            self._users += 1

    def _refuse_fork(self) -> None:
        if self._process != os.getpid():
            raise RuntimeError(
                "this Ray backend was made in the parent process, whose connection does not work after a fork; "
                "make the adapter in the process that uses it"
            )

    # One call

    def call(self, call: Call, timing: Timing) -> Any:
        """Runs a node's function on the cluster; see `base.Backend`. Returns a `Held`."""
        began_ns = time.monotonic_ns()
        self._refuse_fork()
        node = call.record.name
        head = pickle.dumps(self._requests.of(call))
        arguments, upstream = placed(call.arguments)
        pickled = dump_call(node, call.function, arguments)
        del arguments
        payload: Any = bytes(pickled.stream)
        if pickled.blocks:
            payload = [payload, *map(pickle.PickleBuffer, pickled.blocks)]
        timing.sent_bytes += pickled.nbytes
        waiting = _Waiting()
        self._running[call] = waiting
        try:
            home = self.home
            if home is self:  # asked to run something, Ray would start a cluster of its own
                raise ClusterLost(node, "Ray was shut down")
            sent_ns = time.monotonic_ns()
            reference, value = self._remote.remote(head, dict(remote_call.VERSIONS), payload, *upstream)
            del payload, pickled, upstream
            waiting.sent(reference, self._cancel)
            while not waiting.ended.wait(LOOK_SECONDS):
                if not self._ray.is_initialized():
                    raise ClusterLost(node, "Ray was shut down")
        finally:
            del self._running[call]
        if waiting.cancelled:
            raise CancelledError(f"node {node!r} was cancelled on its cluster")
        try:
            told, timing.attempts, described, answer = waiting.outcome()
        except Exception as error:
            raise self._failure(node, error, timing) from error
        facts = Facts(*told)
        timing.worker_pid, timing.worker_host = facts.pid, facts.host
        fill(timing, facts, began_ns=began_ns, sent_ns=sent_ns)
        if described is not None:
            raise remote_call.error_of(described, Pickled(*answer))
        return Held(home, value, partial(self._bring, node, value), facts.nbytes)

    def _bring(self, node: str, value: Any) -> Any:
        if not self._ray.is_initialized():
            raise ClusterLost(node, "Ray was shut down")
        try:
            kept: Kept = self._ray.get(value)
        except Exception as error:
            raise ClusterLost(node, f"its value could not be brought here: {error}") from error
        return brought(kept)

    def _failure(self, node: str, error: Exception, timing: Timing) -> BaseException:
        """What the node fails with, by what Ray says of its task."""
        from ray import exceptions

        if isinstance(error, (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError, exceptions.NodeDiedError)):
            timing.attempts = self._max_retries + 1
            return WorkerCrashed(node, 0)
        if isinstance(error, exceptions.RayTaskError):  # the function's own failure comes as a value
            return setup_error(node, error.cause or error)
        return ClusterLost(node, str(error) or type(error).__name__)

    # Cancelling and closing

    def cancel(self, call: Call) -> None:
        """Ray is told so. A function that goes on after the grace is killed with its worker; nobody waits for it."""
        waiting = self._running.get(call)
        if waiting is not None:
            waiting.cancel(self._cancel)

    def _cancel(self, told: Any) -> None:
        self._end(told, force=False)
        timer = threading.Timer(self._grace_seconds, self._end, [told], {"force": True})
        timer.daemon = True
        timer.start()

    def _end(self, told: Any, *, force: bool) -> None:
        if self._ray.is_initialized():
            try:
                self._ray.cancel(told, force=force)
            except Exception:  # it is gone meanwhile
                logger.debug("a node could not be cancelled on its Ray cluster", exc_info=True)

    def close(self) -> None:
        """Ends the connection, where it was made here, when the last adapter that uses it is closed."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if not self._users and self._connected and self._process == os.getpid():
                self._connected = False
                self._ray.shutdown()


class _Waiting:
    """A call that is on the cluster, as one thread waits for it."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.cancelled = False
        self._told: Any = None
        self._future: Any = None
        self._lock = threading.Lock()

    def sent(self, told: Any, cancel: Callable[[Any], object]) -> None:
        with self._lock:
            self._told = told
            cancelled = self.cancelled
        if cancelled:
            cancel(told)
            return
        self._future = told.future()
        self._future.add_done_callback(lambda _: self.ended.set())

    def outcome(self) -> Any:
        return self._future.result(0)

    def cancel(self, cancel: Callable[[Any], object]) -> None:
        with self._lock:
            self.cancelled = True
            told = self._told
        self.ended.set()
        if told is not None:
            cancel(told)


def _far_side() -> Callable[..., Any]:
    """`run`, by its name: made within a function, it is sent as it is, and what a worker lacks fails the node there."""
    name = _FAR_SIDE

    def traced_threadpool_node(*arguments: Any) -> Any:
        from importlib import import_module

        return import_module(name).run(*arguments)

    return traced_threadpool_node


def run(head: bytes, versions: dict[str, str], payload: Any, *upstream: Any) -> tuple[Any, Any]:
    """One call of a node's function, in a Ray worker. What comes first is small; the value stays where it is.

    Raises:
        RuntimeError: This worker has another version of Python or of this package.
    """
    received_ns = time.monotonic_ns()
    request = cluster_worker.request_of(head, versions)
    facts, raised, answer = cluster_worker.perform(request, payload, upstream, received_ns, moved_ns=0)
    told = tuple(facts), _attempts()
    if raised is None:
        return (*told, None, None), answer
    return (*told, raised, (bytes(answer.stream), [bytes(block) for block in answer.blocks])), None


def _attempts() -> int:
    """How often the calling task has been started."""
    try:
        import ray

        return int(ray.get_runtime_context().worker.core_worker.get_current_task_attempt_number()) + 1
    except Exception:  # of Ray's own making, and of no version for certain
        return 1


def _checked_amount(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not value >= 0:
        raise ValueError(f"{name} must be 0 or more, not {value}")
    return value
