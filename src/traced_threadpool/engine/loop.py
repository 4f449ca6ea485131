"""What the pool keeps of each worker loop, so that nothing is lost with one that is interrupted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

from traced_threadpool.engine.scheduler import Scheduler
from traced_threadpool.engine.work import Work


class Loop:
    """One worker loop, one helper, or one node that runs elsewhere: counted from the moment it is planned, with what it
    has in hand.
    """

    __slots__ = ("call", "elsewhere", "following", "planner", "scheduler", "submitted", "thread", "to_begin", "work")

    def __init__(self, scheduler: Scheduler, elsewhere: Work | None = None) -> None:
        self.elsewhere = elsewhere is not None
        self.planner = threading.get_ident()
        self.scheduler = scheduler
        self.submitted = False
        self.call: Future[None] | None = None
        self.thread: threading.Thread | None = None
        self.to_begin = [self]  # empty from when it has begun
        self.work = elsewhere
        self.following: Work | None = None  # taken, while it is told of the end of `work`

    def in_hand(self) -> Iterator[Work]:
        return (work for work in (self.work, self.following) if work is not None)
