"""One large DAG into the memory that a run needs at its peak, per node, each peer in a process of its own.

`python -m benchmarks.memory PEER WIDTH` is that process: it prints one line of JSON.
"""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

from benchmarks import dags, peers
from benchmarks.peers import is_installed, open_peers
from benchmarks.samples import Series
from benchmarks.settings import Settings, say

SECTION = "memory"
PEAK = "peak"
"""Of what Python allocates while the run goes on, over what there was before."""
RSS = "RSS"
"""Of the process's resident memory, likewise; memory that building the driver left free is used first."""
ROUNDS = 2  # they hardly differ
WORKERS = 8
LAYERS, WIDTH, SMOKE_WIDTH = 20, 1_000, 5

PEERS = (
    peers.UNTRACED,
    peers.DEFAULT,
    peers.TRACED,
    peers.TRACED_WHOLE,
    peers.HAMILTON,
    peers.HAMILTON_TRACED_HASHED,
    peers.NO_ADAPTER,
    peers.DASK,
    peers.GRAPHLIB,
)
SMOKE_PEERS = (peers.UNTRACED, peers.HAMILTON)

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def measure(settings: Settings) -> list[Series]:
    """Peak memory per node."""
    wanted = list(filter(is_installed, SMOKE_PEERS if settings.smoke else PEERS))
    width = SMOKE_WIDTH if settings.smoke else WIDTH
    taken: dict[str, dict[str, list[float]]] = {peer: {} for peer in wanted}
    rounds = settings.rounds(ROUNDS)
    for round_number in range(rounds):
        say(f"memory: round {round_number + 1} of {rounds}, a process for each of {len(wanted)} peers")
        for peer in settings.choice.sample(wanted, len(wanted)):
            for key, amount in _in_a_process(peer, width).items():
                taken[peer].setdefault(key, []).append(amount)
    case = f"{len(dags.layered(LAYERS, width, 3)):,} nodes"
    return [
        Series(section=SECTION, case=case, peer=peer, measure=key, unit="bytes/node", values=tuple(values))
        for peer, samples in taken.items()
        for key, values in samples.items()
    ]


def _in_a_process(peer: str, width: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", peer, str(width)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=600)
    amounts: dict[str, float] = json.loads(done.stdout)
    return amounts


def peak_per_node(label: str, width: int, *, layers: int = LAYERS) -> Mapping[str, float]:
    """What a run of this peer needs: resident memory first, then, in a second run, what Python allocates."""
    dag, small = dags.layered(layers, width, 3), dags.layered(3, 5, 2)
    with open_peers([label], WORKERS) as opened:
        peer = opened[label]
        peer.prepare(small)()  # so that threads, imports and caches are there
        peer.drain()
        run, expected = peer.prepare(dag), dag.expected
        amounts: dict[str, float] = {}
        gc.collect()
        resident = _reset_resident_peak()
        values = [run()]
        if resident is not None:
            amounts[RSS] = (_status_bytes("VmHWM") - resident) / len(dag)
        peer.drain()
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            values.append(run())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        amounts[PEAK] = (peak - before) / len(dag)
        peer.drain()
    if values != [expected, expected]:
        raise RuntimeError(f"{label} made {values!r} of the DAG, and {expected!r} is right")
    return amounts


def _reset_resident_peak() -> int | None:
    """The resident memory now, from which Linux counts the peak anew. None elsewhere, or where it may not be reset."""
    try:
        _CLEAR.write_text("5")
        return _status_bytes("VmRSS")
    except OSError:
        return None


def _status_bytes(key: str) -> int:
    found = re.search(rf"^{key}:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{_STATUS} has no {key}")
    return int(found[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(peak_per_node(sys.argv[1], int(sys.argv[2]))))
