"""Rules and alerts: promtool's own tests, and that alerts, cases, runbook and declared metrics agree."""

import re
from pathlib import Path

import pytest
import yaml

from alerts.build import BURN_RATES, OBJECTIVES, WINDOWS, rule_files
from tests.alerts.names import known_metrics, metrics_of
from tests.alerts.promtool import promtool
from tests.alerts.rules import ROOT, RULES, rules

pytestmark = pytest.mark.slow

CASES = sorted(Path(__file__).parent.glob("*.yaml"))
ALERTS = {rule["alert"]: rule for rule in rules("alert")}
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
HEADINGS = re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE)


def test_configuration_and_rules_are_valid():
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", *RULES)


def test_every_alert_fires_when_it_should_and_only_then():
    promtool("test", "rules", *CASES)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_stays_quiet(alert):
    cases = [case["alert_rule_test"] for file in CASES for case in yaml.safe_load(file.read_text())["tests"]]
    expected = [test["exp_alerts"] for tests in cases for test in tests if test["alertname"] == alert]
    assert any(expected) and not all(expected)


def test_the_generated_files_are_what_their_description_makes():
    written = {name: (ROOT / "alerts" / name).read_text() for name in rule_files()}
    assert written == rule_files(), "run: make alerts"


def test_each_objective_is_recorded_in_every_window_that_its_alerts_ask_for():
    recorded = {rule["record"] for rule in rules("record")}
    for objective in OBJECTIVES:
        assert {f"{objective.ratio}{window}" for window in WINDOWS} <= recorded
    assert {window for rate in BURN_RATES for window in (rate.short, rate.long)} <= set(WINDOWS)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_how_bad_it_is_what_was_measured_and_what_to_do(alert):
    rule = ALERTS[alert]
    assert alert.startswith("Cifar")
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert "{{" in rule["annotations"]["description"]
    assert rule["annotations"]["runbook_url"].endswith(f"docs/runbook.md#{alert.lower()}")
    assert alert in HEADINGS


def test_the_runbook_has_a_heading_for_each_alert_and_no_other():
    assert sorted(HEADINGS) == sorted(ALERTS)
    for section in RUNBOOK.split("\n## ")[1:]:
        for part in ("**Means**", "**Look first**", "**do**"):
            assert part in section.replace("**Do**", "**do**"), section.splitlines()[0]


def test_a_runbook_url_leads_to_the_repositorys_address_where_prometheus_knows_it(tmp_path):
    config = yaml.safe_load((ROOT / "prometheus.yml").read_text())
    assert config["global"]["external_labels"] == {"repository": ""}, "then it is a path in the checkout"
    assert {"action": "labeldrop", "regex": "repository"} in config["alerting"]["alert_relabel_configs"]
    case = yaml.safe_load((CASES[-1]).read_text())
    test = next(test_case for test_case in case["tests"] if test_case["name"].startswith("CifarQueueGrows fires"))
    test["external_labels"] = {"repository": "https://git.example.org/cifar/blob/main/"}
    [expected] = test["alert_rule_test"][0]["exp_alerts"]
    expected["exp_annotations"]["runbook_url"] = (
        "https://git.example.org/cifar/blob/main/docs/runbook.md#cifarqueuegrows"
    )
    case |= {"tests": [test], "rule_files": [str(file) for file in RULES]}
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(case))
    promtool("test", "rules", tmp_path / "case.yaml")


def test_recorded_names_are_level_metric_operation():
    for rule in rules("record"):
        assert re.fullmatch(
            r"(version|version_label|version_statistic|job|threshold):[a-z_]+:[a-z0-9_]+", rule["record"]
        )


def test_every_metric_in_a_rule_is_declared_or_recorded():
    known = known_metrics()
    for rule in (*rules("record"), *rules("alert")):
        assert metrics_of(rule["expr"]) <= known, rule
        for query in re.findall(r'query\s+"([^"]*)"', rule.get("annotations", {}).get("description", "")):
            assert metrics_of(query) and metrics_of(query) <= known, rule


def test_every_threshold_is_used_and_says_its_unit():
    text = "".join(file.read_text() for file in RULES)
    for rule in rules("record"):
        if rule["record"].startswith("threshold:"):
            assert text.count(f"scalar({rule['record']})") >= 1, rule
            assert rule["record"].rpartition(":")[2] in {
                "ratio",
                "rate",
                "seconds",
                "count",
                "changes",
                "distance",
                "difference",
                "ks",
            }
