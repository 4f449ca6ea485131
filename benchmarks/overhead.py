"""DAGs of nodes that do nothing into the time that a node costs, in several shapes and sizes."""

from __future__ import annotations

from benchmarks import dags, peers
from benchmarks.dags import Dag
from benchmarks.peers import open_peers
from benchmarks.samples import Action, Series, per_node, take_turns, timed
from benchmarks.settings import Settings, say

SECTION = "overhead"
SIZES_SECTION = "sizes"
WORKERS = 8
ROUNDS = 15
SIZES_ROUNDS = 5
NODES_A_SAMPLE = 2_000  # small DAGs run several times for one sample: a run of 200 nodes is too short to time

PEERS = (
    peers.UNTRACED,
    peers.DEFAULT,
    peers.TRACED,
    peers.HAMILTON,
    peers.HAMILTON_TRACED,
    peers.HAMILTON_TRACED_HASHED,
    peers.NO_ADAPTER,
    peers.NO_THREADS,
    peers.DASK,
    peers.JOBLIB,
    peers.GRAPHLIB,
    peers.FLOOR,
    peers.FLOOR_AS_OURS,
)
# The tracer that hashes every source again for each run is known from the shapes, and takes minutes here.
SIZES_PEERS = (peers.TRACED_WHOLE, *(peer for peer in PEERS if peer != peers.HAMILTON_TRACED))


def shapes(*, smoke: bool) -> list[Dag]:
    if smoke:
        return [dags.wide(40), dags.chains(4, 8), dags.layered(4, 10, 3), dags.tree(31)]
    return [dags.wide(1_000), dags.chains(10, 100), dags.layered(20, 50, 3), dags.tree(1_000)]


def sizes(*, smoke: bool) -> list[Dag]:
    """The same depth for all, since Hamilton's walk is recursive."""
    return [dags.layered(20, width, 3) for width in ((2, 4) if smoke else (10, 100, 1_000))]


def measure_shapes(settings: Settings) -> list[Series]:
    """The time per node in each shape."""
    found: list[Series] = []
    with open_peers(PEERS, WORKERS) as opened:
        for dag in shapes(smoke=settings.smoke):
            say(f"overhead: {dag.name}")
            actions = {name: timed(peer, peer.prepare(dag), dag.expected) for name, peer in opened.items()}
            taken = take_turns(actions, rounds=settings.rounds(ROUNDS), choice=settings.choice)
            found += per_node(SECTION, dag.name, len(dag), taken)
    return found + _measure_distributed(settings)


def _measure_distributed(settings: Settings) -> list[Series]:
    """By itself, after the others: its threads and its hooks of the garbage collector would slow them all down."""
    found: list[Series] = []
    if not settings.smoke:
        with open_peers([peers.DISTRIBUTED], WORKERS) as opened:
            for dag in shapes(smoke=False):
                say(f"overhead: distributed, {dag.name}")
                actions = {name: timed(peer, peer.prepare(dag), dag.expected) for name, peer in opened.items()}
                taken = take_turns(actions, rounds=settings.rounds(ROUNDS), choice=settings.choice)
                found += per_node(SECTION, dag.name, len(dag), taken)
    return found


def measure_sizes(settings: Settings) -> list[Series]:
    """The time per node in small and large DAGs, with the sizes taking turns as the peers do."""
    found: list[Series] = []
    with open_peers(SIZES_PEERS, WORKERS) as opened:
        actions: dict[str, Action] = {}
        origin: dict[str, tuple[str, Dag]] = {}
        for dag in sizes(smoke=settings.smoke):
            say(f"sizes: building {len(dag):,} nodes")
            times = 1 if settings.smoke else max(1, NODES_A_SAMPLE // len(dag))
            for name, peer in opened.items():
                key = f"{name}, {len(dag)}"
                origin[key] = name, dag
                actions[key] = timed(peer, peer.prepare(dag), dag.expected, times)
        say("sizes: measuring")
        taken = take_turns(actions, rounds=settings.rounds(SIZES_ROUNDS), choice=settings.choice)
        for key, samples in taken.items():
            name, dag = origin[key]
            found += per_node(SIZES_SECTION, f"{len(dag):,} nodes", len(dag), {name: samples})
    return found
