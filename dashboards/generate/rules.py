"""The rule files: what is recorded for the alerts, the alerts, and objectives that hold for every run.

A team with other numbers changes `Thresholds`, or the files. Alerts on causes are tickets; what those who use the
results feel is a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from traced_threadpool.slo.burn_rate import RUNBOOK, notes, slo_groups, stale_alert
from traced_threadpool.slo.objective import Objective
from traced_threadpool.slo.promql import duration
from traced_threadpool.slo.rule_file import Alert, Group, Recording, to_yaml
from traced_threadpool.telemetry import names


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When an alert fires."""

    busy_ratio: float = 0.9
    queued_nodes: float = 1
    queue_wait_seconds: float = 5
    oldest_queued_seconds: float = 300
    stuck_seconds: float = 1800
    failing_ratio: float = 0.5
    fresh_seconds: float = 26 * 3600
    gil_ratio: float = 0.25
    gil_probe_ratio: float = 0.02


THRESHOLDS: Final = Thresholds()

EVERY_RUN: Final = Objective.parse(availability="99", latency="30s", latency_objective="95")

SATURATION: Final = "instance_pool:hamilton_threadpool_saturation:ratio"
QUEUE_WAIT_P95: Final = "pool:hamilton_threadpool_queue_wait_seconds:p95_rate10m"
MEAN_QUEUE: Final = "pool:hamilton_threadpool_queued_nodes:mean10m"
MEAN_RUNNING: Final = "pool:hamilton_threadpool_running_nodes:mean10m"
RUN_ERRORS: Final = "pool_run:hamilton_run_errors:ratio30m"
GIL_SHARE: Final = "instance_pool:hamilton_node_time_gil:ratio10m"

_RAN: Final = f"{names.RUN_DURATION.prometheus}_count"

RECORDING: Final = Group(
    name="hamilton-recording",
    rules=(
        Recording(record=SATURATION, expr=f"{names.ACTIVE_WORKERS.prometheus} / {names.MAX_WORKERS.prometheus}"),
        Recording(
            record=QUEUE_WAIT_P95,
            expr=f"histogram_quantile(0.95, sum by (job, pool, le) (rate({names.QUEUE_WAIT.prometheus}_bucket[10m])))",
        ),
        Recording(record=MEAN_QUEUE, expr=f"sum by (job, pool) (rate({names.QUEUE_WAIT.prometheus}_sum[10m]))"),
        Recording(record=MEAN_RUNNING, expr=f"sum by (job, pool) (rate({names.NODE_DURATION.prometheus}_sum[10m]))"),
        Recording(
            record=RUN_ERRORS,
            expr=f'(\n  sum by (pool, run) (rate({_RAN}{{outcome="error"}}[30m]))\n  or\n'
            f'  0 * sum by (pool, run) (rate({_RAN}{{outcome=~"success|error"}}[30m]))\n)\n/\n'
            f'(sum by (pool, run) (rate({_RAN}{{outcome=~"success|error"}}[30m])) > 0)',
        ),
        Recording(
            record=GIL_SHARE,
            expr=f'sum by (job, instance, pool) (rate({names.NODE_TIME.prometheus}{{state="gil"}}[10m]))\n/\n'
            f"(sum by (job, instance, pool) (rate({names.NODE_TIME.prometheus}[10m])) > 0)",
        ),
    ),
)


