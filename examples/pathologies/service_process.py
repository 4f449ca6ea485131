"""A slow HTTP service, as a program of its own: its threads take nothing from the GIL of whoever calls it.

It is run by `service.py` with one argument, a JSON object:

- `seconds`: by the first part of the path, how long an answer takes; it varies from path to path, and `seed` says how;
- `refusals`: how many requests for each path are answered 429 at once before one is answered.

It prints its port, and ends when its standard input does, which is when its parent ends, however that may happen.

An answer to `/quotes/alder?figures=3&words=2` is `{"figures": [31.7, 8.25, 77.0], "text": "vessel harbour"}`, always
the same for the same path. `/statistics` tells how many requests were answered, refused, and under way at the same
time.
"""

import json
import random
import sys
import threading
import time
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

VARIATION = 0.25
WORDS = (
    "ballot", "battery", "bridge", "budget", "coast", "council", "court", "drought", "election", "engine", "export",
    "ferry", "forecast", "freight", "grain", "harbour", "market", "minister", "price", "railway", "rainfall",
    "reservoir", "river", "ruling", "signal", "solar", "storm", "strike", "turbine", "vessel",
)  # fmt: skip


class _Service(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, seconds: dict[str, float], seed: int, refusals: int) -> None:
        self.seconds = seconds
        self.seed = seed
        self.refusals = refusals
        self.lock = threading.Lock()
        self.visits: Counter[str] = Counter()
        self.statistics = {"answered": 0, "refused": 0, "under_way": 0, "at_once": 0}
        super().__init__(("127.0.0.1", 0), _Handler)

    def is_refused(self, path: str) -> bool:
        """Count the visit, and whether it comes too early."""
        with self.lock:
            self.visits[path] += 1
            refused = self.visits[path] <= self.refusals
            self.statistics["refused"] += refused
            return refused

    def count(self, change: int) -> None:
        """A request comes, or goes."""
        with self.lock:
            now = self.statistics
            now["under_way"] += change
            now["at_once"] = max(now["at_once"], now["under_way"])
            now["answered"] += change < 0

    def answer(self, path: str, wanted: dict[str, list[str]]) -> dict[str, Any]:
        """Take the time that it takes, and make something up."""
        making = random.Random(f"{self.seed} {path}")
        time.sleep(self.seconds.get(path.split("/")[1], 0.0) * making.uniform(1 - VARIATION, 1 + VARIATION))
        figures = [making.randrange(1, 400) / 4 for _ in range(_number(wanted, "figures"))]
        return {"figures": figures, "text": " ".join(making.choices(WORDS, k=_number(wanted, "words")))}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A reply is two small writes; with Nagle's algorithm the second waits for the client's delayed ACK.
    disable_nagle_algorithm = True
    server: _Service

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/statistics":
            self._reply(HTTPStatus.OK, self.server.statistics)
        elif self.server.is_refused(url.path):
            self._reply(HTTPStatus.TOO_MANY_REQUESTS, {"error": "too many requests"})
        else:
            self.server.count(1)
            answer = self.server.answer(url.path, parse_qs(url.query))
            self.server.count(-1)  # before the reply: who has got it may ask for the statistics, or for more
            self._reply(HTTPStatus.OK, answer)

    def _reply(self, status: HTTPStatus, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the caller's own trace tells of every request."""


def _number(wanted: dict[str, list[str]], name: str) -> int:
    return int(wanted.get(name, ["0"])[0])


def _serve(given: str) -> None:
    with _Service(**json.loads(given)) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        print(service.server_address[1], flush=True)
        sys.stdin.buffer.read()


if __name__ == "__main__":
    _serve(sys.argv[1])
