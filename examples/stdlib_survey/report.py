"""The survey's report into tables for a terminal."""

from rich.table import Table

from .rankings import documented_share, share_left
from .records import RankedFunction, SurveyReport


def report_tables(report: SurveyReport, *, all_of_them: bool = True) -> list[Table]:
    """One table for each of the report's lists, the totals first; or the two that say most."""
    if not all_of_them:
        return [_totals(report), _import_hubs(report)]
    return [
        _totals(report),
        _packages(report),
        _largest_modules(report),
        _functions("Most complex functions", report.most_complex_functions),
        _functions("Deepest nesting", report.deepest_functions),
        _import_hubs(report),
        _compression(report),
        _duplicates(report),
        _documentation(report),
    ]


def _totals(report: SurveyReport) -> Table:
    totals = report.totals
    table = _table("The library", ["", "#"])
    table.add_row("modules", f"{totals.modules:,}")
    table.add_row("MB", f"{totals.size_bytes / 1e6:.1f}")
    table.add_row("lines", f"{totals.lines:,}")
    table.add_row("functions and methods", f"{totals.functions:,}")
    table.add_row("mean complexity", _ratio(totals.complexity, totals.functions, ".2f"))
    table.add_row("imported names", f"{totals.imports:,}")
    for problem, count in totals.problems or (("problems", 0),):
        table.add_row(problem, f"{count:,}")
    return table


def _packages(report: SurveyReport) -> Table:
    table = _table("Largest packages", ["package", "#modules", "#lines", "#functions", "#mean complexity"])
    for row in report.packages:
        table.add_row(
            row.package,
            f"{row.modules:,}",
            f"{row.lines:,}",
            f"{row.functions:,}",
            f"{row.mean_complexity:.2f}",
        )
    return table


def _largest_modules(report: SurveyReport) -> Table:
    table = _table("Largest modules", ["module", "#lines", "#kB", "#functions"])
    for row in report.largest_modules:
        table.add_row(row.module, f"{row.lines:,}", f"{row.size_bytes / 1e3:.0f}", f"{row.functions:,}")
    return table


def _functions(title: str, rows: list[RankedFunction]) -> Table:
    table = _table(title, ["function", "module", "#complexity", "#nesting", "#lines"])
    for row in rows:
        function = row.function
        table.add_row(
            function.name,
            f"{row.module}:{function.line}",
            str(function.complexity),
            str(function.nesting),
            str(function.lines),
        )
    return table


def _import_hubs(report: SurveyReport) -> Table:
    table = _table("Import hubs", ["module", "#PageRank", "#imported by"])
    for row in report.import_hubs:
        table.add_row(row.module, f"{row.rank:.4f}", str(row.imported_by))
    return table


def _compression(report: SurveyReport) -> Table:
    table = _table(
        "What compressing leaves of the largest packages",
        ["package", "#kB", "#best", "#zlib", "#bz2", "#lzma"],
    )
    for row in report.compression:
        sizes = (row.zlib_bytes, row.bz2_bytes, row.lzma_bytes)
        table.add_row(
            row.package,
            f"{row.size_bytes / 1e3:.0f}",
            f"{share_left(row):.1%}",
            *(_ratio(size, row.size_bytes, ".1%") for size in sizes),
        )
    return table


def _duplicates(report: SurveyReport) -> Table:
    table = _table("Duplicate files", ["modules", "#bytes"])
    for row in report.duplicates:
        table.add_row(", ".join(row.modules), f"{row.size_bytes:,}")
    if not report.duplicates:
        table.add_row("none", "")
    return table


def _documentation(report: SurveyReport) -> Table:
    table = _table(
        "Docstrings by chapter of the Library Reference",
        ["chapter", "#documented", "#public names", "#modules", "#lines"],
    )
    for row in report.documentation:
        table.add_row(
            row.title,
            f"{documented_share(row):.0%}",
            f"{row.public_definitions:,}",
            f"{row.modules:,}",
            f"{row.lines:,}",
        )
    return table


def _table(title: str, headings: list[str]) -> Table:
    """A table; headings that start with `#` are over numbers."""
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading.removeprefix("#"), justify="right" if heading.startswith("#") else "left")
    return table


def _ratio(part: int, whole: int, how: str) -> str:
    return format(part / whole, how) if whole else "-"
