"""The live page and its data over HTTP: WSGI, ASGI, and the metrics server."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.validate import validator

import pytest

from tests.dags import Held, Stage, driver_of, eventually, in_thread, wait_for
from traced_threadpool import FutureAdapter
from traced_threadpool.live import asgi_app, server, wsgi_app
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
    [pool] = [pool for pool in document["pools"] if pool["pool"] == name and not pool["closed"]]  # of other tests
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
    with metrics_server() as port, running_node(stage, "on-server"):
        for path, host, expected in (
            ("/live", "localhost", 200),
            ("/live.json", f"127.0.0.1:{port}", 200),
            ("/live.json", "evil.example", 421),
            ("/metrics", "evil.example", 200),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            body = answer.read()
            assert (path, host, answer.status) == (path, host, expected)
            assert (b"on-server" in body) == ((path == "/live.json" and expected == 200) or path == "/metrics")
            connection.close()


def test_who_asks_too_often_is_given_the_last_answer(stage: Stage) -> None:
    """Once the CPU time for answers is used up; there is some again later."""
    answers = server._Answers()

    def asked(*, graph: bool = False) -> Any:
        return json.loads(answers.body(stacks=False, graph=graph))

    with running_node(stage):
        first, second = asked(), asked()
        assert first["at"] < second["at"]
        answers._left = -1e9
        assert asked() == second
        assert asked(graph=True)["at"] > second["at"]  # never asked for before
        answers._at -= 1e11
        assert asked()["at"] > second["at"]


# Real servers


@contextmanager
def metrics_server() -> Iterator[int]:
    """What `setup_telemetry(prometheus_port=)` starts."""
    started = MetricsServer(0)
    yield started.port
    started.close()


@contextmanager
def wsgi_server() -> Iterator[int]:
    """An application's own, with a thread for each connection."""

    class Threaded(ThreadingMixIn, WSGIServer):
        daemon_threads = True
        request_queue_size = 1000

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with make_server("127.0.0.1", 0, wsgi_app(), Threaded, Quiet) as started:
        thread = threading.Thread(target=started.serve_forever, daemon=True)
        thread.start()
        yield started.server_port
        started.shutdown()


@contextmanager
def asgi_server() -> Iterator[int]:
    """Uvicorn, as an application on FastAPI has it."""
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed (it is in the dev group)")
    listening = socket.create_server(("127.0.0.1", 0), backlog=1000)
    started = uvicorn.Server(uvicorn.Config(asgi_app(), log_level="critical", lifespan="off"))
    thread = threading.Thread(target=started.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    started.should_exit = started.force_exit = True
    thread.join()
    listening.close()


@contextmanager
def clients(port: int, number: int, says: bytes) -> Iterator[list[socket.socket]]:
    """So many connections that say this and nothing more, and read nothing."""
    opened: list[socket.socket] = []
    try:
        for _ in range(number):
            client = socket.create_connection(("127.0.0.1", port), timeout=30)
            opened.append(client)
            client.sendall(says)
        yield opened
    finally:
        for client in opened:
            client.close()


def nodes_run(stage: Stage) -> None:
    def node() -> int:
        return 1

    driver = driver_of(stage.adapter(FutureAdapter(2)), node)
    for _ in range(50):
        assert driver.execute(["node"]) == {"node": 1}


SERVERS = [metrics_server, wsgi_server, asgi_server]
HALF = b"GET /live.json?graph=1 HTTP/1.1\r\nHost: 127.0.0.1"


@pytest.mark.parametrize("start", SERVERS)
def test_a_thousand_half_open_connections_cost_no_node(stage: Stage, start: Callable[..., Any]) -> None:
    """Clients that begin a request and say nothing more: nodes run, and the server ends."""
    with start() as port, clients(port, 1000, HALF):
        nodes_run(stage)


@pytest.mark.parametrize("start", SERVERS)
def test_slow_readers_cost_no_node(stage: Stage, start: Callable[..., Any]) -> None:
    """Clients that ask for megabytes and read nothing: nodes run, and somebody else gets an answer."""
    held = Held(stage)
    long_name = "gate_" + "x" * 20_000

    def gate() -> str:
        return held()

    gate.__name__ = long_name
    scope: dict[str, Any] = {}
    for index in range(100):
        exec(f"def n{index}({long_name}: str) -> int:\n    return 1\n", scope)
    adapter = stage.adapter(FutureAdapter(1))
    driver = driver_of(adapter, gate, *(scope[f"n{index}"] for index in range(100)))
    call = in_thread(lambda: driver.execute([f"n{index}" for index in range(100)]))
    wait_for(held.started)
    with start() as port, clients(port, 30, HALF + b"\r\n\r\n"):
        nodes_run(stage)
        # What answers may cost is used up by then, and the one before this run may be given again.
        assert eventually(lambda: len(_document(port)) > 1_000_000)
    held.release.set()
    call.result()


def _document(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/live.json")
        return connection.getresponse().read()
    finally:
        connection.close()


def test_connections_beyond_the_limit_are_turned_away() -> None:
    """Those of the server that telemetry starts."""
    with metrics_server() as port, clients(port, MAX_CONNECTIONS + 100, b"GET /live") as opened:
        turned_away = 0
        for client in opened[MAX_CONNECTIONS:]:
            try:
                turned_away += client.recv(1) == b""
            except OSError:
                turned_away += 1
        assert turned_away == 100
