"""The dashboards as files: what Grafana would do with them, as far as it can be told without one."""

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
from grafana.ask import substitute
from grafana.build import FOLDER, dashboards
from tests.alerts.names import known_metrics, metrics_of
from tests.alerts.promtool import promtool

FILES = sorted(FOLDER.glob("*.json"))
PAGES: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text()) for file in FILES}
PANELS: dict[str, dict[str, Any]] = {
    f"{name}: {panel['title']}": panel
    for name, page in PAGES.items()
    for panel in page["panels"]
    if panel["type"] != "row"
}
EXPRESSIONS = [target["expr"] for panel in PANELS.values() for target in panel["targets"]]
MARKS = [mark for page in PAGES.values() for mark in page["annotations"]["list"]]


def test_the_files_are_what_the_script_makes():
    assert {file.name: file.read_text() for file in FILES} == dashboards(), "run: make dashboards"


@pytest.mark.parametrize("name", PAGES)
def test_the_sdk_of_grafana_reads_a_file_and_loses_nothing(name):
    # It has no fields for what a mark of Prometheus says; Grafana's plugin for Prometheus has.
    register_default_plugins()
    page = json.loads(FOLDER.joinpath(f"{name}.json").read_text())
    for mark in page["annotations"]["list"]:
        assert mark.pop("titleFormat") and mark.pop("tagKeys") and mark.pop("step")
    assert json.loads(json.dumps(Dashboard.from_json(page), cls=JSONEncoder)) == page


def test_two_dashboards_have_names_and_uids_of_their_own():
    assert set(PAGES) == {"service", "model"}
    assert len({page["uid"] for page in PAGES.values()} & {"cifar-service", "cifar-model"}) == 2
    assert len({page["title"] for page in PAGES.values()}) == 2


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


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_numbers_titles_and_places_of_panels_are_theirs_alone(page):
    numbers = [panel["id"] for panel in page["panels"]]
    titles = [panel["title"] for panel in page["panels"]]
    assert len(set(numbers)) == len(numbers) and len(set(titles)) == len(titles)
    for panel in page["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations((panel["gridPos"] for panel in page["panels"]), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_every_query_and_every_mark_parses(tmp_path):
    expressions = [*EXPRESSIONS, *(mark["expr"] for mark in MARKS)]
    assert len(expressions) > 60
    rules = [{"record": f"panel:{number}", "expr": substitute(it, 5)} for number, it in enumerate(expressions)]
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yaml")


def test_every_metric_in_a_query_is_declared_or_recorded():
    for expression in (*EXPRESSIONS, *(mark["expr"] for mark in MARKS)):
        assert metrics_of(expression) <= known_metrics(), expression


def test_every_alert_has_a_panel_that_leads_to_its_heading_and_no_heading_is_missing():
    named = {
        heading
        for panel in PANELS.values()
        for words in re.findall(r"docs/runbook\.md(#\w+(?:, #\w+)*)", panel["description"])
        for heading in re.findall(r"#(\w+)", words)
    }
    headings = {it.lower() for it in re.findall(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)}
    assert named == headings


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: mark["name"])
def test_a_mark_says_of_which_version_it_is(mark):
    assert "{{model_version}}" in mark["titleFormat"] and mark["enable"]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_versions_can_be_chosen_several_at_a_time(page):
    [variable] = page["templating"]["list"]
    assert variable["name"] == "version" and variable["multi"] and variable["includeAll"]
