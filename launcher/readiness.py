"""Waits until a TorchServe really serves: workers READY, and an answer to a picture. `/ping` says neither."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests

from launcher.config import Addresses

_POLL_S = 0.1
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
    addresses: Addresses, timeout_s: float, find_failure: Callable[[], str | None]
) -> list[ReadyModel]:
    """Wait until all workers of every model are READY, and each model has answered a black picture.

    Args:
        addresses: where the server listens.
        timeout_s: seconds until this gives up.
        find_failure: called while waiting; returns why waiting on is of no use, or None.

    Raises:
        NotReady: `find_failure` said so, or the time was up.
    """
    deadline = time.monotonic() + timeout_s
    missing = "it does not answer"
    with requests.Session() as session:
        session.trust_env = False  # a proxy in the environment is not for loopback
        while True:
            failure = find_failure()
            if failure is not None:
                raise NotReady(failure)
            try:
                return _describe_ready(session, addresses)
            except NotReady as error:
                missing = str(error)
            except requests.RequestException:
                pass  # not listening yet, or no more: the next turn tells
            if time.monotonic() > deadline:
                raise NotReady(f"not ready within {timeout_s:g} s: {missing}")
            time.sleep(_POLL_S)


def _describe_ready(session: requests.Session, addresses: Addresses) -> list[ReadyModel]:
    listed = _get(session, f"{addresses.management}/models?limit=1000")["models"]
    if not listed:
        raise NotReady("no model is registered")
    ready = []
    for model in listed:
        name = model["modelName"]
        for description in _get(session, f"{addresses.management}/models/{name}/all"):
            statuses = [worker["status"] for worker in description["workers"]]
            if len(statuses) < max(1, description["minWorkers"]) or set(statuses) != {"READY"}:
                version = description["modelVersion"]
                raise NotReady(f"{statuses.count('READY')} of {len(statuses)} workers of {name} {version} are READY")
        default = _get(session, f"{addresses.management}/models/{name}")[0]
        answer = session.post(
            f"{addresses.inference}/predictions/{name}",
            data=_BLANK_IMAGE,
            headers={"Content-Type": "application/octet-stream"},
            timeout=30,
        )
        if answer.status_code != 200:
            raise NotReady(f"{name} answers a black picture with status {answer.status_code}: {answer.text[:200]}")
        ready.append(ReadyModel(name, default["modelVersion"], len(default["workers"])))
    return ready


def _get(session: requests.Session, url: str) -> Any:
    answer = session.get(url, timeout=10)
    if answer.status_code != 200:
        raise NotReady(f"{url} answers with status {answer.status_code}")
    return answer.json()
