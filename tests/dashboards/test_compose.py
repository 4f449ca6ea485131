"""dashboards/compose.yaml and all that it mounts, as far as that can be shown without an engine that runs it."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dashboards.generate.check_grafana import problem
from examples.as_a_service.options import parse_options
from traced_threadpool.telemetry import names

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (it is in the dev group)")

ROOT = Path(__file__).parent.parent.parent
DASHBOARDS = ROOT / "dashboards"
PARTS = DASHBOARDS / "compose"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


COMPOSE = load(DASHBOARDS / "compose.yaml")
SERVICES: dict[str, Any] = COMPOSE["services"]
COLLECTOR = load(PARTS / "collector.yaml")
JAEGER = load(PARTS / "jaeger.yaml")
JAEGER_UI: dict[str, Any] = json.loads((PARTS / "jaeger-ui.json").read_text(encoding="utf-8"))
TEMPO = load(PARTS / "tempo.yaml")
PROMETHEUS = load(PARTS / "prometheus.yaml")
ALERTMANAGER = load(PARTS / "alertmanager.yaml")
DATASOURCES = load(PARTS / "grafana/datasources/datasources.yaml")["datasources"]
PROVIDERS = load(PARTS / "grafana/dashboards/dashboards.yaml")["providers"]

try:
    pipeline = parse_options(SERVICES["pipeline"]["command"])
except SystemExit as error:  # which would end the tests
    raise AssertionError("the pipeline's program does not take its command line") from error
# Where each listens: what its own files here say, and where they say nothing, what its image's documentation does.
LISTENS: dict[str, set[int]] = {
    "pipeline": {pipeline.port},
    "collector": {
        *(
            int(protocol["endpoint"].rpartition(":")[2])
            for protocol in COLLECTOR["receivers"]["otlp"]["protocols"].values()
        ),
        COLLECTOR["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]["port"],
    },
    "jaeger": {
        int(endpoint["endpoint"].rpartition(":")[2])
        for endpoint in (
            *JAEGER["receivers"]["otlp"]["protocols"].values(),
            JAEGER["extensions"]["jaeger_query"]["http"],
        )
    },
    "tempo": {
        TEMPO["server"]["http_listen_port"],
        int(TEMPO["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].rpartition(":")[2]),
    },
    "prometheus": {9090},
    "alertmanager": {9093},
    "grafana": {3000},
}


def mounts(service: str) -> Iterator[tuple[str, str, str]]:
    """Source, target and mode of each; a named volume's source has no slash."""
    for volume in SERVICES[service].get("volumes", ()):
        source, target, *mode = volume.split(":")
        yield source, target, mode[0] if mode else "rw"


def on_this_machine(service: str, path: str) -> Path:
    """The file of the checkout that a container's path shows."""
    for source, target, _ in mounts(service):
        if path == target or path.startswith(target + "/"):
            assert "/" in source or source == ".", f"{path} is in the volume {source}"
            return DASHBOARDS / source / path[len(target) :].lstrip("/")
    raise AssertionError(f"{service}: nothing is mounted at {path}")


def dashboards() -> dict[Path, Any]:
    """The dashboards that Grafana would find."""
    [provider] = PROVIDERS
    folder = provider["options"]["path"]
    mounted = [DASHBOARDS / source for source, target, _ in mounts("grafana") if target.startswith(f"{folder}/")]
    return {path: json.loads(path.read_text(encoding="utf-8")) for path in mounted}


