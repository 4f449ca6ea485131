"""What programs and their surroundings do to the sampler, in processes of their own: nothing hangs, nothing stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import traced_threadpool
from tests.dags import PATIENCE, eventually, run_process, start_process

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are sampled on Linux")

TOOLS = """
import contextlib, ctypes, time
from pathlib import Path
from prometheus_client import CollectorRegistry
from traced_threadpool.waits import shared_memory as shm
from traced_threadpool.waits.supervisor import supervisor

def naps() -> int:
    time.sleep(0.06)
    return 1

def named(name, function):
    def call() -> int:
        function()
        return 1
    call.__name__ = name
    return call

def run(*functions, budget=1.0):
    "Runs these nodes at once, closely sampled. By node and state: seconds, which add up to the node's duration."
    registry = CollectorRegistry()
    closely = Attribution(budget=budget)
    with FutureAdapter(len(functions), tracing=False, registry=registry, attribution=closely) as adapter:
        driver_of(adapter, *functions).execute([each.__name__ for each in functions])
        assert adapter.telemetry_errors == {}, adapter.telemetry_errors
    states, durations = {}, {}
    for sample in (each for family in registry.collect() for each in family.samples):
        node = sample.labels.get("node")
        if sample.name == "hamilton_node_time_seconds_total":
            states.setdefault(node, {})[sample.labels["state"]] = sample.value
        elif sample.name == "hamilton_node_duration_seconds_sum":
            durations[node] = sample.value
    for node, parts in states.items():
        assert sum(round(part * 1e9) for part in parts.values()) == round(durations[node] * 1e9), (parts, durations)
    return states

def sampling():
    "Works until the sampler is there; its process."
    until_it_is(lambda: supervisor.method.method == "process" and supervisor._sampler is not None)
    return supervisor._sampler.process.pid

def until_it_is(condition):
    "Works until the condition holds."
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, supervisor.method
        run(naps)

def links():
    "What is open here."
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(each))
    return found

def children():
    found = []
    for each in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += each.read_text().split()
    return sorted(map(int, found))
"""


def ended(pid: int) -> bool:
    """Whether a process is gone, or but waits to be collected by somebody who is not us."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


# The sampler ends with its process


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os._exit(3)", 3),
        ("sys.exit(4)", 4),
        ("pass", 0),
        ("raise SystemError", 1),
    ],
)
def test_the_sampler_ends_with_its_process(end: str, code: int) -> None:
    """However that ends, also while a node is running."""
    found, said, errors = run_process(
        TOOLS
        + f"""
say(sampling())
gate = threading.Event()
start(driver_of(FutureAdapter(1), named("held", lambda: gate.wait(0.3))), ["held"])
{end}
"""
    )
    assert found == code, errors
    assert eventually(lambda: ended(int(said[0])))


def test_ctrl_c_is_not_for_the_sampler() -> None:
    """A SIGINT to the whole group: it goes on until the program, which catches it, ends."""
    with start_process(
        TOOLS
        + """
signal.signal(signal.SIGINT, lambda *_: say("caught"))
pid = sampling()
say(pid)
sys.stdin.readline()
run(naps)
say(supervisor.method.method, supervisor._sampler.process.pid == pid)
"""
    ) as process:
        assert process.stdout is not None
        try:
            pid = int(process.stdout.readline())
            os.killpg(process.pid, signal.SIGINT)
            assert process.stdout.readline() == "caught\n"
            said, errors = process.communicate("go on\n", timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, said) == (0, "process True\n"), errors
    assert eventually(lambda: ended(pid))


def test_exit_while_a_node_is_in_a_call_that_never_returns() -> None:
    """`os._exit` is the way out of that; the sampler ends too, and others' states were right meanwhile."""
    code, said, errors = run_process(
        TOOLS
        + """
say(sampling())
stuck = FutureAdapter(1)
start(driver_of(stuck, named("stuck", ctypes.CDLL(None).pause)), ["stuck"])
states = run(named("rests", lambda: time.sleep(0.4)))
say(states["rests"]["sleep"] > 0.25)
os._exit(0)
"""
    )
    assert (code, said[1:]) == (0, ["True"]), errors
    assert eventually(lambda: ended(int(said[0])))


def test_a_program_that_dies_of_broken_pipes() -> None:
    """Does not die of a sampler that has been killed."""
    code, said, errors = run_process(
        TOOLS
        + """
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
for _ in range(3):
    pid = sampling()
    os.kill(pid, signal.SIGKILL)
    supervisor.wake_sampler()
    assert supervisor.holders(1) == {}
    until_it_is(lambda: supervisor.method.reason == "sampler_failed")
    say(supervisor.method.reason)
    supervisor._failed_at = None
"""
    )
    assert (code, said) == (0, ["sampler_failed"] * 3), errors


