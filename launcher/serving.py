"""What the server of a model store should serve: `serving.json` in the store, written whole or not at all.

It appears with the first deployment. Why not TorchServe's own snapshots: docs/adr/0010. Beside it stands
`deployed.json`, which tells Prometheus the same, as targets of the job `deployed` (prometheus.yml).
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from client.inference import MODEL_NAME
from launcher.errors import ServingUnusable
from training.atomic_write import atomic_write, remove_leftovers

SERVING_NAME = "serving.json"
DEPLOYED_NAME = "deployed.json"
# Prometheus wants an address for labels to belong to; what answers there is thrown away.
_ANY_TARGET = "127.0.0.1:8082"


@dataclass(frozen=True)
class ServedVersion:
    """One version that was deployed.

    Attributes:
        version: as its archive says.
        archive: its file name in the model store.
        sha256: of that file.
        deployed: when, in ISO 8601; None for what was served before the first deployment.
        source: what was deployed: a file, or a version in MLflow's registry.
        workers: how many were asked for; None: as many as its model-config.yaml says.
    """

    version: str
    archive: str
    sha256: str
    deployed: str | None = None
    source: str | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Underway:
    """A deployment that has begun; left behind, one that was interrupted.

    Attributes:
        version, archive, sha256: as of ServedVersion.
        copied: whether the archive was put into the model store by this deployment.
        registered: whether the version was registered by it.
    """

    version: str
    archive: str
    sha256: str
    copied: bool
    registered: bool


@dataclass(frozen=True)
class Serving:
    """What should run.

    Attributes:
        default: the version that answers requests which name none; None: nothing is served yet.
        versions: all that should be registered.
        history: the defaults before, the oldest first; a rollback goes to the last.
        underway: a deployment that is not at its end.
    """

    default: str | None
    versions: tuple[ServedVersion, ...]
    history: tuple[ServedVersion, ...] = ()
    underway: Underway | None = None

    def find(self, version: str) -> ServedVersion | None:
        """Return what is known of a version: as it should run, else as it last did."""
        known = (*self.versions, *reversed(self.history))
        return next((served for served in known if served.version == version), None)

    @property
    def models(self) -> list[str]:
        """What to give `torchserve --models`: the default comes first, because the first that is loaded becomes it."""
        ordered = sorted(self.versions, key=lambda served: served.version != self.default)
        return [f"{MODEL_NAME}={served.archive}" for served in ordered]

    def scaled(self, version: str, workers: int) -> "Serving":
        """Return the same with another number of workers for one version."""
        changed = (replace(it, workers=workers) if it.version == version else it for it in self.versions)
        return replace(self, versions=tuple(changed))


def read_serving(store: Path) -> Serving | None:
    """Return what should run; None where nothing was ever deployed.

    Raises:
        ServingUnusable: the file cannot be read, or does not say it.
    """
    path = store / SERVING_NAME
    try:
        return _parse(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ServingUnusable(
            f"{path} does not say what should be served ({type(error).__name__}: {error}). Restore it, or name what is "
            f"to be served: cifar up {MODEL_NAME}=ARCHIVE, which forgets what was deployed"
        ) from error


def write_serving(store: Path, serving: Serving) -> None:
    """Remember what should run; raises OSError where the disk is full, and then the file is as before."""
    tell_prometheus(store, serving)  # first: where this fails, nothing has changed that anybody acts on
    _write(store / SERVING_NAME, asdict(serving))


def tell_prometheus(store: Path, serving: Serving) -> None:
    """Write the targets of the job `deployed`, one a version: labels `model_version`, `default` and `underway`."""
    underway = serving.underway.version if serving.underway is not None else None
    versions = dict.fromkeys([*(served.version for served in serving.versions), *([underway] if underway else [])])
    labels = [
        {"model_version": version, "default": _text(version == serving.default), "underway": _text(version == underway)}
        for version in versions
    ]
    _write(store / DEPLOYED_NAME, [{"targets": [_ANY_TARGET], "labels": of_version} for of_version in labels])


def forget_serving(store: Path) -> None:
    """Forget what was deployed."""
    (store / SERVING_NAME).unlink(missing_ok=True)
    (store / DEPLOYED_NAME).unlink(missing_ok=True)


@contextmanager
def store_lock(store: Path) -> Iterator[bool]:
    """Try to be the only one who changes what is served from a model store; yield whether this succeeded.

    The lock goes with the process, however it ends.
    """
    store.mkdir(parents=True, exist_ok=True)
    handle = os.open(store, os.O_RDONLY)  # the folder itself is the lock: no file is left behind
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = True
        except BlockingIOError:
            mine = False
        yield mine
    finally:
        os.close(handle)


def _text(holds: bool) -> str:
    return "true" if holds else "false"


def _write(path: Path, content: Any) -> None:
    remove_leftovers(path)  # of a process that was killed; whoever writes holds the lock
    document = orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if path.is_file() and path.read_bytes() == document:  # `cifar up` wants no space on the disk for what is there
        return
    with atomic_write(path) as temporary:
        temporary.write_bytes(document)


def _parse(content: dict[str, Any]) -> Serving:
    versions = tuple(ServedVersion(**entry) for entry in content["versions"])
    history = tuple(ServedVersion(**entry) for entry in content["history"])
    underway = Underway(**content["underway"]) if content["underway"] is not None else None
    if content["default"] is not None and content["default"] not in [served.version for served in versions]:
        raise ValueError(f"the default is {content['default']!r}, which is not among its versions")
    return Serving(content["default"], versions, history, underway)
