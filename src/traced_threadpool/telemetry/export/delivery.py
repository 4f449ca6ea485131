"""An SDK's exporter as one call that says how many items did not arrive, and why.

An exporter says SUCCESS where it saw no failure; what the receiver confirmed, `answers` knows. Failures are told by
whoever counts them, once, so the exporter's own log lines, one for each batch and each attempt, are left out.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context

from traced_threadpool.telemetry.failures import failure

if TYPE_CHECKING:
    from traced_threadpool.telemetry.export.otlp_answers import Answers

_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "grpc._common",
)


class Delivery:
    """Args:
    exporter: Of spans or of metrics.
    answers: What the receiver said, where there is one.
    """

    def __init__(self, exporter: Any, answers: Answers | None = None) -> None:
        self.exporter = exporter
        self._answers = answers
        self._export = exporter.export

    def deliver(self, items: Any, *args: Any, count: int, **options: Any) -> tuple[int, str]:
        """Exports `items`. How many of these `count` are lost, and a reason, empty where the exporter has told it."""
        answers = self._answers
        if answers is not None:
            answers.last = None
        # What the exporter itself does, over HTTP say, is not to be traced.
        token = otel_context.attach(otel_context.set_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY, True))
        _quiet.here = answers is not None
        try:
            succeeded = self._export(items, *args, **options).name == "SUCCESS"
        except Exception as error:
            return count, failure(error)
        finally:
            _quiet.here = False
            otel_context.detach(token)
        if answers is None:
            return (0, "") if succeeded else (count, "")
        answer = answers.last
        if not succeeded:
            return count, answer.why if answer is not None and answer.why else "the export failed"
        return (0, "") if answer is None else (answer.lost(count), answer.why)


class _Quiet(threading.local):
    """Whether this thread is in an export of ours."""

    here = False


_quiet: Final = _Quiet()


def _is_told(record: logging.LogRecord) -> bool:
    return not _quiet.here


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_is_told)