# What nodes do


def test_what_nodes_do_to_their_process() -> None:
    """Block all signals, fork, start a program, collect any child's exit: states add up, and the sampler lives."""
    code, said, errors = run_process(
        TOOLS
        + """
import subprocess

def blocks():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(0.2)

def forks():
    pid = os.fork()
    if not pid:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

def starts_a_program():
    subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)"], check=True)

def collects():
    for _ in range(20):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.01)

pid = sampling()
states = run(named("blocks", blocks))
say(states["blocks"]["sleep"] > 0.1)
run(named("forks", forks), named("rests", naps))
states = run(named("starts_a_program", starts_a_program))
say(states["starts_a_program"]["other"] > 0.15, states["starts_a_program"].get("lock", 0) < 0.15)
states = run(named("collects", collects))
say(supervisor.method.method, supervisor._sampler.process.pid == pid)
"""
    )
    assert (code, said) == (0, ["True", "True True", "process True"]), errors


def test_a_call_that_keeps_the_gil() -> None:
    """While a node is in one that blocks, all others wait for the lock, and it is named as who held it."""
    code, said, errors = run_process(
        TOOLS
        + """
sampling()
ready, done = threading.Event(), threading.Event()

def keeps():
    ready.wait()
    for _ in range(3):
        ctypes.PyDLL(None).usleep(200_000)
    done.set()

def victim():
    ready.set()
    while not done.is_set():
        time.sleep(0.001)

for _ in range(3):  # the kernel's word on who has it is read after the wait is: once may miss
    ready.clear()  # one that keeps the lock before the other has begun keeps it from beginning
    done.clear()
    states = run(named("keeps", keeps), named("victim", victim))
    if states["victim"].get("gil", 0) > 0.25:
        break
say(states["victim"]["gil"] > 0.25, states["keeps"].get("gil", 0) < 0.25)
held = {}
for number in range(supervisor.next_run_number()):
    for who, caused_ns in supervisor.holders(number).items():
        held[who] = held.get(who, 0) + caused_ns
say(max(held, key=held.get))
"""
    )
    assert (code, said) == (0, ["True True", "keeps"]), errors


def test_hundreds_of_threads() -> None:
    """All are sampled, within the budget; those that end are forgotten, and their places used again."""
    code, said, errors = run_process(
        TOOLS
        + """
sampling()
for _ in range(2):
    states = run(*[named(f"node_{each}", lambda: time.sleep(3.0)) for each in range(300)], budget=0.01)
    say(len(states), sum(each.get("sleep", 0) > 0.5 for each in states.values()) > 280)
rows = supervisor._memory.words[1]
say(rows <= 320)
"""
    )
    assert (code, said) == (0, ["300 True", "300 True", "True"]), errors


def test_few_descriptors() -> None:
    """With no more to be used nodes run, and what is missing is said."""
    code, said, errors = run_process(
        TOOLS
        + """
import resource
run(naps)
while supervisor._thread is not None:
    time.sleep(0.01)
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
used = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
states = run(named("rests", lambda: time.sleep(0.2)))
say(supervisor.method, states["rests"]["other"] > 0.1)
"""
    )
    assert code == 0, errors
    assert said[0].startswith("Method(method='none', reason='sampler_failed"), said
    assert said[0].endswith("True")


# What the kernel allows

AS_ANYBODY = ["setpriv", "--bounding-set", "-sys_ptrace"] if os.name == "posix" and os.geteuid() == 0 else []
"""Before a command: root may look at every process, and others may not."""

# Nothing imports NumPy before: it refuses to be in a second interpreter.
SUBINTERPRETER = """
import sys, textwrap
code = "import sys; sys.path[:] = " + repr(sys.path) + textwrap.dedent(
    '''
    import time, warnings
    warnings.simplefilter("ignore")  # NumPy's, which Hamilton imports: it is not made for subinterpreters
    import threading
    from hamilton import ad_hoc_utils, driver
    from prometheus_client import CollectorRegistry
    from traced_threadpool import FutureAdapter
    from traced_threadpool.waits.supervisor import supervisor

    def rests() -> int:
        time.sleep(0.3)
        return 1

    registry = CollectorRegistry()
    with FutureAdapter(1, tracing=False, registry=registry) as adapter:
        module = ad_hoc_utils.create_temporary_module(rests)
        driver.Builder().with_modules(module).with_adapters(adapter).build().execute(["rests"])
        assert adapter.telemetry_errors == {}, adapter.telemetry_errors
    states = {
        sample.labels["state"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "hamilton_node_time_seconds_total" and sample.value > 0.1
    }
    print(supervisor.method.method, supervisor.method.reason, *states, threading.active_count(), flush=True)
    '''
)
try:
    import _interpreters
    number = _interpreters.create("legacy")
    run_in = _interpreters.exec
except ImportError:
    import _xxsubinterpreters as _interpreters
    number = _interpreters.create(isolated=False)
    run_in = _interpreters.run_string
failure = run_in(number, code)
_interpreters.destroy(number)
print("destroyed", failure)
"""


