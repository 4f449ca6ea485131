"""`setup_telemetry(endpoint=)`: spans to an OTLP receiver."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.telemetry.export.programs import PACKAGE_ROOT, attributes, file_names, needs_extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.telemetry.otlp_receiver import GrpcReceiver, HttpReceiver

    Run = Callable[..., subprocess.CompletedProcess[str]]


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
