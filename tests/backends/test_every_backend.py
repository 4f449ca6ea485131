"""What an adapter promises, whatever its nodes run on: threads, a limit, worker processes, a Dask cluster."""

# Hamilton reads annotations when it decorates: they are no strings here.
import contextvars
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hamilton import lifecycle
from hamilton.function_modifiers import check_output, extract_fields, parameterize, pipe_input, step, value
from hamilton.htypes import Collect, Parallelizable
from hamilton.lifecycle.default import GracefulErrorAdapter

from tests.dags import PATIENCE, Stage, driver_of, dynamic_driver_of, eventually, in_thread, start
from traced_threadpool import FutureAdapter
from traced_threadpool.backends import Dask, Processes, Threads

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant_of_nodes", default="nobody")

Make = Callable[..., FutureAdapter]


@pytest.fixture(params=["none", "limit", "processes", "dask"])
def where(request: pytest.FixtureRequest) -> str:
    """Where nodes run."""
    return str(request.param)


@pytest.fixture
def adapter(where: str, workers: Processes, request: pytest.FixtureRequest, stage: Stage) -> Make:
    """Makes adapters all of whose nodes run there."""

    def backend_there() -> Any:
        if where == "dask":
            return Dask(request.getfixturevalue("dask_client"))
        return Threads(2) if where == "limit" else workers

    def make(max_workers: int = 4, **options: Any) -> FutureAdapter:
        if where != "none":
            backend = backend_there()
            options |= {"backends": {"there": backend}, "run_on": options.get("run_on", "there")}
        return stage.adapter(FutureAdapter(max_workers, metrics=False, **options))

    return make


def load() -> int:
    return 2


def clean(load: int) -> int:
    return load + 1


def report(load: int, clean: int) -> int:
    return load * clean


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


def test_a_node_executes_a_driver(adapter: Make) -> None:
    """On an adapter of its own, wherever it runs."""

    def inner() -> int:
        return 5

    def outer() -> int:
        from hamilton import ad_hoc_utils, driver

        from traced_threadpool import FutureAdapter

        with FutureAdapter(1, metrics=False) as own:
            module = ad_hoc_utils.create_temporary_module(inner)
            return int(driver.Builder().with_modules(module).with_adapters(own).build().execute(["inner"])["inner"])

    assert driver_of(adapter(), outer).execute(["outer"]) == {"outer": 5}


def test_progress_bars(adapter: Make) -> None:
    """Hamilton's own, which hears of each node."""
    progress = pytest.importorskip("hamilton.plugins.h_rich").RichProgressBar()
    assert driver_of(adapter(), load, clean, others=[progress]).execute(["clean"]) == {"clean": 3}


def test_close_waits_for_what_runs(adapter: Make, tmp_path: Path) -> None:
    """And the adapter is closed after that."""
    started, release = tmp_path / "started", tmp_path / "release"

    def held() -> str:

        started.touch()
        while not release.exists():
            time.sleep(0.005)
        return "done"

    one = adapter()
    running = start(driver_of(one, held), ["held"])
    assert eventually(started.exists)
    closing = in_thread(one.close)
    assert not closing.done()
    release.touch()
    closing.result(PATIENCE)
    assert running["held"].result(PATIENCE) == "done"
