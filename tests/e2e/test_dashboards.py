"""The dashboards' queries, asked of a real Prometheus beside a real TorchServe under traffic."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cifar.archives.reference_outputs import synthetic_images
from cifar.client.inference import InferenceClient
from cifar.server.desired_state import DesiredState, ServedVersion, write_deployed_targets
from grafana.build import FOLDER
from grafana.dashboard import DEPLOYED, STARTED
from grafana.draw import draw
from grafana.prometheus import Prometheus, substitute
from tests.support.service import Service

STEP_S = 1
DASHBOARDS: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))
}
QUERIES = {
    f"{name}: {panel['title']}, {target['legendFormat']}": target["expr"]
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    for target in panel.get("targets", ())
}
ROLES = next(panel["targets"][0]["expr"] for panel in DASHBOARDS["service"]["panels"] if panel["title"] == "Versions")


@pytest.fixture(scope="module")
def watched(prometheus: Prometheus, torchserve: Service) -> Prometheus:
    """A Prometheus that has scraped traffic, rejections in it, and a minute's rate of heartbeats."""
    images = synthetic_images()
    deadline = time.monotonic() + 60
    with InferenceClient(torchserve.url) as client:
        while not prometheus.now("version:cifar_live_workers:count1m > 0.5"):  # the last to have a value
            assert time.monotonic() < deadline
            if prometheus.now('up{job="torchserve"} == 1'):  # what is counted before the first scrape has no rate
                client.predict(images[:20])
                torchserve.post(b"short", "application/octet-stream")
            time.sleep(0.2)
    return prometheus


@pytest.fixture
def store(torchserve):
    """The model store; what was deployed is forgotten afterwards."""
    store: Path = torchserve.server.model_store
    yield store
    (store / "deployed.json").unlink(missing_ok=True)


def decide(store: Path, default: str) -> None:
    """Tell Prometheus what `cifar deploy` and `cifar rollback` would, of two versions of which 1.0 runs."""
    versions = tuple(ServedVersion(version, f"cifar-{version}.mar", "0" * 64) for version in ("1.0", "2.0"))
    write_deployed_targets(store, DesiredState(default, versions))


def wait_for(prometheus: Prometheus, expression: str, wanted: dict[str, float]) -> None:
    """Wait until an expression has these values by version."""
    deadline = time.monotonic() + 20
    while (found := by_version(prometheus, expression)) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def by_version(prometheus: Prometheus, expression: str) -> dict[str, float]:
    return {one.labels["model_version"]: one.points[-1][1] for one in prometheus.now(substitute(expression, STEP_S))}


@pytest.mark.parametrize("name", QUERIES)
def test_every_panel_has_data_although_nothing_was_ever_deployed_nor_failed(watched, name):
    found = watched.now(substitute(QUERIES[name], STEP_S))
    assert found, QUERIES[name]
    assert all(value == value for series in found for _, value in series.points), "not a number"


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_no_two_series_of_a_panel_have_the_same_name(watched, dashboard):
    now = time.time()
    for panel in dashboard["panels"]:
        names = [
            (target["legendFormat"], series.name(target["legendFormat"]))
            for target in panel.get("targets", ())
            if panel["type"] not in ("barchart", "table")  # whose rows differ by their labels
            for series in watched.over_time(substitute(target["expr"], STEP_S), now - 60, now, STEP_S)
        ]
        assert len(set(names)) == len(names), (panel["title"], names)


def test_panels_of_one_version_show_no_other(watched):
    for name, query in QUERIES.items():
        if "$version" in query and "reason" not in name:
            assert not watched.now(substitute(query, STEP_S, version="9.9")), name


def test_roles_and_annotations_follow_deployments_and_rollbacks(watched, store):
    wait_for(watched, ROLES, {"1.0": 2})  # what `cifar up` has started counts as deployed
    begin = time.time()
    for default in ("1.0", "2.0", "1.0"):
        decide(store, default)
        wait_for(watched, ROLES, {"1.0": 1 + (default == "1.0"), "2.0": 1 + (default == "2.0")})
    time.sleep(2 * STEP_S)  # the last one has a step of its own
    found = watched.over_time(substitute(DEPLOYED.expr, STEP_S), begin, time.time(), STEP_S)
    texts = sorted((at, series.name(DEPLOYED.text)) for series in found for at, _ in series.points)
    # The first decision is what was served before; it is no deployment.
    assert [text for _, text in texts] == ["2.0 is the default", "1.0 is the default"]


def test_a_start_of_workers_is_marked_once(watched):
    now = time.time()
    [series] = watched.over_time(substitute(STARTED.expr, STEP_S), now - 3600, now, STEP_S)
    assert series.name(STARTED.text) == "Workers of 1.0 start"
    assert len(series.points) == 1


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_screenshots_can_be_drawn_and_are_small_enough_for_a_readme(watched, dashboard, tmp_path):
    now = time.time()
    file = draw(watched, dashboard, now - 60, now, tmp_path)
    with Image.open(file) as image:
        assert image.format == "PNG" and image.width == 1650
        assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 20, "nothing is on it"
    assert file.stat().st_size < 250_000
