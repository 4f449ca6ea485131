"""`setup_telemetry(file=)`: spans to a file of OTLP/JSON."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests.telemetry.export.programs import PRELUDE, file_names, needs_extra, sdk_version, start, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.telemetry.otlp_receiver import HttpReceiver

    Run = Callable[..., subprocess.CompletedProcess[str]]


@needs_extra
def test_a_file_line_says_what_the_network_exporters_send(run: Run, tmp_path: Path) -> None:
    """Field by field: ids, kinds, times, every type of attribute, events, links, status, resource, scope."""
    result = run(
        """
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
        from opentelemetry.trace import TraceFlags, TraceState

        setup = setup_telemetry(file="trace.jsonl")
        memory = InMemorySpanExporter()
        setup.tracer_provider.add_span_processor(SimpleSpanProcessor(memory))

        remote = SpanContext(1, 2, True, TraceFlags(1), TraceState([("vendor", "x")]))
        parent = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        tracer = trace.get_tracer("scope", "1.2", schema_url="https://opentelemetry.io/schemas/1.30.0")
        with tracer.start_as_current_span(
            "größer\\n\\u2028", context=parent, kind=SpanKind.CLIENT, links=[Link(remote, {"a": "b"})],
            attributes={
                "text": "ä\\"\\\\\\x00\\U0001f600", "empty": "", "true": True,
                "integer": 2**63 - 1, "negative": -5,
                "float": 0.1, "whole": 3.0, "not a number": float("nan"), "infinite": -float("inf"),
                "texts": ["a", "b"], "integers": [1, 2], "floats": [1.5, float("inf")], "none": [],
            },
        ) as span:
            span.add_event("event", {"key": 1}, timestamp=5)
            try:
                raise ValueError("reason")
            except ValueError as error:
                span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, "failed"))
        trace.get_tracer("other").start_span("ok").set_status(StatusCode.OK)
        span = trace.get_tracer("other").start_span("many")
        for number in range(200):
            span.add_event(f"event {number}")
            span.set_attribute(f"attribute {number}", number)
        span.end()
        setup.flush()
        print(encode_spans(memory.get_finished_spans()).SerializeToString(deterministic=True).hex())
        """
    )
    from tests.telemetry.otlp_receiver import Request, parse_line

    (line,) = (tmp_path / "trace.jsonl").read_bytes().splitlines()
    written, expected = parse_line(line), Request.FromString(bytes.fromhex(result.stdout))
    if sdk_version() < (1, 31):  # whose encoder leaves out the schema of a scope
        for scope_spans in written.resource_spans[0].scope_spans:
            scope_spans.ClearField("schema_url")
    assert str(written) == str(expected)  # as text, because a NaN is not equal to itself


@needs_extra
def test_an_attribute_that_otlp_cannot_hold_is_written(run: Run, tmp_path: Path) -> None:
    """A lone surrogate, as in a file name that is not UTF-8, costs a character; more than 64 bits become text."""
    run(
        """
        setup_telemetry(file="trace.jsonl")
        trace.get_tracer("test").start_span("span", attributes={"path": "a\\udc80b", "large": 2**63}).end()
        """
    )
    (span,) = json.loads((tmp_path / "trace.jsonl").read_bytes())["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span["attributes"] == [
        {"key": "path", "value": {"stringValue": "a?b"}},
        {"key": "large", "value": {"stringValue": "9223372036854775808"}},
    ]


@needs_extra
def test_runs_add_up_in_a_file(run: Run, tmp_path: Path) -> None:
    """A file is appended to, and a line that an earlier process left torn does not spoil the next."""
    run("setup_telemetry(file='trace.jsonl'); spans(1)")
    with (tmp_path / "trace.jsonl").open("ab") as file:
        file.write(b'{"resourceSpans": [{"torn')
    run("setup_telemetry(file='trace.jsonl'); spans(1, first=1)")
    from tests.telemetry.otlp_receiver import parse_line, spans_in

    first, torn, second = (tmp_path / "trace.jsonl").read_bytes().splitlines()
    assert torn == b'{"resourceSpans": [{"torn'
    assert [span.name for span in spans_in([parse_line(first), parse_line(second)])] == ["span 0", "span 1"]


@needs_extra
@pytest.mark.parametrize(
    ("ending", "code"), [("", 0), ("sys.exit(3)", 3), ("raise ValueError", 1), ("setup.close()", 0)]
)
def test_every_span_is_exported_at_the_end(
    run: Run, http_receiver: HttpReceiver, tmp_path: Path, ending: str, code: int
) -> None:
    """However the program ends, with close() or without, nothing is left in a queue."""
    program = f"setup = setup_telemetry(endpoint={http_receiver.endpoint!r}, file='trace.jsonl'); spans(2000)"
    run(f"{program}\n{ending}", expect_exit=code)
    assert len(http_receiver.spans) == 2000
    assert len(file_names(tmp_path / "trace.jsonl")) == 2000


@needs_extra
def test_an_adapters_run_is_exported(run: Run, tmp_path: Path) -> None:
    """An adapter made after the setup, and told nothing, sends its spans where the setup says."""
    run(
        """
        from hamilton import ad_hoc_utils, driver
        from traced_threadpool import FutureAdapter

        def a() -> int:
            return 1

        def b(a: int) -> int:
            return a

        nodes = ad_hoc_utils.create_temporary_module(a, b)
        setup_telemetry(file="trace.jsonl")
        driver.Builder().with_modules(nodes).with_adapters(FutureAdapter()).build().execute(["b"])
        """
    )
    names = file_names(tmp_path / "trace.jsonl")
    assert sorted(name for name in names if " " not in name) == ["a", "b", "hamilton.run"]  # others are of waits


@needs_extra
def test_the_end_drains_adapters_before_the_provider(run: Run, tmp_path: Path) -> None:
    """A span that its adapter has not ended yet when the program ends is exported, not lost."""
    run(
        """
        import time
        from opentelemetry.sdk.trace import SpanProcessor
        from traced_threadpool import FutureAdapter

        class Slow(SpanProcessor):
            def on_end(self, span):
                time.sleep(0.5)

        setup = setup_telemetry(file="trace.jsonl")
        processors = setup.tracer_provider._active_span_processor
        processors._span_processors = (Slow(), *processors._span_processors)
        FutureAdapter().do_remote_execute(node=None, execute_lifecycle_for_node=lambda: 1).result()
        """
    )
    assert len(file_names(tmp_path / "trace.jsonl")) == 1


@needs_extra
def test_sigkill_leaves_a_readable_file(tmp_path: Path) -> None:
    """A killed process leaves whole lines, and what it did more than a moment ago is among them."""
    path = tmp_path / "trace.jsonl"
    program = PRELUDE + dedent(
        """
        import itertools, time
        setup_telemetry(file="trace.jsonl")
        for number in itertools.count():
            spans(1, first=number)
            time.sleep(0.0001)
        """
    )
    with start(program, tmp_path) as process:
        wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 3)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    names = file_names(path)
    assert names == [f"span {number}" for number in range(len(names))]


@needs_extra
def test_a_file_is_written_to_without_delay(tmp_path: Path) -> None:
    """What a program did is in its file within moments, not only once a batch is full or 5 s are over."""
    program = PRELUDE + 'setup_telemetry(file="trace.jsonl"); spans(1); print("done", flush=True); input()'
    with start(program, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        wait_until(lambda: file_names(tmp_path / "trace.jsonl") == ["span 0"], timeout_seconds=4)
        process.kill()


@needs_extra
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no named pipes")
def test_a_named_pipe_will_do(tmp_path: Path) -> None:
    """A reader that is slower than the program loses nothing."""
    os.mkfifo(tmp_path / "trace.jsonl")
    reader = os.open(tmp_path / "trace.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    with (
        start(PRELUDE + 'setup_telemetry(file="trace.jsonl"); spans(2000)', tmp_path),
        os.fdopen(reader, "rb") as lines,
    ):
        select.select([reader], [], [], 30)
        os.set_blocking(reader, True)
        (tmp_path / "copy.jsonl").write_bytes(lines.read())
    assert len(file_names(tmp_path / "copy.jsonl")) == 2000


@needs_extra
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the platform has no /dev/full")
def test_a_full_disk_is_told_and_fails_nothing(run: Run) -> None:
    """The program goes on and ends well; flush() is False; the log has the reason once, and the total."""
    result = run(
        """
        import logging
        logging.basicConfig(format="%(levelname)s %(message)s")
        setup = setup_telemetry(file="/dev/full")
        for turn in range(3):
            spans(2)
            assert setup.flush() is False
        setup.close()
        """
    )
    assert result.stderr.splitlines() == [
        "ERROR 2 spans could not be written to /dev/full: [Errno 28] No space left on device. "
        "Further failures are counted, not logged.",
        "WARNING 6 of 6 spans did not get to /dev/full",
    ]


@needs_extra
@pytest.mark.skipif(sys.platform == "win32", reason="the platform has no file size limit")
def test_writing_goes_on_after_a_failure(run: Run, tmp_path: Path) -> None:
    """A line that a full disk has torn stays alone: once there is space, the next starts afresh."""
    run(
        """
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        setup = setup_telemetry(file="trace.jsonl")
        spans(1)
        assert setup.flush()
        size = os.path.getsize("trace.jsonl") + 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        spans(1, first=1)
        assert not setup.flush()
        assert os.path.getsize("trace.jsonl") == size
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        spans(1, first=2)
        """
    )
    from tests.telemetry.otlp_receiver import parse_line, spans_in

    first, torn, third = (tmp_path / "trace.jsonl").read_bytes().splitlines()
    assert len(torn) == 100
    assert [span.name for span in spans_in([parse_line(first), parse_line(third)])] == ["span 0", "span 2"]


@needs_extra
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
def test_a_forked_child_exports_its_own_spans_only(run: Run, tmp_path: Path) -> None:
    """Both write to the file, line by line, and no span twice; the child serves no metrics."""
    run(
        """
        import socket, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and on: fork with threads
        setup = setup_telemetry(file="trace.jsonl", prometheus_port=0)
        port = setup.metrics_port
        spans(5)
        child = os.fork()
        spans(500, first=500 if child else 1000)
        if child == 0:
            assert setup.metrics_url is None
            assert setup.flush()
            setup.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert setup.flush()
        """
    )
    names = sorted(int(name.removeprefix("span ")) for name in file_names(tmp_path / "trace.jsonl"))
    assert names == [*range(5), *range(500, 1500)]


@needs_extra
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
def test_a_fork_within_an_export_does_not_hang_the_child(run: Run) -> None:
    """The exporter's lock, held by a thread that the child does not have, does not keep the child waiting."""
    run(
        """
        from traced_threadpool.telemetry.export.otlp_file import OtlpFileSpanExporter
        exporter = OtlpFileSpanExporter("trace.jsonl")
        with exporter._lock:
            child = os.fork()
            if child == 0:
                import signal
                signal.alarm(10)
                os._exit(exporter.export([]).value)
        assert os.waitpid(child, 0)[1] == 0
        """
    )
