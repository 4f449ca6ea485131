"""Series and checks into tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks import (
    attribution,
    branches,
    holds,
    makespan,
    memory,
    orchestrators,
    overhead,
    peers,
    priorities,
    telemetry_parts,
)
from benchmarks.samples import Results, Series, ratio
from benchmarks.table import Table
from benchmarks.targets import Check

# Costs of a part of telemetry: the peers to add and to take away. An exemplar has no switch of its own: it is what
# metrics cost more on spans that are sampled.
PARTS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "tracing, no SDK": ((peers.TRACING_NO_SDK,), (peers.UNTRACED,)),
    "tracing, not sampled": ((peers.TRACING_UNSAMPLED,), (peers.UNTRACED,)),
    "tracing, sampled": ((peers.TRACING_SAMPLED,), (peers.UNTRACED,)),
    "metrics": ((peers.METRICS,), (peers.UNTRACED,)),
    "metrics, pushed through OpenTelemetry besides": ((peers.METRICS_PUSHED,), (peers.METRICS,)),
    "metrics and tracing, no SDK (the default)": ((peers.DEFAULT,), (peers.UNTRACED,)),
    "metrics and tracing, not sampled": ((peers.METRICS_UNSAMPLED,), (peers.UNTRACED,)),
    "metrics and tracing, sampled": ((peers.TRACED,), (peers.UNTRACED,)),
    "exemplars": ((peers.TRACED, peers.UNTRACED), (peers.TRACING_SAMPLED, peers.METRICS)),
}


def tables(results: Results, checks: Sequence[Check], *, part: str = "") -> list[Table]:
    """All that there is to show; `part` names what was measured, if not everything."""
    found = [
        _times(results, section, case)
        for section in (overhead.SECTION, orchestrators.SECTION, telemetry_parts.SECTION)
        for case in results.cases(section)
    ]
    if len(sizes := results.cases(overhead.SIZES_SECTION)) > 1:
        found.append(_growth(results, overhead.SIZES_SECTION, sizes, "time per node"))
    found += [
        _growth(results, section, counts, "time per branch")
        for section in (branches.SECTION, branches.LINEAR_SECTION)
        if len(counts := results.cases(section)) > 1
    ]
    found += [_parts(results, case) for case in results.cases(telemetry_parts.SECTION)]
    found += [
        _times(results, telemetry_parts.FIRST_RUN_SECTION, case)
        for case in results.cases(telemetry_parts.FIRST_RUN_SECTION)
    ]
    if results.cases(attribution.SECTION):
        found.append(_attribution(results))
    if results.cases(makespan.SECTION):
        found.append(_makespans(results))
    found += [
        _priorities(results, section)
        for section in (priorities.VIRTUAL_SECTION, priorities.REAL_SECTION)
        if results.cases(section)
    ]
    found += [_holds(results, case) for case in results.cases(holds.SECTION)]
    found += [_memory(results, case) for case in results.cases(memory.SECTION)]
    if checks:
        found.append(_checks(checks, f"targets: {part}" if part else "targets"))
    return found


def _times(results: Results, section: str, case: str) -> Table:
    rows = []
    for peer in results.peers(section, case):
        row = [peer]
        for measure in ("wall", "cpu"):
            series = results.get(section, case, peer, measure)
            base = results.get(section, case, peers.HAMILTON, measure)
            row += [_number(series), _spread(series), _least(series), *_ratios(series, base)]
        rows.append(row)
    return Table(
        title=f"{section}: {case}",
        columns=(
            "",
            *("wall µs/node", "IQR", "least", "× Hamilton", "paired"),
            *("CPU µs/node", "IQR", "least", "× Hamilton", "paired"),
        ),
        rows=rows,
    )


def _holds(results: Results, case: str) -> Table:
    rows = [
        [each.measure, f"{each.median:.2f}", each.unit]
        for each in results.series
        if (each.section, each.case) == (holds.SECTION, case)
    ]
    return Table(title=f"{holds.SECTION}: {case}", columns=("", "median", "unit"), rows=rows)


def _attribution(results: Results) -> Table:
    rows = []
    for case in results.cases(attribution.SECTION):
        row = [case]
        for measure in ("wall", "cpu"):
            on = results.get(attribution.SECTION, case, attribution.ON, measure)
            off = results.get(attribution.SECTION, case, attribution.OFF, measure)
            assert on is not None
            assert off is not None
            compared = ratio(on.values, off.values)
            low, high = compared.paired_interval
            row += [f"{compared.of_medians:.3f}", f"{compared.paired:.3f}", f"{low:.3f} to {high:.3f}"]
        rows.append(row)
    return Table(
        title="attribution: time with it over time without",
        columns=("", "wall: of medians", "of pairs", "sure to 95 %", "cpu: of medians", "of pairs", "sure to 95 %"),
        rows=rows,
    )


def _growth(results: Results, section: str, cases: Sequence[str], what: str) -> Table:
    rows = []
    for peer in results.peers(section, cases[0]):
        row = [peer]
        for measure in ("wall", "cpu"):
            each = [results.get(section, case, peer, measure) for case in cases]
            row += [*(f"{_number(series)} ({_spread(series)})" for series in each), *_ratios(each[-1], each[0])]
        rows.append(row)
    return Table(
        title=f"{section}: {what}, µs (IQR)",
        columns=(
            "",
            *(f"wall, {case}" for case in cases),
            *("last / first", "paired"),
            *(f"CPU, {case}" for case in cases),
            *("last / first", "paired"),
        ),
        rows=rows,
    )


def _parts(results: Results, case: str) -> Table:
    rows = []
    for part, (added, taken) in PARTS.items():
        row = [part]
        for measure in ("wall", "cpu"):
            plus = [results.get(telemetry_parts.SECTION, case, peer, measure) for peer in added]
            minus = [results.get(telemetry_parts.SECTION, case, peer, measure) for peer in taken]
            cost = sum(each.median for each in plus if each) - sum(each.median for each in minus if each)
            row.append(f"{cost:+.1f}")
        rows.append(row)
    return Table(
        title=f"{telemetry_parts.SECTION}: what each adds", columns=("", "wall µs/node", "CPU µs/node"), rows=rows
    )


def _makespans(results: Results) -> Table:
    columns = (*makespan.PEERS, makespan.FIFO, makespan.FORESIGHT)
    rows = []
    for case in results.cases(makespan.SECTION):
        each = [results.get(makespan.SECTION, case, peer, makespan.MEASURE) for peer in columns]
        rows.append([case, *(_number(series, 3) + _spread_if_any(series) for series in each)])
    return Table(
        title="makespan, × lower bound (IQR)",
        columns=("", *columns),
        rows=rows,
        note="Simulated: no overhead; foreseeing: every duration known beforehand.",
    )


def _priorities(results: Results, section: str) -> Table:
    rows = []
    for case in results.cases(section):
        each = [results.get(section, case, order, priorities.MEASURE) for order in priorities.ORDERS]
        count = max(len(series.values) for series in each if series is not None)
        rows.append([case, f"{count}", *(_mean(() if series is None else series.values) for series in each)])
    together = [priorities.all_of(results, section, order) for order in priorities.ORDERS]
    rows.append(["all", f"{len(together[0])}", *map(_mean, together)])
    return Table(
        title=f"{section}: × lower bound, mean (greatest)",
        columns=("", "DAGs", *priorities.ORDERS),
        rows=rows,
    )


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.3f} ({max(values):.3f})" if values else "–"


def _memory(results: Results, case: str) -> Table:
    rows = []
    for peer in results.peers(memory.SECTION, case):
        row = [peer]
        for measure in (memory.PEAK, memory.RSS):
            series = results.get(memory.SECTION, case, peer, measure)
            base = results.get(memory.SECTION, case, peers.HAMILTON, measure)
            row += [_number(series, 0), _spread(series, 0), _ratios(series, base)[0]]
        rows.append(row)
    return Table(
        title=f"{memory.SECTION}: {case}",
        columns=("", "peak bytes/node", "IQR", "× Hamilton", "RSS bytes/node", "IQR", "× Hamilton"),
        rows=rows,
    )


def _checks(checks: Sequence[Check], title: str) -> Table:
    return Table(
        title=title,
        columns=("", "target", "case", "found", "paired", "limit", "numbers"),
        rows=[
            (
                each.verdict,
                each.target,
                each.case,
                f"{each.value:.3f}",
                f"{each.paired:.3f}",
                f"{each.limit:.2f}",
                each.remark,
            )
            for each in checks
        ],
        text_columns=frozenset({0, 1, 2, 6}),
        note="close: the middle half of the rounds lies on both sides of the limit.",
    )


def _number(series: Series | None, digits: int = 1) -> str:
    return "–" if series is None else f"{series.median:,.{digits}f}"


def _spread(series: Series | None, digits: int = 1) -> str:
    if series is None:
        return "–"
    low, high = series.quartiles
    return f"{high - low:,.{digits}f}"


def _spread_if_any(series: Series | None) -> str:
    return "" if series is None or len(series.values) < 2 else f" ({_spread(series, 3)})"


def _least(series: Series | None) -> str:
    return "–" if series is None else f"{min(series.values):,.1f}"


def _ratios(series: Series | None, base: Series | None) -> tuple[str, str]:
    if series is None or base is None or len(series.values) != len(base.values) or not min(base.values) > 0:
        return "–", "–"
    found = ratio(series.values, base.values)
    return f"{found.of_medians:.2f}", f"{found.paired:.2f}"
