"""What is started, and how."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from cifar.common.errors import ProgramMissing
from cifar.monitoring import receiver
from cifar.monitoring.addresses import Endpoint, read_alert_log, read_alertmanager, read_token_file

_INSTALL = (
    "On Debian and Ubuntu: sudo apt-get install prometheus prometheus-alertmanager (and, as these start services on "
    "the same ports, sudo systemctl disable --now prometheus prometheus-alertmanager). Elsewhere: "
    "https://prometheus.io/download"
)


@dataclass(frozen=True)
class Program:
    """A program of the monitor."""

    name: str
    endpoint: Endpoint
    command: tuple[str, ...]
    log: Path
    reloads: bool = True  # its configuration, at SIGHUP

    @property
    def address(self) -> str:
        """`host:port`."""
        return format_endpoint(self.endpoint)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.address}"


def list_programs(
    folder: Path, prometheus_config: Path, alertmanager_config: Path, prometheus: Endpoint
) -> list[Program]:
    """Return what is to run, in the order of starting: each before what sends to it.

    Args:
        folder: for data and logs.
        prometheus_config: a prometheus.yml, which says where Alertmanager listens.
        alertmanager_config: an alertmanager.yml, which says whether and where the log listens.
        prometheus: where Prometheus is to listen.

    Raises:
        ProgramMissing, InvalidAddress.
    """
    found = find_programs()
    alert_log, alertmanager = read_alert_log(alertmanager_config), read_alertmanager(prometheus_config)
    programs = []
    if alert_log is not None:
        token_file = read_token_file(alertmanager_config)
        # By its path and isolated: it needs nothing but Python.
        command = [sys.executable, "-I", receiver.__file__, format_endpoint(alert_log), str(folder / "alerts.jsonl")]
        command += ["--token-file", str(token_file)] if token_file is not None else []
        programs.append(Program("Alert log", alert_log, tuple(command), folder / "alert-log.log", reloads=False))
    for name, endpoint, config, further in (
        ("Alertmanager", alertmanager, alertmanager_config, ["--storage.path={}", "--cluster.listen-address="]),
        ("Prometheus", prometheus, prometheus_config, ["--storage.tsdb.path={}"]),
    ):
        address = format_endpoint(endpoint)
        options = (
            found[name],
            f"--config.file={config.resolve()}",
            f"--web.listen-address={address}",
            # In messages. By default it is the machine's name, at which nothing listens.
            f"--web.external-url=http://{address}",
            *(option.format(folder / name.lower()) for option in further),
        )
        programs.append(Program(name, endpoint, options, folder / f"{name.lower()}.log"))
    return programs


def find_programs() -> dict[str, str]:
    """Return the paths of Prometheus and Alertmanager; raises ProgramMissing."""
    wanted = {"Prometheus": ["prometheus"], "Alertmanager": ["prometheus-alertmanager", "alertmanager"]}
    found = {name: next(filter(None, map(shutil.which, commands)), None) for name, commands in wanted.items()}
    missing = [f"{name} ({' or '.join(wanted[name])})" for name, path in found.items() if path is None]
    if missing:
        raise ProgramMissing(f"{' and '.join(missing)} not found on PATH. {_INSTALL}")
    return {name: path for name, path in found.items() if path is not None}


def format_endpoint(endpoint: Endpoint) -> str:
    """Return `host:port`, with the brackets that IPv6 wants."""
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
