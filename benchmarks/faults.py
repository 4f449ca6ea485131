"""Nodes of five milliseconds into what an OTLP endpoint that fails makes of them: `python -m benchmarks.faults`.

Each turn is a process of its own, so that no exporter disturbs another's turn: it warms up, then runs a DAG of eight
chains on four workers, over and over, while its spans are exported five times a second. Endpoints take turns, and a
turn's figures are compared with those of the healthy endpoint in the same round. The endpoints are processes, too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks import table
from benchmarks.samples import ratio, take_turns
from benchmarks.settings import say

HEALTHY = "healthy"
ENDPOINTS = (HEALTHY, "dead", "hanging", "refusing", "slow")
CHAINS, LENGTH, WORKERS = 8, 8, 4
SECONDS = 3.0


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each turn")
    parser.add_argument("--turn", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--serve", choices=ENDPOINTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve is not None:
        serve(asked.serve)
    elif asked.turn is not None:
        print(json.dumps(turn(asked.turn, asked.seconds)))
    else:
        measure(asked.rounds, asked.seconds)


def measure(rounds: int, seconds: float) -> None:
    with ExitStack() as stack:
        urls = {name: stack.enter_context(endpoint(name)) for name in ENDPOINTS}

        def action(name: str) -> dict[str, float]:
            say(f"faults: {name}")
            arguments = [sys.executable, "-m", "benchmarks.faults", "--turn", urls[name], "--seconds", str(seconds)]
            environment = {
                **os.environ,
                "OTEL_BSP_SCHEDULE_DELAY": "200",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            }
            result = subprocess.run(arguments, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            figures: dict[str, float] = json.loads(result.stdout)
            return figures

        actions = {name: partial(action, name) for name in ENDPOINTS}
        taken = take_turns(actions, rounds=rounds, choice=random.Random(1))
    rows = []
    for name, samples in taken.items():
        row = [name]
        for measure_name in ("node", "run"):
            found = ratio(samples[measure_name], taken[HEALTHY][measure_name])
            low, high = found.paired_quartiles
            median = statistics.median(samples[measure_name])
            row += [f"{median * 1e3:.2f} ms", f"{found.paired:.3f}", f"{low:.3f}-{high:.3f}"]
        rows.append([*row, f"{sum(samples['lost']):.0f}"])
    columns = (
        "endpoint",
        "a node",
        "against healthy",
        "quartiles",
        "a run",
        "against healthy",
        "quartiles",
        "spans lost",
    )
    table.show([table.Table(title="OTLP endpoints that fail", columns=columns, rows=rows)])


# A turn


def turn(url: str, seconds: float) -> dict[str, float]:
    """The mean time of a node's function and of a run, and the spans lost."""
    import logging

    from hamilton import ad_hoc_utils, driver
    from prometheus_client import CollectorRegistry

    from traced_threadpool import FutureAdapter, setup_telemetry
    from traced_threadpool.telemetry.lost_spans import spans_lost

    logging.disable()
    setup = setup_telemetry(endpoint=url)
    functions = []
    names: dict[str, Any] = {"work": work}
    for chain in range(CHAINS):
        for step in range(LENGTH):
            argument = f"c{chain}_{step - 1}: float" if step else ""
            name = f"c{chain}_{step}"
            exec(f"def {name}({argument}) -> float:\n    return work()", names)
            functions.append(names[name])
    module = ad_hoc_utils.create_temporary_module(*functions)
    lasts: list[Any] = [f"c{chain}_{LENGTH - 1}" for chain in range(CHAINS)]
    everything: list[Any] = [function.__name__ for function in functions]
    with FutureAdapter(WORKERS, registry=CollectorRegistry()) as adapter:
        dr = driver.Builder().with_modules(module).with_adapters(adapter).build()
        dr.execute(lasts)
        nodes: list[float] = []
        runs: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            started = time.perf_counter()
            result = dr.execute(everything)
            runs.append(time.perf_counter() - started)
            nodes += result.values()
    setup.close()
    return {"node": sum(nodes) / len(nodes), "run": sum(runs) / len(runs), "lost": sum(spans_lost().values())}


def work() -> float:
    """Computes and waits, some five milliseconds; returns how long it took."""
    started = time.perf_counter()
    for _ in range(4):
        sum(range(5_000))
        time.sleep(0.001)
    return time.perf_counter() - started


# Endpoints


@contextmanager
def endpoint(name: str) -> Iterator[str]:
    """Its address."""
    if name in ("dead", "hanging"):
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            if name == "dead":
                server.close()
            yield url
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.faults", "--serve", name], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


def serve(name: str) -> None:
    """Answers well, with a refusal, or late."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if name == "slow":
                time.sleep(1)
            self.send_response(400 if name == "refusing" else 200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
