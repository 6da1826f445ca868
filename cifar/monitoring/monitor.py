"""Starts Prometheus, Alertmanager and the log of alerts, waits until they are ready, and stops them."""

import os
import secrets
import time
from pathlib import Path

from cifar.common.errors import AddressesUnusable, PortTaken
from cifar.common.lock import exclusive
from cifar.common.ports import check_ports_free
from cifar.common.processes import end_processes
from cifar.common.project import MONITOR_DIR, ROOT
from cifar.monitoring.addresses import Endpoint, read_token_file
from cifar.monitoring.daemons import end, reload, spawn, wait_until_ready
from cifar.monitoring.programs import Program, list_programs
from cifar.monitoring.state import Started, find_started, read_started, write_started

PROMETHEUS_CONFIG = ROOT / "prometheus.yml"
ALERTMANAGER_CONFIG = ROOT / "alertmanager.yml"
PROMETHEUS = ("127.0.0.1", 9090)

START_TIMEOUT_S = 60.0  # Prometheus first reads what it measured before

_DYING_S = 5.0
_PAUSE_S = 0.1

_ADVICE = (
    "Stop what holds it. Debian's packages start services of their own: sudo systemctl disable --now prometheus "
    "prometheus-alertmanager. Or change the address: Prometheus's with --address, Alertmanager's in "
    "targets/alertmanager.yml, that of the alert log in alertmanager.yml."
)


class Monitor:
    """What watches the service from one folder.

    Args:
        folder: for data, logs and the memory of the processes; made by `start`, kept by `stop`.
        prometheus_config: prometheus.yml.
        alertmanager_config: alertmanager.yml.
        prometheus: where Prometheus listens.
    """

    def __init__(
        self,
        folder: Path = MONITOR_DIR,
        prometheus_config: Path = PROMETHEUS_CONFIG,
        alertmanager_config: Path = ALERTMANAGER_CONFIG,
        prometheus: Endpoint = PROMETHEUS,
    ) -> None:
        self.folder = folder.resolve()
        self.prometheus_config = prometheus_config
        self.alertmanager_config = alertmanager_config
        self.prometheus = prometheus

    def start(self, timeout_s: float = START_TIMEOUT_S) -> list[Program]:
        """Start what does not run; what runs reads its configuration anew, or starts anew where its command changed.

        Returns:
            The programs, all of which are ready.

        Raises:
            ProgramMissing, AddressesUnusable, PortTaken, InvalidStateFile: found before anything was started.
            MonitorFailed: one ended, was not ready in time, or refused its configuration. Those just started are ended
                again, those that ran before go on; the logs stay in the folder.
        """
        programs = list_programs(self.folder, self.prometheus_config, self.alertmanager_config, self.prometheus)
        with exclusive(self.folder):
            remembered = read_started(self.folder)
            running = {name: one for name, one in remembered.items() if one.process is not None}
            same = {it.name: running[it.name] for it in programs if _runs_as_asked(it, running)}
            end([one for name, one in running.items() if name not in same])
            write_started(self.folder, same)
            missing = [program for program in programs if program.name not in same]
            # A process that was killed keeps its port until the last of its threads has gone.
            _await_ports(missing, _DYING_S if len(running) < len(remembered) else 0)
            self._write_token()
            new: dict[str, Started] = {}
            try:
                for program in missing:
                    new[program.name] = spawn(program)
                    write_started(self.folder, same | new)
                for program in programs:
                    wait_until_ready(program, (same | new)[program.name], timeout_s)
            except BaseException:
                end(list(new.values()))
                write_started(self.folder, same)
                raise
            for program in programs:
                if program.name in same and program.reloads:
                    reload(program, same[program.name])
        return programs

    def stop(self) -> list[str]:
        """End what runs; data and logs stay.

        Returns:
            The names of what was running.

        Raises:
            InvalidStateFile: what is remembered of them cannot be trusted; nothing has been ended.
        """
        if not self.folder.is_dir():
            return []
        with exclusive(self.folder):
            remembered = {name: one.process for name, one in read_started(self.folder).items()}
            running = {name: one for name, one in remembered.items() if one is not None}
            running |= {name: one for name, one in find_started(self.folder).items() if name not in running}
            end_processes(running.values())
            write_started(self.folder, {})
            token_file = self._find_token_file()
            if token_file is not None:
                token_file.unlink(missing_ok=True)
        return list(running)

    def _find_token_file(self) -> Path | None:
        """Return the file of the token that is ours: one elsewhere was made by its owner."""
        try:
            token_file = read_token_file(self.alertmanager_config)
        except AddressesUnusable:  # whoever stops the monitor need not mend it first
            return None
        return token_file if token_file is not None and token_file.parent == self.folder else None

    def _write_token(self) -> None:
        """Make the token that Alertmanager shows to the alert log, unless it is there; it lasts until `stop`."""
        token_file = self._find_token_file()
        if token_file is not None and not token_file.exists():
            temporary = token_file.with_name(f".{token_file.name}")
            with open(temporary, "w", encoding="ascii", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(secrets.token_hex(32))
            temporary.replace(token_file)


def _await_ports(programs: list[Program], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return check_ports_free({program.name: program.endpoint for program in programs}, _ADVICE)
        except PortTaken:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_S)


def _runs_as_asked(program: Program, running: dict[str, Started]) -> bool:
    return program.name in running and running[program.name].command == list(program.command)
