"""The pathologies: what is planted is really there, the programs say so and leave nothing behind."""

from __future__ import annotations

import doctest
import functools
import importlib
import io
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

pytest.importorskip("rich", reason="the example needs the extra [demo]")
pytest.importorskip("opentelemetry.sdk", reason="the example needs the extra [demo]")

from rich.console import Console

import traced_threadpool
from examples.pathologies import pathology, says, service, slow_disk
from examples.pathologies.__main__ import main as main_of_all
from examples.pathologies.demonstration import build_driver
from examples.pathologies.options import Options, as_words, parse_options
from examples.pathologies.pathology import NAMES, Amount, Pathology
from examples.pathologies.service import ServiceError, ask, connect, fetch, running_service
from traced_threadpool import FutureAdapter
from traced_threadpool.analysis.diagnosis.causes import Cause
from traced_threadpool.analysis.diagnosis.diagnose import diagnose
from traced_threadpool.analysis.trace_file import read_runs
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun

REPOSITORY = Path(__file__).parent.parent.parent
SOURCES = Path(traced_threadpool.__file__).parent.parent
PATIENCE = 90.0

ON_LINUX = sys.platform.startswith("linux")
needs_proc = pytest.mark.skipif(not ON_LINUX, reason="looks at processes through /proc")
needs_gil = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="there is no GIL to wait for"
)


# The pipelines, in this process, without telemetry: what is planted, by independent measures


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What running a pipeline gave, and what it took of this process.

    `wanted` is how many processors its threads had or waited for on average, which others' load does not change.
    `requests` are the service's own statistics; empty where there is none.
    """

    result: Any
    seconds: float
    cpu_seconds: float
    wanted: float
    requests: Mapping[str, int]


def _pathology(name: str) -> Pathology:
    found: Pathology = importlib.import_module(f"examples.pathologies.{name}").PATHOLOGY
    return found


def _text(name: str) -> str:
    """What the module says of itself."""
    return (importlib.import_module(f"examples.pathologies.{name}").__doc__ or "").strip()


def _measured(name: str, *, scale: float = 0.2, workers: int | None = None, seed: int = 1) -> Measured:
    module = importlib.import_module(f"examples.pathologies.{name}")
    chosen = _pathology(name)
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
    """What this process' threads ran, and what they waited for a processor."""
    total_ns = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        ran_ns, waited_ns, _ = task.read_text().split()
        total_ns += int(ran_ns) + int(waited_ns)
    return total_ns / 1e9


@pytest.fixture
def patient_threads() -> Iterator[None]:
    """Threads that wait for the GIL do nothing but wait.

    Usually each wakes up every 5 ms to ask for it, and where others use the processors it waits for one each time.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.slow
@needs_gil
@needs_proc
def test_parsing_logs_on_eight_threads_takes_one_processor(no_thread_left: None, patient_threads: None) -> None:
    """Eight threads compute, and all of them together never want more than about one processor."""
    measured = _measured("gil_bound")

    assert 0.6 < measured.wanted < 1.7
    assert measured.cpu_seconds < 1.3 * measured.seconds
    assert len(measured.result) == 5


@pytest.mark.slow
@needs_proc
def test_the_backup_wants_more_processors_than_it_may_have(no_thread_left: None) -> None:
    """Twelve threads want several processors at once: nothing but processors keeps them apart."""
    measured = _measured("cpu_starved")

    assert measured.wanted > 3
    assert len(measured.result) == 12


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


@pytest.mark.slow
@needs_gil
@needs_proc
def test_the_newspapers_compute_on_one_processor_and_wait_as_well(no_thread_left: None, patient_threads: None) -> None:
    measured = _measured("mixed", scale=0.4)

    assert measured.requests["answered"] == 6 + 6 * 3
    assert 0.15 < measured.wanted < 1.7
    assert measured.result.startswith("The ")


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
    summary, *paragraphs = _text(name).split("\n\n")

    assert 6 <= len(nodes) <= 40
    assert _pathology(name).output in nodes
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


# What is printed of a run

SECOND = 1_000_000_000
PARSE = NodeExecution(
    key="a",
    name="parse",
    submitted_ns=0,
    ready_ns=0,
    started_ns=SECOND // 2,
    ended_ns=3 * SECOND,
    states={"cpu": SECOND // 2, "gil": 2 * SECOND},
)
RUN = RecordedRun(
    id="1",
    name="run [bold]",
    pool="pool",
    started_ns=0,
    ended_ns=3 * SECOND,
    nodes=(PARSE,),
    max_workers=4,
    processors=2,
    attribution="process",
    gil_holders={"merge": SECOND // 4, "thread:exporter": SECOND},
    problems=("Spans of [3] nodes are missing.",),
)


def _shown(run: RecordedRun) -> list[list[str]]:
    """The words of each line, without the tables' rules."""
    console = Console(file=io.StringIO(), width=120)
    for said in says.what_the_tool_says(run):
        console.print(said)
    printed = console.file
    assert isinstance(printed, io.StringIO)
    return [re.findall(r"[^\s│┃]+", line) for line in printed.getvalue().splitlines() if re.search(r"\w", line)]


