"""The survey of the standard library: right about a small library, and the same however it is run."""

import ast
import bz2
import lzma
import sys
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hamilton.lifecycle import LifecycleAdapter
from hamilton.plugins.h_threadpool import FutureAdapter as HamiltonFutureAdapter
from prometheus_client import CollectorRegistry

pytest.importorskip("rich", reason="the example needs the extra [demo]")
pytest.importorskip("opentelemetry.sdk", reason="the example needs the extra [demo]")


from examples.stdlib_survey import complexity, imports
from examples.stdlib_survey.catalogue_client import CatalogueError, fetch_chapter_numbers, fetch_chapters
from examples.stdlib_survey.catalogue_server import serving
from examples.stdlib_survey.chapters import CHAPTERS
from examples.stdlib_survey.node_families import parsers
from examples.stdlib_survey.reading import read_source
from examples.stdlib_survey.records import (
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
from examples.stdlib_survey.sources import find_sources, split_by_size
from examples.stdlib_survey.stages import LZMA_PRESET
from examples.stdlib_survey.survey import build_driver, run_survey
from tests.examples.small_library import SMALL_LIBRARY
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import Processes

STDLIB = Path(sysconfig.get_paths()["stdlib"])


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
def with_parsers() -> Iterator[LifecycleAdapter]:
    """Parsing on worker processes."""
    pytest.importorskip("cloudpickle", reason="the extra [processes] is not installed")
    backends = {"parsers": Processes(2)}
    with FutureAdapter(
        3, tracing=False, registry=CollectorRegistry(), backends=backends, run_on=parsers, record=True
    ) as adapter:
        yield adapter
        (run,) = adapter.recorded_runs
        assert {node.name.rpartition("_")[0] for node in run.nodes if node.backend} <= {"measures", ""}
        assert any(node.backend for node in run.nodes)


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
        pytest.param("with_parsers", False, id="static, parsing on processes"),
        pytest.param("with_parsers", True, id="parallelizable, parsing on processes"),
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
