"""The live proof: a real Prometheus and Alertmanager, a real collector, and programs that they watch.

Every query of every panel and every rule is asked, and compared with what the programs know they did: counts and sums
exactly, rates by the rule by which Prometheus carries on what it saw, quantiles to within a bucket.
"""

from __future__ import annotations

import dataclasses
import doctest
import json
import math
import re
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

for package in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc", "yaml", "rich"):
    pytest.importorskip(package, reason=f"{package} is not installed (it is in the dev group)")

from dashboards.generate import queries, rules
from dashboards.generate.queries import Query
from tests.dashboards import live_truth
from tests.dashboards.live_queries import (
    ALERTS,
    BUDGETS,
    RECORDED,
    TRUTHS,
    Truth,
    divided,
    errors_of,
    quantile_of,
    rate_of,
    values_of,
)
from tests.dashboards.live_servers import Labels, Vector, labels
from tests.dashboards.live_truth import Bounds, counters_of, matches, quotient, total
from tests.dashboards.live_world import LIMITS, NASTY_POOL, World, living_world
from traced_threadpool.slo import burn_rate
from traced_threadpool.telemetry import names

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]

DASHBOARDS = Path(__file__).parent.parent.parent / "dashboards"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with living_world(tmp_path_factory.mktemp("live")) as world:
        yield world


def test_the_rule_of_the_truth_itself() -> None:
    """Its examples of what Prometheus makes of a counter's samples and of a histogram."""
    assert doctest.testmod(live_truth) == (0, 4)


# What the programs did, against what they say, against what Prometheus has


def test_the_shop_counts_what_it_did(world: World) -> None:
    """Nodes by outcome and runs, counted by the functions themselves, are what `/metrics` shows."""
    shown = world.pages["shop"]
    ended = {labels(pool=pool, node=node, outcome=outcome): n for (pool, node, outcome), n in world.shop.ended.items()}
    assert _that_happened(shown[names.NODES.prometheus]) == ended
    runs = {labels(pool=pool, run=run, outcome=outcome): n for (pool, run, outcome), n in world.shop.runs.items()}
    assert _that_happened(shown[f"{names.RUN_DURATION.prometheus}_count"]) == runs


@pytest.mark.parametrize("job", ["service", "shop"])
def test_spans_and_metrics_agree(world: World, job: str) -> None:
    """Every count, bucket and sum follows from the spans that the collector passed on; sums to the nanosecond."""
    pools = {dict(one)["pool"] for one in world.pages[job][names.MAX_WORKERS.prometheus]} - {"untraced"}
    told = counters_of(span for span in world.spans if span.pool in pools)
    for name, from_spans in told.items():
        where = {"state": "cpu"} if name == names.NODE_TIME.prometheus else {}
        shown = {
            one: value
            for one, value in _that_happened(world.pages[job][name]).items()
            if matches(one, **where) and dict(one)["pool"] != "untraced"
        }
        assert shown == pytest.approx(_that_happened(from_spans), rel=1e-12, abs=1e-9), name
    # Twelve families are sums and counts; the critical path is told by its sum, which is that of the runs.
    assert len(told) == 3 * 3 + 3
    governed = total(world.pages[job][names.CRITICAL_PATH_TIME.prometheus], "pool", "run")
    lasted = total(world.pages[job][f"{names.RUN_DURATION.prometheus}_sum"], "pool", "run")
    assert governed == pytest.approx({one: lasted[one] for one in governed}, rel=1e-9)


@pytest.mark.parametrize("job", ["service", "shop"])
def test_states_add_up_to_durations(world: World, job: str) -> None:
    """The time of each node in all its states is the sum of its durations."""
    times = total(_that_happened(world.pages[job][names.NODE_TIME.prometheus]), "pool", "node")
    assert times == pytest.approx(total(world.pages[job][f"{names.NODE_DURATION.prometheus}_sum"], "pool", "node"))


@pytest.mark.parametrize("metric", names.METRICS, ids=lambda metric: metric.prometheus)
def test_prometheus_has_every_sample(world: World, metric: names.Metric) -> None:
    """Each series of each metric, with the value that the program showed; what is about now, as of a moment later."""
    suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
    for suffix in suffixes:
        name = metric.prometheus + suffix
        shown = world.window.value(name)
        assert shown, f"no program shows {name}"
        if metric in (names.OLDEST_ACTIVE, names.OLDEST_QUEUED, names.GIL_PROBE_WAIT):
            _within(world.prometheus.query(name, world.window.at), _grown(world, name))
        else:
            assert world.prometheus.query(name, world.window.at) == shown


