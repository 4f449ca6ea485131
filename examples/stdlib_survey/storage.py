"""Survey records into an SQLite database, and the database into sums.

Each call opens a connection of its own, for SQLite's are bound to a thread. Writers take the database's write
lock at the start of their transaction, and wait for one another there.
"""

import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

from .records import ModuleSurvey, PackageCompression, PackageSize, Totals

LOCK_TIMEOUT_SECONDS = 60.0

_SCHEMA = """
CREATE TABLE modules (
    module TEXT PRIMARY KEY, package TEXT NOT NULL, size_bytes INTEGER NOT NULL, lines INTEGER NOT NULL,
    sha256 TEXT NOT NULL, problem TEXT
);
CREATE TABLE functions (
    module TEXT NOT NULL REFERENCES modules, name TEXT NOT NULL,
    line INTEGER NOT NULL, lines INTEGER NOT NULL, complexity INTEGER NOT NULL, nesting INTEGER NOT NULL
);
CREATE TABLE compression (
    package TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL,
    zlib_bytes INTEGER NOT NULL, bz2_bytes INTEGER NOT NULL, lzma_bytes INTEGER NOT NULL
);
CREATE TABLE imports (module TEXT NOT NULL REFERENCES modules, name TEXT NOT NULL);
CREATE INDEX functions_by_module ON functions (module);
"""


def create_database(path: Path) -> None:
    """Create the tables; the file must not hold them already."""
    with _connection(path) as connection:
        connection.executescript(_SCHEMA)


def store(path: Path, surveys: Sequence[ModuleSurvey], compressed: Iterable[PackageCompression]) -> int:
    """Write the records of a batch in one transaction; gives the number of rows written."""
    with _connection(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        before = connection.total_changes
        connection.executemany(
            "INSERT INTO modules VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    survey.file.module,
                    survey.file.package,
                    survey.file.size_bytes,
                    survey.measure.lines,
                    survey.sha256,
                    survey.measure.problem,
                )
                for survey in surveys
            ],
        )
        connection.executemany(
            "INSERT INTO functions VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    survey.file.module,
                    function.name,
                    function.line,
                    function.lines,
                    function.complexity,
                    function.nesting,
                )
                for survey in surveys
                for function in survey.measure.tree.functions
            ],
        )
        connection.executemany(
            "INSERT INTO imports VALUES (?, ?)",
            [(survey.file.module, name) for survey in surveys for name in survey.measure.imports],
        )
        connection.executemany(
            "INSERT INTO compression VALUES (?, ?, ?, ?, ?)",
            [(row.package, row.size_bytes, row.zlib_bytes, row.bz2_bytes, row.lzma_bytes) for row in compressed],
        )
        written = connection.total_changes - before
        connection.execute("COMMIT")
        return written


def query_totals(path: Path) -> Totals:
    """Sums over all tables."""
    with _connection(path) as connection:
        modules, size_bytes, lines = connection.execute(
            "SELECT count(*), coalesce(sum(size_bytes), 0), coalesce(sum(lines), 0) FROM modules"
        ).fetchone()
        functions, complexity = connection.execute(
            "SELECT count(*), coalesce(sum(complexity), 0) FROM functions"
        ).fetchone()
        (imports,) = connection.execute("SELECT count(*) FROM imports").fetchone()
        problems = connection.execute(
            "SELECT problem, count(*) FROM modules WHERE problem IS NOT NULL GROUP BY problem ORDER BY 1"
        ).fetchall()
    return Totals(
        modules=modules,
        size_bytes=size_bytes,
        lines=lines,
        functions=functions,
        complexity=complexity,
        imports=imports,
        problems=tuple((problem, count) for problem, count in problems),
    )


def query_packages(path: Path, limit: int) -> list[PackageSize]:
    """The packages with the most lines."""
    with _connection(path) as connection:
        rows = connection.execute(
            """
            WITH measured AS (
                SELECT module, count(*) AS functions, sum(complexity) AS complexity
                FROM functions GROUP BY module
            )
            SELECT package, count(*), sum(lines), coalesce(sum(functions), 0), coalesce(sum(complexity), 0)
            FROM modules LEFT JOIN measured USING (module)
            GROUP BY package ORDER BY sum(lines) DESC, package LIMIT ?
            """,
            (limit,),
        ).fetchall()
    return [
        PackageSize(
            package=package,
            modules=modules,
            lines=lines,
            functions=functions,
            mean_complexity=complexity / functions if functions else 0.0,
        )
        for package, modules, lines, functions, complexity in rows
    ]


@contextmanager
def _connection(path: Path) -> Generator[sqlite3.Connection, None, None]:
    # No isolation level: transactions are the statements written here, none begins by itself.
    connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT_SECONDS, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()  # rolls back what was not committed
