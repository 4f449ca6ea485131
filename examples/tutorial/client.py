"""Two clients of the weather service: one for all threads to share, and one that does not need to be shared."""

from __future__ import annotations

import threading
import urllib.request


class Client:
    """A connection for each request."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, station: str) -> str:
        with urllib.request.urlopen(f"{self._url}/{station}", timeout=60) as answer:
            found: bytes = answer.read()
        return found.decode()


class SharedClient(Client):
    """One request at a time, since its author was not sure that a connection may be used by several threads."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._lock = threading.Lock()

    def get(self, station: str) -> str:
        with self._lock:
            return super().get(station)
