"""The nodes that both pipelines share: find the files, fetch the catalogue, join all into the report.

Inputs: `stdlib_root`, `limit` (how many files, 0 for all), `catalogue_url` and `work_directory`, in which the
database is made. `surveys`, `compressed_packages` and `rows_stored` come from the pipeline.
"""

from pathlib import Path

from . import rankings
from .catalogue_client import fetch_chapter_numbers, fetch_chapters
from .imports import ImportGraph
from .imports import import_graph as graph_of_imports
from .node_families import SHARDS, per_shard, stage
from .records import (
    Chapter,
    ChapterDocumentation,
    DuplicateFiles,
    ImportHub,
    ModuleSurvey,
    PackageCompression,
    PackageSize,
    RankedFunction,
    RankedModule,
    SourceFile,
    SurveyReport,
    Totals,
)
from .sources import find_sources
from .storage import create_database, query_packages, query_totals

TOP = 10


@stage("find")
def source_files(stdlib_root: Path, limit: int) -> list[SourceFile]:
    """The library's modules, by name."""
    return find_sources(stdlib_root, limit or None)


@stage("store")
def database(work_directory: Path) -> Path:
    """A new database with empty tables."""
    path = work_directory / "survey.sqlite"
    create_database(path)
    return path


@stage("fetch")
def chapter_numbers(catalogue_url: str) -> list[int]:
    """The catalogue's index: one request."""
    return fetch_chapter_numbers(catalogue_url)


@stage("fetch")
@per_shard("chapters", "shard")
def chapters_of_shard(catalogue_url: str, chapter_numbers: list[int], shard: int) -> list[Chapter]:
    """Every fourth chapter: a request for each."""
    return fetch_chapters(catalogue_url, chapter_numbers[shard - 1 :: len(SHARDS)])


@stage("join")
def chapters(
    chapters_1: list[Chapter],
    chapters_2: list[Chapter],
    chapters_3: list[Chapter],
    chapters_4: list[Chapter],
) -> list[Chapter]:
    """The whole catalogue."""
    return [*chapters_1, *chapters_2, *chapters_3, *chapters_4]


@stage("query")
def totals(database: Path, rows_stored: int) -> Totals:
    """Sums over the database; `rows_stored` is here to come after the last write."""
    return query_totals(database)


@stage("query")
def packages(database: Path, rows_stored: int) -> list[PackageSize]:
    """The largest packages; `rows_stored` is here to come after the last write."""
    return query_packages(database, TOP)


@stage("rank")
def largest_modules(surveys: list[ModuleSurvey]) -> list[RankedModule]:
    """Modules by lines."""
    return rankings.largest_modules(surveys, TOP)


@stage("rank")
def most_complex_functions(surveys: list[ModuleSurvey]) -> list[RankedFunction]:
    """Functions by cyclomatic complexity."""
    return rankings.most_complex_functions(surveys, TOP)


@stage("rank")
def deepest_functions(surveys: list[ModuleSurvey]) -> list[RankedFunction]:
    """Functions by depth of nesting."""
    return rankings.deepest_functions(surveys, TOP)


@stage("join")
def import_graph(surveys: list[ModuleSurvey]) -> ImportGraph:
    """Who imports whom."""
    return graph_of_imports({survey.file.module: survey.measure.imports for survey in surveys})


@stage("rank")
def import_hubs(import_graph: ImportGraph) -> list[ImportHub]:
    """Modules by PageRank."""
    return rankings.import_hubs(import_graph, TOP)


@stage("rank")
def compression(compressed_packages: list[PackageCompression]) -> list[PackageCompression]:
    """Large packages by how well they compress."""
    return rankings.compression(compressed_packages, TOP)


@stage("rank")
def duplicates(surveys: list[ModuleSurvey]) -> list[DuplicateFiles]:
    """Files that are the same."""
    return rankings.duplicate_files(surveys, TOP)


@stage("rank")
def documentation(surveys: list[ModuleSurvey], chapters: list[Chapter]) -> list[ChapterDocumentation]:
    """Chapters of the Library Reference by how well their modules' docstrings cover them."""
    return rankings.documentation(surveys, chapters)


@stage("join")
def report(
    totals: Totals,
    packages: list[PackageSize],
    largest_modules: list[RankedModule],
    most_complex_functions: list[RankedFunction],
    deepest_functions: list[RankedFunction],
    import_hubs: list[ImportHub],
    compression: list[PackageCompression],
    duplicates: list[DuplicateFiles],
    documentation: list[ChapterDocumentation],
) -> SurveyReport:
    """Everything that is printed."""
    return SurveyReport(
        totals=totals,
        packages=packages,
        largest_modules=largest_modules,
        most_complex_functions=most_complex_functions,
        deepest_functions=deepest_functions,
        import_hubs=import_hubs,
        compression=compression,
        duplicates=duplicates,
        documentation=documentation,
    )
