"""Nothing is kept once a run is over, and a forked process starts afresh."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.dags import start
from tests.telemetry.tracing.faulty import Big, make_big

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from tests.telemetry.telemetry_helpers import LIMIT_SECONDS, Gate, Traces, make_adapter, make_driver, run_program, until
from tests.telemetry.tracing.faulty import after, fails, left, load
from traced_threadpool import FutureAdapter
from traced_threadpool.model.usual_duration import UsualDuration
from traced_threadpool.waits.split import History
from traced_threadpool.waits.supervisor import supervisor


def test_result_is_freed_as_soon_as_nobody_needs_it() -> None:
    """In the middle of a run: a node that two others have used already is gone when the last one runs."""
    big, ref = make_big()
    gate = Gate()
    alive: list[bool] = []

    def first(big: Big) -> int:
        return 1

    def second(big: Big) -> int:
        return 2

    def last(first: int, second: int) -> int:
        gate()
        gc.collect()
        alive.append(ref[0]() is not None)
        return first + second

    with make_adapter(Traces()) as adapter:
        outputs = start(make_driver(adapter, big, first, second, last), ["last"])
        gate.wait_for()
        gate.open()
        assert outputs["last"].result(timeout=LIMIT_SECONDS) == 3
    assert alive == [False]


def test_result_is_freed_with_its_future() -> None:
    """Neither adapter, run nor span keeps what the caller has let go of."""
    big, ref = make_big()
    traces = Traces()
    with make_adapter(traces) as adapter:
        outputs = make_driver(adapter, big).execute(["big"])
        assert isinstance(outputs.pop("big"), Big)
        until(lambda: gc.collect() >= 0 and ref[0]() is None)
        assert len(traces.spans) == 2


@pytest.fixture
def unlogged(caplog: pytest.LogCaptureFixture) -> None:
    """Hamilton logs exceptions, and pytest keeps what is logged, with its tracebacks and all that they hold."""
    caplog.set_level(logging.CRITICAL + 1, "hamilton")


@pytest.mark.usefixtures("unlogged")
def test_failed_run_keeps_nothing_alive() -> None:
    """An exception holds its frames, and they hold values; once the caller drops it, all are freed."""
    big, ref = make_big()

    def breaks(big: Big) -> int:
        raise ValueError("a message")

    def never(breaks: int) -> int:
        return breaks

    with make_adapter(Traces()) as adapter:
        with pytest.raises(ValueError, match="a message"):
            make_driver(adapter, big, breaks, never).execute(["never"])
        gc.collect()
        assert ref[0]() is None


def own_objects() -> Counter[str]:
    """How many objects there are of this package's classes and of the SDK's spans.

    Without what is kept for each node's name, made when it is first wanted: where it waits, how long it usually takes.
    """
    gc.collect()
    kinds = (type(each) for each in gc.get_objects())
    return Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in kinds
        if str(kind.__module__).startswith(("traced_threadpool", "opentelemetry.sdk.trace"))
        and kind not in (History, UsualDuration)
    )


@pytest.fixture
def sampled() -> Iterator[None]:
    """What looks at workers is the process's: it comes once nodes have run for a while. Here it is there, and stays."""

    def naps() -> None:
        time.sleep(0.06)

    with make_adapter(tracing=False) as adapter:
        driver = make_driver(adapter, naps)
        until(lambda: bool(driver.execute(["naps"])) and "warming_up" not in str(supervisor.method.reason))
        yield


@pytest.mark.usefixtures("unlogged", "sampled")
def test_many_runs_leave_nothing_behind() -> None:
    """After fifty runs, good, failed and nested, there are no more objects and threads than after the first."""
    traces = Traces()
    with make_adapter(traces, max_workers=2) as adapter:
        inner = make_driver(adapter, load, left)

        def outer() -> int:
            result: dict[str, int] = inner.execute(["left"])
            return result["left"]

        good, bad = make_driver(adapter, outer), make_driver(adapter, fails, after)

        def run() -> None:
            good.execute(["outer"])
            with contextlib.suppress(ValueError):
                bad.execute(["after"])
            traces.wait_for(8)
            traces.clear()

        both = threading.Barrier(2)

        def first() -> int:
            return both.wait(LIMIT_SECONDS)

        def second() -> int:
            return both.wait(LIMIT_SECONDS)

        make_driver(adapter, first, second).execute(["first", "second"])  # so both workers are there from now on
        traces.wait_for(3)
        traces.clear()
        for _ in range(2):
            run()
        until(lambda: adapter.snapshot().active_workers == 0)
        objects, threads = own_objects(), threading.active_count()
        for _ in range(50):
            run()
        # What other tests have left may go meanwhile. Without a GIL, what ends the last runs may still
        # be at it.
        until(lambda: own_objects() - objects == Counter())
        until(lambda: threading.active_count() <= threads + 1)  # those that come with a run end a while after it


