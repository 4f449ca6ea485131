"""The stages of the survey as plain functions of a batch of files, however a pipeline makes its batches.

A stage gives one record for every file, in the files' order. Its docstring says what its threads wait for.
"""

import ast
import bz2
import hashlib
import lzma
import sys
import threading
import zlib
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import groupby

from .complexity import measure_tree
from .imports import imported_names
from .reading import read_source
from .records import ModuleMeasure, ModuleSurvey, PackageCompression, SourceFile, SourceText, TreeMeasure

UNPARSABLE = "unparsable"
LZMA_PRESET = 3  # the highest that is not several times slower than bzip2

# Some releases of CPython let threads that parse at once make each other fail with a SystemError
# (https://github.com/python/cpython/pull/113035). It costs nothing there: parsing holds the GIL.
_parses_safely = not ((3, 11) <= sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2))
_parsing = nullcontext() if _parses_safely else threading.Lock()


def read(files: Iterable[SourceFile]) -> list[SourceText]:
    """Read and decode the files: waits for the disk."""
    return [read_source(file) for file in files]


def digest(sources: Iterable[SourceText]) -> list[str]:
    """The SHA-256 of each file: computes without the GIL, on files above 2 KB."""
    return [hashlib.sha256(source.data).hexdigest() for source in sources]


def compress(sources: Iterable[SourceText]) -> list[PackageCompression]:
    """Compress each package three ways: computes without the GIL. One record for each package, not file."""
    return [
        _compress(package, b"".join(source.data for source in members))
        for package, members in groupby(sources, key=lambda source: source.file.package)
    ]


def measure(sources: Iterable[SourceText]) -> list[ModuleMeasure]:
    """Parse each file and measure its syntax tree: holds the GIL.

    One tree is alive at a time. Handing all of them on to a stage of their own made parsing take five times
    as long: the garbage collector walks over every tree that is kept, again and again.
    """
    return [_measure(source) for source in sources]


def combine(
    sources: Sequence[SourceText], digests: Sequence[str], measures: Sequence[ModuleMeasure]
) -> list[ModuleSurvey]:
    """Put together what the stages found out about each file."""
    return [
        ModuleSurvey(file=source.file, sha256=sha256, measure=module_measure)
        for source, sha256, module_measure in zip(sources, digests, measures, strict=True)
    ]


def _compress(package: str, data: bytes) -> PackageCompression:
    return PackageCompression(
        package=package,
        size_bytes=len(data),
        zlib_bytes=len(zlib.compress(data)),
        bz2_bytes=len(bz2.compress(data)),
        lzma_bytes=len(lzma.compress(data, preset=LZMA_PRESET)),
    )


def _measure(source: SourceText) -> ModuleMeasure:
    if source.text is None:
        return _not_measured(problem=source.problem)
    lines = source.data.count(b"\n") + (source.data[-1:] not in (b"\n", b""))
    try:
        with _parsing:
            tree = ast.parse(source.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the parser's ways to refuse a file
        return _not_measured(problem=UNPARSABLE, lines=lines)
    return ModuleMeasure(
        lines=lines,
        tree=measure_tree(tree),
        imports=imported_names(tree, source.file.module, source.file.is_package),
        problem=None,
    )


def _not_measured(*, problem: str | None, lines: int = 0) -> ModuleMeasure:
    nothing = TreeMeasure(functions=(), public_definitions=0, documented_definitions=0)
    return ModuleMeasure(lines=lines, tree=nothing, imports=(), problem=problem)
