"""What the survey prints of its results and of its run, its options, and the program as its users run it."""

import dataclasses
import doctest
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

pytest.importorskip("rich", reason="the example needs the extra [demo]")
pytest.importorskip("opentelemetry.sdk", reason="the example needs the extra [demo]")

from rich.console import Console, RenderableType

from examples.plain_output import console
from examples.stdlib_survey import complexity, imports, run_summary, trace_lines
from examples.stdlib_survey.comparison import Comparison, compare, comparison_table
from examples.stdlib_survey.options import DEFAULT_PORT, Options, parse_options
from examples.stdlib_survey.records import SurveyReport, Totals
from examples.stdlib_survey.report import report_tables
from examples.stdlib_survey.run_summary import RunSummary, StageSummary, summarize, summary_tables, trace_tree
from examples.stdlib_survey.survey import build_driver, run_survey
from examples.stdlib_survey.trace_lines import NodeSpan, RunSpan, read_runs
from tests.analysis.synthetic_runs import layered_run, write_trace
from traced_threadpool.report.explanation import explain

REPOSITORY = Path(__file__).parent.parent.parent


# What is printed


def _shown(*rendered: RenderableType) -> str:
    console = Console(width=160, color_system=None, force_terminal=False)
    with console.capture() as capture:
        for item in rendered:
            console.print(item)
    return capture.get()


def test_the_report_has_a_table_for_each_of_its_lists(small_library: Path, catalogue_url: str, tmp_path: Path) -> None:
    report = run_survey(build_driver(), stdlib_root=small_library, catalogue_url=catalogue_url, work_directory=tmp_path)
    tables = report_tables(report)

    assert len(tables) == len(dataclasses.fields(SurveyReport))
    assert [table.row_count for table in tables] == [8, 5, 6, 3, 3, 8, 5, 1, 3]
    text = _shown(*tables)
    for expected in ("Till.open", "shop.till:8", "alone, twin", "unparsable", "Solitude", "notlatin"):
        assert expected in text


SECOND = 1_000_000_000


def _attribute(key: str, value: object) -> dict[str, Any]:
    kinds = {str: "stringValue", int: "intValue", float: "doubleValue"}
    return {"key": key, "value": {kinds[type(value)]: str(value) if type(value) is int else value}}


def _span(
    span_id: str,
    name: str,
    started: float,
    ended: float,
    attributes: dict[str, object],
    links: Sequence[str] = (),
) -> dict[str, Any]:
    return {
        "traceId": "a1" * 16,
        "spanId": span_id,
        "name": name,
        "startTimeUnixNano": str(int(started * SECOND)),
        "endTimeUnixNano": str(int(ended * SECOND)),
        "attributes": [_attribute(key, value) for key, value in attributes.items()],
        "links": [{"traceId": "a1" * 16, "spanId": linked} for linked in links],
        "status": {"code": 0},
    }


def _line(*spans: dict[str, Any]) -> str:
    return json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": spans}]}]})


TRACE = [
    _line(
        _span(
            "02",
            "load",
            10.5,
            11.5,
            {
                "hamilton.node.name": "load",
                "hamilton.run.id": "r",
                "hamilton.node.outcome": "success",
                "hamilton.node.queue.duration": 0.5,
                "hamilton.node.tag.stage": "read",
                "hamilton.node.cpu.duration": 0.25,
                "hamilton.node.wait.disk.duration": 0.75,
                "hamilton.node.wait.samples": 40,
            },
        ),
        _span("09", "GET", 10.6, 10.7, {"http.request.method": "GET"}),
    ),
    "",
    _line(
        _span(
            "03",
            "work",
            11.5,
            13.5,
            {
                "hamilton.node.name": "work",
                "hamilton.run.id": "r",
                "hamilton.node.outcome": "error",
                "hamilton.task.id": "expand-x.0.block-x",
            },
            links=["02", "ff"],
        ),
        _span(
            "04",
            "after",
            13.5,
            13.5,
            {
                "hamilton.node.name": "after",
                "hamilton.run.id": "r",
                "hamilton.node.outcome": "upstream_error",
            },
            links=["03"],
        ),
        _span(
            "01",
            "my run",
            10.0,
            14.0,
            {
                "hamilton.run.id": "r",
                "hamilton.run.outcome": "error",
                "hamilton.threadpool.workers.limit": 2,
            },
        ),
    ),
]

LOAD = NodeSpan(
    name="load",
    started_ns=int(10.5 * SECOND),
    ended_ns=int(11.5 * SECOND),
    outcome="success",
    queued_seconds=0.5,
    stage="read",
    state_seconds=(("cpu", 0.25), ("disk", 0.75)),
)
WORK = NodeSpan(
    name="work",
    started_ns=int(11.5 * SECOND),
    ended_ns=int(13.5 * SECOND),
    outcome="error",
    upstream=("load", "ff"),
    task="expand-x.0.block-x",
)
AFTER = NodeSpan(
    name="after",
    started_ns=int(13.5 * SECOND),
    ended_ns=int(13.5 * SECOND),
    outcome="upstream_error",
    upstream=("work",),
)
RUN = RunSpan(
    name="my run",
    trace_id="a1" * 16,
    started_ns=10 * SECOND,
    ended_ns=14 * SECOND,
    outcome="error",
    workers=2,
    nodes=(LOAD, WORK, AFTER),
)


