"""Rules and alerts: promtool's own tests, and that alerts, cases, runbook and declared metrics agree."""

import re
from pathlib import Path

import pytest
import yaml

from tests.alerts.names import known_metrics, metrics_of
from tests.alerts.promtool import promtool
from tests.alerts.rules import ROOT, RULES, rules

CASES = sorted(Path(__file__).parent.glob("*.yaml"))
ALERTS = {rule["alert"]: rule for rule in rules("alert")}


def test_configuration_and_rules_are_valid():
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", *RULES)


def test_every_alert_fires_when_it_should_and_only_then():
    promtool("test", "rules", *CASES)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_stays_quiet(alert):
    cases = [case["alert_rule_test"] for file in CASES for case in yaml.safe_load(file.read_text())["tests"]]
    expected = [it["exp_alerts"] for tests in cases for it in tests if it["alertname"] == alert]
    assert any(expected) and not all(expected)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_how_bad_it_is_what_was_measured_and_what_to_do(alert):
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert "{{" in rule["annotations"]["description"]
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{alert.lower()}"


def test_the_runbook_has_a_heading_for_each_alert_and_no_other():
    text = (ROOT / "docs" / "runbook.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)
    for section in text.split("\n## ")[1:]:
        for part in ("**Means**", "**Look first**", "**do**"):
            assert part in section.replace("**Do**", "**do**"), section.splitlines()[0]


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
