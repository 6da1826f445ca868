"""What the server of a model store should serve: `serving.json` in the store, written whole or not at all.

It appears with the first deployment. Why not TorchServe's own snapshots: docs/adr/0010. Beside it stands
`deployed.json`, which exposes the same to Prometheus, as targets of the job `deployed` (prometheus.yml); before the
first deployment, what `cifar up` has started.
"""

import re
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from cifar.common.addresses import own_addresses
from cifar.common.errors import InvalidStateFile
from cifar.common.lock import try_exclusive
from cifar.common.project import MODEL_NAME
from cifar.common.state_file import (
    Field,
    boolean,
    check_object,
    list_of,
    optional,
    read_state_file,
    text,
    whole_number,
    write_state_file,
)

DESIRED_STATE_NAME = "serving.json"
DEPLOYED_NAME = "deployed.json"

_MAX_BYTES = 1 << 20
_MAX_ENTRIES = 1000  # of versions, and of defaults that were before
_MAX_WORKERS = 10_000
_VERSION = r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}"
_ARCHIVE = r"[\w+-][\w.+-]{0,199}\.mar"  # a bare name, and no file that is hidden because it is being written


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
class PendingDeployment:
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
class DesiredState:
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
    underway: PendingDeployment | None = None

    def find(self, version: str) -> ServedVersion | None:
        """Return what is known of a version: as it should run, else as it last did."""
        known = (*self.versions, *reversed(self.history))
        return next((served for served in known if served.version == version), None)

    @property
    def models(self) -> list[str]:
        """What to give `torchserve --models`: the default comes first, because the first that is loaded becomes it."""
        ordered = sorted(self.versions, key=lambda served: served.version != self.default)
        return [f"{MODEL_NAME}={served.archive}" for served in ordered]

    def scaled(self, version: str, workers: int) -> "DesiredState":
        """Return the same with another number of workers for one version."""
        changed = (
            replace(served, workers=workers) if served.version == version else served for served in self.versions
        )
        return replace(self, versions=tuple(changed))


def read_desired_state(store: Path) -> DesiredState | None:
    """Return what should run; None where nothing was ever deployed.

    Raises:
        InvalidStateFile: the file cannot be read, or does not say it.
    """
    path = store / DESIRED_STATE_NAME
    try:
        return _parse(read_state_file(path, _MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidStateFile(
            f"{path} does not say what should be served ({error}). Restore it, or name what is to be served: cifar up "
            f"{MODEL_NAME}=ARCHIVE, which forgets what was deployed"
        ) from error


def write_desired_state(store: Path, serving: DesiredState) -> None:
    """Remember what should run.

    Raises:
        InvalidStateFile: `read_desired_state` would not take it; nothing is written.
        OSError: the disk is full; the file is as before.
    """
    content = asdict(serving)
    try:
        _parse(orjson.loads(orjson.dumps(content)))
    except (TypeError, ValueError) as error:
        raise InvalidStateFile(f"This cannot be remembered in {store / DESIRED_STATE_NAME}: {error}") from error
    write_deployed_targets(store, serving)  # first: where this fails, nothing has changed that anybody acts on
    write_state_file(store / DESIRED_STATE_NAME, content)


def write_deployed_targets(store: Path, serving: DesiredState) -> None:
    """Write the targets of the job `deployed`, one a version: labels `model_version`, `default` and `underway`."""
    underway = serving.underway.version if serving.underway is not None else None
    versions = dict.fromkeys([*(served.version for served in serving.versions), *([underway] if underway else [])])
    labels = [
        {"model_version": version, "default": _text(version == serving.default), "underway": _text(version == underway)}
        for version in versions
    ]
    # Prometheus needs an address for labels to belong to; what answers there is thrown away.
    target = urlsplit(own_addresses().metrics).netloc
    write_state_file(store / DEPLOYED_NAME, [{"targets": [target], "labels": of_version} for of_version in labels])


def forget_desired_state(store: Path) -> None:
    """Forget what was deployed."""
    (store / DESIRED_STATE_NAME).unlink(missing_ok=True)
    (store / DEPLOYED_NAME).unlink(missing_ok=True)


def desired_state_mark(store: Path) -> tuple[int, int] | None:
    """Return what changes whenever serving.json is written, trusted or not; None where it is missing."""
    try:
        found = (store / DESIRED_STATE_NAME).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def archive_path(store: Path, archive: str) -> Path:
    """Return where an archive lies; raises InvalidStateFile where its name would lead out of the store."""
    if not is_archive_name(archive):
        raise InvalidStateFile(f"{archive!r} is not the name of an archive in {store}, such as cifar-2.0.mar")
    return store / archive


def is_archive_name(archive: str) -> bool:
    """Whether this is the bare name of an archive in a model store."""
    return re.fullmatch(_ARCHIVE, archive) is not None


def is_version(version: str) -> bool:
    """Whether this can be a version's name: it stands in URLs, and in metrics, whose lines end at some characters."""
    return re.fullmatch(_VERSION, version) is not None


def store_lock(store: Path, timeout_s: float = 0.0) -> AbstractContextManager[bool]:
    """Try to be the only one who changes what is served from a model store; yield whether this succeeded in time.

    What is decided by serving.json is read while the lock is held: else another deployment could end in between. The
    lock goes with the process, however it ends.
    """
    return try_exclusive(store, timeout_s)


def _text(holds: bool) -> str:
    return "true" if holds else "false"


def _parse(content: object) -> DesiredState:
    """Check every field and what they say together; raises ValueError, which names the first that is wrong."""
    found = check_object(content, "it", _SERVING)
    versions = tuple(
        ServedVersion(**check_object(entry, f"versions[{row}]", _SERVED)) for row, entry in enumerate(found["versions"])
    )
    history = tuple(
        ServedVersion(**check_object(entry, f"history[{row}]", _SERVED)) for row, entry in enumerate(found["history"])
    )
    underway = found["underway"]
    if underway is not None:
        underway = PendingDeployment(**check_object(underway, "underway", _UNDERWAY))
    default, names = found["default"], [served.version for served in versions]
    if len(set(names)) < len(names):
        raise ValueError("versions names one of them twice")
    if default is not None and default not in names:
        raise ValueError(f"the default is {default!r}, which is not among its versions")
    return DesiredState(default, versions, history, underway)


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(value) <= 40 and datetime.fromisoformat(value) is not None
    except ValueError:
        return False


_KNOWN = {
    "version": text(_VERSION, "up to 50 letters, digits, dots, dashes and underscores"),
    "archive": text(_ARCHIVE, "the bare name of an archive in the model store, such as cifar-2.0.mar"),
    "sha256": text("[0-9a-f]{64}", "64 hexadecimal digits"),
}
_SERVED = _KNOWN | {
    "deployed": optional(Field("a time in ISO 8601", _is_time)),
    "source": optional(Field("up to 8192 characters", lambda value: isinstance(value, str) and len(value) <= 8192)),
    "workers": optional(whole_number(1, _MAX_WORKERS)),
}
_UNDERWAY = _KNOWN | {"copied": boolean(), "registered": boolean()}
_SERVING = {
    "default": Field("a version, or null", lambda value: value is None or isinstance(value, str)),
    "versions": list_of(dict, _MAX_ENTRIES),
    "history": list_of(dict, _MAX_ENTRIES),
    "underway": Field("an object, or null", lambda value: value is None or isinstance(value, dict)),
}
