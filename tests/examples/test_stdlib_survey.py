"""The survey of the standard library: right about a small library, and the same however it is run."""

import ast
import bz2
import dataclasses
import doctest
import json
import lzma
import os
import re
import signal
import subprocess
import sys
import sysconfig
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from hamilton.lifecycle import LifecycleAdapter
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonFutureAdapter
from prometheus_client import CollectorRegistry

pytest.importorskip("rich", reason="the example needs the extra [demo]")
pytest.importorskip("opentelemetry.sdk", reason="the example needs the extra [demo]")

from rich.console import Console, RenderableType

from examples.stdlib_survey import complexity, imports, run_summary, trace_lines
from examples.stdlib_survey.catalogue_client import CatalogueError, fetch_chapter_numbers, fetch_chapters
from examples.stdlib_survey.catalogue_server import serving
from examples.stdlib_survey.chapters import CHAPTERS
from examples.stdlib_survey.comparison import Comparison, compare, comparison_table
from examples.stdlib_survey.options import DEFAULT_PORT, Options, parse_options
from examples.stdlib_survey.reading import read_source
from examples.stdlib_survey.records import (
    Chapter,
    ChapterDocumentation,
    DuplicateFiles,
    FunctionMeasure,
    ImportHub,
    PackageCompression,
    PackageSize,
    RankedFunction,
    RankedModule,
    SourceFile,
    SourceText,
    SurveyReport,
    Totals,
)
from examples.stdlib_survey.report import report_tables
from examples.stdlib_survey.run_summary import RunSummary, StageSummary, summarize, summary_tables, trace_tree
from examples.stdlib_survey.sources import find_sources, split_by_size
from examples.stdlib_survey.stages import LZMA_PRESET
from examples.stdlib_survey.survey import build_driver, run_survey
from examples.stdlib_survey.trace_lines import NodeSpan, RunSpan, read_runs
from traced_threadpool import FutureAdapter

REPOSITORY = Path(__file__).parent.parent.parent
STDLIB = Path(sysconfig.get_paths()["stdlib"])

SHOP = '''"""A shop."""
from . import till
from .till import pay
'''

TILL = '''import sys
from sys import argv


class Till:
    """Where money goes."""

    def open(self, by=None):
        with self.lock:
            for drawer in self.drawers:
                if drawer.full and by:
                    return drawer
        return None


def pay(sum):
    """Take money."""
    return sum if sum > 0 else 0


def _count():
    pass
'''

SMALL_LIBRARY = {
    "alone.py": b"import shop.till, missing\n",
    "broken.py": b"def broken(:\n",
    "notlatin.py": b"name = '\xff'\n",
    "shop/__init__.py": SHOP.encode(),
    "shop/till.py": TILL.encode(),
    "twin.py": b"import shop.till, missing\n",
    # All of these are left out:
    "test/test_shop.py": b"import shop\n",
    "site-packages/other.py": b"",
    "shop/read-me.py": b"",
    "shop/notes.txt": b"",
}

SMALL_CATALOGUE = (
    Chapter(title="Trade", modules=("shop",)),
    Chapter(title="Solitude", modules=("alone", "absent")),
    Chapter(title="Empty", modules=()),
)


@pytest.fixture
def small_library(tmp_path: Path) -> Path:
    """The files of `SMALL_LIBRARY` on disk."""
    root = tmp_path / "lib"
    for name, data in SMALL_LIBRARY.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture(scope="module")
def catalogue_url() -> Iterator[str]:
    with serving(SMALL_CATALOGUE) as url:
        yield url


# The pipeline


