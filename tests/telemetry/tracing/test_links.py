"""Links to the spans of upstream nodes."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from tests.telemetry.tracing.span_nodes import Watching, wide

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from hamilton.function_modifiers import tag

from tests.dags import submit
from tests.telemetry.small_nodes import joined, left, load
from tests.telemetry.telemetry_helpers import Gate, Traces, context_of, make_adapter, make_driver, node_view, until
from tests.telemetry.tracing.span_nodes import RUN
from traced_threadpool import FutureAdapter


def test_sampler_sees_the_links_and_what_is_known_at_the_start() -> None:
    """Links are given when the span is created, when samplers decide; so are the names and tags."""
    sampler = Watching()
    traces = Traces(sampler=sampler)

    @tag(team="core")
    def tagged(load: int) -> int:
        return load

    with make_adapter(traces) as adapter:
        make_driver(adapter, load, tagged).execute(["tagged"])
    attributes, links = sampler.shown["tagged"]
    assert [(link.context, dict(link.attributes or {})) for link in links] == [
        (context_of(traces.only("load")), {"hamilton.link.parameter": "load"})
    ]
    known = {"hamilton.node.name", "hamilton.run.id", "hamilton.threadpool.name", "hamilton.node.tag.team"}
    assert known <= set(attributes) <= set(traces.attributes("tagged"))


def test_upstream_by_two_parameters_is_one_link(traces: Traces, adapter: FutureAdapter) -> None:
    """One link per upstream span, whatever the number of parameters that its value comes in by."""
    loaded = submit(adapter, load)
    assert submit(adapter, joined, left=loaded, right=loaded).result() == 2
    adapter.close()
    assert traces.views() == [
        node_view("joined", parent=None, links=(("load", "left"),)),
        node_view("load", parent=None),
    ]
    assert traces.attributes("joined")["hamilton.node.upstream"] == ("load",)


def test_values_that_no_node_made_have_no_link(traces: Traces, adapter: FutureAdapter) -> None:
    """Inputs, overrides and futures of somebody else's are no nodes: no link and no upstream."""
    foreign: Future[int] = Future()
    waiting = submit(adapter, joined, left=foreign, right=1)
    foreign.set_result(1)
    assert waiting.result(timeout=60) == 2
    make_driver(adapter, load, left).execute(["left"], overrides={"load": 1})
    adapter.close()
    assert traces.views() == [RUN, node_view("joined", parent=None), node_view("left")]
    assert "hamilton.node.upstream" not in traces.attributes("joined")


def test_node_of_another_adapter_is_linked(traces: Traces, adapter: FutureAdapter) -> None:
    """An input that a node of another adapter makes is upstream all the same."""
    with make_adapter(traces) as other:
        loaded = submit(other, load)
        loaded.result()
        assert submit(adapter, left, load=loaded).result() == 2
    adapter.close()
    assert traces.views() == [node_view("left", "load", parent=None), node_view("load", parent=None)]


def test_node_of_another_adapter_that_has_not_started_is_linked(
    traces: Traces, adapter: FutureAdapter, one_worker: FutureAdapter
) -> None:
    """The link does not depend on whether the other adapter's node had a span already when this one was submitted."""
    gate = Gate()
    submit(one_worker, gate)
    gate.wait_for()
    loaded = submit(one_worker, load)
    waiting = submit(adapter, left, load=loaded)
    gate.open()
    assert waiting.result(timeout=60) == 2
    one_worker.close()
    adapter.close()
    assert traces.views() == [
        node_view("Gate", parent=None),
        node_view("left", "load", parent=None),
        node_view("load", parent=None),
    ]


def test_node_of_another_adapter_by_two_parameters_is_one_link(traces: Traces, adapter: FutureAdapter) -> None:
    """One link per upstream span holds across adapters."""
    with make_adapter(traces) as other:
        loaded = submit(other, load)
        loaded.result()
        assert submit(adapter, joined, left=loaded, right=loaded).result() == 2
    adapter.close()
    assert traces.views() == [
        node_view("joined", parent=None, links=(("load", "left"),)),
        node_view("load", parent=None),
    ]


def test_future_that_a_node_returned_is_linked_by_the_parameter(traces: Traces) -> None:
    """A value that came by way of a future in a future has two nodes upstream, both by the same parameter."""
    gate = Gate()

    def inner() -> int:
        gate()
        return 1

    with make_adapter(traces, max_workers=2) as adapter:
        waiting = submit(adapter, left, load=submit(adapter, lambda: submit(adapter, inner)))
        gate.wait_for()
        until(lambda: adapter.snapshot().active_workers == 1)  # `left` has been taken, and put back to wait for `inner`
        gate.open()
        assert waiting.result(timeout=60) == 2
    assert traces.views() == [
        node_view("<lambda>", parent=None),
        node_view("inner", parent="<lambda>"),
        node_view("left", parent=None, links=(("<lambda>", "load"), ("inner", "load"))),
    ]


def test_future_that_a_node_returned_is_linked_when_it_is_done(traces: Traces, adapter: FutureAdapter) -> None:
    """As above, where the inner node has ended before: links do not depend on who was faster."""

    def outer() -> Future[Any]:
        inner = submit(adapter, load)
        inner.result()
        return inner

    assert submit(adapter, left, load=submit(adapter, outer)).result() == 2
    adapter.close()
    assert traces.views() == [
        node_view("left", parent=None, links=(("outer", "load"), ("load", "load"))),
        node_view("load", parent="outer"),
        node_view("outer", parent=None),
    ]


def test_two_hundred_upstream_nodes_are_all_named(traces: Traces, adapter: FutureAdapter) -> None:
    """The SDK keeps 128 links of a span; `hamilton.node.upstream` keeps every name."""
    make_driver(adapter, *wide(200)).execute(["total"])
    total = traces.only("total")
    assert (len(total.links), total.dropped_links) == (128, 72)
    assert traces.attributes("total")["hamilton.node.upstream"] == tuple(f"n{i}" for i in range(200))
