"""The seam between the pool and what runs a node's function elsewhere.

Each backend of an adapter has a *lane* in the scheduler: `max_workers` nodes of it run at once, each on a thread of
this process that is none of the workers (except for `Threads`, which is a limit on these). That thread comes before the
call, or once it has ended where the backend needs none to wait (`SendsAhead`). On it the node's whole life takes place,
hooks of other adapters included; only the call of the node's own function goes through `Backend.call`, which blocks. So
spans, links, metrics, caching and checks are where they are without a backend.

    timing = Timing()
    value = backend.call(Call(record=node, function=node.callable, arguments=kwargs), timing)

`timing` is handed in rather than returned, since a call that raises has one as well.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from traced_threadpool.model.records import NodeRecord
from traced_threadpool.model.timing import Timing

__all__ = ["Backend", "Call", "CallOf", "SendsAhead", "Timing", "Within"]


@dataclass(slots=True, eq=False)
class Call:
    """One call of a node's own function. `arguments` is one dict, since a parameter may have any name.

    `expected` is what a backend that sends ahead knows of it.
    """

    record: NodeRecord
    function: Callable[..., Any]
    arguments: dict[str, Any]
    expected: Any = None


class Backend(Protocol):
    """Runs functions somewhere. Methods are called from any thread; `call` by at most `max_workers` at once."""

    @property
    def max_workers(self) -> int:
        """How many nodes of this backend run at once."""

    @property
    def home(self) -> object:
        """Where values stay that `call` returns as `Held`; None where it returns the values themselves."""

    def open(self, name: str) -> None:
        """An adapter begins to use it, under this name. It may start workers now or at the first call.

        Raises:
            RuntimeError: It is in use by another adapter, or closed.
            ImportError: An extra is missing; the message says how to install it.
        """

    def call(self, call: Call, timing: Timing) -> Any:
        """Calls the function where this backend runs nodes, and blocks until its value is here.

        It runs inside the node's context: the current span is the node's. Arguments of the same home, and lists of
        such, come as `Held`.

        Args:
            call: What to call.
            timing: Filled in as things happen, also by a call that raises.

        Raises:
            BaseException: What the function raised, with the remote traceback as its cause; or why it could not be
                called, naming the node and the parameter.
        """

    def cancel(self, call: Call) -> None:
        """Nobody wants the value any more: `call` should raise soon. Does not block. Calls not running are ignored."""

    def close(self) -> None:
        """No more calls. Running ones were waited for, or cancelled. Workers are gone when it returns."""


CallOf = Callable[[Future[Any]], Call | None]
Within = Callable[[Callable[[], Any]], Any]


@runtime_checkable
class SendsAhead(Backend, Protocol):
    """A backend that needs no thread here to send a call and wait for it, but with `forward` does so itself.

    It can also have a call on its way before the call's inputs have ended, where these are on it too. In the end `call`
    with the same object follows, or `cancel`. Methods do not block.
    """

    def prepare(self, call: Call, call_of: CallOf, within: Within) -> None:
        """A node is about to be submitted.

        Args:
            call: Its call. Its arguments may be futures of nodes.
            call_of: Gives the call of the node of a future, if it was given to this method and has not ended.
            within: Calls a function in the context that the node will run in, with its span the current one.
        """

    def expect(self, call: Call) -> None:
        """The node has been submitted. It may be sent ahead."""

    def forward(self, call: Call, then: Callable[[], None]) -> None:
        """The node's inputs have ended, and it is its turn.

        Args:
            call: Its call.
            then: Is called once, on any thread, when `call` would not wait: it has ended, or cannot be sent so.
        """
