"""One DAG of nodes that do nothing into what each part of our telemetry adds to a node, and to a graph's first run."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks import dags, peers
from benchmarks.dags import Dag
from benchmarks.peers import Peer, open_peers
from benchmarks.samples import Action, Series, per_node, take_turns, timed
from benchmarks.settings import Settings, say

SECTION = "telemetry parts"
FIRST_RUN_SECTION = "first run of a graph"
WORKERS = 8
ROUNDS = 15
FIRST_RUN_ROUNDS = 5

PEERS = (
    peers.UNTRACED,
    peers.TRACING_NO_SDK,
    peers.TRACING_UNSAMPLED,
    peers.TRACING_SAMPLED,
    peers.METRICS,
    peers.METRICS_PUSHED,
    peers.DEFAULT,
    peers.METRICS_UNSAMPLED,
    peers.TRACED,
    peers.HAMILTON,
    peers.FLOOR,
    peers.FLOOR_AS_OURS,
)
FIRST_RUN_PEERS = (peers.UNTRACED, peers.TRACED, peers.HAMILTON, peers.HAMILTON_TRACED)


def dag_for(*, smoke: bool) -> Dag:
    return dags.layered(4, 10, 3) if smoke else dags.layered(20, 50, 3)


def measure(settings: Settings) -> list[Series]:
    """The time per node with each part on."""
    dag = dag_for(smoke=settings.smoke)
    say(f"telemetry parts: {dag.name}")
    with open_peers(PEERS, WORKERS) as opened:
        actions = {name: timed(peer, peer.prepare(dag), dag.expected) for name, peer in opened.items()}
        return _turns(SECTION, dag, actions, settings, ROUNDS)


def measure_first_run(settings: Settings) -> list[Series]:
    """The time per node of a graph that has just been built: what is worked out once a graph is in it."""
    dag = dag_for(smoke=settings.smoke)
    say(f"first run of a graph: {dag.name}")
    with open_peers(FIRST_RUN_PEERS, WORKERS) as opened:
        actions = {name: _on_a_new_driver(peer, dag) for name, peer in opened.items()}
        return _turns(FIRST_RUN_SECTION, dag, actions, settings, FIRST_RUN_ROUNDS)


def _on_a_new_driver(peer: Peer, dag: Dag) -> Action:
    def action() -> Mapping[str, float]:
        return timed(peer, peer.prepare(dag), dag.expected)()

    return action


def _turns(section: str, dag: Dag, actions: dict[str, Action], settings: Settings, rounds: int) -> list[Series]:
    taken = take_turns(actions, rounds=settings.rounds(rounds), choice=settings.choice)
    return per_node(section, dag.name, len(dag), taken)
