"""The dashboards: generated, valid for Grafana, and asking only for what is exported."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("promql_parser", reason="needs the development dependencies")
jsonschema = pytest.importorskip("jsonschema", reason="needs the development dependencies")
yaml = pytest.importorskip("yaml", reason="needs the extra [report]")

from dashboards.generate import check_grafana, queries  # noqa: E402  # what it imports may be missing
from tests.dashboards.promql_names import problems  # noqa: E402  # likewise
from traced_threadpool.model.states import STATES  # noqa: E402  # likewise
from traced_threadpool.slo import burn_rate  # noqa: E402  # likewise

ROOT = Path(__file__).parent.parent.parent
BOARDS = ("pools", "nodes", "slo")
SCHEMA = ROOT / "dashboards/schema/grafana-11.6.0.json"
needs_sdk = pytest.mark.skipif(sys.version_info < (3, 11), reason="Grafana's SDK needs Python 3.11")


def load(board: str) -> Any:
    return json.loads((ROOT / f"dashboards/{board}.json").read_text())


def panels(board: str) -> list[Any]:
    return [panel for panel in load(board)["panels"] if panel["type"] != "row"]


PANELS = [pytest.param(board, panel, id=f"{board}: {panel['title']}") for board in BOARDS for panel in panels(board)]


def recorded() -> dict[str, frozenset[str]]:
    """Names that the rules make, and the labels that these have."""
    made = {burn_rate.FRESHNESS_BOUND: frozenset({"pool", "run"})}  # by the command slo, when asked for
    for file in sorted((ROOT / "dashboards/rules").glob("*.yaml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                if "record" in rule:
                    level = rule["record"].partition(":")[0]
                    by = {"pool": {"job", "pool"}, "pool_run": {"pool", "run"}, "instance_pool": {"pool"}}[level]
                    made[rule["record"]] = frozenset({*by, *rule.get("labels", {})})
    return made


# Generated


@needs_sdk
def test_committed_files_are_what_the_generator_gives() -> None:
    """`make dashboards` leaves nothing changed: dashboards, rules, reference pages."""
    pytest.importorskip("grafana_foundation_sdk", reason="needs the development dependencies")
    from dashboards.generate.__main__ import everything

    made = everything()
    stale = [name for name, text in made.items() if (ROOT / name).read_text(encoding="utf-8") != text]
    assert stale == []
    committed = [*ROOT.glob("dashboards/*.json"), *ROOT.glob("dashboards/rules/*.yaml")]
    committed += [ROOT / f"docs/{page}.md" for page in ("metrics", "options", "spans")]
    assert set(made) == {path.relative_to(ROOT).as_posix() for path in committed}


# Valid


def validators() -> tuple[Any, dict[str, Any]]:
    """One for the dashboard without its panels, and one for each kind of panel: a fault is named where it is."""
    schema = json.loads(SCHEMA.read_text())
    board = schema["definitions"]["Dashboard"]
    kinds = {kind["properties"]["type"]["const"]: kind for kind in board["properties"]["panels"]["items"]["anyOf"]}
    board["properties"]["panels"]["items"] = {}
    return jsonschema.Draft7Validator(schema), {
        kind: jsonschema.Draft7Validator(inside) for kind, inside in kinds.items()
    }


def faults(document: Any) -> Iterator[str]:
    whole, of_kind = validators()
    for error in whole.iter_errors(document):
        yield f"{list(error.absolute_path)}: {error.message}"
    for panel in document["panels"]:
        for error in of_kind[panel["type"]].iter_errors(panel):
            yield f"{panel['title']} {list(error.absolute_path)}: {error.message}"


@pytest.mark.parametrize("board", BOARDS)
def test_dashboards_are_valid_for_grafana(board: str) -> None:
    """By the JSON schema made from the types of Grafana's own code, which knows no other fields."""
    assert list(faults(load(board))) == []


