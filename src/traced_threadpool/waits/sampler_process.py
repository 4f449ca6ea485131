"""The life of the sampler's process, from its start to its end.

It is told over a socket whom to sample, samples what is active, and parks while nothing is. It ends when its socket is
closed, which is how it learns of the program's end however that came about. It is no child of the program. Where it
cannot but be one, because the program is pid 1, it ends as soon as a thread of the program waits for any child.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from time import monotonic_ns, process_time_ns

from traced_threadpool.waits import protocol
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.classify import table_for, waits_for_any_child
from traced_threadpool.waits.sampled_process import SampledProcess, gil_there
from traced_threadpool.waits.sampler import FRESH_NS, LEAST_NS, Pace, Sampler

TYPE_CHECKING = False  # as in `typing`, the import of which takes long
if TYPE_CHECKING:
    from collections.abc import Callable

ACCOUNT_ROUNDS = 4
"""After so many rounds their cost is read."""

LINGER_NS = 100_000_000
"""How long it goes on sampling when no node runs, before it parks."""

CHECK_SECONDS = 1.0
"""How often it is checked, beside the socket, that the program is still there, and waits for no child."""


def serve(sampler: Sampler, words: memoryview[int], channel: int, is_over: Callable[[], bool]) -> None:
    """Samples what is active, parks when nothing is, answers questions; returns when the channel is closed.

    The channel is to send SIGIO, which is to be blocked, when something is said. `is_over` is asked once a second.
    """
    pace = Pace()
    said = [int(signal.SIGIO)]
    before_ns = active_ns = account_ns = checked_ns = monotonic_ns()
    cpu_ns, rounds, interval_ns = process_time_ns(), 0, LEAST_NS
    words[shm.PHASE] = shm.SAMPLING
    while True:
        # Evenly spread over half to one and a half intervals, so as not to beat with the work; the clock's last
        # digits are chance enough.
        due_ns = before_ns + interval_ns * (500 + before_ns % 1_000) // 1_000
        # A question neither puts the next sample off nor brings it on: it comes at a run's end.
        while (left_ns := due_ns - monotonic_ns()) > 0:
            if signal.sigtimedwait(said, left_ns / 1e9) is not None and not _answer(sampler, channel):
                return
        now_ns = monotonic_ns()
        if sampler.sample(now_ns, now_ns - before_ns):
            active_ns = now_ns
        elif now_ns - active_ns > LINGER_NS:
            words[shm.PHASE] = shm.PARKED
            # A node that starts now sees that it must wake us, or is seen here.
            while not sampler.is_needed():
                if signal.sigtimedwait(said, CHECK_SECONDS) is not None and not _answer(sampler, channel):
                    return
                if is_over():
                    return
            words[shm.PHASE] = shm.SAMPLING
            active_ns = now_ns = monotonic_ns()
        if now_ns - checked_ns > CHECK_SECONDS * 1e9:
            checked_ns = now_ns
            if is_over():
                return
        before_ns = now_ns
        words[shm.ROUNDS] += 1
        rounds += 1
        if rounds >= ACCOUNT_ROUNDS or interval_ns > FRESH_NS // ACCOUNT_ROUNDS:
            used_ns = process_time_ns()
            interval_ns = pace.interval_ns(
                cost_ns=used_ns - cpu_ns,
                elapsed_ns=now_ns - account_ns,
                rounds=rounds,
                share=max(1, words[shm.BUDGET_PPM]) / 1e6,
            )
            words[shm.CPU_NS], words[shm.INTERVAL_NS] = used_ns, interval_ns
            cpu_ns, account_ns, rounds = used_ns, now_ns, 0


def _answer(sampler: Sampler, channel: int) -> bool:
    """Reads all that was said. False: the other side is gone."""
    try:
        while said := os.read(channel, 64):
            if said[:1] == protocol.HOLDERS:
                run_number = int(said[1:])
                holders = " ".join(f"{who}={caused_ns}" for who, caused_ns in sampler.holders(run_number))
                os.write(channel, f"{run_number} {holders}".encode())
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def refusal(proc: str, thread: int) -> str | None:
    """Why the system calls of a thread cannot be read; None when they can."""
    try:
        descriptor = os.open(f"{proc}/task/{thread}/syscall", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return None if os.read(descriptor, 256) else "it is empty"
        finally:
            os.close(descriptor)
    except OSError as error:
        return os.strerror(error.errno or 0)


def exists(pid: int) -> bool:
    """Whether there is such a process, which may have ended without being collected."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def watch(pid: int) -> Callable[[], bool]:
    """Gives what tells whether that process has ended."""
    import select

    try:
        ends = select.poll()
        ends.register(os.pidfd_open(pid), select.POLLIN)
    except (OSError, AttributeError):  # a kernel before 5.3
        return lambda: not exists(pid)
    return lambda: bool(ends.poll(0))


