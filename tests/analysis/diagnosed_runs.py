"""A small recorded run for each cause of the diagnosis. `docs/diagnosis.md` shows what is said of them.

`python -m tests.analysis.diagnosed_runs docs/diagnosis.md` writes that into the page again.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from traced_threadpool.analysis.diagnosis.advice import expected_gain, title
from traced_threadpool.analysis.diagnosis.causes import Cause
from traced_threadpool.analysis.diagnosis.diagnose import diagnose
from traced_threadpool.model.lane import Lane
from traced_threadpool.model.recorded_run import NodeExecution, PoolRuns, RecordedRun
from traced_threadpool.model.states import State

MS: Final = 1_000_000


def node(name: str, start: int, end: int, states: Mapping[State, int] | None = None, **facts: Any) -> NodeExecution:
    """Times in milliseconds. Ready, unless said otherwise, when it starts; waits were looked at often enough."""
    times = {"submitted": 0, "ready": start, **{key: facts.pop(key) for key in ("submitted", "ready") if key in facts}}
    return NodeExecution(
        key=name,
        name=name,
        submitted_ns=times["submitted"] * MS,
        ready_ns=times["ready"] * MS,
        started_ns=start * MS,
        ended_ns=end * MS,
        states={state: part * MS for state, part in (states or {}).items()},
        samples=200 if states else 0,
        queue_others_ns=facts.pop("queue_others", 0) * MS,
        **facts,
    )


def run(*nodes: NodeExecution, end: int, **facts: Any) -> RecordedRun:
    """A run of so many milliseconds, on four workers and two CPUs, with attribution."""
    defaults = {"max_workers": 4, "cpus": 2, "attribution": "process", "expected_nodes": len(nodes)}
    named = {"id": "1", "name": "etl", "pool": "etl", "started_ns": 0, "ended_ns": end * MS}
    return RecordedRun(nodes=nodes, **{**named, **defaults, **facts})


def beside_each_other(asked: RecordedRun, *others: RecordedRun) -> RecordedRun:
    """The first of several runs that share a pool."""
    together: list[RecordedRun] = []
    pool_runs = PoolRuns(lambda: together)
    together += [replace(each, pool_runs=pool_runs) for each in (asked, *others)]
    return together[0]


def side_by_side(states: Mapping[State, int], count: int = 4, prefix: str = "parse") -> tuple[NodeExecution, ...]:
    """So many nodes that begin together, and do the same."""
    return tuple(
        node(f"{prefix}_{index}", 0, sum(states.values()), states, worker=f"etl_{index}") for index in range(count)
    )


def in_turns(count: int, each: int, workers: int, states: Mapping[State, int]) -> tuple[NodeExecution, ...]:
    """So many nodes, all ready at once, on fewer workers."""
    return tuple(
        node(
            f"fetch_{index}",
            index // workers * each,
            (index // workers + 1) * each,
            states,
            ready=0,
            worker=f"etl_{index % workers}",
        )
        for index in range(count)
    )


EXAMPLES: Final[Mapping[Cause, RecordedRun]] = {
    "failing_upstream": run(
        node("load", 0, 300, {"cpu": 300}),
        node(
            "parse",
            300,
            500,
            {"cpu": 200},
            upstream=("load",),
            outcome="error",
            error_type="ValueError",
            error_message="could not convert string to float: 'n/a'",
        ),
        node("score", 500, 500, upstream=("parse",), outcome="upstream_error", failed_upstream="parse"),
        node("report", 500, 500, upstream=("score",), outcome="upstream_error", failed_upstream="parse"),
        end=500,
        outcome="error",
        error_type="ValueError",
    ),
    "cancelled": run(
        node("load", 0, 300, {"cpu": 150, "network": 150}),
        node("parse", 300, 300, upstream=("load",), outcome="cancelled"),
        node("clean", 0, 300, {"cpu": 150, "network": 150}),
        end=300,
        outcome="cancelled",
    ),
    "telemetry_loss": run(
        *side_by_side({"cpu": 150, "network": 150}),
        node("join", 900, 1000, {"cpu": 100}, upstream=("parse_0", "parse_1", "parse_2", "parse_3")),
        end=1000,
        expected_nodes=8,
    ),
    "queued_behind_other_runs": beside_each_other(
        run(
            node("load", 300, 400, {"network": 90, "cpu": 10}, ready=0, queue_others=300, worker="etl_0"),
            node(
                "score",
                700,
                800,
                {"network": 90, "cpu": 10},
                ready=400,
                queue_others=300,
                worker="etl_0",
                upstream=("load",),
            ),
            end=800,
            max_workers=1,
        ),
        run(
            *(
                node(f"parse_{index}", start, end, {"disk": 290, "cpu": 10}, submitted=-5, ready=-5, worker="etl_0")
                for index, (start, end) in enumerate(((-5, 300), (400, 700)))
            ),
            started_ns=-10 * MS,
            end=700,
            max_workers=1,
            id="2",
            name="nightly",
        ),
    ),
    "gil_bound": run(
        *side_by_side({"cpu": 250, "gil": 750}),
        end=1000,
        gil_holders={"parse_2": 1400 * MS, "parse_0": 1000 * MS, "parse_1": 300 * MS, "thread:MainThread": 300 * MS},
    ),
    "processor_starved": run(
        *side_by_side({"cpu": 250, "runqueue": 700, "gil": 50}, 8),
        end=1000,
        max_workers=8,
    ),
    "lock_contention": run(
        *side_by_side({"network": 200, "lock": 590, "cpu": 10}),
        end=800,
    ),
    "sleeping_node": run(
        node("export", 0, 1000, {"sleep": 900, "network": 100}, worker="etl_0"),
        node("prices", 0, 300, {"sleep": 200, "cpu": 100}, worker="etl_1"),
        end=1000,
    ),
    "pool_too_small": run(
        *in_turns(12, 250, 4, {"network": 125, "disk": 115, "cpu": 10}),
        end=750,
    ),
    "straggler": run(
        *side_by_side({"network": 50, "cpu": 50}, 3, "shard"),
        node("shard_3", 0, 900, {"cpu": 700, "network": 200}, worker="etl_3"),
        end=900,
    ),
    "slow_network": run(
        node("articles", 0, 300, {"network": 290, "cpu": 10}, worker="etl_0"),
        node("prices", 300, 800, {"network": 480, "cpu": 20}, worker="etl_0", upstream=("articles",)),
        node("stock", 300, 600, {"network": 290, "cpu": 10}, worker="etl_1", upstream=("articles",)),
        end=800,
    ),
    "slow_disk": run(
        node("read", 0, 700, {"disk": 650, "cpu": 50}, worker="etl_0"),
        node("index", 700, 900, {"cpu": 120, "disk": 80}, worker="etl_0", upstream=("read",)),
        end=900,
    ),
    "transfer_bound": run(
        *(
            node(
                f"tile_{index}",
                500 * (index // 2),
                500 * (index // 2) + 500,
                {"cpu": 100, "transfer": 400},
                ready=0,
                worker=f"cpu {41 + index % 2}",
                backend="cpu",
                is_remote=True,
                sent_bytes=200_000_000,
            )
            for index in range(4)
        ),
        end=1000,
        backends={"cpu": Lane("processes", 2)},
    ),
    "too_small_for_backend": run(
        *(
            node(
                f"step_{index}",
                10 * index,
                10 * index + 10,
                {"cpu": 1, "transfer": 9},
                upstream=(f"step_{index - 1}",) if index else (),
                worker="cluster 41",
                backend="cluster",
                is_remote=True,
                sent_bytes=2_000,
            )
            for index in range(5)
        ),
        end=50,
        backends={"cluster": Lane("dask", 1_000)},
    ),
    "remote_queue_bound": run(
        *(
            node(
                f"train_{index}",
                0,
                800,
                {"cpu": 300, "remote_queue": 500},
                worker=f"cluster {41 + index}",
                backend="cluster",
                is_remote=True,
                sent_bytes=2_000,
            )
            for index in range(2)
        ),
        end=800,
        backends={"cluster": Lane("dask", 1_000)},
    ),
    "critical_path": run(
        node("extract", 0, 400, {"cpu": 400}, worker="etl_0"),
        node("clean", 400, 700, {"cpu": 300}, worker="etl_0", upstream=("extract",)),
        node("rank", 700, 900, {"cpu": 200}, worker="etl_0", upstream=("clean",)),
        node("labels", 0, 100, {"network": 100}, worker="etl_1"),
        end=900,
    ),
    "outside_nodes": run(
        node("load", 0, 200, {"cpu": 100, "network": 100}, worker="etl_0"),
        node("labels", 0, 200, {"cpu": 100, "network": 100}, worker="etl_1"),
        end=1000,
    ),
    "pool_too_large": run(
        *side_by_side({"cpu": 125, "gil": 875}, 8),
        end=1000,
        max_workers=8,
        cpus=1,
    ),
    "switch_interval": run(
        *side_by_side({"cpu": 500, "gil": 500}, 2),
        *side_by_side({"network": 200, "gil": 190, "cpu": 10}, 2, "fetch"),
        end=1000,
        gil_holders={"parse_0": 700 * MS, "parse_1": 680 * MS},
    ),
    "healthy": run(
        *side_by_side({"cpu": 400, "network": 400}, 2, "left"),
        node("right_0", 800, 1600, {"cpu": 400, "network": 400}, worker="etl_0", upstream=("left_0",)),
        node("right_1", 800, 1600, {"cpu": 400, "network": 400}, worker="etl_1", upstream=("left_1",)),
        end=1600,
    ),
}
"""By the cause that the first finding is to name; `switch_interval` comes beside `gil_bound`."""

UNATTRIBUTED: Final = run(
    *(node(f"parse_{index}", 0, 1000, worker=f"etl_{index}") for index in range(3)),
    end=1000,
    attribution="none",
    attribution_reason="unsupported_platform",
)
"""Three nodes for a second, and nobody knows what they did."""


# The page

WIDTH: Final = 110
_NUMBER: Final = re.compile(r"(?<=\d) (?=(?:s|ms|%)\b|%)")
_BLOCK: Final = re.compile(r"(<!-- example: (\w+) -->\n```text\n)(.*?)(```\n)", re.DOTALL)


def renewed(page: str) -> str:
    """The page with its examples as they are now."""
    return _BLOCK.sub(lambda block: f"{block[1]}{shown(EXAMPLES[block[2]])}{block[4]}", page)  # type: ignore[index]


def shown_in(page: str) -> list[str]:
    """The causes that the page has an example of."""
    return [block[2] for block in _BLOCK.finditer(page)]


def shown(run: RecordedRun) -> str:
    """A run, node by node, and what is said of it."""
    return "".join(f"{line}\n" for line in (*_nodes(run), "", *_findings(run)))


def _nodes(run: RecordedRun) -> Iterator[str]:
    lacking = (run.expected_nodes or 0) - len(run.nodes)
    yield (
        f"run: {run.duration_ns // MS} ms, {run.max_workers} workers, {run.cpus} "
        f"CPU{'s' if run.cpus != 1 else ''}{f', {lacking} more nodes expected' if lacking else ''}"
    )
    for node in [*run.nodes, *(node for other in run.neighbours for node in other.nodes)]:
        states = ", ".join(f"{state} {part_ns // MS}" for state, part_ns in node.states.items())
        what = states if node.outcome == "success" else ": ".join(filter(None, (node.outcome, states)))
        queue = f", after {node.queue_ns // MS} ms in the queue" if node.queue_ns else ""
        after = f" (needs {', '.join(node.upstream)})" if node.upstream else ""
        of = "" if run.by_key.get(node.key) is node else " (of another run)"
        yield f"  {node.name:<9}{node.started_ns // MS:>5} to {node.ended_ns // MS:>4} ms  {what}{queue}{after}{of}"


def _findings(run: RecordedRun) -> Iterator[str]:
    for number, finding in enumerate(diagnose(run).findings, 1):
        yield f"{number}. {title(finding)}"
        said = [*(f"- {each}" for each in finding.evidence), finding.advice, expected_gain(finding, run)]
        for each in filter(None, said):
            whole = _NUMBER.sub("\u00a0", each)  # a number and its unit stay together
            further = "     " if each.startswith("- ") else "   "
            for line in textwrap.wrap(whole, WIDTH, initial_indent="   ", subsequent_indent=further):
                yield line.replace("\u00a0", " ")


def main() -> None:
    """Renew the page that is named."""
    page = Path(sys.argv[1])
    page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
