"""`setup_telemetry`, as programs use it: in processes of their own, for a process has one tracer provider."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

import traced_threadpool
from traced_threadpool import setup_telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.telemetry.otlp_receiver import GrpcReceiver, HttpReceiver

    Run = Callable[..., subprocess.CompletedProcess[str]]

has_extra = importlib.util.find_spec("opentelemetry.sdk") is not None
needs_extra = pytest.mark.skipif(not has_extra, reason="needs the extra [otlp]")

PACKAGE_ROOT = str(Path(traced_threadpool.__file__).parents[1])

PRELUDE = """
import os, sys
from opentelemetry import trace
from traced_threadpool import setup_telemetry

def spans(count, first=0):
    for number in range(first, first + count):
        with trace.get_tracer("test").start_as_current_span(f"span {number}"):
            pass
"""


def environment(**variables: str) -> dict[str, str]:
    """The environment of a program under test: this one's without its OTEL_ variables, and these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return {**inherited, "PYTHONPATH": PACKAGE_ROOT, "HAMILTON_TELEMETRY_ENABLED": "false", **variables}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program to its end, in an empty directory, with every warning an error; return what it said."""

    def run(
        program: str, *, expect_exit: int = 0, arguments: tuple[str, ...] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, "-W", "error", *(arguments or ("-c", PRELUDE + dedent(program)))],
            env=environment(**variables),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert result.returncode == expect_exit, result.stderr
        return result

    return run


@pytest.fixture
def grpc_receiver() -> Iterator[GrpcReceiver]:
    from tests.telemetry.otlp_receiver import GrpcReceiver

    with GrpcReceiver() as receiver:
        yield receiver


@pytest.fixture
def http_receiver() -> Iterator[HttpReceiver]:
    from tests.telemetry.otlp_receiver import HttpReceiver

    with HttpReceiver() as receiver:
        yield receiver


def file_names(path: Path) -> list[str]:
    """The names of the spans in a file of OTLP/JSON."""
    from tests.telemetry.otlp_receiver import parse_file, spans_in

    return [span.name for span in spans_in(parse_file(path))]


def attributes(of: Any) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in of.attributes}


def sdk_version() -> tuple[int, ...]:
    return tuple(int(part) for part in importlib.metadata.version("opentelemetry-sdk").split(".")[:2])


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


# Spans to an endpoint


@needs_extra
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_spans_arrive_with_their_links(run: Run, request: pytest.FixtureRequest, protocol: str) -> None:
    """A span, its link with the link's attribute, its parent and its resource reach the endpoint."""
    receiver = request.getfixturevalue("grpc_receiver" if protocol == "grpc" else "http_receiver")
    run(
        f"""
        setup = setup_telemetry(service_name="shop", endpoint={receiver.endpoint!r})
        tracer = trace.get_tracer("test")
        with tracer.start_as_current_span("run"):
            with tracer.start_as_current_span("upstream") as upstream:
                pass
            link = trace.Link(upstream.get_span_context(), {{"hamilton.link.parameter": "a"}})
            tracer.start_span("node", links=[link]).end()
        setup.close()
        """,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    )
    upstream, node, whole = receiver.spans
    assert [upstream.name, node.name, whole.name] == ["upstream", "node", "run"]
    assert node.parent_span_id == whole.span_id
    (link,) = node.links
    assert (link.trace_id, link.span_id) == (upstream.trace_id, upstream.span_id)
    assert attributes(link) == {"hamilton.link.parameter": "a"}
    (resource_spans,) = receiver.requests[0].resource_spans
    assert attributes(resource_spans.resource)["service.name"] == "shop"


@needs_extra
def test_spans_go_to_endpoint_and_file(run: Run, http_receiver: HttpReceiver, tmp_path: Path) -> None:
    """Both may be given, and both get every span."""
    run(f"setup_telemetry(endpoint={http_receiver.endpoint!r}, file='trace.jsonl'); spans(3)")
    expected = ["span 0", "span 1", "span 2"]
    assert [span.name for span in http_receiver.spans] == expected
    assert file_names(tmp_path / "trace.jsonl") == expected


