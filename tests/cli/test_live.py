"""`traced-threadpool live`: what processes say of their runs, on a terminal and for programs."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from tests.dags import Held, Stage, driver_of, eventually, in_thread, wait_for
from tests.terminal import Terminal, terminal
from traced_threadpool import FutureAdapter
from traced_threadpool.live import wsgi_app
from traced_threadpool.telemetry.metrics.http_server import MetricsServer

pytest.importorskip("click", reason="needs the extra [report]")
pytest.importorskip("rich", reason="needs the extra [report]")

__all__ = ["terminal"]  # a fixture

from tests.cli.program import PROGRAM, Command, environment
from traced_threadpool.cli.live_screen import process_text


@contextmanager
def a_run(stage: Stage, name: str = "etl") -> Iterator[None]:
    """One node done, one held on a worker, one queued, one blocked."""
    held = Held(stage)

    def load() -> int:
        return 1

    def transform(load: int) -> str:
        return held()

    def aside(load: int) -> int:
        return load

    def report(transform: str, aside: int) -> str:
        return transform

    adapter = stage.adapter(FutureAdapter(1, name=name, run_name="nightly"))
    call = in_thread(lambda: driver_of(adapter, load, transform, aside, report).execute(["report"]))
    wait_for(held.started)
    assert eventually(lambda: len(adapter.live().runs[0].blocked) == 1)  # all are submitted
    yield
    held.release.set()
    call.result()


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    server = MetricsServer(0)
    yield server
    server.close()


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[str]:
    """A server that gives this answer, whatever it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def a_document(node_name: str = "load", /, **run: Any) -> dict[str, Any]:
    node = {
        "name": node_name,
        "task_id": None,
        "backend": "threads",
        "worker": "etl_0",
        "since": 0.0,
        "elapsed_seconds": 12.5,
        "state": "network",
        "on": "10.0.0.3:5432",
        "usual": {"p50_seconds": 1.0, "p95_seconds": 2.0, "count": 9},
        "late_seconds": 10.5,
        "stalled": True,
        "stack": None,
    }
    end = {"seconds": None, "earliest_seconds": None, "latest_seconds": None, "at": None, "reason": "nothing is known"}
    run = {
        "id": "1",
        "name": "nightly",
        "since": 0.0,
        "elapsed_seconds": 60.0,
        "done": 3,
        "failed": 0,
        "failed_names": [],
        "skipped": 0,
        "planned": 9,
        "running": [node],
        "queued": [],
        "blocked": [],
        "critical_chain": [],
        "predicted_end": end,
        **run,
    }
    lane = {"name": "threads", "limit": 4, "active": 1, "queued": 0, "oldest_queued_seconds": 0.0}
    pool = {"pool": "etl", "closed": False, "lanes": [lane], "runs": [run]}
    return {"version": 1, "at": 0.0, "pid": 7, "pools": [pool], "problems": []}


def test_one_screen(stage: Stage, server: MetricsServer, command: Command) -> None:
    """What is done, runs, is queued and blocked; why no end is predicted; with --stacks where the node is."""
    with a_run(stage):
        said = command("live", f"http://127.0.0.1:{server.port}", "--once", "--stacks")
    assert "process " + str(os.getpid()) in said
    assert "etl  threads 1 of 1 busy, 1 queued, oldest for" in said
    assert "1 of 4 done, 1 running, 1 queued, 1 blocked" in said
    assert "end not predicted: no earlier execution" in said
    [row] = [line for line in said.splitlines() if line.lstrip().startswith("transform")]
    assert "etl_" in row
    assert " in transform" in said or ".transform" in said
    assert "queued: aside" in said


def test_several_processes_and_one_that_is_gone(stage: Stage, server: MetricsServer, command: Command) -> None:
    """Those that answer are shown; the one that does not is an error, and what is wrong is said."""
    gone = MetricsServer(0)
    gone.close()
    urls = [f"127.0.0.1:{server.port}/metrics", f"127.0.0.1:{gone.port}"]
    with a_run(stage):
        document = command.json("live", urls[0], "--once")
        said = command("live", *urls, "--once", status=3)
    [process] = document["processes"]
    assert process["error"] is None
    [pool] = [pool for pool in process["live"]["pools"] if pool["pool"] == "etl" and not pool["closed"]]
    assert [node["name"] for node in pool["runs"][0]["running"]] == ["transform"]
    assert said == f"traced-threadpool: {urls[1]}: it does not answer (Connection refused)\n"