def test_runs_are_read_from_lines_of_otlp_json() -> None:
    """Over several lines, in any order; a link that leads nowhere keeps its id, other spans are ignored."""
    assert read_runs(TRACE) == [RUN]


def test_a_run_that_has_not_ended_is_not_a_run_yet() -> None:
    assert read_runs(TRACE[:1]) == []


@pytest.mark.parametrize("line", ["{", "[]", '{"spans": []}'])
def test_a_line_that_is_something_else_is_named(line: str) -> None:
    with pytest.raises(ValueError, match=rf"line 2 of the trace is not OTLP/JSON .*{re.escape(repr(line))}"):
        read_runs([TRACE[0], line])


def test_a_run_is_summed_up_over_the_nodes_that_ran() -> None:
    assert summarize(RUN) == RunSummary(
        nodes=3,
        workers=2,
        seconds=4.0,
        node_seconds=3.0,
        parallelism=0.75,
        queued_p50_seconds=0.0,
        queued_p95_seconds=0.5,
        slowest=(WORK, LOAD),
        stages=(
            StageSummary(stage="", nodes=1, seconds=2.0, state_seconds={}),
            StageSummary(stage="read", nodes=1, seconds=1.0, state_seconds={"cpu": 0.25, "disk": 0.75}),
        ),
    )


def test_a_run_without_nodes_or_length_divides_by_nothing() -> None:
    empty = dataclasses.replace(RUN, nodes=(), ended_ns=RUN.started_ns)

    summary = summarize(empty)

    assert (summary.parallelism, summary.queued_p95_seconds, summary.slowest) == (0.0, 0.0, ())
    assert _shown(*summary_tables(summary))


def test_the_trace_is_a_tree_in_order_of_starts_with_links_by_name() -> None:
    assert _shown(trace_tree(RUN)) == (
        "my run  4.00 s  error  trace " + "a1" * 16 + "\n"
        "├── +500 ms  load  1.00 s  queued 500 ms  success\n"
        "├── +1.50 s  work  2.00 s  queued 0 s  error  <- load, ff\n"
        "└── +3.50 s  after  0 s  queued 0 s  upstream_error  <- work\n"
    )


def test_branches_of_one_node_are_told_apart_by_their_task() -> None:
    twice = dataclasses.replace(RUN, nodes=(WORK, dataclasses.replace(WORK, task="expand-x.1.block-x")))

    assert _shown(trace_tree(twice)).count("work  [expand-x.") == 2


def test_the_tables_of_a_run_show_its_states_and_slowest_nodes() -> None:
    text = _shown(*summary_tables(summarize(RUN)))

    headings = next(line for line in text.splitlines() if "stage" in line and "duration" in line)
    assert re.findall(r"\w+", headings) == ["stage", "nodes", "duration", "cpu", "disk"]
    assert re.search(r"read\W+1\W+1\.00 s\W+250 ms\W+750 ms", text)
    assert re.search(r"work\W+2\.00 s\W+0 s\W+50%", text)
    assert re.search(r"parallelism.*0\.75", text)


# Comparing, and the command line


def _empty_report(modules: int = 0) -> SurveyReport:
    totals = Totals(modules=modules, size_bytes=0, lines=0, functions=0, complexity=0, imports=0, problems=())
    return SurveyReport(
        totals=totals,
        packages=[],
        largest_modules=[],
        most_complex_functions=[],
        deepest_functions=[],
        import_hubs=[],
        compression=[],
        duplicates=[],
        documentation=[],
    )


def test_both_ways_take_turns_at_going_first_and_medians_are_compared() -> None:
    now = [0.0]
    calls: list[str] = []

    def taking(name: str, *seconds: float) -> Callable[[], SurveyReport]:
        durations = iter(seconds)

        def run() -> SurveyReport:
            calls.append(name)
            now[0] += next(durations)
            return _empty_report()

        return run

    comparison = compare(
        taking("hamilton", 4.0, 9.0, 3.0), taking("ours", 2.0, 1.0, 5.0), rounds=3, clock=lambda: now[0]
    )

    assert calls == ["ours", "hamilton", "hamilton", "ours", "ours", "hamilton"]
    assert comparison == Comparison(
        hamilton_seconds=(4.0, 9.0, 3.0), ours_seconds=(2.0, 1.0, 5.0), report=_empty_report()
    )
    assert comparison.ratio == 2.0
    assert re.search(r"ratio\W+2\.00\W+1", _shown(comparison_table(comparison)))


def test_ways_that_disagree_are_not_compared() -> None:
    with pytest.raises(RuntimeError, match="different reports"):
        compare(lambda: _empty_report(1), lambda: _empty_report(2), rounds=1)


