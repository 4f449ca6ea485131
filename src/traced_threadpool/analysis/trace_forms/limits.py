"""What the SDK's limits took from the spans of a run, and what of it can be told all the same.

- Too many attributes on a span: the oldest are dropped and counted (`OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`). A span that
  has what every span of its kind has lost nothing of ours: the adapter sets these first and last.
- Too long a value: it is cut, of a list each text (`OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`). The adapter counts what is
  cut. A span's own name never is, so that of a node is whole, and a name that was cut stands for the one that begins
  with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from traced_threadpool.analysis.trace_forms.grouping import Group
from traced_threadpool.analysis.trace_forms.span import Attributes, Span, text_of
from traced_threadpool.model.formatting import count
from traced_threadpool.model.records import OUTCOMES, Outcome
from traced_threadpool.telemetry import names

_Word = TypeVar("_Word", bound=str)

_OF_NODES: Final = (names.NODE_NAME, names.POOL_NAME, names.NODE_DEPENDENCY, names.NODE_QUEUE, names.NODE_OUTCOME)
_OF_NODES_THAT_RAN: Final = (*_OF_NODES, names.NODE_CPU, names.THREAD_NAME, names.THREAD_ID)
_OF_RUNS: Final = (
    names.ATTRIBUTION_METHOD,
    names.CPUS_LIMIT,
    names.RUN_PRIORITY,
    names.POOL_LIMIT,
    names.POOL_NAME,
    names.RUN_NODE_COUNT,
    names.RUN_OUTCOME,
    names.RUN_ID,
)
"""What every span has."""

_NEVER_RAN: Final[tuple[Outcome, ...]] = ("upstream_error", "cancelled")
_MOST_TOLD: Final = 3


def one_of(words: Sequence[_Word], value: object) -> _Word | None:
    """The word that a value is, or is the beginning of.

    >>> one_of(("success", "error", "upstream_error"), "error"), one_of(("success", "error", "upstream_error"), "ups")
    ('error', 'upstream_error')
    >>> one_of(("fifo", "first"), "fi"), one_of(("fifo", "first"), "last"), one_of(("fifo",), "")
    (None, None, None)
    """
    found = [word for word in words if word == value]
    if not found and isinstance(value, str) and value:
        found = [word for word in words if word.startswith(value)]
    return found[0] if len(found) == 1 else None


def outcome_of(attributes: Attributes) -> Outcome:
    """How a node ended. Where that was dropped, or cut to nothing, by what a node has that ended so.

    >>> outcome_of({names.NODE_OUTCOME: "can"}), outcome_of({names.ERROR_TYPE: ""}), outcome_of({})
    ('cancelled', 'error', 'success')
    """
    told = attributes.get(names.NODE_OUTCOME)
    outcome: Outcome | None = one_of(OUTCOMES, told)
    if outcome is not None:
        return outcome
    if names.NODE_FAILED_UPSTREAM in attributes:
        return "upstream_error"
    if names.ERROR_TYPE in attributes:
        return "error"
    return "cancelled" if told == "" and names.NODE_CPU not in attributes else "success"


def name_of(span: Span) -> str:
    """A node's name: the span's own unless the attribute says otherwise, other than by being cut."""
    told = text_of(span.attributes, names.NODE_NAME)
    return span.name if told is None or span.name.startswith(told) else told


def whole_names(told: Iterable[str], known: Collection[str]) -> dict[str, None]:
    """The names that were told, those that were cut replaced by the known ones that they are the beginning of."""
    found: dict[str, None] = {}
    for name in told:
        if name in known:
            found[name] = None
        else:
            found.update(dict.fromkeys([each for each in known if each.startswith(name)] or [name]))
    return found


def problems_of(members: Sequence[Group]) -> list[str]:
    """What a run and those nested in it lack, or may."""
    nodes = [(span, group.span is not None) for group in members for span in group.nodes]
    runs = [group.span for group in members if group.span is not None]
    lost: dict[str, None] = {}
    losing = 0
    for span, wanted in (
        *((span, _wanted_of_node(span, in_run=in_run)) for span, in_run in nodes if span.dropped_attributes),
        *((span, _OF_RUNS) for span in runs if span.dropped_attributes),
    ):
        missing = [key for key in wanted if key not in span.attributes]
        lost.update(dict.fromkeys(missing))
        losing += bool(missing)
    problems = []
    if losing:
        more = f" and {len(lost) - _MOST_TOLD} more" if len(lost) > _MOST_TOLD else ""
        problems.append(
            f"{count(losing, 'span')}: attributes dropped, since there were more than the SDK keeps "
            f"(OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT). What they told is missing: {', '.join(list(lost)[:_MOST_TOLD])}{more}."
        )
    if cut := sum(map(_is_cut, _spans(members))):
        problems.append(
            f"{count(cut, 'span')}: values cut off by the SDK's limit on their length "
            "(OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT): ids and names in it may be taken for others that begin alike."
        )
    return problems


def any_cut(members: Sequence[Group]) -> bool:
    """Whether any value of a run and those nested in it was cut."""
    return any(map(_is_cut, _spans(members)))


def _spans(members: Sequence[Group]) -> Iterator[Span]:
    for group in members:
        yield from group.nodes
        if group.span is not None:
            yield group.span


def _wanted_of_node(span: Span, *, in_run: bool) -> Sequence[str]:
    never_ran = outcome_of(span.attributes) in _NEVER_RAN
    wanted = _OF_NODES if never_ran else _OF_NODES_THAT_RAN
    return (*wanted, names.RUN_ID) if in_run else wanted


def _is_cut(span: Span) -> bool:
    """By the adapter's own count; without it, by names and words that are not whole."""
    attributes = span.attributes
    if attributes.get(names.ATTRIBUTES_CUT):
        return True
    name = text_of(attributes, names.NODE_NAME)
    if name is not None and name != span.name and span.name.startswith(name):
        return True
    outcome = attributes.get(names.NODE_OUTCOME, attributes.get(names.RUN_OUTCOME))
    return outcome is not None and outcome not in OUTCOMES and one_of(OUTCOMES, outcome) is not None
