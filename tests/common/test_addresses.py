import itertools
import re

import pytest
import yaml

from cifar.common.addresses import read_addresses, read_properties
from cifar.common.errors import ConfigUnusable
from cifar.common.project import CONFIG, ROOT


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


def test_an_address_without_a_port_has_torchserves_default_for_it(write):
    addresses = read_addresses(write("inference_address = http://localhost:9000\nmetrics_address=http://127.0.0.1\n"))
    assert addresses.inference == "http://localhost:9000"
    assert addresses.endpoints["inference_address"] == ("localhost", 9000)
    assert addresses.endpoints["metrics_address"] == ("127.0.0.1", 8082)


def test_all_addresses_of_the_machine_are_reached_by_loopback(write):
    addresses = read_addresses(write("inference_address=http://0.0.0.0:9000\n"))
    assert addresses.inference == "http://127.0.0.1:9000"
    assert addresses.endpoints["inference_address"] == ("0.0.0.0", 9000)


def test_a_socket_is_an_address_without_a_port(write):
    addresses = read_addresses(write("management_address=unix:$$PWD$$/some.sock\n"))
    assert addresses.management == f"unix:{ROOT}/some.sock"
    assert addresses.management_socket == ROOT / "some.sock"
    assert "management_address" not in addresses.endpoints


@pytest.mark.parametrize(
    "line",
    [
        "inference_address=127.0.0.1:8080",
        "management_address=unix:run/socket",
        "management_address=unix:",
        "management_address=unix:$$NO_SUCH_VARIABLE$$/socket",
        "management_address=http://:8081",
        "metrics_address=http://127.0.0.1:99999",
        "metrics_address=http://127.0.0.1:0",
        "inference_address=http://127.0.0.1:8080/",
        "inference_address=http://127.0.0.1:8080/path",
        "inference_address=http://[::1]:8080",
        "management_address=http://[::1]",
        "metrics_address=http://::1:8082",
        "grpc_inference_port=seven",
        "grpc_management_port=70000",
    ],
)
def test_address_that_cannot_be_used_is_named_with_its_key(write, line):
    with pytest.raises(ConfigUnusable, match=line.partition("=")[0]):
        read_addresses(write(line + "\n"))


def test_ipv6_is_rejected_by_name_where_torchserve_does_not_take_it(write):
    with pytest.raises(ConfigUnusable, match="takes no IPv6 address"):
        read_addresses(write("inference_address=http://[::1]:8080\n"))
    assert read_addresses(write("grpc_inference_address=::1\n")).endpoints["grpc_inference_port"] == ("::1", 7070)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigUnusable, match=r"none\.properties cannot be read"):
        read_addresses(tmp_path / "none.properties")


def test_comments_are_no_settings(write):
    assert read_properties(write("# a=1\n! b=2\nc=3=4\n")) == {"c": "3=4"}


def test_the_projects_server_listens_on_loopback_only():
    endpoints = dict(read_addresses(CONFIG).endpoints)
    assert endpoints.pop("grpc_management_port") == ("127.255.255.255", 7071)  # where no connection can be made to
    assert {host for host, _ in endpoints.values()} == {"127.0.0.1"}


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
