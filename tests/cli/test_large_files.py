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
def test_twenty_thousand_spans(tmp_path: Path) -> None:
    """A file of many runs: the longest is explained within 10 KB a span, as a hundred thousand are in a gigabyte."""
    runs = [layered_run(200, workers=8, layers=20, seed=seed, run_id=f"run-{seed}") for seed in range(100)]
    longest = max(range(100), key=lambda number: runs[number].duration_ns)
    trace = write_trace(tmp_path / "large.jsonl", *runs)
    printed, kilobytes = _measured("explain", trace, timeout=150)
    assert f"run {longest + 1} of 100, the longest" in printed
    assert kilobytes < 200_000


@pytest.mark.slow
def test_one_run_of_twenty_thousand_nodes(tmp_path: Path) -> None:
    """It is explained within 10 KB a node too, and what is estimated is said to be."""
    trace = write_trace(tmp_path / "large.jsonl", layered_run(20_000, workers=40, layers=40))
    printed, kilobytes = _measured("explain", trace, timeout=150)
    assert "A run of 20,000 nodes is not replayed whole" in printed
    assert kilobytes < 200_000


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
        for line in range(75):
            spans = [{**foreign, "spanId": f"{line * 200 + number + 1:016x}"} for number in range(200)]
            file.write(json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": spans}]}]}) + "\n")
    assert trace.stat().st_size > 30_000_000
    _, among_others = _measured("explain", trace, "--json", timeout=150)
    assert among_others - alone < 25_000