def test_states_queue_wait_and_gil_holders_are_shown() -> None:
    lines = _shown(RUN)

    assert ["workers", "at", "most", "4"] in lines
    assert ["states", "told", "apart", "by", "process"] in lines
    assert ["cpu", "500.0", "ms", "20%"] in lines
    assert ["gil", "2.00", "s", "80%"] in lines
    assert ["disk", "0", "us", "0%"] in lines
    assert ["in", "the", "queue,", "before", "500.0", "ms"] in lines
    assert ["parse", "2.50", "s", "500.0", "ms", "gil", "2.00", "s,", "cpu", "500.0", "ms"] in lines
    assert lines.index(["thread:exporter", "1.00", "s"]) + 1 == lines.index(["merge", "250.0", "ms"])
    assert ["Spans", "of", "[3]", "nodes", "are", "missing."] in lines
    assert any(line[:2] == ["First", "finding:"] for line in lines)


def test_what_nobody_could_tell_apart_is_unknown() -> None:
    parse = NodeExecution(
        key="a", name="parse", submitted_ns=0, ready_ns=0, started_ns=0, ended_ns=SECOND, states={"cpu": SECOND}
    )
    run = RecordedRun(
        id="1",
        name="run",
        pool="pool",
        started_ns=0,
        ended_ns=SECOND,
        nodes=(parse,),
        attribution="none",
        attribution_reason="no_proc",
    )
    lines = _shown(run)

    assert ["states", "told", "apart", "by", "none", "(no_proc)"] in lines
    assert ["cpu", "1.00", "s", "100%"] in lines
    assert ["gil", "unknown"] in lines
    assert ["workers", "at", "most", "unknown"] in lines


# The command line


