"""The live view for browsers and programs: `/live` (a page) and `/live.json`, as WSGI and ASGI applications.

`setup_telemetry(prometheus_port=)` serves both beside `/metrics`, on 127.0.0.1. In an application's own server, mount
one of these; where it is mounted is for the application to decide, and so is who may see it: the page names nodes and
lines of code, never values. Nothing can be changed through it: `GET` and `HEAD` alone are answered.
"""

from __future__ import annotations

import json
import os
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

from traced_threadpool.live.fields import LivePool
from traced_threadpool.live.page import CONTENT_POLICY, PAGE
from traced_threadpool.model import forks
from traced_threadpool.model.concurrency import members

Headers = list[tuple[str, str]]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]

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


def _answer(method: str, path: str, query: str) -> tuple[str, Headers, bytes]:
    """Status, headers and body."""
    if method not in ("GET", "HEAD"):
        return (
            "405 Method Not Allowed",
            [*_COMMON, ("Allow", "GET, HEAD"), ("Content-Type", "text/plain")],
            b"GET only\n",
        )
    words = parse_qs(query, max_num_fields=20)
    if path.endswith(".json") or words.get("format") == ["json"]:
        document = live_document(stacks=words.get("stacks") == ["1"], graph=words.get("graph") == ["1"])
        body = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        return "200 OK", [*_COMMON, ("Content-Type", "application/json; charset=utf-8")], body
    headers = [*_COMMON, ("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", CONTENT_POLICY)]
    return "200 OK", headers, PAGE


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
        status, headers, body = _answer(scope["method"], scope["path"], query)
        named = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        named.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": named})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app
