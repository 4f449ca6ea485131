"""Parcels for eight districts, located by one geocoding client that all threads share, under a lock.

What is wrong: the client holds one connection and is not made for several threads, so somebody put a lock around
each call. The call waits for the network, and whoever holds the lock waits there; seven others wait for the lock.
Eight threads are as fast as one.

The cure: a client for each thread (`threading.local`), or a small pool of clients; a lock only around what is shared
and quick. Asking for many addresses in one call also shortens the time under the lock.
"""

import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from .families import each, together
from .pathology import Amount, Pathology
from .program import main
from .service import ask, connect, running_service

DISTRICTS = ("harbour", "old_town", "north", "hill", "riverside", "station", "mills", "airport")
PARCELS = 5
SECONDS = {"locate": 0.08}


class Geocoder:
    """Addresses into places, over one connection."""

    def __init__(self, url: str) -> None:
        self._connection = connect(url)
        self._lock = threading.Lock()

    def locate(self, address: str) -> tuple[float, float]:
        """Where the address is."""
        with self._lock:
            _, document = ask(self._connection, f"/locate/{address}?figures=2")
        east, north = document["figures"]
        return east, north

    def close(self) -> None:
        """Give the connection up."""
        self._connection.close()


@each(DISTRICTS, "addresses_{}", district="{}")
def addresses_of_district(parcels: dict[str, list[int]], district: str) -> list[str]:
    return [f"{district}/{number}" for number in sorted(parcels[district])]


@each(DISTRICTS, "places_{}", addresses="addresses_{}")
def places_of_district(geocoder: Geocoder, addresses: list[str]) -> list[tuple[float, float]]:
    return [geocoder.locate(address) for address in addresses]


@each(DISTRICTS, "tour_{}", places="places_{}")
def tour_of_district(places: list[tuple[float, float]]) -> float:
    """The length of a tour that always goes to the nearest place left."""
    left = set(places)
    here, length = (0.0, 0.0), 0.0
    while left:
        nearest = min(left, key=lambda place: (_distance(here, place), place))
        length += _distance(here, nearest)
        here = nearest
        left.remove(nearest)
    return length


@together(DISTRICTS, tours="tour_{}")
def vans(tours: list[float]) -> dict[str, float]:
    """The longest tour first: it is loaded first."""
    return dict(sorted(zip(DISTRICTS, tours, strict=True), key=lambda tour: -tour[1]))


@contextmanager
def _inputs(amount: Amount) -> Generator[Mapping[str, Any], None, None]:
    seconds = {path: amount.seconds(value) for path, value in SECONDS.items()}
    # The seed decides which addresses they are and how long each takes, not how many: that would change the shape.
    parcels = {district: [amount.seed * 100 + number for number in range(PARCELS)] for district in DISTRICTS}
    with running_service(seconds, seed=amount.seed) as url, closing(Geocoder(url)) as geocoder:
        yield {"geocoder": geocoder, "parcels": parcels, "service_url": url}


def _distance(one: tuple[float, float], other: tuple[float, float]) -> float:
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


PATHOLOGY = Pathology(output="vans", workers=8, inputs=_inputs)

if __name__ == "__main__":
    sys.exit(main("lock_convoy"))
