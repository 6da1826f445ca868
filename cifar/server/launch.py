"""Runs the plain `torchserve --start`, which leaves a Java process behind, and reads what it logs."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import orjson
import psutil

from cifar.common.addresses import read_properties
from cifar.common.errors import StartFailed
from cifar.common.files import digest_file
from cifar.common.processes import identify
from cifar.common.project import ROOT
from cifar.server.management_socket import write_server_config
from cifar.server.run_folder import make_run_folder, make_socket_folder
from cifar.server.run_state import RunState

LOG_CONFIG = ROOT / "log4j2.xml"
LOG_NAME = "torchserve.log"  # in it

_LOG_LINES = 40


def launch(
    run_dir: Path,
    config: Path,
    management_socket: Path | None,
    java_home: Path,
    model_store: Path,
    archives: list[Path],
    models: list[str] | None,
) -> RunState:
    """Start TorchServe; it has not loaded anything yet.

    Args:
        run_dir: made here, with logs.
        config: config.properties.
        management_socket: that it names; None: it names none.
        java_home: of the Java to use.
        model_store: the folder of the archives.
        archives: what is going to be loaded, to be remembered.
        models: for `torchserve --models`; None: every archive.

    Raises:
        StartFailed: it did not start; a Java process may run all the same.
    """
    make_run_folder(run_dir, LOG_CONFIG)
    logs = run_dir / "logs"
    logs.mkdir()
    temp_dir = make_socket_folder(run_dir)
    server_config = write_server_config(config.resolve(), management_socket, temp_dir)
    command = [sys.executable, "-m", "ts.model_server", "--start", "--ncs"]
    command += ["--ts-config", str(server_config), "--model-store", str(model_store.resolve())]
    command += ["--models", *models] if models else []
    with (logs / "console.log").open("wb") as console:
        subprocess.run(
            command,
            cwd=run_dir,  # where TorchServe writes its tokens
            env=_environment(java_home, logs, temp_dir),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            umask=0o077,  # what it writes, and the socket of its management API, are for its owner
            start_new_session=True,  # Ctrl-C in the terminal that ran `make up` is not for the server
            check=False,
        )
    try:
        pid = int((temp_dir / ".model_server.pid").read_text())
        return RunState(
            pid=pid,
            started=identify(pid),
            temp_dir=str(temp_dir),
            config=str(config.resolve()),
            config_sha256=digest_settings(config),
            archives=digest_files(archives),
            management_socket=str(management_socket) if management_socket else None,
        )
    except (OSError, ValueError, psutil.Error) as error:
        free = ", ".join(f"{shutil.disk_usage(at).free:,} bytes in {at}" for at in (logs, temp_dir.parent))
        raise StartFailed(f"TorchServe could not be started ({error}; free: {free})", end_of_log(run_dir)) from None


def read_log(run_dir: Path) -> str:
    """Return what the server's start has written: Java itself, then TorchServe and its workers."""
    found = []
    for name in ("console.log", LOG_NAME):
        with suppress(OSError):
            found.append((run_dir / "logs" / name).read_text(encoding="utf-8", errors="replace"))
    return "".join(found)


def end_of_log(run_dir: Path) -> str:
    """Return its last lines."""
    return "\n".join(read_log(run_dir).splitlines()[-_LOG_LINES:])


def digest_files(files: list[Path]) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path."""
    return {str(file): digest_file(file) for file in files}


def digest_settings(config: Path) -> str:
    """Return the SHA-256 of what a config.properties sets; comments may change."""
    settings = orjson.dumps(read_properties(config), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(settings).hexdigest()


def _environment(java_home: Path, logs: Path, temp_dir: Path) -> dict[str, str]:
    environment = _without_python_settings(os.environ) | {
        "JAVA_HOME": str(java_home),
        "LOG_LOCATION": str(logs),
        "METRICS_LOCATION": str(logs),
        "LOG_CONSOLE": "off",  # log4j2.xml writes to files that are rotated; console.log is not
        "TEMP": str(temp_dir),  # Java's: sockets and unpacked archives
        "TMPDIR": str(temp_dir),  # Python's: the file with the process id
        "PWD": str(ROOT),  # config.properties refers to it
    }
    environment.pop("TS_CONFIG_FILE", None)  # it would beat --ts-config
    return environment


def _without_python_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what changes how Python starts, imports or warns: with PYTHONPATH a worker would load other modules."""
    return {name: value for name, value in environment.items() if not name.startswith("PYTHON")}