@needs_extra
def test_v1_traces_is_not_appended_twice(run: Run, http_receiver: HttpReceiver) -> None:
    """A base URL gets the path of traces, a URL that has it keeps it."""
    for endpoint in (
        http_receiver.endpoint,
        http_receiver.endpoint + "/",
        http_receiver.endpoint + "/v1/traces",
    ):
        run(f"setup_telemetry(endpoint={endpoint!r}); spans(1)")
    assert http_receiver.paths == ["/v1/traces"] * 3


@needs_extra
def test_variables_alone_configure_the_export(run: Run, http_receiver: HttpReceiver) -> None:
    """The signal's own endpoint is used as it is, before the general one; headers and attributes are sent."""
    run(
        "setup_telemetry(); spans(1)",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{http_receiver.endpoint}/custom",
        OTEL_EXPORTER_OTLP_HEADERS="x-token=secret",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_RESOURCE_ATTRIBUTES="team=data,service.name=from-attributes",
    )
    assert http_receiver.paths == ["/custom"]
    assert http_receiver.headers[0]["x-token"] == "secret"
    resource = attributes(http_receiver.requests[0].resource_spans[0].resource)
    assert (resource["team"], resource["service.name"]) == ("data", "from-attributes")


@needs_extra
def test_grpc_variables_without_a_scheme(run: Run, grpc_receiver: GrpcReceiver) -> None:
    """For gRPC the standard allows host:port in the variable, with OTEL_EXPORTER_OTLP_INSECURE."""
    run(
        "setup_telemetry(); spans(1)",
        OTEL_EXPORTER_OTLP_ENDPOINT=grpc_receiver.endpoint.removeprefix("http://"),
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        OTEL_EXPORTER_OTLP_INSECURE="true",
    )
    assert [span.name for span in grpc_receiver.spans] == ["span 0"]


@needs_extra
def test_arguments_win_over_variables(run: Run, http_receiver: HttpReceiver) -> None:
    """An endpoint and a service name given are used, whatever the variables say."""
    run(
        f"setup_telemetry(service_name='mine', endpoint={http_receiver.endpoint!r}); spans(1)",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:1",
        OTEL_TRACES_EXPORTER="none",
        OTEL_SERVICE_NAME="theirs",
        OTEL_RESOURCE_ATTRIBUTES="service.name=theirs",
    )
    resource = http_receiver.requests[0].resource_spans[0].resource
    assert attributes(resource)["service.name"] == "mine"


@needs_extra
def test_the_scheme_of_the_argument_decides_on_tls(run: Run, grpc_receiver: GrpcReceiver) -> None:
    """http:// is without TLS, although a variable asks for it."""
    run(
        f"setup_telemetry(endpoint={grpc_receiver.endpoint!r}); spans(1)",
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        OTEL_EXPORTER_OTLP_INSECURE="false",
    )
    assert [span.name for span in grpc_receiver.spans] == ["span 0"]