def test_options_survive_the_way_to_another_process() -> None:
    for options in (
        Options(scale=1.0, workers=None, seed=1, trace=None),
        Options(scale=0.25, workers=3, seed=-7, trace=Path("with blank.jsonl")),
    ):
        assert parse_options("mixed", as_words(options)) == options
    assert parse_options("mixed", []) == Options(scale=1.0, workers=None, seed=1, trace=None)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--scale", "0"], "argument --scale: '0' is not a number above 0 and up to 100"),
        (["--scale", "nan"], "argument --scale: 'nan' is not a number above 0 and up to 100"),
        (["--scale", "inf"], "argument --scale: 'inf' is not a number above 0 and up to 100"),
        (["--scale", "much"], "argument --scale: 'much' is not a number above 0 and up to 100"),
        (["--workers", "0"], "argument --workers: '0' is not a whole number of 1 or more"),
        (["--workers", "1.5"], "argument --workers: '1.5' is not a whole number of 1 or more"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options("mixed", words)

    assert ended.value.code == 2
    assert capsys.readouterr().err == f"mixed: {complaint}\n"


def test_a_program_that_does_not_exist_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main_of_all(["slow_coffee"])

    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("pathologies: argument program: invalid choice: 'slow_coffee' (choose from ")
    assert error.count("\n") == 1


def test_without_a_word_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_of_all([]) == 0

    printed = capsys.readouterr().out
    listed = dict(re.findall(r"^(\w+) +(.+)\.$", printed, re.M))
    assert [name for name in listed if name in NAMES] == list(NAMES)
    assert all(_text(name).startswith(f"{listed[name]}.\n") for name in NAMES)


# The programs, each in a process of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A program that has ended, and what it left behind: files in its temporary folder, living processes."""

    status: int
    printed: str
    errors: str
    files: list[str]
    processes: list[int]


class Program:
    """A pathology as its user runs it, in surroundings where nothing that it leaves can hide."""

    def __init__(self, folder: Path, module: str, *words: str) -> None:
        self._temporary = folder / "temporary"
        self._temporary.mkdir(parents=True)
        self._mark = uuid.uuid4().hex
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        environment |= {
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(SOURCES)]),
            "PYTHONUTF8": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "150",
            "TMPDIR": str(self._temporary),
            "STARTED_BY_TEST": self._mark,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", f"examples.{module}", *words],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )

    def interrupt(self) -> None:
        """What Ctrl-C in a terminal does: SIGINT for the program and for all that it has started."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> Ended:
        """Wait for its end."""
        printed, errors = self.process.communicate(timeout=2.5 * PATIENCE)
        _until(lambda: not self.processes() or None, "processes are left")
        return Ended(
            status=self.process.returncode,
            printed=printed,
            errors=errors,
            files=sorted(str(path) for path in self._temporary.rglob("*")),
            processes=self.processes(),
        )

    def processes(self) -> list[int]:
        """It and all its descendants that live, by the mark in their environment."""
        mark = f"STARTED_BY_TEST={self._mark}".encode()
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in environ.read_bytes().split(b"\0"):
                    found.append(int(environ.parent.name))
            except OSError:  # it has just ended, or is not ours
                continue
        return found

    def threads(self) -> int:
        """How many they have, it and all its descendants."""
        return sum(len(list(Path(f"/proc/{pid}/task").glob("*"))) for pid in self.processes())

    def files_open(self) -> list[str]:
        """What it has open, by name."""
        found = []
        for descriptor in Path(f"/proc/{self.process.pid}/fd").glob("*"):
            try:
                found.append(str(descriptor.readlink()))
            except OSError:
                continue
        return found


def _until(ready: Callable[[], Any], otherwise: str) -> Any:
    """What `ready` gives once it gives something."""
    for _ in range(int(PATIENCE / 0.02)):
        if found := ready():
            return found
        time.sleep(0.02)
    pytest.fail(otherwise)


@contextmanager
def _started(folder: Path, module: str, *words: str) -> Iterator[Program]:
    program = Program(folder, module, *words)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.process.kill()
            program.process.communicate()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One whole program, with its trace."""

    ended: Ended
    run: RecordedRun


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ran]:
    """Runs a program once for all tests that look at it."""

    @functools.cache
    def run(name: str) -> Ran:
        folder = tmp_path_factory.mktemp(name)
        # Where everybody wants the GIL from the start, the sampler takes a while to find it.
        scale = "1" if name == "gil_bound" else "0.3"
        with _started(folder, f"pathologies.{name}", "--scale", scale, "--trace", "trace.jsonl") as program:
            ended = program.end()
        assert ended.status == 0, ended.errors
        [recorded] = read_runs(folder / "trace.jsonl")
        return Ran(ended=ended, run=recorded)

    return run


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("name", NAMES)
def test_a_program_says_what_was_recorded_and_leaves_nothing(name: str, ran: Callable[[str], Ran]) -> None:
    """It ends well and prints its tables; no process, no file and no warning is left."""
    ended, run = ran(name).ended, ran(name).run

    assert (ended.status, ended.errors, ended.files, ended.processes) == (0, "", [], [])
    assert ended.printed.startswith(f"{name}: {_text(name)}\n")
    for title in (
        "The run",
        "Where the nodes' time went",
        "The slowest nodes",
        "First finding: ",
        "Trace, as OTLP/JSON lines: ",
    ):
        assert title in ended.printed
    assert (run.name, run.outcome, run.max_workers) == (name, "success", _pathology(name).workers)
    assert {node.outcome for node in run.nodes} == {"success"}
    assert run.problems == ()


