"""The way of tasks to a Dask scheduler: those that come at about the same time go together.

A graph costs the scheduler about a millisecond, and each of its tasks a tenth of that. So what has come while a graph
was being sent goes as the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from traced_threadpool.engine.backends.dask_call import DaskCall
from traced_threadpool.engine.backends.mailbox import Mailbox

FIRST_PAUSE_SECONDS: Final = 0.001
LONGEST_PAUSE_SECONDS: Final = 0.016
"""From one graph to the next, while tasks keep coming: twice as long each time. A task that comes alone never waits."""

MAX_BATCH_BYTES: Final = 4 << 20
"""Of the arguments that go together. Dask warns of graphs above 10 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A task to send.

    Args:
        call: Is told of its future, or why it could not be sent.
        key: Of the task.
        function: What it calls, with the values of `upstream` as one list.
        upstream: Futures of the cluster, or calls that were put into this outbox before.
        nbytes: Of the function, pickled.
        alone: Whether it goes in a graph of its own.
    """

    call: DaskCall
    key: str
    function: Callable[[list[Any]], Any]
    upstream: Sequence[Any]
    nbytes: int
    alone: bool = False


class Outbox:
    """Sends tasks to one cluster.

    Args:
        client: The cluster's.
        options: As `distributed.Client.get` takes them, such as `resources`.
    """

    def __init__(self, client: Any, options: Mapping[str, Any]) -> None:
        self.client = client
        self._options = options
        self._mailbox: Mailbox[Outgoing] = Mailbox("traced_threadpool-to-dask", self._send_all)

    def put(self, task: Outgoing) -> None:
        """Has it sent soon, after those that were put here before."""
        try:
            self._mailbox.put(task)
        except RuntimeError as error:  # no thread for it
            task.call.failed(error)

    def stop(self) -> None:
        self._mailbox.stop()

    def _send_all(self, first: Outgoing) -> None:
        """Sends what has come, and what comes meanwhile."""
        pause = 0.0
        task: Outgoing | None = first
        while task is not None:
            time.sleep(pause)
            batch, nbytes = [task], task.nbytes
            while nbytes < MAX_BATCH_BYTES and (task := self._mailbox.take()) is not None:
                batch.append(task)
                nbytes += task.nbytes
            self._send([each for each in batch if not each.alone])
            for each in batch:
                if each.alone:
                    self._send([each])
            pause = min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, 2 * pause))
            task = self._mailbox.take(pause)

    def _send(self, batch: Sequence[Outgoing]) -> None:
        graph: dict[str, Any] = {}
        sent = []
        for task in batch:
            upstream = [_place_of(each, graph) for each in task.upstream]
            if None in upstream:
                task.call.failed(LookupError("a node upstream has not been sent"))
            else:
                graph[task.key] = (task.function, upstream)
                sent.append(task)
        if not sent:
            return
        try:
            futures = self.client.get(graph, list(graph), sync=False, fifo_timeout="100 ms", **self._options)
        except Exception as error:
            for task in sent:
                task.call.failed(error)
            return
        for task, future in zip(sent, futures, strict=True):
            task.call.in_company = len(sent) > 1
            task.call.sent(future)


def _place_of(upstream: Any, graph: Mapping[str, Any]) -> Any:
    """What stands for a value in a graph: its future, or its key if it is in the same graph; None if neither."""
    if not isinstance(upstream, DaskCall):
        return upstream
    if upstream.remote is not None:
        return upstream.remote
    return upstream.key if upstream.key in graph else None
