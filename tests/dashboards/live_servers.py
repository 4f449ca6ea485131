"""Prometheus, Alertmanager, a collector and a webhook on free ports of this machine, and their HTTP APIs.

    with Alertmanager(folder, webhook.url) as alertmanager, Prometheus(folder, rules, alertmanager.url) as prometheus:
        prometheus.scrape("shop", port)
        prometheus.value("up")

Whatever ends the test, a process that was started here ends with it: it is terminated at the end of its block, and
where `setpriv` is installed, the kernel kills it when the process of the test dies.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from typing_extensions import Self

LIMIT_SECONDS = 240.0
"""How long anything here waits for what must come: far above what it takes."""

MUST_RUN = "LIVE_TESTS_MUST_RUN"
"""An environment variable: CI sets it, so that a server that is not installed is a failure and no skip."""

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
"""What an instant query gives: a value for each set of labels, `__name__` left out."""


def labels(**given: str) -> Labels:
    return frozenset(given.items())


def need(what: str | None, reason: str) -> str:
    """Skip the test, or fail where it must run, if there is no `what`."""
    if what is None:
        if os.environ.get(MUST_RUN):
            pytest.fail(f"{reason}, and {MUST_RUN} is set", pytrace=False)
        pytest.skip(reason)
    return what


def program(name: str, package: str) -> str:
    """The path of a program, which a package of Debian's brings."""
    return need(shutil.which(name), f"no {name} on PATH (Debian: apt-get install {package})")


def until(condition: Callable[[], Any], what: str, *, alive: Process | None = None) -> Any:
    """Return what the condition gives once that is true, for states that nothing announces."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (found := condition()):
        if alive is not None:
            alive.check()
        assert time.monotonic() < deadline, f"in {LIMIT_SECONDS:g} s this has not come: {what}"
        time.sleep(0.05)
    return found


class Process:
    """A program that runs while its block does; its output goes to a file, which is shown when it ends early."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        self._command = [*_ending_with_this_process(), *command]
        self._environment = {**os.environ, **(environment or {})}

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """An AssertionError if it has ended."""
        status = self._process.poll()
        assert status is None, f"{self._command} has ended with {status}:\n{self.output()[-4000:]}"

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> str:
        """The first group of the pattern, once the program has printed it."""
        found = until(lambda: re.search(pattern, self.output()), f"{pattern} in {self.log}", alive=self)
        return str(found[1])

    def kill(self) -> None:
        """End it without asking."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ask it to end; gives its status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(LIMIT_SECONDS)


def _ending_with_this_process() -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv is not None else []


def ask(url: str, **parameters: str | Sequence[str]) -> Any:
    """A document of JSON."""
    query = urllib.parse.urlencode(parameters, doseq=True)
    try:
        # Posted, since a query may be longer than an address.
        with urllib.request.urlopen(url, query.encode() if query else None, timeout=LIMIT_SECONDS) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{url} {parameters}: {error.read().decode()}") from None


def answers(url: str) -> bool:
    """Whether it is answered with success."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def _ready(command: Sequence[str], log: Path, what: str) -> tuple[Process, str]:
    """A server that says where it listens, once it is ready, and its URL."""
    process = Process(command, log).__enter__()
    try:
        url = "http://" + process.wait_for(r'msg="Listening on" address=(\S+)')
        until(lambda: answers(f"{url}/-/ready"), what, alive=process)
    except BaseException:
        process.__exit__()
        raise
    return process, url


