"""What goes wrong when a node runs in another process. All of these can be pickled, and cost their node alone."""

from __future__ import annotations

import pickle
import signal
from typing import Any


class WorkerCrashed(RuntimeError):
    """The worker process ended while it ran a node: killed, crashed in native code, or `os._exit`.

    A node is never run a second time: nobody knows how far it came.

    Attributes:
        node: The node's name.
        pid: The process; 0 where it is not known.
        exitcode: Its exit code; None where a signal ended it, or where it is not known.
        signal: The number of the signal that ended it, else None.
    """

    def __init__(self, node: str, pid: int, exitcode: int | None = None, signal: int | None = None) -> None:
        super().__init__(node, pid, exitcode, signal)
        self.node = node
        self.pid = pid
        self.exitcode = exitcode
        self.signal = signal

    def __str__(self) -> str:
        worker = f"worker process {self.pid}" if self.pid else "the worker process"
        return f"{worker} {self._how()} while it ran node {self.node!r}; other nodes are not affected"

    def _how(self) -> str:
        if self.signal is None:
            return "ended" if self.exitcode is None else f"ended with exit code {self.exitcode}"
        try:
            name = signal.Signals(self.signal).name
        except ValueError:
            name = "unknown"
        hint = ", which the kernel sends when memory runs out" if name == "SIGKILL" else ""
        return f"was killed by signal {self.signal} ({name}{hint})"


class NotPicklable(pickle.PicklingError):
    """A node's function, a parameter or its result cannot be sent to, or from, another process.

    Attributes:
        node: The node's name.
        what: What of it: `parameter 'connection'`, `the function`, `the result`.
    """

    @property
    def after_call(self) -> bool:
        """Whether the function has run, and its result is what cannot be sent."""
        return self.what.startswith("the result")

    def __init__(self, node: str, what: str, reason: str) -> None:
        super().__init__(node, what, reason)
        self.node = node
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.what} of node {self.node!r} cannot be sent to another process: {self.reason}. "
            "Run this node on threads, or make the object inside the node's function"
        )


class RemoteError(RuntimeError):
    """Stands for an exception of a node that cannot be sent from its worker process.

    Attributes:
        type_name: The type of the exception, as `module.name`.
        message: Its message.
        traceback: Its traceback in the worker, as text.
    """

    def __init__(self, type_name: str, message: str, traceback: str) -> None:
        super().__init__(type_name, message, traceback)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message} (only its type, message and traceback came: it cannot be pickled)"


class RemoteTraceback(Exception):
    """The `__cause__` of an exception that was raised in a worker process: its traceback there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text.rstrip()}"


class WorkerSetupError(RuntimeError):
    """A worker could not be made ready: its initializer raised, or it has another version of Python or of a package."""


class ClusterLost(RuntimeError):
    """A cluster has no answer any more: it was restarted, its scheduler is gone, or a value on it was lost.

    Attributes:
        node: The node's name.
        reason: What is known of it.
    """

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(node, reason)
        self.node = node
        self.reason = reason

    def __str__(self) -> str:
        return f"node {self.node!r} has no result on its cluster: {self.reason}"


def set_cause(error: BaseException, cause: BaseException | None) -> None:
    """Sets `__cause__`, also of an exception that refuses to be assigned to (a frozen dataclass).

    >>> import dataclasses
    >>> @dataclasses.dataclass(frozen=True)
    ... class Rejected(Exception):
    ...     order: int
    >>> rejected = Rejected(7)
    >>> set_cause(rejected, RemoteTraceback("far away"))
    >>> rejected.__cause__
    RemoteTraceback('far away')
    """
    slot: Any = BaseException.__dict__["__cause__"]
    slot.__set__(error, cause)
