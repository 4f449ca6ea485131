"""One scenario into what was reported of its nodes, beside the truth. Runs in a process of its own, under the shim:

    python -m benchmarks.truth.measure SCENARIO [--quick]

The last line that it prints is the result, as JSON. Before anything counts, the nodes run for half a second: the
package's sampler starts once nodes have been running for a while, and its first nodes are not what is tested here.
Short nodes do so before each length, and are as short as those that count.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from hamilton import ad_hoc_utils, driver
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from benchmarks.truth.compare import Case, Execution, Measured
from benchmarks.truth.instrument import Instrument, Reading, Truth, between, without
from benchmarks.truth.scenarios import SCENARIOS, Bodies
from benchmarks.truth.work import Piece
from traced_threadpool import FutureAdapter
from traced_threadpool.engine.pool import Meter
from traced_threadpool.model.records import NodeRecord
from traced_threadpool.model.states import STATES, State
from traced_threadpool.telemetry import names

WARM_UP_SECONDS: Final = 0.5
PATIENCE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long nodes are told to take, and how often they do."""

    label: str
    least_seconds: float
    most_seconds: float
    runs: int


LONG: Final = (
    Length(label="100-150 ms", least_seconds=0.1, most_seconds=0.15, runs=16),
    Length(label="0.5 s", least_seconds=0.5, most_seconds=0.5, runs=4),
    Length(label="2-3 s", least_seconds=2.0, most_seconds=3.0, runs=2),
)
SHORT: Final = tuple(
    Length(label=f"{milliseconds:g} ms", least_seconds=milliseconds / 1e3, most_seconds=milliseconds / 1e3, runs=200)
    for milliseconds in (0.5, 1, 2, 5)
)
QUICK_LONG: Final = (Length(label="0.4 s", least_seconds=0.4, most_seconds=0.4, runs=2),)
QUICK_SHORT: Final = (Length(label="2 ms", least_seconds=0.002, most_seconds=0.002, runs=100),)