def test_it_is_valid_by_the_specifications_schema() -> None:
    """The schema of the Compose specification knows every key, and accepts every value."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run([*command, DASHBOARDS / "compose.yaml"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("service", [name for name, service in SERVICES.items() if "image" in service])
def test_every_image_is_pinned(service: str) -> None:
    """By a whole version: neither `latest` nor a series that moves."""
    assert re.fullmatch(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+", SERVICES[service]["image"])


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_published_on_this_machine_alone_and_somebody_listens(service: str) -> None:
    """Each on 127.0.0.1, under its own number, and the container listens there."""
    for port in SERVICES[service].get("ports", ()):
        address, outside, inside = port.split(":")
        assert (address, outside) == ("127.0.0.1", inside)
        assert int(inside) in LISTENS[service]


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_is_there(service: str) -> None:
    """Files of the checkout exist and cannot be written; volumes are declared."""
    for source, _, mode in mounts(service):
        if source.startswith("."):
            assert (DASHBOARDS / source).exists(), source
            assert mode == "ro"
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("service", SERVICES)
def test_files_named_in_a_command_are_mounted(service: str) -> None:
    """`--config.file=/etc/...` is a file of the checkout; where data goes is a volume."""
    for word in SERVICES[service].get("command", ()):
        option, _, path = word.partition("=")
        if path.startswith("/") and "config" in option:
            assert on_this_machine(service, path).is_file(), word
        elif path.startswith("/"):
            assert path in [target for source, target, _ in mounts(service) if source in COMPOSE["volumes"]], word


@pytest.mark.parametrize("service", SERVICES)
def test_healthchecks_ask_where_the_service_listens(service: str) -> None:
    """All have one but the collector and Tempo, whose images hold nothing to ask with."""
    check = SERVICES[service].get("healthcheck")
    if service in ("collector", "tempo"):
        assert check is None
        return
    [url] = re.findall(r"http://127\.0\.0\.1:\d+/[\w/-]*", " ".join(check["test"]))
    assert urlsplit(url).port in LISTENS[service]


@pytest.mark.parametrize("service", SERVICES)
def test_who_is_waited_for_can_be_healthy(service: str) -> None:
    """What a service depends on exists, and has a healthcheck where its health is waited for."""
    for other, how in SERVICES[service].get("depends_on", {}).items():
        assert how["condition"] == "service_started" or "healthcheck" in SERVICES[other]


def _addresses() -> Iterator[tuple[str, str]]:
    """Who asks whom, over the network between the services."""
    for scrape in PROMETHEUS["scrape_configs"]:
        for target in scrape["static_configs"][0]["targets"]:
            yield "prometheus", target
    for manager in PROMETHEUS.get("alerting", {}).get("alertmanagers", ()):
        yield from (("prometheus", target) for target in manager["static_configs"][0]["targets"])
    for exporter in COLLECTOR["exporters"].values():
        yield "collector", exporter["endpoint"]
    for datasource in DATASOURCES:
        yield "grafana", urlsplit(datasource["url"]).netloc
    yield "pipeline", urlsplit(SERVICES["pipeline"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]).netloc


@pytest.mark.parametrize(("asking", "address"), list(_addresses()))
def test_every_address_is_that_of_a_service_that_listens(asking: str, address: str) -> None:
    """Host names are services' names, and the ports are theirs."""
    host, _, port = address.partition(":")
    assert int(port) in LISTENS[asking if host == "127.0.0.1" else host]


def test_everybody_asks_whom_they_should() -> None:
    """Spans go by the collector to both stores of traces; Prometheus scrapes programs; Grafana has all of it."""
    assert {(asking, address.partition(":")[0]) for asking, address in _addresses()} == {
        ("pipeline", "collector"),
        ("collector", "jaeger"),
        ("collector", "tempo"),
        ("prometheus", "pipeline"),
        ("prometheus", "collector"),
        ("prometheus", "127.0.0.1"),
        ("prometheus", "alertmanager"),
        ("grafana", "prometheus"),
        ("grafana", "jaeger"),
        ("grafana", "tempo"),
        ("grafana", "alertmanager"),
    }


