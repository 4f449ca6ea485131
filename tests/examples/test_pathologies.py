"""The pathologies as pipelines in this process: what is planted is really there, by independent measures."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

pytest.importorskip("rich", reason="the example needs the extra [demo]")
pytest.importorskip("opentelemetry.sdk", reason="the example needs the extra [demo]")


from examples.pathologies import pathology, says, service, slow_disk
from examples.pathologies.demonstration import build_driver
from examples.pathologies.pathology import NAMES, Amount
from examples.pathologies.service import ServiceError, ask, connect, fetch, running_service
from tests.examples.pathology_facts import needs_gil, needs_proc, pathology_of, text_of
from traced_threadpool import FutureAdapter

ON_LINUX = sys.platform.startswith("linux")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What running a pipeline gave, and what it took of this process.

    `wanted` is how many CPUs its threads had or waited for on average, which others' load does not change.
    `requests` are the service's own statistics; empty where there is none.
    """

    result: Any
    seconds: float
    cpu_seconds: float
    wanted: float
    requests: Mapping[str, int]


def _measured(name: str, *, scale: float = 0.2, workers: int | None = None, seed: int = 1) -> Measured:
    module = importlib.import_module(f"examples.pathologies.{name}")
    chosen = pathology_of(name)
    with (
        chosen.inputs(Amount(scale=scale, seed=seed)) as inputs,
        FutureAdapter(workers or chosen.workers, name, tracing=False, registry=CollectorRegistry()) as adapter,
    ):
        driver = build_driver(module, adapter)
        wanted, cpu, clock = _processor_seconds_wanted(), time.process_time(), time.perf_counter()
        result = driver.execute([chosen.output], inputs=dict(inputs))[chosen.output]
        seconds = time.perf_counter() - clock
        url = inputs.get("service_url")
        return Measured(
            result=result,
            seconds=seconds,
            cpu_seconds=time.process_time() - cpu,
            wanted=(_processor_seconds_wanted() - wanted) / seconds,
            requests=fetch(url, "/statistics") if url else {},
        )


def _processor_seconds_wanted() -> float:
    """What this process' threads ran, and what they waited for a CPU."""
    total_ns = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        ran_ns, waited_ns, _ = task.read_text().split()
        total_ns += int(ran_ns) + int(waited_ns)
    return total_ns / 1e9


