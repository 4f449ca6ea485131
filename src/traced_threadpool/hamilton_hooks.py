"""A driver's table of hooks into one in which an adapter hears of the driver's runs, without being a hook itself.

Hamilton's own `FutureAdapter` has no graph hooks, and a drop-in can have none either:

- the async driver takes over every adapter that has a hook, and leaves Hamilton's `FutureAdapter` aside;
- `Driver.materialize` calls `post_graph_execute` also where it failed before it had a graph, and then raises
  `UnboundLocalError` instead of the error (https://github.com/apache/hamilton/issues/1662);
- graph hooks of a subclass would hide ours, or ours theirs.

So a listener is put into the driver's table when the driver validates its graph, which it does before any run.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context

from traced_threadpool import hamilton_graph
from traced_threadpool.assembly import Assembly, end_runs_at_exit
from traced_threadpool.engine.outputs import wait_for_outputs
from traced_threadpool.engine.scheduler import AS_ADDED
from traced_threadpool.engine.work import NodeFuture, Run, closed_error, current_work
from traced_threadpool.model import forks
from traced_threadpool.model.exceptions import is_a
from traced_threadpool.model.lock_backoff import letting_go
from traced_threadpool.model.records import THREADS, RunRecord, unix_offset_ns
from traced_threadpool.placement import may_move

if TYPE_CHECKING:
    from hamilton.lifecycle import base

PRE: Final = "pre_graph_execute"
POST: Final = "post_graph_execute"
BUILD: Final = "do_build_result"


class RunHooks:
    """Hears of the runs of a driver, from before the first node until Hamilton has left the graph."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly

    def in_run(self) -> bool:
        """Whether the calling thread has begun a run that Hamilton has not ended."""
        return self._assembly.runs.has_begun()

    @letting_go
    def pre_graph_execute(
        self,
        *,
        run_id: str,
        graph: Any,
        final_vars: list[str],
        inputs: dict[str, Any] | None,
        overrides: dict[str, Any] | None,
    ) -> None:
        """Hamilton is about to execute a graph. The run starts with its first node: it may never come to that."""
        forks.check()
        parent = current_work.get()
        assembly = self._assembly
        if assembly.pool.closed and parent is None:
            raise closed_error()
        record = RunRecord(
            run_id,
            assembly.options.run_name,
            output_names=tuple(final_vars),
            input_names=tuple(inputs or ()),
            override_names=tuple(overrides or ()),
            graph=graph,
            started_ns=time.monotonic_ns(),
            unix_offset_ns=parent.run.unix_offset_ns if parent is not None and parent.run else unix_offset_ns(),
        )
        record.telemetry = otel_context.get_current()
        run = Run(record, parent=parent, fail_fast=assembly.options.fail_fast, outer_error=sys.exc_info()[1])
        run.learn = assembly.learn
        if assembly.backends:
            wanted = tuple(final_vars), frozenset(overrides or ())
            run.placement = assembly.placements.of(graph, wanted, partial(hamilton_graph.upstream, graph, *wanted))
            if assembly.auto is not None:
                moved = assembly.auto.moved(name for name, node in graph.nodes.items() if may_move(node))
                record.placed = assembly.auto.evidence(
                    name for name, where in moved.items() if where != THREADS and name not in run.placement
                )
                run.placement = {**moved, **run.placement}
        self._set_priorities(run, graph, final_vars, overrides)
        end_runs_at_exit()
        assembly.runs.announce(run)

    def building_result(self) -> None:
        """Hamilton is about to have a result built, by the calling thread: what it then returns is the builder's."""
        run = self._assembly.runs.innermost()
        if run is not None:
            run.built = True

    @letting_go
    def post_graph_execute(
        self, *, run_id: str, graph: Any, success: bool, error: Exception | None, results: Any
    ) -> None:
        """Hamilton has left the graph. Where it has no result built, values take the place of the futures.

        Raises:
            BaseException: That of a node which such a value depends on; or what interrupted the wait.
        """
        run = self._assembly.runs.start(run_id)
        if run is None:
            return
        try:
            if success and not run.built and isinstance(results, dict) and not _interrupted(run):
                _give_values(run, results)
        except BaseException as raised:
            self._leave(run, run_id, raised)
            raise
        self._leave(run, run_id, None if success else error)

    def _leave(self, run: Run, run_id: str, failure: BaseException | None) -> None:
        """The run ends when its last node has."""
        assembly, record = self._assembly, run.record
        assert record is not None
        assembly.runs.leave(run_id)
        if is_a(failure, Exception):
            record.error = failure
        # Hamilton says of Ctrl-C that the run was a success.
        if _interrupted(run):
            assembly.pool.cancel_run(run)
        traced = record.telemetry is not None
        assembly.pool.close_run(run)
        if run.parent is None:
            assembly.flush(spans=traced)

    def _set_priorities(self, run: Run, graph: Any, final_vars: list[str], overrides: dict[str, Any] | None) -> None:
        assembly = self._assembly
        wanted = (tuple(final_vars), frozenset(overrides or ()))
        upstream = partial(hamilton_graph.upstream, graph, *wanted)
        try:
            ranks = assembly.planner.ranks(graph, wanted, upstream)
        except Exception as error:  # costs the order, and no node
            assembly.errors.caught("priority", error)
            return
        assert run.record is not None
        run.plan = _Plan(graph, wanted)
        run.ranks, run.record.priority, learns, count = ranks
        if assembly.pool.max_workers == 1 and not callable(assembly.options.priority):
            run.ranks = AS_ADDED  # no order is faster; this one is Hamilton's
        tracing = assembly.tracing
        if tracing is not None and tracing.large_run is not None and len(graph.nodes) > tracing.large_run:
            run.record.planned = len(upstream()) if count is None else count
        if not learns:
            run.learn = None