class Prometheus:
    """A Prometheus with a short memory and a quick pulse; `rules` are files, `flags` further ones."""

    SCRAPE_SECONDS = 1.0

    def __init__(
        self, folder: Path, rules: Sequence[Path] = (), alertmanager: str | None = None, *, flags: Sequence[str] = ()
    ) -> None:
        self._folder = folder / "prometheus"
        self._rules = rules
        self._alertmanager = alertmanager
        self._flags = flags
        self.instances: dict[str, str] = {}

    def __enter__(self) -> Self:
        server = program("prometheus", "prometheus")
        (self._folder / "targets").mkdir(parents=True)
        pulse = f"{round(self.SCRAPE_SECONDS * 1000)}ms"
        often = f"{round(self.SCRAPE_SECONDS * 500)}ms"
        managers = [urllib.parse.urlsplit(self._alertmanager).netloc] if self._alertmanager else []
        config = {
            "global": {"scrape_interval": pulse, "scrape_timeout": pulse, "evaluation_interval": often},
            "rule_files": [str(path) for path in self._rules],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": managers}]}]},
            "scrape_configs": [
                {
                    "job_name": "live",
                    "file_sd_configs": [{"files": [f"{self._folder}/targets/*.json"], "refresh_interval": "1s"}],
                }
            ],
        }
        (self._folder / "prometheus.json").write_text(json.dumps(config))
        command = [
            server,
            f"--config.file={self._folder}/prometheus.json",
            f"--storage.tsdb.path={self._folder}/data",
            "--web.listen-address=127.0.0.1:0",
            "--enable-feature=exemplar-storage",
            *self._flags,
        ]
        self._process, self.url = _ready(command, self._folder / "log", "a Prometheus that is ready")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.__exit__(*exc_info)

    def scrape(self, job: str, port: int) -> None:
        """Scrape a port of this machine from now on; returns once that has been done."""
        self.instances[job] = f"127.0.0.1:{port}"
        target = [{"targets": [self.instances[job]], "labels": {"job": job}}]
        unfinished = self._folder / f"{job}.unfinished"
        unfinished.write_text(json.dumps(target))
        unfinished.rename(self._folder / "targets" / f"{job}.json")
        until(lambda: self.query(f'up{{job="{job}"}} == 1'), f"a scrape of {job}", alive=self._process)

    def settle(self, *jobs: str) -> float:
        """Return once all that has happened until now was scraped, and went through every rule; gives the time."""
        self.scraped(*jobs)
        # Rules rest on others, of other groups too: what comes after three evaluations has seen all of it.
        for _ in range(3):
            self._wait_for_evaluation(time.time())
        # A busy machine may answer a scrape too late, and then nothing is known of now, for a moment.
        return float(until(lambda: self._all_known(jobs), f"some scrapes of {jobs} that were all in time"))

    def scraped(self, *jobs: str) -> float:
        """Return once all that has happened until now was scraped; gives the time."""
        since = time.time()
        for job in jobs:
            up = f'up{{job="{job}"}}'
            scraped = f"{up} == 1 and timestamp({up}) > {since!r}"
            until(lambda scraped=scraped: self.query(scraped), f"a scrape of {job}", alive=self._process)
        return time.time()

    def _all_known(self, jobs: Sequence[str]) -> float | None:
        at = round(time.time(), 3)  # Prometheus counts in milliseconds
        self.scraped(*jobs)  # what was on its way by then has come
        looks = f"[{max(1, round(4 * self.SCRAPE_SECONDS))}s]"
        known = self.query(f"min_over_time(up{looks}) == 1 and count_over_time(up{looks}) >= 3", at)
        return at if {dict(one)["job"] for one in known} >= set(jobs) else None

    def _wait_for_evaluation(self, since: float) -> None:
        until(lambda: self._evaluated() > since, "an evaluation of every group of rules", alive=self._process)

    def _evaluated(self) -> float:
        groups = ask(f"{self.url}/api/v1/rules")["data"]["groups"]
        return min((_unix_time(group["lastEvaluation"]) for group in groups), default=float("inf"))

    def query(self, expression: str, at: float | None = None) -> Vector:
        """An instant query."""
        parameters = {"query": expression} if at is None else {"query": expression, "time": repr(at)}
        data = ask(f"{self.url}/api/v1/query", **parameters)["data"]
        if data["resultType"] == "scalar":
            return {frozenset(): float(data["result"][1])}
        found = {
            frozenset((name, value) for name, value in one["metric"].items() if name != "__name__"): float(
                one["value"][1]
            )
            for one in data["result"]
        }
        assert len(found) == len(data["result"]), f"{expression}: series that differ by name alone"
        return found

    def value(self, expression: str, at: float | None = None) -> float:
        """The only value of an instant query."""
        [found] = self.query(expression, at).values()
        return found

    def samples(self, selector: str, at: float) -> dict[Labels, list[tuple[float, float]]]:
        """Times and values of what a range selector covers."""
        data = ask(f"{self.url}/api/v1/query", query=selector, time=repr(at))["data"]
        assert data["resultType"] == "matrix"
        return {
            frozenset((name, value) for name, value in one["metric"].items() if name != "__name__"): [
                (float(time), float(value)) for time, value in one["values"]
            ]
            for one in data["result"]
        }

    def matrix(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """A range query."""
        parameters = {"query": expression, "start": repr(start), "end": repr(end), "step": repr(step)}
        found: list[dict[str, Any]] = ask(f"{self.url}/api/v1/query_range", **parameters)["data"]["result"]
        return found

    def exemplars(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        parameters = {"query": expression, "start": repr(start), "end": repr(end)}
        found: list[dict[str, Any]] = ask(f"{self.url}/api/v1/query_exemplars", **parameters)["data"]
        return found

    def evaluations(self, start: float, end: float) -> list[float]:
        """When rules were asked: the times of what they have recorded after `start`, up to `end`."""
        selector = f'{{__name__=~".+:.+:.+"}}[{math.ceil(end - start)}s]'
        found = ask(f"{self.url}/api/v1/query", query=selector, time=repr(end))["data"]["result"]
        return sorted({float(time) for one in found for time, _ in one["values"] if time > start})

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, with its health and, for an alert, what is pending and firing."""
        groups = ask(f"{self.url}/api/v1/rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


def _unix_time(stamp: str) -> float:
    """Of a time with nanoseconds, which older Pythons do not read; zero for one that has never come.

    >>> _unix_time("2026-01-01T00:00:00.250000001Z") % 60
    0.250000001
    """
    parts = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", stamp)
    assert parts, stamp
    if stamp.startswith("0001"):
        return 0.0
    whole = datetime.fromisoformat(parts[1] + parts[3].replace("Z", "+00:00"))
    return whole.timestamp() + float(parts[2] or 0)


class Alertmanager:
    """An Alertmanager that hands every alert to a webhook at once."""

    def __init__(self, folder: Path, webhook: str) -> None:
        self._folder = folder / "alertmanager"
        self._webhook = webhook

    def __enter__(self) -> Self:
        server = program("prometheus-alertmanager", "prometheus-alertmanager")
        self._folder.mkdir()
        route = {"receiver": "hook", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
        receivers = [{"name": "hook", "webhook_configs": [{"url": self._webhook, "send_resolved": True}]}]
        (self._folder / "alertmanager.json").write_text(json.dumps({"route": route, "receivers": receivers}))
        command = [
            server,
            f"--config.file={self._folder}/alertmanager.json",
            f"--storage.path={self._folder}/data",
            "--web.listen-address=127.0.0.1:0",
            "--cluster.listen-address=",
        ]
        self._process, self.url = _ready(command, self._folder / "log", "an Alertmanager that is ready")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.__exit__(*exc_info)


class Webhook:
    """What a pager would be: keeps every alert that is posted to it."""

    def __enter__(self) -> Self:
        self._alerts: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with webhook._changed:
                    webhook._alerts += body["alerts"]
                    webhook._changed.notify_all()
                with contextlib.suppress(ConnectionError):
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_for(self, status: str, **wanted: str) -> dict[str, Any]:
        """The first alert with this status and these labels."""

        def found() -> dict[str, Any] | None:
            return next(
                (a for a in self._alerts if a["status"] == status and wanted.items() <= a["labels"].items()), None
            )

        with self._changed:
            came = self._changed.wait_for(lambda: found() is not None, LIMIT_SECONDS)
            alert = found()
        seen = sorted({f"{a['status']} {a['labels'].get('alertname')}" for a in self._alerts})
        assert came, f"no alert came that is {status} with {wanted}; these did: {seen}"
        assert alert is not None
        return alert

    def seen(self, status: str) -> set[str]:
        """The names of the alerts that have come with this status."""
        with self._changed:
            return {alert["labels"]["alertname"] for alert in self._alerts if alert["status"] == status}


class Rotel:
    """A whole OTLP collector: takes spans and metrics over gRPC and HTTP, and hands them to another receiver over gRPC.

    `grpc` and `http` are its addresses. Entered again, once its block has been left, it listens at the same ones.
    """

    def __init__(self, folder: Path, forward_to: str) -> None:
        self._folder = folder / "rotel"
        self._forward_to = forward_to
        self._ports: tuple[int, int] | None = None
        self._starts = 0

    def __enter__(self) -> Self:
        agent, environment = _rotel()
        self._folder.mkdir(exist_ok=True)
        # It cannot be asked for any free port: one that was free a moment ago may be taken when it gets there.
        for attempt in range(5):
            grpc, http_port = self._ports or (_free_port(), _free_port())
            command = [
                agent, "start", "--exporter", "otlp", "--otlp-exporter-endpoint", self._forward_to,
                "--otlp-exporter-compression", "none", "--batch-timeout", "20ms",
                "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http_port}",
                "--pid-file", str(self._folder / "pid"), "--log-file", str(self._folder / "own-log"),
            ]  # fmt: skip
            self._starts += 1
            self._process = Process(command, self._folder / f"log-{self._starts}", environment).__enter__()
            try:
                _wait_until_it_listens(self._process, grpc, http_port)
            except BaseException as error:
                self._process.__exit__()
                if attempt == 4 or self._ports is not None or not isinstance(error, AssertionError):
                    raise
            else:
                self._ports = grpc, http_port
                self.grpc = f"http://127.0.0.1:{grpc}"
                self.http = f"http://127.0.0.1:{http_port}"
                return self
        raise AssertionError("unreachable")

    def __exit__(self, *exc_info: object) -> None:
        self._process.__exit__(*exc_info)

    def kill(self) -> None:
        """As if it had crashed: what it had not handed on is gone."""
        self._process.kill()


def _rotel() -> tuple[str, dict[str, str]]:
    """The program, and what its environment must have."""
    found = importlib.util.find_spec("rotel")
    origin = need(
        found.origin if found is not None else None, "rotel is not installed (it is in the dev group, for Linux)"
    )
    agent = str(Path(origin).with_name("rotel-agent"))
    # It is linked against the shared library of its Python, of which an interpreter of one's own may have a copy.
    libraries = f"{sysconfig.get_config_var('LIBDIR')}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    environment = {"LD_LIBRARY_PATH": libraries}
    tried = subprocess.run(
        [agent, "--version"], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    need("yes" if tried.returncode == 0 else None, f"rotel does not run here: {tried.stderr.strip()}")
    return agent, environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5):
            return True
    except OSError:
        return False


def _wait_until_it_listens(process: Process, *ports: int) -> None:
    until(lambda: all(_listens(port) for port in ports), "a collector that listens", alive=process)
