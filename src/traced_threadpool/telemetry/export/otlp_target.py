"""An argument and the standard's variables into the OTLP endpoint that a signal goes to, and into its exporter.

The protocol is what a variable says, else gRPC for port 4317, else ``http/protobuf``:

>>> otlp_target("http://collector:4317", or_else=False, variables={})
OtlpTarget(url='http://collector:4317', protocol='grpc', insecure=True)
>>> otlp_target("http://collector:4318", or_else=False, variables={})
OtlpTarget(url='http://collector:4318/v1/traces', protocol='http/protobuf', insecure=True)
>>> otlp_target(None, or_else=False, variables={"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector"})
OtlpTarget(url='https://collector/v1/traces', protocol='http/protobuf', insecure=None)
>>> otlp_target(None, or_else=False, variables={}) is None
True
>>> metrics_target("http://collector:4318", variables={})
OtlpTarget(url='http://collector:4318/v1/metrics', protocol='http/protobuf', insecure=True)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import unquote

from traced_threadpool.telemetry.urls import Base, checked, shown

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

    from traced_threadpool.telemetry.export.otlp_answers import Answers

Signal = Literal["traces", "metrics"]

_GRPC: Final = "grpc"
_HTTP: Final = "http/protobuf"
_PATHS: Final[dict[Signal, str]] = {"traces": "/v1/traces", "metrics": "/v1/metrics"}
_GRPC_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_HEADER_NAME: Final = re.compile(r"[0-9a-z!#$%&'*+.^_`|~-]+")
_HEADER_TEXT: Final = re.compile(r"[ !#-+\--:<-\[\]-~]+")  # what the SDK takes, and logs the rest of
# The names that OTEL_TRACES_EXPORTER has for OTLP, and the protocol that some of them imply.
_OTLP_EXPORTERS: Final = {"otlp": None, "otlp_proto_grpc": _GRPC, "otlp_proto_http": _HTTP}

_METRICS_SECONDS: Final = 2.0
"""How long an export of metrics may take, unless a variable says so: what it brings is in the next one too."""


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """Where a signal goes, and how."""

    url: str
    protocol: str
    insecure: bool | None  # None: as the exporter's own variables say
    authorization: str | None = field(default=None, repr=False)  # the header, of credentials in the URL


def otlp_target(endpoint: object, *, or_else: bool, variables: Mapping[str, str]) -> OtlpTarget | None:
    """Decide whether spans go to an OTLP endpoint, to which, and how. The rule opens this module.

    Args:
        endpoint: the argument of ``setup_telemetry``, None where it is not given.
        or_else: whether to export where neither the argument nor a variable asks for it.
        variables: the environment.
    """
    if endpoint is not None:
        protocol = _protocol(variables, "traces")
        base = _checked_url("endpoint", endpoint)
        return _target(base, protocol, "traces", source="endpoint", insecure=base.parts.scheme == "http")

    found = variable(variables, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if not _variables_ask(variables, or_else, an_endpoint=found is not None):
        return None
    protocol = _protocol(variables, "traces")
    if found is None:
        found = ("", "http://localhost:4317" if protocol == _GRPC else "http://localhost:4318")
    name, url = found
    if protocol == _GRPC and _GRPC_ADDRESS.fullmatch(url):
        return OtlpTarget(url, _GRPC, insecure=None)  # the standard allows what gRPC does: host:port
    base = _checked_url(name, url)
    is_whole = name == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    return _target(base, protocol, "traces", source=name, insecure=None, is_whole=is_whole)


def metrics_target(endpoint: object, *, variables: Mapping[str, str]) -> OtlpTarget:
    """Decide where metrics go, from the argument of ``setup_telemetry``."""
    base = _checked_url("metrics_endpoint", endpoint)
    protocol = _protocol(variables, "metrics")
    return _target(base, protocol, "metrics", source="metrics_endpoint", insecure=base.parts.scheme == "http")


def _variables_ask(variables: Mapping[str, str], or_else: bool, an_endpoint: bool) -> bool:
    names = {name.strip().lower() for name in variables.get("OTEL_TRACES_EXPORTER", "").split(",")} - {""}
    asked = not names.isdisjoint(_OTLP_EXPORTERS) if names else an_endpoint or or_else
    unknown = sorted(names - {*_OTLP_EXPORTERS, "none"})
    if unknown and (asked or or_else):
        raise ValueError(
            f"OTEL_TRACES_EXPORTER names {unknown[0]!r}; setup_telemetry() knows 'otlp' and 'none'. Unset "
            "it, or set up a tracer provider of your own, which FutureAdapter will use."
        )
    return asked


def _protocol(variables: Mapping[str, str], signal: Signal) -> str | None:
    """Return the protocol that a variable decides on, if one does."""
    found = variable(variables, f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if found is None:
        _, exporters = variable(variables, f"OTEL_{signal.upper()}_EXPORTER") or ("", "")
        implied = (_OTLP_EXPORTERS.get(name.strip().lower()) for name in exporters.split(","))
        return next((protocol for protocol in implied if protocol is not None), None)
    name, protocol = found
    if protocol.lower() not in (_GRPC, _HTTP):
        raise ValueError(f"{name}={protocol!r} cannot be exported with; expected {_GRPC!r} or {_HTTP!r}")
    return protocol.lower()


def _target(
    base: Base,
    protocol: str | None,
    signal: Signal,
    *,
    source: str,
    insecure: bool | None,
    is_whole: bool = False,
) -> OtlpTarget:
    port, path = base.parts.port, base.parts.path
    if protocol is None:
        protocol = _GRPC if port == 4317 and not path else _HTTP
    url = base.joined("")
    if protocol == _GRPC:
        if path:
            raise ValueError(f"{source}={shown(url)!r} has a path, which gRPC does not have; leave the path out")
        return OtlpTarget(url, protocol, insecure, base.authorization)
    wrong = next((each for each in _PATHS.values() if each != _PATHS[signal] and path.endswith(each)), None)
    if wrong is not None:
        raise ValueError(f"{source}={shown(url)!r} ends in {wrong!r}, and {signal} are sent to it; leave that out")
    if not is_whole and not path.endswith(_PATHS[signal]):
        url = base.joined(_PATHS[signal])
    return OtlpTarget(url, protocol, insecure, base.authorization)


def headers(target: OtlpTarget, signal: Signal, variables: Mapping[str, str]) -> dict[str, str]:
    """The headers of each export: credentials of the URL, and what variables add. No error shows a value.

    >>> target = OtlpTarget("http://collector:4318/v1/traces", "http/protobuf", None, authorization="Basic Ym9iOg==")
    >>> headers(target, "traces", {"OTEL_EXPORTER_OTLP_HEADERS": "Tenant = a%20b"})
    {'authorization': 'Basic Ym9iOg==', 'tenant': 'a b'}

    Raises:
        ValueError: One cannot be sent.
    """
    name, text = variable(variables, f"OTEL_EXPORTER_OTLP_{signal.upper()}_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS") or (
        "",
        "",
    )
    found = {} if target.authorization is None else {"authorization": target.authorization}
    for number, entry in enumerate(text.split(","), 1):
        key, equals, value = entry.partition("=")
        key, value = unquote(key).strip().lower(), unquote(value).strip()
        if not entry.strip():
            continue
        can_be_sent = _HEADER_TEXT.fullmatch(entry.strip()) and value.isascii() and value.isprintable()
        is_name = _HEADER_NAME.fullmatch(key) and not key.startswith("grpc-") and not key.endswith("-bin")
        if not equals or not is_name or not can_be_sent:
            raise ValueError(
                f"{name}: entry {number} (not shown here) cannot be sent; expected header=value in printable ASCII, "
                "percent-encoded, such as authorization=Bearer%20..."
            )
        found[key] = value
    return found


def span_exporter(target: OtlpTarget, variables: Mapping[str, str]) -> tuple[SpanExporter, Answers]:
    """The exporter of spans to a target, and what notes the answers that it gets."""
    options: dict[str, Any] = {"endpoint": target.url, "headers": headers(target, "traces", variables)}
    try:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

        from traced_threadpool.telemetry.export.otlp_answers import Answers

        answers = Answers(ExportTraceServiceResponse)
        if target.protocol == _GRPC:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

            return answers.over_grpc(OverGrpc)(insecure=target.insecure, **options), answers
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

        return OverHttp(session=answers.session(), **options), answers
    except ImportError as error:
        raise missing_extra(error) from error
    except ValueError as error:
        raise _failing_variable(error) from error


def metric_exporter(target: OtlpTarget, variables: Mapping[str, str]) -> tuple[MetricExporter, Answers]:
    """The exporter of metrics to a target, and what notes the answers that it gets."""
    set_by = variable(variables, "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
    options: dict[str, Any] = {"endpoint": target.url, "headers": headers(target, "metrics", variables)}
    options["timeout"] = None if set_by else _METRICS_SECONDS
    try:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

        from traced_threadpool.telemetry.export.otlp_answers import Answers

        answers = Answers(ExportMetricsServiceResponse)
        if target.protocol == _GRPC:
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as OverGrpc

            return answers.over_grpc(OverGrpc)(insecure=target.insecure, **options), answers
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as OverHttp

        return OverHttp(session=answers.session(), **options), answers
    except ImportError as error:
        raise missing_extra(error) from error
    except ValueError as error:
        raise _failing_variable(error) from error


def _failing_variable(error: ValueError) -> ValueError:
    return ValueError(f"an OTEL_EXPORTER_OTLP_* variable has a value that fails: {error}")


def missing_extra(error: ImportError) -> ImportError:
    """The error that says what to install."""
    return ImportError(
        f'exporting needs packages that are not there ({error}): pip install "traced_threadpool[otlp]"',
        name=error.name,
    )


def variable(variables: Mapping[str, str], *names: str) -> tuple[str, str] | None:
    """Return the first of the variables that is set, and its value; an empty one counts as not set."""
    return next(((name, value) for name in names if (value := variables.get(name, "").strip())), None)


def _checked_url(source: str, url: object) -> Base:
    return checked(source, url, example="http://localhost:4318")
