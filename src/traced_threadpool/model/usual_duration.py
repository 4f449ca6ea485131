"""How long executions of a node usually take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class UsualDuration:
    """Median and 95th percentile of the latest executions, in seconds, and how many there have been in all."""

    p50_seconds: float
    p95_seconds: float
    count: int