def test_the_pipeline_sends_by_the_protocol_of_the_port() -> None:
    """gRPC to the collector's port for gRPC, HTTP to that for HTTP."""
    environment = SERVICES["pipeline"]["environment"]
    protocol = {"grpc": "grpc", "http/protobuf": "http"}[environment["OTEL_EXPORTER_OTLP_PROTOCOL"]]
    listens = COLLECTOR["receivers"]["otlp"]["protocols"][protocol]["endpoint"]
    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"].rpartition(":")[2] == listens.rpartition(":")[2]


def test_containers_can_be_reached_by_others() -> None:
    """They listen on every address of their container, of which only 127.0.0.1 of this machine leads there."""
    addresses = [
        pipeline.listen,
        *(each["endpoint"].rpartition(":")[0] for each in COLLECTOR["receivers"]["otlp"]["protocols"].values()),
        COLLECTOR["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]["host"],
        *(each["endpoint"].rpartition(":")[0] for each in JAEGER["receivers"]["otlp"]["protocols"].values()),
        JAEGER["extensions"]["jaeger_query"]["http"]["endpoint"].rpartition(":")[0],
        *(
            each["endpoint"].rpartition(":")[0]
            for each in TEMPO["distributor"]["receivers"]["otlp"]["protocols"].values()
        ),
    ]
    assert addresses == ["0.0.0.0"] * 8


def test_what_people_open_is_published() -> None:
    """Every address that the document tells of, and no other."""
    told = {
        int(port)
        for line in (ROOT / "docs/live-proof.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
        for port in re.findall(r"127\.0\.0\.1:(\d+)|and (\d+) \|", line)
        for port in port
        if port
    }
    published = {int(port.rpartition(":")[2]) for service in SERVICES.values() for port in service.get("ports", ())}
    assert told == published


def test_the_pipelines_image_is_built_from_what_there_is() -> None:
    """Every file that is copied exists and is part of the context; the program that is started is copied."""
    build = SERVICES["pipeline"]["build"]
    context = (DASHBOARDS / build["context"]).resolve()
    dockerfile = context / build["dockerfile"]
    ignore = (dockerfile.parent / f"{dockerfile.name}.dockerignore").read_text().split()
    copied = []
    for line in dockerfile.read_text().splitlines():
        word, *words = shlex.split(line, comments=True) or [""]
        if word == "COPY":
            copied += words[:-1]
        elif word == "FROM":
            assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", words[0])
    assert ignore[0] == "*"
    for name in copied:
        assert (context / name).exists()
        assert f"!{name}" in ignore
    assert {"src", "examples"} <= set(copied)
    [extra] = re.findall(r"pip install .*\"\.\[(\w+)\]\"", dockerfile.read_text())
    assert f"\n{extra} = [\n" in (context / "pyproject.toml").read_text()
    [entry] = re.findall(r"^ENTRYPOINT (.+)$", dockerfile.read_text(), re.MULTILINE)
    assert json.loads(entry) == ["python", "-m", "examples.as_a_service"]


def test_the_collectors_pipelines_are_of_parts_that_it_defines() -> None:
    """No pipeline names a part that is not there, and no part is unused."""
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in COLLECTOR["service"]["pipelines"].values() for name in pipeline[kind]}
        assert used == set(COLLECTOR[kind])


def test_jaegers_parts_are_defined_and_used() -> None:
    """As a collector's, and its page and exporter use the store that there is."""
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in JAEGER["service"]["pipelines"].values() for name in pipeline[kind]}
        assert used == set(JAEGER[kind])
    assert set(JAEGER["service"]["extensions"]) == set(JAEGER["extensions"])
    stores = set(JAEGER["extensions"]["jaeger_storage"]["backends"])
    assert {
        JAEGER["extensions"]["jaeger_query"]["storage"]["traces"],
        JAEGER["exporters"]["jaeger_storage_exporter"]["trace_storage"],
    } == stores


def test_jaegers_page_is_configured_by_the_file_that_is_mounted() -> None:
    path = JAEGER["extensions"]["jaeger_query"]["ui"]["config_file"]
    assert on_this_machine("jaeger", path) == PARTS / "jaeger-ui.json"


