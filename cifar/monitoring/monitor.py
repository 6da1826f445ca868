"""Starts Prometheus, Alertmanager and the log of alerts, waits until they are ready, and stops them."""

import os
import secrets
import time
from pathlib import Path

from cifar.common.errors import InvalidAddress, InvalidStateFile, PortTaken
from cifar.common.lock import exclusive
from cifar.common.ports import check_ports_free
from cifar.common.processes import end_processes
from cifar.common.project import MONITOR_DIR, ROOT
from cifar.common.state_file import check_object, list_of, read_state_file, write_state_file
from cifar.monitoring.addresses import Endpoint, read_token_file
from cifar.monitoring.processes import (
    ProcessRecord,
    find_running,
    read_records,
    reload,
    spawn,
    terminate,
    wait_until_ready,
    write_records,
)
from cifar.monitoring.programs import Program, list_programs

PROMETHEUS_CONFIG = ROOT / "prometheus.yml"
ALERTMANAGER_CONFIG = ROOT / "alertmanager.yml"
PROMETHEUS = ("127.0.0.1", 9090)

START_TIMEOUT_S = 60.0  # Prometheus first reads what it measured before

# Of a monitor folder: the other folders in which this checkout has started a monitor.
_OTHER_FOLDERS = "other_folders.json"
_MAX_BYTES = 1 << 20
_MAX_FOLDERS = 100

_DYING_S = 5.0
_PAUSE_S = 0.1

_ADVICE = (
    "Stop what holds it. Debian's packages start services of their own: sudo systemctl disable --now prometheus "
    "prometheus-alertmanager. Or change the address: Prometheus's with --address, Alertmanager's in "
    "targets/alertmanager.yml, that of the alert log in alertmanager.yml."
)


class Monitor:
    """Prometheus, Alertmanager and the log of alerts, with their data in one folder.

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
        """Start what does not run; what runs reloads its configuration, or is started again where its command changed.

        Returns:
            The programs, all of which are ready.

        Raises:
            ProgramMissing, InvalidAddress, PortTaken, InvalidStateFile: found before anything was started.
            MonitorFailed: one ended, was not ready in time, or rejected its configuration. Those just started are ended
                again, those that ran before keep running; the logs stay in the folder.
        """
        programs = list_programs(self.folder, self.prometheus_config, self.alertmanager_config, self.prometheus)
        with exclusive(self.folder):
            remembered = read_records(self.folder)
            running = {name: one for name, one in remembered.items() if one.process is not None}
            same = {program.name: running[program.name] for program in programs if _runs_as_asked(program, running)}
            terminate([one for name, one in running.items() if name not in same])
            write_records(self.folder, same)
            missing = [program for program in programs if program.name not in same]
            # A process that was killed keeps its port until the last of its threads has gone.
            _await_ports(missing, _DYING_S if len(running) < len(remembered) else 0)
            self._write_token()
            new: dict[str, ProcessRecord] = {}
            try:
                for program in missing:
                    new[program.name] = spawn(program)
                    write_records(self.folder, same | new)
                for program in programs:
                    wait_until_ready(program, (same | new)[program.name], timeout_s)
            except BaseException:
                terminate(list(new.values()))
                write_records(self.folder, same)
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
            remembered = {name: one.process for name, one in read_records(self.folder).items()}
            running = {name: one for name, one in remembered.items() if one is not None}
            running |= {name: one for name, one in find_running(self.folder).items() if name not in running}
            end_processes(running.values())
            write_records(self.folder, {})
            token_file = self._find_token_file()
            if token_file is not None and token_file.parent == self.folder:
                token_file.unlink(missing_ok=True)
        return list(running)

    def _find_token_file(self) -> Path | None:
        """Return the file of the token where it is this tool's to make: any other was made by its owner."""
        try:
            token_file = read_token_file(self.alertmanager_config)
        except InvalidAddress:  # the monitor can be stopped without a valid file
            return None
        own = self.folder, self.alertmanager_config.resolve().parent / MONITOR_DIR.name
        return token_file if token_file is not None and token_file.parent in own else None

    def _write_token(self) -> None:
        """Make the token that Alertmanager shows to the alert log, unless it is there; it lasts until `stop`."""
        token_file = self._find_token_file()
        if token_file is not None and not token_file.exists():
            token_file.parent.mkdir(exist_ok=True)
            temporary = token_file.with_name(f".{token_file.name}")
            with open(temporary, "w", encoding="ascii", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(secrets.token_hex(32))
            temporary.replace(token_file)


def remember_folder(folder: Path, home: Path = MONITOR_DIR) -> None:
    """Remember that this checkout starts a monitor with another folder than `home`, so that `stop_all` finds it.

    Raises:
        InvalidStateFile: what is remembered in `home` cannot be trusted.
    """
    if folder.resolve() == home.resolve():
        return
    with exclusive(home):
        known = _read_folders(home)
        if folder.resolve() not in known:
            # Those that have gone need no memory; of the others the latest are kept.
            kept = [*(path for path in known if path.is_dir()), folder.resolve()][-_MAX_FOLDERS:]
            write_state_file(home / _OTHER_FOLDERS, {"folders": list(map(str, kept))})


def stop_all(home: Path = MONITOR_DIR) -> dict[Path, list[str]]:
    """Stop the monitor of `home` and all that `remember_folder` knows.

    Returns:
        The names of what was running, by folder; folders without any are left out.

    Raises:
        InvalidStateFile: as of Monitor.stop, or what is remembered of other folders cannot be trusted.
    """
    if not home.is_dir():
        return {}
    with exclusive(home):
        folders = _read_folders(home)
    stopped = {folder: Monitor(folder).stop() for folder in (home.resolve(), *folders)}
    with exclusive(home):
        (home / _OTHER_FOLDERS).unlink(missing_ok=True)
    return {folder: names for folder, names in stopped.items() if names}


def _read_folders(home: Path) -> list[Path]:
    path = home / _OTHER_FOLDERS
    try:
        content = check_object(read_state_file(path, _MAX_BYTES), "it", {"folders": list_of(str, _MAX_FOLDERS)})
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise InvalidStateFile(
            f"{path} cannot be trusted: {error}. Remove the file; a monitor with a folder of its own is stopped by: "
            "cifar down --monitor-dir FOLDER"
        ) from None
    return [Path(folder) for folder in content["folders"]]


def _await_ports(programs: list[Program], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return check_ports_free({program.name: program.endpoint for program in programs}, _ADVICE)
        except PortTaken:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_S)


def _runs_as_asked(program: Program, running: dict[str, ProcessRecord]) -> bool:
    return program.name in running and running[program.name].command == list(program.command)
