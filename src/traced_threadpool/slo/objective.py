"""What a team promises of its runs, checked.

>>> Objective.parse(run="etl", availability="99.9", latency="30s")
Objective(run='etl', pool=None, availability=Decimal('99.9'), latency_seconds=30.0, latency=Decimal('99'), \
fresh_seconds=None)

A latency is measured by a histogram, which knows how many runs took less than one of its bounds and nothing in between:

>>> Objective.parse(run="etl", availability="99.9", latency="45s")
Traceback (most recent call last):
...
ValueError: a latency of 45s is not a bucket bound of hamilton_run_duration_seconds, so the runs below it cannot be \
counted; the nearest bounds are 30s and 1m. Use one of these, or add the bound to the histogram \
(Metrics(run_duration_buckets=...)) and pass its bounds to --buckets
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from traced_threadpool.model.keyword_hints import explained, explains_keywords
from traced_threadpool.slo.promql import duration, quoted
from traced_threadpool.telemetry import names

MOST_SECONDS: Final = 100 * 365 * 86_400

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "": 1.0}


@explained
@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Percentages of runs: `availability` do not fail, and of those `latency` take at most `latency_seconds`.

    Without `run` it holds for every run, each on its own; so with `pool`. `fresh_seconds` is how old the last success
    may be.
    """

    run: str | None = None
    pool: str | None = None
    availability: Decimal
    latency_seconds: float | None = None
    latency: Decimal = Decimal(99)
    fresh_seconds: float | None = None

    @classmethod
    @explains_keywords("Objective.parse")
    def parse(
        cls,
        *,
        availability: str,
        run: str | None = None,
        pool: str | None = None,
        latency: str | None = None,
        latency_objective: str = "99",
        fresh_within: str | None = None,
        bounds: Sequence[float] = names.RUN_BUCKETS,
    ) -> Objective:
        """From words such as `99.9` and `30s`.

        Raises:
            ValueError: One of them makes no sense. The message says what to write instead.
        """
        for what, name in (("run", run), ("pool", pool)):
            if name is not None:
                quoted(name, what)
        return cls(
            run=run,
            pool=pool,
            availability=percentage(availability),
            latency_seconds=None if latency is None else bound(latency, bounds),
            latency=percentage(latency_objective),
            fresh_seconds=None if fresh_within is None else seconds(fresh_within),
        )


def percentage(text: str) -> Decimal:
    """
    >>> percentage("99.9%")
    Decimal('99.9')
    >>> percentage("100")
    Traceback (most recent call last):
    ...
    ValueError: an objective of 100 % leaves no error budget, so nothing can alert; write 99.9, for example
    """
    try:
        number = Decimal(text.strip().removesuffix("%").rstrip())
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise ValueError(f"an objective of {text!r} is not a percentage; write 99.9")
    if number == 100:
        raise ValueError("an objective of 100 % leaves no error budget, so nothing can alert; "
                         "write 99.9, for example")  # fmt: skip
    if not 0 < number < 100:
        raise ValueError(f"an objective of {text} must be above 0 and below 100 percent; write 99.9, for example")
    if number < 1:
        raise ValueError(f"an objective of {text} means {number} percent of runs; write {number * 100:f} if a share of "
                         f"{number} is meant")  # fmt: skip
    return number


def seconds(text: str) -> float:
    """
    >>> [seconds(text) for text in ("250ms", "30s", "2m", "26h", "30")]
    [0.25, 30.0, 120.0, 93600.0, 30.0]
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None or not float(found[1]):
        raise ValueError(f"{text!r} is not a duration; write 500ms, 30s, 2m, 26h or 7d")
    number = float(Decimal(found[1]) * Decimal(str(_UNITS[found[2]])))
    if number > MOST_SECONDS:
        raise ValueError(f"{text!r} is longer than 100 years, which Prometheus cannot query")
    return number


def bound(text: str, bounds: Sequence[float]) -> float:
    """A duration that is one of a histogram's bounds."""
    wanted = seconds(text)
    if wanted in bounds:
        return wanted
    nearest = [max((each for each in bounds if each < wanted), default=None),
               min((each for each in bounds if each > wanted), default=None)]  # fmt: skip
    near = " and ".join(duration(each) for each in nearest if each is not None)
    raise ValueError(
        f"a latency of {duration(wanted)} is not a bucket bound of {names.RUN_DURATION.prometheus}, so the runs below "
        f"it cannot be counted; the nearest {'bounds are' if ' and ' in near else 'bound is'} {near}. Use one of "
        "these, or add the bound to the histogram (Metrics(run_duration_buckets=...)) and pass its bounds to --buckets"
    )