def test_the_schema_finds_mistakes() -> None:
    """A field in the wrong place, a value that Grafana does not know, a panel without a description."""
    document = load("pools")
    first, second, third = [panel for panel in document["panels"] if panel["type"] == "timeseries"][:3]
    first["unit"] = "s"
    second["options"]["legend"]["displayMode"] = "tabel"
    del third["description"]
    found = "\n".join(faults(document))
    assert "'unit' was unexpected" in found
    assert "'tabel' is not one of" in found
    assert "'description' is a required property" in found


@pytest.mark.parametrize("board", BOARDS)
def test_panels_do_not_overlap(board: str) -> None:
    """Each cell of the grid belongs to one panel, and rows of panels fill its width."""
    taken: set[tuple[int, int]] = set()
    document = load(board)
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place.get("x", 0), place.get("x", 0) + place["w"])
            for y in range(place.get("y", 0), place.get("y", 0) + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    tops = {panel["gridPos"].get("y", 0) for panel in document["panels"]}
    assert {(x, y) for x in range(24) for y in tops} <= taken
    numbers = [panel["id"] for panel in document["panels"]]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("board", BOARDS)
def test_variables_that_are_used_are_there(board: str) -> None:
    """Data source, pool and run on each dashboard; and whatever a query or a link names."""
    document = load(board)
    have = [variable["name"] for variable in document["templating"]["list"]]
    assert {"datasource", "pool", "run"} <= set(have)
    text = json.dumps(document)
    used = set(re.findall(r"\$\{?([a-z][a-z_]*)", text)) - {"__all"}
    assert used <= set(have)
    if board == "nodes":
        assert {"node", "jaeger", "tempo"} <= set(have)


@pytest.mark.parametrize("board", BOARDS)
def test_variables_offer_values_of_labels_that_exist(board: str) -> None:
    """Each asks for the label of its own name, and begins with all, which matches whatever is there."""
    for variable in load(board)["templating"]["list"]:
        if variable["type"] != "query":
            continue
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert found is not None
        selector, label = found[1].replace("$pool", ".+"), found[2]
        assert label == variable["name"]
        assert problems(f"count by ({label}) ({selector})", {}) == []
        assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".+")
        assert variable["current"]["value"] == "$__all"


def test_dashboards_lead_to_each_other() -> None:
    """By a tag that all of them have; pool and run go along."""
    for board in BOARDS:
        [link] = load(board)["links"]
        assert (link["type"], link["includeVars"], link["keepTime"]) == ("dashboards", True, True)
        assert all(set(link["tags"]) <= set(load(other)["tags"]) for other in BOARDS)


@pytest.mark.parametrize("board", BOARDS)
def test_it_says_which_grafana_it_needs(board: str) -> None:
    """In the place where Grafana's import page and its catalogue look, and in words."""
    document = load(board)
    assert {"type": "grafana", "id": "grafana", "name": "Grafana", "version": "11.6.0"} in document["__requires"]
    kinds = {panel["type"] for panel in document["panels"]} - {"row"}
    assert {each["id"] for each in document["__requires"] if each["type"] == "panel"} == kinds
    assert "Grafana 11.6.0" in document["description"]


# Queries


@pytest.mark.parametrize("query", queries.ALL.values(), ids=lambda query: query.name)
def test_queries_name_only_what_is_exported(query: queries.Query) -> None:
    """PromQL that parses; metrics, labels and values of the inventory, or made by the rules."""
    concrete = queries.concrete(query)
    assert "$" not in concrete
    assert problems(concrete, recorded()) == []


@pytest.mark.parametrize("query", queries.ALL.values(), ids=lambda query: query.name)
def test_queries_look_back_as_far_as_they_should(query: queries.Query) -> None:
    """Figures are of all the time that is shown; lines are of the moment. A quantile is that of the query's name."""
    assert ("$__rate_interval" if query.instant else "$__range") not in query.expr
    if named := re.search(r"p(\d\d)", f"{query.name} {query.legend}"):
        assert re.findall(r"histogram_quantile\(([\d.]+),", query.expr) == [f"{int(named[1]) / 100:g}"]