# What must be largest, of the states of all nodes and the time in the queue
PLANTED = {
    "gil_bound": ["gil"],
    "cpu_starved": ["runqueue"],
    "slow_network": ["network"],
    "slow_disk": ["disk"],
    "lock_convoy": ["lock"],
    "pool_starved": ["queue"],
    "hidden_sleep": ["sleep"],
}


def _seconds_by_cause(run: RecordedRun) -> dict[str, float]:
    return says.seconds_by_state(run.nodes) | {"queue": says.queued_seconds(run)}


def _told_apart(run: RecordedRun) -> RecordedRun:
    if run.attribution != "process":
        pytest.skip(f"states are not told apart here: {run.attribution_reason}")
    return run


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("name", PLANTED)
def test_most_time_is_lost_where_it_was_planted(name: str, ran: Callable[[str], Ran]) -> None:
    """Of all states and the queue, the planted one has most of the nodes' time.

    Waiting for a processor is left out where it was not planted: whoever else uses them has a part in it.
    """
    seconds = _seconds_by_cause(_told_apart(ran(name).run))
    if PLANTED[name] != ["runqueue"]:
        seconds.pop("runqueue", None)

    assert [max(seconds, key=lambda cause: seconds[cause])] == PLANTED[name], seconds


def _waiting_for_a_processor(run: RecordedRun) -> float:
    """As a share of the nodes' time."""
    return sum(node.states.get("runqueue", 0) for node in run.nodes) / sum(node.duration_ns for node in run.nodes)


# What the first finding may say
DIAGNOSED: dict[str, set[Cause]] = {
    "gil_bound": {"gil_bound"},
    "cpu_starved": {"processor_starved"},
    "slow_network": {"slow_network"},
    "slow_disk": {"slow_disk"},
    "lock_convoy": {"lock_contention"},
    "pool_starved": {"pool_too_small"},
    "hidden_sleep": {"sleeping_node"},
    "mixed": {"gil_bound", "lock_contention", "slow_network"},
    "healthy": {"healthy"},
}


@pytest.mark.slow
@needs_gil
@needs_proc
@pytest.mark.parametrize("name", NAMES)
def test_the_first_finding_names_what_was_planted(name: str, ran: Callable[[str], Ran]) -> None:
    """On a machine that others use too, processors they have may be what helps most: that is right, and left out.

    A run that others held up is not a healthy one.
    """
    run = _told_apart(ran(name).run)
    found = [finding.cause for finding in diagnose(run).findings]
    others = _waiting_for_a_processor(run)
    if name != "cpu_starved" and others > 0.2:
        found = [cause for cause in found if cause != "processor_starved"]
        if not found or (name == "healthy" and found[0] not in DIAGNOSED[name]):
            pytest.skip(f"the machine is too busy: {others:.0%} of the nodes' time is waiting for a processor")

    assert found[0] in DIAGNOSED[name], found


@pytest.mark.slow
@needs_gil
@needs_proc
def test_all_three_faults_of_the_mixed_one_are_seen(ran: Callable[[str], Ran]) -> None:
    """GIL, network and lock are what its nodes wait for most, next to a processor that others may be using."""
    seconds = _seconds_by_cause(_told_apart(ran("mixed").run))
    for on_a_processor in ("cpu", "runqueue"):
        seconds.pop(on_a_processor, None)

    assert set(sorted(seconds, key=lambda cause: -seconds[cause])[:3]) == {"gil", "network", "lock"}, seconds


