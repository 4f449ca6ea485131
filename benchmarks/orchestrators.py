"""A small DAG of nodes that do nothing into what a node costs in an orchestrator that keeps the state of every task.

Prefect, with the server that it starts by itself when it is not told of one, in a process of its own, since it would
be in the way of others: `python -m benchmarks.orchestrators LAYERS WIDTH ROUNDS` is that process, which prints one line
of JSON. Where Prefect is not installed, the section says so and measures nothing: `pip install prefect` adds it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from time import perf_counter, process_time
from typing import Any

from benchmarks import dags, peers
from benchmarks.dags import Dag
from benchmarks.peers import Run, is_installed, open_peers
from benchmarks.samples import Series, per_node, take_turns, timed
from benchmarks.settings import Settings, say

SECTION = "orchestrators"
WORKERS = 8
ROUNDS = 5
LAYERS, WIDTH = 5, 20

PEERS = (peers.UNTRACED, peers.DEFAULT, peers.TRACED, peers.HAMILTON, peers.HAMILTON_TRACED)


def measure(settings: Settings) -> list[Series]:
    """The time per node, ours and Prefect's."""
    if not is_installed(peers.PREFECT):
        say("orchestrators: Prefect is not installed; skipped")
        return []
    layers, width = (2, 2) if settings.smoke else (LAYERS, WIDTH)
    dag, rounds = dags.layered(layers, width, 3), settings.rounds(ROUNDS)
    say(f"orchestrators: {dag.name}")
    with open_peers(PEERS, WORKERS) as opened:
        actions = {name: timed(peer, peer.prepare(dag), dag.expected) for name, peer in opened.items()}
        taken: dict[str, Mapping[str, Sequence[float]]] = {
            **take_turns(actions, rounds=rounds, choice=settings.choice),
            peers.PREFECT: _in_a_process(layers, width, rounds),
        }
    return per_node(SECTION, dag.name, len(dag), taken)


def _in_a_process(layers: int, width: int, rounds: int) -> dict[str, Sequence[float]]:
    command = [sys.executable, "-m", "benchmarks.orchestrators", str(layers), str(width), str(rounds)]
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "PREFECT_HOME": home,
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_LOGGING_LEVEL": "CRITICAL",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, env=environment, timeout=900
        )
    found: dict[str, Sequence[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _prepare(dag: Dag, workers: int) -> Run:
    from prefect import flow, task  # type: ignore[import-not-found,unused-ignore]  # optional
    from prefect.task_runners import ThreadPoolTaskRunner  # type: ignore[import-not-found,unused-ignore]  # likewise

    functions = vars(dag.module)
    tasks = {name: task(functions[name]) for name in dag.inputs}

    def whole() -> int:
        futures: dict[str, Any] = {}
        for name, upstream in dag.in_order.items():
            futures[name] = tasks[name].submit(**{each: futures[each] for each in upstream})
        value: int = futures[dag.end].result()
        return value

    run: Run = flow(task_runner=ThreadPoolTaskRunner(max_workers=workers), validate_parameters=False)(whole)
    return run


def main(layers: int, width: int, rounds: int) -> None:
    """What the process does. The first run starts the server and is not counted."""
    logging.disable(logging.CRITICAL)
    dag = dags.layered(layers, width, 3)
    run = _prepare(dag, WORKERS)
    taken: dict[str, list[float]] = {"wall": [], "cpu": []}
    for round_number in range(-1, rounds):
        started, cpu_started = perf_counter(), process_time()
        value = run()
        wall, cpu = perf_counter() - started, process_time() - cpu_started
        if value != dag.expected:
            raise RuntimeError(f"Prefect made {value!r} of the DAG, and {dag.expected!r} is right")
        if round_number >= 0:
            taken["wall"].append(wall)
            taken["cpu"].append(cpu)
    print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