def test_what_had_been_counted_at_the_first_look_stays_known(world: World) -> None:
    """After the shop's first runs, Prometheus had what it had done by then; the increase since is what it did since."""
    for (pool, node, outcome), before in world.base.items():
        since = world.shop.ended[pool, node, outcome] - before
        labels_of_it = f'job="shop", pool={json.dumps(pool)}, node="{node}", outcome="{outcome}"'
        selector = f"{names.NODES.prometheus}{{{labels_of_it}}}"
        [samples] = world.prometheus.samples(f"{selector}[1h]", world.window.at).values()
        assert (samples[0][1], samples[-1][1]) == (before, before + since)


# Panels


def test_every_query_has_its_truth() -> None:
    """None is left out, and none is told of that is not there."""
    assert {*TRUTHS, ALERTS} == set(queries.ALL)


def test_every_panel_asks_one_of_the_queries() -> None:
    """The committed dashboards have no query of their own."""
    known = {query.expr for query in queries.ALL.values()}
    asked = {
        target["expr"]
        for path in DASHBOARDS.glob("*.json")
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
        for target in panel.get("targets", ())
    }
    assert asked <= known


@pytest.mark.parametrize("query", [queries.ALL[name] for name in TRUTHS], ids=lambda query: query.name)
def test_query_of_a_panel_is_right(world: World, query: Query) -> None:
    """Asked as Grafana would for all pools, runs and nodes, it gives what the programs did, and nothing else."""
    found = _ask(world, query)
    assert found, "the query gives nothing"
    _assert_right(found, _truth_of(world, query, {}), query)


CHOSEN = {"pool": "shop", "run": "checkout", "node": "price"}
OF_ALL_POOLS = {"telemetry_errors", "telemetry_spans_lost", "gil_wait", "attribution_method"}
"""Queries for metrics of a process, which none of the variables narrows."""
NARROWED_OTHERWISE = {
    "node_critical_share": {"node": ".+"},  # shares are of all there is
    "node_queued_behind": {"node": ".+"},  # the nodes waited for, by whichever
    "node_critical_seconds": {"node": f"{CHOSEN['node']}|_.*"},  # waits between nodes always belong to it
}


@pytest.mark.parametrize(
    "query", [queries.ALL[name] for name in TRUTHS if name not in OF_ALL_POOLS], ids=lambda query: query.name
)
def test_variables_narrow_every_query(world: World, query: Query) -> None:
    """Asked for one pool, run and node, as far as its dashboard lets one choose them, it gives what these did."""
    chosen = {name: value for name, value in CHOSEN.items() if name in _variables_where(query)}
    found = _ask(world, query, **chosen)
    _assert_right(found, _truth_of(world, query, {**chosen, **NARROWED_OTHERWISE.get(query.name, {})}), query)


@pytest.mark.parametrize("query", [queries.ALL[name] for name in TRUTHS], ids=lambda query: query.name)
def test_each_series_has_a_name_of_its_own(world: World, query: Query) -> None:
    """Lines and bars can be told apart by their legend, also those of runs that have one name in two pools."""
    if query.format == "time_series":
        found = [dict(one) for one in _ask(world, query)]
        legends = [re.sub(r"{{(\w+)}}", lambda label: one[label[1]], query.legend) for one in found]  # noqa: B023
        assert len(set(legends)) == len(legends)


def test_variables_offer_whatever_there_is(world: World) -> None:
    """Pools, runs and nodes that the programs know of, also of pools that have come and gone."""
    spans = [span for span in world.spans if span.pool != "untraced"]
    pools = {span.pool for span in spans} | {"untraced", "full"}
    runs = {span.name for span in spans if span.is_run} | {"checkout", "held"}
    nodes = {span.name for span in spans if not span.is_run} | {"unseen"}
    for asked, label, there in (
        (queries.POOLS, "pool", pools),
        (queries.RUNS, "run", runs),
        (queries.NODES, "node", nodes),
    ):
        selector = asked.removeprefix("label_values(").removesuffix(f", {label})").replace("$pool", ".+")
        offered = world.prometheus.query(f"count by ({label}) ({selector})", world.window.at)
        assert {dict(one)[label] for one in offered} == there


