"""The weather service, a process of its own: each station answers after 0.4 s, one of them later."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LATENCY_SECONDS = 0.4
SLOW = {"/namur": 0.9}


@contextmanager
def serving() -> Generator[str, None, None]:
    """Serves on a free port of this machine; gives the address."""
    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            yield f"http://127.0.0.1:{int(service.stdout.readline())}"
        finally:
            service.terminate()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(SLOW.get(self.path, LATENCY_SECONDS))
        body = READINGS_OF_A_DAY.replace(b".5", b".%d" % (len(self.path) % 10))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _readings() -> bytes:
    return "".join(f"{minute:04},{10 + minute // 90}.5\n" for minute in range(1440)).encode()


if __name__ == "__main__":
    READINGS_OF_A_DAY = _readings()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
