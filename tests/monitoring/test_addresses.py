import pytest

from cifar.common.errors import InvalidAddress
from cifar.common.project import ROOT
from cifar.monitoring.addresses import parse_endpoint, read_alert_log, read_alertmanager


def test_the_repositorys_files_name_the_usual_addresses():
    assert read_alertmanager(ROOT / "prometheus.yml") == ("127.0.0.1", 9093)
    assert read_alert_log(ROOT / "alertmanager.yml") == ("127.0.0.1", 9095)


def test_an_alertmanager_may_stand_in_prometheus_yml_itself(tmp_path):
    config = tmp_path / "prometheus.yml"
    config.write_text("alerting: {alertmanagers: [{static_configs: [{targets: ['[::1]:99']}]}]}")
    assert read_alertmanager(config) == ("::1", 99)


@pytest.mark.parametrize(
    "text", ["", "alerting:", "[]", "alerting: {alertmanagers: [{file_sd_configs: [{files: [x.yml]}]}]}"]
)
def test_a_prometheus_without_an_alertmanager_is_rejected_with_an_example(tmp_path, text):
    config = tmp_path / "prometheus.yml"
    config.write_text(text)
    with pytest.raises(InvalidAddress, match=r"names no Alertmanager; expected .* 127\.0\.0\.1:9093"):
        read_alertmanager(config)


def test_no_log_is_started_where_messages_go_to_another_machine(tmp_path):
    config = tmp_path / "alertmanager.yml"
    config.write_text("receivers: [{name: page, webhook_configs: [{url: 'https://pager.example/x'}]}, {name: none}]")
    assert read_alert_log(config) is None


@pytest.mark.parametrize(
    ("text", "message"), [("", "no receivers"), ("a: [", "is no YAML"), (None, "cannot be read: No such file")]
)
def test_an_alertmanager_configuration_that_is_none_is_rejected(tmp_path, text, message):
    config = tmp_path / "alertmanager.yml"
    if text is not None:
        config.write_text(text)
    with pytest.raises(InvalidAddress, match=message):
        read_alert_log(config)


@pytest.mark.parametrize(
    "text", ["", "9090", "127.0.0.1", "127.0.0.1:x", "http://127.0.0.1:9090", "127.0.0.1:99999", "a:1/b"]
)
def test_what_is_no_address_is_rejected_with_an_example(text):
    with pytest.raises(InvalidAddress, match=r"--address is .*expected an address like 127\.0\.0\.1:9090"):
        parse_endpoint(text, "--address")
