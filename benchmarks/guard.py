"""What a node costs, counted, against what was last accepted: fails on a clear regression, on any machine.

Times differ from machine to machine and from minute to minute; how many bytecode instructions a node takes does not.
The threads of a pool are watched with `sys.settrace`, instruction by instruction, while a DAG of nodes that do nothing
runs, in three settings; what belongs to this package and to OpenTelemetry's is counted, and the median of a few runs is
divided by the number of nodes. Repeated counts differ by up to 7 %, since the order of ready nodes goes by how long
they took, so the margin is twice that. What is spent within C code, such as a lock, is not seen: `make bench` sees it.

    python -m benchmarks.guard            # compare with guard.json; exit status 1 on a regression
    python -m benchmarks.guard --accept   # what is counted now is what is accepted, for this version of Python
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

from benchmarks import dags, peers
from benchmarks.peers import open_peers

ACCEPTED: Final = Path(__file__).parent / "guard.json"
MARGIN: Final = 1.15
ROUNDS: Final = 7
WORKERS: Final = 4
PEERS: Final = {"untraced": peers.UNTRACED, "metrics": peers.METRICS, "traced": peers.TRACED}
PACKAGES: Final = ("/traced_threadpool/", "/opentelemetry/")


class _Counter:
    """Counts the instructions of frames that belong to `PACKAGES`. Each thread has a counter of its own."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._counts: list[list[int]] = []
        self._ours: dict[CodeType, bool] = {}

    @property
    def total(self) -> int:
        return sum(count[0] for count in self._counts)

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """For `sys.settrace`."""
        code = frame.f_code
        ours = self._ours.get(code)
        if ours is None:
            name = code.co_filename
            ours = self._ours[code] = any(package in name for package in PACKAGES) and "/waits/service" not in name
        if not ours:
            return None
        try:
            count = self._local.count
        except AttributeError:
            count = self._local.count = [0]
            self._counts.append(count)

        def one(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "opcode":
                count[0] += 1
            return one

        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return one


def count() -> dict[str, float]:
    """Instructions per node in each setting."""
    dag = dags.layered(10, 20, 3)
    found: dict[str, list[float]] = {name: [] for name in PEERS}
    counter = _Counter()
    threading.settrace(counter.trace)  # before there are threads: it is for those to come
    try:
        with open_peers(PEERS.values(), WORKERS) as opened:
            runs = {name: (opened[label], opened[label].prepare(dag)) for name, label in PEERS.items()}
            for round_number in range(-1, ROUNDS):  # in the first, threads start and caches fill
                for name, (peer, run) in runs.items():
                    before = counter.total
                    sys.settrace(counter.trace)
                    try:
                        run()
                    finally:
                        sys.settrace(None)
                    peer.drain()
                    if round_number >= 0:
                        found[name].append((counter.total - before) / len(dag))
    finally:
        threading.settrace(None)
    return {name: round(statistics.median(counts), 1) for name, counts in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    parser.add_argument("--accept", action="store_true", help="write what is counted now")
    asked = parser.parse_args(arguments)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    accepted: dict[str, dict[str, float]] = json.loads(ACCEPTED.read_text()) if ACCEPTED.exists() else {}
    found = count()
    if asked.accept:
        accepted[version] = found
        ACCEPTED.write_text(json.dumps(accepted, indent=1, sort_keys=True) + "\n")
        print(f"accepted for Python {version}: {found}")
        return 0
    if version not in accepted:
        print(f"nothing was accepted for Python {version}; counted {found}")
        return 0
    return 1 if compare(found, accepted[version]) else 0


def compare(found: dict[str, float], accepted: dict[str, float]) -> list[str]:
    """Prints each setting; returns those that are beyond the margin."""
    worse = []
    for name, instructions in found.items():
        ratio = instructions / accepted[name]
        verdict = "more than accepted" if ratio > MARGIN else "less: accept it" if ratio < 1 / MARGIN else "as accepted"
        print(f"{name:10} {instructions:8.1f} instructions a node, {ratio:.3f} x the accepted: {verdict}")
        if ratio > MARGIN:
            worse.append(name)
    return worse


if __name__ == "__main__":
    sys.exit(main())
