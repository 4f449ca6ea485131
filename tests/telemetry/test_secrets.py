"""No secret in any message: whatever form a URL or a header with one has, what is said of it does not hold it."""

from __future__ import annotations

import base64
import http.server
import inspect
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import basic_auth_handler

from tests.telemetry.telemetry_helpers import make_adapter, make_driver
from traced_threadpool import push_metrics
from traced_threadpool.telemetry import urls
from traced_threadpool.telemetry.export.otlp_target import headers, metrics_target, otlp_target

SECRET = "hunter2"

# Forms of a URL with a secret in it. `{0}` is the secret, in clear or with an escaped character around it.
SCHEMES = ("http://", "https://", "HTTP://", "grpc://", "http:/", "http:\\\\", "://", "//", "")
USERS = (
    *("bob:{0}@", "{0}@", ":{0}@", "bob:{0}%40", "bob%3A{0}@", "bob:p@{0}@", "bob:{0}:x@", "a:b:{0}@", "bob:{0}/@"),
    *("bob:{0}?@", "bob:#{0}@", "bob:[{0}@", "bob:{0}\n@", "bob:{0} @", "bob:\u00fc{0}@", "bob:{0}\\@", ""),
)
HOSTS = ("localhost", "127.0.0.1", "[::1]", "[::1", "::1", "[fe80::1%25eth0]", "b\u00fccher.example", "a..b", "", "*")
PORTS = ("", ":4318", ":", ":0", ":70000", ":-1", ":port", ":{0}", ":43 18", ":4317", ":4318:4319")
PATHS = ("", "/", "/v1/traces", "/v1/traces/", "//", "/a/../b", "/\u00fc", "/a b", "/%2F", "/bob:{0}@x", "\\a")
QUERIES = ("", "?token={0}", "?{0}", "?a=b&key={0}#x", "#{0}", "?x=a@{0}", "?")


@st.composite
def urls_with_a_secret(draw: st.DrawFn) -> str:
    parts = (SCHEMES, USERS, HOSTS, PORTS, PATHS, QUERIES)
    text = "".join(draw(st.sampled_from(each)) for each in parts)
    before, after = draw(st.sampled_from((("", ""), ("%41", ""), ("", "%7e"), ("x", "9"))))
    return text.replace("{0}", before + SECRET + after)


def everything_said_of(error: BaseException | None) -> str:
    """The messages and reprs of an exception and of all that it was raised from or amid."""
    if error is None:
        return ""
    notes = "".join(getattr(error, "__notes__", []))
    rest = everything_said_of(error.__cause__) + everything_said_of(error.__context__)
    return f"{error!s} {error!r} {error.args!r} {notes} {rest}"


class Log(logging.Handler):
    """All that is logged, at every level, with its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + repr(record.args)


@contextmanager
def everything_logged() -> Iterator[Log]:
    log, root = Log(), logging.getLogger()
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    try:
        yield log
    finally:
        root.removeHandler(log)
        root.setLevel(level)


@given(urls_with_a_secret())
@example(f"http://bob:{SECRET}@localhost:port")
@example(f"http://bob:{SECRET}%40[::1]")
@example(f"bob:{SECRET}@localhost:4317")
def test_a_base_url_is_used_without_its_secret_or_refused_without_it(url: str) -> None:
    """What is left of the URL, its repr, and each error."""
    with everything_logged() as log:
        try:
            base = urls.checked("endpoint", url, example="http://localhost:4318")
        except ValueError as error:
            said = everything_said_of(error)
        else:
            said = f"{base!r} {base.joined('/v1/traces')}"
    assert SECRET not in said + log.text + urls.shown(url)


@given(urls_with_a_secret(), st.sampled_from(("grpc", "http/protobuf", "")), st.booleans())
def test_no_target_shows_a_secret(url: str, protocol: str, whole: bool) -> None:
    """Of the arguments and of both variables, for spans and metrics."""
    name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" if whole else "OTEL_EXPORTER_OTLP_ENDPOINT"
    protocols = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    said = ""
    for call in (
        lambda: otlp_target(url, or_else=False, variables=protocols),
        lambda: otlp_target(None, or_else=False, variables={name: url, **protocols}),
        lambda: metrics_target(url, variables=protocols),
    ):
        try:
            said += repr(call())
        except ValueError as error:
            said += everything_said_of(error)
    assert SECRET not in said


HEADER_ENTRIES = st.sampled_from(
    (
        f"authorization=Bearer {SECRET}",
        f"authorization=Bearer%20{SECRET}",
        SECRET,
        f"={SECRET}",
        f"a b={SECRET}",
        f"x={SECRET}\u00fc",
        f"x={SECRET}%0A",
        f'x="{SECRET}"',
        f"x={SECRET};y",
        f"x-bin={SECRET}",
        f"grpc-x={SECRET}",
        f"{SECRET}\n=x",
        f"x=\\{SECRET}",
        f"x={SECRET}=",
        "",
        " ",
        "x=y",
    )
)


@given(st.lists(HEADER_ENTRIES, max_size=3))
def test_no_error_about_a_header_shows_its_value(entries: list[str]) -> None:
    """What is taken is what the exporters take, without a word in the log; the rest is refused by its number."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.util.re import parse_env_headers

    variables = {"OTEL_EXPORTER_OTLP_HEADERS": ",".join(entries)}
    target = otlp_target("http://localhost:4318", or_else=False, variables={})
    assert target is not None
    with everything_logged() as log:
        said = ""
        try:
            found = headers(target, "traces", variables)
        except ValueError as error:
            said = everything_said_of(error)
        else:
            if "liberal" in inspect.signature(parse_env_headers).parameters:  # since OpenTelemetry 1.28
                assert parse_env_headers(variables["OTEL_EXPORTER_OTLP_HEADERS"], liberal=True) == found
    assert SECRET not in log.text + said


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    def one() -> int:
        return 1

    registry = CollectorRegistry()
    with make_adapter(registry=registry, tracing=False) as adapter:
        make_driver(adapter, one).execute(["one"])
    return registry


