"""Limits of backends in the scheduler: never more than so many, nothing forgotten, the others unhindered."""

from __future__ import annotations

import random

import pytest

from traced_threadpool.engine.limits import Limits
from traced_threadpool.engine.scheduler import BLOCKED, ENDED, HELD, READY, RUNNING, RunQueue, Scheduler, Task


def task(name: str, queue: RunQueue, backend: str = "db") -> Task:
    made = Task(name, queue=queue)
    made.backend = backend
    return made


def test_what_is_beyond_the_limit_is_held() -> None:
    """It is no ready task, holds no slot and lets those of other backends by; it goes on when one of its own ends."""
    scheduler, run = Scheduler(max_workers=4, limits={"db": 1}), RunQueue()
    first, second, other = task("first", run), task("second", run), task("other", run, "threads")
    for each in (first, second, other):
        scheduler.add(each, [], now_ns=5)
    assert (scheduler.ready_count, scheduler.queue_depth, second.state) == (2, 3, HELD)
    assert [scheduler.take(), scheduler.take(), scheduler.take()] == [first, other, None]
    assert scheduler.oldest_ready() is second
    scheduler.end(first, now_ns=9)
    assert scheduler.take() is second
    assert second.ready_ns == 5


def test_runs_take_turns() -> None:
    """A run with many held tasks does not keep another's from its backend."""
    scheduler, many, few = Scheduler(max_workers=1, limits={"db": 1}), RunQueue(), RunQueue()
    tasks = [task(f"many-{number}", many) for number in range(4)]
    for each in tasks:
        scheduler.add(each, [], now_ns=0)
    last = task("few", few)
    scheduler.add(last, [], now_ns=1)
    order = []
    while (taken := scheduler.take()) is not None:
        order.append(taken.name)
        scheduler.end(taken, now_ns=2)
    assert order == ["many-0", "many-1", "few", "many-2", "many-3"]


def test_the_order_within_a_run_is_that_of_its_ranks() -> None:
    scheduler = Scheduler(max_workers=1, limits={"db": 1})
    run = RunQueue(ranks={"long": -9.0, "short": -1.0})
    for name in ("first", "short", "long"):
        scheduler.add(task(name, run), [], now_ns=0)
    order = []
    while (taken := scheduler.take()) is not None:
        order.append(taken.name)
        scheduler.end(taken, now_ns=1)
    assert order == ["first", "long", "short"]


def test_a_nested_task_is_not_held() -> None:
    """The outer one waits for it, and would wait for ever."""
    scheduler, run = Scheduler(max_workers=1, limits={"db": 1}), RunQueue()
    outer = task("outer", run)
    scheduler.add(outer, [], now_ns=0)
    assert scheduler.take() is outer
    inner = task("inner", RunQueue(parent=outer))
    scheduler.add(inner, [], now_ns=1)
    scheduler.park(outer)
    assert scheduler.take(outer) is inner


def test_what_runs_elsewhere_needs_no_slot() -> None:
    """It is let go within its backend's limit, however many slots there are; whatever else is ready keeps its own."""
    scheduler, run = Scheduler(max_workers=1, limits={"far": 2, "db": 1}, elsewhere=["far"]), RunQueue()
    first, second, third = (task(name, run, "far") for name in ("first", "second", "third"))
    here, after = task("here", run, "db"), task("after", run, "threads")
    for each in (first, second, third, here):
        scheduler.add(each, [], now_ns=0)
    scheduler.add(after, [first], now_ns=0)
    assert (scheduler.ready_count, scheduler.busy_count, scheduler.queue_depth) == (1, 0, 2)
    assert [scheduler.take_leaving(), scheduler.take_leaving(), scheduler.take_leaving()] == [first, second, None]
    assert (scheduler.take(), scheduler.busy_count, scheduler.running) == (here, 1, {first, second, here})
    scheduler.end(first, now_ns=1)
    assert (scheduler.take_leaving(), scheduler.take(), scheduler.busy_count) == (third, None, 1)
    scheduler.end(here, now_ns=2)
    assert (scheduler.take(), scheduler.busy_count) == (after, 1)


