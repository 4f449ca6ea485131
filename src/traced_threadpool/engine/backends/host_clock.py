"""Moments by a worker's clock into moments by this process's.

Processes of one machine share the monotonic clock. Another machine's moments come by way of Unix time, and if its clock
is off they are moved so that they lie between sending the call and receiving its answer:

>>> local = HostClock(name="here", unix_offset_ns=0)
>>> there = HostClock(name="there", unix_offset_ns=5_000)  # Unix time minus its monotonic clock
>>> local.convert(there, started_ns=1_100, ended_ns=1_300, sent_ns=6_000, received_ns=6_500)
(6100, 6300, 0)
>>> local.convert(there, started_ns=100, ended_ns=300, sent_ns=6_000, received_ns=6_500)
(6000, 6200, 900)
>>> local.convert(local, started_ns=6_100, ended_ns=6_300, sent_ns=6_000, received_ns=6_500)
(6100, 6300, 0)
"""

from __future__ import annotations

import platform
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from traced_threadpool.model.records import unix_offset_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class HostClock:
    """A monotonic clock: whose it is, and what makes Unix time of it."""

    name: str
    unix_offset_ns: int

    def convert(
        self, other: HostClock, *, started_ns: int, ended_ns: int, sent_ns: int, received_ns: int
    ) -> tuple[int, int, int]:
        """A stretch by another clock, by this one, and by how much it was moved to lie within what is known here."""
        if other.name == self.name:
            return started_ns, ended_ns, 0
        difference_ns = other.unix_offset_ns - self.unix_offset_ns
        started_ns += difference_ns
        length_ns = min(ended_ns + difference_ns - started_ns, received_ns - sent_ns)
        begins_ns = min(max(started_ns, sent_ns), received_ns - length_ns)
        return begins_ns, begins_ns + length_ns, begins_ns - started_ns


def host_clock() -> HostClock:
    """This process's clock. Its offset is read anew, since Unix time is adjusted now and then."""
    return HostClock(name=_clock_name(), unix_offset_ns=unix_offset_ns())


@lru_cache(maxsize=1)
def _clock_name(proc: Path = Path("/proc")) -> str:
    """The same in all processes that share a monotonic clock, and in no others."""
    if platform.system() == "Linux":
        try:
            boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return uuid.uuid4().hex
        try:
            namespace = (proc / "self/ns/time").readlink().name
        except OSError:  # an older kernel, without time namespaces
            namespace = ""
        return boot + namespace
    return f"{platform.node()} {uuid.getnode()}"
