"""Nodes, runs and a hook, for the tests of spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hamilton.function_modifiers import group, inject, parameterize, source, value
from hamilton.lifecycle import GraphExecutionHook
from opentelemetry import context
from opentelemetry.trace import Link, SpanKind

from tests.telemetry.telemetry_helpers import View

pytest.importorskip("opentelemetry.sdk", reason="spans need the extra [otlp]")

from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler, SamplingResult

RUN = View(name="hamilton.run", outcome="success")


class RunIds(GraphExecutionHook):
    """Remembers what Hamilton calls its runs."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def run_before_graph_execution(self, *, run_id: str, **future_kwargs: Any) -> None:
        self.seen.append(run_id)

    def run_after_graph_execution(self, **future_kwargs: Any) -> None:
        pass


def wide(count: int) -> list[Any]:
    """`count` nodes without inputs, `n0` and on, and `total`, which takes them all."""
    names = [f"n{number}" for number in range(count)]

    made: dict[str, Any] = {name: {"number": value(number)} for number, name in enumerate(names)}

    @parameterize(**made)
    def single(number: int) -> int:
        return number

    @inject(numbers=group(*map(source, names)))
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    return [single, total]


def chain(length: int) -> list[Any]:
    """Nodes `n0` and on, each of which takes the one before."""

    made: dict[str, Any] = {f"n{number}": {"before": source(f"n{number - 1}")} for number in range(1, length)}

    @parameterize(**made)
    def each(before: int) -> int:
        return before + 1

    def n0() -> int:
        return 0

    return [n0, each]


class Watching(Sampler):
    """Remembers what it was shown of each span at its creation, and decides as `sampler` does."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._sampler = sampler
        self.shown: dict[str, tuple[dict[str, Any], list[Link]]] = {}

    def should_sample(
        self,
        parent_context: context.Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        self.shown[name] = (dict(attributes or {}), list(links or ()))
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        return "watching"
