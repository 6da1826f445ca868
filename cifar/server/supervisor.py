"""Keeps a TorchServe serving that `cifar up` has started, as a process beside it, until `cifar down`.

TorchServe takes requests for workers that cannot start, and answers them never: it looks for no other way once it has
them in its queue (docs/adr/0015). So this looks whether the default version has a worker, and where it has none, or
where Java has ended, does what `cifar up` does.
"""

import argparse
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cifar.client.management import ManagementClient
from cifar.client.tokens import Tokens
from cifar.common.errors import CifarError
from cifar.common.lock import exclusive
from cifar.common.processes import end_processes, find_own
from cifar.common.project import MODEL_NAME, ROOT
from cifar.server.desired_state import read_desired_state
from cifar.server.torchserve import TorchServe

LOG_NAME = "supervisor.log"  # in the run folder's logs

_LOOK_EVERY_S = 2.0
_ANSWER_S = 5.0
_FIRST_PAUSE_S = 5.0  # between two starts that failed; it doubles
_LONGEST_PAUSE_S = 300.0
_STOP_S = 10.0
_MAX_LOG_BYTES = 1 << 20  # of the log, and of the one before it


def spawn_supervisor(server: TorchServe) -> None:
    """Start one for a server that runs, in place of any other one."""
    end_supervisors(server.run_dir)
    folders = (server.run_dir.resolve(), server.config.resolve(), server.model_store.resolve())
    subprocess.Popen(
        [sys.executable, "-m", "cifar.server.supervisor", *map(str, folders), *(server.models or ())],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # no Ctrl-C in this terminal is for it
    )


def end_supervisors(run_dir: Path) -> None:
    """End those of a run folder, before the server is stopped: they would start it again."""
    begin = ["-m", "cifar.server.supervisor", str(run_dir.resolve())]
    end_processes(find_own(lambda _process, arguments: arguments[1:4] == begin), _STOP_S)


def supervise(server: TorchServe) -> None:
    """Restart the server whenever it has no READY worker; returns when its run folder has gone."""
    pause = _FIRST_PAUSE_S
    _log(server, "is supervised")
    while True:
        time.sleep(_LOOK_EVERY_S)
        if _has_worker(server):
            pause = _FIRST_PAUSE_S
            continue
        with exclusive(server.run_dir.parent):  # `cifar down` holds it until the folder has gone
            if not server.run_dir.exists():
                return
        begin = time.monotonic()
        try:
            # What is named when a server is started is forgotten with the first deployment.
            deployed = read_desired_state(server.model_store) is not None
            models = None if deployed else server.models
            TorchServe(server.run_dir, server.config, server.model_store, models).start()
        except (CifarError, OSError) as error:
            _log(server, f"could not be started, again in {pause:.0f} s: {error}")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        else:
            _log(server, f"had no worker; serves again after {time.monotonic() - begin:.1f} s")


def _has_worker(server: TorchServe) -> bool:
    """Whether the default version has a worker that is READY. A prediction would be counted as a client's."""
    try:
        if server.process is None:
            return False
        addresses = server.addresses
        tokens = Tokens("management", server.run_dir / "key_file.json", addresses.management)
        with ManagementClient(addresses.management, MODEL_NAME, _ANSWER_S, tokens, attempts=1) as management:
            return management.describe().ready_workers > 0
    except CifarError:
        return False


def _log(server: TorchServe, message: str) -> None:
    line = f"{datetime.now(UTC).isoformat(timespec='seconds')} TorchServe {' '.join(message.split())[:1000]}\n"
    path = server.run_dir / "logs" / LOG_NAME
    with suppress(OSError):
        if path.exists() and path.stat().st_size > _MAX_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        with path.open("a", encoding="utf-8") as file:
            file.write(line)


def main() -> None:
    """Supervise the server of a run folder."""
    parser = argparse.ArgumentParser()
    for name in ("run_dir", "config", "model_store"):
        parser.add_argument(name, type=Path)
    parser.add_argument("models", nargs="*")
    arguments = parser.parse_args()
    server = TorchServe(arguments.run_dir, arguments.config, arguments.model_store, arguments.models or None)
    supervise(server)


if __name__ == "__main__":
    main()
