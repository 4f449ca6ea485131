r"""Names and numbers into pieces of PromQL.

>>> selector(names.RUN_DURATION, "_count", run="etl", outcome="error")
'hamilton_run_duration_seconds_count{run="etl", outcome="error"}'
>>> bound_matcher(30.0), bound_matcher(0.25)
('le=~"30(\\\\.0)?"', 'le="0.25"')

A histogram's bound of 30 seconds is `le="30.0"` where Python wrote it, and `le="30"` where a collector did.
"""

from __future__ import annotations

from traced_threadpool.telemetry import names


def quoted(name: str, what: str = "name") -> str:
    r"""A label's value as a PromQL string.

    >>> quoted("it's {{ nightly }}")
    '"it\'s {{ nightly }}"'
    >>> quoted('say "etl"', "run")
    Traceback (most recent call last):
    ...
    ValueError: run 'say "etl"' has a double quote or a backslash, which Grafana's variables put into queries...

    Raises:
        ValueError: It is empty, or would break a query, a rule file or a dashboard.
    """
    if not name:
        raise ValueError(f"{what} is empty: give the name that the adapter has")
    if not name.isprintable():
        raise ValueError(f"{what} {name!r} has a line break or another character that cannot be printed: choose a name "
                         "without")  # fmt: skip
    if '"' in name or "\\" in name:
        raise ValueError(
            f"{what} {name!r} has a double quote or a backslash, which Grafana's variables put into queries as they "
            "are: choose a name without"
        )
    return f'"{name}"'


def selector(metric: names.Metric, suffix: str = "", *matchers: str, **labels: str) -> str:
    """The series of a metric: `suffix` is a histogram's `_bucket`, `_sum`, `_count`; `labels` are to be equal."""
    inside = ", ".join([*(f"{label}={quoted(value, label)}" for label, value in labels.items()), *matchers])
    return metric.prometheus + suffix + (f"{{{inside}}}" if inside else "")


def bound_matcher(seconds: float) -> str:
    """Matches the bucket of one bound, whoever wrote it."""
    written = repr(float(seconds))
    if written.endswith(".0"):
        return f'le=~"{written.removesuffix(".0")}(\\\\.0)?"'
    return f'le="{written}"'


def duration(seconds: float) -> str:
    """As PromQL and people write it.

    >>> duration(90), duration(93_600), duration(0.25), duration(7 * 86_400)
    ('90s', '26h', '250ms', '7d')
    """
    milliseconds = round(seconds * 1000)
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds >= length and milliseconds % length == 0:
            return f"{milliseconds // length}{unit}"
    return f"{milliseconds}ms"
