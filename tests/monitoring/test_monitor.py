"""`cifar monitor`: a real Prometheus, a real Alertmanager and the log of its messages."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from cifar.common.errors import InvalidStateFile, MonitorFailed, PortTaken, ProgramMissing
from cifar.common.processes import identify
from cifar.common.project import ROOT
from cifar.monitoring.monitor import Monitor, remember_folder, stop_all
from cifar.monitoring.processes import ProcessRecord, read_records, write_records
from cifar.monitoring.programs import list_programs
from tests.monitoring.watched import copy_configuration, get, messages, wait_until

NAMES = ["Alert log", "Alertmanager", "Prometheus"]


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Monitor]:
    monitor = copy_configuration(tmp_path_factory.mktemp("running"))
    try:
        monitor.start()
        yield monitor
    finally:
        monitor.stop()


@pytest.fixture
def monitor(tmp_path) -> Iterator[Monitor]:
    """One that is not started; whatever a test leaves of it is stopped."""
    monitor = copy_configuration(tmp_path)
    try:
        yield monitor
    finally:
        monitor.stop()


def pids(monitor: Monitor) -> dict[str, int]:
    return {name: one.pid for name, one in read_records(monitor.folder).items() if one.process is not None}


def urls(monitor: Monitor) -> dict[str, str]:
    arguments = (monitor.folder, monitor.prometheus_config, monitor.alertmanager_config, monitor.prometheus)
    return {program.name: program.url for program in list_programs(*arguments)}


def test_each_listens_where_the_files_say_and_alertmanager_opens_no_other_port(running):
    for name, pid in pids(running).items():
        listening = {
            connection.laddr.port
            for connection in psutil.Process(pid).net_connections("inet")
            if connection.status == "LISTEN"
        }
        assert listening == {int(urls(running)[name].rpartition(":")[2])}


def test_no_ctrl_c_in_the_terminal_reaches_them(running):
    for pid in pids(running).values():
        assert os.getsid(pid) == pid


def test_prometheus_evaluates_the_rules_and_nothing_complains_at_the_start(running):
    groups = get(urls(running)["Prometheus"] + "/api/v1/rules")["data"]["groups"]
    assert {"always", "service", "burn", "model", "thresholds"} <= {group["name"] for group in groups}
    assert "level=error" not in (running.folder / "alertmanager.log").read_text()
    assert "level=warn" not in (running.folder / "alertmanager.log").read_text()


def test_an_alert_of_prometheus_reaches_the_log_with_its_severity_and_links_that_work(running):
    wait_until(lambda: messages(running))
    message = messages(running)[0]
    assert (message["receiver"], message["status"]) == ("page", "firing")
    assert message["groupLabels"] == {"alertname": "Always", "job": "torchserve"}
    assert message["received"].endswith("+00:00")
    [alert] = message["alerts"]
    assert requests.get(alert["generatorURL"], timeout=10).status_code == 200
    assert message["externalURL"] == urls(running)["Alertmanager"]


def test_the_alert_log_takes_messages_of_this_alertmanager_only(running):
    token_file = running.folder / "alert-log.token"
    assert token_file.stat().st_mode & 0o777 == 0o600
    alert = {"status": "resolved", "labels": {"alertname": "Always"}, "annotations": {}, "fingerprint": "1"}
    forged = {"version": "4", "status": "resolved", "alerts": [alert]}
    url = urls(running)["Alert log"]
    assert requests.post(url, json=forged, timeout=10).status_code == 401
    own = {"Authorization": f"Bearer {token_file.read_text()}"}
    assert requests.post(url, json=forged, headers=own | {"Origin": "http://here"}, timeout=10).status_code == 403


def test_the_token_of_the_alert_log_lasts_as_long_as_the_monitor(monitor):
    monitor.start()
    token = (monitor.folder / "alert-log.token").read_text()
    monitor.start()
    assert (monitor.folder / "alert-log.token").read_text() == token
    monitor.stop()
    assert not (monitor.folder / "alert-log.token").exists()


def test_without_credentials_in_alertmanagers_configuration_no_token_is_asked_for(monitor):
    config = monitor.alertmanager_config
    lines = config.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if "http_config" not in line and "authorization" not in line))
    monitor.start()
    assert not (monitor.folder / "alert-log.token").exists()
    wait_until(lambda: messages(monitor))


def test_alerts_reach_the_log_also_where_the_monitor_has_another_folder(monitor):
    elsewhere = Monitor(
        monitor.folder.parent / "elsewhere", monitor.prometheus_config, monitor.alertmanager_config, monitor.prometheus
    )
    try:
        elsewhere.start()
        wait_until(lambda: messages(elsewhere), seconds=40)
    finally:
        elsewhere.stop()


def test_a_server_that_is_down_silences_its_consequences_and_not_another_job(running):
    alerts = [
        {"labels": {"alertname": f"Cifar{name}", "job": job, "model_version": "1.0", "severity": "page"}}
        for name, job in (("ServerDown", "here"), ("QueueGrows", "here"), ("InputDrift", "here"), ("QueueGrows", "far"))
    ]
    api = urls(running)["Alertmanager"] + "/api/v2/alerts"
    assert requests.post(api, json=alerts, timeout=10).status_code == 200
    wait_until(lambda: len(get(api)) >= len(alerts))
    silenced = {
        (alert["labels"]["alertname"], alert["labels"]["job"]) for alert in get(api) if alert["status"]["inhibitedBy"]
    }
    assert silenced == {("CifarQueueGrows", "here"), ("CifarInputDrift", "here")}


def test_a_missing_worker_of_one_version_leaves_the_latency_of_another_audible(running):
    latency = "CifarLatencyBudgetBurnsFast"
    wanted = (("CifarNoLiveWorker", "2.0"), (latency, "2.0"), (latency, "1.0"))
    alerts = [
        {"labels": {"alertname": name, "job": "workers", "model_version": version, "severity": "page"}}
        for name, version in wanted
    ]
    alerts.append({"labels": {"alertname": "CifarErrorBudgetBurnsFast", "job": "workers", "severity": "page"}})
    api = urls(running)["Alertmanager"] + "/api/v2/alerts"
    assert requests.post(api, json=alerts, timeout=10).status_code == 200
    mine = {"filter": 'job="workers"'}
    wait_until(lambda: len(get(api, **mine)) == len(alerts))
    silenced = {
        (alert["labels"]["alertname"], alert["labels"].get("model_version"))
        for alert in get(api, **mine)
        if alert["status"]["inhibitedBy"]
    }
    assert silenced == {("CifarLatencyBudgetBurnsFast", "2.0"), ("CifarErrorBudgetBurnsFast", None)}


def test_a_second_start_keeps_the_processes_and_takes_changed_rules(running):
    before = pids(running)
    assert list(before) == NAMES
    rules = running.prometheus_config.parent / "alerts" / "always.yaml"
    rules.write_text(rules.read_text().replace("name: always", "name: changed"))
    assert [program.name for program in running.start()] == NAMES
    assert pids(running) == before
    groups = get(urls(running)["Prometheus"] + "/api/v1/rules")["data"]["groups"]
    assert "changed" in {group["name"] for group in groups}


def test_a_running_prometheus_that_rejects_changed_rules_goes_on_and_the_error_says_why(running, monkeypatch):
    monkeypatch.setattr("cifar.monitoring.processes._RELOAD_TIMEOUT_S", 1.0)
    before = pids(running)
    broken = running.prometheus_config.parent / "alerts" / "broken.yaml"
    broken.write_text("groups: [{name: broken, rules: [{record: a, expr: '('}]}]")
    try:
        with pytest.raises(MonitorFailed, match=r"Prometheus keeps the configuration that it had(.|\n)*broken\.yaml"):
            running.start()
    finally:
        broken.unlink()
    assert pids(running) == before
    running.start()


def test_down_ends_all_of_it_keeps_what_was_measured_and_does_not_mind_none(checkout):
    monitor, folder = checkout, checkout.folder
    done = cifar(monitor, "monitor", *options(monitor))
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[0] for line in done.stderr.splitlines() if "names the metrics" not in line] == NAMES[::-1]
    assert urls(monitor)["Prometheus"] in done.stderr
    assert str(folder / "alerts.jsonl") in done.stderr
    processes = remembered(folder)
    assert len(processes) == len(NAMES)
    arguments = ("down", "--run-dir", folder.parent / "run", "--monitor-dir", folder)
    done = cifar(monitor, *arguments)
    assert done.returncode == 0, done.stderr
    assert "Stopped: Alert log, Alertmanager, Prometheus." in done.stderr
    assert not any(runs(process) for process in processes)
    assert (folder / "prometheus" / "wal").is_dir()
    assert not (folder / "processes.json").exists()
    assert "Stopped:" not in cifar(monitor, *arguments).stderr


@pytest.mark.parametrize("name", ["elsewhere", "monitor"])
def test_down_finds_the_monitor_of_its_checkout_wherever_its_folder_is(checkout, name):
    folder = checkout.folder.parent / "data" / name
    monitor = Monitor(folder, checkout.prometheus_config, checkout.alertmanager_config, checkout.prometheus)
    done = cifar(monitor, "monitor", *options(monitor))
    assert done.returncode == 0, done.stderr
    processes = remembered(folder)
    done = cifar(monitor, "down", "--run-dir", folder)
    assert "Stopped:" not in done.stderr, "of another run folder: not its monitor"
    assert all(runs(process) for process in processes)
    done = cifar(monitor, "down")
    assert done.returncode == 0, done.stderr
    assert f"What was recorded stays in {folder}." in done.stderr
    assert not any(runs(process) for process in processes)
    assert (folder / "prometheus" / "wal").is_dir()
    assert "Stopped:" not in cifar(monitor, "down").stderr


def remembered(folder: Path) -> list[psutil.Process]:
    """The processes that another checkout's command has started."""
    content = json.loads((folder / "processes.json").read_text())
    return [psutil.Process(record["pid"]) for record in content.values()]


def runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("content", ["", "{", "[]", '{"folders": 1}', '{"folders": [1]}', '{"others": []}'])
def test_a_damaged_list_of_folders_is_an_error_that_names_the_way_out(tmp_path, content):
    (tmp_path / "other_folders.json").write_text(content)
    for act in (lambda: stop_all(tmp_path), lambda: remember_folder(tmp_path / "new", tmp_path)):
        with pytest.raises(InvalidStateFile, match=r"other_folders\.json cannot be trusted.*--monitor-dir FOLDER"):
            act()


def test_folders_that_have_gone_are_forgotten_and_the_usual_one_needs_no_memory(tmp_path):
    home = tmp_path / "monitor"
    remember_folder(home, home)
    assert not home.exists()
    for name in ("gone", "new"):
        remember_folder(tmp_path / name, home)
    assert json.loads((home / "other_folders.json").read_text()) == {"folders": [str(tmp_path / "new")]}
    assert stop_all(home) == {}
    assert not (home / "other_folders.json").exists()


@pytest.fixture
def checkout(tmp_path) -> Iterator[Monitor]:
    """A monitor of a checkout of its own, which no other monitor belongs to; plain `down` ends what is left of it."""
    monitor = copy_configuration(tmp_path)
    for folder in ("cifar", "handler"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "config.properties", tmp_path)
    try:
        yield monitor
    finally:
        cifar(monitor, "down")


