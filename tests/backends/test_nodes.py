"""Nodes on worker processes and within a limit: what is placed there, what is told of it, what goes wrong."""

# Hamilton reads annotations when it decorates: they are no strings here.
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from tests.backends.calls import is_alive
from tests.dags import PATIENCE, Stage, driver_of, eventually, in_thread, run_process, start
from traced_threadpool import FutureAdapter, run_on
from traced_threadpool.backends import NotPicklable, Processes, RemoteTraceback, Threads, WorkerCrashed

Make = Callable[..., FutureAdapter]


@pytest.fixture
def on_processes(workers: Processes, stage: Stage) -> Make:
    """Makes adapters with worker processes under the name `cpu`."""

    def make(max_workers: int = 4, **options: Any) -> FutureAdapter:
        return stage.adapter(FutureAdapter(max_workers, metrics=False, backends={"cpu": workers}, **options))

    return make


def load() -> int:
    return 2


def clean(load: int) -> int:
    return load + 1


def report(load: int, clean: int) -> int:
    return load * clean


# A limit


def test_a_limit_holds_and_frees_the_threads(stage: Stage) -> None:
    """At most so many at once; what waits holds no thread, so that others go on."""
    adapter = stage.adapter(FutureAdapter(2, metrics=False, backends={"db": Threads(1)}, run_on={"query": "db"}))
    release = stage.event()
    inside: list[int] = []
    lock = threading.Lock()
    most = 0

    def query(number: int) -> int:
        nonlocal most
        with lock:
            inside.append(number)
            most = max(most, len(inside))
        release.wait(PATIENCE)
        with lock:
            inside.remove(number)
        return number

    def other() -> str:
        return "free"

    runs = driver_of(adapter, query, other)
    queries = [
        in_thread(lambda number=number: runs.execute(["query"], inputs={"number": number})) for number in range(4)
    ]
    assert eventually(lambda: adapter.snapshot().queue_depth == 3 and inside != [])
    assert runs.execute(["other"]) == {"other": "free"}
    assert eventually(lambda: adapter.snapshot().active_workers == 1)
    release.set()
    assert sorted(each.result(PATIENCE)["query"] for each in queries) == [0, 1, 2, 3]
    assert most == 1


def test_a_limited_node_that_executes_a_limited_node(stage: Stage) -> None:
    """The inner one is not held: the outer one waits for it."""
    adapter = stage.adapter(FutureAdapter(1, metrics=False, backends={"db": Threads(1)}, run_on="db"))
    inner = driver_of(adapter, load, clean)

    def outer() -> int:
        return int(inner.execute(["clean"])["clean"])

    assert in_thread(driver_of(adapter, outer).execute, ["outer"]).result(PATIENCE) == {"outer": 3}


# Worker processes


def test_only_what_was_asked_runs_there(on_processes: Make) -> None:
    """By decorator; the others stay in this process."""

    @run_on("cpu")
    def there() -> int:
        return os.getpid()

    def here(there: int) -> list[int]:
        return [there, os.getpid()]

    pid, mine = driver_of(on_processes(), there, here).execute(["here"])["here"]
    assert pid != mine == os.getpid()


def test_nodes_elsewhere_need_no_thread_of_the_adapter(on_processes: Make, tmp_path: Path) -> None:
    """As many run as the backend takes, two, and one more on the only thread of the adapter, which they wait for."""
    release = tmp_path / "release"

    def waits(number: int) -> int:
        import time

        (tmp_path / f"started-{number}").touch()
        while not release.exists():
            time.sleep(0.005)
        return number

    def first() -> int:
        return waits(1)

    def second() -> int:
        return waits(2)

    def here() -> int:
        assert eventually(lambda: len(list(tmp_path.glob("started-*"))) == 2)
        release.touch()
        return 3

    adapter = on_processes(1, run_on={"first": "cpu", "second": "cpu"})
    runs = driver_of(adapter, first, second, here)
    found = in_thread(runs.execute, ["first", "second", "here"]).result(PATIENCE)
    assert found == {"first": 1, "second": 2, "here": 3}
    lanes = {lane.backend: (lane.active_workers, lane.max_workers) for lane in adapter.snapshot().lanes}
    assert lanes == {"threads": (0, 1), "cpu": (0, 2)}


