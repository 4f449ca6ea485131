"""A keyword that a callable does not know, into an error that says what to write instead.

>>> @explains_keywords("Threads")
... def threads(max_workers: int) -> None: ...
>>> threads(n_jobs=4)
Traceback (most recent call last):
    ...
TypeError: Threads(n_jobs=4): did you mean max_workers?

The keyword is looked for in the table `HINTS`, which has what users of concurrent.futures, joblib, Dask, Celery and
others would write; then among the callable's own, of which it may be a part or a misspelling.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, ParamSpec, TypeVar

_P = ParamSpec("_P")
_Result = TypeVar("_Result")
_Class = TypeVar("_Class")

_SIMILAR: Final = 0.7
"""From which ratio of `difflib` on a keyword counts as misspelled."""

_WORKERS: Final = (
    "workers worker_count n_workers num_workers nworkers threads thread_count n_threads num_threads nthreads "
    "threads_per_worker max_threads n_jobs num_jobs jobs concurrency max_concurrency max_concurrent worker_concurrency "
    "concurrency_limit parallelism max_parallelism pool_size poolsize size limit slots cores n_cores"
)
_REPLAY: Final = {
    "workers": "max_workers n_workers num_workers threads n_jobs pool_size concurrency",
    "faster": "speedup speedups factor factors speed",
    "without": "skip remove drop exclude ignore",
    "cpus": "cores n_cpus num_cpus cpu_count n_cores",
    "processes": "n_processes num_processes",
    "run_on": "backends backend placement",
    "lanes": "lane limits concurrency_limits",
    "write gil=False": "nogil no_gil free_threaded freethreaded",
}
_PROCESSES: Final = 'write backends={"processes": Processes'
_ON_PROCESSES: Final = ', run_on="processes"'
_EXECUTOR: Final = "adapter.executor = {}, once the adapter is made"
_SETUP: Final = "write setup_telemetry({}=...)"

HINTS: Final[Mapping[str, Mapping[str, str]]] = {
    "FutureAdapter": {
        "max_workers": _WORKERS,
        "thread_name_prefix": "thread_name thread_names",
        "result_builder": "builder output_builder",
        "name": "label pool pool_name adapter_name title",
        "run_name": "run run_label job job_name flow_name span_name",
        "fail_fast": "stop_on_error stop_on_failure abort_on_error raise_on_error cancel_on_error exit_first",
        "tracing": "trace traces spans otel opentelemetry enable_tracing with_tracing",
        "metrics": "prometheus stats enable_metrics with_metrics",
        "attribution": "waits wait_states sampling sampler profiling",
        "tracer_provider": "tracer traces_provider provider span_processor span_exporter",
        "meter_provider": "meter metrics_provider metric_reader",
        "registry": "collector_registry prometheus_registry metrics_registry",
        "record": "recording record_runs keep_runs history profile",
        "priority": "priorities scheduling policy order",
        "durations": "durations_file learned estimates",
        "stall_after": "stall_timeout stalled_after stall_seconds hang_after",
        "live": "dashboard live_view ui",
        "progress": "progress_bar progressbar show_progress tqdm verbose verbosity",
        "write tracing=Tracing(record_exceptions=...)": "record_exceptions record_exception exceptions",
        "write tracing=Tracing(large_run=...)": "large_run max_spans",
        "write metrics=Metrics(max_node_labels=...)": "max_node_labels max_labels cardinality",
        "write metrics=Metrics(node_duration_buckets=...)": "node_duration_buckets node_buckets buckets",
        "write metrics=Metrics(queue_wait_buckets=...)": "queue_wait_buckets queue_buckets",
        "write metrics=Metrics(run_duration_buckets=...)": "run_duration_buckets run_buckets",
        "write attribution=Attribution(budget=...)": "attribution_budget budget overhead",
        f"{_PROCESSES}(...)}}{_ON_PROCESSES}": "processes n_processes num_processes process_count max_processes procs "
        "process_pool worker_processes use_processes multiprocessing",
        f"{_PROCESSES}(max_tasks_per_worker=...)}}{_ON_PROCESSES}": "max_tasks_per_child maxtasksperchild",
        f"{_PROCESSES}(start_method=...)}}{_ON_PROCESSES}": "start_method mp_context context",
        'write backends={"dask": Dask(...)}, run_on="dask"': "dask dask_client client cluster scheduler_address",
        'write backends={"ray": Ray(...)}, run_on="ray"': "ray ray_address",
        "write backends={...}, and run_on= with the name of one of them": "backend prefer scheduler executors pools",
        f"write {_EXECUTOR.format('ThreadPoolExecutor(8, initializer=...)')}": "initializer initargs",
        f"write {_EXECUTOR.format('...')}": "executor thread_pool threadpool pool_executor",
        "write close(cancel_pending=True), when the adapter is closed": "cancel_futures cancel_pending",
        "nothing ends a thread from outside; stall_after=... reports a node that runs for longer": "timeout time_limit "
        "node_timeout task_timeout task_time_limit soft_time_limit timeout_seconds",
        "a node on threads runs once; Dask(retries=...) and Ray(max_retries=...) repeat nodes": "retries max_retries "
        "retry autoretry_for",
        _SETUP.format("prometheus_port"): "metrics_port prometheus_port port http_port",
        _SETUP.format("endpoint"): "endpoint otlp_endpoint exporter collector traces_endpoint",
        _SETUP.format("metrics_endpoint"): "metrics_endpoint",
        _SETUP.format("file"): "file trace_file filename path output",
        _SETUP.format("service_name"): "service_name service",
        "write push_metrics(...), once execute has returned": "gateway pushgateway",
    },
    "FutureAdapter.close": {
        "cancel_pending": "cancel_futures cancel cancel_queued",
        "close() waits for the nodes that run, always": "wait timeout",
    },
    "FutureAdapter.live": {"stacks": "stack with_stacks", "graph": "dag with_graph"},
    "FutureAdapter.save_durations": {"path": "file filename to"},
    "Tracing": {
        "record_exceptions": "exceptions exception record_exception stack_traces messages",
        "large_run": "max_spans max_nodes span_limit limit",
        "write FutureAdapter(tracer_provider=...)": "tracer_provider provider tracer",
        _SETUP.format("endpoint"): "endpoint otlp_endpoint exporter",
        "write FutureAdapter(tracing=False)": "enabled disabled disable",
        "sampling is the tracer provider's: TracerProvider(sampler=...), or OTEL_TRACES_SAMPLER": "sampler sampling "
        "sample_rate ratio",
    },
    "Metrics": {
        "max_node_labels": "max_nodes max_labels node_labels cardinality limit",
        "node_duration_buckets": "buckets node_buckets duration_buckets",
        "queue_wait_buckets": "queue_buckets wait_buckets",
        "run_duration_buckets": "run_buckets",
        "write FutureAdapter(registry=...)": "registry collector_registry",
        "write FutureAdapter(meter_provider=...)": "meter_provider provider meter",
        _SETUP.format("prometheus_port"): "port metrics_port prometheus_port",
        "write FutureAdapter(metrics=False)": "enabled disabled disable",
    },
    "Attribution": {
        "budget": "attribution_budget overhead max_overhead share cpu cpu_share limit",
        "write FutureAdapter(attribution=False)": "enabled disabled disable",
        "the budget sets how often there is a sample": "interval period sampling_interval rate frequency",
    },
    "Processes": {
        "max_workers": f"{_WORKERS} processes n_processes num_processes process_count max_processes",
        "start_method": "method mp_method",
        'write start_method="spawn" or start_method="forkserver"': "mp_context context",
        "initializer": "init setup on_start",
        "initargs": "init_args initializer_args args",
        "max_tasks_per_worker": "max_tasks_per_child maxtasksperchild worker_max_tasks_per_child max_tasks",
        "env": "environ environment env_vars environment_variables",
        "preload": "preload_modules imports modules set_forkserver_preload",
        "idle_seconds": "idle_timeout idle idle_worker_timeout keep_alive",
        "cancel_grace_seconds": "grace grace_period cancel_timeout kill_timeout",
    },
    "Threads": {"max_workers": f"{_WORKERS} n max_nodes max_tasks"},
    "Dask": {
        "client": "address scheduler scheduler_address scheduler_file cluster dask_client url",
        "max_workers": f"{_WORKERS} max_nodes max_tasks",
        "retries": "max_retries retry num_retries",
    },
    "Ray": {
        "address": "client cluster ray_address url",
        "max_workers": f"{_WORKERS} max_nodes max_tasks",
        "num_cpus": "cpus n_cpus num_cpu cpu",
        "num_gpus": "gpus n_gpus num_gpu gpu",
        "max_retries": "retries retry num_retries",
        "cancel_grace_seconds": "grace grace_period cancel_timeout kill_timeout",
    },
    "setup_telemetry": {
        "service_name": "service name app_name",
        "endpoint": "otlp_endpoint traces_endpoint tracing_endpoint collector exporter url host address jaeger tempo",
        "file": "path filename trace_file traces_file output",
        "prometheus_port": "port metrics_port http_port",
        "metrics_endpoint": "otlp_metrics_endpoint metrics_url",
        "the variable OTEL_EXPORTER_OTLP_HEADERS holds them": "headers auth token api_key",
        "the variable OTEL_EXPORTER_OTLP_PROTOCOL names it": "protocol",
        "the variable OTEL_TRACES_SAMPLER names it": "sampler sampling",
        "the variable OTEL_RESOURCE_ATTRIBUTES holds them": "resource resource_attributes attributes",
        "give endpoint= or file= for spans": "tracing traces spans",
        "give prometheus_port= or metrics_endpoint= for metrics": "metrics prometheus",
        "write FutureAdapter(tracer_provider=...)": "tracer_provider provider",
        "write FutureAdapter(meter_provider=...)": "meter_provider",
    },
    "OtlpFileSpanExporter": {"file": "path filename file_path out output"},
    "push_metrics": {
        "gateway": "url host address endpoint pushgateway pushgateway_url gateway_url",
        "job": "job_name name",
        "grouping": "grouping_key labels instance groups",
        "timeout_seconds": "timeout",
        "raise_on_failure": "raise_on_error raise_errors strict check",
        "handler": "auth username password basic_auth",
    },
    "Objective": {
        "run": "run_name job job_name name",
        "pool": "pool_name adapter adapter_name",
        "availability": "target objective goal success success_rate slo",
        "latency_seconds": "threshold latency_threshold max_latency max_seconds seconds",
        "latency": "latency_objective latency_target percentile quantile",
        "fresh_seconds": "fresh_within freshness fresh max_age stale_after",
        "write Objective.parse(bounds=...)": "bounds buckets",
    },
    "Objective.parse": {
        "run": "run_name job job_name name",
        "pool": "pool_name adapter adapter_name",
        "availability": "target objective goal success success_rate slo",
        "latency": "latency_seconds threshold latency_threshold max_latency max_seconds seconds",
        "latency_objective": "latency_target percentile quantile",
        "fresh_within": "fresh_seconds freshness fresh max_age stale_after",
        "bounds": "buckets",
    },
    "read_runs": {
        "path": "file filename trace_file",
        "max_document_bytes": "max_bytes max_size limit",
    },
    "save_runs": {"path": "file filename to"},
    "what_if": _REPLAY,
    "scale": _REPLAY,
    "scale_pool": {"workers": _REPLAY["workers"], "most_nodes": "max_nodes limit"},
    "summarize": {"name": "run run_name"},
}
"""By callable: what to write, a keyword of its own or a clause; and the keywords for which to write it."""


def explains_keywords(of: str) -> Callable[[Callable[_P, _Result]], Callable[_P, _Result]]:
    """For a callable without `**`: a keyword that it does not know is an error that says what to write instead.

    Args:
        of: What is called, as its user calls it: for the message, and its entry in `HINTS`.
    """

    def decorate(function: Callable[_P, _Result]) -> Callable[_P, _Result]:
        known = _keywords(function)

        @functools.wraps(function)
        def checked(*arguments: _P.args, **keywords: _P.kwargs) -> _Result:
            for name, value in keywords.items():
                if name not in known:
                    raise TypeError(_explanation(of, name, value, known))
            return function(*arguments, **keywords)

        return checked

    return decorate


def explained(of: type[_Class]) -> type[_Class]:
    """The same for a class whose initializer is generated, as a dataclass's is."""
    of.__init__ = explains_keywords(of.__name__)(of.__init__)  # type: ignore[method-assign]  # on purpose
    return of


def _keywords(function: Callable[..., Any]) -> Sequence[str]:
    code: Any = function.__code__
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return [name for name in arguments if name not in ("self", "cls")]


def _explanation(of: str, name: str, value: object, known: Sequence[str]) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # A number says nothing of anybody; what else was written may be a password.
    shown = repr(value) if is_number or isinstance(value, bool) else "..."
    instead = _instead(of, name, known)
    if instead is None:
        return f"{of} has no option {name!r}; it has {', '.join(known)}"
    if instead in known:
        return f"{of}({name}={shown}): did you mean {instead}?"
    return f"{of}({name}={shown}): {instead.replace('...', shown, 1) if is_number else instead}"


def _instead(of: str, name: str, known: Sequence[str]) -> str | None:
    """A keyword of the callable's own, or a clause; None where nothing is like it."""
    instead = {word: what for what, words in HINTS.get(of, {}).items() for word in words.split()}
    if name in instead:
        return instead[name]
    for each in known:
        if name in each.split("_"):
            return each
    for close in difflib.get_close_matches(name, [*known, *instead], n=1, cutoff=_SIMILAR):
        return instead.get(close, close)
    return None
