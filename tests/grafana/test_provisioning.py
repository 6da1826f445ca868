"""What Grafana reads when it starts, with the environment that docs/monitoring.md names."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifar.common.project import ROOT
from grafana.build import dashboards
from grafana.panels import DATASOURCE


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """What a shell in the repository root makes of grafana.env."""
    shown = subprocess.run(
        ["sh", "-c", "set -a; . grafana/grafana.env; env -0"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return dict(line.split("=", 1) for line in shown.stdout.split("\0") if line)


def read(kind: str, environment: dict[str, str]) -> dict[str, Any]:
    """Read the only file of a kind as Grafana does: it puts in variables, and nothing for those that are not set."""
    [file] = (Path(environment["GF_PATHS_PROVISIONING"]) / kind).glob("*.yaml")
    content: dict[str, Any] = yaml.safe_load(
        re.sub(r"\$(\w+|\{\w+\})", lambda match: environment.get(match[1].strip("{}"), ""), file.read_text())
    )
    assert content.pop("apiVersion") == 1
    return content


def test_the_data_source_is_the_one_that_the_dashboards_ask_and_a_prometheus_on_this_machine(environment):
    content = read("datasources", environment)
    [source] = content.pop("datasources")
    assert content == {}
    assert (source["type"], source["uid"]) == (DATASOURCE.type_val, DATASOURCE.uid)
    assert source["url"] == "http://127.0.0.1:9090"
    assert source["access"] == "proxy" and source["isDefault"] is True


def test_the_data_source_knows_how_often_prometheus_looks(environment):
    configured = yaml.safe_load((ROOT / "prometheus.yml").read_text())["global"]["scrape_interval"]
    [source] = read("datasources", environment)["datasources"]
    assert source["jsonData"]["timeInterval"] == configured


def test_the_dashboards_are_found(environment):
    [provider] = read("dashboards", environment)["providers"]
    assert provider["type"] == "file"
    folder = Path(provider["options"]["path"])
    assert folder.is_absolute() and {file.name for file in folder.iterdir()} == set(dashboards())


def test_both_can_be_told_where_to_look(environment):
    elsewhere = environment | {"PROMETHEUS_URL": "http://prometheus:9090", "DASHBOARDS_DIR": "/dashboards"}
    assert read("datasources", elsewhere)["datasources"][0]["url"] == "http://prometheus:9090"
    assert read("dashboards", elsewhere)["providers"][0]["options"]["path"] == "/dashboards"
