"""Nodes on a machine that other programs keep busy: what these do to them stays, whatever is changed of the run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.analysis.diagnosed_runs import EXAMPLES, MS, node, run
from traced_threadpool.analysis.diagnosis.diagnose import diagnose
from traced_threadpool.analysis.replay.company import others_ns
from traced_threadpool.analysis.replay.demand import demands
from traced_threadpool.analysis.replay.what_if import replay
from traced_threadpool.model.recorded_run import RecordedRun

FOUR = run(*(node(f"parse_{number}", 0, 1000, {"cpu": 100, "runqueue": 900}) for number in range(4)), end=1000, cpus=4)
"""Four that compute side by side for a tenth of a second each, and get a tenth of a CPU each."""


def test_fewer_workers_do_not_send_other_programs_away() -> None:
    """One after the other, each takes as long as it did: 4 s, and not the 0.4 s of what is computed."""
    assert replay(FOUR, workers=1).makespan_ns == pytest.approx(4000 * MS, rel=0.02)
    assert replay(FOUR, workers=2).makespan_ns == pytest.approx(2000 * MS, rel=0.02)
    assert replay(FOUR).makespan_ns == 1000 * MS


def test_on_a_quiet_machine_nodes_compute_and_wait_for_each_other_alone() -> None:
    """The gain of the finding is that."""
    assert replay(FOUR, quiet=True).makespan_ns == pytest.approx(100 * MS, rel=0.02)
    assert replay(FOUR, quiet=True, workers=1).makespan_ns == pytest.approx(400 * MS, rel=0.02)
    finding = diagnose(FOUR).findings[0]
    assert finding.cause == "processor_starved"
    assert "replay: if they had not waited for a CPU, 100 ms instead of 1.00 s" in finding.evidence
    assert finding.gain_seconds == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["processor_starved", "gil_bound", "pool_too_large", "healthy"])
def test_nodes_that_use_up_the_cpus_wait_because_of_each_other(name: str) -> None:
    """With fewer of them at once, that goes."""
    record: RecordedRun = EXAMPLES[name]
    assert others_ns(record.nodes, record.cpus) == []
    assert demands(record.nodes, cpus=record.cpus).others == ()


def test_more_nodes_than_cpus_wait_for_each_other_too() -> None:
    """Of two CPUs, two of four that want one at a time would be without one on any machine."""
    found = others_ns(FOUR.nodes, 2)
    assert found == pytest.approx([400 * MS] * 4)
    assert others_ns(FOUR.nodes, None) == []


def test_who_has_the_gil_and_no_cpu_keeps_the_gil() -> None:
    """Two that compute in plain Python on a busy machine: side by side or one after the other, it takes as long."""
    states = {"cpu": 100, "runqueue": 400, "gil": 500}
    two = run(*(node(f"parse_{number}", 0, 1000, states) for number in range(2)), end=1000, cpus=2, max_workers=2)
    (first, second) = demands(two.nodes, cpus=2).each
    assert first.held_ns == second.held_ns == pytest.approx(500 * MS, rel=0.1)
    assert replay(two, workers=1).makespan_ns == pytest.approx(1000 * MS, rel=0.1)
    assert replay(two, gil=False).makespan_ns == pytest.approx(500 * MS, rel=0.1)
    assert replay(two, gil=False, quiet=True).makespan_ns == pytest.approx(100 * MS, rel=0.1)


def test_how_busy_the_cpus_are_is_what_nodes_compute() -> None:
    """And not how long they held the GIL without one."""
    states = {"cpu": 100, "runqueue": 900}
    one = run(node("parse", 0, 1000, states), end=1000, cpus=1, max_workers=1)
    assert replay(replace(one, cpus=2)).cpu_share == pytest.approx(0.05, abs=0.01)
