"""Records of all modules into ranked rows, each by its own idea of what is remarkable. Ties go by name."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from .imports import ImportGraph, importers, longest_prefix, page_rank
from .records import (
    Chapter,
    ChapterDocumentation,
    DuplicateFiles,
    ImportHub,
    ModuleSurvey,
    PackageCompression,
    RankedFunction,
    RankedModule,
)

UNDOCUMENTED_CHAPTER = "(in no chapter)"


def largest_modules(surveys: Iterable[ModuleSurvey], top: int) -> list[RankedModule]:
    """Modules by their number of lines."""
    rows = [
        RankedModule(
            module=survey.file.module,
            lines=survey.measure.lines,
            size_bytes=survey.file.size_bytes,
            functions=len(survey.measure.tree.functions),
        )
        for survey in surveys
    ]
    return sorted(rows, key=lambda row: (-row.lines, row.module))[:top]


def most_complex_functions(surveys: Iterable[ModuleSurvey], top: int) -> list[RankedFunction]:
    """Functions by their cyclomatic complexity."""
    rows = _functions(surveys)
    return sorted(rows, key=lambda row: (-row.function.complexity, row.module, row.function.line))[:top]


def deepest_functions(surveys: Iterable[ModuleSurvey], top: int) -> list[RankedFunction]:
    """Functions by how deep their statements are nested; of two, the shorter one gets there faster."""
    rows = _functions(surveys)
    return sorted(rows, key=lambda row: (-row.function.nesting, row.function.lines, row.module, row.function.line))[
        :top
    ]


def import_hubs(graph: ImportGraph, top: int) -> list[ImportHub]:
    """Modules by their PageRank in the import graph."""
    counts = importers(graph)
    rows = [
        ImportHub(module=module, rank=rank, imported_by=counts[module]) for module, rank in page_rank(graph).items()
    ]
    return sorted(rows, key=lambda row: (-row.rank, row.module))[:top]


def compression(packages: Iterable[PackageCompression], top: int) -> list[PackageCompression]:
    """The largest packages, by how little compressing leaves of them."""
    largest = sorted(packages, key=lambda row: (-row.size_bytes, row.package))[:top]
    return sorted(largest, key=lambda row: (share_left(row), row.package))


def duplicate_files(surveys: Iterable[ModuleSurvey], top: int) -> list[DuplicateFiles]:
    """Groups of modules with the same bytes, the largest files first. Empty files do not count."""
    alike: dict[tuple[str, int], list[str]] = defaultdict(list)
    for survey in surveys:
        if survey.file.size_bytes:
            alike[survey.sha256, survey.file.size_bytes].append(survey.file.module)
    rows = [
        DuplicateFiles(modules=tuple(sorted(modules)), size_bytes=size_bytes)
        for (_, size_bytes), modules in alike.items()
        if len(modules) > 1
    ]
    return sorted(rows, key=lambda row: (-row.size_bytes, row.modules))[:top]


def documentation(surveys: Sequence[ModuleSurvey], chapters: Iterable[Chapter]) -> list[ChapterDocumentation]:
    """Every chapter that has a module in the survey, by how much of what it makes public has a docstring."""
    chapter_of = {module: chapter.title for chapter in chapters for module in chapter.modules}
    by_chapter: dict[str, list[ModuleSurvey]] = defaultdict(list)
    for survey in surveys:
        listed = longest_prefix(survey.file.module, chapter_of)
        by_chapter[chapter_of[listed] if listed else UNDOCUMENTED_CHAPTER].append(survey)
    rows = [
        ChapterDocumentation(
            title=title,
            modules=len(members),
            lines=sum(member.measure.lines for member in members),
            public_definitions=sum(member.measure.tree.public_definitions for member in members),
            documented_definitions=sum(member.measure.tree.documented_definitions for member in members),
        )
        for title, members in by_chapter.items()
    ]
    return sorted(rows, key=lambda row: (-documented_share(row), row.title))


def documented_share(row: ChapterDocumentation) -> float:
    """Between 0 and 1."""
    return row.documented_definitions / row.public_definitions if row.public_definitions else 0.0


def share_left(row: PackageCompression) -> float:
    """What the best compressor leaves of a package, between 0 and 1; a tiny package can grow."""
    best = min(row.zlib_bytes, row.bz2_bytes, row.lzma_bytes)
    return best / row.size_bytes if row.size_bytes else 1.0


def _functions(surveys: Iterable[ModuleSurvey]) -> list[RankedFunction]:
    return [
        RankedFunction(module=survey.file.module, function=function)
        for survey in surveys
        for function in survey.measure.tree.functions
    ]