def test_cancelling_what_is_about_to_leave() -> None:
    """It never leaves, and the one behind it does in its place; what an interrupt made unknown is worked out again."""
    scheduler, run = Scheduler(max_workers=1, limits={"far": 1}, elsewhere=["far"]), RunQueue()
    first, second = task("first", run, "far"), task("second", run, "far")
    for each in (first, second):
        scheduler.add(each, [], now_ns=0)
    assert set(scheduler.unstarted(run)) == {first, second}
    assert scheduler.cancel([first], now_ns=1) == [first]
    assert (scheduler.take_leaving(), scheduler.take_leaving(), scheduler.busy_count) == (second, None, 0)
    assert scheduler.rebuild([run], [second], [], now_ns=2) == []
    assert (scheduler.take_leaving(), scheduler.running, scheduler.busy_count) == (second, {second}, 0)
    assert scheduler.rebuild([run], [second], [second], now_ns=3) == []
    assert (scheduler.take_leaving(), scheduler.running, scheduler.busy_count) == (None, {second}, 0)


def test_cancelling_what_is_held() -> None:
    """It ends like what is ready, and what is held behind it keeps its turn."""
    scheduler, run, other = Scheduler(max_workers=1, limits={"db": 1}), RunQueue(), RunQueue()
    first, second, third = task("first", run), task("second", run), task("third", other)
    for each in (first, second, third):
        scheduler.add(each, [], now_ns=0)
    assert scheduler.take() is first
    assert scheduler.cancel(scheduler.unstarted(run), 1) == [second]
    assert (second.state, scheduler.queue_depth) == (ENDED, 1)
    scheduler.end(first, now_ns=2)
    assert scheduler.take() is third


@pytest.mark.parametrize("seed", range(150))
def test_whatever_happens(seed: int) -> None:
    """Random graphs, runs, failures and cancels: limits hold at each step, counts are right, and all tasks end."""
    generator = random.Random(seed)
    limits = {"a": generator.randint(1, 3), "b": 1}
    scheduler = Scheduler(generator.randint(1, 5), limits)
    runs = [RunQueue(), RunQueue(ranks={f"task-{number}": float(-number) for number in range(0, 30, 3)})]
    tasks: list[Task] = []
    running: list[Task] = []

    def check() -> None:
        states = [each.state for each in tasks]
        assert scheduler.ready_count == states.count(READY)
        assert scheduler.queue_depth == states.count(READY) + states.count(HELD)
        assert scheduler.blocked_count == states.count(BLOCKED)
        assert scheduler.busy_count == len(running) <= scheduler.max_workers
        for backend, most in limits.items():
            assert sum(each.state in (READY, RUNNING) for each in tasks if each.backend == backend) <= most
            held = [each for each in tasks if each.backend == backend and each.state == HELD]
            assert not held or sum(each.state in (READY, RUNNING) for each in tasks if each.backend == backend) == most

    for number in range(40):
        made = task(f"task-{number}", generator.choice(runs), generator.choice(["a", "b", "threads"]))
        inputs = generator.sample(tasks, min(len(tasks), generator.randint(0, 3)))
        tasks.append(made)
        scheduler.add(made, inputs, now_ns=number)
        check()
        for _ in range(generator.randint(0, 3)):
            if generator.random() < 0.5:
                taken = scheduler.take()
                if taken is not None:
                    running.append(taken)
            elif running:
                ended = running.pop(generator.randrange(len(running)))
                scheduler.end(ended, now_ns=number, failed=generator.random() < 0.1)
            check()
        if generator.random() < 0.1:
            alive = [each for each in tasks if each.state != ENDED]
            scheduler.rebuild(runs, alive, set(running), number)
            check()
        if generator.random() < 0.03:
            scheduler.cancel(scheduler.unstarted(generator.choice(runs)), number)
            check()
    while (taken := scheduler.take()) is not None or running:
        if taken is not None:
            running.append(taken)
        else:
            scheduler.end(running.pop(), now_ns=99)
        check()
    assert {each.state for each in tasks} == {ENDED}


def test_a_task_of_no_backend_is_not_counted() -> None:
    limits, run = Limits({"db": 1}), RunQueue()
    other = task("other", run, "threads")
    assert limits.enter(other, (0.0, 1))
    assert limits.leave(other) is None
    assert limits.held_count == 0
