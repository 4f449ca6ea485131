"""The live page and its data over HTTP: WSGI, ASGI, and the metrics server."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.validate import validator

import pytest

from tests.dags import Held, Stage, driver_of, in_thread, wait_for
from traced_threadpool import FutureAdapter
from traced_threadpool.live import asgi_app, wsgi_app
from traced_threadpool.telemetry.metrics.http_server import MAX_CONNECTIONS, MetricsServer


def get_wsgi(path: str, method: str = "GET", query: str = "") -> tuple[str, dict[str, str], bytes]:
    """One request, held against PEP 3333."""
    seen: list[Any] = []
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "x",
        "SERVER_PORT": "1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": _Input(),
        "wsgi.errors": _Errors(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    answer = validator(wsgi_app())(environ, lambda status, headers, exc=None: seen.append((status, headers)) or None)
    body = b"".join(answer)
    answer.close()  # type: ignore[attr-defined]  # the validator's has one
    status, headers = seen[0]
    return status, dict(headers), body


class _Input:
    def read(self, *_: int) -> bytes:
        return b""

    readline = read

    def readlines(self, *_: int) -> list[bytes]:
        return []

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


class _Errors:
    def flush(self) -> None: ...

    def write(self, _: str) -> None: ...

    def writelines(self, _: list[str]) -> None: ...


def get_asgi(path: str, method: str = "GET", query: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query}
    asyncio.run(asgi_app()(scope, receive, send))  # type: ignore[arg-type]  # a coroutine
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


@contextmanager
def running_node(stage: Stage, name: str = "etl") -> Iterator[FutureAdapter]:
    adapter = stage.adapter(FutureAdapter(1, name=name))
    held = Held(stage)

    def stuck() -> str:
        return held()

    call = in_thread(lambda: driver_of(adapter, stuck).execute(["stuck"]))
    wait_for(held.started)
    yield adapter
    held.release.set()
    call.result()


def pool_named(document: Any, name: str) -> Any:
    [pool] = [pool for pool in document["pools"] if pool["pool"] == name]
    return pool


def test_data_and_page(stage: Stage) -> None:
    """Wherever it is mounted, the page asks its own path for data."""
    with running_node(stage):
        for path, query in (("/live.json", ""), ("/ops/live.json", ""), ("/", "format=json")):
            status, headers, body = get_wsgi(path, query=query)
            assert (status, headers["Content-Type"]) == ("200 OK", "application/json; charset=utf-8")
            [run] = pool_named(json.loads(body), "etl")["runs"]
            [node] = run["running"]
            assert (node["name"], node["stack"]) == ("stuck", None)
        document = json.loads(get_wsgi("/live.json", query="stacks=1&graph=1")[2])
        [run] = pool_named(document, "etl")["runs"]
        assert run["running"][0]["stack"]
        assert [each["name"] for each in run["graph"]] == ["stuck"]
        code, asgi_headers, asgi_body = get_asgi("/live.json")
        assert code == 200
        assert asgi_headers[b"content-length"] == str(len(asgi_body)).encode()
        assert pool_named(json.loads(asgi_body), "etl")["runs"]
    status, headers, body = get_wsgi("/")
    assert status == "200 OK"
    assert b"Live runs" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b"http://" not in body
    assert b"https://" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(method: str) -> None:
    """Every method but `GET` and `HEAD` is refused."""
    assert get_wsgi("/live.json", method)[0] == "405 Method Not Allowed"
    assert get_asgi("/live.json", method)[0] == 405
    assert get_wsgi("/", "HEAD")[2] == b""


def test_the_metrics_server_has_it(stage: Stage) -> None:
    """Beside `/metrics`, for this machine's own names alone."""
    server = MetricsServer(0)
    try:
        with running_node(stage, "on-server"):
            for path, host, expected in (
                ("/live", "localhost", 200),
                ("/live.json", f"127.0.0.1:{server.port}", 200),
                ("/live.json", "evil.example", 421),
                ("/metrics", "evil.example", 200),
            ):
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
                connection.request("GET", path, headers={"Host": host})
                answer = connection.getresponse()
                body = answer.read()
                assert (path, host, answer.status) == (path, host, expected)
                assert (b"on-server" in body) == ((path == "/live.json" and expected == 200) or path == "/metrics")
                connection.close()
    finally:
        server.close()


def test_half_open_connections_cost_no_node(stage: Stage) -> None:
    """A thousand clients that say nothing: those beyond the limit are turned away, nodes run, and the server ends."""
    server = MetricsServer(0)
    clients: list[socket.socket] = []
    try:
        for _ in range(1000):
            client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            client.sendall(b"GET /live")
            clients.append(client)

        def node() -> int:
            return 1

        adapter = stage.adapter(FutureAdapter(2))
        driver = driver_of(adapter, node)
        for _ in range(50):
            assert driver.execute(["node"]) == {"node": 1}
        turned_away = 0
        for client in clients[MAX_CONNECTIONS : MAX_CONNECTIONS + 100]:
            try:
                turned_away += client.recv(1) == b""
            except OSError:
                turned_away += 1
        assert turned_away == 100
    finally:
        for client in clients:
            client.close()
        server.close()