@pytest.mark.parametrize("prefix", JAEGER_UI["topTagPrefixes"])
def test_jaeger_puts_attributes_first_that_there_are(prefix: str) -> None:
    assert [each.key for each in names.ATTRIBUTES if each.key.startswith(prefix)]


@pytest.mark.parametrize("pattern", JAEGER_UI["linkPatterns"], ids=lambda pattern: pattern.get("key", "trace"))
def test_jaegers_links_lead_somewhere(pattern: dict[str, str]) -> None:
    """From an attribute to a variable of a dashboard that is there, or from a trace to its JSON on Jaeger's port."""
    url = urlsplit(pattern["url"])
    if pattern["type"] == "traces":
        assert (url.port in LISTENS["jaeger"], url.path + url.fragment) == (True, "/api/traces/{traceID}")
        return
    assert pattern["key"] in {each.key for each in names.ATTRIBUTES}
    assert url.port in LISTENS["grafana"]
    [found] = [content for content in dashboards().values() if url.path == f"/d/{content['uid']}"]
    variable, _, rest = url.query.partition("=")
    assert variable.removeprefix("var-") in {each["name"] for each in found["templating"]["list"]}
    assert rest + "#" + url.fragment == "#{" + pattern["key"] + "}"


@pytest.mark.parametrize("uid", ["jaeger", "tempo"])
def test_grafanas_trace_view_leads_to_the_metrics_of_a_node(uid: str) -> None:
    """By attributes that spans have, to labels and metrics that there are, of the datasource that is there."""
    [settings] = [each["jsonData"] for each in DATASOURCES if each["uid"] == uid]
    attributes = {each.key for each in names.ATTRIBUTES}
    to_metrics = settings["tracesToMetrics"]
    assert to_metrics["datasourceUid"] in {each["uid"] for each in DATASOURCES if each["type"] == "prometheus"}
    assert {tag["key"] for tag in to_metrics["tags"]} | {settings["spanBar"]["tag"]} <= attributes
    labels = {tag["value"] for tag in to_metrics["tags"]}
    for query in to_metrics["queries"]:
        # `$$` as provisioning wants it, and what Grafana puts there.
        assert "{$$__tags}" in query["query"]
        found = metrics_in(query["query"].replace("$$__tags", 'node="a", pool="b"'))
        assert found
        assert labels <= set.intersection(*(set(metric.labels) for metric in found))
    filters = settings.get("search", {}).get("filters", [])
    assert {each["tag"] for each in filters} - {"service.name"} <= attributes


def metrics_in(query: str) -> list[names.Metric]:
    suffix = "(?:_bucket|_sum|_count)?"
    return [metric for metric in names.METRICS if re.search(rf"\b{metric.prometheus}{suffix}\b", query)]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on PATH (Debian: apt-get install prometheus)")
def test_prometheus_accepts_its_configuration_and_the_rules(tmp_path: Path) -> None:
    """promtool, with the rules at their place in the checkout in place of that in the container."""
    [pattern] = PROMETHEUS["rule_files"]
    folder, _, files = pattern.rpartition("/")
    rules = on_this_machine("prometheus", folder)
    assert fnmatch.filter([path.name for path in rules.iterdir()], files)
    config = tmp_path / "prometheus.yaml"
    config.write_text(yaml.safe_dump({**PROMETHEUS, "rule_files": [f"{rules}/{files}"]}))
    checked = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "rule files found" in checked.stdout


def test_prometheus_keeps_exemplars() -> None:
    """The flag is there, without which they are dropped in silence."""
    assert "--enable-feature=exemplar-storage" in SERVICES["prometheus"]["command"]


