"""A port into a page of metrics, on this machine's loopback alone."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import prometheus_client

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

HOST: Final = "127.0.0.1"


class MetricsServer:
    """`prometheus_client`'s server and its thread, with an end to both.

    Raises:
        OSError: The port is in use or may not be used.
    """

    def __init__(self, port: int) -> None:
        self._server: WSGIServer
        try:
            self._server, self._thread = prometheus_client.start_http_server(port, addr=HOST)
        except OSError as error:
            raise OSError(error.errno, _why_no_port(port, error)) from error
        self.port = self._server.server_port

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/metrics"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def abandon(self) -> None:
        """In a forked child, which has no such thread: let go of the socket, or the port would stay taken."""
        self._server.socket.close()


def _why_no_port(port: int, error: OSError) -> str:
    address = f"{HOST}:{port}"
    if error.errno == errno.EADDRINUSE:
        found = f"{address} is in use, by another program or an earlier call"
    else:
        found = f"cannot listen on {address} ({error.strerror})"
    return f"prometheus_port={port}: {found}; give another port, or 0 for any free one"