@pytest.fixture
def patient_threads() -> Iterator[None]:
    """Threads that wait for the GIL do nothing but wait.

    Usually each wakes up every 5 ms to ask for it, and where others use the CPUs it waits for one each time.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.measures
@pytest.mark.slow
@needs_gil
@needs_proc
def test_parsing_logs_on_eight_threads_takes_one_processor(no_thread_left: None, patient_threads: None) -> None:
    """Eight threads compute, and all of them together never want more than about one CPU."""
    measured = _measured("gil_bound")

    assert 0.6 < measured.wanted < 1.7
    assert measured.cpu_seconds < 1.3 * measured.seconds
    assert len(measured.result) == 5


@pytest.mark.measures
@pytest.mark.slow
@needs_proc
def test_the_backup_wants_more_processors_than_it_may_have(no_thread_left: None) -> None:
    """Twelve threads want several CPUs at once: nothing but CPUs keeps them apart."""
    measured = _measured("cpu_starved")

    assert measured.wanted > 3
    assert len(measured.result) == 12


@pytest.mark.measures
@needs_proc
def test_price_lists_are_waited_for_side_by_side(no_thread_left: None) -> None:
    """The requests are under way at once, and this process has next to nothing to do."""
    measured = _measured("slow_network", scale=0.5)

    assert measured.requests["at_once"] >= 8
    assert measured.requests["answered"] == 1 + 10 * 2 + 1 + 1
    assert measured.cpu_seconds < 0.4 * measured.seconds


@pytest.mark.slow
def test_each_payment_is_synced_to_the_disk(monkeypatch: pytest.MonkeyPatch, no_thread_left: None) -> None:
    """There is an fsync for each payment, and the kernel has sent that many bytes to the disk, if it is one."""
    synced: Counter[str] = Counter()
    real_fsync = os.fsync

    def fsync(file: int) -> None:
        synced[threading.current_thread().name.partition("_")[0]] += 1
        real_fsync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    payments: dict[str, int] = {}
    real_shares = Amount.shares

    def shares(amount: Amount, members: tuple[str, ...], at_scale_one: float) -> dict[str, int]:
        payments.update(real_shares(amount, members, at_scale_one))
        return payments

    monkeypatch.setattr(Amount, "shares", shares)
    written = _bytes_written()
    measured = _measured("slow_disk", scale=0.1)
    written = _bytes_written() - written

    assert sorted(measured.result) == sorted(payments) == sorted(slow_disk.BRANCHES)
    assert synced["slow"] == sum(payments.values())  # by the workers, whose names start with the pipeline's
    if _syncs_take_time():
        assert written >= sum(payments.values()) * slow_disk.BLOCK_BYTES


def _bytes_written() -> int:
    """What this process has caused to be sent to disks; 0 where nobody knows."""
    accounts = Path("/proc/self/io")
    return int(re.findall(r"^write_bytes: (\d+)", accounts.read_text(), re.M)[0]) if accounts.exists() else 0


def _syncs_take_time() -> bool:
    with TemporaryDirectory(dir=slow_disk._on_a_disk()) as folder:
        times = slow_disk._append_seconds(Path(folder) / "journal", appends=5)
    return ON_LINUX and min(times) > slow_disk.REAL_DISK_SECONDS


def test_a_journal_keeps_its_latest_payments(tmp_path: Path) -> None:
    """It is a ring: what came first is overwritten, and the audit sees what is left."""
    journal = slow_disk.Journal(tmp_path / "journal")
    for cents in range(1, slow_disk.BLOCKS + 11):
        journal.append(cents)
    journal.close()

    assert slow_disk.audit_of_branch(tmp_path / "journal") == (
        slow_disk.BLOCKS,
        sum(range(11, slow_disk.BLOCKS + 11)),
    )


def test_a_journal_with_a_hole_is_refused(tmp_path: Path) -> None:
    journal = slow_disk.Journal(tmp_path / "journal")
    for cents in range(3):
        journal.append(cents)
    journal.close()
    with (tmp_path / "journal").open("r+b") as file:
        file.seek(slow_disk.BLOCK_BYTES)
        file.write(slow_disk.PAYMENT.pack(99, 1))

    with pytest.raises(ValueError, match="journal does not hold its 3 latest payments up to 99"):
        slow_disk.audit_of_branch(tmp_path / "journal")


def test_the_geocoder_is_never_asked_by_two_at_once(no_thread_left: None) -> None:
    """Eight threads ask forty times, and the service never sees two requests at the same time."""
    measured = _measured("lock_convoy", scale=0.1)

    assert measured.requests == {"answered": 40, "refused": 0, "under_way": 0, "at_once": 1}
    assert len(measured.result) == 8


def test_two_workers_wait_for_two_stations_at_a_time(no_thread_left: None) -> None:
    assert _measured("pool_starved", scale=0.1).requests["at_once"] == 2


def test_with_a_worker_for_each_station_all_are_waited_for(no_thread_left: None) -> None:
    """The cure cures: the same program with more workers has that many requests under way."""
    assert _measured("pool_starved", scale=2, workers=24).requests["at_once"] > 12


@pytest.mark.measures
def test_the_billing_client_sleeps_where_nobody_sees_it(monkeypatch: pytest.MonkeyPatch, no_thread_left: None) -> None:
    """Each invoice is refused three times, and its thread sleeps in between: most of the run."""
    pauses: dict[str, list[float]] = defaultdict(list)
    real_sleep = time.sleep

    def sleep(seconds: float) -> None:
        pauses[threading.current_thread().name].append(seconds)
        real_sleep(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    measured = _measured("hidden_sleep", scale=1)
    of_workers = [slept for name, slept in pauses.items() if name.startswith("hidden_sleep")]

    assert (measured.requests["refused"], measured.requests["answered"]) == (24, 8)
    assert sum(map(len, of_workers)) == 24
    assert max(map(sum, of_workers)) > 0.4 * measured.seconds
    assert measured.cpu_seconds < 0.5 * measured.seconds


@pytest.mark.measures
@pytest.mark.slow
@needs_gil
@needs_proc
def test_the_newspapers_compute_on_one_processor_and_wait_as_well(no_thread_left: None, patient_threads: None) -> None:
    measured = _measured("mixed", scale=0.4)

    assert measured.requests["answered"] == 6 + 6 * 3
    assert 0.15 < measured.wanted < 1.7
    assert measured.result.startswith("The ")


@pytest.mark.measures
@pytest.mark.slow
@needs_proc
def test_the_archives_take_less_than_two_processors_and_keep_the_service_busy(no_thread_left: None) -> None:
    measured = _measured("healthy")

    assert measured.requests["answered"] == 3 * 6
    assert measured.requests["at_once"] <= 3
    assert measured.wanted < 3
    assert measured.result.keys() == {"letters", "maps", "prints"}


# What holds for all of them


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_small_pipeline_that_tells_its_fault_and_cure(name: str) -> None:
    module = importlib.import_module(f"examples.pathologies.{name}")
    with FutureAdapter(1, tracing=False, registry=CollectorRegistry()) as adapter:
        variables = build_driver(module, adapter).list_available_variables()
    nodes = [variable.name for variable in variables if not variable.is_external_input]
    summary, *paragraphs = text_of(name).split("\n\n")

    assert 6 <= len(nodes) <= 40
    assert pathology_of(name).output in nodes
    assert "\n" not in summary
    assert paragraphs[1].startswith("The cure: ")
    if name != "healthy":
        assert paragraphs[0].startswith("What is wrong")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "slow_disk"])  # whose length is measured
def test_a_seed_decides_what_comes_out(name: str) -> None:
    """The same seed gives the same on any number of workers, another seed something else."""
    once, again, other = (
        _measured(name, scale=0.03, workers=workers, seed=seed).result for workers, seed in ((2, 7), (5, 7), (5, 8))
    )

    assert once == again
    assert once != other


def test_shares_are_around_the_even_one() -> None:
    amount = Amount(scale=2.0, seed=3)
    shares = amount.shares(NAMES, 100)

    assert list(shares) == list(NAMES)
    assert all(150 <= share <= 250 for share in shares.values())
    assert shares == Amount(scale=2.0, seed=3).shares(NAMES, 100) != Amount(scale=2.0, seed=4).shares(NAMES, 100)
    assert Amount(scale=0.001, seed=3).count(2) == 1


@pytest.mark.parametrize("module", [pathology, says], ids=lambda module: module.__name__)
def test_the_examples_in_docstrings_are_right(module: Any) -> None:
    results = doctest.testmod(module)

    assert results.attempted > 0
    assert results.failed == 0


# The service


def test_the_service_answers_the_same_for_the_same_path_and_refuses_first() -> None:
    with running_service({"quotes": 0.001}, seed=5, refusals=1) as url:
        connection = connect(url)
        first = ask(connection, "/quotes/alder?figures=3&words=2")
        second = ask(connection, "/quotes/alder?figures=3&words=2")
        third = ask(connection, "/quotes/alder?figures=3&words=2")
        connection.close()
        with pytest.raises(ServiceError, match=r"/quotes/birch answered 429, expected 200"):
            fetch(url, "/quotes/birch")
        statistics = fetch(url, "/statistics")

    assert first == (429, {"error": "too many requests"})
    assert second == third
    assert second[0] == 200
    assert (len(second[1]["figures"]), len(second[1]["text"].split())) == (3, 2)
    assert statistics == {"answered": 2, "refused": 2, "under_way": 0, "at_once": 1}


def test_a_service_that_does_not_start_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(3)")
    monkeypatch.setattr(service, "_PROGRAM", broken)

    with (
        pytest.raises(ServiceError, match=r"broken\.py ended before it listened, with status 3"),
        running_service({}, seed=1),
    ):
        pytest.fail("there is no service")
