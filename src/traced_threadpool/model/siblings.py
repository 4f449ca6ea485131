"""Which nodes are alike, by their names."""

from __future__ import annotations


def stem(name: str) -> str:
    """A name without its last word or number: nodes that have it in common do the same for different things.

    >>> stem("prices_hansen"), stem("page_maps_12"), stem("shard7"), stem("join")
    ('prices', 'page_maps', 'shard', 'join')
    """
    return name.rpartition("_")[0] or name.rstrip("0123456789") or name
