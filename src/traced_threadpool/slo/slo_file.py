"""An objective into the text of a rule file, with the command that writes it again on top.

>>> print(slo_file(Objective.parse(run="etl", availability="99.9", latency="30s")).partition("groups:")[0], end="")
# traced-threadpool slo --run etl --objective 99.9 --latency 30s --latency-objective 99
#
# With 69 or fewer runs in 1h, a single bad one is enough for the page on availability.
# With 6 or fewer runs in 1h, a single bad one is enough for the page on latency.
"""

from __future__ import annotations

import shlex

from traced_threadpool.slo.burn_rate import RUNBOOK, notes, slo_groups
from traced_threadpool.slo.objective import Objective
from traced_threadpool.slo.promql import duration
from traced_threadpool.slo.rule_file import to_yaml
from traced_threadpool.telemetry import names


def slo_file(objective: Objective, *, runbook: str = RUNBOOK) -> str:
    """The text. `runbook` is where `docs/runbook.md` can be read."""
    return to_yaml(
        slo_groups(objective, runbook=runbook), "\n".join([command(objective, runbook), "", *notes(objective)])
    )


def command(objective: Objective, runbook: str = RUNBOOK) -> str:
    """The command line that stands for an objective."""
    words = ["traced-threadpool", "slo"]
    if objective.pool is not None:
        words += ["--pool", objective.pool]
    if objective.run is not None:
        words += ["--run", objective.run]
    words += ["--objective", f"{objective.availability:f}"]
    if objective.latency_seconds is not None:
        words += ["--latency", duration(objective.latency_seconds), "--latency-objective", f"{objective.latency:f}"]
        if objective.latency_seconds not in names.RUN_BUCKETS:
            words += ["--buckets", f"{objective.latency_seconds:.10g}"]
    if objective.fresh_seconds is not None:
        words += ["--fresh-within", duration(objective.fresh_seconds)]
    if runbook != RUNBOOK:
        words += ["--runbook", runbook]
    return shlex.join(words)
