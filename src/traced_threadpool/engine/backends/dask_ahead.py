"""Nodes that are sent to a Dask cluster before their inputs are there, since these are computed on the same cluster.

A node that waited here for the news that its input has ended would be a journey late each time: in a chain, for each
node. So its task is sent with those of its inputs, and the cluster starts it. Here nothing changes: the node starts
when its inputs have ended, runs through hooks and spans as ever, and where its function is to be called, that is
already on its way. Unless it turns out then that it was sent with other arguments: in that case it is sent again.

Sent ahead are nodes whose unfinished inputs are all on their way on the same backend. `DaskAhead` follows that:

    expect --(each input is sent)--> due --(on a thread of its own)--> pickled, into the outbox

On each of these arrows a node may be *claimed* by its own thread, which then sends it as if it had not been expected;
or be dropped, since it will not run.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Final

from traced_threadpool.engine.backends.base import Call, Within
from traced_threadpool.engine.backends.dask_call import LISTEN_AFTER_SECONDS, DaskCall
from traced_threadpool.engine.backends.held import REMOTE, Coming, Held
from traced_threadpool.engine.backends.mailbox import Mailbox

_PLAIN: Final = frozenset((type(None), bool, int, float, complex, str, bytes))
"""Types of the other arguments that a node may have which is sent ahead: nothing can change them meanwhile."""

Known = Callable[[Future[Any]], "Expected | None"]
"""Gives what was expected of the node of a future, if that is one of this backend's."""


class Expected:
    """A node of the backend, from its submission on.

    Args:
        call: Its call, whose arguments may be futures.
        known: See `Known`.
        within: As of `base.SendsAhead.expect`.
    """

    __slots__ = (
        "arguments",
        "call",
        "followers",
        "known",
        "missing",
        "sent_ahead",
        "sent_as",
        "settled",
        "then",
        "within",
    )

    def __init__(self, call: Call, known: Known, within: Within) -> None:
        self.call = call
        self.known = known
        self.within = within
        self.missing = 0
        self.settled = False  # claimed, taken to be sent ahead, or dropped
        self.sent_ahead: DaskCall | None = None
        self.arguments: Mapping[str, Any] = {}  # that it was sent ahead with
        self.sent_as: DaskCall | None = None  # ahead or not
        self.then: Callable[[], None] | None = None  # of `forward`
        self.followers: list[Expected] = []  # that wait for this one to be sent

    def was_sent_with(self, arguments: Mapping[str, Any]) -> bool:
        """Whether it was sent ahead with these."""
        sent = self.arguments
        return sent.keys() == arguments.keys() and all(_is_same(sent[name], value) for name, value in arguments.items())


