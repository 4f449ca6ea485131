"""A span for each request, a child of the caller's: what OpenTelemetry's instrumentations do, in a few lines.

The run of a DAG that a request executes is a child of it in turn. An application that has `FastAPIInstrumentor` or
`FlaskInstrumentor`, or a FastAPI that makes spans by itself, needs none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry import propagate, trace


def asgi_with_spans(app: Any) -> Any:
    """An ASGI application whose requests have spans."""

    async def with_span(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with _span(scope["method"], scope["path"], headers):
            await app(scope, receive, send)

    return with_span


def wsgi_with_spans(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """A WSGI application whose requests have spans."""

    def with_span(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        headers = {name[5:].lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
        with _span(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), headers):
            return app(environ, start_response)

    return with_span


def _span(method: str, path: str, headers: dict[str, str]) -> Any:
    attributes = {"http.request.method": method, "url.path": path}
    return trace.get_tracer(__name__).start_as_current_span(
        method, propagate.extract(headers), trace.SpanKind.SERVER, attributes
    )