@pytest.mark.slow
@needs_proc
def test_the_healthy_one_waits_for_the_network_and_computes(ran: Callable[[str], Ran]) -> None:
    """Nothing else takes a large part, and no node a large part of the run; others may use the processors.

    Who waits for a processor while it has the GIL or a worker makes all wait who want those: what such a run says of
    its health is not the program's.
    """
    run = _told_apart(ran("healthy").run)
    if (others := _waiting_for_a_processor(run)) > 0.2:
        pytest.skip(f"the machine is too busy: {others:.0%} of the nodes' time is waiting for a processor")
    seconds = _seconds_by_cause(run)
    own = seconds["network"] + seconds["cpu"]

    assert max(seconds[cause] for cause in seconds.keys() - {"network", "cpu", "runqueue"}) < 0.2 * own, seconds
    assert seconds["queue"] < 0.2 * run.duration_ns / 1e9
    assert max(node.duration_ns - node.states.get("runqueue", 0) for node in run.nodes) < 0.3 * run.duration_ns


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("name", ["slow_network", "slow_disk", "gil_bound"])
def test_an_interrupted_program_takes_everything_with_it(name: str, tmp_path: Path) -> None:
    """Ctrl-C while nodes run: status 130, one line, and no service, temporary file or thread stays."""
    with _started(tmp_path, f"pathologies.{name}", "--scale", "0.6") as program:
        under_way: dict[str, Callable[[], bool]] = {
            "slow_network": lambda: sum("socket:" in file for file in program.files_open()) > 5,
            "slow_disk": lambda: any(file.endswith(".journal") for file in program.files_open()),
            "gil_bound": lambda: program.threads() > 8,
        }
        _until(under_way[name], f"{name} does not get under way")
        program.interrupt()
        ended = program.end()

    assert (ended.status, ended.errors) == (130, f"{name}: interrupted\n")
    assert (ended.files, ended.processes) == ([], [])


@pytest.mark.slow
@needs_proc
def test_interrupting_all_of_them_ends_the_one_that_runs(tmp_path: Path) -> None:
    with _started(tmp_path, "pathologies", "all") as program:
        _until(lambda: program.threads() > 10, "nothing gets under way")
        program.interrupt()
        ended = program.end()

    assert (ended.status, ended.errors) == (130, f"{NAMES[0]}: interrupted\npathologies: interrupted\n")
    assert (ended.files, ended.processes) == ([], [])


@pytest.mark.slow
@needs_proc
def test_the_service_ends_with_a_program_that_is_killed(tmp_path: Path) -> None:
    with _started(tmp_path, "pathologies.slow_network", "--scale", "5") as program:
        _until(lambda: sum("socket:" in file for file in program.files_open()) > 1, "no request is made")
        alive = program.processes()
        program.process.kill()
        ended = program.end()

    assert len(alive) >= 2
    assert (ended.status, ended.processes) == (-signal.SIGKILL, [])


@pytest.mark.slow
@needs_proc
def test_all_of_them_run_one_after_the_other_into_one_trace(tmp_path: Path) -> None:
    with _started(
        tmp_path, "pathologies", "all", "--scale", "0.03", "--trace", "trace.jsonl", "--seed", "4"
    ) as program:
        ended = program.end()

    assert (ended.status, ended.errors, ended.files, ended.processes) == (0, "", [], [])
    assert [run.name for run in read_runs(tmp_path / "trace.jsonl")] == list(NAMES)
    headings = [line.partition(":")[0] for line in ended.printed.splitlines() if re.match(r"\w+: ", line)]
    assert [heading for heading in headings if heading in NAMES] == list(NAMES)


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    ("trace", "complaint"),
    [
        (".", r"--trace '.*' is a directory; name a file in it, such as .*"),
        ("none/trace.jsonl", r"--trace '.*': there is no directory '.*/none'; create it, or name one that exists"),
    ],
)
def test_a_trace_that_cannot_be_written_is_one_line(trace: str, complaint: str, tmp_path: Path) -> None:
    with _started(tmp_path, "pathologies.pool_starved", "--scale", "0.1", "--trace", trace) as program:
        ended = program.end()

    assert (ended.status, ended.files, ended.processes) == (2, [], [])
    assert re.fullmatch(rf"pool_starved: {complaint}\n", ended.errors)


@pytest.mark.slow
@needs_proc
def test_workers_are_as_many_as_asked_for(tmp_path: Path) -> None:
    """`--workers 24` is the cure of the starved pool: what was queue wait before is gone."""
    with _started(
        tmp_path, "pathologies.pool_starved", "--scale", "0.4", "--workers", "24", "--trace", "t.jsonl"
    ) as program:
        assert program.end().status == 0
    [run] = read_runs(tmp_path / "t.jsonl")

    assert run.max_workers == 24
    longest = max(node.duration_ns for node in run.nodes)
    starts = sorted(node.started_ns for node in run.nodes if node.name.startswith("readings_"))
    assert sum(start < starts[0] + longest for start in starts) > 12
    assert len(list(itertools.takewhile(lambda node: node.queue_ns < longest, run.nodes))) == len(run.nodes)