def cifar(monitor: Monitor, *arguments: object, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    """Run a command of the checkout that the monitor's configuration is in."""
    checkout = monitor.prometheus_config.parent
    command = [sys.executable, "-m", "cifar.cli.main", *map(str, arguments)]
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(checkout), "COLUMNS": "300"}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=60)


def options(monitor: Monitor) -> list[object]:
    return [
        *("--address", f"127.0.0.1:{monitor.prometheus[1]}", "--prometheus-config", monitor.prometheus_config),
        *("--alertmanager-config", monitor.alertmanager_config, "--monitor-dir", monitor.folder),
    ]


def test_a_killed_prometheus_comes_back_with_what_it_measured_and_the_others_stay(monitor):
    monitor.start()
    before = pids(monitor)
    query = urls(monitor)["Prometheus"] + "/api/v1/query"
    wait_until(lambda: get(query, query="threshold:torchserve_errors:ratio")["data"]["result"])
    [(measured_at, _value)] = samples(query)
    psutil.Process(before["Prometheus"]).kill()
    wait_until(lambda: "Prometheus" not in pids(monitor))
    monitor.start()
    after = pids(monitor)
    assert after["Prometheus"] != before["Prometheus"]
    assert {name: after[name] for name in NAMES[:2]} == {name: before[name] for name in NAMES[:2]}
    assert measured_at in {at for at, _value in samples(query)}


def samples(query: str) -> list[tuple[float, str]]:
    """The raw samples of the last minutes, of one series."""
    [series] = get(query, query="threshold:torchserve_errors:ratio[5m]")["data"]["result"]
    return [(at, value) for at, value in series["values"]][:1]


def test_a_taken_port_is_named_and_nothing_is_left_running(monitor):
    with socket.create_server(monitor.prometheus):
        wanted = (
            rf"127\.0\.0\.1:{monitor.prometheus[1]} \(Prometheus\) is held by process {os.getpid()}.*systemctl disable"
        )
        with pytest.raises(PortTaken, match=wanted):
            monitor.start()
    assert pids(monitor) == {}