def test_every_figure_of_a_small_library(small_library: Path, catalogue_url: str, tmp_path: Path) -> None:
    report = run_survey(build_driver(), stdlib_root=small_library, catalogue_url=catalogue_url, work_directory=tmp_path)

    sizes = {name.removesuffix(".py"): len(data) for name, data in SMALL_LIBRARY.items()}
    till_open = FunctionMeasure(name="Till.open", line=8, lines=6, complexity=4, nesting=3)
    pay = FunctionMeasure(name="pay", line=16, lines=3, complexity=2, nesting=0)
    count = FunctionMeasure(name="_count", line=21, lines=2, complexity=1, nesting=0)
    modules = ["alone", "broken", "notlatin", "shop/__init__", "shop/till", "twin"]
    hubs = report.import_hubs
    assert report == SurveyReport(
        totals=Totals(
            modules=6,
            size_bytes=sum(sizes[name] for name in modules),
            lines=1 + 1 + 0 + 3 + 22 + 1,
            functions=3,
            complexity=7,
            imports=2 + 2 + 2 + 2,
            problems=(("undecodable", 1), ("unparsable", 1)),
        ),
        packages=[
            PackageSize(package="shop", modules=2, lines=25, functions=3, mean_complexity=7 / 3),
            PackageSize(package="alone", modules=1, lines=1, functions=0, mean_complexity=0.0),
            PackageSize(package="broken", modules=1, lines=1, functions=0, mean_complexity=0.0),
            PackageSize(package="twin", modules=1, lines=1, functions=0, mean_complexity=0.0),
            PackageSize(package="notlatin", modules=1, lines=0, functions=0, mean_complexity=0.0),
        ],
        largest_modules=[
            RankedModule(module="shop.till", lines=22, size_bytes=sizes["shop/till"], functions=3),
            RankedModule(module="shop", lines=3, size_bytes=sizes["shop/__init__"], functions=0),
            RankedModule(module="alone", lines=1, size_bytes=sizes["alone"], functions=0),
            RankedModule(module="broken", lines=1, size_bytes=sizes["broken"], functions=0),
            RankedModule(module="twin", lines=1, size_bytes=sizes["twin"], functions=0),
            RankedModule(module="notlatin", lines=0, size_bytes=sizes["notlatin"], functions=0),
        ],
        most_complex_functions=[
            RankedFunction(module="shop.till", function=function) for function in (till_open, pay, count)
        ],
        deepest_functions=[
            RankedFunction(module="shop.till", function=function) for function in (till_open, count, pay)
        ],
        import_hubs=[
            ImportHub(module="sys", rank=hubs[0].rank, imported_by=1),
            ImportHub(module="shop.till", rank=hubs[1].rank, imported_by=3),
            ImportHub(module="missing", rank=hubs[2].rank, imported_by=2),
            *(
                ImportHub(module=module, rank=hubs[3].rank, imported_by=0)
                for module in ("alone", "broken", "notlatin", "shop", "twin")
            ),
        ],
        compression=sorted(
            (
                _compressed("alone", SMALL_LIBRARY["alone.py"]),
                _compressed("broken", SMALL_LIBRARY["broken.py"]),
                _compressed("notlatin", SMALL_LIBRARY["notlatin.py"]),
                _compressed("shop", SMALL_LIBRARY["shop/__init__.py"] + SMALL_LIBRARY["shop/till.py"]),
                _compressed("twin", SMALL_LIBRARY["twin.py"]),
            ),
            key=lambda row: (row.zlib_bytes / row.size_bytes, row.package),
        ),
        duplicates=[DuplicateFiles(modules=("alone", "twin"), size_bytes=sizes["alone"])],
        documentation=[
            ChapterDocumentation(title="Trade", modules=2, lines=25, public_definitions=5, documented_definitions=3),
            ChapterDocumentation(
                title="(in no chapter)", modules=3, lines=2, public_definitions=1, documented_definitions=0
            ),
            ChapterDocumentation(title="Solitude", modules=1, lines=1, public_definitions=1, documented_definitions=0),
        ],
    )
    assert hubs[0].rank > hubs[1].rank > hubs[2].rank > hubs[3].rank
    assert sum(hub.rank for hub in hubs) == pytest.approx(1)


def _compressed(package: str, data: bytes) -> PackageCompression:
    return PackageCompression(
        package=package,
        size_bytes=len(data),
        zlib_bytes=len(zlib.compress(data)),
        bz2_bytes=len(bz2.compress(data)),
        lzma_bytes=len(lzma.compress(data, preset=LZMA_PRESET)),
    )


FEW = 25


def _survey_of_few(driver: Any, catalogue_url: str, work_directory: Path) -> SurveyReport:
    return run_survey(driver, stdlib_root=STDLIB, catalogue_url=catalogue_url, work_directory=work_directory, limit=FEW)


@pytest.fixture(scope="module")
def plain_report(catalogue_url: str, tmp_path_factory: pytest.TempPathFactory) -> SurveyReport:
    """What plain Hamilton gives for the static DAG over a few real modules."""
    return _survey_of_few(build_driver(), catalogue_url, tmp_path_factory.mktemp("plain"))


@pytest.fixture
def ours() -> Iterator[LifecycleAdapter]:
    with FutureAdapter(3, tracing=False, registry=CollectorRegistry()) as adapter:
        yield adapter


@pytest.fixture
def hamiltons() -> Iterator[LifecycleAdapter]:
    adapter = HamiltonFutureAdapter(3)
    yield adapter
    adapter.executor.shutdown()


