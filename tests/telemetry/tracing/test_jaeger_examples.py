"""What Jaeger's own rule shades of the examples' runs is what `explain` names as their critical path."""

from __future__ import annotations

import sysconfig
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra [otlp]")

from examples.pathologies.demonstration import build_driver
from examples.pathologies.pathology import Amount
from examples.stdlib_survey import survey
from examples.stdlib_survey.catalogue_server import serving
from tests.examples.small_library import SMALL_CATALOGUE
from tests.telemetry.telemetry_helpers import Traces, make_adapter
from tests.telemetry.tracing.jaeger_rule import wrongly_shaded

pytestmark = pytest.mark.slow

MOST_WRONG = 0.02
NAMES = ["cpu_starved", "gil_bound", "healthy", "hidden_sleep", "lock_convoy", "mixed", "slow_disk", "slow_network"]


@pytest.mark.parametrize("name", NAMES)
def test_a_pathology(tmp_path: Path, name: str) -> None:
    module, traces = import_module(f"examples.pathologies.{name}"), Traces()
    with (
        module.PATHOLOGY.inputs(Amount(scale=0.1, seed=1)) as inputs,
        make_adapter(traces, max_workers=module.PATHOLOGY.workers) as adapter,
    ):
        build_driver(module, adapter).execute([module.PATHOLOGY.output], inputs=dict(inputs))
    assert wrongly_shaded(traces.every, tmp_path) <= MOST_WRONG


@pytest.mark.parametrize("parallelizable", [False, True])
def test_the_survey(tmp_path: Path, parallelizable: bool) -> None:
    traces = Traces()
    with serving(SMALL_CATALOGUE) as url, make_adapter(traces, max_workers=3) as adapter:
        survey.run_survey(
            survey.build_driver([adapter], parallelizable=parallelizable),
            stdlib_root=Path(sysconfig.get_path("stdlib")),
            catalogue_url=url,
            work_directory=tmp_path,
            limit=60,
        )
    assert wrongly_shaded(traces.every, tmp_path) <= MOST_WRONG
