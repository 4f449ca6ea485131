"""No program has a child that it did not start: the sampler is an orphan, and nothing on the way to it is seen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dags import eventually, run_process
from tests.waits.test_faults import TOOLS, ended
from traced_threadpool.waits import protocol
from traced_threadpool.waits.spawn import MAX_ABANDONED, why_not_an_orphan

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are sampled on Linux")

FORKED = """
from traced_threadpool.waits import spawn
def refuse(*_):
    raise OSError("another C library")
spawn._Unseen.spawn = refuse
"""
"""Before a program: the sampler is started in the other way."""

WATCH = """
signals, seen, waited = [], [], []
signal.signal(signal.SIGCHLD, lambda *_: signals.append(1))

def watch():
    while not done.is_set():
        seen.extend(children())
        with contextlib.suppress(ChildProcessError):
            waited.append(os.waitpid(-1, os.WNOHANG))

done = threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
"""


def test_no_child_is_ever_there_to_be_seen() -> None:
    """While the sampler starts, works, is asked and ends: no child, nothing to wait for, no signal."""
    code, said, errors = run_process(
        TOOLS
        + WATCH
        + """
supervisor._closed_seconds = 0.1
for _ in range(3):
    pid = sampling()
    run(naps)
    while supervisor._thread is not None:
        time.sleep(0.01)
done.set()
watcher.join()
say(signals, seen, waited)
"""
    )
    assert (code, said) == (0, ["[] [] []"]), errors


@pytest.mark.parametrize("way", ["", FORKED], ids=["clone", "fork"])
@pytest.mark.parametrize("signals", ["SIG_DFL", "SIG_IGN"])
def test_a_program_has_no_child_while_the_sampler_runs(way: str, signals: str) -> None:
    """Whatever it does with the signal of a child's end, and in a forked child too."""
    code, said, errors = run_process(
        TOOLS
        + way
        + f"""
signal.signal(signal.SIGCHLD, signal.{signals})
def find():
    sampling()
    try:
        os.wait()
        return "a child"
    except ChildProcessError:
        return children()
say(find())
pid = os.fork()
if not pid:
    say(find())
    os._exit(0)
with contextlib.suppress(ChildProcessError):
    os.waitpid(pid, 0)
"""
    )
    assert (code, said) == (0, ["[]", "[]"]), errors


def test_a_node_that_waits_for_any_child_gets_its_own() -> None:
    """Before, while and after the sampler starts, in a worker and in the program; it is over when its own is."""
    code, said, errors = run_process(
        TOOLS
        + """
def reap() -> None:
    mine = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "0.4")
    got = []
    with contextlib.suppress(ChildProcessError):
        while True:
            got.append(os.wait()[0] == mine)
    say(got)

run(named("reap", reap))  # meanwhile the sampler starts, unless the machine is busy
until_it_is(lambda: supervisor.method.method == "process")
say(supervisor.method.method)
run(named("reap", reap))
reap()
"""
    )
    assert (code, said) == (0, ["[True]", "process", "[True]", "[True]"]), errors


def test_a_subreaper_has_no_sampler() -> None:
    """Orphans would come back to it, and it waits for any child: the reason is said, and it has none."""
    code, said, errors = run_process(
        TOOLS
        + """
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
until_it_is(lambda: supervisor.method.reason != "warming_up")
say(supervisor.method)
states = run(named("rests", lambda: time.sleep(0.3)))
say(states["rests"]["other"] > 0.25, children())
"""
    )
    assert (code, said) == (0, ["Method(method='none', reason='no_init')", "True []"]), errors


