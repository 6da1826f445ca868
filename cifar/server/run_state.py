"""What `cifar up` must remember for `cifar down`: one small file in the run folder."""

from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from cifar.common.errors import InvalidStateFile
from cifar.common.processes import PROCESS_FIELDS, distrust, find_own, find_process, is_own
from cifar.common.state_file import Field, check_object, optional, read_state_file, text, write_state_file
from cifar.server.run_folder import check_socket_folder

_FILE = "torchserve.json"
_MAX_BYTES = 1 << 20
_SERVER = "org.pytorch.serve.ModelServer"
_TEMP_DIR = "-Djava.io.tmpdir="

_DIGEST = "[0-9a-f]{64}"
_FIELDS = {
    **PROCESS_FIELDS,
    "temp_dir": text(r"/[^\0]{1,4095}", "the path of a folder"),
    "config": text(r"/[^\0]{1,4095}", "the path of a file"),
    "config_sha256": text(_DIGEST, "a SHA-256"),
    "management_socket": optional(text(r"/[^\0]{1,4095}", "the path of a socket")),
    "archives": Field("paths with their SHA-256", lambda value: isinstance(value, dict)),
}


@dataclass(frozen=True)
class RunState:
    """A TorchServe that was started here.

    Attributes:
        pid: of its Java process.
        started: when that process was started, as another may get its number (cifar.common.processes.identify).
        temp_dir: sockets, unpacked archives.
        config: the config.properties that it was started with.
        config_sha256: of the settings in it, as they were then.
        archives: what it was to load: absolute path to SHA-256.
        management_socket: of its management API; a server that is killed leaves it.
    """

    pid: int
    started: str
    temp_dir: str
    config: str
    config_sha256: str
    archives: dict[str, str]
    management_socket: str | None = None


def read_state(run_dir: Path) -> RunState | None:
    """Return what was remembered; None where nothing was.

    Raises:
        InvalidStateFile: the file holds what `write_state` would not write.
    """
    path = run_dir / _FILE
    try:
        content = check_object(read_state_file(path, _MAX_BYTES), "it", _FIELDS)
        archive = text(_DIGEST, "a SHA-256")
        check_object(content["archives"], "archives", dict.fromkeys(content["archives"], archive))
        state = RunState(**content)
        check_socket_folder(Path(state.temp_dir), run_dir)
        return state
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise distrust(path, error, "Servers", find_servers(run_dir)) from None


def started_archives(run_dir: Path) -> set[str] | None:
    """Return the file names of the archives that the server of a run folder was started with; None: not known."""
    state = read_state(run_dir)
    return {Path(archive).name for archive in state.archives} if state is not None else None


def write_state(run_dir: Path, state: RunState) -> None:
    """Remember, whole or not at all; raises OSError."""
    write_state_file(run_dir / _FILE, asdict(state))


def find_server(state: RunState) -> psutil.Process | None:
    """Return the server's process where it still runs, and is one: it has the temporary folder that was remembered.

    Raises:
        InvalidStateFile: it is another user's.
    """
    process = find_process(state.pid, state.started)
    try:
        if process is None or f"{_TEMP_DIR}{state.temp_dir}" not in process.cmdline():
            return None
        if not is_own(process):
            raise InvalidStateFile(
                f"The TorchServe of this folder (process {state.pid}) is run by {process.username()}: run this as that "
                "user"
            )
    except psutil.Error:
        return None
    return process


def find_servers(run_dir: Path) -> list[psutil.Process]:
    """Return all servers of this user that were started for a run folder, whether or not they are remembered."""
    run_dir = run_dir.resolve()

    def is_server(process: psutil.Process, arguments: list[str]) -> bool:
        if _SERVER not in arguments:
            return False
        try:
            folder = next(
                (argument.removeprefix(_TEMP_DIR) for argument in arguments if argument.startswith(_TEMP_DIR)), ""
            )
            check_socket_folder(Path(folder), run_dir)
        except ValueError:
            return process.cwd() == str(run_dir)
        return True

    return find_own(is_server)


def find_users(temp_dir: str) -> list[psutil.Process]:
    """Return the processes of this user that run with a temporary folder: Java is given it, workers a socket in it."""

    def uses(_process: psutil.Process, arguments: list[str]) -> bool:
        java, worker = f"{_TEMP_DIR}{temp_dir}", f"{temp_dir}/.ts.sock."
        return any(argument == java or argument.startswith(worker) for argument in arguments)

    return find_own(uses)