def test_a_wrong_name_is_found() -> None:
    """A metric, a label, a value, a label to sum by that do not exist."""
    assert problems("hamilton_node_seconds", {}) == ["no metric hamilton_node_seconds"]
    assert problems('hamilton_threadpool_workers{node="a"}', {}) == ["hamilton_threadpool_workers has no label node"]
    assert problems('hamilton_nodes_total{outcome="failed"}', {}) == ["hamilton_nodes_total has no outcome failed"]
    assert problems("sum by (run) (hamilton_nodes_total)", {}) == ["nothing here has the label run"]


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_panels_ask_named_queries_and_explain_themselves(board: str, panel: Any) -> None:
    """Each target is one of `queries`, as it is there; the description says how to read it; the unit is the query's."""
    by_expr = {query.expr: query for query in queries.ALL.values()}
    assert panel["targets"]
    for target in panel["targets"]:
        query = by_expr[target["expr"]]
        assert (target["format"], target["exemplar"], target["instant"]) == (
            query.format,
            query.exemplar,
            query.instant,
        )
        if query.needs == "slo":
            assert board == "slo"
    assert len(panel["description"]) > 60
    assert panel["description"].endswith(".")
    if panel["type"] != "table":
        assert panel["fieldConfig"]["defaults"]["unit"] == by_expr[panel["targets"][0]["expr"]].unit


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_panels_ask_the_datasource_that_was_chosen(board: str, panel: Any) -> None:
    """None is tied to the one that it was made with."""
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == chosen
    assert all(target["datasource"] == chosen for target in panel["targets"])


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_panels_get_the_form_that_they_draw(board: str, panel: Any) -> None:
    """Buckets for a heatmap, rows of this moment for a table, series for the others."""
    wanted = {"heatmap": "heatmap", "table": "table"}.get(panel["type"], "time_series")
    for target in panel["targets"]:
        assert target["format"] == wanted
        assert target["instant"] is not target["range"]
        if panel["type"] in ("table", "heatmap", "timeseries"):
            assert target["instant"] is (panel["type"] == "table")


@pytest.mark.parametrize(
    "panel", [pytest.param(p.values[1], id=p.id) for p in PANELS if p.values[1]["type"] == "table"]
)
def test_columns_are_of_what_the_queries_give(panel: Any) -> None:
    """Labels of the result and values of the queries, each of these in its query's unit; sorted by one of them."""
    [renamed] = [each["options"]["renameByName"] for each in panel["transformations"] if each["id"] == "organize"]
    by_expr = {query.expr: query for query in queries.ALL.values()}
    asked = {target["refId"]: by_expr[target["expr"]] for target in panel["targets"]}
    value = "Value #{}" if len(asked) > 1 else "Value"
    units = {renamed.pop(value.format(letter)): query.unit for letter, query in asked.items()}
    titles = {*units, *renamed.values()}
    for query in asked.values():
        found = re.search(r"by \(([^)]+)\)", query.expr)
        assert found is not None
        assert set(renamed) == set(found[1].split(", ")) - {"le"}
    shown = {
        override["matcher"]["options"]: each["value"]
        for override in panel["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "unit"
    }
    assert shown == units
    assert {each["displayName"] for each in panel["options"]["sortBy"]} <= titles


def test_no_query_is_without_a_panel() -> None:
    """What is asked nowhere is nobody's."""
    shown = {target["expr"] for board in BOARDS for panel in panels(board) for target in panel["targets"]}
    assert {query.name for query in queries.ALL.values() if query.expr not in shown} == set()


def test_use_and_red_rows_are_named() -> None:
    """Whoever knows the methods finds them."""
    rows = {board: [each["title"] for each in load(board)["panels"] if each["type"] == "row"] for board in BOARDS}
    assert {"USE: utilization", "USE: saturation", "USE: errors", "RED: rate, errors, duration of nodes"} <= set(
        rows["pools"]
    )
    assert "RED: rate, errors, duration" in rows["nodes"]
    assert "RED: rate, errors, duration of runs" in rows["slo"]


def test_heatmaps_have_exemplars() -> None:
    """The way from a slow cell to its trace."""
    heatmaps = [panel for board in BOARDS for panel in panels(board) if panel["type"] == "heatmap"]
    assert len(heatmaps) == 3
    assert all(target["exemplar"] for panel in heatmaps for target in panel["targets"])


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_exemplars_are_asked_for_by_the_first_query_of_a_metric(board: str, panel: Any) -> None:
    """Grafana's Prometheus data source leaves them out of a query whose metric an earlier one of the panel names."""
    seen: set[str] = set()
    for target in panel["targets"]:
        metrics = set(re.findall(r"\w+_bucket", target["expr"]))
        assert not (target["exemplar"] and metrics & seen)
        seen |= metrics


def test_colours_of_states_are_those_of_states() -> None:
    """Each state has one, and nothing else."""
    [panel] = [panel for panel in panels("nodes") if panel["title"] == "Nodes at work, by state"]
    assert sorted(override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]) == sorted(STATES)


