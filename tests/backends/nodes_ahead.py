"""Nodes of a module that workers can import, as a program's are: for `test_dask_ahead.py`."""

# Hamilton reads annotations: they are no strings here.
import os
from pathlib import Path

from opentelemetry import trace

from tests.backends.calls import held


def first(started: Path, release: Path) -> int:
    return held(started, release) * 0


def by_names(started_name: str, release_name: str) -> int:
    return held(Path(started_name), Path(release_name))


def second(first: int) -> int:
    return first + 1


def third(second: int) -> int:
    return second + 1


def changed(first: int, rows: list[int]) -> int:
    return first + len(rows)


def widened(first: int, table: dict[str, int]) -> int:
    return first + len(table)


def here() -> int:
    return 10


def there() -> int:
    return 100


def added(first: int, here: int, there: int) -> int:
    return first + here + there


def fails(first: int) -> int:
    raise KeyError("missing")


def below(fails: int) -> int:
    return 1


def touches(first: int, marker: str) -> int:
    Path(marker).touch()
    return first


def ahead(first: int) -> tuple[int, int]:
    """The span that is current there."""
    context = trace.get_current_span().get_span_context()
    return context.trace_id, context.span_id


def last(ahead: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    context = trace.get_current_span().get_span_context()
    return ahead, (context.trace_id, context.span_id)


def ends_its_worker(first: int) -> int:
    os._exit(first)
