"""What threads of this process do right now, on threads that do it."""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.dags import eventually
from traced_threadpool.live.thread_now import ThreadNow, ThreadsNow, stack_of

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir() or not Path("/proc/self/syscall").exists(), reason="needs Linux's /proc"
)


@contextmanager
def thread_in(function: Callable[[], object]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    yield thread


def look(threads: ThreadsNow, thread: threading.Thread) -> ThreadNow:
    ident = thread.ident
    assert ident is not None
    assert thread.native_id is not None
    return threads.look(thread.native_id, stack=lambda: sys._current_frames().get(ident))


def test_a_socket_is_named_by_its_other_end() -> None:
    """The address of who does not answer."""
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    host, port = server.getsockname()
    try:
        with thread_in(lambda: client.recv(1)) as thread:
            assert eventually(lambda: look(ThreadsNow(), thread) == ThreadNow("network", f"{host}:{port}"))
    finally:
        accepted, _ = server.accept()
        accepted.close()
        client.close()
        server.close()


def test_a_lock_is_named_by_the_line_that_waits_for_it() -> None:
    """Of this file, not of the standard library."""
    lock, items = threading.Lock(), queue.Queue[int]()
    lock.acquire()

    def wait_for_lock() -> None:
        with lock:
            pass

    def wait_for_item() -> None:
        items.get()

    with thread_in(wait_for_lock) as one, thread_in(wait_for_item) as other:
        for thread, function in ((one, wait_for_lock), (other, wait_for_item)):
            line = f"{Path(__file__).name}:{function.__code__.co_firstlineno + 1}"
            assert eventually(lambda thread=thread, line=line: look(ThreadsNow(), thread) == ThreadNow("lock", line))
    lock.release()
    items.put(1)


def test_sleep_and_cpu() -> None:
    """What waits for nothing and nobody."""
    end = threading.Event()

    def compute() -> None:
        while not end.is_set():
            sum(range(1000))

    with thread_in(lambda: time.sleep(60)) as sleeper, thread_in(compute) as computer:
        assert eventually(lambda: look(ThreadsNow(), sleeper) == ThreadNow("sleep"))
        assert eventually(lambda: look(ThreadsNow(), computer) == ThreadNow("cpu"))
        end.set()


def test_a_thread_that_is_gone_says_nothing(tmp_path: Path) -> None:
    """Nor does a machine without `/proc`."""
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert eventually(lambda: look(ThreadsNow(), thread) == ThreadNow())  # the kernel's task goes a moment later
    assert look(ThreadsNow(proc=tmp_path), threading.current_thread()) == ThreadNow()


def test_a_stack_has_lines_and_names_and_no_values() -> None:
    """Outermost first; local variables are nobody's business."""
    seen: list[tuple[str, ...]] = []

    def inner(secret: str) -> None:
        seen.append(stack_of(sys._getframe()))

    inner("hunter2")
    assert "inner" in seen[0][-1]
    assert str(Path(__file__)) in seen[0][-1]
    assert "test_a_stack_has_lines" in seen[0][-2]
    assert "hunter2" not in "".join(seen[0])
