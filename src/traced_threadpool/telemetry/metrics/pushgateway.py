"""The metrics of a batch job, at its end, into a Pushgateway.

What is pushed stays there until the next push, so it is what stays true: counts, histograms, and when the job last
succeeded. The gauges of a pool (its queue, its workers) are left out, since there is no pool any more.

Metrics of a name replace those of that name that the same job has pushed before; others stay. So a job that fails
leaves the `hamilton_run_last_success_timestamp_seconds` of the time when it last succeeded, for alerts on freshness.

A label's value of any kind can be part of the address, since the Pushgateway takes it in base64:

>>> _path({"job": "nightly", "instance": "a/b c"})
'/metrics/job/nightly/instance@base64/YS9iIGM'
"""

from __future__ import annotations

import base64
import logging
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.request import HTTPRedirectHandler, Request, build_opener

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.exposition import default_handler

from traced_threadpool.model.keyword_hints import explains_keywords
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.failures import failure, status
from traced_threadpool.telemetry.metrics.prometheus import Collector, known_store
from traced_threadpool.telemetry.metrics.store import GAUGES
from traced_threadpool.telemetry.urls import checked

_logger = logging.getLogger("traced_threadpool")

Handler = Callable[..., Callable[[], None]]
"""As `prometheus_client` has it: `handler(url=, method=, timeout=, headers=, data=)` gives what sends when called."""

COMPONENT: Final = "push"
PUSHED: Final = tuple(metric for metric in names.METRICS if metric not in GAUGES)

_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_CONFIRM: Final = (200, 202, 204)
_MAX_BODY: Final = 16
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]+")
_LABEL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@explains_keywords("push_metrics")
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
        gateway: Base URL of the Pushgateway, such as `http://localhost:9091`. Credentials in it are sent as a header,
            and are in no message.
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
    base = checked("gateway", gateway, example="http://localhost:9091")
    address = base.joined(_path(_checked_key(job, grouping)))
    if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, (int, float)):
        raise TypeError(f"timeout_seconds must be a number of seconds, such as 5, not {timeout_seconds!r}")
    if not 0 < timeout_seconds < float("inf"):
        raise ValueError(f"timeout_seconds must be above 0 and finite, such as 5, not {timeout_seconds!r}")
    if registry is not None and not isinstance(registry, CollectorRegistry):
        raise TypeError(f"registry must be a prometheus_client.CollectorRegistry, not {registry!r}")
    store = known_store(REGISTRY if registry is None else registry)
    if store is None:
        raise ValueError(
            "no adapter has metrics in this registry, so there is nothing to push: make the adapter first, and give "
            "both the same registry="
        )
    shown: Any = Collector(store, PUSHED)  # a registry of this one collector: all that is asked of it is to collect
    headers = [("Content-Type", _CONTENT_TYPE)]
    if base.authorization is not None:
        headers.append(("Authorization", base.authorization))
    error = _send(handler, address, headers, generate_latest(shown), timeout_seconds)
    if error is None:
        return True
    store.count_error(COMPONENT)
    message = f"the metrics were not pushed to {address}: {error}"
    _logger.warning("%s", message)
    if raise_on_failure:
        raise OSError(message)  # not chained: the text of the libraries' own may hold a proxy's password, say
    return False


def _send(
    handler: Handler, address: str, headers: list[tuple[str, str]], data: bytes, timeout_seconds: float
) -> str | None:
    """Why the push failed, if it did.

    On a thread: a socket's time limit is for each of its steps, and looking a name up has none.
    """
    result: list[str | None] = []
    send = _post if handler is default_handler else handler

    def try_to() -> None:
        try:
            send(url=address, method=_Post("POST"), timeout=timeout_seconds, headers=headers, data=data)()
        except Exception as error:
            result.append(str(error) if isinstance(error, _NoAnswer) else failure(error))
        else:
            result.append(None)

    sending = threading.Thread(target=try_to, name="telemetry-push", daemon=True)
    try:
        sending.start()
    except RuntimeError:  # in an exit handler, where some versions of Python start no threads
        try_to()
    else:
        sending.join(timeout_seconds)
    return result[0] if result else f"no answer in {timeout_seconds:g} s"


class _NoAnswer(Exception):
    """The gateway has not answered what a gateway does."""


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is an error: followed, a POST becomes a GET, which pushes nothing."""

    def redirect_request(self, *args: Any) -> None:
        return None


class _Post(str):
    """`POST`, for handlers of `prometheus_client`'s: theirs follow redirects, except of methods that are not to be."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) and sys._getframe(1).f_code.co_name != "redirect_request"

    def __ne__(self, other: object) -> bool:
        return str.__ne__(self, other)


def _post(url: str, method: str, timeout: float, headers: Sequence[tuple[str, str]], data: bytes) -> Callable[[], None]:
    """The handler that sends where none is given.

    A gateway confirms with 200, 202 or, as some that take its place, 204, with nothing more than "ok". Another body is
    somebody else's: a proxy's login page, an API's error with 200.
    """

    def send() -> None:
        request = Request(url, data=data, headers=dict(headers), method=str(method))
        with build_opener(_NoRedirects()).open(request, timeout=timeout) as answer:
            if answer.status not in _CONFIRM:
                raise _NoAnswer(f"{status(answer.status)}, which no Pushgateway answers with")
            body = answer.read(_MAX_BODY)
            if body.strip().lower() not in (b"", b"ok") or answer.length:  # what is left of one that is cut off
                raise _NoAnswer(f"HTTP {answer.status} with a body, which no Pushgateway answers with")

    return send


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


def _path(key: Mapping[str, str]) -> str:
    """Where to push: not by `prometheus_client`, which writes some values as a form would, and not as a path."""
    first, *others = key.items()
    return "/metrics" + "".join(_part(*each) for each in (first, *sorted(others)))


def _part(name: str, value: str) -> str:
    if _PLAIN.fullmatch(value) and value not in (".", ".."):
        return f"/{name}/{value}"
    encoded = base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")
    return f"/{name}@base64/{encoded or '='}"
