"""The examples in FastAPI and Flask, served by real servers, seen while a request runs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.dags import PATIENCE, eventually, in_thread

pytest.importorskip("fastapi", reason="fastapi is not installed (it is in the dev group)")
pytest.importorskip("flask", reason="flask is not installed (it is in the dev group)")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (it is in the dev group)")


@contextmanager
def fastapi_server() -> Iterator[str]:
    import uvicorn

    from examples.web_services.fastapi_app import app

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert eventually(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(PATIENCE)


@contextmanager
def flask_server() -> Iterator[str]:
    from werkzeug.serving import make_server

    from examples.web_services.flask_app import app

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(PATIENCE)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        body: bytes = answer.read()
    return body


@pytest.mark.parametrize("serve", [fastapi_server, flask_server])
def test_the_live_view_of_a_service(serve: Any) -> None:
    """The service answers; meanwhile the page is at its path, and its data says what runs."""
    with serve() as url:
        call = in_thread(get, f"{url}/quote/tea")
        seen: set[str] = set()

        def sees_both() -> bool:
            pools = json.loads(get(f"{url}/ops/live?format=json"))["pools"]  # those of earlier tests among them
            runs = [run for pool in pools if pool["pool"] == "shop" for run in pool["runs"]]
            seen.update(node["name"] for run in runs for node in run["running"])
            return seen >= {"price", "stock"}

        assert eventually(sees_both)
        assert b"<title>Live runs</title>" in get(f"{url}/ops/live")
        assert json.loads(call.result(PATIENCE)) == {"price": 7.5, "stock": 7}


@pytest.mark.slow
def test_a_trace_goes_from_each_request_to_its_nodes() -> None:
    """Under load: eight callers at once on both services, each with a trace of its own. A process, for its provider."""
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra [otlp]")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.examples.web_load"], capture_output=True, text=True, timeout=200, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["fastapi", "16", "flask", "16"]
