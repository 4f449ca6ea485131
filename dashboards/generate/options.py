"""The adapter's options into a reference page: from its signature and docstring, and those of its settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Final

from dashboards.generate.markdown import table
from traced_threadpool import Attribution, FutureAdapter, Metrics, Tracing

_MADE: Final = "<!-- Written by `make dashboards` from src/traced_threadpool/adapter.py and options.py. -->"
_ENTRY: Final = re.compile(r"^ {4}(\w+): ((?:.|\n {8})+)", re.MULTILINE)
_DEFAULT: Final = re.compile(r" Default: (.+?)\.(?= [A-Z]|$)")


def options_page() -> str:
    """`docs/options.md`."""
    parts = [
        _MADE,
        "# Options",
        "`FutureAdapter` takes the first three by position or by keyword, as Hamilton's does; all others by keyword. "
        "A value that cannot work is refused when the adapter is made.",
        table(("option", "default", "meaning"), list(_rows(FutureAdapter))),
        "## Settings",
        "`tracing=`, `metrics=` and `attribution=` are `True`, `False`, or one of these frozen objects of "
        "`traced_threadpool`.",
        "```python\nFutureAdapter(tracing=Tracing(large_run=None), metrics=Metrics(run_duration_buckets=[1, 30]))\n```",
    ]
    for settings in (Tracing, Metrics, Attribution):
        parts += [
            f"### {settings.__name__}",
            _summary(settings),
            table(("option", "default", "meaning"), list(_rows(settings))),
        ]
    return "\n\n".join(parts) + "\n"


def _summary(of: type[Any]) -> str:
    return inspect.cleandoc(of.__doc__ or "").partition("\n\n")[0]


def _rows(of: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Option, default, meaning; in the order of the signature. An option without a description is an error."""
    arguments = inspect.cleandoc(of.__doc__ or "").partition("\nArgs:\n")[2]
    told = {name: " ".join(text.split()) for name, text in _ENTRY.findall(arguments)}
    for name, parameter in inspect.signature(of).parameters.items():
        text = told[name]
        default = _DEFAULT.search(text)
        if default is not None:
            text = text.replace(default[0], "")
        yield f"`{name}`", f"`{parameter.default!r}`" + (f": {default[1]}" if default else ""), text.strip()
