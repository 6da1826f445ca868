import itertools
import re

import pytest
import yaml

from launcher.config import read_addresses, read_properties
from launcher.errors import ConfigUnusable
from launcher.server import CONFIG, ROOT


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "config.properties"
        path.write_text(text)
        return path

    return write


def test_what_the_file_leaves_out_has_torchserves_default(write):
    addresses = read_addresses(write("# nothing\n"))
    assert addresses.inference == "http://127.0.0.1:8080"
    assert addresses.endpoints["grpc_management_port"] == ("127.0.0.1", 7071)


def test_addresses_are_read_with_and_without_port_and_slash(write):
    addresses = read_addresses(write("inference_address = http://localhost:9000/\nmetrics_address=http://[::1]\n"))
    assert addresses.inference == "http://localhost:9000"
    assert addresses.endpoints["inference_address"] == ("localhost", 9000)
    assert addresses.endpoints["metrics_address"] == ("::1", 80)


@pytest.mark.parametrize(
    "line",
    [
        "inference_address=127.0.0.1:8080",
        "inference_address=unix:/tmp/socket",
        "management_address=http://:8081",
        "metrics_address=http://127.0.0.1:99999",
        "grpc_inference_port=seven",
        "grpc_management_port=70000",
    ],
)
def test_address_that_cannot_be_used_is_named_with_its_key(write, line):
    with pytest.raises(ConfigUnusable, match=line.partition("=")[0]):
        read_addresses(write(line + "\n"))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigUnusable, match=r"none\.properties cannot be read"):
        read_addresses(tmp_path / "none.properties")


def test_comments_are_no_settings(write):
    assert read_properties(write("# a=1\n! b=2\nc=3=4\n")) == {"c": "3=4"}


def test_the_projects_server_listens_on_loopback_only():
    assert {host for host, _ in read_addresses(CONFIG).endpoints.values()} == {"127.0.0.1"}


def test_every_setting_has_a_reason_above_it():
    lines = CONFIG.read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"\w+=", line):
            assert before.startswith("#") or re.match(r"\w+=", before), f"{line}: no comment above"


def test_prometheus_scrapes_the_address_of_the_metrics():
    jobs = yaml.safe_load((ROOT / "prometheus.yml").read_text())["scrape_configs"]
    [file] = jobs[0]["file_sd_configs"][0]["files"]
    [group] = yaml.safe_load((ROOT / file).read_text())
    [target] = group["targets"]
    host, port = read_addresses(CONFIG).endpoints["metrics_address"]
    assert target == f"{host}:{port}"
