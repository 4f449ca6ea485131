"""The pathologies as their users run them, each in a process of its own: what they say and what they leave behind."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich", reason="the example needs the extra [demo]")
pytest.importorskip("opentelemetry.sdk", reason="the example needs the extra [demo]")


import traced_threadpool
from examples.pathologies import says
from examples.pathologies.pathology import NAMES
from tests.examples.pathology_facts import needs_gil, needs_proc, pathology_of, text_of
from traced_threadpool.analysis.diagnosis.causes import Cause
from traced_threadpool.analysis.diagnosis.diagnose import diagnose
from traced_threadpool.analysis.trace_file import read_runs
from traced_threadpool.model.recorded_run import RecordedRun

REPOSITORY = Path(__file__).parent.parent.parent
SOURCES = Path(traced_threadpool.__file__).parent.parent
PATIENCE = 90.0


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
        count = 0
        for pid in self.processes():
            with contextlib.suppress(FileNotFoundError):  # it has just ended
                count += len(list(Path(f"/proc/{pid}/task").iterdir()))
        return count

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
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    """Runs a program once for all tests that look at it."""

    @functools.cache
    def run(name: str, scale: str = "") -> Ran:
        folder = tmp_path_factory.mktemp(name)
        # Where everybody wants the GIL from the start, the sampler takes a while to find it.
        scale = scale or ("1" if name == "gil_bound" else "0.3")
        with _started(folder, f"pathologies.{name}", "--scale", scale, "--trace", "trace.jsonl") as program:
            ended = program.end()
        assert ended.status == 0, ended.errors
        *before, recorded = read_runs(folder / "trace.jsonl")
        assert len(before) == bool(pathology_of(name).on_processes)  # a run that starts them
        return Ran(ended=ended, run=recorded)

    return run


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("name", NAMES)
def test_a_program_says_what_was_recorded_and_leaves_nothing(name: str, ran: Callable[..., Ran]) -> None:
    """It ends well and prints its tables; no process, no file and no warning is left."""
    ended, run = ran(name, "0.03").ended, ran(name, "0.03").run

    assert (ended.status, ended.errors, ended.files, ended.processes) == (0, "", [], [])
    assert ended.printed.startswith(f"{name}: {text_of(name)}\n")
    for title in (
        "The run",
        "Where the nodes' time went",
        "The slowest nodes",
        "First finding: ",
        "Trace, as OTLP/JSON lines: ",
    ):
        assert title in ended.printed
    assert (run.name, run.outcome, run.max_workers) == (name, "success", pathology_of(name).workers)
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
    "transfer_bound": ["transfer"],
}


def _seconds_by_cause(run: RecordedRun) -> dict[str, float]:
    return says.seconds_by_state(run.nodes) | {"queue": says.queued_seconds(run)}


def _told_apart(run: RecordedRun) -> RecordedRun:
    if run.attribution != "process":
        pytest.skip(f"states are not told apart here: {run.attribution_reason}")
    return run


@pytest.mark.measures
@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("name", PLANTED)
def test_most_time_is_lost_where_it_was_planted(name: str, ran: Callable[..., Ran]) -> None:
    """Of all states and the queue, the planted one has most of the nodes' time.

    Waiting for a CPU is left out where it was not planted: whoever else uses them has a part in it.
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
    "transfer_bound": {"transfer_bound"},
    "mixed": {"gil_bound", "lock_contention", "slow_network"},
    "healthy": {"healthy"},
}


@pytest.mark.measures
@pytest.mark.slow
@needs_gil
@needs_proc
@pytest.mark.parametrize("name", NAMES)
def test_the_first_finding_names_what_was_planted(name: str, ran: Callable[..., Ran]) -> None:
    """On a machine that others use too, CPUs they have may be what helps most: that is right, and left out.

    A run that others held up is not a healthy one.
    """
    run = _told_apart(ran(name).run)
    found = [finding.cause for finding in diagnose(run).findings]
    others = _waiting_for_a_processor(run)
    if name != "cpu_starved" and others > 0.2:
        found = [cause for cause in found if cause != "processor_starved"]
        if not found or (name == "healthy" and found[0] not in DIAGNOSED[name]):
            pytest.skip(f"the machine is too busy: {others:.0%} of the nodes' time is waiting for a CPU")

    assert found[0] in DIAGNOSED[name], found


@pytest.mark.measures
@pytest.mark.slow
@needs_gil
@needs_proc
def test_all_three_faults_of_the_mixed_one_are_seen(ran: Callable[..., Ran]) -> None:
    """GIL, network and lock are what its nodes wait for most, next to a CPU that others may be using."""
    seconds = _seconds_by_cause(_told_apart(ran("mixed").run))
    for on_a_processor in ("cpu", "runqueue"):
        seconds.pop(on_a_processor, None)

    assert set(sorted(seconds, key=lambda cause: -seconds[cause])[:3]) == {"gil", "network", "lock"}, seconds


@pytest.mark.measures
@pytest.mark.slow
@needs_proc
def test_the_healthy_one_waits_for_the_network_and_computes(ran: Callable[..., Ran]) -> None:
    """Nothing else takes a large part, and no node a large part of the run; others may use the CPUs.

    Who waits for a CPU while it has the GIL or a worker makes all wait who want those: what such a run says of
    its health is not the program's.
    """
    run = _told_apart(ran("healthy").run)
    if (others := _waiting_for_a_processor(run)) > 0.2:
        pytest.skip(f"the machine is too busy: {others:.0%} of the nodes' time is waiting for a CPU")
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

    assert (ended.status, ended.errors) == (130, f"{name}: interrupted\n"), ended.printed
    assert (ended.files, ended.processes) == ([], [])


@pytest.mark.slow
@needs_proc
def test_interrupting_all_of_them_ends_the_one_that_runs(tmp_path: Path) -> None:
    """The first is so long that it still runs where this test gets to its signal seconds late."""
    with _started(tmp_path, "pathologies", "all", "--scale", "5") as program:
        _until(lambda: program.threads() > 10, "nothing gets under way")
        program.interrupt()
        ended = program.end()

    expected = (130, f"{NAMES[0]}: interrupted\npathologies: interrupted\n")
    assert (ended.status, ended.errors) == expected, ended.printed
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
    runs = read_runs(tmp_path / "trace.jsonl")  # with processes there are two: the first starts them
    assert [name for name, _ in itertools.groupby(run.name for run in runs)] == list(NAMES)
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