def test_without_a_word_the_defaults_hold() -> None:
    assert parse_options([]) == Options(
        processes=0,
        workers=None,
        limit=0,
        parallelizable=False,
        upstream=False,
        results=False,
        serve=False,
        trace_file=Path("demo-trace.jsonl"),
        port=DEFAULT_PORT,
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--workers", "0"], "argument --workers: '0' is not a whole number of 1 or more"),
        (["--limit", "some"], "argument --limit: 'some' is not a whole number of 1 or more"),
        (["--port", "65536"], "argument --port: '65536' is not a whole number from 0 to 65535"),
        (
            ["--upstream", "--parallelizable"],
            "--upstream cannot go with --parallelizable: Hamilton's own adapter refuses such pipelines",
        ),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(words)

    assert ended.value.code == 2
    assert capsys.readouterr().err == f"stdlib_survey: {complaint}\n"


@pytest.mark.parametrize("module", [complexity, imports, run_summary, trace_lines], ids=lambda m: m.__name__)
def test_the_examples_in_docstrings_are_right(module: Any) -> None:
    results = doctest.testmod(module)

    assert results.attempted > 0
    assert results.failed == 0


# The program, in a process of its own: telemetry can be set up once in each


def _program(*words: str) -> "subprocess.Popen[str]":
    paths = [str(REPOSITORY), str(REPOSITORY / "src")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1", "COLUMNS": "150"}
    return subprocess.Popen(
        [sys.executable, "-m", "examples.stdlib_survey", *words],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to a single process")
def test_the_program_shows_its_run_serves_metrics_and_is_interrupted(tmp_path: Path) -> None:
    """Everything that is promised is printed, the trace can be read, /metrics answers, Ctrl-C gives 130."""
    trace_file = tmp_path / "trace.jsonl"
    with _program("--limit", "20", "--port", "0", "--serve", "--trace-file", str(trace_file)) as program:
        assert program.stdout is not None
        printed = []
        for line in program.stdout:
            printed.append(line)
            if "traced_threadpool report " in line:  # the last of what to try next
                break
        text = "".join(printed)
        metrics_url = re.search(r"http://127\.0\.0\.1:\d+/metrics", text)
        assert metrics_url is not None, text
        with urlopen(metrics_url.group(), timeout=10) as reply:
            metrics = reply.read().decode()
        program.send_signal(signal.SIGINT)
        rest, errors = program.communicate(timeout=150)

    assert (program.returncode, rest, errors) == (130, "", "\nstdlib_survey: interrupted\n")
    [run] = read_runs(trace_file.read_text(encoding="utf-8").splitlines())
    assert (run.name, run.outcome, len(run.nodes)) == ("stdlib_survey", "success", 46)
    assert {node.outcome for node in run.nodes} == {"success"}
    assert {node.name: set(node.upstream) for node in run.nodes}["surveys_1"] == {
        "sources_1",
        "digests_1",
        "measures_1",
    }
    for title in ("Import hubs", "The run as a whole", "Slowest nodes", "<- surveys_1, surveys_2", "Try next:"):
        assert title in text
    assert text.index("The run as a whole") < text.index("Import hubs"), "the run is shown first"
    assert "Duplicate files" not in text, "results are short unless --results is given"
    assert re.search(r'hamilton_nodes_total\{.*node="report",outcome="success".*\} 1\.0', metrics)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--trace-file", "{directory}"], r"--trace-file '.*' is a directory; name a file in it.*"),
        (["--trace-file", "{directory}/none/x"], r"--trace-file '.*': there is no directory.*"),
        (["--port", "{taken}"], r"--port \d+: 127\.0\.0\.1:\d+ is in use.*"),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    words: list[str], complaint: str, catalogue_url: str, tmp_path: Path
) -> None:
    taken = catalogue_url.rpartition(":")[2]
    given = [word.format(directory=tmp_path, taken=taken) for word in words]
    if "--trace-file" not in given:
        given += ["--trace-file", str(tmp_path / "trace.jsonl")]

    with _program("--port", "0", *given) as program:
        printed, errors = program.communicate(timeout=150)

    assert (program.returncode, printed) == (1, "")
    assert re.fullmatch(rf"stdlib_survey: {complaint}\n", errors)


def test_the_summary_has_the_page_s_median(tmp_path: Path) -> None:
    """Of an even number of queue waits, both take the lower one in the middle."""
    pytest.importorskip("jinja2", reason="needs the extra [report]")
    from traced_threadpool.report.page import page

    run = layered_run(60, workers=2)
    [found] = read_runs(write_trace(tmp_path / "trace.jsonl", run).read_text().splitlines())
    [shown] = re.findall(r"<dt>Queue wait, median</dt><dd>([^<]*)", page(explain(run)))
    assert re.search(rf"queue wait, median +│ +{re.escape(shown)} │", _shown(*summary_tables(summarize(found))))


def test_what_is_piped_has_no_blanks_at_the_ends_of_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Titles of tables are filled up to the table's width; a line that comes in parts is one line."""
    monkeypatch.delenv("COLUMNS", raising=False)
    to = console(80)
    to.print(*summary_tables(summarize(RUN)))
    to.print("begun   ", end="")
    to.print("ended   ")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "The run as a whole"
    assert lines[-1] == "begun   ended"
    assert [line for line in lines if line != line.rstrip()] == []
