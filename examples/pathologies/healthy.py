"""Three archives copied page by page from a service, packed and sealed on the way. For comparison: nothing is wrong.

Each page can be asked for when the one before has been acknowledged by its seal, so that an archive is a chain, and
there are three of them. The nodes wait for the network about as long as they compute without the GIL, none stands
out, two CPUs suffice for what is computed, and there is a worker for each chain and one to spare.

The cure: none. No setting makes this faster. What would is another protocol, which hands out more than one page at a
time.
"""

import hashlib
import lzma
import os
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hamilton.function_modifiers import group, parameterize, source, value

from .families import together
from .pathology import Amount, Pathology
from .program import main
from .service import fetch, running_service


class Packed(NamedTuple):
    """A page as it is kept, and the seal that acknowledges it."""

    data: bytes
    seal: str


ARCHIVES = ("letters", "maps", "prints")
PAGES = 6
PLACES = tuple((archive, number) for archive in ARCHIVES for number in range(1, PAGES + 1))
WORDS = 4_000
SECONDS = {"archives": 0.2}
DERIVED = 0.7  # of the time that the network takes; what is left is about what packing takes
ROUNDS_TIMED = 20_000  # of the seal's derivation, to find out how many take as long as the network
NOTHING = Packed(b"", "none")


PAGE_NODES: dict[str, Any] = {
    f"page_{archive}_{number}": {
        "archive": value(archive),
        "number": value(number),
        "before": source(f"packed_{archive}_{number - 1}") if number > 1 else value(NOTHING),
    }
    for archive, number in PLACES
}
PACKED_NODES: dict[str, Any] = {
    f"packed_{archive}_{number}": {"page": source(f"page_{archive}_{number}")} for archive, number in PLACES
}
STORED_NODES: dict[str, Any] = {
    f"stored_{archive}": {
        "archive": value(archive),
        "parts": group(*(source(f"packed_{archive}_{number}") for number in range(1, PAGES + 1))),
    }
    for archive in ARCHIVES
}


@parameterize(**PAGE_NODES)
def page(service_url: str, archive: str, number: int, before: Packed) -> str:
    """The next page, in return for the seal of the one before."""
    text: str = fetch(service_url, f"/archives/{archive}/{number}?words={WORDS}&seal={before.seal}")["text"]
    return text


@parameterize(**PACKED_NODES)
def packed(page: str, derivation_rounds: int) -> Packed:
    data = lzma.compress(page.encode())
    return Packed(data, hashlib.pbkdf2_hmac("sha256", data, b"archive", derivation_rounds).hex())


@parameterize(**STORED_NODES)
def stored(folder: Path, archive: str, parts: list[Packed]) -> int:
    """The whole archive in one file, on the disk: how many bytes it takes."""
    with (folder / archive).open("wb") as file:
        written = sum(file.write(part.data) for part in parts)
        file.flush()
        os.fsync(file.fileno())
    return written


@together(ARCHIVES, sizes="stored_{}")
def catalogue(sizes: list[int]) -> dict[str, int]:
    return dict(zip(ARCHIVES, sizes, strict=True))


def _rounds(seconds: float) -> int:
    """How many rounds of the derivation take so much CPU time: machines differ fourfold, by an instruction for it."""
    began = time.thread_time()
    hashlib.pbkdf2_hmac("sha256", b"page", b"archive", ROUNDS_TIMED)
    return max(1, round(ROUNDS_TIMED * seconds / max(1e-4, time.thread_time() - began)))


@contextmanager
def _inputs(amount: Amount) -> Generator[Mapping[str, Any], None, None]:
    seconds = {path: amount.seconds(length) for path, length in SECONDS.items()}
    with (
        tempfile.TemporaryDirectory(prefix="pathologies-") as folder,
        running_service(seconds, seed=amount.seed) as url,
    ):
        rounds = _rounds(DERIVED * seconds["archives"])
        yield {"service_url": url, "folder": Path(folder), "derivation_rounds": rounds}


PATHOLOGY = Pathology(output="catalogue", workers=4, inputs=_inputs)

if __name__ == "__main__":
    sys.exit(main("healthy"))