@pytest.mark.usefixtures("sampled")
def test_closed_adapter_is_freed() -> None:
    """With all that belongs to it, when the program drops it: spans, runs, pool and scheduler."""
    before = own_objects()
    traces: Traces | None = Traces()
    adapter: FutureAdapter | None = make_adapter(traces, max_workers=2)
    assert adapter is not None
    make_driver(adapter, load, left).execute(["left"])
    adapter.close()
    until(lambda: not telemetry_threads())
    del adapter, traces
    until(lambda: own_objects() - before == Counter())  # the waits' own thread may hold it at this moment


def telemetry_threads() -> list[threading.Thread]:
    """Those that end spans, the newest last."""
    return [thread for thread in threading.enumerate() if thread.name == "traced-threadpool-telemetry"]


def test_telemetry_thread_ends_when_idle_and_starts_again() -> None:
    """It lives for the spans that there are, is a daemon, and the next run gets a new one."""
    traces = Traces()
    with make_adapter(traces) as adapter:
        seen: list[threading.Thread] = []

        class Notes(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                seen.append(threading.current_thread())

        traces.provider.add_span_processor(Notes())
        dr = make_driver(adapter, load)
        dr.execute(["load"])
        thread = seen[0]
        assert (thread.name, thread.daemon) == ("traced-threadpool-telemetry", True)
        thread.join(LIMIT_SECONDS)
        assert not thread.is_alive()
        dr.execute(["load"])
        assert len(traces.spans) == 4


def test_without_spans_there_is_no_telemetry_thread() -> None:
    """A program without an SDK, or with `tracing=False`, pays for no thread."""
    before = {thread.ident for thread in threading.enumerate() if thread.name == "traced-threadpool-telemetry"}
    for options in ({"tracer_provider": trace.NoOpTracerProvider()}, {"tracing": False}):
        with make_adapter(**options) as adapter:
            make_driver(adapter, load, left).execute(["left"])
    after_ = {thread.ident for thread in threading.enumerate() if thread.name == "traced-threadpool-telemetry"}
    assert after_ <= before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_tracing_goes_on_in_a_forked_child() -> None:
    """An adapter that has run, is running a node is forked; the child's run is traced, and counted."""
    printed = run_program(
        """
        import os, sys, threading
        from hamilton import ad_hoc_utils, driver
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from prometheus_client import REGISTRY
        from traced_threadpool import FutureAdapter

        seen, entered, go = [], threading.Event(), threading.Event()

        class Keeps(SpanProcessor):
            def on_end(self, span):
                if " " not in span.name:  # others are of waits
                    seen.append(span.name)

        def load() -> int: return 1
        def left(load: int) -> int: return load + 1
        def held() -> int:
            entered.set()
            go.wait(60)
            return 1

        def counted():
            labels = {"pool": "default", "node": "left", "outcome": "success"}
            return REGISTRY.get_sample_value("hamilton_nodes_total", labels)

        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(Keeps())
        adapter = FutureAdapter(max_workers=2, tracer_provider=provider)
        module = ad_hoc_utils.create_temporary_module(load, left, held)
        dr = driver.Builder().with_modules(module).with_adapters(adapter).build()
        dr.execute(["left"])
        adapter.build_result = lambda **outputs: outputs
        outputs = dr.execute(["held"])
        del adapter.build_result
        entered.wait(60)
        pid = os.fork()
        if pid == 0:
            seen.clear()
            print("child", dr.execute(["left"]), seen, adapter.telemetry_errors, counted(), flush=True)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        go.set()
        outputs["held"].result()
        adapter.close()
        print("parent", seen, adapter.telemetry_errors, counted())
        """,
        ["-W", "ignore::DeprecationWarning"],  # of forking with threads, which is what is tested here
    )
    assert printed.splitlines() == [
        "child {'left': 2} ['load', 'left', 'hamilton.run'] {} 2",
        "parent ['load', 'left', 'hamilton.run', 'held', 'hamilton.run'] {} 1",
    ]
