"""The metrics of a batch job, at its end, into a Pushgateway.

What is pushed stays there until the next push, so it is what stays true: counts, histograms, and when the job last
succeeded. The gauges of a pool (its queue, its workers) are left out, since there is no pool any more.

Metrics of a name replace those of that name that the same job has pushed before; others stay. So a job that fails
leaves the `hamilton_run_last_success_timestamp_seconds` of the time when it last succeeded, for alerts on freshness.

A label's value of any kind can be part of the address, since the Pushgateway takes it in base64:

>>> _address("http://localhost:9091", {"job": "nightly", "instance": "a/b c"})
'http://localhost:9091/metrics/job/nightly/instance@base64/YS9iIGM'
"""

from __future__ import annotations

import base64
import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.exposition import default_handler

from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.metrics.prometheus import Collector, known_ledger
from traced_threadpool.telemetry.metrics.store import GAUGES

_logger = logging.getLogger("traced_threadpool")

Handler = Callable[..., Callable[[], None]]
"""As `prometheus_client` has it: `handler(url=, method=, timeout=, headers=, data=)` gives what sends when called."""

COMPONENT: Final = "push"
PUSHED: Final = tuple(metric for metric in names.METRICS if metric not in GAUGES)

_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]+")
_LABEL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def push_metrics(
    gateway: str,
    *,
    job: str,
    grouping: Mapping[str, str] | None = None,
    registry: CollectorRegistry | None = None,
    timeout_seconds: float = 5.0,
    raise_on_failure: bool = False,
    handler: Handler = default_handler,
) -> bool:
    """Pushes the metrics of this process's adapters to a Prometheus Pushgateway: the last thing a batch job does.

    Call it once `execute` has returned, also when the job has failed (in a `finally`). Of what `registry` holds it
    pushes this library's metrics alone, and of these not the gauges of pools. A push that fails is logged and counted,
    in `hamilton_telemetry_errors_total{component="push"}`, and is otherwise no matter.

    Args:
        gateway: Base URL of the Pushgateway, such as `http://localhost:9091`.
        job: Label `job` of all that is pushed. Two jobs that push under one name replace each other's metrics.
        grouping: Further labels, and with `job` the key of what is replaced. No run's id: each would stay for ever.
        registry: The adapters' registry. Default: `prometheus_client.REGISTRY`.
        timeout_seconds: How long this may take, whatever the gateway does.
        raise_on_failure: Whether a push that fails is an error.
        handler: What sends, as in `prometheus_client`: one that authenticates is made with its
            `prometheus_client.exposition.basic_auth_handler`.

    Returns:
        Whether the gateway has accepted the metrics.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a value that cannot work, or no adapter has metrics in `registry`.
        OSError: The push failed, and `raise_on_failure` is set.
    """
    address = _address(_checked_gateway(gateway), _checked_key(job, grouping))
    if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, (int, float)):
        raise TypeError(f"timeout_seconds must be a number of seconds, such as 5, not {timeout_seconds!r}")
    if not 0 < timeout_seconds < float("inf"):
        raise ValueError(f"timeout_seconds must be above 0 and finite, such as 5, not {timeout_seconds!r}")
    if registry is not None and not isinstance(registry, CollectorRegistry):
        raise TypeError(f"registry must be a prometheus_client.CollectorRegistry, not {registry!r}")
    ledger = known_ledger(REGISTRY if registry is None else registry)
    if ledger is None:
        raise ValueError(
            "no adapter has metrics in this registry, so there is nothing to push: make the adapter first, and give "
            "both the same registry="
        )
    shown: Any = Collector(ledger, PUSHED)  # a registry of this one collector: all that is asked of it is to collect
    try:
        _send(handler, address, generate_latest(shown), timeout_seconds)
    except Exception as error:
        ledger.count_error(COMPONENT)
        _logger.warning("the metrics were not pushed to %s: %s", _without_credentials(address), error)
        if raise_on_failure:
            raise OSError(f"the metrics were not pushed to {_without_credentials(address)}: {error}") from error
        return False
    return True


def _send(handler: Handler, address: str, data: bytes, timeout_seconds: float) -> None:
    """On a thread: a socket's time limit is for each of its steps, and looking a name up has none."""
    result: list[Exception | None] = []

    def send() -> None:
        try:
            headers = [("Content-Type", _CONTENT_TYPE)]
            handler(url=address, method="POST", timeout=timeout_seconds, headers=headers, data=data)()
        except Exception as error:
            result.append(error)
        else:
            result.append(None)

    sending = threading.Thread(target=send, name="telemetry-push", daemon=True)
    try:
        sending.start()
    except RuntimeError:  # in an exit handler, where some versions of Python start no threads
        send()
    else:
        sending.join(timeout_seconds)
    if not result:
        raise TimeoutError(f"no answer in {timeout_seconds:g} s")
    if result[0] is not None:
        raise result[0]


def _checked_gateway(gateway: object) -> str:
    expected = "expected a base URL such as 'http://localhost:9091'"
    if not isinstance(gateway, str):
        raise TypeError(f"gateway={gateway!r} is of type {type(gateway).__name__}; {expected}")
    try:
        parts = urlsplit(gateway)
        can_work = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise ValueError(f"gateway={gateway!r} is not a URL ({error}); {expected}") from error
    if not can_work or any(character.isspace() for character in gateway):
        raise ValueError(f"gateway={gateway!r} is not an http:// or https:// URL with a host; {expected}")
    return gateway.rstrip("/")


def _checked_key(job: object, grouping: object) -> dict[str, str]:
    if not isinstance(job, str):
        raise TypeError(f"job must be a string, such as 'nightly', not {job!r}")
    if not job:
        raise ValueError("job must be a name, such as 'nightly', not ''")
    if grouping is not None and not isinstance(grouping, Mapping):
        raise TypeError(f"grouping must map labels to values, such as {{'instance': 'a'}}, not {grouping!r}")
    key = {"job": job}
    for name, value in (grouping or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"grouping must map labels to values that are strings, not {name!r} to {value!r}")
        if not _LABEL_NAME.fullmatch(name) or name.startswith("__") or name == "job":
            raise ValueError(f"grouping has {name!r}, which cannot be a label's name here; write 'instance', say")
        if any(name in metric.labels for metric in PUSHED) or name == "le":
            raise ValueError(f"grouping has {name!r}, which is a label of the metrics themselves; give it another name")
        key[name] = value
    return key


def _address(gateway: str, key: Mapping[str, str]) -> str:
    """Where to push: not by `prometheus_client`, which writes some values as a form would, and not as a path."""
    first, *others = key.items()
    return gateway + "/metrics" + "".join(_part(*each) for each in (first, *sorted(others)))


def _part(name: str, value: str) -> str:
    if _PLAIN.fullmatch(value) and value not in (".", ".."):
        return f"/{name}/{value}"
    encoded = base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")
    return f"/{name}@base64/{encoded or '='}"


def _without_credentials(url: str) -> str:
    credentials, at, _ = urlsplit(url).netloc.rpartition("@")
    return url.replace(credentials + at, "***@", 1) if at else url