@given(url=urls_with_a_secret())
def test_no_push_tells_a_secret(url: str, registry: CollectorRegistry) -> None:
    """Nor does what the handler is given, its header apart, or the error where one is asked for."""
    seen: list[Any] = []

    def handler(**request: Any) -> Any:
        request["headers"] = [name for name, _ in request["headers"]]
        seen.append(request)
        raise OSError(f"cannot reach {SECRET}")

    said = ""
    with everything_logged() as log:
        for raises in (False, True):
            try:
                push_metrics(url, job="j", registry=registry, handler=handler, raise_on_failure=raises)
            except (ValueError, OSError) as error:
                said += everything_said_of(error)
    assert SECRET not in said + log.text + repr([request["url"] for request in seen])


class Gateway:
    """Answers each POST with `status`, and keeps the requests' methods, paths and credentials."""

    def __init__(self, status: int, body: bytes = b"", kind: str = "text/html", *, cut_off: bool = False) -> None:
        self.requests: list[tuple[str, str, str | None]] = []
        gateway = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(status, body)

            def do_GET(self) -> None:
                self._answer(200, b"")

            def _answer(self, status: int, body: bytes) -> None:
                gateway.requests.append((self.command, self.path, self.headers.get("Authorization")))
                self.send_response(status)
                self.send_header("Location", f"{gateway.url}/else?token={SECRET}")
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body) + 50 * cut_off))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Gateway:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def authenticating(**request: Any) -> Any:
    return basic_auth_handler(**request, username="bob", password=SECRET)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("handler", [None, authenticating], ids=["default", "basic_auth_handler"])
