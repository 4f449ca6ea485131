"""A port into `/metrics` and the pages that others add, on this machine's loopback alone.

At most `MAX_CONNECTIONS` connections are open at once, and one that says nothing for `IDLE_SECONDS` is closed: a slow
client costs a sleeping thread and no node. Who asks for a page by another name than this machine's is refused, so that
no site can read it through its reader's browser (DNS rebinding).
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import prometheus_client

from traced_threadpool.model.thread_end import wait_for_end

HOST: Final = "127.0.0.1"
MAX_CONNECTIONS: Final = 64
IDLE_SECONDS: Final = 10.0

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_pages: Final[dict[str, App]] = {}


def add_page(path: str, app: App) -> None:
    """Every server of this process has this page from now on, at the path given."""
    _pages[path] = app


class MetricsServer:
    """The server and its thread, with an end to both.

    Raises:
        OSError: The port is in use or may not be used.
    """

    def __init__(self, port: int) -> None:
        try:
            self._server = _Server((HOST, port), _Handler)
        except OSError as error:
            raise OSError(error.errno, _why_no_port(port, error)) from error
        self._server.set_app(_dispatch(prometheus_client.make_wsgi_app()))
        self.port = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="traced-threadpool-metrics", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/metrics"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        wait_for_end(self._thread)

    def abandon(self) -> None:
        """In a forked child, which has no such thread: let go of the socket, or the port would stay taken."""
        self._server.socket.close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """As `WSGIServer`, without looking up this machine's name, which may take seconds."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or says nothing, is not worth a word."""


class _Handler(WSGIRequestHandler):
    timeout = IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """No line for each scrape."""


def _dispatch(metrics: App) -> App:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        page = _pages.get(environ.get("PATH_INFO", ""))
        if page is None:
            return metrics(environ, start_response)
        if environ.get("HTTP_HOST", HOST).partition(":")[0] not in (HOST, "localhost"):
            body = b"this server answers for localhost and 127.0.0.1\n"
            start_response(
                "421 Misdirected Request", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
            )
            return [body]
        return page(environ, start_response)

    return app


def _why_no_port(port: int, error: OSError) -> str:
    address = f"{HOST}:{port}"
    if error.errno == errno.EADDRINUSE:
        found = f"{address} is in use, by another program or an earlier call"
    else:
        found = f"cannot listen on {address} ({error.strerror})"
    return f"prometheus_port={port}: {found}; give another port, or 0 for any free one"