def test_a_subreaper_that_is_not_known_for_one() -> None:
    """Where the kernel cannot be asked before, the sampler sees whose child it is, and ends."""
    code, said, errors = run_process(
        TOOLS
        + """
from traced_threadpool.waits import spawn
spawn._is_subreaper = lambda: False
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
until_it_is(lambda: supervisor.method.reason != "warming_up")
say(supervisor.method)
say(children())
"""
    )
    assert (code, said) == (0, ["Method(method='none', reason='no_init')", "[]"]), errors


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0 or shutil.which("unshare") is None, reason="takes a PID namespace"
)
def test_pid_1_that_waits_for_any_child() -> None:
    """The sampler can but be its child: it says so, and the wait ends, for the sampler does."""
    inside = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespace is allowed here")
    code, said, errors = run_process(
        TOOLS
        + """
pid = sampling()
say(os.getpid(), supervisor.method, children() == [pid])
def reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            assert os.wait()[0] == pid  # unless the supervisor was first
run(named("reap", reap))
until_it_is(lambda: supervisor.method.method == "none")
say(supervisor.method, children())
pid = os.fork()
if not pid:
    own = sampling()
    say(supervisor.method, children())
    os._exit(0)
os.waitpid(pid, 0)
""",
        within=inside,
    )
    assert (code, said) == (
        0,
        [
            "1 Method(method='process', reason='is_init') True",
            "Method(method='none', reason='is_init') []",
            "Method(method='process', reason=None) []",
        ],
    ), errors


def test_an_init_that_collects_nothing(tmp_path: Path) -> None:
    """Samplers that have ended and stay behind are counted, and at some number no more is started."""
    folder = tmp_path / "1" / "task" / "1"
    folder.mkdir(parents=True)
    (folder / "children").write_text("".join(f"{pid} " for pid in range(10, 40)))

    def process(pid: int, name: bytes, state: str) -> None:
        (tmp_path / str(pid)).mkdir(exist_ok=True)
        (tmp_path / str(pid) / "comm").write_bytes(name)
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (traced-waits) {state} 1 7 7 0")

    process(39, b"cron\n", "Z")
    process(38, protocol.COMM, "S")
    for pid in range(10, 10 + MAX_ABANDONED):
        process(pid, protocol.COMM, "Z")
    assert why_not_an_orphan(tmp_path) is None
    process(37, protocol.COMM, "Z")
    assert why_not_an_orphan(tmp_path) == (
        f"pid 1 does not collect the processes that it adopts: {MAX_ABANDONED + 1} ended samplers are left"
    )
    assert why_not_an_orphan(tmp_path / "nowhere") is None


C_FORK = """
import faulthandler
def forked_in_c(work):
    "By the C function, without the handlers of `os.fork`."
    # A thread that waits for the GIL meanwhile waits for ever in the child, and takes the signals of others.
    while threading.active_count() > 2 or not supervisor.sleeps:
        time.sleep(0.05)
    time.sleep(0.1)
    pid = ctypes.PyDLL(None).fork()
    if pid:
        return pid
    os.setsid()
    faulthandler.dump_traceback_later(100, exit=True)
    try:
        work()
    finally:
        os._exit(0)
"""


def test_the_sampler_ends_though_a_forked_child_has_its_socket() -> None:
    """A fork in C keeps the parent's end of it open, as long as it runs no node; the parent is killed."""
    code, said, errors = run_process(
        TOOLS
        + C_FORK
        + """
say(sampling())
def child():
    for each in (0, 1, 2):  # else whoever reads them would wait for it
        os.close(each)
    time.sleep(100)
say(forked_in_c(child))
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    assert code == -9, errors
    own, child = map(int, said)
    try:
        assert eventually(lambda: ended(own))
        assert not ended(child)
    finally:
        os.kill(child, 9)


def test_a_child_forked_in_c_has_a_sampler_of_its_own() -> None:
    """It shares neither the parent's memory nor its socket, and the parent's go on."""
    code, said, errors = run_process(
        TOOLS
        + C_FORK
        + """
def memories():
    return len([each for each in links() if "waits" in each])
supervisor._idle_seconds = supervisor._closed_seconds = 300  # the child may take longer than usual
parents = sampling()
before = memories()
def child():
    try:
        run(naps)
        own = sampling()
        say(own != parents, children(), run(named("rests", lambda: time.sleep(0.3)))["rests"]["sleep"] > 0.2)
        say(memories() == before)
    except BaseException as error:
        say("child failed:", repr(error))
os.waitpid(forked_in_c(child), 0)
say(supervisor.method.method, supervisor._sampler.process.pid == parents, supervisor.holders(1))
say(run(named("rests", lambda: time.sleep(0.3)))["rests"]["sleep"] > 0.2)
"""
    )
    assert (code, said) == (0, ["True [] True", "True", "process True {}", "True"]), errors
