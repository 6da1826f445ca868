"""Starts one TorchServe, waits until it serves, and stops it without leaving anything behind."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from cifar.client.management import ManagementClient
from cifar.client.tokens import Tokens
from cifar.common.addresses import Addresses, read_addresses
from cifar.common.errors import Busy, ConfigUnusable, StartFailed
from cifar.common.lock import exclusive
from cifar.common.ports import check_ports_free
from cifar.common.processes import STOP_TIMEOUT_S, describe, end_processes
from cifar.common.project import CONFIG, MODEL_NAME, MODEL_STORE, RUN_DIR
from cifar.server.desired_state import (
    DESIRED_STATE_NAME,
    DesiredState,
    ServedVersion,
    desired_state_mark,
    forget_desired_state,
    read_desired_state,
    store_lock,
    write_deployed_targets,
)
from cifar.server.guard import check_guarded
from cifar.server.java import find_java_home
from cifar.server.launch import digest_files, digest_settings, end_of_log, launch, read_log
from cifar.server.management_socket import check_socket_free, remove_socket
from cifar.server.model_store import check_deployed, check_model_store
from cifar.server.readiness import NotReady, ReadyModel, serves_anybody, wait_until_ready
from cifar.server.reconcile import reconcile
from cifar.server.run_folder import (
    remove_run_folder,
    remove_socket_folder,
    socket_folder,
)
from cifar.server.run_state import RunState, find_server, find_servers, find_users, read_state, write_state

START_TIMEOUT_S = 120.0
# A server that runs and has had no READY worker for so long is started again. A worker that died is back after 4 s;
# what TorchServe unpacked is read at each start of one, and where it has gone, they all die until it gives up.
RECOVERY_S = 30.0

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

    def start(
        self, timeout_s: float = START_TIMEOUT_S, notify: Callable[[str], None] = lambda _message: None
    ) -> list[ReadyModel]:
        """Start it, unless it runs, and wait until it serves: the versions, default and workers that were deployed.

        One that runs and does not come to serve anybody within RECOVERY_S is started again; one that serves some is
        left alone. Where another process starts it, this waits for that, and keeps what it has started.

        Args:
            timeout_s: seconds in which it must serve.
            notify: told why a running server is started again.

        Raises:
            ConfigUnusable, ArchiveUnusable, InvalidStateFile, JavaMissing, PortTaken, Busy: found before anything was
                started.
            StartFailed: it ended or did not serve in time. One that was just started is stopped again, one that ran
                before keeps running; the logs stay in the run folder.
        """
        addresses = self.addresses
        check_guarded(addresses)
        # Not the lock of the run folder, which `down` needs; the file that says where the server listens is as good.
        with exclusive(self.config):
            ready = self._keep(addresses, timeout_s, notify)
            return ready if ready is not None else self._start_new(addresses, timeout_s)

    def stop(self) -> bool:
        """End it and its workers, and remove all that it made at run time.

        Returns:
            Whether it was running.

        Raises:
            InvalidStateFile: what is remembered of it cannot be trusted; nothing has been ended or removed.
        """
        with exclusive(self.run_dir.parent):
            state = read_state(self.run_dir)
            servers = self._find_servers(state)
            self._remove(state, servers)
        return bool(servers)

    def _keep(self, addresses: Addresses, timeout_s: float, notify: Callable[[str], None]) -> list[ReadyModel] | None:
        """Return what a running server serves; None where none runs, or none that can be kept."""
        with exclusive(self.run_dir.parent):
            state = read_state(self.run_dir)
            if state is None or find_server(state) is None:
                return None
            serving = self._read_desired()
            archives = self._check_archives(serving)
            self._check_same(state, archives, serving)
        key_file, begin = self.run_dir / "key_file.json", time.monotonic()
        patience = min(timeout_s, RECOVERY_S)
        try:
            try:
                ready = wait_until_ready(addresses, key_file, patience, lambda: self._find_end(state))
            except NotReady as error:
                if find_server(state) is None:  # it was at its end when it was found
                    return None
                if timeout_s > patience and not serves_anybody(addresses, key_file):
                    notify(f"TorchServe runs (process {state.pid}) and answers no prediction: {error}. Restarting it.")
                    with exclusive(self.run_dir.parent):
                        self._end_processes(state, self._find_servers(state))
                    return None
                left = max(0.0, begin + timeout_s - time.monotonic())
                ready = wait_until_ready(addresses, key_file, left, lambda: self._find_end(state))
            return self._reconcile(state, addresses, timeout_s) or ready
        except NotReady as error:  # it may serve other clients, so that stopping it is the operator's choice
            raise StartFailed(
                f"TorchServe runs (process {state.pid}) but does not serve: {error}. To start it again: make down, "
                "then make up",
                end_of_log(self.run_dir),
            ) from None

    def _start_new(self, addresses: Addresses, timeout_s: float) -> list[ReadyModel]:
        with exclusive(self.run_dir.parent), store_lock(self.model_store, timeout_s) as mine:
            if not mine:
                raise Busy(f"Another process is changing what is served from {self.model_store}; wait for its end")
            mark, serving = desired_state_mark(self.model_store), self._read_desired()
            archives = self._check_archives(serving)
            state = read_state(self.run_dir)
            running = self._find_servers(state)
            if running:
                raise ConfigUnusable(
                    f"A TorchServe of {self.run_dir} runs, which was not started with {self.config}, or is not "
                    f"remembered: {describe(running[0])}. Stop it first: make down"
                )
            self._remove(state, [])  # what a server that crashed has left
            check_ports_free(addresses.endpoints)
            if addresses.management_socket is not None:
                check_socket_free(addresses.management_socket)
            state = self._launch(find_java_home(), archives, serving.models if serving else self.models)
        key_file = self.run_dir / "key_file.json"
        try:
            ready = wait_until_ready(addresses, key_file, timeout_s, lambda: self._find_failed_load(state))
            if self.models is not None:
                self._forget(mark, timeout_s)
            return self._reconcile(state, addresses, timeout_s) or self._tell_started(addresses, ready)
        except NotReady as error:
            time.sleep(1)  # a worker's traceback comes line by line, behind the words that gave its end away
            log = end_of_log(self.run_dir)
            self._end_processes(state, self._find_servers(state))
            raise StartFailed(f"TorchServe was started but does not serve: {error}", log) from None

    def _read_desired(self) -> DesiredState | None:
        """Return what was deployed, unless something else is asked for."""
        serving = read_desired_state(self.model_store) if self.models is None else None
        return serving if serving is not None and serving.default is not None else None

    def _check_archives(self, serving: DesiredState | None) -> list[Path]:
        archives = check_model_store(self.model_store, serving.models if serving is not None else self.models)
        check_deployed(self.model_store, serving.versions if serving is not None else ())
        return archives

    def _reconcile(self, state: RunState, addresses: Addresses, timeout_s: float) -> list[ReadyModel] | None:
        """Bring it to what was deployed, as it is remembered now: a deployment may have ended since it was started."""
        key_file = self.run_dir / "key_file.json"
        with store_lock(self.model_store, timeout_s) as mine:
            serving = self._read_desired() if mine else None  # a running deployment does it itself
            if serving is None:
                return None
            reconcile(addresses, key_file, serving)
            write_deployed_targets(self.model_store, serving)
        return wait_until_ready(addresses, key_file, timeout_s, lambda: self._find_end(state))

    def _tell_started(self, addresses: Addresses, ready: list[ReadyModel]) -> list[ReadyModel]:
        """Tell Prometheus what was started, so that alerts know any other version before the first deployment too."""
        tokens = Tokens("management", self.run_dir / "key_file.json", addresses.management)
        with store_lock(self.model_store) as mine, ManagementClient(addresses.management, tokens=tokens) as management:
            if (
                mine
                and read_desired_state(self.model_store) is None
                and [model.name for model in ready] == [MODEL_NAME]
            ):
                started = tuple(
                    ServedVersion(version.version, version.archive, "") for version in management.describe_all()
                )
                with suppress(OSError):  # a full disk: the alerts know nothing then, as without a deployment
                    write_deployed_targets(self.model_store, DesiredState(ready[0].version, started))
        return ready

    def _forget(self, mark: tuple[int, int] | None, timeout_s: float) -> None:
        """Forget what was deployed before something else was started; not what has been deployed since then."""
        with store_lock(self.model_store, timeout_s) as mine:
            if mine and desired_state_mark(self.model_store) == mark:
                forget_desired_state(self.model_store)

    def _check_same(self, state: RunState, archives: list[Path], serving: DesiredState | None) -> None:
        """Reject to pass a running server off as the one that was asked for."""
        asked = digest_files(archives)
        same_config = state.config == str(self.config.resolve())
        if same_config and state.config_sha256 != digest_settings(self.config):
            raise ConfigUnusable(
                f"{self.config} has changed since the TorchServe that runs here was started. Start it again: make "
                "down, then make up"
            )
        if same_config and serving is not None:  # what was deployed since is compared by digests
            return
        if (self.model_store / DESIRED_STATE_NAME).exists():
            raise ConfigUnusable(
                f"A TorchServe runs here already, with what was deployed ({self.model_store / DESIRED_STATE_NAME}). "
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

    def _find_servers(self, state: RunState | None) -> list[psutil.Process]:
        """Return the server that is remembered, and any other one that was started for this run folder."""
        remembered = find_server(state) if state is not None else None
        found = {process.pid: process for process in find_servers(self.run_dir)}
        return list((found | {remembered.pid: remembered} if remembered is not None else found).values())

    def _remove(self, state: RunState | None, servers: list[psutil.Process]) -> None:
        self._end_processes(state, servers)
        if state is not None and state.management_socket is not None:
            remove_socket(Path(state.management_socket))
        remove_run_folder(self.run_dir)

    def _end_processes(self, state: RunState | None, servers: list[psutil.Process]) -> None:
        """End servers, then the workers that outlived them, and remove what they had unpacked."""
        end_processes(servers)
        folders = {Path(state.temp_dir)} if state is not None else set()
        with suppress(ConfigUnusable):  # then none was made
            folders.add(socket_folder(self.run_dir))
        for folder in folders:
            _kill_users(folder)
            remove_socket_folder(folder, self.run_dir)

    def _launch(self, java_home: Path, archives: list[Path], models: list[str] | None) -> RunState:
        """Start TorchServe, and remember that."""
        socket = self.addresses.management_socket
        try:
            state = launch(self.run_dir, self.config, socket, java_home, self.model_store, archives, models)
        except StartFailed:
            self._end_processes(None, [])  # a Java whose process id could not be written may run
            raise
        try:
            write_state(self.run_dir, state)
        except OSError as error:  # a full disk: what is not remembered could not be stopped
            self._end_processes(state, self._find_servers(state))
            raise StartFailed(
                f"{self.run_dir} cannot be written: {error.strerror}", end_of_log(self.run_dir)
            ) from error
        return state

    def _find_end(self, state: RunState) -> str | None:
        return None if find_server(state) is not None else "its Java process has ended"

    def _find_failed_load(self, state: RunState) -> str | None:
        """Tell early that a server just started will not serve. Later, a worker may die and come back."""
        log = read_log(self.run_dir)
        load = (f"a worker could not load the model ({words})" for words in _LOAD_FAILED if words in log)
        return self._find_end(state) or next(load, None)


def _kill_users(temp_dir: Path) -> None:
    """Kill what still runs with this temporary folder, which no other server shares."""
    found = find_users(str(temp_dir))
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, timeout=STOP_TIMEOUT_S)