def alerts(limits: Thresholds = THRESHOLDS, runbook: str = RUNBOOK) -> Group:
    """The alerts on pools, nodes, runs and the telemetry itself."""
    errors = names.TELEMETRY_ERRORS.prometheus
    oldest_queued = f"max by (job, pool) ({names.OLDEST_QUEUED.prometheus})"

    def alert(name: str, expr: str, *, hold: str, severity: str, summary: str, description: str) -> Alert:
        return Alert(
            alert=name,
            expr=expr,
            hold=hold,
            labels={"severity": severity},
            annotations={
                "summary": summary,
                "description": description,
                "runbook_url": f"{runbook}#{name.lower()}",
            },
        )

    return Group(
        name="hamilton-alerts",
        rules=(
            alert(
                "HamiltonPoolSaturated",
                f"avg_over_time({SATURATION}[10m]) > {limits.busy_ratio:g}\nand\n"
                f"avg_over_time({names.QUEUE_DEPTH.prometheus}[10m]) > {limits.queued_nodes:g}",
                hold="5m",
                severity="ticket",
                summary="Backend {{ $labels.backend }} of pool {{ $labels.pool }} on {{ $labels.instance }} has no "
                "worker to spare",
                description="{{ $value | humanizePercentage }} of its workers were busy over ten minutes, and nodes "
                "that could run waited for one. More workers help if the machine has CPUs left and nodes do "
                "not wait for the GIL.",
            ),
            alert(
                "HamiltonQueueWaitHigh",
                f"(\n  {QUEUE_WAIT_P95} > {limits.queue_wait_seconds:g}\n  and\n"
                f"  {MEAN_QUEUE} > {MEAN_RUNNING}\n)\nor\n"
                f"{oldest_queued} > {limits.oldest_queued_seconds:g}",
                hold="10m",
                severity="ticket",
                summary="Nodes of pool {{ $labels.pool }} wait long for a worker",
                description="One in twenty waits {{ $value | humanizeDuration }} or longer, or the oldest in the queue "
                "is that old. Runs take that much longer than their nodes need.",
            ),
            alert(
                "HamiltonNodeStalled",
                f"sum by (job, instance, pool) ({names.STALLED_NODES.prometheus}) > 0",
                hold="1m",
                severity="ticket",
                summary="Nodes of pool {{ $labels.pool }} on {{ $labels.instance }} are stalled",
                description="{{ $value | humanize }} have run for longer than stall_after, or for five times what they "
                "usually take. The program's log has each one's stack and what it waits for, and so has /live.",
            ),
            alert(
                "HamiltonNodeStuck",
                f"max by (job, instance, pool) ({names.OLDEST_ACTIVE.prometheus}) > {limits.stuck_seconds:g}",
                hold="1m",
                severity="ticket",
                summary="A node of pool {{ $labels.pool }} on {{ $labels.instance }} does not end",
                description="It has run for {{ $value | humanizeDuration }} and holds a worker. Threads cannot be "
                "killed: what it waits for must answer, or the process must be restarted.",
            ),
            alert(
                "HamiltonRunFailing",
                f"{RUN_ERRORS} > {limits.failing_ratio:g}",
                hold="1m",
                severity="page",
                summary="Run {{ $labels.run }} of pool {{ $labels.pool }} fails",
                description="{{ $value | humanizePercentage }} of its executions in the last half hour failed.",
            ),
            stale_alert(limits.fresh_seconds, runbook, "ticket"),
            alert(
                "HamiltonGilContention",
                f"{GIL_SHARE} > {limits.gil_ratio:g}\nand on (job, instance)\n"
                f"rate({names.GIL_PROBE_WAIT.prometheus}[10m]) > {limits.gil_probe_ratio:g}",
                hold="10m",
                severity="ticket",
                summary="Nodes of pool {{ $labels.pool }} on {{ $labels.instance }} wait for the GIL",
                description="{{ $value | humanizePercentage }} of their time went to waiting for it. More workers "
                "make it worse; what computes in Python belongs in processes, or in a library that lets go "
                "of the lock.",
            ),
            alert(
                "HamiltonTelemetryFailing",
                # A counter that appears with its first failure has not increased yet: what was not there ten minutes
                # ago counts whole.
                f"sum by (job, instance, component) (increase({errors}[10m])) > 0\nor\n"
                f"sum by (job, instance, component) ({errors} unless {errors} offset 10m) > 0\nor\n"
                f"label_replace(sum by (job, instance, stage) (increase({names.SPANS_LOST.prometheus}[10m])) > 0, "
                '"component", "spans lost at stage $1", "stage", "(.+)")',
                hold="",
                severity="ticket",
                summary="Telemetry of {{ $labels.instance }} fails: {{ $labels.component }}",
                description="Failures in ten minutes: {{ $value | humanize }}. Nodes run on; spans or metrics are "
                "missing. The first of each kind is in the program's log.",
            ),
        ),
    )


def files(runbook: str = RUNBOOK) -> dict[str, str]:
    """Each rule file's text by its name."""
    made = "Written by `make dashboards` from dashboards/generate/rules.py: change it there."
    return {
        "recording.yaml": to_yaml([RECORDING], f"What the alerts need. {made}"),
        "alerts.yaml": to_yaml([alerts(runbook=runbook)], f"docs/runbook.md says what to do. {made}"),
        "slo.yaml": to_yaml(
            slo_groups(EVERY_RUN, runbook=runbook),
            f"""Every run by itself: {EVERY_RUN.availability} % do not fail, and of those {EVERY_RUN.latency} % take
at most {duration(EVERY_RUN.latency_seconds or 0)}. Put your own numbers in its place: traced-threadpool slo --run NAME
--objective 99.9 --latency 30s (docs/slo.md).
{made}\n\n"""
            + "\n".join(notes(EVERY_RUN)),
        ),
    }
