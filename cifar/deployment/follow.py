"""Watches an alias in MLflow's registry, and deploys the version that it moves to."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from cifar.common.errors import CifarError, DeploymentRunning, InvalidStateFile, RegistryUnusable, ServerUnreachable
from cifar.common.files import atomic_write
from cifar.common.state_file import check_object, read_state_file, text
from cifar.deployment.deploy import DeployOptions
from cifar.deployment.promote import promote
from cifar.deployment.registry import find_model
from cifar.deployment.steps import Steps
from cifar.deployment.target import Target

FOLLOWED_NAME = "followed.json"  # in the model store

_MAX_BYTES = 1 << 16
_FIELDS = {
    "uri": text("models:.{1,1000}", "an address in MLflow's registry"),
    "version": text(".{1,100}", "a version in the registry"),
    "outcome": text("deployed|rejected|refused", "deployed or rejected"),  # refused: before release 0.2
}


@dataclass(frozen=True)
class Followed:
    """What was last done for an alias.

    Attributes:
        uri: models:/NAME@ALIAS.
        version: in the registry, which the alias named then.
        outcome: deployed, or rejected; neither is tried again until the alias moves.
    """

    uri: str
    version: str
    outcome: str


def follow(uri: str, target: Target, steps: Steps, options: DeployOptions, wait: Callable[[], bool]) -> None:
    """Deploy whatever version the alias names, now and whenever it moves.

    What was done is remembered in the model store: started again, this does what it has missed. A version that was
    rejected is not tried again, one that was rolled back by hand neither, until the alias moves. When registry or
    server do not answer, this says so once, and keeps trying.

    Args:
        uri: models:/NAME@ALIAS.
        target: the server.
        steps: told what happens.
        options: how to deploy.
        wait: passes the time between two looks; False ends this.
    """
    said = ""
    while True:
        error = _look(uri, target, steps, options)
        if error and error != said:
            steps.say(error)
        said = error
        if not wait():
            return


def read_followed(store: Path, uri: str) -> Followed | None:
    """Return what was last done for an alias; None where nothing was.

    Raises:
        InvalidStateFile: the file holds what `follow` would not write.
    """
    path = store / FOLLOWED_NAME
    try:
        followed = Followed(**check_object(read_state_file(path, _MAX_BYTES), "it", _FIELDS))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidStateFile(
            f"{path} does not say what was last deployed for an alias: {error}. Remove it, and what the alias names is "
            "deployed, also where it was rolled back by hand"
        ) from None
    return followed if followed.uri == uri else None


def _look(uri: str, target: Target, steps: Steps, options: DeployOptions) -> str:
    """Act if the alias has moved; return what hinders that, to be tried again."""
    try:
        model = find_model(uri)
        followed = read_followed(target.store, uri)
        if followed is not None and followed.version == model.version:
            return ""
        steps.say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {uri} is version {model.version}.")
        promote(model.uri, target, steps, options)
        outcome = "deployed"
    except (RegistryUnusable, ServerUnreachable, DeploymentRunning, InvalidStateFile, OSError) as error:
        return str(error)
    except CifarError as error:
        steps.say(f"Version {model.version} is rejected until the alias moves: {error}")
        outcome = "rejected"
    with atomic_write(target.store / FOLLOWED_NAME) as temporary:
        temporary.write_bytes(orjson.dumps(asdict(Followed(uri, model.version, outcome))))
    return ""
