"""One live world for a module of tests: servers, programs that run under their eyes, and the truth about both.

The service is `examples.as_a_service`, in a process of its own: the survey of the standard library and all pathologies,
twice, the second time with a catalogue that is down. The shop is in the test's own process, where nodes can be held:
it runs before and after its first scrape, fails, cancels, has names that need quoting, and one pool of it is full. Its
annex stands for a second process: a registry and a port of its own, with pools and runs that the shop has too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prometheus_client
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from prometheus_client import CollectorRegistry

from dashboards.generate import rules
from tests.dags import submit
from tests.dashboards.live_servers import Alertmanager, Process, Prometheus, Rotel, Webhook, until
from tests.dashboards.live_truth import Samples, SpanFacts, Window, read_page, span_facts
from tests.telemetry.otlp_receiver import GrpcReceiver
from tests.telemetry.telemetry_helpers import Caller, make_driver
from traced_threadpool import FutureAdapter
from traced_threadpool.slo.burn_rate import slo_groups
from traced_threadpool.slo.objective import Objective
from traced_threadpool.slo.rule_file import Alert, Group, to_yaml
from traced_threadpool.telemetry import names
from traced_threadpool.telemetry.lost_spans import lose_spans

ROOT = Path(__file__).parent.parent.parent
NASTY_POOL = 'we"ird \\ {pool} (of ours)'
NASTY_RUN = 'night\'s\\ly "run"'
ROUNDS = 2
_METHOD = names.ATTRIBUTION.prometheus
HELD_SECONDS = 1800  # longer than all the tests of a module

# The rules of dashboards/rules, by the code that writes those, with numbers that need no half hour to pass. How long
# nodes wait in the queues of the service is for the machine to say, so no alert is to come of it.
LIMITS = rules.Thresholds(
    stuck_seconds=1, fresh_seconds=1, queue_wait_seconds=2 * HELD_SECONDS, oldest_queued_seconds=2 * HELD_SECONDS
)
OBJECTIVE = Objective.parse(availability="99", latency="0.25s", latency_objective="95", fresh_within="1s")


def quick_rules(folder: Path, limits: rules.Thresholds = LIMITS, objective: Objective = OBJECTIVE) -> list[Path]:
    """Rule files whose alerts fire as soon as their query has a result, and whose groups are all evaluated often."""
    files = []
    slo = [dataclasses.replace(group, interval="") for group in slo_groups(objective)]
    for number, group in enumerate((rules.RECORDING, rules.alerts(limits), *slo)):
        at_once = tuple(dataclasses.replace(r, hold="") if isinstance(r, Alert) else r for r in group.rules)
        files.append(folder / f"rules-{number}.yaml")
        files[-1].write_text(to_yaml([Group(name=group.name, rules=at_once)], "For a test."))
    return files


class _FailingSampler(Sampler):
    def should_sample(self, *arguments: Any, **named: Any) -> SamplingResult:
        raise RuntimeError("this sampler fails")

    def get_description(self) -> str:
        return "fails"


class Shop:
    """Runs whose nodes count for themselves what they do, by (pool, node, outcome)."""

    def __init__(self, stack: ExitStack, endpoint: str) -> None:
        self.registry = CollectorRegistry()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True), schedule_delay_millis=200)
        )
        stack.callback(self.provider.shutdown)
        self.ended: Counter[tuple[str, str, str]] = Counter()
        self.runs: Counter[tuple[str, str, str]] = Counter()
        self._held, self._let_go = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._stack = stack
        self._checkout = stack.enter_context(self._adapter(2, name="shop", run_name="checkout"))
        self._refunds = stack.enter_context(self._adapter(2, name="shop", run_name="refunds", fail_fast=True))
        self._nasty = stack.enter_context(self._adapter(1, name=NASTY_POOL, run_name=NASTY_RUN))
        failing = TracerProvider(sampler=_FailingSampler(), shutdown_on_exit=False)
        self._untraced = stack.enter_context(
            FutureAdapter(1, name="untraced", run_name="checkout", registry=self.registry, tracer_provider=failing)
        )
        server, thread = prometheus_client.start_http_server(0, addr="127.0.0.1", registry=self.registry)
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        self.port = int(server.server_port)
        self._holding: Caller | None = None

    def _adapter(self, workers: int, **options: Any) -> FutureAdapter:
        return FutureAdapter(workers, registry=self.registry, tracer_provider=self.provider, **options)

    def check_out(self, times: int) -> None:
        """Successful runs of four nodes, two of which take 20 ms and more, one in three of them 300 ms."""
        for number in range(times):
            pause = threading.Event()
            seconds = 0.3 if number % 3 == 2 else 0.02

            def basket() -> int:
                return 3

            def price(basket: int, pause: threading.Event = pause, seconds: float = seconds) -> int:
                pause.wait(seconds)
                return basket * 7

            def stock(basket: int, pause: threading.Event = pause, seconds: float = seconds) -> int:
                pause.wait(seconds)
                return basket

            def order(price: int, stock: int) -> int:
                return price + stock

            found = make_driver(self._checkout, basket, price, stock, order).execute(
                ["order"], inputs={"pause": pause, "seconds": seconds}
            )
            assert found == {"order": 24}
            self._count("shop", "checkout", "success", basket=1, price=1, stock=1, order=1)

    def refuse(self, times: int) -> None:
        """Failed runs: a card that is declined, and an order that is therefore never shipped."""

        def charge() -> int:
            raise ValueError("the card was declined")

        def ship(charge: int) -> int:
            return charge

        for _ in range(times):
            with contextlib.suppress(ValueError):
                make_driver(self._checkout, charge, ship).execute(["ship"])
            self._count("shop", "checkout", "error")
            self.ended["shop", "charge", "error"] += 1
            self.ended["shop", "ship", "upstream_error"] += 1

    def give_up(self) -> None:
        """A failed run which, at its first failure, cancels what has not started."""
        started, gate = threading.Event(), threading.Event()

        def returned() -> int:
            started.set()
            assert gate.wait(60)
            return 1

        def checked() -> int:
            assert started.wait(60)
            raise ValueError("it was used")

        def refunded(returned: int) -> int:
            return returned

        with contextlib.suppress(ValueError):
            make_driver(self._refunds, returned, checked, refunded).execute(["checked", "refunded"])
        gate.set()
        until(lambda: not self._refunds.snapshot().active_runs, "the end of a run")
        self.runs["shop", "refunds", "error"] += 1
        self.ended["shop", "returned", "success"] += 1
        self.ended["shop", "checked", "error"] += 1
        self.ended["shop", "refunded", "cancelled"] += 1

    def run_nastily(self, times: int) -> None:
        """Runs of a pool and a name that must be quoted."""

        def only() -> int:
            return 1

        for _ in range(times):
            make_driver(self._nasty, only).execute(["only"])
            self._count(NASTY_POOL, NASTY_RUN, "success", only=1)

    def fail_to_trace(self) -> None:
        """A run whose spans cannot be made."""

        def unseen() -> int:
            return 1

        make_driver(self._untraced, unseen).execute(["unseen"])
        self._count("untraced", "checkout", "success", unseen=1)

    def fill(self) -> None:
        """Hold the only worker of a pool, with three nodes that are ready and two that wait for others."""

        def hold() -> int:
            self._held.set()
            assert self._let_go.wait(HELD_SECONDS), "nobody let go of the nodes that were held"
            return 1

        def first() -> int:
            return hold()

        def second() -> int:
            return hold()

        def third() -> int:
            return hold()

        def fourth() -> int:
            return hold()

        def sums(first: int, second: int, third: int, fourth: int) -> int:
            return first + second + third + fourth

        def doubled(sums: int) -> int:
            return 2 * sums

        full = self._stack.enter_context(self._adapter(1, name="full", run_name="held", stall_after=0.2))
        self._stack.callback(self._let_go.set)  # before it is closed, should the test fail
        held = make_driver(full, first, second, third, fourth, sums, doubled)
        self._holding = Caller(lambda: held.execute(["doubled"]))
        assert self._held.wait(60), "no node was held"
        until(lambda: full.snapshot().blocked_nodes == 2, "two blocked nodes")
        until(lambda: full.snapshot().stalled_nodes == 1, "the node that is held to stall")

    def let_go(self) -> None:
        self._let_go.set()
        assert self._holding is not None
        assert self._holding.outcome() == {"doubled": 8}
        self._count("full", "held", "success", first=1, second=1, third=1, fourth=1, sums=1, doubled=1)

    def _count(self, pool: str, run: str, outcome: str, **nodes: int) -> None:
        with self._lock:
            self.runs[pool, run, outcome] += 1
            for node, times in nodes.items():
                self.ended[pool, node, "success"] += times


class Annex:
    """One run as in the shop, and then a node that waits for what never comes, in a pool as full as the shop's."""

    def __init__(self, stack: ExitStack) -> None:
        registry = CollectorRegistry()
        for name, run_name in (("shop", "checkout"), ("full", "held")):
            adapter = FutureAdapter(2, name=name, run_name=run_name, registry=registry, tracing=False)
            stack.enter_context(adapter)
            if name == "shop":

                def price() -> int:
                    return 7

                make_driver(adapter, price).execute(["price"])
            else:
                never: Future[int] = Future()
                stack.callback(never.set_result, 1)
                submit(adapter, lambda never: never, never=never)
        server, thread = prometheus_client.start_http_server(0, addr="127.0.0.1", registry=registry)
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        self.port = int(server.server_port)


