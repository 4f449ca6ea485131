"""Satellite images, brightened and checked by worker processes that they have to be sent to and brought back from.

What is wrong: each image is tens of megabytes, and what is done to it takes less time than moving it to another process
and back, twice. The processes compute side by side, and yet the run takes longer than on threads.

The cure: threads for these nodes. Or one node for what is done to an image, which is handed its path and gives back its
checksum: then nothing large has to be moved.
"""

import random
import sys
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from .families import each, together
from .pathology import Amount, Pathology
from .program import main

REGIONS = ("andes", "baltic", "congo", "delta", "eifel", "faroe")
IMAGE_BYTES = 30_000_000
BRIGHTER = bytes(min(255, level + 40) for level in range(256))


@each(REGIONS, "image_{}", region="{}")
def image_of_region(image_bytes: dict[str, int], seed: int, region: str) -> bytes:
    return random.Random(f"{seed} {region}").randbytes(1_000) * (image_bytes[region] // 1_000)


@each(REGIONS, "brightened_{}", image="image_{}")
def brightened_of_region(image: bytes) -> bytes:
    return image.translate(BRIGHTER)


@each(REGIONS, "checksum_{}", brightened="brightened_{}")
def checksum_of_region(brightened: bytes) -> int:
    return zlib.crc32(brightened)


@together(REGIONS, checksums="checksum_{}")
def report(checksums: list[int]) -> list[str]:
    return [f"{region}: {checksum:08x}" for region, checksum in zip(REGIONS, checksums, strict=True)]


@contextmanager
def _inputs(amount: Amount) -> Generator[Mapping[str, Any], None, None]:
    yield {"image_bytes": amount.shares(REGIONS, IMAGE_BYTES), "seed": amount.seed}


PATHOLOGY = Pathology(
    output="report",
    workers=8,
    inputs=_inputs,
    on_processes=tuple(f"{what}_{region}" for what in ("brightened", "checksum") for region in REGIONS),
)

if __name__ == "__main__":
    sys.exit(main("transfer_bound"))
