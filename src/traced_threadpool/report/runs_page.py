"""Many runs as one HTML file that needs nothing else: what `explain --all` says, a chart, a list of runs to sort. Two
sets of them likewise, as `diff --all` says how they differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from traced_threadpool.analysis.run_sets import Durations, RunFacts, SetDifference
from traced_threadpool.model.recorded_run import RecordedRun
from traced_threadpool.recording.critical_path import QUEUE
from traced_threadpool.report.html_document import document
from traced_threadpool.report.many_runs import (
    LIST_COLUMNS,
    LIST_TEXTS,
    ManyExplanation,
    TextTable,
    difference_sentences,
    difference_tables,
    list_row,
    most_of_path,
)
from traced_threadpool.report.page_data import cut

NODES: Final = 100
"""How many nodes the page lists."""


def runs_page(explanation: ManyExplanation) -> str:
    """The whole file as text; write it as UTF-8."""
    many = explanation.many
    slow = {id(facts) for facts in many.slow.runs}
    lengths = many.durations
    return document(
        "runs.html",
        "runs.js",
        {
            "runs": [_run(facts, is_slow=id(facts) in slow) for facts in many.runs],
            "lines": [["median", round(lengths.p50_ns / 1_000)], ["95 %", round(lengths.p95_ns / 1_000)]],
            "texts": LIST_TEXTS,
        },
        many=many,
        explanation=explanation,
        typical=explanation.typical,
        tables=[_texts_first(table) for table in explanation.tables(NODES)],
        columns=LIST_COLUMNS,
        texts=LIST_TEXTS,
    )


def sets_page(found: SetDifference, name: str, before: Sequence[RecordedRun], after: Sequence[RecordedRun]) -> str:
    """How the runs of one name differ from earlier ones; the whole file as text, to be written as UTF-8."""
    return document(
        "sets.html",
        "sets.js",
        {"before": _lengths(before, found.before), "after": _lengths(after, found.after)},
        name=name,
        found=found,
        sentences=difference_sentences(found),
        tables=[_texts_first(table) for table in difference_tables(found)],
    )


def _lengths(runs: Sequence[RecordedRun], durations: Durations) -> dict[str, Any]:
    in_order = sorted(runs, key=lambda run: run.started_ns)
    return {"runs": [round(run.duration_ns / 1_000) for run in in_order], "median": round(durations.p50_ns / 1_000)}


def _texts_first(table: TextTable) -> TextTable:
    """A page is wide, and reads from the left."""
    order = [*table.texts, *(at for at in range(len(table.columns)) if at not in table.texts)]
    return replace(
        table,
        columns=tuple(table.columns[at] for at in order),
        rows=tuple(tuple(row[at] for at in order) for row in table.rows),
        texts=tuple(range(len(table.texts))),
    )


def _run(facts: RunFacts, *, is_slow: bool) -> dict[str, Any]:
    """What is drawn and listed of a run; `keys` are what each column is sorted by."""
    run, cells = facts.run, [cut(text) for text in list_row(facts)]
    unix_ns = run.started_ns if run.started_unix_ns is None else run.started_unix_ns
    numbers = (
        facts.number,
        unix_ns,
        run.duration_ns,
        len(run.nodes),
        0,
        facts.path_ns.get(QUEUE, 0),
    )
    keys: list[str | float] = [cell.lower() if at in LIST_TEXTS else numbers[at] for at, cell in enumerate(cells)]
    keys[1], keys[6] = unix_ns / 1e9, f"{most_of_path(facts)[0]}".lower()
    return {
        "started": unix_ns / 1e6,
        "duration": round(run.duration_ns / 1_000),
        "kind": "failed" if run.outcome != "success" else "slow" if is_slow else "all",
        "cells": cells,
        "keys": keys,
    }
