"""The records that travel between the stages of the survey, in the order in which they come to be."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that was found, not opened yet."""

    module: str
    package: str
    path: Path
    size_bytes: int
    is_package: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceText:
    """A file's bytes and text. Where it could not be read, `problem` says why and the rest is empty."""

    file: SourceFile
    data: bytes = b""
    text: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageCompression:
    """What the compressors leave of a package, all of its files in one go."""

    package: str
    size_bytes: int
    zlib_bytes: int
    bz2_bytes: int
    lzma_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionMeasure:
    """One function or method of a module."""

    name: str
    line: int
    lines: int
    complexity: int
    nesting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeMeasure:
    """What a syntax tree tells about its module."""

    functions: tuple[FunctionMeasure, ...]
    public_definitions: int
    documented_definitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleMeasure:
    """The measures of one module; `problem` is the first thing that went wrong with its file."""

    lines: int
    tree: TreeMeasure
    imports: tuple[str, ...]
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSurvey:
    """Everything that is known about one file."""

    file: SourceFile
    sha256: str
    measure: ModuleMeasure


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """A chapter of the Library Reference and the modules that it documents."""

    title: str
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over the whole survey, as the database gives them."""

    modules: int
    size_bytes: int
    lines: int
    functions: int
    complexity: int
    imports: int
    problems: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSize:
    """A top-level package or module, as the database gives it."""

    package: str
    modules: int
    lines: int
    functions: int
    mean_complexity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedModule:
    """A module and its size."""

    module: str
    lines: int
    size_bytes: int
    functions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedFunction:
    """A function and the module that it is in."""

    module: str
    function: FunctionMeasure


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportHub:
    """A module that much of the library leans on. `rank` is its PageRank; all ranks sum to 1."""

    module: str
    rank: float
    imported_by: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateFiles:
    """Modules whose files are the same to the byte."""

    modules: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChapterDocumentation:
    """How much of a chapter's public names carry a docstring."""

    title: str
    modules: int
    lines: int
    public_definitions: int
    documented_definitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyReport:
    """The result of the pipeline. Lists are ranked, the first entry is the most remarkable one."""

    totals: Totals
    packages: list[PackageSize]
    largest_modules: list[RankedModule]
    most_complex_functions: list[RankedFunction]
    deepest_functions: list[RankedFunction]
    import_hubs: list[ImportHub]
    compression: list[PackageCompression]
    duplicates: list[DuplicateFiles]
    documentation: list[ChapterDocumentation]
