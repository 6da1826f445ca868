"""Rules and alerts: promtool's own tests, and that alerts, cases, runbook and declared metrics agree."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "alerts").glob("*.yaml"))
CASES = Path(__file__).with_name("service.yaml")
# Prometheus's own, and what is no metric in an expression.
_OWN = {"up"}
_WORDS = {"sum", "by", "rate", "increase", "and", "on", "unless", "histogram_quantile", "or", "without", "ignoring"}


def rules(kind: str) -> list[dict[str, Any]]:
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


ALERTS = {rule["alert"]: rule for rule in rules("alert")}


def promtool(*arguments: object) -> None:
    if shutil.which("promtool") is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is missing: .ci/run installs it")
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run(["promtool", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_configuration_and_rules_are_valid():
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", *RULES)


def test_every_alert_fires_when_it_should_and_only_then():
    promtool("test", "rules", CASES)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_stays_quiet(alert):
    cases = [case["alert_rule_test"] for case in yaml.safe_load(CASES.read_text())["tests"]]
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
    assert headings == list(ALERTS)
    for section in text.split("\n## ")[1:]:
        for part in ("**Means**", "**Look first**", "**do**"):
            assert part in section.replace("**Do**", "**do**"), section.splitlines()[0]


def test_recorded_names_are_level_metric_operation():
    for rule in rules("record"):
        assert re.fullmatch(r"(version|job):[a-z_]+:[a-z0-9_]+", rule["record"])


def test_every_metric_in_a_rule_is_declared_or_recorded():
    declared = yaml.safe_load((ROOT / "handler" / "metrics.yaml").read_text())
    known = {
        metric["name"]
        for part in ("ts_metrics", "model_metrics")
        for kind in declared[part].values()
        for metric in kind
    }
    known |= {rule["record"] for rule in rules("record")} | _OWN
    for rule in (*rules("record"), *rules("alert")):
        expression = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|on) \([^)]*\)", " ", rule["expr"])
        names = set(re.findall(r"[a-zA-Z_][a-zA-Z0-9_:]*", expression)) - _WORDS
        assert names and names <= known, rule
