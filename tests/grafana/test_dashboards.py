"""The dashboards as files: what Grafana would do with them, as far as can be checked without it."""

import json
import re
from itertools import combinations
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from cifar.common.project import ROOT
from grafana.build import FOLDER, dashboards
from grafana.panels import BY_VERSION
from grafana.prometheus import substitute
from tests.alerts.names import known_metrics, metrics_of
from tests.alerts.promtool import promtool

FILES = sorted(FOLDER.glob("*.json"))
DASHBOARDS: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text()) for file in FILES}
PANELS: dict[str, dict[str, Any]] = {
    f"{name}: {panel['title']}": panel
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
}
EXPRESSIONS = [target["expr"] for panel in PANELS.values() for target in panel["targets"]]
ANNOTATIONS = [found for dashboard in DASHBOARDS.values() for found in dashboard["annotations"]["list"]]


def test_the_files_are_what_the_script_makes():
    assert {file.name: file.read_text() for file in FILES} == dashboards(), "run: make dashboards"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_sdk_of_grafana_reads_a_file_and_loses_nothing(name):
    # It has no fields for the text of an annotation; Grafana's plugin for Prometheus has.
    register_default_plugins()
    dashboard = json.loads(FOLDER.joinpath(f"{name}.json").read_text())
    for annotation in dashboard["annotations"]["list"]:
        assert annotation.pop("titleFormat") and annotation.pop("tagKeys") and annotation.pop("step")
    assert json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder)) == dashboard


def test_two_dashboards_have_names_and_uids_of_their_own():
    assert set(DASHBOARDS) == {"service", "model"}
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()} & {"cifar-service", "cifar-model"}) == 2
    assert len({dashboard["title"] for dashboard in DASHBOARDS.values()}) == 2


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
def test_a_panel_says_what_it_shows_in_which_unit_from_which_source(panel):
    source = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["description"].endswith(".") and len(panel["description"]) > 60
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["legendFormat"] not in ("", "__auto")
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
def test_the_labels_in_a_legend_are_those_that_the_query_keeps(panel):
    for target in panel["targets"]:
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            kept = re.search(rf"\bby \([^)]*\b{label}\b", target["expr"])
            recorded = re.search(r"version(_\w+)?:\w+:", target["expr"])
            assert kept or recorded, (label, target["expr"])


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_numbers_titles_and_places_of_panels_are_theirs_alone(dashboard):
    numbers = [panel["id"] for panel in dashboard["panels"]]
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers) and len(set(titles)) == len(titles)
    for panel in dashboard["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations((panel["gridPos"] for panel in dashboard["panels"]), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_every_query_and_every_annotation_parses(tmp_path):
    expressions = [*EXPRESSIONS, *(annotation["expr"] for annotation in ANNOTATIONS)]
    assert len(expressions) > 60
    rules = [
        {"record": f"panel:{number}", "expr": substitute(expression, 5)}
        for number, expression in enumerate(expressions)
    ]
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yaml")


def test_every_metric_in_a_query_is_declared_or_recorded():
    for expression in (*EXPRESSIONS, *(annotation["expr"] for annotation in ANNOTATIONS)):
        assert metrics_of(expression) <= known_metrics(), expression


def test_every_alert_has_a_panel_that_leads_to_its_heading_and_no_heading_is_missing():
    named = {
        heading
        for panel in PANELS.values()
        for words in re.findall(r"docs/runbook\.md(#\w+(?:, #\w+)*)", panel["description"])
        for heading in re.findall(r"#(\w+)", words)
    }
    headings = {
        heading.lower() for heading in re.findall(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    }
    assert named == headings


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=lambda annotation: annotation["name"])
def test_an_annotation_says_of_which_version_it_is(annotation):
    assert "{{model_version}}" in annotation["titleFormat"] and annotation["enable"]


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_versions_can_be_chosen_several_at_a_time(dashboard):
    [variable] = dashboard["templating"]["list"]
    assert variable["name"] == "version" and variable["multi"] and variable["includeAll"]


def test_a_version_has_the_same_colour_in_all_panels():
    """Grafana chooses it by the series' name: the version alone, but for lines that accompany another of it."""
    found = 0
    for panel in PANELS.values():
        legends = {target["refId"]: target["legendFormat"] for target in panel["targets"]}
        if panel["type"] != "timeseries" or not any(legend.startswith(BY_VERSION) for legend in legends.values()):
            continue
        found += 1
        assert panel["fieldConfig"]["defaults"]["color"]["mode"] == "palette-classic-by-name"
        overridden = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
        assert [legends[ref] for ref in legends.keys() - overridden] == [BY_VERSION], panel["title"]
    assert found > 10


def test_each_role_of_a_version_has_a_colour_of_its_own():
    [roles] = [panel for name, panel in PANELS.items() if name == "service: Versions"]
    [mapping] = roles["fieldConfig"]["defaults"]["mappings"]
    shown = {role["text"]: role["color"] for role in mapping["options"].values()}
    assert {"default", "deployed", "served"} < set(shown)
    assert len(set(shown.values())) == len(shown)
