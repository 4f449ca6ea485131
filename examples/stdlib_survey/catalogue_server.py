"""Chapters of the Library Reference into a small JSON service on this machine.

`GET /chapters` gives `{"chapters": [{"number": 0, "title": "..."}]}`, `GET /chapters/0` gives
`{"title": "...", "modules": ["..."]}`, anything else a 404.

The service sleeps for `latency_seconds` before each answer (the example asks for 30 ms), so that fetching
costs what it costs from a server some hundred kilometres away. Nothing else here is made slow on purpose.
"""

import json
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .records import Chapter


@contextmanager
def serving(chapters: Sequence[Chapter], latency_seconds: float = 0.0) -> Generator[str, None, None]:
    """Serve on a free port of 127.0.0.1 while the block runs; gives the address to fetch from."""
    with _CatalogueServer(chapters, latency_seconds) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="catalogue", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _CatalogueServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, chapters: Sequence[Chapter], latency_seconds: float) -> None:
        self.latency_seconds = latency_seconds
        self.documents: dict[str, Any] = {
            "/chapters": {
                "chapters": [{"number": number, "title": chapter.title} for number, chapter in enumerate(chapters)]
            }
        }
        for number, chapter in enumerate(chapters):
            document = {"title": chapter.title, "modules": list(chapter.modules)}
            self.documents[f"/chapters/{number}"] = document
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A reply is two small writes; with Nagle's algorithm the second waits for the client's delayed ACK.
    disable_nagle_algorithm = True
    server: _CatalogueServer

    def do_GET(self) -> None:
        time.sleep(self.server.latency_seconds)
        document = self.server.documents.get(self.path)
        status = HTTPStatus.NOT_FOUND if document is None else HTTPStatus.OK
        body = json.dumps(document if document is not None else {"error": "no such document"}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the run's own trace tells of every request that matters."""