@needs_extra
@pytest.mark.parametrize(
    ("call", "variables", "expected"),
    [
        ("", {}, "endpoint='http://localhost:4318/v1/traces', protocol='http/protobuf'"),
        (
            "",
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "endpoint='http://localhost:4317', protocol='grpc'",
        ),
        (
            "file='t'",
            {"OTEL_TRACES_EXPORTER": "otlp"},
            "endpoint='http://localhost:4318/v1/traces', protocol='http/protobuf', file='{cwd}/t'",
        ),
        (
            "prometheus_port=None",
            {"OTEL_TRACES_EXPORTER": "otlp_proto_grpc"},
            "endpoint='http://localhost:4317', protocol='grpc'",
        ),
        (
            "endpoint='http://localhost:4317'",
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "endpoint='http://localhost:4317/v1/traces', protocol='http/protobuf'",
        ),
        (
            "endpoint='http://me:secret@localhost:4318'",
            {},
            "endpoint='http://localhost:4318/v1/traces', protocol='http/protobuf'",
        ),
        ("file='t'", {}, "file='{cwd}/t'"),
        ("file='t'", {"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, "file='{cwd}/t'"),
        (
            "file='t'",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h", "OTEL_TRACES_EXPORTER": "none"},
            "file='{cwd}/t'",
        ),
    ],
)
def test_where_spans_go(run: Run, tmp_path: Path, call: str, variables: dict[str, str], expected: str) -> None:
    """The repr says what arguments and variables together have come to."""
    result = run(f"print(setup_telemetry(service_name='s', {call}))", **variables)
    assert result.stdout.strip() == f"TelemetrySetup(service_name='s', {expected.format(cwd=tmp_path)})"


@needs_extra
def test_nothing_is_exported_that_variables_switch_off(run: Run, tmp_path: Path) -> None:
    """With OTEL_SDK_DISABLED, or no exporter and nothing else asked for: no provider, no file."""
    program = "setup = setup_telemetry({}); print(setup, setup.tracer_provider, trace.get_tracer_provider())"
    for call, variables in (
        ("file='trace.jsonl'", {"OTEL_SDK_DISABLED": " True "}),
        ("", {"OTEL_TRACES_EXPORTER": "none"}),
    ):
        printed = run(program.format(call), **variables).stdout
        assert printed.startswith("TelemetrySetup() None <opentelemetry.trace.ProxyTracerProvider")
    assert not (tmp_path / "trace.jsonl").exists()


@needs_extra
def test_the_sampler_variable_is_honoured(run: Run, tmp_path: Path) -> None:
    """OTEL_TRACES_SAMPLER decides what is recorded; what is not sampled is not a loss."""
    run(
        """
        setup = setup_telemetry(file="trace.jsonl")
        spans(3)
        assert setup.flush()
        """,
        OTEL_TRACES_SAMPLER="always_off",
    )
    assert (tmp_path / "trace.jsonl").read_bytes() == b""


@needs_extra
@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        (("train.py",), {}, "train"),
        (("-m", "jobs.train"), {}, "jobs.train"),
        (("-m", "jobs"), {}, "jobs"),
        (("-c", "import train"), {}, "traced_threadpool"),
        (("train.py",), {"OTEL_SERVICE_NAME": "from-variable"}, "from-variable"),
        (("train.py",), {"OTEL_RESOURCE_ATTRIBUTES": "service.name=from-attributes"}, "from-attributes"),
    ],
)
def test_the_service_name(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], expected: str
) -> None:
    """Without an argument: the variables', else what a person would call the program."""
    program = "from traced_threadpool import setup_telemetry\nprint(setup_telemetry(file='t'))"
    (tmp_path / "jobs").mkdir()
    for path in ("train.py", "jobs/__init__.py", "jobs/train.py", "jobs/__main__.py"):
        (tmp_path / path).write_text("" if path.endswith("init__.py") else program)
    variables = {"PYTHONPATH": f"{PACKAGE_ROOT}{os.pathsep}{tmp_path}", **variables}
    printed = run("", arguments=arguments, **variables).stdout
    assert printed.startswith(f"TelemetrySetup(service_name={expected!r}, ")


# Spans to a file


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
    assert sorted(file_names(tmp_path / "trace.jsonl")) == ["a", "b", "hamilton.run"]


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


def start(program: str, directory: Path, **variables: str) -> subprocess.Popen[str]:
    """Start a program that the test talks to, or ends."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        env=environment(**variables),
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition: Callable[[], bool], timeout_seconds: float = 60) -> None:
    """Return once `condition` holds, of something that another process does and nobody announces."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


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
        space = os.path.getsize("trace.jsonl") + 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (space, resource.RLIM_INFINITY))
        spans(1, first=1)
        assert not setup.flush()
        assert os.path.getsize("trace.jsonl") == space
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


# Metrics