def test_the_port_of_one_that_was_killed_is_waited_for(monitor):
    monitor.folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", "pass"]) as killed:
        started = identify(killed.pid)
    write_records(monitor.folder, {"Prometheus": ProcessRecord(killed.pid, started, own_command(monitor))})
    with socket.create_server(monitor.prometheus) as port:
        closing = threading.Timer(0.5, port.close)
        closing.start()
        monitor.start()
        closing.join()
    assert list(pids(monitor)) == NAMES


def test_a_configuration_that_alertmanager_rejects_shows_its_words_and_leaves_nothing_running(monitor):
    text = monitor.alertmanager_config.read_text()
    monitor.alertmanager_config.write_text(text.replace("repeat_interval: 4h", "repeat_interval: often"))
    with pytest.raises(MonitorFailed, match=r"Alertmanager was started and has ended(.|\n)*often"):
        monitor.start()
    assert pids(monitor) == {}
    with socket.create_server(monitor.prometheus):
        pass  # no process listens


def test_another_address_starts_prometheus_again_and_leaves_the_others(monitor):
    monitor.start()
    before = pids(monitor)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()
    moved = Monitor(monitor.folder, monitor.prometheus_config, monitor.alertmanager_config, free)
    moved.start()
    changed = {name for name, pid in pids(moved).items() if pid != before[name]}
    assert changed == {"Prometheus"}
    assert get(urls(moved)["Prometheus"] + "/api/v1/status/buildinfo")["status"] == "success"


def test_a_missing_program_is_named_with_the_command_that_brings_it(checkout, tmp_path):
    here = tmp_path / "bin"
    here.mkdir()
    done = cifar(checkout, "monitor", *options(checkout), path=str(here))
    assert done.returncode == 1
    message = " ".join(done.stderr.split())
    assert "Prometheus (prometheus) and Alertmanager (prometheus-alertmanager or alertmanager) not found" in message
    assert "sudo apt-get install prometheus prometheus-alertmanager" in message
    assert "Traceback" not in message


def test_alertmanager_is_found_by_either_of_its_names(monitor, tmp_path, monkeypatch):
    here = tmp_path / "bin"
    here.mkdir()
    (here / "prometheus").symlink_to(str(shutil.which("prometheus")))
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(here))
        with pytest.raises(ProgramMissing, match=r"^Alertmanager"):
            monitor.start()
        (here / "alertmanager").symlink_to("/bin/true")
        arguments = (monitor.folder, monitor.prometheus_config, monitor.alertmanager_config, monitor.prometheus)
        assert list_programs(*arguments)[1].command[0] == str(here / "alertmanager")


def test_stopping_never_ends_a_process_that_only_has_the_same_number(monitor):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        try:
            monitor.folder.mkdir()
            started = identify(other.pid)  # even the very process that is named: it is not what it should be
            write_records(monitor.folder, {"Prometheus": ProcessRecord(other.pid, started, own_command(monitor))})
            assert monitor.stop() == []
            assert other.poll() is None
        finally:
            other.kill()


def own_command(monitor: Monitor) -> list[str]:
    return ["prometheus", f"--storage.tsdb.path={monitor.folder}/prometheus"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"Prometheus": {}}',
        '{"Another": null}',
        '{"Prometheus": {"pid": 5, "started": 1.0, "command": []}}',
    ],
)
def test_a_damaged_file_of_processes_loses_none_of_them(monitor, content):
    command = own_command(monitor)[1:]
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *command]) as program:
        try:
            monitor.folder.mkdir()
            file = monitor.folder / "processes.json"
            file.write_text(content)
            for act in (monitor.stop, monitor.start):
                with pytest.raises(InvalidStateFile, match=rf"processes\.json cannot be trusted.*run: {program.pid} "):
                    act()
            assert program.poll() is None
            file.unlink()
            assert monitor.stop() == ["Prometheus"]
            assert not psutil.pid_exists(program.pid)
        finally:
            program.kill()


@pytest.mark.parametrize("command", [["prometheus"], ["sleep", "60"], []])
def test_a_process_that_is_not_of_the_folder_is_never_ended(monitor, command):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        try:
            monitor.folder.mkdir()
            write_records(monitor.folder, {"Prometheus": ProcessRecord(other.pid, identify(other.pid), command)})
            with pytest.raises(InvalidStateFile, match="Prometheus has a command that is not of this folder"):
                monitor.stop()
            assert other.poll() is None
        finally:
            other.kill()
            (monitor.folder / "processes.json").unlink()
