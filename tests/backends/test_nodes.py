"""What an adapter promises, whatever its nodes run on: threads, a limit on threads, worker processes."""

# Hamilton reads annotations when it decorates: they are no strings here.
import contextvars
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from hamilton import lifecycle
from hamilton.function_modifiers import check_output, extract_fields, parameterize, pipe_input, step, value
from hamilton.htypes import Collect, Parallelizable
from hamilton.lifecycle.default import GracefulErrorAdapter

from tests.backends.calls import is_alive
from tests.dags import PATIENCE, Stage, driver_of, dynamic_driver_of, eventually, in_thread, run_process
from traced_threadpool import FutureAdapter, run_on
from traced_threadpool.backends import NotPicklable, Processes, RemoteTraceback, Threads, WorkerCrashed

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant_of_nodes", default="nobody")

Make = Callable[..., FutureAdapter]


@pytest.fixture(params=["none", "limit", "processes"])
def where(request: pytest.FixtureRequest) -> str:
    """Where nodes run."""
    return str(request.param)


@pytest.fixture(scope="module")
def workers() -> Iterator[Processes]:
    """Shared by the adapters of all tests here, and ended after them."""
    backend = Processes(2, cancel_grace_seconds=0.1)
    backend.open("tests")
    yield backend
    backend.close()


@pytest.fixture
def adapter(where: str, workers: Processes, stage: Stage) -> Make:
    """Makes adapters all of whose nodes run there."""

    def make(max_workers: int = 4, **options: Any) -> FutureAdapter:
        if where != "none":
            backend = Threads(2) if where == "limit" else workers
            options |= {"backends": {"there": backend}, "run_on": options.get("run_on", "there")}
        return stage.adapter(FutureAdapter(max_workers, metrics=False, **options))

    return make


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


# Everywhere


def test_results(adapter: Make) -> None:
    assert driver_of(adapter(), load, clean, report).execute(["report", "load"]) == {"report": 6, "load": 2}


def test_an_exception_and_what_is_below_it(adapter: Make) -> None:
    """Its type and message reach the caller; the node below never runs."""

    def fails(load: int) -> int:
        raise KeyError("missing")

    def below(fails: int) -> int:
        raise AssertionError("must not run")

    with pytest.raises(KeyError, match="missing"):
        driver_of(adapter(), load, fails, below).execute(["below"])


def test_decorated_nodes(adapter: Make) -> None:
    """Those that Hamilton wraps: checks, fields, parameters, pipes."""

    def _doubled(x: int) -> int:
        return 2 * x

    @check_output(range=(0, 10), importance="fail")
    def checked(load: int) -> int:
        return load

    @extract_fields({"first": int, "second": int})
    def fields(load: int) -> dict[str, int]:
        return {"first": load, "second": load + 1}

    @parameterize(low={"x": value(1)}, high={"x": value(9)})
    def bounds(x: int) -> int:
        return x

    @pipe_input(step(_doubled))
    def piped(load: int) -> int:
        return load

    wanted = ["checked", "first", "second", "low", "high", "piped"]
    found = driver_of(adapter(), load, checked, fields, bounds, piped).execute(wanted)
    assert found == {"checked": 2, "first": 2, "second": 3, "low": 1, "high": 9, "piped": 4}


def test_hooks_are_called_here_in_order(adapter: Make) -> None:
    """With the real arguments and the real value, on a thread of this process."""
    heard: list[Any] = []

    class Hook(lifecycle.NodeExecutionHook):
        def run_before_node_execution(self, *, node_name: str, node_kwargs: dict[str, Any], **future: Any) -> None:
            heard.append(("before", node_name, dict(node_kwargs), os.getpid()))

        def run_after_node_execution(self, *, node_name: str, result: Any, success: bool, **future: Any) -> None:
            heard.append(("after", node_name, result, success, os.getpid()))

    driver_of(adapter(), load, clean, others=[Hook()]).execute(["clean"])
    here = os.getpid()
    assert heard == [
        ("before", "load", {}, here),
        ("after", "load", 2, True, here),
        ("before", "clean", {"load": 2}, here),
        ("after", "clean", 3, True, here),
    ]