def test_metrics_are_served_with_exemplars(run: Run) -> None:
    """The default registry, on port 0's port, in OpenMetrics with exemplars for those who accept it."""
    result = run(
        """
        import urllib.request
        from prometheus_client import Histogram
        setup = setup_telemetry(prometheus_port=0)
        Histogram("job_seconds", "Jobs.").observe(0.5, exemplar={"trace_id": "ab"})
        for accept in ("application/openmetrics-text; version=1.0.0", "text/plain"):
            request = urllib.request.Request(setup.metrics_url, headers={"Accept": accept})
            with urllib.request.urlopen(request) as answer:
                body = answer.read().decode()
            print([line for line in body.splitlines() if line.startswith('job_seconds_bucket{le="0.5"}')])
        assert setup.metrics_url == f"http://127.0.0.1:{setup.metrics_port}/metrics"
        """
    )
    with_exemplar, without = result.stdout.splitlines()
    assert '# {trace_id="ab"} 0.5' in with_exemplar
    assert without == """['job_seconds_bucket{le="0.5"} 1.0']"""


def test_metrics_alone_need_no_sdk_and_leave_providers_alone(run: Run) -> None:
    """With the SDK not installed, and with a provider that is there already, whatever variables say."""
    run(
        """
        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "grpc", "google")):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Blocker())
        setup = setup_telemetry(prometheus_port=0)
        assert setup.tracer_provider is None
        assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        assert setup.flush()

        provider = trace.NoOpTracerProvider()
        trace.set_tracer_provider(provider)
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://localhost:4318"
        assert setup_telemetry(prometheus_port=0).tracer_provider is None
        assert trace.get_tracer_provider() is provider
        """
    )


