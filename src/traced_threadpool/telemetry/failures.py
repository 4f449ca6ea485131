"""Why a request failed, in words that hold nothing of the exception's own text.

The libraries below quote what they were given: a URL, a proxy's password, a header. So what is told is the status, the
system's error or the exception's type.

>>> failure(TimeoutError("http://bob:hunter2@gateway")), failure(ValueError("hunter2"))
('no answer in time', 'ValueError')
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from urllib.error import HTTPError

from traced_threadpool.telemetry.urls import shown


def failure(error: BaseException) -> str:
    """The most telling of an exception and of those that it was made from."""
    chain = list(_chain(error))
    told = (told for each in chain if (told := _told(each)) is not None)
    return next(told, type(chain[0]).__name__)


def status(code: int, location: str | None = None) -> str:
    """What an HTTP status that is no success says.

    >>> status(308, "https://collector/?key=hunter2")
    "HTTP 308 Permanent Redirect to 'https://collector/?***', which is not followed: use that URL"
    """
    try:
        text = f"HTTP {code} {HTTPStatus(code).phrase}"
    except ValueError:
        text = f"HTTP {code}"
    if 300 <= code < 400 and location is not None:
        text += f" to {shown(location)!r}, which is not followed: use that URL"
    return text


def _told(error: BaseException) -> str | None:
    if isinstance(error, HTTPError):
        return status(error.code, error.headers.get("Location"))
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason}"
    if isinstance(error, socket.gaierror):
        return "host name not found"
    if isinstance(error, TimeoutError) or type(error).__name__ in ("ConnectTimeout", "ReadTimeout"):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and whatever it was raised from or carries, nearest first."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [*each.args, getattr(each, "reason", None), each.__cause__, each.__context__]
