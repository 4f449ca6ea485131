"""The survey as a dynamic DAG: as many batches of files as the run finds useful, one branch for each.

    source_files -> batch => sources -> digests, measures, compressed -> batch_outcome => batches -> surveys

`=>` is where Hamilton multiplies the branch (`Parallelizable`) and gathers it again (`Collect`). The nodes
before and after are those of the static DAG, in `joins.py`.
"""

from dataclasses import dataclass
from pathlib import Path

from hamilton.htypes import Collect, Parallelizable

from . import stages
from .node_families import stage
from .records import ModuleMeasure, ModuleSurvey, PackageCompression, SourceFile, SourceText
from .sources import split_by_size
from .storage import store

BATCHES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """What one branch hands to the gathering node."""

    surveys: list[ModuleSurvey]
    compressed: list[PackageCompression]
    rows_stored: int


@stage("find")
def batch(source_files: list[SourceFile]) -> Parallelizable[list[SourceFile]]:
    """Runs of neighbours in the alphabet, of about the same number of bytes each."""
    yield from split_by_size(source_files, BATCHES)


@stage("read")
def sources(batch: list[SourceFile]) -> list[SourceText]:
    """The batch's bytes and text."""
    return stages.read(batch)


@stage("hash")
def digests(sources: list[SourceText]) -> list[str]:
    """SHA-256 of each file."""
    return stages.digest(sources)


@stage("compress")
def compressed(sources: list[SourceText]) -> list[PackageCompression]:
    """Sizes of each package under zlib and LZMA."""
    return stages.compress(sources)


@stage("measure")
def measures(sources: list[SourceText]) -> list[ModuleMeasure]:
    """Functions, documentation and imports of each file, by its syntax tree."""
    return stages.measure(sources)


@stage("join")
def batch_surveys(sources: list[SourceText], digests: list[str], measures: list[ModuleMeasure]) -> list[ModuleSurvey]:
    """All that is known about each file of the batch."""
    return stages.combine(sources, digests, measures)


@stage("store")
def batch_outcome(
    database: Path, batch_surveys: list[ModuleSurvey], compressed: list[PackageCompression]
) -> BatchOutcome:
    """The batch's rows, written in one transaction."""
    rows_stored = store(database, batch_surveys, compressed)
    return BatchOutcome(surveys=batch_surveys, compressed=compressed, rows_stored=rows_stored)


@stage("join")
def batches(batch_outcome: Collect[BatchOutcome]) -> list[BatchOutcome]:
    """The outcomes of all branches, in the order of the batches."""
    return list(batch_outcome)


@stage("join")
def surveys(batches: list[BatchOutcome]) -> list[ModuleSurvey]:
    """All batches' records, in the order of the modules' names."""
    return [survey for outcome in batches for survey in outcome.surveys]


@stage("join")
def compressed_packages(batches: list[BatchOutcome]) -> list[PackageCompression]:
    """All batches' packages, by name."""
    return [package for outcome in batches for package in outcome.compressed]


@stage("join")
def rows_stored(batches: list[BatchOutcome]) -> int:
    """Rows in the database, once every batch has been written."""
    return sum(outcome.rows_stored for outcome in batches)