def test_close_ends_the_server(run: Run) -> None:
    """After the with block the thread has gone and the port is free; closing again does nothing."""
    run(
        """
        import threading
        before = threading.active_count()
        with setup_telemetry(prometheus_port=0) as setup:
            port = setup.metrics_port
            assert threading.active_count() == before + 1
        assert threading.active_count() == before
        assert (setup.metrics_port, setup.metrics_url, repr(setup)) == (None, None, "TelemetrySetup(closed)")
        setup.close()
        again = setup_telemetry(prometheus_port=port)
        assert again.metrics_port == port
        """
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
def test_a_forked_child_does_not_keep_the_port(run: Run) -> None:
    """The parent can close and serve anew on its port while a child lives."""
    run(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and on: fork with threads
        setup = setup_telemetry(prometheus_port=0)
        port = setup.metrics_port
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"child is there")
            import signal
            signal.pause()
        os.read(reading, 100)
        setup.close()
        setup_telemetry(prometheus_port=port).close()
        os.kill(child, 9)
        os.waitpid(child, 0)
        """
    )


def test_a_port_in_use_is_an_error() -> None:
    """The message names the port and what to do; it is the OSError that it was."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=rf"prometheus_port={port}: 127.0.0.1:{port} is in use") as caught:
            setup_telemetry(prometheus_port=port)
    assert caught.value.errno == errno.EADDRINUSE


# Refusals


@needs_extra
def test_a_provider_that_is_there_is_not_replaced(run: Run) -> None:
    """The error names its type and says what to do instead; nothing has been started."""
    result = run(
        """
        from opentelemetry.sdk.trace import TracerProvider
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
        try:
            setup_telemetry(file="trace.jsonl", prometheus_port=0)
        except RuntimeError as error:
            print(error)
        assert trace.get_tracer_provider() is provider
        assert not os.path.exists("trace.jsonl")
        """
    )
    for part in (
        "set already: opentelemetry.sdk.trace.TracerProvider.",
        "as it is",
        "add_span_processor",
        "tracer_provider=",
    ):
        assert part in result.stdout


@needs_extra
def test_a_second_call_is_refused(run: Run, tmp_path: Path) -> None:
    """Also after close(), because OpenTelemetry keeps the first provider; the first goes on undisturbed."""
    result = run(
        """
        first = setup_telemetry(file="first.jsonl")
        for _ in range(2):
            try:
                setup_telemetry(file="second.jsonl")
            except RuntimeError as error:
                print(error)
            spans(1)
            first.close()
        """
    )
    assert result.stdout.count("set already by an earlier setup_telemetry()") == 2
    assert file_names(tmp_path / "first.jsonl") == ["span 0"]
    assert not (tmp_path / "second.jsonl").exists()


@needs_extra
def test_somebody_quicker_is_not_replaced(run: Run) -> None:
    """A provider that another thread sets in the meantime stays, and all that was started is undone."""
    result = run(
        """
        import threading
        set_provider = trace.set_tracer_provider
        trace.set_tracer_provider = lambda provider: set_provider(trace.NoOpTracerProvider())
        try:
            setup_telemetry(file="trace.jsonl", prometheus_port=0)
        except RuntimeError as error:
            print(error)
        assert not os.path.exists("trace.jsonl")
        assert threading.enumerate() == [threading.main_thread()]
        """
    )
    assert "set already: opentelemetry.trace.NoOpTracerProvider" in result.stdout


def test_a_missing_extra_is_named(run: Run, tmp_path: Path) -> None:
    """Without the SDK, asking for spans says what to install, and has started nothing."""
    port = free_port()
    result = run(
        f"""
        import socket
        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.startswith("opentelemetry.sdk"):
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Blocker())
        file_and_port = {{"file": "trace.jsonl", "prometheus_port": {port}}}
        for arguments in ({{}}, {{"endpoint": "http://localhost:4318"}}, file_and_port):
            try:
                setup_telemetry(**arguments)
            except ImportError as error:
                print(error)
        socket.create_server(("127.0.0.1", {port})).close()
        """
    )
    assert result.stdout.count('pip install "traced_threadpool[otlp]"') == 3
    assert not (tmp_path / "trace.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"endpoint": "localhost:4318"},
            ValueError,
            "'localhost:4318' has no scheme.*'http://localhost:4318'",
        ),
        ({"endpoint": ""}, ValueError, "endpoint='' has no scheme; expected a base URL"),
        ({"endpoint": "grpc://localhost:4317"}, ValueError, "not an http:// or https:// URL"),
        ({"endpoint": "http://"}, ValueError, "not an http:// or https:// URL with a host"),
        ({"endpoint": "http://local host"}, ValueError, "not an http:// or https:// URL"),
        ({"endpoint": "http://localhost:http"}, ValueError, "is not a URL"),
        ({"endpoint": "http://localhost:70000"}, ValueError, "is not a URL"),
        ({"endpoint": 4318}, TypeError, "endpoint=4318 is of type int; expected a base URL"),
        ({"endpoint": b"http://h"}, TypeError, "endpoint is of type bytes; expected a base URL"),
        ({"prometheus_port": -1}, ValueError, "prometheus_port=-1 is out of range; expected .* 0 .* 65535"),
        ({"prometheus_port": 65536}, ValueError, "out of range"),
        ({"prometheus_port": True}, TypeError, "prometheus_port=True is of type bool; expected an integer"),
        ({"prometheus_port": "9464"}, TypeError, "prometheus_port='9464' is of type str"),
        ({"service_name": ""}, ValueError, "service_name='' is empty"),
        ({"service_name": " "}, ValueError, "is empty"),
        ({"service_name": 1}, TypeError, "service_name=1 is of type int"),
    ],
)
def test_a_wrong_argument_is_an_error_at_once(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    """The message has what was found, what was expected, and where it can what to write instead."""
    before = trace.get_tracer_provider()
    with pytest.raises(error, match=message):
        setup_telemetry(**arguments)
    assert trace.get_tracer_provider() is before


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL='http/json' .*expected 'grpc'",
        ),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "udp"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL='udp'"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT=.* has no scheme"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER names 'zipkin'"),
    ],
)
def test_a_wrong_variable_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    """The message names the variable."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        setup_telemetry()


@needs_extra
def test_a_port_in_use_undoes_the_spans(run: Run, tmp_path: Path) -> None:
    """No provider, file or thread stays behind; a file that was there stays; a retry works."""
    (tmp_path / "old.jsonl").touch()
    result = run(
        """
        import socket, threading
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for file in ("new.jsonl", "old.jsonl"):
                try:
                    setup_telemetry(file=file, prometheus_port=port)
                except OSError as error:
                    print(error.errno)
                assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
                assert threading.enumerate() == [threading.main_thread()]
                print(os.listdir())
        setup_telemetry(file="new.jsonl", prometheus_port=port)
        spans(1)
        """
    )
    assert result.stdout.splitlines() == [str(errno.EADDRINUSE), "['old.jsonl']"] * 2
    assert file_names(tmp_path / "new.jsonl") == ["span 0"]


@needs_extra
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "an OTEL_BSP_* variable has a value that fails"),
        (
            {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "an OTEL_EXPORTER_OTLP_* variable has a value that fails",
        ),
    ],
)
def test_a_late_failure_undoes_what_was_started(
    run: Run, tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    """A variable that only the SDK finds fault with leaves no provider, file, port or thread."""
    result = run(
        """
        import threading
        arguments = {"file": "trace.jsonl", "endpoint": "http://localhost:4318", "prometheus_port": 0}
        try:
            setup_telemetry(**arguments)
        except ValueError as error:
            print(error)
        assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        assert not os.path.exists("trace.jsonl")
        assert threading.enumerate() == [threading.main_thread()]
        for descriptor in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
            path = f"/proc/self/fd/{descriptor}"
            assert not os.path.lexists(path) or "trace.jsonl" not in os.readlink(path)
        for name in ("OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_EXPORTER_OTLP_TIMEOUT"):
            os.environ.pop(name, None)
        setup_telemetry(file="trace.jsonl")
        """,
        **variables,
    )
    assert message in result.stdout


@needs_extra
@pytest.mark.skipif(sys.platform != "linux", reason="the numbers and words are Linux's")
def test_a_file_that_cannot_be_written_is_an_error_at_once(run: Run, tmp_path: Path) -> None:
    """The message says why, and what to name instead; no provider is set."""
    result = run(
        """
        os.mkdir("directory")
        os.mkfifo("pipe")
        open("plain", "w").close()
        for file in ("directory", "missing/trace.jsonl", "plain/trace.jsonl", "pipe", "a\\0b", "", 3, b"x"):
            try:
                setup_telemetry(file=file)
            except Exception as error:
                print(f"{type(error).__name__}: {error}".replace(os.getcwd(), "."))
            assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        """
    )
    assert result.stdout.splitlines() == [
        "IsADirectoryError: [Errno 21] file='./directory' is a directory; "
        "name a file in it, such as './directory/trace.jsonl'",
        "FileNotFoundError: [Errno 2] file='./missing/trace.jsonl': there is no directory './missing'; "
        "create it, or name one that exists",
        "NotADirectoryError: [Errno 20] file='./plain/trace.jsonl' cannot be opened for writing "
        "(Not a directory); name a file that can be",
        "OSError: [Errno 6] file='./pipe' cannot be opened for writing "
        "(No such device or address); name a file that can be",
        "ValueError: file='a\\x00b' is not a path; expected a path, such as 'trace.jsonl'",
        "ValueError: file='' is empty; expected a path, such as 'trace.jsonl'",
        "TypeError: file=3 is of type int; expected a path, such as 'trace.jsonl'",
        "TypeError: file=b'x' is of type bytes; expected a path, such as 'trace.jsonl'",
    ]


# Flushing and closing


@needs_extra
def test_flush_tells_what_was_accepted(run: Run, http_receiver: HttpReceiver) -> None:
    """True once the endpoint has every span, False when it refuses some, and then for good."""
    program = f"""
        setup = setup_telemetry(endpoint={http_receiver.endpoint!r})
        spans(600)
        print(setup.flush(), setup.flush())
        """
    assert run(program).stdout == "True True\n"
    assert len(http_receiver.spans) == 600
    http_receiver.refuse_with = 400
    assert run(program).stdout == "False False\n"


@needs_extra
def test_flush_keeps_to_its_time(run: Run, http_receiver: HttpReceiver) -> None:
    """An endpoint that does not answer costs the time given, not the exporter's, and no thread for each call."""
    http_receiver.answering.clear()
    result = run(
        f"""
        import threading, time
        setup = setup_telemetry(endpoint={http_receiver.endpoint!r})
        spans(1)
        start = time.monotonic()
        print(setup.flush(timeout_seconds=0.2), flush=True)
        assert 0.2 <= time.monotonic() - start < 5  # the exporter itself would wait for 10
        threads = threading.active_count()
        assert not any([setup.flush(timeout_seconds=0.01) for _ in range(10)])
        assert threading.active_count() == threads
        os._exit(0)  # the end would wait for the exporter
        """,
        OTEL_EXPORTER_OTLP_TIMEOUT="100",
    )
    assert result.stdout == "False\n"


