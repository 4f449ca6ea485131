"""A keyword that nobody knows is an error that says what to write instead, whichever public callable it is given to."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import re
from typing import Any

import pytest

from traced_threadpool import FutureAdapter
from traced_threadpool.model.keyword_hints import HINTS

HOMES = {
    "Processes": "backends",
    "Threads": "backends",
    "Dask": "backends",
    "Ray": "backends",
    "Objective": "slo",
    "read_runs": "analysis",
    "save_runs": "analysis",
    "what_if": "analysis",
    "scale": "analysis",
    "scale_pool": "analysis",
    "summarize": "analysis",
}
"""Where a public name is that is not in the package itself."""


def public(of: str) -> Any:
    """What has this name in the table, such as `FutureAdapter.close`."""
    name, _, member = of.partition(".")
    home = importlib.import_module(".".join(["traced_threadpool", *filter(None, [HOMES.get(name)])]))
    try:
        found = getattr(home, name)
    except ImportError as error:
        pytest.skip(f"needs an extra: {error}")
    return getattr(found, member) if member else found


@pytest.fixture(params=HINTS)
def of(request: pytest.FixtureRequest) -> str:
    """Each callable in the table."""
    name: str = request.param
    if name.startswith("Objective"):
        pytest.importorskip("yaml", reason="the extra [report]")
    return name


IN_PROCESSES = 'write backends={"processes": Processes(%s)}, run_on="processes"'


@pytest.mark.parametrize(
    ("of", "keyword", "value", "instead"),
    [
        ("FutureAdapter", "workers", 4, "did you mean max_workers?"),
        ("FutureAdapter", "threads", 4, "did you mean max_workers?"),
        ("FutureAdapter", "thread_count", 4, "did you mean max_workers?"),
        ("FutureAdapter", "concurrency", 4, "did you mean max_workers?"),
        ("FutureAdapter", "n_jobs", -1, "did you mean max_workers?"),
        ("FutureAdapter", "num_workers", 4, "did you mean max_workers?"),
        ("FutureAdapter", "pool_size", 4, "did you mean max_workers?"),
        ("FutureAdapter", "max_worker", 4, "did you mean max_workers?"),
        ("FutureAdapter", "label", "etl", "did you mean name?"),
        ("FutureAdapter", "tracer_provder", "x", "did you mean tracer_provider?"),
        ("FutureAdapter", "verbose", True, "did you mean progress?"),
        ("FutureAdapter", "progres", True, "did you mean progress?"),
        ("FutureAdapter", "prefix", "etl", "did you mean thread_name_prefix?"),
        ("FutureAdapter", "processes", 4, IN_PROCESSES % "4"),
        ("FutureAdapter", "processes", True, IN_PROCESSES % "..."),
        ("FutureAdapter", "process", 4, IN_PROCESSES % "4"),
        ("FutureAdapter", "max_tasks_per_child", 9, IN_PROCESSES % "max_tasks_per_worker=9"),
        ("FutureAdapter", "mp_context", None, IN_PROCESSES % "start_method=..."),
        ("FutureAdapter", "client", "tcp://x:1", 'write backends={"dask": Dask(...)}, run_on="dask"'),
        ("FutureAdapter", "prefer", "p", "write backends={...}, and run_on= with the name of one of them"),
        ("FutureAdapter", "executor", None, "write adapter.executor = ..., once the adapter is made"),
        ("FutureAdapter", "metrics_port", 9464, "write setup_telemetry(prometheus_port=9464)"),
        ("FutureAdapter", "endpoint", "http://x", "write setup_telemetry(endpoint=...)"),
        ("FutureAdapter", "buckets", [1], "write metrics=Metrics(node_duration_buckets=...)"),
        ("FutureAdapter", "record_exceptions", None, "write tracing=Tracing(record_exceptions=...)"),
        ("FutureAdapter", "large_run", 9, "write tracing=Tracing(large_run=9)"),
        ("FutureAdapter", "max_node_labels", 9, "write metrics=Metrics(max_node_labels=9)"),
        ("FutureAdapter", "queue_wait_buckets", [], "write metrics=Metrics(queue_wait_buckets=...)"),
        ("FutureAdapter", "run_duration_buckets", [], "write metrics=Metrics(run_duration_buckets=...)"),
        ("FutureAdapter", "attribution_budget", 0.5, "write attribution=Attribution(budget=0.5)"),
        (
            "FutureAdapter",
            "timeout",
            30,
            "nothing ends a thread from outside; stall_after=30 reports a node that runs for longer",
        ),
        ("FutureAdapter.close", "cancel_futures", True, "did you mean cancel_pending?"),
        ("FutureAdapter.close", "wait", True, "close() waits for the nodes that run, always"),
        ("FutureAdapter.live", "stack", True, "did you mean stacks?"),
        ("FutureAdapter.save_durations", "file", "x", "did you mean path?"),
        ("Tracing", "large", 5, "did you mean large_run?"),
        ("Metrics", "buckets", [1], "did you mean node_duration_buckets?"),
        ("Attribution", "overhead", 0.5, "did you mean budget?"),
        ("Processes", "n_jobs", 4, "did you mean max_workers?"),
        ("Processes", "maxtasksperchild", 1, "did you mean max_tasks_per_worker?"),
        ("Processes", "env_vars", {}, "did you mean env?"),
        ("Threads", "limit", 4, "did you mean max_workers?"),
        ("Dask", "address", "tcp://user:secret@x", "did you mean client?"),
        ("Ray", "cpus", 2, "did you mean num_cpus?"),
        ("setup_telemetry", "metrics_port", 9464, "did you mean prometheus_port?"),
        ("setup_telemetry", "tracing", True, "give endpoint= or file= for spans"),
        ("setup_telemetry", "headers", {}, "the variable OTEL_EXPORTER_OTLP_HEADERS holds them"),
        ("OtlpFileSpanExporter", "path", "x", "did you mean file?"),
        ("push_metrics", "grouping_key", {}, "did you mean grouping?"),
        ("push_metrics", "password", "secret", "did you mean handler?"),
        ("Objective", "threshold", 30, "did you mean latency_seconds?"),
        ("Objective.parse", "buckets", [1], "did you mean bounds?"),
        ("read_runs", "filename", "x", "did you mean path?"),
        ("save_runs", "file", "x", "did you mean path?"),
        ("what_if", "max_workers", 8, "did you mean workers?"),
        ("what_if", "free_threaded", True, "write gil=False"),
        ("scale", "cores", 8, "did you mean cpus?"),
        ("scale_pool", "max_nodes", 8, "did you mean most_nodes?"),
        ("summarize", "run", "etl", "did you mean name?"),
    ],
)
def test_what_to_write_instead(of: str, keyword: str, value: object, instead: str) -> None:
    """Numbers are repeated; what else was given may be a password, and is not."""
    if of.startswith("Objective"):
        pytest.importorskip("yaml", reason="the extra [report]")
    with pytest.raises(TypeError) as raised:
        public(of)(**{keyword: value})
    shown = value if isinstance(value, (bool, int, float)) else "..."
    assert str(raised.value) == f"{of}({keyword}={shown}): {instead}"


def test_nothing_like_it() -> None:
    """All that there is, then."""
    with pytest.raises(TypeError, match=r"^Processes has no option 'colour'; it has max_workers, .*_grace_seconds$"):
        public("Processes")(colour="red")


def test_each_word_is_unknown_and_each_advice_is_of_something_known(of: str) -> None:
    """A word in the table that the callable knows would never be looked up, and of two of the same one is not shown."""
    known = inspect.signature(public(of)).parameters.keys()
    words = [word for each in HINTS[of].values() for word in each.split()]
    assert sorted(words) == sorted(set(words) - known)
    for instead in HINTS[of]:
        if instead.isidentifier():
            assert instead in known
        for called, keyword in re.findall(r"([\w.]+)\((\w+)=", instead):
            advised = {"close": "FutureAdapter.close"}.get(called, called)
            if advised in HINTS:
                assert keyword in inspect.signature(public(advised)).parameters


def test_signatures_are_as_written(of: str) -> None:
    """For `help()`, editors and frameworks: no `*` and `**` of the wrapper's."""
    kinds = {each.kind for each in inspect.signature(public(of)).parameters.values()}
    assert not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def test_help_lists_what_is_documented() -> None:
    """And nothing of ours besides: each member has a description of its own."""
    text = pydoc.plain(pydoc.render_doc(FutureAdapter))
    assert "from_assembly" not in text
    assert "_Adapter" not in text
    own = [name for name, value in vars(FutureAdapter).items() if callable(value) and not re.match(r"_(?!_)", name)]
    assert {name for name in own if not vars(FutureAdapter)[name].__doc__} <= {"__init__"}