def test_closing_in_a_callback_of_a_node_elsewhere(on_processes: Make) -> None:
    """It would wait for the thread that it is called in."""
    adapter = on_processes(run_on={"far": "cpu"})
    added = threading.Event()
    said: list[str] = []

    def here() -> int:
        assert added.wait(PATIENCE)
        return 1

    def far(here: int) -> int:
        return here

    def close(_: Any) -> None:
        with pytest.raises(RuntimeError) as refused:
            adapter.close()
        said.append(str(refused.value))

    start(driver_of(adapter, here, far), ["far"])["far"].add_done_callback(close)
    added.set()
    assert eventually(lambda: bool(said))
    assert "close() was called from a done-callback of a node" in said[0]


def test_no_thread_for_a_node_elsewhere(on_processes: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node fails, and those after it run once there are threads again."""
    adapter = on_processes(run_on="cpu")
    runs = driver_of(adapter, load)

    def refuse(*arguments: Any) -> Any:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(adapter._assembly.pool._senders, "submit_loop", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            in_thread(runs.execute, ["load"]).result(PATIENCE)
    assert runs.execute(["load"]) == {"load": 2}


def test_the_remote_traceback_is_the_cause(on_processes: Make) -> None:
    def fails() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as raised:
        driver_of(on_processes(run_on="cpu"), fails).execute(["fails"])
    assert isinstance(raised.value.__cause__, RemoteTraceback)
    assert 'raise ValueError("no")' in str(raised.value.__cause__)


def test_a_crash_costs_its_node_alone(on_processes: Make) -> None:
    """Nodes that do not need it, and later runs, go on."""

    def crashes() -> int:
        os._exit(5)

    def fine() -> int:
        return 1

    runs = driver_of(on_processes(run_on="cpu"), crashes, fine)
    futures = start(runs, ["crashes", "fine"])
    with pytest.raises(WorkerCrashed, match="exit code 5 while it ran node 'crashes'"):
        futures["crashes"].result(PATIENCE)
    assert futures["fine"].result(PATIENCE) == 1
    assert runs.execute(["fine"]) == {"fine": 1}


def test_what_cannot_be_sent_is_named(on_processes: Make) -> None:
    """The parameter, and the node."""

    def guard() -> object:
        return threading.Lock()

    def uses(guard: object) -> int:
        return 1

    with pytest.raises(NotPicklable, match=r"parameter 'guard' \(a _thread.lock\) of node 'uses'"):
        driver_of(on_processes(run_on={"uses": "cpu"}), guard, uses).execute(["uses"])


def hanging(started: Path) -> Callable[[], int]:
    def hangs() -> int:
        import os
        import time

        started.write_text(str(os.getpid()))
        time.sleep(1_000)
        return 1

    return hangs


def is_started(started: Path) -> bool:
    return started.exists() and bool(started.read_text())


def test_fail_fast_kills_what_runs(on_processes: Make, tmp_path: Path) -> None:
    """After the grace; the caller has its answer at once."""
    started = tmp_path / "started"
    hangs = hanging(started)

    def fails() -> int:
        import time

        while not started.exists() or not started.read_text():
            time.sleep(0.005)
        raise ValueError("no")

    adapter = on_processes(run_on="cpu", fail_fast=True)
    with pytest.raises(ValueError, match="no"):
        in_thread(driver_of(adapter, hangs, fails).execute, ["hangs", "fails"]).result(PATIENCE)
    pid = int(started.read_text())
    assert eventually(lambda: not is_alive(pid))
    assert driver_of(adapter, load).execute(["load"]) == {"load": 2}


def test_close_kills_what_is_cancelled(on_processes: Make, tmp_path: Path) -> None:
    started = tmp_path / "started"
    adapter = on_processes(run_on="cpu")
    future = start(driver_of(adapter, hanging(started)), ["hangs"])["hangs"]
    assert eventually(lambda: is_started(started))
    in_thread(lambda: adapter.close(cancel_pending=True)).result(PATIENCE)
    with pytest.raises(CancelledError):
        future.result(PATIENCE)
    assert not is_alive(int(started.read_text()))


def test_ctrl_c_kills_what_runs() -> None:
    """The caller is interrupted, and the program ends; nothing of it is left."""
    code, said, errors = run_process(
        """
import time
from traced_threadpool.backends import Processes

def hangs() -> int:
    os.write(1, f"{os.getpid()}\\n".encode())
    os.kill(driver_pid, signal.SIGINT)
    time.sleep(1000)

driver_pid = os.getpid()
adapter = FutureAdapter(2, backends={"cpu": Processes(1, cancel_grace_seconds=0.1)}, run_on="cpu")
try:
    driver_of(adapter, hangs).execute(["hangs"])
except KeyboardInterrupt:
    say("interrupted")
adapter.close()
say("closed")
"""
    )
    assert (code, said[1:]) == (0, ["interrupted", "closed"]), errors
    assert not is_alive(int(said[0]))


def test_a_program_that_closes_nothing_ends() -> None:
    code, said, errors = run_process(
        """
from traced_threadpool.backends import Processes

def there() -> int:
    return os.getpid()

say(driver_of(FutureAdapter(2, backends={"cpu": Processes(1)}, run_on="cpu"), there).execute(["there"])["there"])
"""
    )
    assert (code, len(said)) == (0, 1), errors
    assert eventually(lambda: not is_alive(int(said[0])))


def test_a_child_of_a_fork_has_workers_of_its_own() -> None:
    code, said, errors = run_process(
        """
from traced_threadpool.backends import Processes

def there() -> int:
    return os.getpid()

adapter = FutureAdapter(2, backends={"cpu": Processes(1)}, run_on="cpu")
runs = driver_of(adapter, there)
mine = runs.execute(["there"])["there"]
pid = os.fork()
if pid == 0:
    other = runs.execute(["there"])["there"]
    say(other != mine)
    os._exit(0)
say("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), runs.execute(["there"])["there"] == mine)
adapter.close()
"""
    )
    assert (code, said) == (0, ["True", "exit 0 True"]), errors


def test_the_record_has_the_workers_own_times(on_processes: Make) -> None:
    """CPU time is what the worker used, not what its thread here did."""

    def busy() -> int:
        import time

        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass
        return 1

    adapter = on_processes(run_on="cpu", record=True)
    driver_of(adapter, busy).execute(["busy"])
    (node,) = adapter.recorded_runs[0].nodes
    assert node.states["cpu"] > 190e6
    assert node.states["transfer"] > 0
    assert node.states.keys() <= {"cpu", "runqueue", "transfer", "remote_queue", "other"}
    assert sum(node.states.values()) == node.duration_ns


def test_the_span_says_where_it_ran(on_processes: Make) -> None:
    """And what it took to get there; spans of the node's own code are below it."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def there() -> str:
        from opentelemetry import trace

        return f"{trace.get_current_span().get_span_context().span_id:x}"

    def here(there: str) -> str:
        return there

    adapter = on_processes(run_on={"there": "cpu"}, tracer_provider=provider)
    seen = driver_of(adapter, there, here).execute(["here"])["here"]
    adapter.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    attributes = spans["there"].attributes
    assert seen == f"{spans['there'].context.span_id:x}"
    assert attributes["hamilton.node.backend"] == "cpu"
    assert attributes["hamilton.node.worker.pid"] != os.getpid()
    assert attributes["hamilton.node.attempts"] == 1
    sizes = {name: attributes[f"hamilton.node.{name}.size"] for name in ("sent", "received")}
    assert 100 < sizes["sent"] < 5_000
    assert 50 < sizes["received"] < 5_000
    assert 0 < attributes["hamilton.node.wait.transfer.duration"] < 10
    began, ended = (attributes[f"hamilton.node.function.{moment}"] for moment in ("start", "end"))
    assert 0 < began < ended < (spans["there"].end_time - spans["there"].start_time) / 1e9
    assert not [
        name
        for name in spans["here"].attributes
        if any(each in name for each in ("backend", "worker.", "node.function"))
    ]


# What is refused


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"backends": [Threads(1)]}, TypeError, "backends must map names to backends"),
        ({"backends": {"cpu": Processes}}, TypeError, r"write Processes\(\.\.\.\)"),
        (
            {"backends": {"cpu": 4}},
            TypeError,
            r"must be one of traced_threadpool.backends, such as Processes\(4\), not 4",
        ),
        ({"backends": {"threads": Threads(1)}}, ValueError, "the name of the adapter's own threads"),
        ({"backends": {"": Threads(1)}}, ValueError, "a backend's name must be a line of printable text"),
        ({"run_on": "cpu"}, ValueError, "run_on= names 'cpu', which is none of backends="),
        ({"run_on": {"x": "gpu"}, "backends": {"cpu": Threads(1)}}, ValueError, "they are cpu, threads"),
        ({"run_on": 3, "backends": {"cpu": Threads(1)}}, TypeError, "run_on must be the name of a backend"),
    ],
)
def test_options(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        FutureAdapter(2, **options)


def test_a_tag_that_names_no_backend(on_processes: Make) -> None:
    """When the run starts, before any node."""
    ran = []

    @run_on("gpu")
    def there() -> int:
        ran.append(1)
        return 1

    adapter = on_processes()
    with pytest.raises(ValueError, match="node 'there' is tagged to run on 'gpu'; 'gpu' is no backend of this adapter"):
        driver_of(adapter, there).execute(["there"])
    assert ran == []
    assert driver_of(adapter, load).execute(["load"]) == {"load": 2}


def test_without_backends_tags_are_not_read(stage: Stage) -> None:
    """The same module runs where there are none."""

    @run_on("gpu")
    def there() -> int:
        return os.getpid()

    assert driver_of(stage.adapter(FutureAdapter(2)), there).execute(["there"]) == {"there": os.getpid()}


def test_a_name_that_no_node_has_is_told_once(on_processes: Make, caplog: pytest.LogCaptureFixture) -> None:
    runs = driver_of(on_processes(run_on={"laod": "cpu"}), load)
    for _ in range(2):
        runs.execute(["load"])
    said = [record.getMessage() for record in caplog.records if "run_on" in record.getMessage()]
    assert said == ["run_on= names 'laod', and no node is called that; did you mean 'load'?"]


@pytest.mark.parametrize("key", ["there", lambda there: there], ids=["name", "function"])
def test_a_function_stands_for_its_nodes(on_processes: Make, key: Any) -> None:
    """By its name, or itself."""

    def there() -> int:
        return os.getpid()

    found = driver_of(on_processes(run_on={key if isinstance(key, str) else key(there): "cpu"}), there).execute(
        ["there"]
    )
    assert found["there"] != os.getpid()


def test_a_key_that_is_neither_a_name_nor_a_function(on_processes: Make) -> None:
    run_on: Any = {7: "cpu"}
    with pytest.raises(TypeError, match="run_on= sends 7 somewhere; expected the name of a node, or a function"):
        driver_of(on_processes(run_on=run_on), load).execute(["load"])


def test_a_worker_that_a_run_left_is_used_by_the_next(on_processes: Make) -> None:
    """Workers outlive runs."""

    def there() -> int:
        return os.getpid()

    runs = driver_of(on_processes(run_on="cpu"), there)
    before = time.monotonic()
    found = {runs.execute(["there"])["there"] for _ in range(5)}
    assert len(found) <= 2
    assert time.monotonic() - before < PATIENCE