def test_where_an_application_has_mounted_it(stage: Stage, command: Command) -> None:
    """Any path; the application's own server answers."""

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with make_server("127.0.0.1", 0, wsgi_app(), handler_class=Quiet) as mounted:
        threading.Thread(target=mounted.serve_forever, daemon=True).start()
        with a_run(stage):
            said = command("live", f"http://127.0.0.1:{mounted.server_port}/ops/live", "--once")
        mounted.shutdown()
    assert "transform" in said


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long names are; the name of what runs and how long it has is there even on the narrowest."""
    monkeypatch.setenv("COLUMNS", str(width))
    with answering(json.dumps(a_document("a_long_name_of_a_node" * 9)).encode()) as url:
        said = command("live", url, "--once")
    assert max(map(len, said.splitlines())) <= width
    assert "a_lo" in said
    assert ("12.5 s" in said) == (width >= 40)
    assert ("10.0.0.3:5432" in said) == (width >= 80)


def test_names_are_nothing_that_a_terminal_obeys(command: Command) -> None:
    """Neither escape sequences nor rich's markup come through."""
    hostile = "\x1b]0;title\x07[red]\x1b[2J\n\r\u202e"
    document = a_document(hostile, name=hostile, failed=1, failed_names=[hostile], critical_chain=[hostile])
    with answering(json.dumps(document).encode()) as url:
        said = command("live", url, "--once")
    assert not set("\x1b\x07\r\u202e") & set(said)
    assert "\\x1b]0;title\\x07[red]" in said


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"<html>", 200, "what it answers is not a live view"),
        (b'{"version": 2}', 200, "what it answers is not a live view"),
        (b"[]", 200, "what it answers is not a live view"),
        (json.dumps(a_document(done="many")).encode(), 200, "what it answers is not a live view"),
        (b"", 404, "it answers with status 404: there is no live view at this path"),
        (b"", 500, "it answers with status 500"),
    ],
)
def test_answers_of_something_else(body: bytes, status: int, said: str, command: Command) -> None:
    """A sentence and status 3, never a traceback."""
    with answering(body, status) as url:
        assert command("live", url, "--once", status=3) == f"traced-threadpool: {url}: {said}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing argument 'URL...'"),
        (["ftp://host"], "is not an http:// or https:// URL with a host"),
        (["http://user:hunter2@ho st/"], "expected a base URL such as 'http://127.0.0.1:9464'"),
        (["127.0.0.1:9464", "--interval", "0"], "0.1<=x<=3600"),
    ],
)
def test_wrong_usage(words: list[str], said: str, command: Command) -> None:
    """What was found, what was expected; no password is shown."""
    printed = command("live", *words, status=2)
    assert said in printed
    assert "hunter2" not in printed


def test_a_hundred_thousand_nodes_that_wait() -> None:
    """A screen of them takes no longer than a screen of few: only their number and the first names are shown."""
    node = {"name": "n", "task_id": None, "backend": "threads", "since": 0.0}
    lines = process_text(a_document(queued=[node] * 100_000), width=80)
    assert len(lines) < 12
    assert any("100,000 queued" in line.plain for line in lines)


def test_a_terminal_that_is_resized_and_left(
    stage: Stage, server: MetricsServer, terminal: Callable[..., Terminal]
) -> None:
    """The screen follows the run and the terminal's size; Ctrl-C gives back what was there, with status 0."""
    opened = terminal(width=100, height=20)
    program = " ".join(map(shlex.quote, [*PROGRAM, "live", f"127.0.0.1:{server.port}", "--interval", "0.1"]))
    opened.type(f"clear; echo what was there; COLUMNS=100 LINES=20 {program}")
    with a_run(stage):
        assert eventually(lambda: "1 of 4 done, 1 running" in opened.screen())
        assert opened.facts() == "1 0"
        assert "worker" in opened.screen()
        opened("resize-window", "-x", "50", "-y", "6")
        assert eventually(lambda: "more lines: enlarge the terminal" in opened.screen())
        assert "worker" not in opened.screen()
        opened("resize-window", "-x", "100", "-y", "20")
        assert eventually(lambda: "queued: aside" in opened.screen())
    assert eventually(lambda: "no run is in progress" in opened.screen())
    opened("send-keys", "C-c")
    assert eventually(lambda: opened.facts() == "0 1")
    opened.type("echo status $?")
    assert eventually(lambda: "status 0" in opened.screen())
    assert opened.facts() == "0 1"
    assert "what was there" in opened.screen()
    assert "Traceback" not in opened.screen()


def test_a_process_that_dies_while_it_is_shown(terminal: Callable[..., Terminal]) -> None:
    """What it said last stays, and how old it is; NO_COLOR leaves no colour; a kill leaves a clean terminal too."""
    opened = terminal(width=120, height=20)
    with answering(json.dumps(a_document()).encode()) as url:
        program = " ".join(map(shlex.quote, [*PROGRAM, "live", url, "--interval", "0.1"]))
        opened.type(f"clear; NO_COLOR=1 {program}")
        assert eventually(lambda: "stalled: network 10.0.0.3:5432" in opened.screen())
        assert not re.search("\x1b\\[(3[0-7]|9)", opened("capture-pane", "-p", "-e"))
    assert eventually(lambda: "it does not answer (Connection refused); what follows is" in opened.screen())
    assert "stalled: network 10.0.0.3:5432" in opened.screen()
    pids = subprocess.run(
        ["ps", "-o", "pid=,args=", "-t", opened("display", "-p", "#{pane_tty}").strip()],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    [pid] = [int(line.split()[0]) for line in pids.splitlines() if f"live {url}" in line]
    os.kill(pid, signal.SIGTERM)
    assert eventually(lambda: opened.facts() == "0 1")
    assert "Traceback" not in opened.screen()


def test_where_there_is_no_terminal(stage: Stage, server: MetricsServer) -> None:
    """Into a pipe: one screen as plain text. With --json a line each time, until the reader goes away."""
    url = f"127.0.0.1:{server.port}"
    with a_run(stage):
        done = subprocess.run(
            [*PROGRAM, "live", url], capture_output=True, env=environment(), timeout=150, check=False, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "1 of 4 done" in done.stdout
        assert "\x1b" not in done.stdout
        with subprocess.Popen(
            [*PROGRAM, "live", url, "--json", "--interval", "0.1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as streaming:
            assert streaming.stdout is not None
            assert streaming.stderr is not None
            lines = [json.loads(streaming.stdout.readline()) for _ in range(2)]
            streaming.stdout.close()
            assert streaming.wait(150) == 141
            assert streaming.stderr.read() == b""
    assert all(line["processes"][0]["url"] == url for line in lines)
