"""What is left of the runs of a pool into when they will be over, made anew as often as it may cost.

Of thousands of nodes that takes tens of milliseconds. Who asks for the first time waits for it, and so does who asks
seldom. Else such a one is made on a thread of its own, once the answer that asked for it is there, and until it is made
the last one is given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final

from traced_threadpool.engine.pool_look import PoolLook, RunLook
from traced_threadpool.engine.work import Run, Work
from traced_threadpool.live.eta import NodeLeft, RunEnd, predict_ends
from traced_threadpool.live.pace import Pace
from traced_threadpool.model import forks
from traced_threadpool.model.lock_backoff import ObserverLock, release_owned
from traced_threadpool.model.usual_duration import UsualDuration
from traced_threadpool.waits.reasons import in_subinterpreter

SHARE: Final = 0.01
"""Of a CPU, at most, for who asks all the time."""

MOST_REUSED_SECONDS: Final = 2.0

AT_ONCE_SECONDS: Final = 0.005
"""What took longer, the caller does not wait for again,"""

OLDEST_SECONDS: Final = 5.0
"""unless the last one is older."""

Plan = Mapping[str, Sequence[str]]
"""The nodes of a run in the order in which they are submitted, each with its inputs."""

Usual = Callable[[str], UsualDuration | None]

SUBMITTED: Final = attrgetter("submitted_ns")


class Prediction:
    """Predicts, and remembers what the next prediction needs.

    Args:
        usual: How long a node of that name usually takes, None where that is not known.
        plan: The nodes that a run will have, None where that is not known.
    """

    def __init__(self, usual: Usual, plan: Callable[[Run], Plan | None]) -> None:
        self.share, self.at_once_seconds, self.oldest_seconds = SHARE, AT_ONCE_SECONDS, OLDEST_SECONDS
        self._usual = usual
        self._plan = plan
        self._known = _Known(at=0.0, until=0.0, took_seconds=0.0, ends={})
        self._runs: dict[Run, _Watched] = {}
        self._wanted: PoolLook | None = None
        self._reset_after_fork()
        forks.register(self._reset_after_fork)

    def _reset_after_fork(self) -> None:
        self._lock = ObserverLock()
        self._making: threading.Thread | None = None

    def ends(self, look: PoolLook) -> Mapping[Run, RunEnd]:
        """When each run will be over, counted from now. From now on the durations of its nodes are watched."""
        known = self._known
        if not all(each.run in known.ends for each in look.runs):
            return self._predict_now(look)
        now = time.monotonic()
        if now >= known.until:
            took_long = known.took_seconds > self.at_once_seconds
            if not took_long or now > known.at + self.oldest_seconds or in_subinterpreter():
                return self._predict_now(look)
            self._wanted = look
        return {run: _counted_from_now(end) for run, end in known.ends.items()}

    def _predict_now(self, look: PoolLook) -> Mapping[Run, RunEnd]:
        self._known = known = self._predict(look)
        return known.ends

    def make_wanted(self) -> None:
        """Begins with what `ends` has left to be made, for who asks next. Its caller has its answer by now."""
        with self._lock:
            look, self._wanted = self._wanted, None
            if look is None or (self._making is not None and self._making.is_alive()):
                return
            self._making = threading.Thread(
                target=self._predict_aside, args=(look, self._known), name="traced-threadpool-prediction", daemon=True
            )
            try:
                self._making.start()
            except RuntimeError:  # the interpreter is at its end, or no thread can be started
                self._making = None
                self._known = replace(self._known, ends={})  # who asks next makes it

    def _predict_aside(self, look: PoolLook, before: _Known) -> None:
        try:
            made = self._predict(look)
        except BaseException:
            release_owned(ObserverLock)
            made = replace(before, ends={})  # who asks next makes it, and hears of it
        if self._known is before:  # else somebody who saw a run that has come since was faster
            self._known = made

    def _watch(self, look: PoolLook) -> Mapping[Run, _Watched]:
        with self._lock:
            watched = {run: one for run, one in self._runs.items() if run.pending or not run.closed}
            for each in look.runs:
                if each.run not in watched:
                    watched[each.run] = _Watched(each.run, self._usual)
            self._runs = watched
        return watched

    def _predict(self, look: PoolLook) -> _Known:
        began = time.thread_time()
        watched = self._watch(look)
        left: list[NodeLeft] = []
        reasons: dict[Hashable, str] = {}
        lanes = {lane.backend: place for place, lane in enumerate(look.lanes)}
        for each in look.runs:
            plan = self._plan(each.run)
            if plan is None:
                reasons[each.run] = "how many nodes it will have is not known yet"
            _add_what_is_left(left, each, plan or {}, lanes, watched[each.run].usual(), look.now_ns)
        limits = [lane.limit for lane in look.lanes]
        looked_at = time.time() - (time.monotonic_ns() - look.now_ns) / 1e9
        found = predict_ends(left, limits, reasons=reasons, now=looked_at)
        took_seconds = time.thread_time() - began
        now = time.monotonic()
        return _Known(
            at=now,
            until=now + min(MOST_REUSED_SECONDS, took_seconds / self.share),
            took_seconds=took_seconds,
            ends={each.run: found[each.run] for each in look.runs if each.run in found},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """A prediction: when it was made and until when it is good, in seconds of the monotonic clock, and what it took."""

    at: float
    until: float
    took_seconds: float
    ends: Mapping[Run, RunEnd]


class _Watched:
    """A run that somebody looks at: the usual durations as of the first look, and its pace since."""

    def __init__(self, run: Run, usual: Usual) -> None:
        self._usual = usual
        self._known: dict[str, UsualDuration | None] = {}
        self._pace = Pace(self._before)
        run.learn = self._pace.learning(run.learn)

    def _before(self, name: str) -> UsualDuration | None:
        """How long a node of that name usually took before this run."""
        try:
            return self._known[name]
        except KeyError:
            self._known[name] = usual = self._usual(name)
            return usual

    def usual(self) -> Usual:
        """How long the nodes that are left may take."""
        factor, before = self._pace.factor(), self._before
        if factor == 1.0:
            return before

        def at_this_pace(name: str) -> UsualDuration | None:
            usual = before(name)
            if usual is None:
                return None
            return UsualDuration(
                p50_seconds=factor * usual.p50_seconds, p95_seconds=factor * usual.p95_seconds, count=usual.count
            )

        return at_this_pace


def _add_what_is_left(
    left: list[NodeLeft], look: RunLook, plan: Plan, lanes: Mapping[str, int], usual: Usual, now_ns: int
) -> None:
    """The nodes of a run that have not ended, submitted or not, inputs before what needs them."""
    run = look.run
    ranks = run.ranks or {}
    place: dict[Work, int] = {}
    by_name: dict[str, int] = {}

    def add(work: Work, elapsed: float | None = None, upstream: Sequence[int] = ()) -> None:
        name = work.name
        place[work] = by_name[name] = len(left)
        left.append(
            NodeLeft(
                name=name,
                run=run,
                lane=lanes[work.backend],
                upstream=upstream,
                elapsed_seconds=elapsed,
                usual=usual(name),
                rank=ranks.get(name, 0.0),
            )
        )

    for work in look.running:
        add(work, max(0, now_ns - (work.started_ns or now_ns)) / 1e9)
    for work in look.ready:
        add(work)
    inputs = dict(zip(look.blocked, look.inputs, strict=True))
    for work in sorted(look.blocked, key=SUBMITTED):
        add(work, None, [place[upstream] for upstream in inputs[work] if upstream in place])
    for name in list(plan)[look.submitted :]:
        by_name[name] = len(left)
        upstream = [by_name[other] for other in plan[name] if other in by_name]
        left.append(NodeLeft(name=name, run=run, upstream=upstream, usual=usual(name), rank=ranks.get(name, 0.0)))


def _counted_from_now(run_end: RunEnd) -> RunEnd:
    end = run_end.end
    if end.at is None or end.seconds is None or end.earliest_seconds is None or end.latest_seconds is None:
        return run_end
    passed = max(0.0, end.seconds - (end.at - time.time()))
    return replace(
        run_end,
        end=replace(
            end,
            seconds=max(0.0, end.seconds - passed),
            earliest_seconds=max(0.0, end.earliest_seconds - passed),
            latest_seconds=max(0.0, end.latest_seconds - passed),
        ),
    )
