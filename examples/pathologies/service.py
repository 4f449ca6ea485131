"""A slow HTTP service while a block runs, and its answers into dictionaries."""

import json
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 60.0
_PROGRAM = Path(__file__).with_name("service_process.py")


class ServiceError(Exception):
    """The service did not start, or did not answer as it should."""


@contextmanager
def running_service(seconds: Mapping[str, float], *, seed: int, refusals: int = 0) -> Generator[str, None, None]:
    """Start the service in a process of its own; gives its address. What it takes is said in `service_process.py`."""
    arguments = json.dumps({"seconds": dict(seconds), "seed": seed, "refusals": refusals})
    # A session of its own: Ctrl-C is for this program, whose running nodes still want their answers.
    with subprocess.Popen(
        [sys.executable, "-I", str(_PROGRAM), arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().decode().strip()
            if not port:
                raise ServiceError(f"{_PROGRAM.name} ended before it listened, with status {process.wait()}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def connect(url: str) -> HTTPConnection:
    """A connection to the service, for one thread at a time."""
    return HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_SECONDS)


def ask(connection: HTTPConnection, path: str) -> tuple[int, dict[str, Any]]:
    """One request: the status and the document."""
    connection.request("GET", path)
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


def fetch(url: str, path: str) -> dict[str, Any]:
    """One document, over a connection of its own.

    Raises:
        ServiceError: the service refused.
    """
    with closing(connect(url)) as connection:
        status, document = ask(connection, path)
    if status != HTTPStatus.OK:
        raise ServiceError(f"{url}{path} answered {status}, expected 200")
    return document
