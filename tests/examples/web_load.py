"""`python -m tests.examples.web_load`: real requests on both services, and what became of their traces."""

from __future__ import annotations

import urllib.request
from concurrent.futures import ThreadPoolExecutor

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from examples.web_services import quote
from tests.dags import PATIENCE, eventually
from tests.examples.test_web_services import fastapi_server, flask_server

CALLERS, REQUESTS = 8, 16
NODES = ["price", "quote", "stock"]


def ask(url: str, number: int) -> bytes:
    """A request of a trace with this number."""
    request = urllib.request.Request(f"{url}/quote/tea", headers={"traceparent": f"00-{number:032x}-{number:016x}-01"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        body: bytes = answer.read()
    return body


def main() -> None:
    """Prints for each service how many of the traces are whole."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    for first, (name, serve) in enumerate((("fastapi", fastapi_server), ("flask", flask_server)), start=1):
        numbers = range(1000 * first, 1000 * first + REQUESTS)
        with serve() as url, ThreadPoolExecutor(CALLERS) as callers:
            answers = set(callers.map(lambda number, url=url: ask(url, number), numbers))  # type: ignore[misc]
        assert len(answers) == 1, answers
        eventually(lambda numbers=numbers: all(whole(exporter, number) for number in numbers))  # type: ignore[misc]
        print(name, sum(whole(exporter, number) for number in numbers))
    quote.adapter.close()


def whole(exporter: InMemorySpanExporter, number: int) -> bool:
    """Whether the run's nodes are its children, and the run a descendant of the caller's span, in one trace."""
    spans = [each for each in exporter.get_finished_spans() if each.context and each.context.trace_id == number]
    parents = {each.context.span_id: each.parent.span_id if each.parent else 0 for each in spans if each.context}
    nodes = [each for each in spans if "hamilton.node.outcome" in (each.attributes or {})]
    [run] = [each.context for each in spans if "hamilton.run.outcome" in (each.attributes or {})] or [None]
    if run is None or sorted(each.name for each in nodes) != NODES or 0 in parents.values():
        return False
    above = run.span_id
    while above in parents:  # a framework may have spans of its own between the request's and the run's
        above = parents[above]
    return above == number and {each.parent and each.parent.span_id for each in nodes} == {run.span_id}


if __name__ == "__main__":
    main()
