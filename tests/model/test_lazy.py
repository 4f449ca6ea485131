"""A property that is worked out once, without a lock."""

from __future__ import annotations

import os
import threading

import pytest

from tests.dags import in_thread, run_process, wait_for
from traced_threadpool.model.lazy import lazy


def test_all_threads_see_one_value() -> None:
    """Two threads that work it out at once get the value of the one that is done first."""
    both = threading.Barrier(2)

    class Slow:
        @lazy
        def value(self) -> object:
            both.wait(60)
            return object()

    slow = Slow()
    first, second = in_thread(lambda: slow.value), in_thread(lambda: slow.value)
    assert first.result(60) is second.result(60) is slow.value


def test_one_object_does_not_wait_for_another() -> None:
    """While a thread works it out for one object, another object has its own."""
    inside, release = threading.Event(), threading.Event()

    class Held:
        def __init__(self, held: bool) -> None:
            self.held = held

        @lazy
        def value(self) -> int:
            if self.held:
                inside.set()
                wait_for(release)
            return 1

    held = in_thread(lambda: Held(True).value)
    wait_for(inside)
    assert in_thread(lambda: Held(False).value).result(60) == 1
    release.set()
    assert held.result(60) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_does_not_wait_for_a_thread_of_the_parent() -> None:
    """Forked while another thread works such a property out, it works it out for itself."""
    code, said, errors = run_process(
        """
from traced_threadpool.model.lazy import lazy

inside, release = threading.Event(), threading.Event()

class Held:
    held = False
    @lazy
    def value(self):
        if self.held:
            inside.set()
            release.wait(60)
        return 1

def hold():
    one = Held()
    one.held = True
    say("parent:", one.value)

thread = threading.Thread(target=hold)
thread.start()
inside.wait(60)
pid = os.fork()
if pid == 0:
    say("child:", Held().value)
    os._exit(0)
os.waitpid(pid, 0)
release.set()
thread.join()
"""
    )
    assert (code, said) == (0, ["child: 1", "parent: 1"]), errors
