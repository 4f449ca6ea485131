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
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context

from traced_threadpool import hamilton_graph
from traced_threadpool.assembly import Assembly, end_runs_at_exit
from traced_threadpool.engine.scheduler import AS_ADDED
from traced_threadpool.engine.work import Run, closed_error, current_work
from traced_threadpool.model import forks
from traced_threadpool.model.lock_backoff import letting_go
from traced_threadpool.model.records import RunRecord, unix_offset_ns

if TYPE_CHECKING:
    from hamilton.lifecycle import base

PRE: Final = "pre_graph_execute"
POST: Final = "post_graph_execute"


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
        run.savers = dict.fromkeys(hamilton_graph.savers(graph, final_vars, overrides or ()))
        if assembly.backends:
            wanted = tuple(final_vars), frozenset(overrides or ())
            run.placement = assembly.placements.of(graph, wanted, partial(hamilton_graph.upstream, graph, *wanted))
        self._set_priorities(run, graph, final_vars, overrides)
        end_runs_at_exit()
        assembly.runs.announce(run)

    @letting_go
    def post_graph_execute(
        self, *, run_id: str, graph: Any, success: bool, error: Exception | None, results: Any
    ) -> None:
        """Hamilton has left the graph. The run ends when its last node has."""
        assembly = self._assembly
        run = assembly.runs.leave(run_id)
        if run is None:
            return
        record = run.record
        assert record is not None
        if not success:
            record.error = error
        # Hamilton says of Ctrl-C that the run was a success.
        ended_by = sys.exc_info()[1]
        if ended_by is not None and ended_by is not run.outer_error and not run.raised(ended_by):
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
            assembly.errors.record("priority", error)
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


def listen(adapters: base.LifecycleAdapterSet, adapter: object, listener: RunHooks) -> None:
    """Has the listener hear of the runs of the driver with these adapters, one of which is `adapter`.

    Once, however often this is called.
    """
    hooks = adapters.sync_hooks
    if not (isinstance(hooks, _Hooks) and hooks.listener is listener):
        place = {id(each): number for number, each in enumerate(adapters.adapters)}
        before = [each for each in hooks.get(PRE, ()) if place.get(id(each), 0) < place.get(id(adapter), 0)]
        adapters.sync_hooks = _Hooks(hooks, listener, heard_before=len(before))


class _Hooks(dict[str, list[Any]]):
    """Hamilton's `sync_hooks`: who is to be called, by the name of the hook.

    The listener hears of a run's start in its adapter's turn, and of the end before everybody else, so that a hook that
    raises leaves no run open.
    """

    def __init__(self, hooks: Mapping[str, list[Any]], listener: RunHooks, *, heard_before: int) -> None:
        super().__init__(hooks)
        self.listener = listener
        self._others_hear_of_ends = POST in hooks
        starts = hooks.get(PRE, [])
        self[PRE] = [*starts[:heard_before], listener, *starts[heard_before:]]
        self[POST] = [listener, *hooks.get(POST, ())]

    def __contains__(self, hook: object) -> bool:
        if hook == POST and not self._others_hear_of_ends:
            return self.listener.in_run()
        return super().__contains__(hook)
