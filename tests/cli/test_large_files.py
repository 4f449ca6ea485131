"""Large files: how much memory a command takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.analysis.synthetic_runs import layered_run, write_trace

pytest.importorskip("click", reason="needs the extra [report]")
pytest.importorskip("rich", reason="needs the extra [report]")


from tests.cli.program import environment

_MEASURED = (
    "import re, resource, sys; from pathlib import Path; from traced_threadpool.cli import program as cli; "
    "status = cli.main(sys.argv[1:]); "
    # What `getrusage` tells on Linux is that of the process that started this one, where that had more.
    "own = Path('/proc/self/status'); found = own.exists() and re.search(r'VmHWM:\\s+(\\d+) kB', own.read_text()); "
    "peak = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
    "print(peak, file=sys.stderr); sys.exit(status)"
)


def _measured(*words: object, timeout: float) -> tuple[str, int]:
    """What a command prints, and the most memory that it took, in kilobytes."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *map(str, words)],
        capture_output=True,
        env=environment(),
        timeout=timeout,
        check=True,
    )
    return done.stdout.decode(), int(done.stderr.split()[-1])


@pytest.mark.slow
def test_a_hundred_thousand_spans(tmp_path: Path) -> None:
    """A file of a hundred runs: the longest is explained in seconds, within a gigabyte."""
    runs = (layered_run(1_000, workers=8, layers=20, seed=seed, run_id=f"run-{seed}") for seed in range(100))
    trace = write_trace(tmp_path / "large.jsonl", *runs)
    printed, kilobytes = _measured("explain", trace, timeout=270)  # it takes 6 s on an idle machine
    assert "run 63 of 100, the longest" in printed
    assert kilobytes < 1_000_000


@pytest.mark.slow
def test_one_run_of_a_hundred_thousand_nodes(tmp_path: Path) -> None:
    """It is explained in seconds too, within a gigabyte, and what is estimated is said to be."""
    trace = write_trace(tmp_path / "large.jsonl", layered_run(100_000, workers=40, layers=200))
    printed, kilobytes = _measured("explain", trace, timeout=270)  # it takes 9 s on an idle machine
    assert "A run of 100,000 nodes is not replayed whole" in printed
    assert kilobytes < 1_000_000


@pytest.mark.slow
def test_a_file_of_many_runs_takes_no_more_memory_than_what_is_kept_of_it(tmp_path: Path) -> None:
    """Other services' spans, ten times as many as ours, leave nothing behind: a line is forgotten once it is read."""
    run = layered_run(500)
    trace = write_trace(tmp_path / "small.jsonl", run)
    _, alone = _measured("explain", trace, "--json", timeout=150)
    foreign = {
        "traceId": "f" * 32,
        "parentSpanId": "1" * 16,
        "name": "GET /",
        "startTimeUnixNano": "1760000000000000000",
        "endTimeUnixNano": "1760000000000001000",
        "attributes": [{"key": f"http.{number}", "value": {"stringValue": "x" * 50}} for number in range(20)],
    }
    with trace.open("a") as file:
        for line in range(150):
            spans = [{**foreign, "spanId": f"{line * 200 + number + 1:016x}"} for number in range(200)]
            file.write(json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": spans}]}]}) + "\n")
    assert trace.stat().st_size > 60_000_000
    _, among_others = _measured("explain", trace, "--json", timeout=150)
    assert among_others - alone < 40_000