@pytest.mark.parametrize(
    ("adapter_fixture", "parallelizable"),
    [
        pytest.param(None, True, id="parallelizable, no adapter"),
        pytest.param("hamiltons", False, id="static, Hamilton's adapter"),
        pytest.param("ours", False, id="static, ours"),
        pytest.param("ours", True, id="parallelizable, ours"),
    ],
)
def test_the_report_does_not_depend_on_how_it_is_run(
    adapter_fixture: str | None,
    parallelizable: bool,
    plain_report: SurveyReport,
    catalogue_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Each way gives what plain Hamilton gives for the static DAG, over modules of the real library."""
    adapters = [request.getfixturevalue(adapter_fixture)] if adapter_fixture else []

    report = _survey_of_few(build_driver(adapters, parallelizable=parallelizable), catalogue_url, tmp_path)

    assert report == plain_report
    assert (report.totals.modules, report.totals.problems) == (FEW, ())


def test_a_library_without_files_gives_an_empty_report(catalogue_url: str, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    report = run_survey(
        build_driver(), stdlib_root=tmp_path / "lib", catalogue_url=catalogue_url, work_directory=tmp_path
    )

    assert report == SurveyReport(
        totals=Totals(modules=0, size_bytes=0, lines=0, functions=0, complexity=0, imports=0, problems=()),
        packages=[],
        largest_modules=[],
        most_complex_functions=[],
        deepest_functions=[],
        import_hubs=[],
        compression=[],
        duplicates=[],
        documentation=[],
    )


@pytest.mark.parametrize("parallelizable", [False, True])
def test_every_node_tells_its_stage_and_there_are_many(parallelizable: bool) -> None:
    variables = build_driver(parallelizable=parallelizable).list_available_variables()
    nodes = [variable for variable in variables if not variable.is_external_input]

    assert len(nodes) >= 25
    assert [node.name for node in nodes if "stage" not in node.tags] == []


# Finding and reading files


def test_what_is_not_the_library_is_left_out(small_library: Path) -> None:
    found = find_sources(small_library)

    assert [(file.module, file.package, file.is_package) for file in found] == [
        ("alone", "alone", False),
        ("broken", "broken", False),
        ("notlatin", "notlatin", False),
        ("shop", "shop", True),
        ("shop.till", "shop", False),
        ("twin", "twin", False),
    ]


def test_a_limit_takes_files_at_even_distances(small_library: Path) -> None:
    found = find_sources(small_library, limit=3)

    assert [file.module for file in found] == ["alone", "notlatin", "shop.till"]


def test_a_limit_above_the_number_of_files_takes_all(small_library: Path) -> None:
    assert find_sources(small_library, limit=1_000) == find_sources(small_library)


@pytest.mark.parametrize("parts", [1, 4, 10, 50])
def test_parts_are_the_whole_in_order_and_cut_no_package(parts: int) -> None:
    files = find_sources(STDLIB, limit=200)
    shares = split_by_size(files, parts)

    packages = [{file.package for file in share} for share in shares]
    assert len(shares) == parts
    assert [file for share in shares for file in share] == files
    assert sum(len(names) for names in packages) == len(set().union(*packages))


def _file(path: Path) -> SourceFile:
    return SourceFile(module=path.stem, package=path.stem, path=path, size_bytes=0, is_package=False)


@pytest.mark.parametrize(
    ("data", "text", "problem"),
    [
        (b"name = '\xc3\xa9'\n", "name = 'é'\n", None),
        (b"# coding: latin-1\nname = '\xe9'\n", "# coding: latin-1\nname = 'é'\n", None),
        (b"\xef\xbb\xbfname = 1\n", "name = 1\n", None),
        (b"", "", None),
        (b"name = '\xe9'\n", None, "undecodable"),
        (b"# coding: klingon\n", None, "undecodable"),
        (None, None, "unreadable"),
    ],
)
def test_a_file_is_read_by_its_own_encoding(
    data: bytes | None, text: str | None, problem: str | None, tmp_path: Path
) -> None:
    """What cannot be read or decoded is named, and no error."""
    path = tmp_path / "module.py"
    if data is not None:
        path.write_bytes(data)

    assert read_source(_file(path)) == SourceText(file=_file(path), data=data or b"", text=text, problem=problem)


# Measures


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pass", (1, 0)),
        ("if a: pass\nelif b: pass\nelif c: pass\nelse: pass", (4, 1)),
        ("if a: pass\nelse:\n    if b: pass", (3, 2)),
        ("if a: pass\nelif b:\n    if c: pass", (4, 2)),
        ("for a in b: pass\nelse: pass\nwhile a: pass", (3, 1)),
        ("try: pass\nexcept A: pass\nexcept B: pass\nfinally: pass", (3, 1)),
        ("with a, b:\n    with c: pass", (1, 2)),
        ("return a and b and c or d", (4, 0)),
        ("return a if b else c if d else e", (3, 0)),
        ("return [a for a in b if a if c for d in a]", (5, 0)),
        ("return lambda: a or b", (2, 0)),
        ("match a:\n    case 1: pass\n    case [b] if b: pass\n    case _: pass", (3, 1)),
        ("match a:\n    case b if b: pass", (2, 1)),
        ("class Inner:\n    if a: b = 1", (2, 1)),
        ("assert a, b", (1, 0)),
    ],
)
def test_complexity_and_nesting_of_a_function(body: str, expected: tuple[int, int]) -> None:
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    for head in ("def function():\n", "async def function():\n"):
        measure = complexity.measure_tree(ast.parse(head + indented))

        assert [(f.complexity, f.nesting) for f in measure.functions] == [expected]


def test_asynchronous_statements_count_like_the_others() -> None:
    source = "async def f():\n    async for a in b:\n        async with a: pass\n"
    [function] = complexity.measure_tree(ast.parse(source)).functions

    assert function == FunctionMeasure(name="f", line=1, lines=3, complexity=2, nesting=2)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="`except*` came with Python 3.11")
def test_groups_of_exceptions_count_like_single_ones() -> None:
    [function] = complexity.measure_tree(ast.parse("def f():\n    try: a\n    except* B: c\n")).functions

    assert function == FunctionMeasure(name="f", line=1, lines=3, complexity=2, nesting=1)


def test_a_function_inside_of_another_is_measured_by_itself() -> None:
    source = "def outer():\n    if a:\n        def inner():\n            if b: pass\n        return inner\n"

    assert complexity.measure_tree(ast.parse(source)).functions == (
        FunctionMeasure(name="outer", line=1, lines=5, complexity=2, nesting=1),
        FunctionMeasure(name="outer.inner", line=3, lines=2, complexity=2, nesting=1),
    )


def test_names_inside_of_private_ones_and_of_functions_are_not_public() -> None:
    source = (
        "'Module.'\n"
        "class _Private:\n    def method(self): 'Documented.'\n"
        "class Public:\n    class Inner:\n        def method(self):\n"
        "            def helper(): 'Documented.'\n"
        "async def function(): 'Documented.'\n"
    )
    measure = complexity.measure_tree(ast.parse(source))

    assert (measure.documented_definitions, measure.public_definitions) == (2, 5)


def test_a_tree_deeper_than_python_can_recurse_is_measured() -> None:
    expression: ast.expr = ast.Name(id="a", ctx=ast.Load())
    for _ in range(5 * sys.getrecursionlimit()):
        expression = ast.IfExp(test=ast.Constant(value=1), body=expression, orelse=ast.Constant(value=2))
    tree = ast.parse("def function(): return a")
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    function.body = [ast.Return(value=expression)]

    [measure] = complexity.measure_tree(tree).functions
    assert measure.complexity == 1 + 5 * sys.getrecursionlimit()

    # Taken apart from the outside: a deep tree dropped in one go can overflow the interpreter's own stack.
    function.body = []
    while isinstance(expression, ast.IfExp):
        expression = expression.body


@pytest.mark.parametrize(
    ("statement", "is_package", "expected"),
    [
        ("import a, b.c as d", False, ("a", "b.c")),
        ("from a.b import c, d", False, ("a.b.c", "a.b.d")),
        ("from a import *", False, ("a",)),
        ("from . import near", False, ("top.mid.near",)),
        ("from . import near", True, ("top.mid.here.near",)),
        ("from .near import *", True, ("top.mid.here.near",)),
        ("from ...far import x", False, ("far.x",)),
        (
            "def f():\n    try:\n        import a\n    except ImportError:\n        import b",
            False,
            ("a", "b"),
        ),
        ("match x:\n    case 1:\n        import a", False, ("a",)),
    ],
)
def test_imports_are_found_wherever_they_stand(statement: str, is_package: bool, expected: tuple[str, ...]) -> None:
    assert imports.imported_names(ast.parse(statement), "top.mid.here", is_package) == expected


# The catalogue


def test_the_catalogue_gives_every_chapter_back() -> None:
    with serving(CHAPTERS) as url:
        assert fetch_chapters(url, fetch_chapter_numbers(url)) == list(CHAPTERS)


def test_a_chapter_that_does_not_exist_is_an_error(catalogue_url: str) -> None:
    with pytest.raises(CatalogueError, match=r"/chapters/99 answered 404 Not Found, expected 200"):
        fetch_chapters(catalogue_url, [99])


def test_no_module_is_in_two_chapters() -> None:
    modules = [module for chapter in CHAPTERS for module in chapter.modules]

    assert len(modules) == len(set(modules))


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
        workers=None,
        limit=0,
        parallelizable=False,
        upstream=False,
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
            if line.startswith("Trace, as OTLP/JSON lines:"):
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
    for title in ("Import hubs", "The run as a whole", "Slowest nodes", "<- surveys_1, surveys_2"):
        assert title in text
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
