"""Measured runs into a file, and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.what_if.run import Measured
from traced_threadpool.model.recorded_run import NodeExecution, RecordedRun


def write_runs(file: Path, runs: Mapping[int, Sequence[Measured]]) -> None:
    """By workers."""
    kept = {str(workers): [dataclasses.asdict(each) for each in measured] for workers, measured in runs.items()}
    file.write_text(json.dumps(kept), encoding="utf-8")


def read_runs(file: Path) -> dict[int, list[Measured]]:
    kept = json.loads(file.read_text(encoding="utf-8"))
    return {int(workers): [_measured(each) for each in measured] for workers, measured in kept.items()}


def _measured(kept: Mapping[str, Any]) -> Measured:
    record = kept["record"]
    nodes = tuple(NodeExecution(**{**node, "upstream": tuple(node["upstream"])}) for node in record["nodes"])
    problems = tuple(record["problems"])
    return Measured(**{**kept, "record": RecordedRun(**{**record, "nodes": nodes, "problems": problems})})
