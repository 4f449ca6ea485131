"""Actions into samples of each, taken in turns so that a change of the machine's mood meets all of them alike."""

from __future__ import annotations

import gc
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time

from benchmarks.peers import Peer, Run

Action = Callable[[], Mapping[str, float]]
"""Does something once, and says how much of each measure it took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What one peer took in one case, in the order of the rounds."""

    section: str
    case: str
    peer: str
    measure: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One series over another."""

    of_medians: float
    paired: float
    """The median of the ratios of each round: robust where the machine's speed changes between rounds."""
    paired_quartiles: tuple[float, float]
    paired_interval: tuple[float, float]
    """Where that median lies with a confidence of 95 %, whatever the values are distributed like."""


class Results:
    """All series, to be asked by section, case, peer and measure."""

    def __init__(self, series: Sequence[Series]) -> None:
        self.series = tuple(series)
        self._by_key = {(each.section, each.case, each.peer, each.measure): each for each in series}

    def get(self, section: str, case: str, peer: str, measure: str) -> Series | None:
        return self._by_key.get((section, case, peer, measure))

    def cases(self, section: str) -> list[str]:
        return list(dict.fromkeys(each.case for each in self.series if each.section == section))

    def peers(self, section: str, case: str) -> list[str]:
        found = (each.peer for each in self.series if (each.section, each.case) == (section, case))
        return list(dict.fromkeys(found))


def per_node(section: str, case: str, nodes: int, taken: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Series]:
    """Seconds of whole runs, by peer and measure, into microseconds per node."""
    return [
        Series(
            section=section,
            case=case,
            peer=peer,
            measure=measure,
            unit="µs/node",
            values=tuple(value / nodes * 1e6 for value in values),
        )
        for peer, samples in taken.items()
        for measure, values in samples.items()
    ]


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third.

    >>> quartiles([1, 2, 3, 4, 5])
    (2.0, 4.0)
    >>> quartiles([7])
    (7, 7)
    """
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Between which values the median of what they were drawn from lies, with a confidence of 95 % and more.

    Each value is above that median or below, as a coin falls. Of five or fewer no two values are that sure.

    >>> median_interval(range(1, 21))
    (6, 15)
    >>> median_interval([3, 1, 2])
    (1, 3)
    """
    ordered, count = sorted(values), len(values)
    outside, below = 0, 0.0
    while outside < (count - 1) // 2 and (below := below + math.comb(count, outside) / 2**count) <= 0.025:
        outside += 1
    outside = max(0, outside - 1)
    return ordered[outside], ordered[-1 - outside]


def ratio(values: Sequence[float], others: Sequence[float]) -> Ratio:
    """How many times as much as the others.

    >>> ratio([10, 40, 30], [10, 20, 10])
    Ratio(of_medians=3.0, paired=2.0, paired_quartiles=(1.5, 2.5), paired_interval=(1.0, 3.0))
    """
    each = [value / other for value, other in zip(values, others, strict=True)]
    return Ratio(
        of_medians=statistics.median(values) / statistics.median(others),
        paired=statistics.median(each),
        paired_quartiles=quartiles(each),
        paired_interval=median_interval(each),
    )


def take_turns(
    actions: Mapping[str, Action], *, rounds: int, choice: random.Random
) -> dict[str, dict[str, tuple[float, ...]]]:
    """Every action once in each round, in an order drawn anew, with the garbage collected before each.

    Returns the samples by action and measure. A round before the first is not counted.
    """
    taken: dict[str, dict[str, list[float]]] = {name: {} for name in actions}
    for round_number in range(-1 if rounds > 1 else 0, rounds):
        for name in choice.sample(list(actions), len(actions)):
            gc.collect()
            amounts = actions[name]()
            if round_number >= 0:
                for measure, amount in amounts.items():
                    taken[name].setdefault(measure, []).append(amount)
    return {name: {key: tuple(values) for key, values in each.items()} for name, each in taken.items()}


def timed(peer: Peer, run: Run, expected: int, times: int = 1) -> Action:
    """The time of a run: by the clock until its result is there, by the CPUs until its spans are gone.

    Raises:
        RuntimeError: When called: the run gives another value than expected.
    """

    def action() -> Mapping[str, float]:
        wall = 0.0
        cpu_started = process_time()
        for _ in range(times):
            started = perf_counter()
            value = run()
            wall += perf_counter() - started
            if value != expected:
                raise RuntimeError(f"{peer!r} made {value!r} of the DAG, and {expected!r} is right")
            peer.drain()
        return {"wall": wall / times, "cpu": (process_time() - cpu_started) / times}

    return action
