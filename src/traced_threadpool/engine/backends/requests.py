"""The near side of a call: what is sent with a node's function and arguments, wherever it runs."""

from __future__ import annotations

import contextvars
import logging

from opentelemetry import propagate

from traced_threadpool.engine.backends import remote_call
from traced_threadpool.engine.backends.base import Call
from traced_threadpool.engine.backends.remote_call import Request

logger = logging.getLogger("traced_threadpool")


class Requests:
    """Makes the requests of one backend, and names what cannot be sent, once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def of(self, call: Call) -> Request:
        """Called in the node's context: its trace context, baggage and context variables go along."""
        record = call.record
        headers: dict[str, str] = {}
        propagate.inject(headers)
        variables, left = remote_call.variables_of(contextvars.copy_context())
        for name in left:
            if name not in self._told:
                self._told.add(name)
                logger.info("context variable %r cannot be pickled, so nodes on other processes do not see it", name)
        return Request(
            node=record.name,
            run_id=record.run_id,
            task_id=record.task_id,
            headers=headers,
            variables=variables,
            log_level=logging.root.level,
        )