def _ask(world: World, query: Query, **chosen: str) -> Vector:
    found = world.prometheus.query(queries.concrete(query, **chosen), world.window.at)
    return {one: value for one, value in found.items() if not math.isnan(value)}


def _truth_of(world: World, query: Query, chosen: Mapping[str, str]) -> Mapping[Labels, float | tuple[float, float]]:
    truth = TRUTHS[query.name]
    if query.name in RECORDED:
        return _recorded(world, lambda window: truth(window.narrowed(chosen)))
    if query.name == "gil_wait":  # goes on while the test asks
        later = dataclasses.replace(world.window, last=world.later)
        return _hull(truth(window) for window in (world.window, later))
    return truth(world.window.narrowed(chosen))


def _assert_right(found: Vector, truth: Mapping[Labels, float | tuple[float, float]], query: Query) -> None:
    if top := re.match(r"topk\((\d+), ", query.expr):
        assert len(found) == min(int(top[1]), len(truth))
        least = min(found.values(), default=0.0)
        for one, wanted in truth.items():
            if one not in found:
                assert (wanted[0] if isinstance(wanted, tuple) else wanted) <= least * (1 + 1e-6), dict(one)
        truth = {one: truth[one] for one in found}
    assert set(found) == set(truth)
    for one, value in found.items():
        wanted = truth[one]
        low, high = wanted if isinstance(wanted, tuple) else (wanted, wanted)
        near = 1e-9 + 1e-6 * abs(high)
        assert low - near <= value <= high + near, dict(one)


def _variables_where(query: Query) -> set[str]:
    """Of the dashboard that asks it."""
    for path in DASHBOARDS.glob("*.json"):
        board = json.loads(path.read_text(encoding="utf-8"))
        if any(target["expr"] == query.expr for panel in board["panels"] for target in panel.get("targets", ())):
            return {variable["name"] for variable in board["templating"]["list"]}
    raise AssertionError(f"no panel asks {query.name}")


def test_a_pool_can_be_chosen_whatever_its_name(world: World) -> None:
    """With quotes, a backslash and parentheses in it, as Grafana escapes a variable's value."""
    chosen = re.sub(r"[\\^$*+?.()|{}\[\]]", r"\\\g<0>", NASTY_POOL)
    quoted = chosen.replace("\\", "\\\\").replace('"', '\\"')
    found = world.prometheus.query(queries.concrete(queries.WORKER_LIMIT, pool=quoted), world.window.at)
    assert found == {labels(pool=NASTY_POOL, backend="threads"): 1}


# Rules and alerts


def test_every_rule_is_healthy(world: World) -> None:
    """Each has been evaluated without an error, and each recording rule has recorded something."""
    evaluated = world.prometheus.rules()
    faults = {rule["name"]: rule.get("lastError") for rule in evaluated if rule["health"] != "ok"}
    assert not faults
    for record in {rule["name"] for rule in evaluated if rule["type"] == "recording"}:
        assert world.prometheus.query(f"count({record})", world.window.at), f"{record} has recorded nothing"


def test_recorded_for_the_alerts_is_right(world: World) -> None:
    """What the rules record that no panel asks for."""
    at = world.window.at
    per_instance = ("job", "instance", "pool", "backend")
    saturated = quotient(
        total(world.window.value(names.ACTIVE_WORKERS.prometheus), *per_instance),
        total(world.window.value(names.MAX_WORKERS.prometheus), *per_instance),
    )
    assert world.prometheus.query(rules.SATURATION, at) == saturated
    time_of_nodes = names.NODE_TIME.prometheus
    truths: dict[str, Truth] = {
        rules.MEAN_QUEUE: rate_of(f"{names.QUEUE_WAIT.prometheus}_sum", "job", "pool", seconds=600),
        rules.MEAN_RUNNING: rate_of(f"{names.NODE_DURATION.prometheus}_sum", "job", "pool", seconds=600),
        rules.QUEUE_WAIT_P95: quantile_of(0.95, names.QUEUE_WAIT, "job", "pool", seconds=600),
        rules.RUN_ERRORS: errors_of(1800, "availability"),
        rules.GIL_SHARE: divided(
            rate_of(time_of_nodes, *per_instance, seconds=600, state="gil"),
            rate_of(time_of_nodes, *per_instance, seconds=600),
        ),
    }
    for record, truth in truths.items():
        found = world.prometheus.query(record, at)
        if record == rules.RUN_ERRORS:
            found = {one | labels(slo="availability"): value for one, value in found.items()}
        _within(found, _recorded(world, truth))