def test_context_variables(adapter: Make) -> None:
    """The caller's are seen, and what a node sets stays in it."""

    def sees() -> str:
        seen = TENANT.get()
        TENANT.set("changed")
        return seen

    def sees_too(sees: str) -> str:
        return sees + TENANT.get()

    token = TENANT.set("acme")
    try:
        assert driver_of(adapter(), sees, sees_too).execute(["sees_too"]) == {"sees_too": "acmeacme"}
    finally:
        TENANT.reset(token)


def test_branches(adapter: Make) -> None:
    """`Parallelizable` and `Collect`, each node of each branch."""

    def branch() -> Parallelizable[int]:
        yield from range(5)

    def squared(branch: int) -> int:
        return branch * branch

    def total(squared: Collect[int]) -> int:
        return sum(squared)

    assert dynamic_driver_of(adapter(), branch, squared, total).execute(["total"]) == {"total": 30}


def test_graceful_errors(adapter: Make) -> None:
    """Hamilton's adapter that goes on after failures sees them here."""

    def fails() -> int:
        raise ValueError("no")

    def fine() -> int:
        return 1

    graceful = GracefulErrorAdapter(error_to_catch=ValueError, sentinel_value=None)
    found = driver_of(adapter(), fails, fine, others=[graceful]).execute(["fails", "fine"])
    assert found == {"fails": None, "fine": 1}


def test_caching(adapter: Make, tmp_path: Path) -> None:
    """Hamilton's cache stores the value, not what stands for it; the second run calls nothing."""
    from hamilton import ad_hoc_utils, driver

    def counted() -> int:
        return 7

    module = ad_hoc_utils.create_temporary_module(counted)
    for _ in range(2):
        runs = (
            driver.Builder().with_modules(module).with_adapters(adapter()).with_cache(path=tmp_path / "cache").build()
        )
        assert runs.execute(["counted"]) == {"counted": 7}


def test_several_runs_at_once(adapter: Make) -> None:
    shared = adapter()
    runs = driver_of(shared, load, clean, report)
    futures = [in_thread(runs.execute, ["report"]) for _ in range(8)]
    assert [future.result(PATIENCE) for future in futures] == [{"report": 6}] * 8


def test_close_waits_for_what_runs(adapter: Make, tmp_path: Path) -> None:
    """And the adapter is closed after that."""
    started, release = tmp_path / "started", tmp_path / "release"

    def held() -> str:
        import time

        started.touch()
        while not release.exists():
            time.sleep(0.005)
        return "done"

    one = adapter()
    running = driver_of(one, held).raw_execute(["held"])
    assert eventually(started.exists)
    closing = in_thread(one.close)
    assert not closing.done()
    release.touch()
    closing.result(PATIENCE)
    assert running["held"].result(PATIENCE) == "done"


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
    assert adapter.snapshot().active_workers == 1
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
    futures = runs.raw_execute(["crashes", "fine"])
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
    future = driver_of(adapter, hanging(started)).raw_execute(["hangs"])["hangs"]
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
    assert node.states.keys() <= {"cpu", "runqueue", "other"}
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
    assert 0 < attributes["hamilton.node.transfer.duration"] < 10
    assert not [name for name in spans["here"].attributes if "backend" in name or "worker." in name]


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


def test_a_worker_that_a_run_left_is_used_by_the_next(on_processes: Make) -> None:
    """Workers outlive runs."""

    def there() -> int:
        return os.getpid()

    runs = driver_of(on_processes(run_on="cpu"), there)
    before = time.monotonic()
    found = {runs.execute(["there"])["there"] for _ in range(5)}
    assert len(found) <= 2
    assert time.monotonic() - before < PATIENCE
