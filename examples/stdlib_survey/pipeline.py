"""The survey as a static DAG: the files in four shards, each with its own chain of stages.

    source_files -> sources_n -> digests_n, measures_n -> surveys_n ---> surveys
                         |                                    |
                         `-----> compressed_n ----------------+--------> compressed_packages
                                                              `--------> rows_stored_n -> rows_stored

The nodes before and after, which do not care how the files were divided, are in `joins.py`.
"""

from pathlib import Path

from . import stages
from .node_families import SHARDS, per_shard, stage
from .records import ModuleMeasure, ModuleSurvey, PackageCompression, SourceFile, SourceText
from .sources import split_by_size
from .storage import store


@stage("read")
@per_shard("sources", "shard")
def sources(source_files: list[SourceFile], shard: int) -> list[SourceText]:
    """A quarter of the bytes: a run of neighbours in the alphabet."""
    return stages.read(split_by_size(source_files, len(SHARDS))[shard - 1])


@stage("hash")
@per_shard("digests", "sources")
def digests(sources: list[SourceText]) -> list[str]:
    """SHA-256 of each file."""
    return stages.digest(sources)


@stage("compress")
@per_shard("compressed", "sources")
def compressed(sources: list[SourceText]) -> list[PackageCompression]:
    """Sizes of each package under zlib and LZMA."""
    return stages.compress(sources)


@stage("measure")
@per_shard("measures", "sources")
def measures(sources: list[SourceText]) -> list[ModuleMeasure]:
    """Functions, documentation and imports of each file, by its syntax tree."""
    return stages.measure(sources)


@stage("join")
@per_shard("surveys", "sources", "digests", "measures")
def surveys_of_shard(
    sources: list[SourceText], digests: list[str], measures: list[ModuleMeasure]
) -> list[ModuleSurvey]:
    """All that is known about each file of the shard."""
    return stages.combine(sources, digests, measures)


@stage("store")
@per_shard("rows_stored", "surveys", "compressed")
def rows_stored_of_shard(database: Path, surveys: list[ModuleSurvey], compressed: list[PackageCompression]) -> int:
    """The shard's rows, written in one transaction."""
    return store(database, surveys, compressed)


@stage("join")
def surveys(
    surveys_1: list[ModuleSurvey],
    surveys_2: list[ModuleSurvey],
    surveys_3: list[ModuleSurvey],
    surveys_4: list[ModuleSurvey],
) -> list[ModuleSurvey]:
    """All shards' records, in the order of the modules' names."""
    return [*surveys_1, *surveys_2, *surveys_3, *surveys_4]


@stage("join")
def compressed_packages(
    compressed_1: list[PackageCompression],
    compressed_2: list[PackageCompression],
    compressed_3: list[PackageCompression],
    compressed_4: list[PackageCompression],
) -> list[PackageCompression]:
    """All shards' packages, by name."""
    return [*compressed_1, *compressed_2, *compressed_3, *compressed_4]


@stage("join")
def rows_stored(rows_stored_1: int, rows_stored_2: int, rows_stored_3: int, rows_stored_4: int) -> int:
    """Rows in the database, once every shard has been written."""
    return rows_stored_1 + rows_stored_2 + rows_stored_3 + rows_stored_4
