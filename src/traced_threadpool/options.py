"""What an adapter can be told, checked as it is told: what was found, what was expected, what to write instead.

>>> Tracing(large_run=-1)
Traceback (most recent call last):
    ...
ValueError: large_run must be 0 or more, not -1
"""

from __future__ import annotations

import concurrent.futures
import math
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider
from prometheus_client import REGISTRY, CollectorRegistry

from traced_threadpool.engine.backends.base import Backend
from traced_threadpool.engine.durations import Durations
from traced_threadpool.engine.executor import default_max_workers
from traced_threadpool.engine.priorities import CRITICAL_PATH, PRIORITIES, Priority, PriorityName
from traced_threadpool.model.keyword_hints import explained
from traced_threadpool.model.records import THREADS
from traced_threadpool.placement import AUTO, RunOn
from traced_threadpool.recording.recorder import DEFAULT_RUNS
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.metrics.store import Buckets, bounds
from traced_threadpool.telemetry.tracing.large_runs import DEFAULT_LARGE_RUN
from traced_threadpool.waits.supervisor import DEFAULT_BUDGET

DEFAULT_NODE_LABELS: Final = 1_000

_Settings = TypeVar("_Settings")


@explained
@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """How spans are made.

    Args:
        record_exceptions: Whether spans hold the message and stack trace of a node's exception, which may hold private
            data. Without, its type alone.
        large_run: A run of more nodes has spans for its notable nodes alone: those that raised, that are on the
            critical path, that took longest, in which somebody asked for the current span, and a sample of the others.
            Its span says how many have none; metrics are of all nodes. `None`: every node of every run has a span.
    """

    record_exceptions: bool = True
    large_run: int | None = DEFAULT_LARGE_RUN

    def __post_init__(self) -> None:
        checked_bool("record_exceptions", self.record_exceptions)
        if self.large_run is not None:
            _checked_count("large_run", self.large_run)


@explained
@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What is counted, and how finely.

    Args:
        max_node_labels: How many different nodes get a value of their own in the label `node`; later ones are counted
            under `_other`. 0 switches the label off.
        node_duration_buckets: Bounds of `hamilton_node_duration_seconds`, in seconds. Default: those in
            [metrics.md](metrics.md).
        queue_wait_buckets: Bounds of `hamilton_threadpool_queue_wait_seconds`, in seconds. Default: likewise.
        run_duration_buckets: Bounds of `hamilton_run_duration_seconds`, in seconds. Default: likewise.
    """

    max_node_labels: int = DEFAULT_NODE_LABELS
    node_duration_buckets: Sequence[float] | None = None
    queue_wait_buckets: Sequence[float] | None = None
    run_duration_buckets: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _checked_count("max_node_labels", self.max_node_labels)
        for metric, field in _BOUNDS.items():
            found = bounds(metric.prometheus, getattr(self, field)).get(metric.prometheus)
            object.__setattr__(self, field, found)

    @property
    def buckets(self) -> Buckets:
        """The bounds that are given, by the metric's name."""
        given = {metric.prometheus: getattr(self, field) for metric, field in _BOUNDS.items()}
        return {metric: found for metric, found in given.items() if found is not None}


_BOUNDS: Final = {
    names.NODE_DURATION: "node_duration_buckets",
    names.QUEUE_WAIT: "queue_wait_buckets",
    names.RUN_DURATION: "run_duration_buckets",
}