@needs_extra
def test_closing_gives_up_on_an_endpoint_that_does_not_answer(run: Run, http_receiver: HttpReceiver) -> None:
    """It takes the limit and one export's timeout, not a timeout for each batch; the loss is logged."""
    http_receiver.answering.clear()
    result = run(
        f"""
        import logging, time
        from traced_threadpool.telemetry.export import setup as module
        module._CLOSE_SECONDS = 0.5
        setup = setup_telemetry(endpoint={http_receiver.endpoint!r}, file="trace.jsonl")
        spans(20)
        logging.getLogger("opentelemetry").disabled = True
        start = time.monotonic()
        setup.close()
        assert time.monotonic() - start < 5
        """,
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1",
    )
    assert f"20 of 20 spans did not get to {http_receiver.endpoint}/v1/traces" in result.stderr


@needs_extra
@pytest.mark.slow
def test_closing_gives_up_on_an_endpoint_that_cannot_be_reached(run: Run) -> None:
    """It takes one export that retries in vain, however many are waiting."""
    run(
        f"""
        import logging, time
        setup = setup_telemetry(endpoint="http://127.0.0.1:{free_port()}")
        spans(20)
        logging.disable()
        start = time.monotonic()
        setup.close()
        assert time.monotonic() - start < 8
        """,
        OTEL_EXPORTER_OTLP_TIMEOUT="5",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1",
    )


