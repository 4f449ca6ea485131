"""What is known of a node's waits for one lock, beyond how long they took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LockWait:
    """The lock that a node waited for, of several the one that it waited for longest.

    `name` is the same for all who wait for it. `line` is where the node's code does: `app.py:41`. `capacity` is how
    many may have it at once, None where nobody knows. `waits` is how often a node was found waiting, from
    `first_ns` after its start to `last_ns`.
    """

    name: str
    line: str = ""
    capacity: int | None = None
    waits: int = 1
    first_ns: int = 0
    last_ns: int = 0
