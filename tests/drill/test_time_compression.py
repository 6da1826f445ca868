"""Alerts in which time runs faster: windows and `for` only, and nothing shorter than what happens in real time."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from drill.time_compression import TimeCompression, shorten_intervals, shorten_rules, write_rules
from tests.alerts.promtool import promtool
from tests.alerts.rules import ROOT

COMPRESSION = TimeCompression(divisor=20, shortest_window_s=30, shortest_for_s=15)


@pytest.mark.parametrize(
    ("real", "shortened"),
    [("[6h]", "[1080s]"), ("[1h]", "[180s]"), ("[15m]", "[45s]"), ("[1m]", "[30s]"), ("[9s]", "[9s]")],
)
def test_windows_are_divided_down_to_the_shortest(real, shortened):
    rules: dict[str, Any] = {
        "groups": [{"name": "g", "rules": [{"record": "a:b:rate5m", "expr": f"rate(x_5m{real}) > 5"}]}]
    }
    [group] = shorten_rules(rules, COMPRESSION)["groups"]
    assert group["rules"] == [{"record": "a:b:rate5m", "expr": f"rate(x_5m{shortened}) > 5"}]
    assert real in rules["groups"][0]["rules"][0]["expr"]


@pytest.mark.parametrize(("real", "shortened"), [("1h", "180s"), ("5m", "15s"), ("30s", "15s"), ("10s", "10s")])
def test_pending_times_are_divided_down_to_the_shortest(real, shortened):
    rule = {"alert": "A", "expr": "up == 0", "for": real, "labels": {"severity": "page"}}
    [group] = shorten_rules({"groups": [{"name": "g", "rules": [rule]}]}, COMPRESSION)["groups"]
    assert group["rules"] == [rule | {"for": shortened}]


def test_the_real_rules_are_valid_when_shortened_and_lose_nothing(tmp_path):
    write_rules(ROOT / "alerts", tmp_path, COMPRESSION)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == sorted(file.name for file in (ROOT / "alerts").glob("*.yaml"))
    promtool("check", "rules", *files)
    for file in files:
        assert names_in(file) == names_in(ROOT / "alerts" / file.name)


def names_in(file: Path) -> list[str]:
    groups = yaml.safe_load(file.read_text())["groups"]
    return [rule.get("alert", rule.get("record")) for group in groups for rule in group["rules"]]


def test_notifications_go_to_the_webhook_at_once_and_inhibition_stays():
    routes = [{"receiver": "b", "group_wait": "5m"}]
    hook = {"url": "http://elsewhere/", "send_resolved": True}
    config: dict[str, Any] = {
        "route": {"receiver": "a", "group_by": ["alertname"], "group_wait": "30s", "routes": routes},
        "receivers": [{"name": "a", "webhook_configs": [hook]}, {"name": "b"}],
        "inhibit_rules": [{"equal": ["job"]}],
    }
    short = shorten_intervals(config, "http://127.0.0.1:1/")
    assert short["inhibit_rules"] == config["inhibit_rules"]
    assert short["route"]["group_wait"] == short["route"]["routes"][0]["group_wait"] == "1s"
    assert (short["route"]["group_by"], short["route"]["routes"][0]["receiver"]) == (["alertname"], "b")
    assert short["receivers"][0]["webhook_configs"] == [{"url": "http://127.0.0.1:1/", "send_resolved": True}]
    assert config["route"]["group_wait"] == "30s"