def test_a_subinterpreter() -> None:
    """It is known for one, its waits are `other`, no thread stays in it, and so it can be destroyed."""
    source = f"import sys; sys.path.insert(0, {str(Path(traced_threadpool.__file__).parents[1])!r})\n"
    found = subprocess.run(
        [sys.executable, "-c", source + SUBINTERPRETER], capture_output=True, text=True, timeout=150, check=False
    )
    if "cannot load module more than once per process" in found.stdout + found.stderr:
        pytest.skip("the NumPy that Hamilton imports refuses to be in a subinterpreter of this Python")
    assert (found.returncode, found.stdout.splitlines()) == (
        0,
        ["none subinterpreter other 1", "destroyed None"],
    ), found.stderr


def test_a_process_that_the_kernel_keeps_from_view() -> None:
    """Not dumpable, as after a change of user: it is said, nodes go on, and nothing is left of the try."""
    code, said, errors = run_process(
        TOOLS
        + """
PR_SET_DUMPABLE = 4
assert ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
until_it_is(lambda: supervisor.method.reason != "warming_up")
say(supervisor.method)
states = run(named("rests", lambda: time.sleep(0.3)))
say(states["rests"]["other"] > 0.25, children())
""",
        within=AS_ANYBODY,
    )
    assert (code, said) == (0, ["Method(method='none', reason='proc_unreadable')", "True []"]), errors


@pytest.mark.skipif(not AS_ANYBODY or shutil.which("unshare") is None, reason="takes a mount of its own")
def test_a_proc_that_hides_the_processes_of_others() -> None:
    """With `hidepid`, one's own are there to be seen."""
    inside = ["unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh", *AS_ANYBODY]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount is allowed here")
    code, said, errors = run_process(
        TOOLS
        + """
sampling()
say(supervisor.method.method, run(named("rests", lambda: time.sleep(0.3)))["rests"]["sleep"] > 0.2)
""",
        within=inside,
    )
    assert (code, said) == (0, ["process True"]), errors


# Forks


def test_a_fork_while_workers_are_idle() -> None:
    """The child drops the parent's threads, and their rows in shared memory stay as they were."""
    code, said, errors = run_process(
        TOOLS
        + """
sampling()
both = threading.Barrier(2)
adapter = FutureAdapter(2)
pair = driver_of(adapter, named("one", lambda: both.wait(60)), named("two", lambda: both.wait(60)))
pair.execute(["one", "two"])
words = supervisor._memory.words
threads = lambda: words[shm.ROW + shm.THREAD : shm.ROW * (1 + words[shm.ROWS]) : shm.ROW].tolist()
before = threads()
pid = os.fork()
if not pid:
    os._exit(0)
os.waitpid(pid, 0)
say(sum(map(bool, before)) >= 2, threads() == before)
"""
    )
    assert (code, said) == (0, ["True True"]), errors


