"""An objective for runs into Prometheus rules that say when its error budget burns too fast. See `docs/slo.md`."""

from __future__ import annotations

from traced_threadpool.slo.burn_rate import BURN_RATES, BurnRate, slo_groups
from traced_threadpool.slo.objective import Objective
from traced_threadpool.slo.rule_file import Alert, Group, Recording, to_yaml
from traced_threadpool.slo.slo_file import slo_file

__all__ = ["BURN_RATES", "Alert", "BurnRate", "Group", "Objective", "Recording", "slo_file", "slo_groups", "to_yaml"]
