"""A nightly backup of twelve volumes: compressed, sealed and checked on eight threads, with two CPUs.

What is wrong: LZMA and SHA-256 compute without the GIL, so that all eight threads could compute at once, but there
are two CPUs to do it. The threads take turns, and each node takes several times as long as it computes.

The cure: more CPUs (the container's limit is the first thing to look at), or less to compute: a quicker
preset. Until then no more threads than CPUs: two need less time than twelve. On a machine with more
than two CPUs the program confines itself to two, as a container would.
"""

import hashlib
import lzma
import random
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from .families import each, together
from .pathology import Amount, Pathology
from .program import main

VOLUMES = ("home", "mail", "photos", "wiki", "code", "tickets", "billing", "stock", "orders", "logs", "web", "audit")
RECORDS = 110_000
PRESET = 2
ROUNDS = 400_000  # of the key's derivation


@each(VOLUMES, "archive_{}", volume="{}")
def archive_of_volume(snapshots: dict[str, bytes], volume: str) -> bytes:
    return lzma.compress(snapshots[volume], preset=PRESET)


@each(VOLUMES, "digest_{}", volume="{}", archive="archive_{}")
def digest_of_archive(snapshots: dict[str, bytes], volume: str, archive: bytes) -> bytes:
    """The digest of what the archive gives back, which must be what went in."""
    digest = hashlib.sha256(lzma.decompress(archive)).digest()
    if digest != hashlib.sha256(snapshots[volume]).digest():
        raise ValueError(f"the archive of {volume!r} is damaged")
    return digest


@each(VOLUMES, "seal_{}", digest="digest_{}")
def seal_of_archive(digest: bytes, derivation_rounds: int) -> str:
    """The digest under a key, which is derived slowly on purpose."""
    return hashlib.pbkdf2_hmac("sha256", b"correct horse battery staple", digest, derivation_rounds).hex()


@together(VOLUMES, archives="archive_{}", seals="seal_{}")
def manifest(archives: list[bytes], seals: list[str]) -> list[str]:
    rows = zip(VOLUMES, archives, seals, strict=True)
    return [f"{volume}: {len(archive):,} bytes, seal {seal[:12]}" for volume, archive, seal in rows]


@contextmanager
def _inputs(amount: Amount) -> Generator[Mapping[str, Any], None, None]:
    making = random.Random(amount.seed)
    records = [b"%d;%s;%d\n" % (number, making.randbytes(9).hex().encode(), number % 977) for number in range(5_000)]
    snapshots = {
        volume: b"".join(making.choices(records, k=count)) for volume, count in amount.shares(VOLUMES, RECORDS).items()
    }
    yield {"snapshots": snapshots, "derivation_rounds": amount.count(ROUNDS)}


PATHOLOGY = Pathology(output="manifest", workers=12, inputs=_inputs, cpus=2)

if __name__ == "__main__":
    sys.exit(main("cpu_starved"))
