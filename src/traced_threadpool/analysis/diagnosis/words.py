"""What sentences are made of, under the names by which this package knows it."""

from __future__ import annotations

from traced_threadpool.model.formatting import count, listed, share, shortened
from traced_threadpool.model.formatting import duration as seconds

__all__ = ["count", "listed", "seconds", "share", "shortened"]