class DaskAhead:
    """Follows which nodes can be sent ahead.

    Args:
        send: Sends one as the call, given its arguments, in which a `Held` stands for what is on the cluster, and a
            `Coming`, whose `remote` is a call, for what will be. May fail the call.
        home: Gives where values are that can be taken there.
        space: Whether there may be one more on its way.
        is_known: Whether a function can be pickled without a doubt. Others are pickled by their nodes' own threads,
            which these may hang.
    """

    def __init__(
        self,
        send: Callable[[Expected, DaskCall, dict[str, Any]], None],
        home: Callable[[], object],
        space: Callable[[], bool],
        is_known: Callable[[Callable[..., Any]], bool],
    ) -> None:
        self._is_known = is_known
        self._send = send
        self._home = home
        self._space = space
        self._lock = threading.Lock()
        self._unclaimed: set[Expected] = set()  # that were sent ahead, and whose nodes have not started
        self._waited_for: deque[tuple[float, DaskCall]] = deque()  # and from when on Dask is to tell of its end
        self._postponed: list[Expected] = []  # for which there was no space
        self._mailbox: Mailbox[Expected] = Mailbox(
            "traced_threadpool-ahead-to-dask", self._take, self._listen_to_late, lambda: bool(self._waited_for)
        )

    def __len__(self) -> int:
        """How many are on their way whose nodes have not started."""
        return len(self._unclaimed)

    def expect(self, expected: Expected) -> None:
        """A node has been submitted. It is sent once those of its inputs that have not ended have been."""
        pending = [future for future in _futures_in(expected.call.arguments) if not future.done()]
        if not pending:
            return
        with self._lock:
            for future in pending:
                upstream = expected.known(future)
                if upstream is None:
                    return
                if upstream.sent_as is None:
                    upstream.followers.append(expected)
                    expected.missing += 1
            due = not expected.missing
        if due:
            self._post(expected)

    def sent(self, expected: Expected, call: DaskCall) -> None:
        """A node has been put into the outbox, ahead or not. So those that take its value may follow."""
        due = []
        with self._lock:
            expected.sent_as = call
            followers, expected.followers = expected.followers, []
            for each in followers:
                each.missing -= 1
                if not each.missing and not each.settled:
                    due.append(each)
        for each in due:
            self._post(each)

    def claim(self, expected: Expected) -> DaskCall | None:
        """Its node has started. What was sent ahead for it, or is about to be."""
        with self._lock:
            self._unclaimed.discard(expected)
            expected.settled = True
            return expected.sent_ahead

    def forward(self, expected: Expected, then: Callable[[], None]) -> None:
        """It is the node's turn: it is sent now, if it was not before. See `base.SendsAhead.forward`."""
        with self._lock:
            call, dropped = expected.sent_ahead, expected.settled
            if not dropped:
                expected.then = then
        if call is not None:
            self._wait_for(call, then)
        elif dropped or not self._post(expected):
            self._let_go_on(expected, then)

    def drop(self, expected: Expected) -> None:
        """Nobody wants its value any more."""
        call = self.claim(expected)
        if call is not None:
            call.cancel()
        else:
            self._let_go_on(expected, None)

    def _let_go_on(self, expected: Expected, then: Callable[[], None] | None) -> None:
        """Its thread is to do all."""
        with self._lock:
            expected.settled = True
            then, expected.then = expected.then or then, None
        if then is not None:
            then()

    def _wait_for(self, call: DaskCall, then: Callable[[], None]) -> None:
        call.when_ended(then)
        self._waited_for.append((time.monotonic() + LISTEN_AFTER_SECONDS, call))
        try:
            self._mailbox.stay()
        except RuntimeError:  # no thread that could listen later
            call.want_end()

    def _listen_to_late(self) -> None:
        """Has Dask tell of the end of what has not ended soon, which may have failed."""
        now = time.monotonic()
        while self._waited_for and (self._waited_for[0][0] <= now or self._waited_for[0][1].ended.is_set()):
            _, call = self._waited_for.popleft()
            if not call.ended.is_set():
                call.want_end()

    def ended(self, expected: Expected) -> None:
        """Its node has ended, however it did. What waits for it to be sent is not sent ahead."""
        with self._lock:
            expected.followers = []
            postponed, self._postponed = self._postponed, []
        for each in postponed:
            self._post(each)

    def stop(self) -> None:
        self._mailbox.stop()

    def _post(self, expected: Expected) -> bool:
        """False where no thread can be started for it: then it is sent by its own, when its inputs are there."""
        try:
            self._mailbox.put(expected)
        except RuntimeError:
            return False
        return True

    def _take(self, expected: Expected) -> None:
        self._listen_to_late()
        if expected.then is None and not self._space():
            with self._lock:
                self._postponed.append(expected)
            return
        arguments = self._arguments_of(expected)
        if arguments is None:
            if expected.then is not None:
                self._let_go_on(expected, None)
            return
        call = DaskCall(expected.call.record.name)
        with self._lock:
            if expected.settled:
                return
            expected.settled = True
            expected.sent_ahead = call
            expected.arguments = arguments
            self._unclaimed.add(expected)
            then, expected.then = expected.then, None
        if then is not None:
            self._wait_for(call, then)
        try:
            self._send(expected, call, arguments)
        except Exception as error:  # such as what cannot be pickled: its node meets that again, and tells it
            call.failed(error)

    def _arguments_of(self, expected: Expected) -> dict[str, Any] | None:
        """Its arguments as they are now; None if it cannot be sent ahead with these."""
        arguments: dict[str, Any] = {}
        if not self._is_known(expected.call.function):
            return None
        for name, value in expected.call.arguments.items():
            if type(value) is list and value:
                arguments[name] = [self._value_of(each, expected.known) for each in value]
                if not all(type(each) in REMOTE for each in arguments[name]):
                    return None
            else:
                arguments[name] = argument = self._value_of(value, expected.known)
                if type(argument) not in REMOTE and type(argument) not in _PLAIN:
                    return None
        return arguments

    def _value_of(self, future: Any, known: Known) -> Any:
        """The value of what may be a future, or what stands for it; `_NONE` if there is neither."""
        if not isinstance(future, Future):
            return future
        home = self._home()
        if future.done():
            failed = future.cancelled() or future.exception() is not None
            value = _NONE if failed else future._result  # `result` would bring it here
            return _NONE if type(value) is Held and value.home is not home else value
        upstream = known(future)
        if upstream is None or upstream.sent_as is None:
            return _NONE
        return Coming(upstream.sent_as)


_NONE: Final = object()


def _is_same(sent: Any, given: Any) -> bool:
    if type(sent) in REMOTE and type(given) is Held:
        return bool(sent.remote.key == given.remote.key)
    if type(sent) is list and type(given) is list:
        return len(sent) == len(given) and all(map(_is_same, sent, given))
    return sent is given


def _futures_in(arguments: Mapping[str, Any]) -> Iterator[Future[Any]]:
    for value in arguments.values():
        if isinstance(value, Future):
            yield value
        elif type(value) is list:
            yield from (each for each in value if isinstance(each, Future))