def is_child_waited_for(proc: str, machine: str) -> bool:
    """Whether a thread of a process waits for any child of it."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"{proc}/task"):  # noqa: PTH208  # pathlib is slow to import
            with contextlib.suppress(OSError), open(f"{proc}/task/{thread}/syscall", "rb") as file:  # noqa: PTH123  # likewise
                if waits_for_any_child(file.read(), machine):
                    return True
    return False


def main(*, fork: bool = False) -> None:
    """What the sampler's process does: as it is, or forked from the one that was started, which then ends."""
    with contextlib.suppress(Exception):  # who adopts it may take an exit status for that of a process of its own
        if fork:
            pid = os.fork()
            if pid:
                os.write(protocol.CHANNEL, b"%d" % pid)
                return
            os.setsid()
        _main()


def _main() -> None:
    import fcntl  # these two are not on Windows
    import resource

    os.chdir("/")
    with open("/proc/self/comm", "wb") as file:  # noqa: PTH123  # pathlib is slow to import
        file.write(protocol.COMM)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # as above
        if int(name) > protocol.CHANNEL:
            with contextlib.suppress(OSError):
                os.close(int(name))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # one for each worker
    told = os.read(protocol.CHANNEL, 4_096).decode().split("\n", 7)
    if len(told) < 8:
        return
    program, pointer_bytes, address, holder_address, ident_offset, runtime = map(int, told[:6])
    machine = told[6]
    proc = f"{told[7]}/{program}"
    is_its_child = os.getppid() == program
    if is_its_child and program != 1:
        os.write(protocol.CHANNEL, protocol.ORPHANED)
        return
    while (reason := refusal(proc, program)) is not None:
        os.write(protocol.CHANNEL, protocol.REFUSED + reason.encode())
        if os.read(protocol.CHANNEL, 64) != protocol.AGAIN:
            return
    words = shm.SharedMemory(protocol.MEMORY).words
    table = table_for(machine, pointer_bytes)
    gil_address = None if address < 0 else address

    def far(process: int, runtime_there: int) -> SampledProcess:
        gil = gil_there(runtime_there, gil_address=gil_address, own_runtime=runtime, no_gil=shm.NO_GIL)
        return SampledProcess(f"{told[7]}/{process}", table, gil_address=gil)

    sampler = Sampler(
        words,
        SampledProcess(proc, table, gil_address=gil_address),
        far=far,
        holder_address=None if holder_address < 0 else holder_address,
        ident_offset=None if ident_offset < 0 else ident_offset,
    )
    has_ended = watch(program)

    def is_over() -> bool:
        return has_ended() or (is_its_child and is_child_waited_for(proc, machine))

    # What is said from now on comes as a signal, which is taken when it suits.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
    fcntl.fcntl(protocol.CHANNEL, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(protocol.CHANNEL, fcntl.F_SETFL, os.O_RDWR | os.O_ASYNC | os.O_NONBLOCK)
    gc.disable()  # nothing here makes cycles
    os.write(protocol.CHANNEL, protocol.READY)
    serve(sampler, words, protocol.CHANNEL, is_over)
