"""Many runs for a terminal: a list of them, what they have to say together, and how two sets differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from traced_threadpool.analysis.replay.pool_what_if import PoolScaling
from traced_threadpool.analysis.run_sets import RunFacts, SetDifference
from traced_threadpool.model.formatting import count, one_line
from traced_threadpool.report.many_runs import (
    LIST_COLUMNS,
    LIST_TEXTS,
    ManyExplanation,
    TextTable,
    difference_sentences,
    difference_tables,
    list_row,
    pool_table,
)
from traced_threadpool.report.terminal import findings_text, run_line, section, table_of


def list_text(facts: Sequence[RunFacts]) -> Iterator[RenderableType]:
    """What `runs` prints."""
    yield _table(LIST_COLUMNS, map(list_row, facts), LIST_TEXTS)


def many_text(explanation: ManyExplanation, where: str) -> Iterator[RenderableType]:
    """What `explain --all` prints."""
    many, typical = explanation.many, explanation.typical
    yield Text(f"{where}: {explanation.sentences[0]}", style="bold")
    yield Group(*(Text(one_line(sentence)) for sentence in explanation.sentences[1:]))
    if typical is not None and many.typical is not None:
        yield section(f"The typical run: number {many.typical.number:,}, nearest the median", run_line(typical.run))
        yield from findings_text(typical)
    for table in explanation.tables():
        yield _section_of(table)


def set_difference_text(found: SetDifference, what: str) -> Iterator[RenderableType]:
    """What `diff --all` prints."""
    yield one_line(what)
    first, *others = difference_sentences(found)
    yield Text(first, style="bold")
    yield Group(*map(Text, others))
    for table in difference_tables(found):
        yield _section_of(table)


def pools_text(pools: Iterable[PoolScaling], what: str) -> Iterator[RenderableType]:
    """What `what-if --all` prints."""
    yield one_line(what)
    for found in pools:
        yield _section_of(pool_table(found))


def more_text(left: int) -> Iterator[RenderableType]:
    """That a list goes on."""
    if left:
        yield Text(f"({count(left, 'more run')}; --limit shows more)", style="dim")


def _section_of(table: TextTable) -> RenderableType:
    below = [Text(table.note, style="dim")] if table.note else []
    return section(table.heading, _table(table.columns, table.rows, table.texts), *below)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], texts: Sequence[int]) -> RenderableType:
    table = table_of(*columns, left=texts)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
