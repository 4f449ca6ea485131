"""What spans of waits cost a traced run: the same runs with and without them, in turns, in one process.

    python -m benchmarks.wait_spans [--smoke] [--rounds N]

Without: neither are the waits chosen nor are their spans made, and no finding is looked for. Nodes do nothing, so that
nothing hides the cost; 3 % of the time of such a run is what they may take. On a busy machine the ratios of whole runs
are a few percent wide; `work` is steadier: the CPU time of choosing and making them, over that of the rest of the run.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from time import thread_time
from typing import Any
from unittest import mock

from benchmarks import dags, peers
from benchmarks.dags import Dag
from benchmarks.peers import Peer, open_peers
from benchmarks.samples import Action, ratio, take_turns, timed
from traced_threadpool.recording import recorder
from traced_threadpool.recording.told_waits import path_waits
from traced_threadpool.telemetry.tracing import observer
from traced_threadpool.telemetry.tracing.run_finding import RunFinding
from traced_threadpool.telemetry.tracing.wait_spans import record_waits

WITH, WITHOUT = "with", "without"
WORKERS = 8
ROUNDS = 41
MOST = 1.03
"""A run with them takes so much of one without at most."""


def shapes(*, smoke: bool) -> list[Dag]:
    if smoke:
        return [dags.layered(4, 10, 3)]
    return [dags.wide(1_000), dags.chains(10, 100), dags.layered(20, 50, 3), dags.tree(1_000)]


class Spent:
    """CPU time of this thread in what it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def on(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(*arguments: Any, **named: Any) -> Any:
            started = thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += thread_time() - started

        return timed_call


def with_them(action: Action) -> Action:
    def watched() -> Mapping[str, float]:
        spent = Spent()
        with (
            mock.patch.object(recorder, "path_waits", spent.on(path_waits)),
            mock.patch.object(observer, "record_waits", spent.on(record_waits)),
            mock.patch.object(RunFinding, "of", spent.on(RunFinding.of)),
        ):
            taken = action()
        return {**taken, "work": taken["cpu"], "rest": taken["cpu"] - spent.seconds}

    return watched


def without_them(action: Action) -> Action:
    def changed() -> Mapping[str, float]:
        with (
            mock.patch.object(recorder, "path_waits", return_value=()),
            mock.patch.object(observer, "record_waits"),
            mock.patch.object(RunFinding, "of", return_value=None),
        ):
            return action()

    return changed


def measure(dag: Dag, peer: Peer, *, rounds: int, choice: random.Random) -> dict[str, dict[str, tuple[float, ...]]]:
    """Seconds of a run, by whether it has them and by measure."""
    action: Callable[[], Mapping[str, float]] = timed(peer, peer.prepare(dag), dag.expected)
    return take_turns({WITH: with_them(action), WITHOUT: without_them(action)}, rounds=rounds, choice=choice)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 1 where they cost more than they may, by the median of the rounds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wait_spans", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="once and small, to see that it works")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each DAG; %(default)s, unless given")
    asked = parser.parse_args(arguments)
    worst = 0.0
    with open_peers([peers.TRACED], WORKERS) as opened:
        for dag in shapes(smoke=asked.smoke):
            taken = measure(
                dag, opened[peers.TRACED], rounds=1 if asked.smoke else asked.rounds, choice=random.Random(1)
            )
            compared = {kind: (taken[WITH][kind], taken[WITHOUT][kind]) for kind in ("wall", "cpu")}
            compared["work"] = (taken[WITH]["work"], taken[WITH]["rest"])
            for kind, (values, others) in compared.items():
                found = ratio(values, others)
                low, high = found.paired_interval
                print(f"{dag.name}, {kind}: {found.paired:.3f} times as much ({low:.3f} to {high:.3f})")
                worst = max(worst, found.paired)
    return 1 if worst > MOST and not asked.smoke else 0


if __name__ == "__main__":
    raise SystemExit(main())
