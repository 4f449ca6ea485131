"""Six newspapers: fetched, compared with themselves in pure Python, their places looked up by a client under a lock.

What is wrong, three things at once: the newspapers answer slowly (network); comparing paragraphs holds the
GIL, so that six threads compare no faster than one (GIL); all of them share one geocoding client, and
one at a time waits for its answers while the others wait for the lock (lock). The last two also harm each other:
whoever has got an answer has to wait for the GIL before the client is free again.

The cure: for each what its own program here says. First the comparing: it also holds up those who only want to go on
waiting.
"""

import sys
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from difflib import SequenceMatcher
from itertools import combinations, islice
from typing import Any

from .families import each, together
from .lock_convoy import Geocoder
from .pathology import Amount, Pathology
from .program import main
from .service import fetch, running_service

PAPERS = ("chronicle", "courier", "gazette", "herald", "observer", "tribune")
WORDS = 6_000
PARAGRAPH = 40
COMPARISONS = 8_500
ALIKE = 0.5
PLACES = 3
SECONDS = {"issues": 0.8, "locate": 0.06}


@each(PAPERS, "issue_{}", paper="{}")
def issue_of_paper(service_url: str, paper: str) -> str:
    text: str = fetch(service_url, f"/issues/{paper}?words={WORDS}")["text"]
    return text


@each(PAPERS, "reprints_{}", paper="{}", issue="issue_{}")
def reprints_in_paper(issue: str, comparisons: dict[str, int], paper: str) -> list[tuple[int, int]]:
    """Which paragraphs are so alike that they come from the same agency."""
    words = issue.split()
    paragraphs = [words[start : start + PARAGRAPH] for start in range(0, len(words), PARAGRAPH)]
    pairs = islice(combinations(range(len(paragraphs)), 2), comparisons[paper])
    return [
        (one, other)
        for one, other in pairs
        if SequenceMatcher(None, paragraphs[one], paragraphs[other]).ratio() > ALIKE
    ]


@each(PAPERS, "places_{}", paper="{}", issue="issue_{}")
def places_of_paper(geocoder: Geocoder, issue: str, paper: str) -> list[tuple[float, float]]:
    """Where the first words of an issue happened."""
    return [geocoder.locate(f"{paper}/{number}-{word}") for number, word in enumerate(issue.split()[:PLACES])]


@together(PAPERS, reprints="reprints_{}")
def most_original(reprints: list[list[tuple[int, int]]]) -> str:
    """The paper that repeats itself least."""
    return min(zip(map(len, reprints), PAPERS, strict=True))[1]


@together(PAPERS, places="places_{}")
def centre(places: list[list[tuple[float, float]]]) -> tuple[float, float]:
    """The middle of the news."""
    every = [place for of_paper in places for place in of_paper]
    return sum(east for east, _ in every) / len(every), sum(north for _, north in every) / len(every)


def front_page(most_original: str, centre: tuple[float, float]) -> str:
    return f"The {most_original.title()}, with news from around {centre[0]:.1f}, {centre[1]:.1f}"


@contextmanager
def _inputs(amount: Amount) -> Generator[Mapping[str, Any], None, None]:
    seconds = {path: amount.seconds(value) for path, value in SECONDS.items()}
    with running_service(seconds, seed=amount.seed) as url, closing(Geocoder(url)) as geocoder:
        yield {"service_url": url, "geocoder": geocoder, "comparisons": amount.shares(PAPERS, COMPARISONS)}


PATHOLOGY = Pathology(output="front_page", workers=12, inputs=_inputs)

if __name__ == "__main__":
    sys.exit(main("mixed"))