@pytest.mark.skipif(shutil.which("amtool") is None, reason="no amtool (Debian: prometheus-alertmanager)")
def test_alertmanager_accepts_its_configuration() -> None:
    """amtool has nothing to say against it."""
    command = ["amtool", "check-config", str(PARTS / "alertmanager.yaml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_severity_of_an_alert_has_a_route() -> None:
    """Those that the rules give are those that are routed."""
    given = {
        rule["labels"]["severity"]
        for path in (DASHBOARDS / "rules").glob("*.yaml")
        for group in load(path).get("groups", ())
        for rule in group["rules"]
        if "alert" in rule
    }
    routed = re.findall(r'severity="(\w+)"', json.dumps(ALERTMANAGER["route"]).replace('\\"', '"'))
    assert given == set(routed)


def test_grafanas_exemplars_lead_to_datasources_that_are_there() -> None:
    """By the label that the adapter gives an exemplar, to Jaeger and to Tempo; the document shows the same."""
    by_uid = {datasource["uid"]: datasource for datasource in DATASOURCES}
    assert len(by_uid) == len(DATASOURCES)
    destinations = by_uid["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert {destination["name"] for destination in destinations} == {"trace_id"}
    assert [by_uid[destination["datasourceUid"]]["type"] for destination in destinations] == ["jaeger", "tempo"]
    text = (ROOT / "docs/dashboards.md").read_text(encoding="utf-8")
    [shown] = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "exemplarTraceId" in block]
    assert yaml.safe_load(shown)["jsonData"]["exemplarTraceIdDestinations"] == destinations


def test_grafana_is_one_that_the_dashboards_are_for() -> None:
    """By the check that users have for theirs."""
    assert problem(SERVICES["grafana"]["image"].rpartition(":")[2]) is None


def test_grafana_finds_its_provisioning() -> None:
    """Datasources and dashboards are mounted where its image looks for each."""
    targets = {target: source for source, target, _ in mounts("grafana")}
    for kind, file in (("datasources", "datasources.yaml"), ("dashboards", "dashboards.yaml")):
        assert (DASHBOARDS / targets[f"/etc/grafana/provisioning/{kind}"] / file).is_file()


def test_whoever_comes_to_grafana_may_open_a_trace() -> None:
    """Links lead to Explore, which viewers may not open."""
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] in ("Editor", "Admin")


def test_grafana_finds_the_committed_dashboards() -> None:
    """All of them are mounted where the provider looks, and each has a uid of its own."""
    found = dashboards()
    assert set(found) == set(DASHBOARDS.glob("*.json"))
    assert len({dashboard["uid"] for dashboard in found.values()}) == len(found) > 0


def test_dashboards_ask_datasources_that_are_provisioned() -> None:
    """A datasource is a variable of its type, or one that is provisioned; so is every datasource of a link."""
    provisioned = {datasource["uid"]: datasource["type"] for datasource in DATASOURCES}
    for path, dashboard in dashboards().items():
        variables = {
            f"${{{variable['name']}}}": variable["query"]
            for variable in dashboard["templating"]["list"]
            if variable["type"] == "datasource"
        }
        known = {**provisioned, **variables, "-- Grafana --": "grafana", "grafana": "grafana"}
        for datasource in _values(dashboard, "datasource"):
            if isinstance(datasource, dict) and "uid" in datasource:
                assert known[datasource["uid"]] in (datasource.get("type"), "grafana"), f"{path.name}: {datasource}"
        if "${service}" in json.dumps(dashboard):
            [service] = [one for one in dashboard["templating"]["list"] if one["name"] == "service"]
            assert service["query"] == SERVICES["pipeline"]["environment"]["OTEL_SERVICE_NAME"]
        for variable in variables.values():
            assert variable in provisioned.values(), f"{path.name}: nothing is provisioned for a variable of {variable}"


def _values(document: Any, key: str) -> Iterator[Any]:
    if isinstance(document, dict):
        for name, value in document.items():
            if name == key:
                yield value
            yield from _values(value, key)
    elif isinstance(document, list):
        for value in document:
            yield from _values(value, key)
