"""Readings of 24 weather stations, each a quarter of a second away, on two workers.

What is wrong: the pool is sized as if the nodes computed. They wait for the network, where dozens could wait at the
same time, but only two may; all others wait in the queue. A node that takes 0.25 s is done two seconds after it
could have begun.

The cure: more workers; `--workers 24` takes a third of a second instead of three. For nodes that wait, the number
of workers is how many may wait at once, and has nothing to do with the number of CPUs.
"""

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from .families import each, together
from .pathology import Amount, Pathology
from .program import main
from .service import fetch, running_service

STATIONS = (
    "aberdeen", "bergen", "cork", "dover", "esbjerg", "falun", "galway", "husum", "inverness", "jever", "kiel",
    "lerwick", "malin", "narvik", "oban", "plymouth", "rostock", "skagen", "tiree", "ullapool", "vardo", "wick",
    "york", "zeebrugge",
)  # fmt: skip
HOURS = 24
SECONDS = {"readings": 0.25}


@each(STATIONS, "readings_{}", station="{}")
def readings_of_station(service_url: str, station: str) -> list[float]:
    """Wind speeds of the last day, hour by hour."""
    return [float(figure) for figure in fetch(service_url, f"/readings/{station}?figures={HOURS}")["figures"]]


@together(STATIONS, readings="readings_{}")
def daily_means(readings: list[list[float]]) -> dict[str, float]:
    return {station: fmean(hours) for station, hours in zip(STATIONS, readings, strict=True)}


@together(STATIONS, readings="readings_{}")
def gusts(readings: list[list[float]]) -> dict[str, float]:
    return {station: max(hours) for station, hours in zip(STATIONS, readings, strict=True)}


def bulletin(daily_means: dict[str, float], gusts: dict[str, float]) -> list[str]:
    """The windiest stations."""
    windiest = sorted(daily_means, key=lambda station: -daily_means[station])[:5]
    return [f"{station}: {daily_means[station]:.0f}, gusts of {gusts[station]:.0f}" for station in windiest]


@contextmanager
def _inputs(amount: Amount) -> Generator[Mapping[str, Any], None, None]:
    seconds = {path: amount.seconds(value) for path, value in SECONDS.items()}
    with running_service(seconds, seed=amount.seed) as url:
        yield {"service_url": url}


PATHOLOGY = Pathology(output="bulletin", workers=2, inputs=_inputs)

if __name__ == "__main__":
    sys.exit(main("pool_starved"))