@dataclass(slots=True, kw_only=True)
class World:
    """Everything at the moment when all has been scraped and gone through every rule, but for what is held."""

    prometheus: Prometheus
    webhook: Webhook
    shop: Shop
    spans: list[SpanFacts]
    started: float
    pages: dict[str, Samples]
    """By job, as its program showed them before `window.at`; `later` after it."""
    later: dict[str, Samples]
    window: Window
    asked_by_rules: list[Window]
    """As what the rules have recorded is of: an evaluation of them a moment before `window.at`, which may have missed
    the scrape that was going on."""
    base: dict[tuple[str, str, str], int]
    """What the shop had counted when it was scraped for the first time after its first runs."""


@contextmanager
def living_world(folder: Path) -> Iterator[World]:
    """Start it all, let it live until everything is known, keep the servers up for questions, and end it all."""
    with ExitStack() as stack:
        receiver = stack.enter_context(GrpcReceiver())
        rotel = stack.enter_context(Rotel(folder, receiver.endpoint))
        webhook = stack.enter_context(Webhook())
        alertmanager = stack.enter_context(Alertmanager(folder, webhook.url))
        prometheus = stack.enter_context(Prometheus(folder, quick_rules(folder), alertmanager.url))
        started = time.time()

        words = ["--port", "0", "--rounds", str(ROUNDS), "--every", "1", "--break-every", str(ROUNDS)]
        words += ["--scale", "0.1", "--limit", "60"]
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": rotel.http,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        }
        command = [sys.executable, "-m", "examples.as_a_service", *words]
        service = stack.enter_context(Process(command, folder / "service-log", environment))
        url = service.wait_for(r"serving (\S+)\n")
        prometheus.scrape("service", int(url.removesuffix("/metrics").rpartition(":")[2]))

        shop = Shop(stack, rotel.grpc)
        prometheus.scrape("annex", Annex(stack).port)
        shop.check_out(2)
        shop.refuse(1)
        shop.run_nastily(1)
        prometheus.scrape("shop", shop.port)  # not before: a scrape in the midst of these runs would know half of them
        prometheus.settle("shop")
        base = dict(shop.ended)
        shop.check_out(6)
        shop.refuse(2)
        shop.give_up()
        shop.run_nastily(3)
        shop.fail_to_trace()
        lose_spans("file", 3)  # as a full disk does (tests/test_faults.py), with 3 of the process' spans
        shop.fill()
        service.wait_for(rf"round {ROUNDS}: (.+)\n")

        spans = _all_spans(receiver, service)
        urls = {job: f"http://{instance}/metrics" for job, instance in prometheus.instances.items()}
        pages: dict[str, Samples] = {}
        later = {job: read_page(url) for job, url in urls.items()}
        # A sampler that is done with its work ends meanwhile, once, and then there is another way to attribute.
        while any(pages.get(job, {}).get(_METHOD) != page[_METHOD] for job, page in later.items()):
            pages = {job: read_page(url) for job, url in urls.items()}
            all_scraped = prometheus.scraped(*urls)
            at = prometheus.settle(*urls)
            later = {job: read_page(url) for job, url in urls.items()}
        asked = [
            asked
            for evaluated in prometheus.evaluations(all_scraped, at)
            for window in (Window(prometheus, evaluated, pages),)
            for asked in (window, window.missing_a_scrape())
        ]
        yield World(
            prometheus=prometheus,
            webhook=webhook,
            shop=shop,
            spans=spans,
            started=started,
            pages=pages,
            later=later,
            window=Window(prometheus, at, pages),
            asked_by_rules=asked,
            base=base,
        )


def _all_spans(receiver: GrpcReceiver, service: Process) -> list[SpanFacts]:
    """All spans of the runs that have ended, once they have come."""
    runs = 7 * ROUNDS + (2 + 1 + 6 + 2) + 1 + (1 + 3)

    def complete() -> list[SpanFacts] | None:
        spans = span_facts(receiver.spans)
        ended = [span for span in spans if span.is_run]
        nodes = Counter(span.trace_id for span in spans if not span.is_run)
        done = [span for span in ended if nodes[span.trace_id] == span.attributes[names.RUN_NODE_COUNT]]
        return spans if len(done) == len(ended) == runs else None

    found: list[SpanFacts] = until(complete, f"the spans of {runs} runs", alive=service)
    return found