class _Plan:
    """The nodes that a run will have, worked out when somebody asks; None where their number is not known before."""

    __slots__ = ("_graph", "_known", "_wanted")

    def __init__(self, graph: Any, wanted: tuple[tuple[str, ...], frozenset[str]]) -> None:
        self._graph = weakref.ref(graph)  # a future that is kept keeps its run, and should keep no driver
        self._wanted = wanted
        self._known: list[Mapping[str, Sequence[str]] | None] = []

    def __call__(self) -> Mapping[str, Sequence[str]] | None:
        if not self._known:  # two who ask at once both work it out
            graph = self._graph()
            if graph is None:
                return None
            found = hamilton_graph.upstream(graph, *self._wanted)
            self._known.append(None if hamilton_graph.has_branches(graph, found) else found)
        return self._known[0]


def _interrupted(run: Run) -> bool:
    """Whether an exception passes through, here in the caller's thread, that is no node's: Ctrl-C, a time limit."""
    passing = sys.exc_info()[1]
    return passing is not None and passing is not run.outer_error and not run.raised(passing)


def _give_values(run: Run, results: dict[str, Any]) -> None:
    """Puts values in the place of the run's futures, in what `raw_execute` or `materialize` is about to return.

    Raises:
        BaseException: That of a node, or what interrupted the wait for it.
    """
    assert run.record is not None
    metadata = _metadata_beside(results)
    places = [
        (returned, name, value)
        for returned in (results, metadata)
        for name, value in returned.items()
        if isinstance(value, NodeFuture) and value.work.queue is run
    ]
    futures = [future for _, _, future in places]
    is_whole = {*run.record.output_names} <= {*results, *metadata}
    if not is_whole:  # a saver's end is waited for wherever its future went
        futures += [future for work in run.pending.copy() if (future := work.future) is not None]
    wait_for_outputs(futures, fail_fast=run.fail_fast)
    if not is_whole and run.failure is not None and run.failure.error is not None:
        raise run.failure.error
    for returned, name, future in places:
        returned[name] = future.result()


_NEARBY: Final = 10


def _metadata_beside(results: dict[str, Any]) -> dict[str, Any]:
    """What `Driver.materialize` is about to return beside these results: its savers' metadata, by name.

    Hamilton hands that to no hook. So it is looked up in that function's variables; it is the one that calls the hooks.
    """
    frame: FrameType | None = sys._getframe()
    for _ in range(_NEARBY):
        if frame is None or frame.f_code.co_name == "materialize":
            break
        frame = frame.f_back
    outputs = None if frame is None else frame.f_locals.get("outputs")
    if type(outputs) is tuple and len(outputs) == 2 and outputs[1] is results and type(outputs[0]) is dict:
        return outputs[0]
    return {}


def listen(adapters: base.LifecycleAdapterSet, adapter: object, listener: RunHooks) -> None:
    """Has the listener hear of the runs of the driver with these adapters, one of which is `adapter`.

    Once, however often this is called.
    """
    hooks: Mapping[str, list[Any]] = adapters.sync_hooks
    if not any(each is listener for each in hooks.get(PRE, ())):
        place = {id(each): number for number, each in enumerate(adapters.adapters)}
        before = [each for each in hooks.get(PRE, ()) if place.get(id(each), 0) < place.get(id(adapter), 0)]
        adapters.sync_hooks = _with_listener(hooks, listener, heard_before=len(before))
        methods: dict[str, list[Any]] = {**adapters.sync_methods}
        methods[BUILD] = [_Builder(each, listener) for each in methods[BUILD]]
        adapters.sync_methods = methods


def _with_listener(hooks: Mapping[str, list[Any]], listener: RunHooks, *, heard_before: int) -> dict[str, list[Any]]:
    """Hamilton's `sync_hooks`, who is to be called by the name of the hook, and the listener besides.

    The listener hears of a run's start in its adapter's turn, and of the end before everybody else, so that a hook that
    raises leaves no run open, and that the others see values.

    A plain dict: Hamilton looks at it several times for each node, and `in` takes three times as long on a subclass.
    """
    starts, others = hooks.get(PRE, []), next((each for name, each in hooks.items() if str.__eq__(name, POST)), [])
    heard = {name: each for name, each in hooks.items() if type(name) is str}
    heard[PRE] = [*starts[:heard_before], listener, *starts[heard_before:]]
    heard[POST if POST in heard else _InRun(listener)] = [_End(listener, others), *others]
    return heard


class _InRun(str):
    """The name of the hook at a run's end, to those who are in a run; to others a name that nobody asks for.

    A `__contains__` of the table's own would cost two calls for each node: Hamilton asks for the hooks around it.
    """

    _listener: RunHooks

    def __new__(cls, listener: RunHooks) -> _InRun:
        name = super().__new__(cls, POST)
        name._listener = listener
        return name

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) and self._listener.in_run()

    __hash__ = str.__hash__


class _End:
    """A listener that hears of a run's end. When it raises, Hamilton calls nobody else: the others hear of it here."""

    def __init__(self, listener: RunHooks, others: Sequence[Any]) -> None:
        self._listener = listener
        self._others = others

    def post_graph_execute(self, **told: Any) -> None:
        try:
            self._listener.post_graph_execute(**told)
        except BaseException as error:
            for each in self._others:
                each.post_graph_execute(**{**told, "success": False, "error": error, "results": None})
            raise


class _Builder:
    """A driver's result builder, with a listener that hears when it is asked for a result."""

    def __init__(self, builder: Any, listener: RunHooks) -> None:
        self._builder = builder
        self._listener = listener

    def do_build_result(self, **outputs: Any) -> Any:
        self._listener.building_result()
        return self._builder.do_build_result(**outputs)