@explained
@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """How it is found out where a node's time goes: CPU, GIL, the run queue, network, disk, locks, sleep.

    Args:
        budget: The share of one CPU that this may use, above 0 and at most 1. Of several adapters' budgets the least
            counts.
    """

    budget: float = DEFAULT_BUDGET

    def __post_init__(self) -> None:
        value = self.budget
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"budget must be a share of one CPU, such as 0.01, not {value!r}")
        if not 0 < value <= 1:
            hint = "; for no attribution at all give attribution=False" if value == 0 else ""
            raise ValueError(f"budget must be above 0 and at most 1, such as 0.01, not {value!r}{hint}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All that one adapter was told, checked. What is switched off is None."""

    max_workers: int
    thread_name_prefix: str
    name: str
    run_name: str
    fail_fast: bool
    tracing: Tracing | None
    metrics: Metrics | None
    attribution: Attribution | None
    tracer_provider: TracerProvider | None
    meter_provider: MeterProvider | None
    registry: CollectorRegistry
    record: int
    priority: PriorityName | Priority
    durations: str | os.PathLike[str] | Durations | None
    backends: Mapping[str, Backend]
    run_on: RunOn | None
    stall_after: float | None
    live: bool
    progress: bool


def checked(
    *,
    max_workers: Any = None,
    thread_name_prefix: Any = "",
    name: Any = None,
    run_name: Any = None,
    fail_fast: Any = False,
    tracing: Any = True,
    metrics: Any = True,
    attribution: Any = True,
    tracer_provider: Any = None,
    meter_provider: Any = None,
    registry: Any = None,
    record: Any = False,
    priority: Any = CRITICAL_PATH,
    durations: Any = None,
    backends: Any = None,
    run_on: Any = None,
    stall_after: Any = None,
    live: Any = True,
    progress: Any = False,
) -> Options:
    """What `FutureAdapter` was told.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a value that cannot work.
    """
    prefix = "" if thread_name_prefix is None else thread_name_prefix
    if not isinstance(prefix, str):
        raise TypeError(f"thread_name_prefix must be a string, not {prefix!r}")
    if tracer_provider is not None and not isinstance(tracer_provider, TracerProvider):
        raise TypeError(
            "tracer_provider must be an opentelemetry.trace.TracerProvider (the SDK's is "
            f"opentelemetry.sdk.trace.TracerProvider()), not {tracer_provider!r}"
        )
    if meter_provider is not None and not isinstance(meter_provider, MeterProvider):
        raise TypeError(
            "meter_provider must be an opentelemetry.metrics.MeterProvider (the SDK's is "
            f"opentelemetry.sdk.metrics.MeterProvider(metric_readers=[...])), not {meter_provider!r}"
        )
    if registry is not None and not isinstance(registry, CollectorRegistry):
        raise TypeError(
            f"registry must be a prometheus_client.CollectorRegistry, not {registry!r}; for no metrics at all "
            "give metrics=False"
        )
    return Options(
        max_workers=_checked_workers(max_workers),
        thread_name_prefix=prefix or (name if isinstance(name, str) else ""),
        name=_checked_label("name", name) if name is not None else _label_from(prefix),
        run_name=_checked_label("run_name", run_name) if run_name is not None else names.DEFAULT_RUN_NAME,
        fail_fast=checked_bool("fail_fast", fail_fast),
        tracing=_checked_settings("tracing", tracing, Tracing),
        metrics=_checked_settings("metrics", metrics, Metrics),
        attribution=_checked_settings("attribution", attribution, Attribution),
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        registry=REGISTRY if registry is None else registry,
        record=_checked_count("record", DEFAULT_RUNS if record is True else int(record) if record is False else record),
        priority=_checked_priority(priority),
        durations=_checked_durations(durations),
        backends=_checked_backends(backends),
        run_on=_checked_run_on(run_on, backends or {}, attribution),
        stall_after=_checked_stall_after(stall_after),
        live=checked_bool("live", live),
        progress=checked_bool("progress", progress),
    )


def checked_builder(value: Any) -> Any:
    """A result builder: as Hamilton's adapter takes it, a class or any object with `build_result`; or None."""
    if callable(getattr(value, "build_result", None)) or not value:
        return value
    raise TypeError(
        "result_builder must have a method build_result, as Hamilton's ResultBuilders have, such as base.DictResult(), "
        f"not {value!r}"
    )


def checked_executor(value: Any) -> concurrent.futures.Executor:
    """An executor with threads of this process."""
    elsewhere = concurrent.futures.ProcessPoolExecutor, getattr(concurrent.futures, "InterpreterPoolExecutor", ())
    if isinstance(value, elsewhere) or not callable(getattr(value, "submit", None)):
        raise TypeError(
            "executor must run what is submitted in threads of this process, as ThreadPoolExecutor(8) does, "
            f"not {value!r}"
        )
    return value  # type: ignore[no-any-return]  # checked above


def checked_bool(name: str, value: Any) -> bool:
    """A yes or no, and nothing that may be taken for one."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def _checked_settings(name: str, value: Any, settings: type[_Settings]) -> _Settings | None:
    if value is True:
        return settings()
    if value is False:
        return None
    if not isinstance(value, settings):
        what = settings.__name__
        hint = f"; write {what}()" if value is settings else ""
        raise TypeError(f"{name} must be True, False or traced_threadpool.{what}(...), not {value!r}{hint}")
    return value


def _checked_workers(value: Any) -> int:
    if value is None:
        return default_max_workers()
    try:
        if isinstance(value, bool):
            raise TypeError
        number = int(value) if _is_whole_float(value) else operator.index(value)
    except TypeError:
        raise TypeError(
            f"max_workers must be a whole number of threads, or None for ThreadPoolExecutor's default, not {value!r}"
        ) from None
    if number <= 0:
        raise ValueError(f"max_workers must be greater than 0, not {number}")
    return number


def _is_whole_float(value: Any) -> bool:
    """Whether it is a number like 4.0, of Python's or of any other kind that rounds as Python's do."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        return False
    number = float(value)
    return math.isfinite(number) and number.is_integer()


def _checked_stall_after(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"stall_after must be a number of seconds, or None for five times a node's 95th percentile, not {value!r}"
        )
    if not 0 < value < math.inf:
        raise ValueError(f"stall_after must be a number of seconds above 0, not {value!r}")
    return float(value)


def _checked_count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        true_too = "True or " if name == "record" else ""
        raise TypeError(f"{name} must be {true_too}a whole number, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, not {value}")
    return value


def _checked_label(name: str, value: Any) -> str:
    """A name that can be a label value, be read in a legend and be typed into a query."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    if not value.strip() or not value.isprintable():
        raise ValueError(
            f"{name} must be a line of printable text, such as 'etl', not {value!r}: it is a label of metrics"
        )
    return value


def _label_from(prefix: str) -> str:
    """The pool's name from a prefix that the documented API lets be any string."""
    label = "".join(character if character.isprintable() else "_" for character in prefix).strip()
    return label or "default"


def _checked_priority(value: Any) -> PriorityName | Priority:
    if (isinstance(value, str) and value in PRIORITIES) or callable(value):
        return value  # type: ignore[no-any-return]  # checked above
    kind = ValueError if isinstance(value, str) else TypeError
    raise kind(f"priority must be {', '.join(map(repr, PRIORITIES))} or a callable, not {value!r}")


def _checked_durations(value: Any) -> Any:
    if value is not None and not isinstance(value, (str, os.PathLike, Durations)):
        raise TypeError(f"durations must be a path or another adapter's `durations`, not {value!r}")
    return value


def _checked_backends(value: Any) -> Mapping[str, Backend]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"backends must map names to backends, such as {{'cpu': Processes(4)}}, not {value!r}")
    for name, backend in value.items():
        _checked_label("a backend's name", name)
        if name == THREADS:
            raise ValueError(f"{THREADS!r} is the name of the adapter's own threads; name the backend differently")
        if isinstance(backend, type) or not callable(getattr(backend, "call", None)):
            hint = f"; write {backend.__name__}(...)" if isinstance(backend, type) else ""
            raise TypeError(
                f"backends[{name!r}] must be one of traced_threadpool.backends, such as Processes(4), not {backend!r}"
                f"{hint}"
            )
    return dict(value)


def _checked_run_on(value: Any, backends: Mapping[str, Any], attribution: Any) -> RunOn | None:
    if value is None:
        return None
    if value == AUTO and AUTO not in backends:
        from traced_threadpool.engine.backends.processes import Processes

        if not any(isinstance(backend, Processes) for backend in backends.values()):
            raise ValueError("run_on='auto' needs worker processes to place nodes on: backends={'cpu': Processes()}")
        if attribution is False:
            raise ValueError("run_on='auto' goes by who waits for the GIL, which attribution=False does not find out")
        return AUTO
    if not isinstance(value, (str, Mapping)) and not callable(value):
        raise TypeError(
            "run_on must be the name of a backend, a mapping of nodes to such names, or a callable that gives it for a "
            f"node, not {value!r}"
        )
    known = [*backends, THREADS]
    for name in [value] if isinstance(value, str) else value.values() if isinstance(value, Mapping) else ():
        if name not in known:
            raise ValueError(f"run_on= names {name!r}, which is none of backends=; they are {', '.join(known)}")
    return value  # type: ignore[no-any-return]  # checked above
