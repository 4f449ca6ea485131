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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

Signal = Literal["traces", "metrics"]

_GRPC: Final = "grpc"
_HTTP: Final = "http/protobuf"
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

    @property
    def shown_url(self) -> str:
        """The address without a password in it."""
        credentials, at, _ = urlsplit(self.url).netloc.rpartition("@")
        return self.url.replace(credentials + at, "***@", 1) if at else self.url


def otlp_target(endpoint: object, *, or_else: bool, variables: Mapping[str, str]) -> OtlpTarget | None:
    """Decide whether spans go to an OTLP endpoint, to which, and how. The rule opens this module.

    Args:
        endpoint: the argument of ``setup_telemetry``, None where it is not given.
        or_else: whether to export where neither the argument nor a variable asks for it.
        variables: the environment.
    """
    if endpoint is not None:
        protocol = _protocol(variables, "traces")
        parts = _checked_url("endpoint", endpoint)
        return _target(parts, protocol, "traces", insecure=parts.scheme == "http")

    found = variable(variables, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if not _variables_ask(variables, or_else, an_endpoint=found is not None):
        return None
    protocol = _protocol(variables, "traces")
    if found is None:
        found = ("", "http://localhost:4317" if protocol == _GRPC else "http://localhost:4318")
    name, url = found
    if protocol == _GRPC and "://" not in url:
        return OtlpTarget(url, _GRPC, insecure=None)  # the standard allows what gRPC does: host:port
    parts = _checked_url(name, url)
    return _target(parts, protocol, "traces", insecure=None, is_whole=name == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def metrics_target(endpoint: object, *, variables: Mapping[str, str]) -> OtlpTarget:
    """Decide where metrics go, from the argument of ``setup_telemetry``."""
    parts = _checked_url("metrics_endpoint", endpoint)
    return _target(parts, _protocol(variables, "metrics"), "metrics", insecure=parts.scheme == "http")


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
    parts: SplitResult, protocol: str | None, signal: Signal, *, insecure: bool | None, is_whole: bool = False
) -> OtlpTarget:
    if protocol is None:
        protocol = _GRPC if parts.port == 4317 else _HTTP
    if protocol == _HTTP and not is_whole and not parts.path.endswith(f"/v1/{signal}"):
        parts = parts._replace(path=parts.path.rstrip("/") + f"/v1/{signal}")
    return OtlpTarget(parts.geturl(), protocol, insecure)


def span_exporter(target: OtlpTarget) -> SpanExporter:
    """The exporter of spans to a target."""
    try:
        if target.protocol == _GRPC:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

            return OverGrpc(endpoint=target.url, insecure=target.insecure)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

        return OverHttp(endpoint=target.url)
    except ImportError as error:
        raise missing_extra(error) from error
    except ValueError as error:
        raise _failing_variable(error) from error


def metric_exporter(target: OtlpTarget, variables: Mapping[str, str]) -> MetricExporter:
    """The exporter of metrics to a target."""
    set_by = variable(variables, "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
    timeout = None if set_by else _METRICS_SECONDS
    try:
        if target.protocol == _GRPC:
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as OverGrpc

            return OverGrpc(endpoint=target.url, insecure=target.insecure, timeout=timeout)
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as OverHttp

        return OverHttp(endpoint=target.url, timeout=timeout)
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


def _checked_url(source: str, url: object) -> SplitResult:
    expected = "expected a base URL such as 'http://localhost:4318'"
    if not isinstance(url, str):
        raise TypeError(f"{source}={url!r} is of type {type(url).__name__}; {expected}")
    if "://" not in url:
        write = f"; write {'http://' + url.strip()!r}" if url.strip() else ""
        raise ValueError(f"{source}={url!r} has no scheme; {expected}{write}")
    try:
        parts = urlsplit(url)
        can_work = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:  # a port that is none, a bracket that is not closed
        raise ValueError(f"{source}={url!r} is not a URL ({error}); {expected}") from error
    if not can_work or any(character.isspace() for character in url):
        raise ValueError(f"{source}={url!r} is not an http:// or https:// URL with a host; {expected}")
    return parts