@needs_extra
def test_a_burst_of_spans_is_not_lost(http_receiver: HttpReceiver, tmp_path: Path) -> None:
    """An endpoint that is slow for a moment has spans wait, not dropped, by the thousands."""
    http_receiver.answering.clear()
    program = PRELUDE + dedent(
        f"""
        setup = setup_telemetry(endpoint={http_receiver.endpoint!r}, file="trace.jsonl")
        spans(10_000)
        print("done", flush=True)
        sys.stdin.readline()
        print(setup.flush())
        """
    )
    with start(program, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        http_receiver.answering.set()
        output, errors = process.communicate("\n", timeout=150)
    assert (output, errors) == ("True\n", "")
    assert len(http_receiver.spans) == len(file_names(tmp_path / "trace.jsonl")) == 10_000


@needs_extra
def test_a_queue_that_overflows_is_a_loss(http_receiver: HttpReceiver, tmp_path: Path) -> None:
    """flush() is False when spans were dropped, although all that was left has been accepted."""
    http_receiver.answering.clear()
    program = PRELUDE + dedent(
        f"""
        setup = setup_telemetry(endpoint={http_receiver.endpoint!r})
        spans(2)
        sys.stdin.readline()
        spans(20)
        print("full", flush=True)
        sys.stdin.readline()
        print(setup.flush())
        """
    )
    variables = {"OTEL_BSP_MAX_QUEUE_SIZE": "10", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}
    with start(program, tmp_path, **variables) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        http_receiver.wait_for_request()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "full\n"
        http_receiver.answering.set()
        output, errors = process.communicate("\n", timeout=150)
    assert output == "False\n", errors
    assert len(http_receiver.spans) == 12


def test_a_given_port_is_served_on_loopback() -> None:
    """A port that is given is the one that is served, on 127.0.0.1 only; the repr says where."""
    port = free_port()
    with setup_telemetry(prometheus_port=port) as setup:
        assert setup.metrics_url == f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(setup.metrics_url) as answer:
            assert b"python_info" in answer.read()
        if sys.platform == "linux":  # where all of 127.0.0.0/8 is this machine
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port))
        assert repr(setup) == f"TelemetrySetup(metrics_url='http://127.0.0.1:{port}/metrics')"