def test_lines_across_burn_rates_are_where_alerts_fire() -> None:
    """The factors of the workbook, of which the rules are made too."""
    for panel in panels("slo"):
        if panel["title"].startswith(("Page:", "Ticket:")):
            steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
            assert steps == [None, *sorted(float(rate.factor) for rate in burn_rate.BURN_RATES)]
            for rate in burn_rate.BURN_RATES:
                if panel["title"].startswith(rate.severity.capitalize()):
                    asked = " ".join(target["expr"] for target in panel["targets"])
                    assert f"rate{rate.long}{{" in asked
                    assert f"rate{rate.short}{{" in asked


def links(panel: Any) -> Iterator[Any]:
    yield from panel["fieldConfig"]["defaults"].get("links", [])
    for override in panel["fieldConfig"]["overrides"]:
        for each in override["properties"]:
            if each["id"] == "links":
                yield from each["value"]


def test_node_names_lead_to_their_spans() -> None:
    """As Grafana does it: its variables are filled in first, then the address is read."""
    for panel in panels("nodes"):
        seen = set()
        for link in links(panel):
            address = link["url"]
            for variable, value in {
                "${jaeger}": "jaeger-uid",
                "${tempo}": "tempo-uid",
                "${service}": "etl",
                "${__data.fields.node}" if panel["type"] == "table" else "${__field.labels.node}": "parse",
                "${__from}": "1700000000000",
                "${__to}": "1700003600000",
            }.items():
                address = address.replace(variable, value)
            assert "$" not in address
            parts = urlsplit(address)
            assert parts.path == "/explore"
            (pane,) = json.loads(parse_qs(parts.query)["panes"][0]).values()
            (query,) = pane["queries"]
            seen.add((pane["datasource"], query.get("operation"), query.get("query")))
            assert pane["range"] == {"from": "1700000000000", "to": "1700003600000"}
        names_nodes = any("{{node}}" in target["legendFormat"] for target in panel["targets"])
        assert seen == (
            {
                ("jaeger-uid", "parse", None),
                ("tempo-uid", None, '{ resource.service.name =~ "etl" && span.hamilton.node.name = "parse" }'),
            }
            if names_nodes
            else set()
        ), panel["title"]


class Health(BaseHTTPRequestHandler):
    """A Grafana that says which release it is, by its path."""

    def do_GET(self) -> None:
        version = self.path.split("/")[1]
        body = json.dumps({"database": "ok", "version": version}).encode() if version != "none" else b"<html>"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_grafana_that_is_too_old_is_told_of() -> None:
    """One that is new enough passes; what is no Grafana, or nothing at all, is an error too."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            assert check_grafana.main([f"{address}/11.6.0"]) is None
            assert check_grafana.main([f"{address}/12.1.0/"]) is None
            assert "9.5.2 is older than 11.6.0" in str(check_grafana.main([f"{address}/9.5.2"]))
            assert "does not answer as Grafana does" in str(check_grafana.main([f"{address}/none"]))
        finally:
            server.shutdown()
            thread.join(10)
    assert "does not answer as Grafana does" in str(check_grafana.main([address]))
    assert "usage" in str(check_grafana.main([]))
