"""A run that has ended into what `explain` says first of it, for the run's span; and when that is not looked for.

The caller waits for its run's span, and a diagnosis replays the run. So it is looked for where it takes, as far as can
be told from the number of nodes, at most a hundredth of the run; and given up where that was told wrong. How a failed
or cancelled run ended is its cause, and costs nothing.

It would be of no use if it differed from what `explain` says. So nothing is said of a run beside which others had the
pool, of which the record is not whole yet; nor of runs nested in another, which are explained with that, unless they
failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from traced_threadpool.model.records import cause_by_outcome

if TYPE_CHECKING:
    from traced_threadpool.model.recorded_run import RecordedRun
    from traced_threadpool.model.records import KeptNodes, RunRecord

SHARE: Final = 0.01
"""It may take this part of the run's time,"""

MOST_SECONDS: Final = 0.5
"""and no more than this."""

NODE_SECONDS: Final = 0.0008
"""What it takes for each node: measured 0.4 to 0.8 ms (docs/internals/diagnosis.md)."""

FIRST_SECONDS: Final = 0.1
"""What the first one takes on top, for what it imports."""


_outcome: Final = attrgetter("outcome")


class RunFinding:
    """Args:
    diagnose: Gives the first finding's cause of a record, or None if it takes until after this time of `clock`.
    clock: In seconds.
    """

    def __init__(
        self,
        diagnose: Callable[[RecordedRun, float], str | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._diagnose = diagnose
        self._clock = clock
        self._first_seconds = FIRST_SECONDS

    def of(self, run: RunRecord, kept: KeptNodes) -> str | None:
        """The cause; None where it is not looked for."""
        if not kept.whole:
            return None
        cause = cause_by_outcome(run.outcome or "success", map(_outcome, kept.nodes))
        if cause == "failing_upstream" or (cause is not None and not kept.nests):  # else a nested one may have failed
            return cause
        may_take_seconds = min(SHARE * run.duration_ns / 1e9, MOST_SECONDS)
        if run.recorded is None or self._first_seconds + NODE_SECONDS * run.node_count > may_take_seconds:
            return None
        until = self._clock() + may_take_seconds
        self._first_seconds = 0.0
        return self._diagnose(run.recorded(), until)
