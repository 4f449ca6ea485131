"""The live view for browsers and programs: `/live` (a page) and `/live.json`, as WSGI and ASGI applications.

`setup_telemetry(prometheus_port=)` serves both beside `/metrics`, on 127.0.0.1. In an application's own server, mount
one of these; where it is mounted is for the application to decide, and so is who may see it: the page names nodes and
lines of code, never values. Nothing can be changed through it: `GET` and `HEAD` alone are answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

from traced_threadpool.live.page import CONTENT_POLICY, PAGE
from traced_threadpool.live.records import LivePool
from traced_threadpool.model import forks
from traced_threadpool.model.concurrency import members

Headers = list[tuple[str, str]]
Answer = tuple[str, Headers, bytes]
"""Status, headers and body."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]

SHARE: Final = 0.05
BURST_SECONDS: Final = 1.0
"""Of CPU time that answers may take, of a CPU and at once; see `_Answers`."""

_COMMON: Final[Headers] = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
]


class Live(Protocol):
    """What can be looked at: an adapter."""

    def live(self, *, stacks: bool = False, graph: bool = False) -> LivePool: ...


class _Shown:
    """The adapters that the pages show."""

    def __init__(self) -> None:
        self.adapters: weakref.WeakSet[Live] = weakref.WeakSet()
        forks.register(self._reset_after_fork)

    def _reset_after_fork(self) -> None:
        self.adapters = forks.kept_in_child(self.adapters, weakref.WeakSet())


_shown: Final = _Shown()


def show(live: Live) -> None:
    """Adds an adapter to what the pages show, for as long as it is referenced."""
    _shown.adapters.add(live)


class _Answers:
    """The last answers, which are given again to whoever asks too often.

    A second of CPU time is free, for bursts, and `SHARE` of a CPU after that: nobody's requests, however many, cost
    nodes more.
    """

    def __init__(self) -> None:
        self._reset()
        forks.register(self._reset)

    def _reset(self) -> None:
        self._left, self._at = BURST_SECONDS, time.monotonic()
        self._last: dict[tuple[bool, bool], bytes] = {}

    def body(self, *, stacks: bool, graph: bool) -> bytes:
        """`live_document` as JSON."""
        # Of several threads that ask at once each counts; what one overwrites of another's is a few milliseconds.
        now = time.monotonic()
        self._left, self._at = min(BURST_SECONDS, self._left + SHARE * (now - self._at)), now
        last = self._last.get((stacks, graph))
        if last is not None and self._left <= 0:
            return last
        began = time.thread_time()
        document = live_document(stacks=stacks, graph=graph)
        self._last[stacks, graph] = body = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        self._left -= time.thread_time() - began
        return body


_answers: Final = _Answers()


def live_document(*, stacks: bool = False, graph: bool = False) -> dict[str, Any]:
    """Everything that `/live.json` says: all adapters of this process that were not made with `live=False`."""
    pools: list[dict[str, Any]] = []
    problems: list[str] = []
    for each in members(_shown.adapters):
        try:
            pools.append(each.live(stacks=stacks, graph=graph).as_dict())
        except Exception as error:  # one adapter's trouble is not the others'
            problems.append(type(error).__name__)
    pools.sort(key=lambda pool: (pool["closed"], pool["pool"]))
    return {"version": 1, "at": time.time(), "pid": os.getpid(), "pools": pools, "problems": problems}


def _answer(method: str, path: str, query: str) -> Answer:
    if method not in ("GET", "HEAD"):
        return (
            "405 Method Not Allowed",
            [*_COMMON, ("Allow", "GET, HEAD"), ("Content-Type", "text/plain")],
            b"GET only\n",
        )
    words = parse_qs(query, max_num_fields=20)
    if path.endswith(".json") or words.get("format") == ["json"]:
        body = _answers.body(stacks=words.get("stacks") == ["1"], graph=words.get("graph") == ["1"])
        return "200 OK", [*_COMMON, ("Content-Type", "application/json; charset=utf-8")], body
    headers = [*_COMMON, ("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", CONTENT_POLICY)]
    return "200 OK", headers, PAGE


async def _off_the_loop(answer: Callable[..., Answer], *arguments: str) -> Answer:
    """On a thread: a view of thousands of nodes, or a stack from a cluster, would hold up other requests."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # a server of another kind, such as on trio
        return answer(*arguments)
    return await loop.run_in_executor(None, answer, *arguments)


def wsgi_app() -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """A WSGI application with the live page and its data: mount it under a path of your choice.

    Returns:
        The application. The page is at its root (and anywhere below), the data at any path that ends in `.json`.
    """

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method = environ.get("REQUEST_METHOD", "GET")
        status, headers, body = _answer(method, environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", ""))
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if method == "HEAD" else [body]

    return app


def asgi_app() -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The same as an ASGI application (FastAPI, Starlette: `app.mount("/ops/live", asgi_app())`)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["type"] != "http":
            return
        query = bytes(scope.get("query_string", b"")).decode("latin-1")
        status, headers, body = await _off_the_loop(_answer, scope["method"], scope["path"], query)
        named = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        named.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": named})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app
