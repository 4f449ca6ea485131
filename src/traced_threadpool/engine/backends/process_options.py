"""The options of `Processes`, checked: what is wrong is said at once, before any process."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, Final, Literal

StartMethod = Literal["forkserver", "spawn"]
DEFAULT_METHOD: Final[StartMethod] = "forkserver" if sys.platform.startswith(("linux", "freebsd")) else "spawn"


def checked_count(name: str, value: Any) -> int:
    """A number of processes or nodes."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be greater than 0, not {value}")
    return value


def checked_seconds(name: str, value: Any) -> float:
    """A stretch of time."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 <= value < threading.TIMEOUT_MAX:
        raise ValueError(f"{name} must be 0 or more seconds, not {value!r}")
    return float(value)


def checked_method(value: Any) -> StartMethod:
    """How processes are started; None: the platform's default."""
    if value is None:
        return DEFAULT_METHOD
    if value == "fork":
        raise ValueError(
            "start_method='fork' is not supported: a fork copies the locks that other threads of this process hold, "
            "and with a thread pool at work the child hangs on one of them; use 'forkserver' or 'spawn'"
        )
    if value not in ("forkserver", "spawn"):
        raise ValueError(f"start_method must be 'forkserver' or 'spawn', not {value!r}")
    if value == "forkserver" and not hasattr(os, "fork"):
        raise ValueError("start_method='forkserver' needs a platform that can fork; use 'spawn'")
    return value  # type: ignore[no-any-return]  # checked above


def checked_env(value: Any) -> dict[str, str]:
    """Environment variables; None: none."""
    env = dict(value or {})
    for name, text in env.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(f"env must map strings to strings; the value of {name!r} is a {type(text).__name__}")
    return env
