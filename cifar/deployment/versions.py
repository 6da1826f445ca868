"""What is done with one version of a running server: wait until it is there, let it run dry, take it away."""

import re
import time
from pathlib import Path

from cifar.client.management import ManagementClient, ModelVersion
from cifar.common.errors import DeploymentFailed, ModelNotFound, NotDrained, ServerError, ServerUnreachable

# A batch of 16 requests with 256 images each, the longest there is, takes 2.5 s on one core.
DRAIN_GRACE_S = 3.0

_POLL_S = 0.1
_DRAIN_TIMEOUT_S = 60.0
_REMOVE_ATTEMPTS = 5
# The first death may be an accident (no memory just then); TorchServe starts the worker again.
_DEATHS = 2
_LOG_LINES = 12


def wait_until_ready(
    management: ManagementClient, version: str, timeout_s: float, server_log: Path | None
) -> ModelVersion:
    """Wait until a version has as many workers as it should, and all of them have loaded it.

    Args:
        management: of the server.
        version: which.
        timeout_s: seconds until this gives up.
        server_log: of the server; searched for the reason why workers die.

    Raises:
        DeploymentFailed: they keep dying, or the time was up.
    """
    deadline = time.monotonic() + timeout_s
    log_start = _size(server_log)
    pids: dict[str, set[int]] = {}
    while True:
        described = management.describe(version)
        if described.ready:
            return described
        for worker in described.workers:
            if worker.pid is not None:
                pids.setdefault(worker.id, set()).add(worker.pid)
        deaths = max((len(seen) - 1 for seen in pids.values()), default=0)
        if deaths >= _DEATHS:
            why = f"a worker died {deaths} times while it loaded the model"
            raise DeploymentFailed(
                f"Version {version} does not start: {why}.{_read_why(server_log, log_start, version)}"
            )
        if time.monotonic() > deadline:
            why = f"{described.ready_workers} of {described.min_workers} workers were READY after {timeout_s:g} s"
            raise DeploymentFailed(
                f"Version {version} does not start: {why}.{_read_why(server_log, log_start, version)}"
            )
        time.sleep(_POLL_S)


def drain(management: ManagementClient, version: str, drain_grace_s: float = DRAIN_GRACE_S) -> None:
    """Wait until no request waits for a version, and those that its workers hold have been answered.

    TorchServe reports how many wait, not how many are being answered; they are given `drain_grace_s` seconds.

    Raises:
        NotDrained: requests keep coming, as from clients that name this version.
    """
    deadline = time.monotonic() + _DRAIN_TIMEOUT_S
    while (waiting := management.describe(version).queue_length) > 0:
        if time.monotonic() > deadline:
            raise NotDrained(
                f"{waiting} requests still wait for version {version} after {_DRAIN_TIMEOUT_S:g} s: clients ask for it "
                "by name. It was left as it is"
            )
        time.sleep(_POLL_S)
    time.sleep(drain_grace_s)


def remove(management: ManagementClient, version: str) -> None:
    """Unregister a version, whose workers are killed; one that is not there is fine.

    TorchServe sometimes answers 500 to this under load, whether it has done it or not.
    """
    for attempt in range(_REMOVE_ATTEMPTS):
        try:
            management.unregister(version)
        except ModelNotFound:
            return
        except (ServerError, ServerUnreachable):
            if attempt == _REMOVE_ATTEMPTS - 1:
                raise
            time.sleep(_POLL_S * 2**attempt)
        else:
            return


def _size(log: Path | None) -> int:
    try:
        return log.stat().st_size if log is not None else 0
    except OSError:
        return 0


def _read_why(log: Path | None, start: int, version: str) -> str:
    """Return the end of what this version's workers have written since `start`."""
    try:
        with (log or Path()).open("rb") as file:
            file.seek(start if _size(log) >= start else 0)  # it was turned over meanwhile
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return " The server's log says why."
    own = [line.partition(" MODEL_LOG - ")[2] for line in lines if f"_{version}-stdout MODEL_LOG - " in line]
    # Line by line it is written, so that the last traceback may have no end yet.
    ends = [number for number, line in enumerate(own, 1) if re.match(r"[\w.]+(Error|Exception|Exit)\b", line)]
    told = own[: ends[-1]] if ends else own
    return "\n".join([" Its log says:", *told[-_LOG_LINES:]]) if told else " The server's log says why."
