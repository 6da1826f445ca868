import shutil
from pathlib import Path

import pytest
import yaml

from cifar.common.addresses import read_addresses
from cifar.common.errors import ConfigUnusable
from cifar.common.project import CONFIG
from cifar.monitoring.targets import TARGETS, follow_metrics_address


@pytest.fixture
def targets(tmp_path):
    """A copy of the file of targets."""
    return Path(shutil.copy(TARGETS, tmp_path))


@pytest.fixture
def follow(tmp_path, targets):
    """Follows what a config.properties says; returns whether something changed, and the targets then."""

    def follow(line):
        config = tmp_path / "config.properties"
        config.write_text(line + "\n")
        changed = follow_metrics_address(read_addresses(config), targets)
        return changed, yaml.safe_load(targets.read_text())[0]["targets"]

    return follow


def test_the_projects_target_is_the_projects_metrics_address():
    assert not follow_metrics_address(read_addresses(CONFIG))


def test_another_address_is_followed_once(follow, targets):
    before = targets.read_text()
    assert follow("metrics_address=http://127.0.0.1:9182") == (True, ["127.0.0.1:9182"])
    assert follow("metrics_address=http://127.0.0.1:9182") == (False, ["127.0.0.1:9182"])
    assert follow("metrics_address=http://0.0.0.0:8082") == (True, ["127.0.0.1:8082"])
    assert targets.read_text() == before


def test_targets_of_the_operators_own_stay(follow, targets):
    targets.write_text('- targets: ["one:8082", "two:8082"]\n')
    assert follow("metrics_address=http://127.0.0.1:9182") == (False, ["one:8082", "two:8082"])


def test_metrics_on_a_socket_are_rejected(follow):
    with pytest.raises(ConfigUnusable, match="metrics_address is unix:/tmp/metrics"):
        follow("metrics_address=unix:/tmp/metrics.sock")