def test_a_forked_child_has_a_sampler_of_its_own() -> None:
    """And the parent keeps its own, on whose memory the child has not written."""
    code, said, errors = run_process(
        TOOLS
        + """
gate, started = threading.Event(), threading.Event()

def held() -> int:
    started.set()
    gate.wait(60)
    return 1

parents = sampling()
adapter = FutureAdapter(1)
future = start(driver_of(adapter, held), ["held"])["held"]
started.wait(60)
pid = os.fork()
if not pid:
    status = 1
    try:
        assert supervisor.method.reason == "warming_up", supervisor.method
        assert not [each for each in links() if "waits" in each or "schedstat" in each]
        own = sampling()
        say(own != parents, children() == [])
        say(run(named("rests", lambda: time.sleep(0.3)))["rests"]["sleep"] > 0.2)
        status = 0
    except BaseException as error:
        say("child failed:", repr(error))
    finally:
        os._exit(status)
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
words = supervisor._memory.words
rows = range(shm.ROW, shm.ROW * (1 + words[shm.ROWS]), shm.ROW)
say([words[row + shm.DEPTH] for row in rows if words[row + shm.THREAD]].count(1))
gate.set()
future.result(60)
say(supervisor.method.method, supervisor._sampler.process.pid == parents)
say(run(named("rests", lambda: time.sleep(0.3)))["rests"]["sleep"] > 0.2)
"""
    )
    assert (code, said) == (0, ["True True", "True", "0", "1", "process True", "True"]), errors


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(method: str, tmp_path: Path) -> None:
    """Each process has its own sampler and ends it."""
    (tmp_path / "program.py").write_text(
        f"""
import multiprocessing, os, sys, time
from hamilton import ad_hoc_utils, driver
from traced_threadpool import Attribution, FutureAdapter
from traced_threadpool.waits.supervisor import supervisor

def naps() -> int:
    time.sleep(0.4)
    return 1

def work(number):
    with FutureAdapter(1, tracing=False) as adapter:
        module = ad_hoc_utils.create_temporary_module(naps)
        runs = driver.Builder().with_modules(module).with_adapters(adapter).build()
        end = time.monotonic() + 60  # until the sampler has come up, which may take its time on a busy machine
        while supervisor.method.method != "process" and time.monotonic() < end:
            runs.execute(["naps"])
        return supervisor.method.method, supervisor._sampler.process.pid

if __name__ == "__main__":
    mine = work(0)
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        theirs = pool.map(work, range(2))
        pool.close()
        pool.join()
    methods, pids = zip(mine, *theirs)
    os.write(1, f"{{set(methods)}} {{len(set(pids)) > 1}} {{','.join(map(str, pids))}}\\n".encode())
"""
    )
    code, said, errors = run_process(
        f"""
import runpy
sys.argv = [{str(tmp_path / "program.py")!r}]
sys.path.insert(0, {str(tmp_path)!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""
        if method == "fork"
        else f"""
import subprocess
environment = {{**os.environ, "PYTHONPATH": sys.path[0]}}
sys.exit(subprocess.run([sys.executable, {str(tmp_path / "program.py")!r}], env=environment).returncode)
"""
    )
    assert code == 0, errors
    methods, distinct, pids = said[0].rsplit(" ", 2)
    assert (methods, distinct) == ("{'process'}", "True")
    assert eventually(lambda: all(ended(int(pid)) for pid in pids.split(",")))


# What it is


def test_the_sampler_is_a_small_process_of_its_own() -> None:
    """Without Hamilton, OpenTelemetry and the program's files; and it is started in little time."""
    code, said, errors = run_process(
        TOOLS
        + """
secret = open("/dev/zero")
os.set_inheritable(secret.fileno(), True)
pid = sampling()
maps = Path(f"/proc/{pid}/maps").read_text()
say("numpy" in maps, "pandas" in maps, "site-packages" in maps)
links = sorted(os.readlink(each).partition(":")[0] for each in Path(f"/proc/{pid}/fd").iterdir())
say(*(link for link in links if not link.startswith("/proc/") and "pidfd" not in link and "anon_inode" not in link))
say(os.getsid(pid) == pid)
say(supervisor._memory.words[shm.CPU_NS] < 200_000_000)
"""
    )
    expected = ["False False False", "/dev/null /dev/null /dev/null /memfd /memfd socket", "True", "True"]
    assert (code, said) == (0, expected), errors


def test_nothing_that_python_warns_of() -> None:
    """In development mode with warnings as errors: no file is left to the garbage collector, at exit either."""
    code, said, errors = run_process(
        """
import subprocess
program = '''
import sys
sys.path.insert(0, %r)
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from hamilton import ad_hoc_utils, driver
    from traced_threadpool import FutureAdapter
import time
from traced_threadpool.waits.supervisor import supervisor

def naps() -> int:
    time.sleep(0.4)
    return 1

module = ad_hoc_utils.create_temporary_module(naps)
supervisor._closed_seconds = 0.1
for _ in range(2):
    with FutureAdapter(1, tracing=False) as adapter:
        runs, end = driver.Builder().with_modules(module).with_adapters(adapter).build(), time.monotonic() + 60
        while supervisor.method.method != "process":  # until the sampler has come up
            assert time.monotonic() < end, supervisor.method
            runs.execute(["naps"])
    while supervisor._thread is not None:
        time.sleep(0.01)
driver.Builder().with_modules(module).with_adapters(FutureAdapter(1, tracing=False)).build().execute(["naps"])
print("end")
''' % sys.path[0]
result = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", program], capture_output=True, text=True)
say(result.returncode, result.stdout.strip(), result.stderr.strip())
"""
    )
    assert (code, said) == (0, ["0 end "]), (said, errors)
