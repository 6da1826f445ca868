"""Starts one TorchServe, waits until it serves, and stops it without leaving anything behind."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from client.addresses import CONFIG as CONFIG
from client.addresses import ROOT as ROOT
from client.addresses import Addresses, read_addresses
from client.errors import ConfigUnusable
from launcher.archives import check_deployed, check_model_store
from launcher.errors import StartFailed
from launcher.exclusive import exclusive
from launcher.guard import check_guarded
from launcher.java import find_java_home
from launcher.management_socket import check_socket_free, remove_socket, write_server_config
from launcher.ports import check_ports_free
from launcher.readiness import NotReady, ReadyModel, wait_until_ready
from launcher.reconcile import reconcile
from launcher.serving import SERVING_NAME, Serving, forget_serving, read_serving, store_lock, tell_prometheus
from launcher.state import RunState, find_server, read_state, write_state

RUN_DIR = ROOT / "run"
LOG_CONFIG = ROOT / "log4j2.xml"
LOG_NAME = "torchserve.log"  # in it
MODEL_STORE = ROOT / "model_store"

START_TIMEOUT_S = 120.0
# TorchServe closes its listeners, writes a snapshot and ends its workers; without load it takes 2 s.
STOP_TIMEOUT_S = 30.0

_LOG_LINES = 40
# What TorchServe logs when a worker could not load the model. It would try again for five minutes.
_LOAD_FAILED = ("Failed to load model", "Backend worker process died")


class TorchServe:
    """The TorchServe of one run folder; there is at most one.

    Args:
        run_dir: for the logs and for what is remembered of the server; made by `start`, removed by `stop`.
        config: config.properties.
        model_store: the folder of the archives.
        models: what to load, such as `["cifar=cifar-1.0.mar"]`, instead of what was deployed, which is then forgotten;
            None: what was deployed (serving.json), and before any deployment every archive.
    """

    def __init__(
        self,
        run_dir: Path = RUN_DIR,
        config: Path = CONFIG,
        model_store: Path = MODEL_STORE,
        models: list[str] | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.config = config
        self.model_store = model_store
        self.models = models

    @property
    def addresses(self) -> Addresses:
        """Where it listens, or will; raises ConfigUnusable."""
        return read_addresses(self.config)

    @property
    def process(self) -> psutil.Process | None:
        """Its Java process; None where it does not run."""
        state = read_state(self.run_dir)
        return find_server(state) if state else None

    def start(self, timeout_s: float = START_TIMEOUT_S) -> list[ReadyModel]:
        """Start it, unless it runs, and wait until it serves: the versions, default and workers that were deployed.

        Raises:
            ConfigUnusable, ArchiveUnusable, ServingUnusable, JavaMissing, PortTaken: found before anything was started.
            StartFailed: it ended or did not serve in time. One that was just started is stopped again, one that ran
                before goes on; the logs stay in the run folder.
        """
        addresses = self.addresses
        check_guarded(addresses)
        serving = read_serving(self.model_store) if self.models is None else None
        if serving is not None and serving.default is None:
            serving = None
        models = serving.models if serving is not None else self.models
        archives = check_model_store(self.model_store, models)
        check_deployed(self.model_store, serving.versions if serving is not None else ())
        with exclusive(self.run_dir.parent):
            state = read_state(self.run_dir)
            running = state is not None and find_server(state) is not None
            if state is not None and running:
                self._check_same(state, archives, serving)
            else:
                self._remove(state)  # what a server that crashed has left
                check_ports_free(addresses.endpoints)
                if addresses.management_socket is not None:
                    check_socket_free(addresses.management_socket)
                state = self._launch(find_java_home(), archives, models)
        find_failure = self._find_end if running else self._find_failed_load
        key_file = self.run_dir / "key_file.json"
        try:
            ready = wait_until_ready(addresses, key_file, timeout_s, lambda: find_failure(state))
            if serving is not None:
                with store_lock(self.model_store) as mine:
                    if mine:  # else a deployment is changing what should run
                        reconcile(addresses, key_file, serving)
                        tell_prometheus(self.model_store, serving)
                ready = wait_until_ready(addresses, key_file, timeout_s, lambda: self._find_end(state))
            elif not running:
                forget_serving(self.model_store)
            return ready
        except NotReady as error:
            if running and find_server(state) is None:  # it was at its end when it was found
                return self.start(timeout_s)
            time.sleep(1)  # a worker's traceback comes line by line, behind the words that gave its end away
            log = self._end_of_log()
            if running:  # it may serve other clients: whoever wants it stopped says so
                raise StartFailed(f"TorchServe runs (process {state.pid}) but does not serve: {error}", log) from None
            self._end_processes(state)
            raise StartFailed(f"TorchServe was started but does not serve: {error}", log) from None

    def stop(self) -> bool:
        """End it and its workers, and remove the run folder with all that it made at run time.

        Returns:
            Whether it was running.
        """
        with exclusive(self.run_dir.parent):
            state = read_state(self.run_dir)
            running = state is not None and find_server(state) is not None
            self._remove(state)
        return running

    def _check_same(self, state: RunState, archives: list[Path], serving: Serving | None) -> None:
        """Refuse to pass a running server off as the one that was asked for."""
        asked = _times_of_change(archives)
        same_config = state.config == str(self.config.resolve())
        if same_config and serving is not None:  # what was deployed since it was started is told by digests
            return
        if (self.model_store / SERVING_NAME).exists():
            raise ConfigUnusable(
                f"A TorchServe runs here already, with what was deployed ({self.model_store / SERVING_NAME}). "
                "`cifar up` without names keeps that; to serve something else, stop it first: make down"
            )
        if not same_config or set(state.archives) != set(asked):
            raise ConfigUnusable(
                f"A TorchServe runs here already, with {state.config} and {', '.join(state.archives)}. "
                "Stop it first: make down"
            )
        changed = [archive for archive in asked if asked[archive] != state.archives[archive]]
        if changed:
            raise ConfigUnusable(
                f"{', '.join(changed)} has changed since the TorchServe that runs here was started; it serves what was "
                "there then. Start it again: make down, then make up"
            )

    def _remove(self, state: RunState | None) -> None:
        if state is not None:
            self._end_processes(state)
            if state.management_socket is not None:
                remove_socket(Path(state.management_socket))
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def _launch(self, java_home: Path, archives: list[Path], models: list[str] | None) -> RunState:
        """Run the plain `torchserve --start`, which leaves a Java process behind, and remember that."""
        logs = self.run_dir / "logs"
        logs.mkdir(parents=True)
        # TorchServe writes its tokens into the folder that it is started in, and config.properties names this file
        # relative to it.
        (self.run_dir / LOG_CONFIG.name).symlink_to(LOG_CONFIG)
        # Not in the run folder: a path of a socket must be shorter than 108 bytes, a checkout's path may be longer.
        temp_dir = tempfile.mkdtemp(prefix="cifar-ts-")
        management_socket = self.addresses.management_socket
        config = write_server_config(self.config.resolve(), management_socket, Path(temp_dir))
        environment = os.environ | {
            "JAVA_HOME": str(java_home),
            "LOG_LOCATION": str(logs),
            "METRICS_LOCATION": str(logs),
            "LOG_CONSOLE": "off",  # log4j2.xml writes to files that are turned over; console.log is none
            "TEMP": temp_dir,  # Java's: sockets and unpacked archives
            "TMPDIR": temp_dir,  # Python's: the launcher's file with the process id
            "PWD": str(ROOT),  # config.properties refers to it
        }
        environment.pop("TS_CONFIG_FILE", None)  # it would beat --ts-config
        command = [sys.executable, "-m", "ts.model_server", "--start", "--ncs"]
        command += ["--ts-config", str(config), "--model-store", str(self.model_store.resolve())]
        command += ["--models", *models] if models else []
        with (logs / "console.log").open("wb") as console:
            subprocess.run(
                command,
                cwd=self.run_dir,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                umask=0o077,  # what it writes, and the socket of its management API, are for its owner
                start_new_session=True,  # Ctrl-C in the terminal that ran `make up` is not for the server
                check=False,
            )
        try:
            pid = int((Path(temp_dir) / ".model_server.pid").read_text())
            state = RunState(
                pid=pid,
                started=psutil.Process(pid).create_time(),
                temp_dir=temp_dir,
                config=str(self.config.resolve()),
                archives=_times_of_change(archives),
                management_socket=str(management_socket) if management_socket else None,
            )
        except (OSError, ValueError, psutil.Error) as error:
            _clear(temp_dir)  # a Java whose process id could not be written may run
            free = ", ".join(f"{shutil.disk_usage(at).free:,} bytes in {at}" for at in (logs, tempfile.gettempdir()))
            raise StartFailed(f"TorchServe could not be started ({error}; free: {free})", self._end_of_log()) from None
        try:
            write_state(self.run_dir, state)
        except OSError as error:  # a full disk: what is not remembered could not be stopped
            self._end_processes(state)
            raise StartFailed(f"{self.run_dir} cannot be written: {error.strerror}", self._end_of_log()) from error
        return state

    def _find_end(self, state: RunState) -> str | None:
        return None if find_server(state) is not None else "its Java process has ended"

    def _find_failed_load(self, state: RunState) -> str | None:
        """Tell early that a server just started will not serve. Later, a worker may die and come back."""
        log = self._log()
        load = (f"a worker could not load the model ({words})" for words in _LOAD_FAILED if words in log)
        return self._find_end(state) or next(load, None)

    def _end_processes(self, state: RunState) -> None:
        """End the server, then the workers that outlived it, and remove its temporary folder."""
        server = find_server(state)
        if server is not None:
            server.terminate()
            _gone, alive = psutil.wait_procs([server], timeout=STOP_TIMEOUT_S)
            for process in alive:
                process.kill()
        _clear(state.temp_dir)

    def _log(self) -> str:
        """Return what the server's start has written: Java itself, then TorchServe and its workers."""
        found = []
        for name in ("console.log", LOG_NAME):
            with suppress(OSError):
                found.append((self.run_dir / "logs" / name).read_text(encoding="utf-8", errors="replace"))
        return "".join(found)

    def _end_of_log(self) -> str:
        return "\n".join(self._log().splitlines()[-_LOG_LINES:])


def _times_of_change(archives: list[Path]) -> dict[str, int]:
    return {str(archive): archive.stat().st_mtime_ns for archive in archives}


def _clear(temp_dir: str) -> None:
    """Kill what still runs with this temporary folder, which no other server shares, and remove it."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or ()
        # Workers are given a socket in it, Java the folder itself.
        if any(argument.removeprefix("-Djava.io.tmpdir=").startswith(temp_dir) for argument in arguments):
            process.kill()
            found.append(process)
    psutil.wait_procs(found, timeout=STOP_TIMEOUT_S)
    shutil.rmtree(temp_dir, ignore_errors=True)