def test_a_redirected_push_is_a_failure(
    status: int, handler: Any, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Not repeated elsewhere, as a GET or with the credentials; counted, logged, and an OSError where asked for."""
    options = {} if handler is None else {"handler": handler}
    before = registry.get_sample_value("hamilton_telemetry_errors_total", {"component": "push"}) or 0
    with Gateway(status) as gateway:
        assert push_metrics(gateway.url, job="j", registry=registry, **options) is False
        with pytest.raises(OSError, match=f"HTTP {status} .*which is not followed") as raised:
            push_metrics(gateway.url, job="j", registry=registry, raise_on_failure=True, **options)
    assert {(method, path) for method, path, _ in gateway.requests} == {("POST", "/metrics/job/j")}
    assert registry.get_sample_value("hamilton_telemetry_errors_total", {"component": "push"}) == before + 2
    assert len(caplog.records) == 2
    assert SECRET not in caplog.text + everything_said_of(raised.value)


@pytest.mark.parametrize(
    ("gateway", "accepted"),
    [
        (Gateway(200), True),
        (Gateway(202), True),
        (Gateway(204), True),
        (Gateway(200, b"ok", "text/plain"), True),
        (Gateway(200, b"<html>log in</html>"), False),
        (Gateway(200, b"<html>log in</html>", "application/xhtml+xml"), False),
        (Gateway(200, b'{"error": "denied"}', "application/json"), False),
        (Gateway(200, b"please log in", "text/plain"), False),
        (Gateway(200, b"ok", "text/plain", cut_off=True), False),
        (Gateway(200, cut_off=True), False),
        (Gateway(203), False),
        (Gateway(206), False),
        (Gateway(400), False),
        (Gateway(404), False),
        (Gateway(500), False),
    ],
    ids=[
        "200",
        "202",
        "204",
        "text",
        "login page",
        "xhtml",
        "error in json",
        "other text",
        "text cut off",
        "cut off",
        "203",
        "206",
        "400",
        "404",
        "500",
    ],
)
def test_what_a_gateway_confirms(gateway: Gateway, accepted: bool, registry: CollectorRegistry) -> None:
    """What a gateway answers to this very request, whole; and not what a proxy or an API does."""
    with gateway:
        assert push_metrics(gateway.url, job="j", registry=registry) is accepted


@given(user=st.text("abü:@/?#% é", min_size=1, max_size=5), password=st.text("xyü@/?#%: ", max_size=5))
def test_credentials_in_a_url_are_sent_as_a_header(user: str, password: str) -> None:
    """Percent-encoded, any will do. A colon ends the user's name, as in the header."""
    credentials = f"{quote(user, safe='')}:{quote(password, safe='')}"
    base = urls.checked("gateway", f"http://{credentials}@h/x/", example="http://h")
    assert base.joined("/metrics") == "http://h/x/metrics"
    assert base.authorization is not None
    assert base64.b64decode(base.authorization.removeprefix("Basic ")).decode() == f"{user}:{password}"


def test_a_gateway_gets_the_credentials_of_its_url(registry: CollectorRegistry) -> None:
    """And the path has its place before the gateway's own."""
    with Gateway(200) as gateway:
        assert push_metrics(f"http://bob:{SECRET}@{gateway.host}/proxy/", job="j", registry=registry)
    expected = "Basic " + base64.b64encode(f"bob:{SECRET}".encode()).decode()
    assert gateway.requests == [("POST", "/proxy/metrics/job/j", expected)]


@pytest.mark.parametrize(
    ("url", "protocol", "joined"),
    [
        ("http://h:4318", "", "http://h:4318/v1/traces"),
        ("http://h:4318/", "", "http://h:4318/v1/traces"),
        ("http://h:4318/v1/traces", "", "http://h:4318/v1/traces"),
        ("http://h:4318/v1/traces/", "", "http://h:4318/v1/traces"),
        ("http://h/tenant", "", "http://h/tenant/v1/traces"),
        ("http://h/tenant//", "", "http://h/tenant/v1/traces"),
        ("http://h/ü", "", "http://h/%C3%BC/v1/traces"),
        ("http://h/%2F", "", "http://h/%2F/v1/traces"),
        ("http://[::1]:4318", "", "http://[::1]:4318/v1/traces"),
        ("http://h:4317", "", "http://h:4317"),
        ("http://h:4317/", "", "http://h:4317"),
        ("http://h:4317/v1/traces", "", "http://h:4317/v1/traces"),
        ("http://h:1/", "grpc", "http://h:1"),
    ],
)
def test_urls_are_joined_as_urls(url: str, protocol: str, joined: str) -> None:
    """A path and a slash at the end go where they belong."""
    target = otlp_target(url, or_else=False, variables={"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    assert target is not None
    assert target.url == joined


@pytest.mark.parametrize(
    ("url", "protocol", "message"),
    [
        ("http://h:4318?x=1", "", r"endpoint='http://h:4318\?\*\*\*' has a query, which a base URL cannot have"),
        ("http://h:4318/#x", "", "has a fragment"),
        ("http://h:4318/?", "", "has a query"),
        ("http://h/v1/traces", "grpc", "has a path, which gRPC does not have"),
        ("http://h/v1/metrics", "", "ends in '/v1/metrics', and traces are sent to it"),
        ("http://h/bob@x", "", "has an '@' behind its host; write it as %40"),
        ("http:\\\\h", "", "has no scheme"),
        ("http://h\\x", "", "not an http:// or https:// URL with a host"),
        ("http://bob:pass", "", r"endpoint='http://\*\*\*' is not a URL \(its port is not a number up to 65535\)"),
    ],
)
def test_a_url_with_more_than_a_base_is_refused(url: str, protocol: str, message: str) -> None:
    """Rather than to drop what cannot go anywhere."""
    with pytest.raises(ValueError, match=message):
        otlp_target(url, or_else=False, variables={"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