def test_those_alerts_fire_that_should(world: World) -> None:
    """Each for the pools and runs for which there is a reason, and for no other; the panel of alerts shows them."""
    shown = world.prometheus.query(queries.concrete(queries.ALL[ALERTS]), world.window.at)
    firing: dict[str, set[tuple[str | None, str | None]]] = {}
    for one in shown:
        found = dict(one)
        firing.setdefault(found["alertname"], set()).add((found.get("pool"), found.get("run")))
    contention = firing.pop("HamiltonGilContention", set())  # depends on the machine: the threads of `gil_bound`
    assert contention <= {(pool, None) for pool in _pools(world)}

    def runs(vector: Vector) -> set[tuple[str | None, str | None]]:
        return {(dict(one)["pool"], dict(one)["run"]) for one in vector}

    def runs_over(limit: float, vector: Vector, alert: str) -> set[tuple[str | None, str | None]]:
        """Where a value is so near to the limit that a second decides, what the alert says is right."""
        undecided = runs({one: value for one, value in vector.items() if abs(value / limit - 1) < 0.1})
        over = runs({one: value for one, value in vector.items() if value > limit})
        return (over - undecided) | (firing.get(alert, set()) & undecided)

    failing = values_of(errors_of(1800, "availability")(world.window))
    slow = values_of(errors_of(300, "latency")(world.window))
    slowest_burn = float(min(rate.factor for rate in burn_rate.BURN_RATES))
    succeeded = world.window.value(names.RUN_LAST_SUCCESS.prometheus)
    over = {
        alert: runs_over(limit, vector, alert)
        for alert, limit, vector in (
            ("HamiltonRunFailing", LIMITS.failing_ratio, failing),
            ("HamiltonAvailabilityBudgetBurn", slowest_burn * BUDGETS["availability"], failing),
            ("HamiltonLatencyBudgetBurn", slowest_burn * BUDGETS["latency"], slow),
        )
    }
    # A pathology of the service that a slow machine takes long for is seen with all workers busy and nodes waiting.
    saturated = firing.get("HamiltonPoolSaturated", set()) & _seen_saturated(world)
    assert firing == {
        "HamiltonPoolSaturated": {("full", None)} | saturated,
        "HamiltonNodeStalled": {("full", None)},
        "HamiltonNodeStuck": {("full", None)},
        "HamiltonTelemetryFailing": {(None, None)},
        "HamiltonBatchNotFresh": runs(succeeded),
        **over,
    }


def test_alerts_reach_whoever_is_to_be_woken(world: World) -> None:
    """Through a real Alertmanager to a webhook, with their texts filled in."""
    failing = world.webhook.wait_for("firing", alertname="HamiltonRunFailing", run="refunds")
    assert failing["labels"]["severity"] == "page"
    assert failing["annotations"]["summary"] == "Run refunds of pool shop fails"
    assert re.search(r"100% of its executions", failing["annotations"]["description"])
    for alert in (
        "HamiltonPoolSaturated",
        "HamiltonNodeStalled",
        "HamiltonNodeStuck",
        "HamiltonBatchNotFresh",
        "HamiltonTelemetryFailing",
    ):
        found = world.webhook.wait_for("firing", alertname=alert)
        assert not re.search(r"\{\{|<no value>|error", found["annotations"]["summary"]), found["annotations"]


# Traces


def test_spans_come_out_of_a_collector_with_their_links(world: World) -> None:
    """Over HTTP from the service, over gRPC from the shop: each node is linked to those whose results it took."""
    by_id = {span.span_id: span for span in world.spans}
    assert len(by_id) == len(world.spans)
    linked: Counter[str] = Counter()
    for span in world.spans:
        if span.is_run:
            continue
        upstream = [(by_id[span_id].name, by_id[span_id].trace_id) for span_id, _ in span.links]
        assert all(trace_id == span.trace_id for _, trace_id in upstream)
        if span.ran:
            told = span.attributes.get(names.NODE_UPSTREAM)
            names_told = [value.string_value for value in told.values] if told is not None else []  # type: ignore[attr-defined]
            assert [name for name, _ in upstream] == names_told, span.name
        linked[f"{span.pool}.{span.name}"] += len(span.links)
    assert (linked["shop.order"], linked["shop.basket"]) == (2 * 8, 0)
    assert linked["survey.surveys_1"] == 3 * 2


