"""Results into what was to be reached, and whether it was.

A ratio of medians decides. Where the middle half of the rounds' own ratios lies on both sides of the limit, the
verdict is marked as close: another run may decide otherwise.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks import attribution, makespan, memory, orchestrators, overhead, peers, priorities
from benchmarks.samples import Ratio, Results, quartiles, ratio

UNTRACED_LIMIT = 0.7
FLOOR_LIMIT = 1.0
TRACER_LIMIT = 0.4
PEER_LIMIT = 1.0
MAKESPAN_LIMIT = 1.12
COLD_LIMIT = 1.05
WARM_LIMIT = 1.02
OVER_FIFO_LIMIT = 1.02
GROWTH_LIMIT = 1.15
MEMORY_LIMIT = 1.0
ATTRIBUTION_LIMIT = 1.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One target in one case."""

    target: str
    case: str
    value: float
    paired: float
    limit: float
    close: bool
    remark: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.limit

    @property
    def verdict(self) -> str:
        return ("met" if self.met else "missed") + (", close" if self.close else "")


def check(results: Results) -> list[Check]:
    """Every target that the sections measured can tell of."""
    return [
        *_per_node(results),
        *_orchestrators(results),
        *_attribution(results),
        *_makespans(results),
        *_priorities(results),
        *_growth(results),
        *_memory(results),
    ]


def _per_node(results: Results) -> Iterator[Check]:
    for case in results.cases(overhead.SECTION):
        wall = {
            peer: series.values
            for peer in results.peers(overhead.SECTION, case)
            if (series := results.get(overhead.SECTION, case, peer, "wall")) is not None
        }
        hamilton, traced = wall[peers.HAMILTON], wall[peers.TRACED]
        with_floor = [sum(pair) for pair in zip(hamilton, wall[peers.FLOOR], strict=True)]
        allowed = statistics.median(hamilton) + statistics.median(wall[peers.FLOOR])
        yield _compared(
            f"untraced per node ≤ {UNTRACED_LIMIT} × Hamilton's adapter",
            case,
            ratio(wall[peers.UNTRACED], hamilton),
            UNTRACED_LIMIT,
            f"{_us(wall[peers.UNTRACED])} against {_us(hamilton)} µs",
        )
        yield _compared(
            "traced per node ≤ Hamilton's adapter + SDK floor",
            case,
            replace(ratio(traced, with_floor), of_medians=statistics.median(traced) / allowed),
            FLOOR_LIMIT,
            f"{_us(traced)} against {_us(hamilton)} + {_us(wall[peers.FLOOR])} µs",
        )
        for tracer in (peers.HAMILTON_TRACED, peers.HAMILTON_TRACED_HASHED):
            yield _compared(
                f"traced per node ≤ {TRACER_LIMIT} × {tracer}",
                case,
                ratio(traced, wall[tracer]),
                TRACER_LIMIT,
                f"{_us(traced)} against {_us(wall[tracer])} µs",
            )
        for peer in (peers.DASK, peers.JOBLIB, peers.GRAPHLIB, peers.DISTRIBUTED):
            if peer in wall and len(wall[peer]) == len(hamilton):
                yield _compared(
                    f"untraced per node ≤ {peer}",
                    case,
                    ratio(wall[peers.UNTRACED], wall[peer]),
                    PEER_LIMIT,
                    f"{_us(wall[peers.UNTRACED])} against {_us(wall[peer])} µs",
                )


def _orchestrators(results: Results) -> Iterator[Check]:
    for case in results.cases(orchestrators.SECTION):
        traced = results.get(orchestrators.SECTION, case, peers.TRACED, "wall")
        prefect = results.get(orchestrators.SECTION, case, peers.PREFECT, "wall")
        if traced is not None and prefect is not None:
            yield _compared(
                f"traced per node ≤ {peers.PREFECT}",
                case,
                ratio(traced.values, prefect.values),
                PEER_LIMIT,
                f"{traced.median:,.0f} against {prefect.median:,.0f} µs",
            )


