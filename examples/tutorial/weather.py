"""A bulletin of eight weather stations: ask each for its readings, find each peak, name the warmest."""

from __future__ import annotations

from typing import Any

from hamilton.function_modifiers import group, inject, parameterize, source, value

from examples.tutorial.client import Client

STATIONS = ("arlon", "bruges", "dinant", "eupen", "ghent", "liege", "mons", "namur")
TEXTS: dict[str, Any] = {f"text_{each}": {"station": value(each)} for each in STATIONS}
PEAKS: dict[str, Any] = {f"peak_{each}": {"text": source(f"text_{each}")} for each in STATIONS}


@parameterize(**TEXTS)
def text(station: str, client: Client) -> str:
    """Asks the station's service, which takes a while to answer."""
    return client.get(station)


@parameterize(**PEAKS)
def peak(text: str) -> float:
    """The highest mean of ten readings in a row."""
    celsius = [float(line.partition(",")[2]) for line in text.splitlines()]
    return max(sum(celsius[at : at + 10]) for at in range(len(celsius) - 9)) / 10


@inject(peaks=group(*(source(f"peak_{each}") for each in STATIONS)))
def bulletin(peaks: list[float]) -> str:
    """The warmest."""
    celsius, station = max(zip(peaks, STATIONS, strict=True))
    return f"warmest: {station}, {celsius:.1f} degrees"