def test_exemplars_lead_to_the_spans_that_they_are_of(world: World) -> None:
    """Prometheus gives them back; each names a span that was exported, of that node, and with that very duration."""
    by_id = {span.span_id: span for span in world.spans}
    found: Counter[str] = Counter()
    for metric in (names.NODE_DURATION, names.QUEUE_WAIT, names.RUN_DURATION):
        series = world.prometheus.exemplars(f"{metric.prometheus}_bucket", world.started, world.window.at)
        for one in series:
            for exemplar in one["exemplars"]:
                span = by_id[exemplar["labels"]["span_id"]]
                assert span.trace_id == exemplar["labels"]["trace_id"]
                assert span.pool == one["seriesLabels"]["pool"]
                value = float(exemplar["value"])
                if metric is names.QUEUE_WAIT:
                    assert value == pytest.approx(span.attributes[names.NODE_QUEUE])
                    found["queue"] += 1
                else:
                    name = one["seriesLabels"]["run" if metric is names.RUN_DURATION else "node"]
                    assert (span.name, span.outcome) == (name, one["seriesLabels"]["outcome"])
                    assert value == pytest.approx(span.duration_ns / 1e9)
                    assert value <= float(one["seriesLabels"]["le"])
                    found[one["seriesLabels"]["job"]] += 1
    assert min(found["queue"], found["service"], found["shop"]) > 0


def test_a_panel_with_exemplars_gets_some(world: World) -> None:
    """Asked with the panel's own query, as Grafana does."""
    for query in queries.ALL.values():
        if query.exemplar:
            assert world.prometheus.exemplars(queries.concrete(query), world.started, world.window.at), query.name


# At last


def test_an_alert_that_has_its_cure_is_resolved(world: World) -> None:
    """The held nodes are let go: the pager hears that none is stuck any more. Nothing asks the world after this."""
    world.webhook.wait_for("firing", alertname="HamiltonNodeStuck", pool="full")
    world.shop.let_go()
    world.webhook.wait_for("resolved", alertname="HamiltonNodeStuck", pool="full")
    port = world.shop.port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as reply:
        assert b'hamilton_threadpool_active_workers{backend="threads",pool="full"} 0.0' in reply.read()


def _that_happened(vector: Vector) -> Vector:
    return {one: value for one, value in vector.items() if value}


def _pools(world: World) -> set[str]:
    return {dict(one)["pool"] for one in world.window.value(names.MAX_WORKERS.prometheus)}


def _seen_saturated(world: World) -> set[tuple[str | None, str | None]]:
    """The pools that were scraped with too many workers busy and too many nodes waiting, whether at once or not."""
    most: dict[names.Metric, dict[Labels, float]] = {}
    for metric in (names.ACTIVE_WORKERS, names.MAX_WORKERS, names.QUEUE_DEPTH):
        found = world.prometheus.samples(f"{metric.prometheus}[10m]", world.window.at)
        most[metric] = {one: max(value for _, value in samples) for one, samples in found.items()}
    return {
        (dict(one)["pool"], None)
        for one, busy in most[names.ACTIVE_WORKERS].items()
        if busy > LIMITS.busy_ratio * most[names.MAX_WORKERS][one]
        and most[names.QUEUE_DEPTH][one] > LIMITS.queued_nodes
    }


def _grown(world: World, name: str) -> Bounds:
    """From what was shown before to what was shown after."""
    before = world.window.value(name)
    after = dataclasses.replace(world.window, last=world.later).value(name)
    return {one: (value, after[one]) for one, value in before.items()}


def _recorded(world: World, truth: Truth) -> Bounds:
    """What rules may have recorded, whichever of their last evaluations a query takes."""
    return _hull(truth(window) for window in world.asked_by_rules)


def _hull(truths: Iterable[Vector | Bounds]) -> Bounds:
    """From the least to the largest that is told of each series."""
    ends: dict[Labels, list[float]] = {}
    for truth in truths:
        for one, value in truth.items():
            ends.setdefault(one, []).extend(value if isinstance(value, tuple) else (value,))
    return {one: (min(values), max(values)) for one, values in ends.items()}


def _within(found: Vector, bounds: Bounds) -> None:
    found = {one: value for one, value in found.items() if not math.isnan(value)}
    assert set(found) == set(bounds)
    for one, value in found.items():
        assert bounds[one][0] - 1e-9 <= value <= bounds[one][1] + 1e-9, (dict(one), value, bounds[one])