def _priorities(results: Results) -> Iterator[Check]:
    """Averages over all DAGs, the worst of them, and the worst against FIFO on the same DAG."""
    for section in (priorities.VIRTUAL_SECTION, priorities.REAL_SECTION):
        together = {order: priorities.all_of(results, section, order) for order in priorities.ORDERS}
        fifo = together[priorities.FIFO]
        if not fifo:
            continue
        case = f"{section}, {len(fifo)} DAGs"
        for order, limit in ((priorities.COLD, COLD_LIMIT), (priorities.WARM, WARM_LIMIT)):
            found = together[order]
            over = max(value / other for value, other in zip(found, fifo, strict=True))
            for target, value, most in (
                (f"makespan ≤ {limit} × lower bound on average, {order}", statistics.fmean(found), limit),
                (f"makespan ≤ {MAKESPAN_LIMIT} × lower bound at most, {order}", max(found), MAKESPAN_LIMIT),
                (f"makespan ≤ {OVER_FIFO_LIMIT} × that in FIFO order at most, {order}", over, OVER_FIFO_LIMIT),
            ):
                yield Check(target=target, case=case, value=value, paired=value, limit=most, close=False)


def _makespans(results: Results) -> Iterator[Check]:
    for case in results.cases(makespan.SECTION):
        simulated = [
            results.get(makespan.SECTION, case, name, makespan.MEASURE) for name in (makespan.FIFO, makespan.FORESIGHT)
        ]
        for peer in (peers.UNTRACED, peers.TRACED):
            found = results.get(makespan.SECTION, case, peer, makespan.MEASURE)
            if found is None:
                continue
            low, high = quartiles(found.values)
            fifo, foreseeing = (0.0 if each is None else each.median for each in simulated)
            yield Check(
                target=f"makespan ≤ {MAKESPAN_LIMIT} × lower bound, {peer}",
                case=case,
                value=found.median,
                paired=found.median,
                limit=MAKESPAN_LIMIT,
                close=low <= MAKESPAN_LIMIT < high,
                remark=f"least {min(found.values):.3f}; simulated {fifo:.3f}, foreseeing {foreseeing:.3f}",
            )


def _attribution(results: Results) -> Iterator[Check]:
    """By the pairs: the two take turns, and the machine's speed changes more between rounds than they differ."""
    for case in results.cases(attribution.SECTION):
        on = results.get(attribution.SECTION, case, attribution.ON, "wall")
        off = results.get(attribution.SECTION, case, attribution.OFF, "wall")
        if on is not None and off is not None:
            found = ratio(on.values, off.values)
            low, high = found.paired_interval
            yield Check(
                target="attribution costs ≤ 1 % of throughput",
                case=case,
                value=found.paired,
                paired=found.paired,
                limit=ATTRIBUTION_LIMIT,
                close=low <= ATTRIBUTION_LIMIT < high,
                remark=f"{_us(on.values)} against {_us(off.values)} µs",
            )


def _growth(results: Results) -> Iterator[Check]:
    cases = results.cases(overhead.SIZES_SECTION)
    if len(cases) < 2:
        return
    small, large = cases[0], cases[-1]
    for peer in (peers.UNTRACED, peers.DEFAULT, peers.TRACED, peers.TRACED_WHOLE):
        few = results.get(overhead.SIZES_SECTION, small, peer, "wall")
        many = results.get(overhead.SIZES_SECTION, large, peer, "wall")
        if few is not None and many is not None:
            yield _compared(
                f"per node at {large} ≤ {GROWTH_LIMIT} × that at {small}, {peer}",
                f"{large} / {small}",
                ratio(many.values, few.values),
                GROWTH_LIMIT,
                f"{_us(many.values)} against {_us(few.values)} µs",
            )


def _memory(results: Results) -> Iterator[Check]:
    for case in results.cases(memory.SECTION):
        for peer, other in (
            (peers.UNTRACED, peers.HAMILTON),
            (peers.DEFAULT, peers.HAMILTON),
            (peers.TRACED, peers.HAMILTON_TRACED_HASHED),
        ):
            found = results.get(memory.SECTION, case, peer, memory.PEAK)
            against = results.get(memory.SECTION, case, other, memory.PEAK)
            if found is not None and against is not None:
                yield _compared(
                    f"peak memory ≤ {other}, {peer}",
                    case,
                    ratio(found.values, against.values),
                    MEMORY_LIMIT,
                    f"{found.median:,.0f} against {against.median:,.0f} bytes",
                )


def _compared(target: str, case: str, found: Ratio, limit: float, remark: str) -> Check:
    low, high = found.paired_quartiles
    return Check(
        target=target,
        case=case,
        value=found.of_medians,
        paired=found.paired,
        limit=limit,
        close=low <= limit < high,
        remark=remark,
    )


def _us(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f}"
