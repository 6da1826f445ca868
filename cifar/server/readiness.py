"""Waits until a TorchServe really serves: workers READY, and an answer to an image. `/ping` says neither."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cifar.client.connection import Connection
from cifar.client.management import ManagementClient
from cifar.client.tokens import Tokens
from cifar.common.addresses import Addresses
from cifar.common.errors import CifarError, ServerUnreachable
from cifar.common.project import MODEL_NAME

_POLL_S = 0.1
_TIMEOUT_S = 10.0  # for each answer
_BLANK_IMAGE = bytes(32 * 32 * 3)


@dataclass(frozen=True)
class ReadyModel:
    """A model that answers."""

    name: str
    version: str  # the default one
    workers: int


class NotReady(Exception):
    """The server did not come to serve; the message says what was missing."""


def wait_until_ready(
    addresses: Addresses, key_file: Path, timeout_s: float, find_failure: Callable[[], str | None]
) -> list[ReadyModel]:
    """Wait until all workers of every model are READY, and each model has answered a black image.

    Args:
        addresses: where the server listens.
        key_file: where it writes its tokens, if it asks for them.
        timeout_s: seconds until this gives up.
        find_failure: called while waiting; returns why waiting on is of no use, or None.

    Raises:
        NotReady: `find_failure` said so, or the time was up.
    """
    deadline = time.monotonic() + timeout_s
    missing = "it does not answer"
    while True:
        failure = find_failure()
        if failure is not None:
            raise NotReady(failure)
        try:
            return _describe_ready(addresses, key_file)
        except NotReady as error:
            missing = str(error)
        except ServerUnreachable:
            pass  # not listening yet, or no more: the next round shows
        except CifarError as error:
            missing = str(error)
        if time.monotonic() > deadline:
            raise NotReady(f"not ready within {timeout_s:g} s: {missing}")
        time.sleep(_POLL_S)


def serves_anybody(addresses: Addresses, key_file: Path) -> bool:
    """Whether any version has a worker that is READY; not where the server does not answer."""
    try:
        with _manage(addresses, key_file) as management:
            names = list(management.list_models())
        for name in names:
            with _manage(addresses, key_file, name) as management:
                if any(version.ready_workers for version in management.describe_all()):
                    return True
    except CifarError:
        pass
    return False


def _describe_ready(addresses: Addresses, key_file: Path) -> list[ReadyModel]:
    with _manage(addresses, key_file) as management:
        names = list(management.list_models())
    if not names:
        raise NotReady("no model is registered")
    return [_describe_model(name, addresses, key_file) for name in names]


def _describe_model(name: str, addresses: Addresses, key_file: Path) -> ReadyModel:
    with _manage(addresses, key_file, name) as management:
        for version in management.describe_all():
            if not version.ready:
                workers = f"{version.ready_workers} of {len(version.workers)} workers"
                raise NotReady(f"{workers} of {name} {version.version} are READY")
        default = management.describe()
    with Connection(addresses.inference, Tokens("inference", key_file, addresses.management)) as inference:
        content_type = {"Content-Type": "application/octet-stream"}
        answer = inference.send("POST", f"/predictions/{name}", body=_BLANK_IMAGE, headers=content_type)
    if answer.status_code != 200:
        raise NotReady(f"{name} answers a black image with status {answer.status_code}: {answer.text[:200]}")
    return ReadyModel(name, default.version, len(default.workers))


def _manage(addresses: Addresses, key_file: Path, name: str = MODEL_NAME) -> ManagementClient:
    tokens = Tokens("management", key_file, addresses.management)
    return ManagementClient(addresses.management, name, _TIMEOUT_S, tokens, attempts=1)


def find_missing(addresses: Addresses, key_file: Path, timeout_s: float) -> str | None:
    """Say why the default version does not answer now; None where it does.

    Asks its handler through the queue, as a prediction is asked, for its description, which no metric counts.

    Args:
        addresses: where the server listens.
        key_file: where it writes its tokens, if it asks for them.
        timeout_s: for each of three answers.
    """
    try:
        with Connection(addresses.inference, Tokens("inference", key_file, addresses.management), timeout_s) as server:
            server.send("GET", "/ping")  # its answer says nothing, see above
        tokens = Tokens("management", key_file, addresses.management)
        with ManagementClient(addresses.management, MODEL_NAME, timeout_s, tokens, attempts=1) as management:
            version = management.describe()
            if not version.ready_workers:
                return f"none of {len(version.workers)} workers of {MODEL_NAME} {version.version} is READY"
            management.describe_handler()
    except CifarError as error:
        return str(error)
    return None
