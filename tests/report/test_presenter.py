"""A record shows itself, without the command line: `explain()`, `report(path)`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.analysis.synthetic_runs import layered_run

RUN = layered_run(30)


def test_an_explanation_prints_what_the_command_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the same run, but for the line that says where the command has it from."""
    pytest.importorskip("rich", reason="needs the extra [report]")
    from traced_threadpool.cli.program import main

    explanation = RUN.explain()
    RUN.save(tmp_path / "run.jsonl")
    assert main(["explain", str(tmp_path / "run.jsonl")]) == 0
    assert str(explanation).splitlines() == capsys.readouterr().out.splitlines()[1:]
    assert repr(explanation).startswith("<Explanation of etl: ")
    assert explanation.findings[0].nodes[0] in explanation._repr_html_()


def test_a_report_is_the_page_that_the_command_writes(tmp_path: Path) -> None:
    """And says where it is."""
    pytest.importorskip("jinja2", reason="needs the extra [report]")
    from traced_threadpool.cli.program import main

    RUN.save(tmp_path / "run.jsonl")
    assert main(["report", str(tmp_path / "run.jsonl"), "-o", str(tmp_path / "command.html")]) == 0
    written = RUN.report(tmp_path / "own.html")
    assert written == tmp_path / "own.html"
    # Nodes have other keys in a file, of which the page shows none.
    assert written.read_text() == (tmp_path / "command.html").read_text()


WITHOUT_EXTRAS = """
import sys

class Nothing:
    def find_spec(self, name, *others):
        if name.partition(".")[0] in ("rich", "jinja2", "click") or name.startswith("opentelemetry.sdk"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nothing())
import traced_threadpool
from traced_threadpool import *

node = traced_threadpool.analysis.NodeExecution(
    key="1", name="poll", submitted_ns=0, ready_ns=0, started_ns=0, ended_ns=3_000_000_000,
    states={"sleep": 3_000_000_000}, samples=99,
)
run = traced_threadpool.analysis.RecordedRun(
    id="r", name="etl", pool="p", started_ns=0, ended_ns=3_000_000_000, nodes=(node,)
)
run.save("run.jsonl")
print(len(traced_threadpool.analysis.read_runs("run.jsonl")))
print(run.explain())
for asked in (lambda: run.report("run.html"), lambda: traced_threadpool.OtlpFileSpanExporter):
    try:
        asked()
    except ImportError as error:
        print(error)
"""


def test_without_extras_a_record_is_explained_and_saved_and_the_rest_says_what_to_install(tmp_path: Path) -> None:
    """The core alone: findings without tables."""
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS], cwd=tmp_path, capture_output=True, text=True, timeout=150, check=True
    )
    lines = ran.stdout.splitlines()
    assert lines[:2] == ["1", "1. Sleeping: poll"]
    assert lines[-3].endswith("pip install 'traced_threadpool[report]')")
    assert lines[-2].endswith('pip install "traced_threadpool[report]"')
    assert lines[-1].endswith('pip install "traced_threadpool[otlp]"')
    assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]