class Spans:
    """A tracer provider whose spans stay in memory until they are taken. `method` is how states were found out, as
    the last run taken said.
    """

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.method = "none"

    def take(self, count: int) -> list[ReadableSpan]:
        """All node spans since the last time, in the order of their start, once there are so many."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found := self._nodes()) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(found)} node spans came within {PATIENCE_SECONDS} s, expected {count}")
            time.sleep(0.01)
        self.method = self._method()
        self._memory.clear()
        return sorted(found, key=lambda span: span.start_time or 0)

    def _nodes(self) -> list[ReadableSpan]:
        return [span for span in self._memory.get_finished_spans() if names.NODE_NAME in (span.attributes or {})]

    def _method(self) -> str:
        said = [
            str((span.attributes or {}).get(names.ATTRIBUTION_METHOD, "none"))
            for span in self._memory.get_finished_spans()
            if names.NODE_NAME not in (span.attributes or {})
        ]
        return said[-1] if said else "none"


class Bracket(Meter):
    """Stands before the pool's meter, and reads the instrument at each node's start and end, as the package takes them.

    What the package does between the two on the node's behalf (making its span, Hamilton's own calls) is part of what
    it reports of the node, and so of the truth: of a node of 1 ms it is a tenth and more. The instrument is read
    before and after the meter is, and the one closer to the meter's own clock counts: a thread can lose its CPU
    between the two. While a node waits for a nested run its time is `other`, by definition.
    """

    def __init__(self, meter: Meter, instrument: Instrument) -> None:
        self._meter = meter
        self._read = instrument.read
        self._before: dict[int, Reading] = {}
        self._started: dict[int, Reading] = {}
        self._left: dict[int, Reading] = {}
        self._asides: dict[int, list[Truth]] = defaultdict(list)
        self._ended: list[tuple[str, int, Truth]] = []

    def take(self) -> list[tuple[str, int, Truth]]:
        """Name, start and truth of each node that has ended since the last time."""
        ended, self._ended = self._ended, []
        return ended

    def before_start(self, node: NodeRecord) -> None:
        self._before[id(node)] = self._read()
        self._meter.before_start(node)

    def after_start(self, node: NodeRecord) -> None:
        self._meter.after_start(node)
        self._started[id(node)] = _closer(node.started_ns, self._before.pop(id(node)), self._read())

    def before_end(self, node: NodeRecord) -> None:
        self._before[id(node)] = self._read()
        self._meter.before_end(node)

    def after_end(self, node: NodeRecord) -> None:
        self._meter.after_end(node)
        ended = _closer(node.ended_ns, self._before.pop(id(node)), self._read())
        truth = between(self._started.pop(id(node)), ended)
        for aside in self._asides.pop(id(node), ()):
            truth = without(truth, aside)
        self._ended.append((node.name, node.started_ns, truth))

    def hand_over(self, node: NodeRecord) -> None:
        self._meter.hand_over(node)

    def take_back(self, node: NodeRecord) -> None:
        self._meter.take_back(node)

    def leave(self, node: NodeRecord) -> None:
        self._left[id(node)] = self._read()
        self._meter.leave(node)

    def come_back(self, node: NodeRecord) -> None:
        self._meter.come_back(node)
        self._asides[id(node)].append(between(self._left.pop(id(node)), self._read()))


def _closer(clock_ns: int, *readings: Reading) -> Reading:
    return min(readings, key=lambda reading: abs(reading[0] - clock_ns))


class Runs:
    """Runs bodies as the nodes of a DAG, and has each measured."""

    def __init__(self, instrument: Instrument, workers: int) -> None:
        self._instrument = instrument
        self._spans = Spans()
        self._registry = CollectorRegistry()
        self._drivers: dict[tuple[str, ...], driver.Driver] = {}
        self.adapter = FutureAdapter(
            workers, name="truth", tracer_provider=self._spans.provider, registry=self._registry
        )
        pool: Any = self.adapter._pool
        self._bracket = pool._meter = Bracket(pool._meter, instrument)

    @property
    def method(self) -> str:
        return self._spans.method

    def execute(self, bodies: Bodies, seconds: float) -> None:
        """One run of all nodes, side by side."""
        key = tuple(bodies)
        if key not in self._drivers:
            module = ad_hoc_utils.create_temporary_module(*(_node(name, body) for name, body in bodies.items()))
            builder = driver.Builder()
            self._drivers[key] = builder.with_modules(module).with_adapters(self.adapter).build()
        self._drivers[key].execute(list(key), inputs={"seconds": seconds})

    def case(self, length: Length, bodies: Bodies, choice: random.Random) -> Case:
        """The runs of one length, compared with the truth by nobody yet."""
        counted_before = self._counted()
        for _ in range(length.runs):
            self.execute(bodies, choice.uniform(length.least_seconds, length.most_seconds))
        truths = self._truths()
        spans: dict[str, list[ReadableSpan]] = defaultdict(list)
        for span in self._spans.take(sum(map(len, truths.values()))):
            spans[span.name].append(span)
        executions = [
            _execution(span, truth)
            for name, found in truths.items()
            for span, truth in zip(spans[name], found, strict=True)
        ]
        counted = {
            node: {state: round((seconds - counted_before[node][state]) * 1e9) for state, seconds in times.items()}
            for node, times in self._counted().items()
        }
        return Case(length=length.label, executions=executions, counted_ns=counted)

    def warm_up(self, bodies: Bodies, seconds: float) -> None:
        """Runs that do not count: until the sampler is at work, its reading of the GIL included."""
        end = time.monotonic() + WARM_UP_SECONDS
        while time.monotonic() < end:
            self.execute(bodies, seconds)
        self._spans.take(sum(map(len, self._truths().values())))

    def _truths(self) -> dict[str, list[Truth]]:
        """Since the last time, by node, in the order of their start."""
        found: dict[str, list[Truth]] = defaultdict(list)
        for name, _, truth in sorted(self._bracket.take(), key=lambda each: each[1]):
            found[name].append(truth)
        return found

    def _counted(self) -> dict[str, dict[State, float]]:
        found: dict[str, dict[State, float]] = defaultdict(lambda: dict.fromkeys(STATES, 0.0))
        for family in self._registry.collect():
            for sample in family.samples:
                if sample.name == names.NODE_TIME.prometheus:
                    found[sample.labels["node"]][sample.labels["state"]] = sample.value  # type: ignore[index]  # a state
        return found


def _node(name: str, body: Piece) -> Callable[..., Any]:
    def node(seconds: float) -> int:
        body(seconds)
        return 0

    node.__name__ = node.__qualname__ = name
    return node


def _execution(span: ReadableSpan, truth: Truth) -> Execution:
    attributes = span.attributes or {}
    keys: dict[State, str] = {state: names.NODE_CPU if state == "cpu" else names.node_wait(state) for state in STATES}
    return Execution(
        node=span.name,
        true_ns=dict(truth.states_ns),
        reported_ns={
            state: round(float(attributes.get(key, 0)) * 1e9)  # type: ignore[arg-type]  # these are numbers
            for state, key in keys.items()
        },
        unexplained_ns=truth.unexplained_ns,
        samples=int(attributes.get(names.NODE_SAMPLES, 0)),  # type: ignore[arg-type]  # these two are numbers
    )


def measure(name: str, lengths: Sequence[Length], *, seed: int = 1) -> Measured:
    """All lengths of one scenario, in this process."""
    instrument, choice = Instrument(), random.Random(seed)
    before = _processor_times()
    runs: Runs | None = None
    cases: list[Case] = []

    def nested(bodies: Bodies, seconds: float) -> None:
        assert runs is not None
        runs.execute(bodies, seconds)

    scenario = SCENARIOS[name]
    with scenario.open(nested) as bodies:
        # What is known of short nodes is what others of their length have shown: an adapter for each length.
        for together in [[length] for length in lengths] if scenario.short else [lengths]:
            runs = Runs(instrument, len(bodies))
            with runs.adapter:
                runs.warm_up(bodies, together[0].least_seconds if scenario.short else WARM_UP_SECONDS)
                cases += [runs.case(length, bodies, choice) for length in together]
    assert runs is not None
    return Measured(
        scenario=name,
        python=platform.python_version(),
        method=runs.method,
        steal=_steal(before, _processor_times()),
        cases=cases,
    )


def _processor_times(path: Path = Path("/proc/stat")) -> list[int]:
    return [int(field) for field in path.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]


def _steal(before: Sequence[int], after: Sequence[int]) -> float:
    """The share of all CPUs' time that a hypervisor took away: the eighth field."""
    passed = [late - early for early, late in zip(before, after, strict=True)]
    return passed[7] / (sum(passed) or 1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truth.measure", description="one scenario, as JSON")
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    short = SCENARIOS[asked.scenario].short
    lengths = (QUICK_SHORT if short else QUICK_LONG) if asked.quick else (SHORT if short else LONG)
    result = measure(asked.scenario, lengths)
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
