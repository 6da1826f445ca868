"""alertmanager.yml: amtool's own checks, routes, and that inhibitions name alerts that exist."""

import re

import pytest
import yaml

from tests.alerts.amtool import amtool
from tests.alerts.rules import ROOT, rules

CONFIG = yaml.safe_load((ROOT / "alertmanager.yml").read_text())
ALERTS = {rule["alert"]: rule for rule in rules("alert")}
MATCHER = re.compile(r'(\w+) (=|!=|=~) "(.*)"')


def test_configuration_is_valid():
    amtool("check-config", "alertmanager.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_reaches_the_receiver_of_its_severity(alert):
    severity = ALERTS[alert]["labels"]["severity"]
    assert receiver_of(f"alertname={alert}", "job=torchserve", f"severity={severity}") == severity


def test_an_alert_without_a_severity_pages():
    assert receiver_of("alertname=Unheard", "job=torchserve") == "page"


def receiver_of(*labels: str) -> str:
    return amtool("config", "routes", "test", "--config.file=alertmanager.yml", *labels).strip()


def test_a_message_is_about_one_alert_of_one_job():
    assert CONFIG["route"]["group_by"] == ["alertname", "job"]
    assert not any("group_by" in route for route in CONFIG["route"]["routes"])


def test_inhibitions_name_alerts_that_exist():
    named = {name for rule in CONFIG["inhibit_rules"] for side in ("source", "target") for name in names(rule, side)}
    assert (
        {"CifarServerDown", "CifarNoLiveWorker", "CifarErrorBudgetBurnsSlowly", "CifarQueueGrows"}
        <= named
        <= set(ALERTS)
    )


def test_inhibition_stays_within_a_job_and_never_silences_its_own_source():
    for rule in CONFIG["inhibit_rules"]:
        assert "job" in rule["equal"], rule
        assert not is_target(names(rule, "source")[0], rule), rule


def test_a_server_that_is_down_inhibits_all_other_alerts():
    assert silenced_by("CifarServerDown") == set(ALERTS) - {"CifarServerDown"}


def test_a_missing_worker_silences_its_consequences_and_a_fast_burn_the_slow_one():
    assert silenced_by("CifarNoLiveWorker") == {
        *(
            "CifarErrorBudgetBurnsFast",
            "CifarErrorBudgetBurnsSlowly",
            "CifarLatencyBudgetBurnsFast",
            "CifarLatencyBudgetBurnsSlowly",
        ),
        *("CifarQueueGrows", "CifarWorkersRestart"),
    }
    assert silenced_by("CifarErrorBudgetBurnsFast") == {"CifarErrorBudgetBurnsSlowly"}
    assert silenced_by("CifarLatencyBudgetBurnsFast") == {"CifarLatencyBudgetBurnsSlowly"}


def silenced_by(cause: str) -> set[str]:
    mine = [rule for rule in CONFIG["inhibit_rules"] if names(rule, "source") == [cause]]
    return {alert for alert in ALERTS for rule in mine if is_target(alert, rule)}


def is_target(alert: str, rule: dict[str, list[str]]) -> bool:
    [(_label, operator, value)] = [parts(text) for text in rule["target_matchers"]]
    return (alert in value.split("|")) != (operator == "!=")


def names(rule: dict[str, list[str]], side: str) -> list[str]:
    found = [parts(text) for text in rule[f"{side}_matchers"]]
    return [name for label, _operator, value in found if label == "alertname" for name in value.split("|")]


def parts(matcher: str) -> tuple[str, str, str]:
    found = MATCHER.fullmatch(matcher)
    assert found, matcher
    return found[1], found[2], found[3]
