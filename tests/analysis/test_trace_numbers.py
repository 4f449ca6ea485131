"""Times as programs write them that have no 64 bits for a number."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.analysis.trace_documents import MS, Item, node_item, otlp, read, run_item


def as_javascript_prints(time: str) -> int:
    """The nearest double, by its shortest digits."""
    return int(Decimal(repr(float(time))))


def in_halves(time: str) -> dict[str, int]:
    """As JavaScript's libraries for 64 bits hold a number: two signed halves."""
    low = int(time) & 0xFFFFFFFF
    return {"low": low - 2**32 if low >= 2**31 else low, "high": int(time) >> 32}


ROUNDED = {
    "number": as_javascript_prints,
    "string of such a number": lambda time: str(as_javascript_prints(time)),
    "float": float,
    "exponent": lambda time: Decimal(repr(float(time))),
    "string with an exponent": lambda time: repr(float(time)),
    "string with a fraction": lambda time: f"{as_javascript_prints(time)}.0",
}
EXACT = {"string": str, "whole number": int, "halves": in_halves}


def with_times(document: Any, write: Any) -> str:
    """The document with its times written otherwise, exponents without quotes where they are numbers."""

    def rewritten(found: dict[str, Any]) -> dict[str, Any]:
        return {key: write(value) if key.endswith("UnixNano") else value for key, value in found.items()}

    def plain(value: Any) -> Any:
        return f"<{value}>" if isinstance(value, Decimal) else value

    text = json.dumps(json.loads(json.dumps(document), object_hook=rewritten), default=plain)
    return text.replace('"<', "").replace('>"', "")


def busy_nodes(number: int, offset_ns: int) -> list[Item]:
    """Nodes that follow each other without a gap, and compute all of their time."""
    each_ns = 50_077
    starts = [0.001 + (offset_ns + index * each_ns) / MS for index in range(number)]
    return [
        run_item(1, 0, 100, nodes=number),
        *(
            node_item(
                2 + index, f"n{index}", start, start + each_ns / MS, *([(1 + index, f"n{index - 1}")] if index else []),
                dependency_ms=max(0.0, start - starts[0]),
                attributes={"hamilton.node.cpu.duration": each_ns / 1e9},
            )
            for index, start in enumerate(starts)
        ),
    ]  # fmt: skip


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=st.sampled_from(sorted(ROUNDED)), offset_ns=st.integers(0, 10**6))
def test_rounded_times_are_no_problem_of_the_trace(file: Path, form: str, offset_ns: int) -> None:
    """States that fill a node, and nodes that follow each other, do so to within the rounding: nothing is said."""
    document = otlp(busy_nodes(20, offset_ns))
    (exact,) = read(file, json.dumps(document))
    (run,) = read(file, with_times(document, ROUNDED[form]))
    assert exact.problems == run.problems == ()
    for whole in exact.nodes:
        node = run.by_key[whole.key]
        assert (node.name, node.upstream) == (whole.name, whole.upstream)
        assert node.states.get("other", 0) <= 512
        assert abs(node.started_ns - whole.started_ns) <= 256
        assert abs(node.ended_ns - whole.ended_ns) <= 256
        assert abs(node.queue_ns - whole.queue_ns) <= 1024
    assert all(node.queue_ns == 0 for node in run.nodes if node.upstream)


@pytest.mark.parametrize("form", EXACT)
def test_exact_times_stay_exact(form: str, file: Path) -> None:
    """Also as numbers, which other languages write as they are."""
    document = otlp(busy_nodes(20, 611))
    assert read(file, with_times(document, EXACT[form])) == read(file, json.dumps(document))


def test_a_difference_beyond_the_rounding_is_told(file: Path) -> None:
    """The tolerance is that of the numbers, no more."""
    items = [run_item(1, 0, 100, nodes=1), node_item(2, "a", 1, 2, attributes={"hamilton.node.cpu.duration": 1.002e-3})]
    (run,) = read(file, with_times(otlp(items), as_javascript_prints))
    assert [problem.split(":")[1] for problem in run.problems] == [
        " states of time that add up to more than the duration, or are no numbers; scaled to fit."
    ]


@pytest.mark.parametrize("time", ["soon", "1e400", "nan", -1, [], {"low": 1}, {"low": "a", "high": "b"}, 1e300])
def test_what_is_no_time_is_left_out(time: Any, file: Path) -> None:
    """And everything else is read."""
    document = otlp([run_item(1, 0, 100, nodes=1), node_item(2, "a", 1, 2), node_item(3, "b", 1, 2)])
    document["resourceSpans"][2]["scopeSpans"][0]["spans"][0]["endTimeUnixNano"] = time
    (run,) = read(file, json.dumps(document))
    assert [node.name for node in run.nodes] == ["a"]
    assert run.problems == ("1 span without usable ids or times: left out.",)


@pytest.mark.parametrize(
    "number", ["9" * 400, 10**400, 1e300, "1e300", "-" + "9" * 400], ids=["text", "int", "float", "1e300", "less"]
)
@pytest.mark.parametrize("key", ["hamilton.run.node.count", "hamilton.threadpool.workers.limit", "hamilton.cpus.limit"])
def test_numbers_beyond_64_bits(tmp_path: Path, key: str, number: object) -> None:
    """In a damaged or forged file: the run is explained as if they were not there."""
    document = json.loads(json.dumps(otlp(busy_nodes(3, 0))))
    attribute = {"key": key, "value": {"intValue": number}}
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                span["attributes"] = [*(each for each in span["attributes"] if each["key"] != key), attribute]
    (run,) = read(tmp_path / "trace.json", json.dumps(document))
    assert len(run.nodes) == 3
    assert run.explain()
