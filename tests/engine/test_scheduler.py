"""The scheduler's invariants, over random DAGs, random worlds around them, and a virtual clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traced_threadpool.engine.scheduler import BLOCKED, ENDED, READY, RUNNING, RunQueue, Scheduler, Task


@dataclass
class World:
    """Adds tasks and ends them in an order that hypothesis draws, and keeps its own account of what happened."""

    scheduler: Scheduler
    started: list[Task] = field(default_factory=list)
    running: list[Task] = field(default_factory=list)
    ended_well: set[Task] = field(default_factory=set)
    failed: set[Task] = field(default_factory=set)
    unrun: set[Task] = field(default_factory=set)
    added: list[Task] = field(default_factory=list)
    now_ns: int = 0

    def add(self, task: Task, inputs: list[Task]) -> None:
        self.now_ns += 1
        self.added.append(task)
        if not self.scheduler.add(task, inputs, self.now_ns):
            self._note_unrun([task])
        self.check()

    def take(self) -> None:
        task = self.scheduler.take()
        if task is not None:
            assert task.state == RUNNING
            assert task not in self.started, "a task runs once"
            assert all(upstream in self.ended_well for upstream in task.inputs), "never before its inputs"
            self.started.append(task)
            self.running.append(task)
        self.check()

    def end(self, index: int, *, failed: bool) -> None:
        self.now_ns += 1
        task = self.running.pop(index % len(self.running))
        (self.failed if failed else self.ended_well).add(task)
        self._note_unrun(self.scheduler.end(task, self.now_ns, failed=failed))
        self.check()

    def cancel(self, queue: RunQueue) -> None:
        self.now_ns += 1
        self._note_unrun(self.scheduler.cancel(self.scheduler.unstarted(queue), self.now_ns))
        assert not self.scheduler.unstarted(queue)
        self.check()

    def _note_unrun(self, tasks: list[Task] | tuple[Task, ...]) -> None:
        for task in tasks:
            assert task not in self.unrun | set(self.started), "a task ends once"
            assert task.state == ENDED
            assert task.failed
            self.unrun.add(task)

    def check(self) -> None:
        """The counts that gauges show are those of the tasks themselves."""
        scheduler = self.scheduler
        assert scheduler.ready_count == sum(task.state == READY for task in self.added)
        assert scheduler.blocked_count == sum(task.state == BLOCKED for task in self.added)
        assert scheduler.running == set(self.running)
        assert scheduler.busy_count == len(self.running) <= scheduler.max_workers

    def finish(self) -> None:
        while self.scheduler.ready_count or self.running:
            self.take()
            if self.running and (not self.scheduler.ready_count or len(self.running) == self.scheduler.max_workers):
                self.end(0, failed=False)


@st.composite
def plans(draw: st.DrawFn) -> list[tuple[int, list[int]]]:
    """For each task, the run that it belongs to and which earlier tasks are its inputs, a task possibly twice."""
    size = draw(st.integers(1, 25))
    return [
        (draw(st.integers(0, 2)), draw(st.lists(st.integers(0, number - 1), max_size=4)) if number else [])
        for number in range(size)
    ]


moves = st.lists(
    st.one_of(
        st.just(("add", 0)),
        st.just(("take", 0)),
        st.tuples(st.sampled_from(["end", "fail"]), st.integers(0, 7)),
        st.tuples(st.just("cancel"), st.integers(0, 2)),
    ),
    max_size=80,
)


@given(plan=plans(), moves=moves, max_workers=st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_every_task_ends_exactly_once_whatever_fails_or_is_cancelled(
    plan: list[tuple[int, list[int]]], moves: list[tuple[str, int]], max_workers: int
) -> None:
    """Run, doomed or cancelled: one of these for each task, never before its inputs, nothing left at the end."""
    world = World(Scheduler(max_workers))
    queues = [RunQueue() for _ in range(3)]
    tasks = [Task(f"node{number}", queue=queues[run]) for number, (run, _) in enumerate(plan)]
    waiting = list(zip(tasks, plan, strict=True))

    def add_next() -> None:
        task, (_, inputs) = waiting.pop(0)
        world.add(task, [tasks[number] for number in inputs])

    for move, argument in moves:
        if move == "add" and waiting:
            add_next()
        elif move == "take":
            world.take()
        elif move in ("end", "fail") and world.running:
            world.end(argument, failed=move == "fail")
        elif move == "cancel":
            world.cancel(queues[argument])
    while waiting:
        add_next()
    world.finish()

    assert world.ended_well | world.failed | world.unrun == set(tasks)
    assert set(world.started) == world.ended_well | world.failed
    assert all(task.state == ENDED and task.dependents is None for task in tasks)
    for task in tasks:
        if task in world.unrun and any(upstream.failed for upstream in task.inputs):
            assert task.cause is None or task.cause in world.failed | world.unrun
        if task in world.started:
            assert not any(upstream.failed for upstream in task.inputs)


@given(plan=plans(), max_workers=st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_no_worker_idles_while_a_task_is_ready(plan: list[tuple[int, list[int]]], max_workers: int) -> None:
    """After `take` gave nothing, either nothing is ready or every slot is held."""
    world = World(Scheduler(max_workers))
    queue = RunQueue()
    tasks = [Task(f"node{number}", queue=queue) for number in range(len(plan))]
    for task, (_, inputs) in zip(tasks, plan, strict=True):
        world.add(task, [tasks[number] for number in inputs])
        while True:
            before = len(world.running)
            world.take()
            if len(world.running) == before:
                break
        assert not world.scheduler.ready_count or len(world.running) == max_workers
    world.finish()


@given(lengths=st.lists(st.integers(1, 30), min_size=2, max_size=6))
def test_runs_take_turns(lengths: list[int]) -> None:
    """On one worker, no run gets its n-th turn before every other run with work left has had its n-1-th."""
    scheduler = Scheduler(1)
    queues = [RunQueue() for _ in lengths]
    for number, (queue, length) in enumerate(zip(queues, lengths, strict=True)):
        for _ in range(length):
            scheduler.add(Task(str(number), queue=queue), [], 0)
    turns = [0] * len(lengths)
    while (task := scheduler.take()) is not None:
        turns[int(task.name)] += 1
        left = [turn for turn, length in zip(turns, lengths, strict=True) if turn < length]
        assert turns[int(task.name)] <= min(left, default=10**9) + 1
        scheduler.end(task, 0)
    assert turns == lengths


@given(first_failed=st.permutations(range(4)), failing=st.sets(st.integers(0, 3), min_size=1))
def test_the_first_failed_input_in_order_is_the_cause(first_failed: list[int], failing: set[int]) -> None:
    """In whatever order inputs end, a task falls with the one that waiting for them in turn would have met."""
    scheduler = Scheduler(4)
    queue = RunQueue()
    inputs = [Task(f"input{number}", queue=queue) for number in range(4)]
    for task in inputs:
        scheduler.add(task, [], 0)
        scheduler.take()
    dependent = Task("dependent", queue=queue)
    scheduler.add(dependent, inputs, 0)
    for position, number in enumerate(first_failed):
        gone = set(first_failed[: position + 1])
        scheduler.end(inputs[number], position, failed=number in failing)
        expected = next((n for n in range(4) if n not in gone or n in failing), None)
        doomed = expected is not None and expected in gone
        assert (dependent.state == ENDED) == doomed
        if doomed:
            assert expected is not None
            assert dependent.cause is inputs[expected]
            break


@given(depth=st.integers(1, 6), max_workers=st.integers(1, 3), width=st.integers(1, 4))
def test_nested_runs_always_go_on(depth: int, max_workers: int, width: int) -> None:
    """A task that waits for a run nested in it can lend its slot, however deep, however few workers there are."""
    scheduler = Scheduler(max_workers)
    ran: list[str] = []

    def run_and_nest(task: Task, level: int) -> None:
        ran.append(task.name)
        if level < depth:
            nested = RunQueue(parent=task)
            for number in range(width if level == 1 else 1):
                scheduler.add(Task(f"{task.name}.{number}", queue=nested), [], 0)
            while nested.waiting():
                inner = scheduler.take(task)
                assert inner is not None, "the slot of a task that waits is there for what it waits for"
                assert scheduler.take(task) is None, "a slot is lent to one task at a time"
                run_and_nest(inner, level + 1)
        scheduler.end(task, 0)

    scheduler.add(Task("outer", queue=RunQueue()), [], 0)
    outer = scheduler.take()
    assert outer is not None
    run_and_nest(outer, 1)
    assert len(ran) == 1 + sum(width for _ in range(depth - 1))
    assert (scheduler.busy_count, scheduler.ready_count, scheduler.running) == (0, 0, set())


def test_a_lent_slot_is_not_for_strangers() -> None:
    """A waiting task's slot runs no other run's task, which might be long, while another worker could."""
    scheduler = Scheduler(2)
    outer, stranger = Task("outer", queue=RunQueue()), Task("stranger", queue=RunQueue())
    scheduler.add(outer, [], 0)
    scheduler.take()
    scheduler.add(stranger, [], 0)
    scheduler.park(outer)
    assert scheduler.take(outer) is None
    assert scheduler.take() is stranger


def test_when_every_worker_waits_a_lent_slot_takes_anything() -> None:
    """With all workers waiting, nobody else would run the task that they may all be waiting for."""
    scheduler = Scheduler(1)
    outer, stranger = Task("outer", queue=RunQueue()), Task("stranger", queue=RunQueue())
    scheduler.add(outer, [], 0)
    scheduler.take()
    scheduler.add(stranger, [], 0)
    assert scheduler.take(outer) is None
    scheduler.park(outer)
    assert scheduler.take(outer) is stranger


def test_a_chain_of_20_000_falls_without_recursion() -> None:
    """Failure goes down a DAG of any depth in linear time."""
    scheduler = Scheduler(1)
    queue = RunQueue()
    chain = [Task(str(number), queue=queue) for number in range(20_000)]
    for number, task in enumerate(chain):
        scheduler.add(task, chain[number - 1 : number] if number else [], 0)
    scheduler.take()
    doomed = scheduler.end(chain[0], 1, failed=True)
    assert [task.name for task in doomed] == [task.name for task in chain[1:]]
    assert all(task.cause is chain[0] for task in doomed)


def test_the_oldest_ready_task_is_found_among_all_runs() -> None:
    """Also when the head of a queue was cancelled."""
    scheduler = Scheduler(1)
    queues = [RunQueue(), RunQueue()]
    tasks = [Task(str(number), queue=queues[number % 2]) for number in range(4)]
    for number, task in enumerate(tasks):
        scheduler.add(task, [], number + 1)
    scheduler.cancel([tasks[0]], 9)
    assert scheduler.oldest_ready() is tasks[1]


@pytest.mark.parametrize("is_added_before", [True, False])
def test_no_task_is_ready_before_an_input_has_ended(is_added_before: bool) -> None:
    """Also where a thread is held up after it has read the clock, so that what came later is told of earlier."""
    scheduler, run = Scheduler(2), RunQueue()
    first, second, both = (Task(name, queue=run) for name in ("first", "second", "both"))
    scheduler.add(first, [], 1)
    scheduler.add(second, [], 2)
    assert (scheduler.take(), scheduler.take()) == (first, second)
    if is_added_before:
        scheduler.add(both, [first, second], 3)
    scheduler.end(second, 900)
    scheduler.end(first, 50)
    if not is_added_before:
        scheduler.add(both, [first, second], 3)
    assert both.ready_ns >= 900
