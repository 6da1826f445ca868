"""MLflow's registry as the source of what is deployed, and as the place where it is written what became of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from cifar.common.errors import ArchiveRejected, RegistryUnusable, TrackingError
from cifar.common.files import digest_file
from cifar.common.mlflow_store import first_contact, import_mlflow, store_errors

URI_PATTERN = r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))"

_TORCHSCRIPT = "torchscript"  # the artifact's name in training/pyfunc_model.py


@dataclass(frozen=True)
class RegisteredModel:
    """One version in the registry.

    Attributes:
        name: of the registered model.
        version: its number.
        digest: SHA-256 of its TorchScript file, as training/register.py recorded it; None where it did not.
    """

    name: str
    version: str
    digest: str | None

    @property
    def uri(self) -> str:
        """What names this version, whatever becomes of aliases."""
        return f"models:/{self.name}/{self.version}"

    @property
    def served_version(self) -> str:
        """The version under which it is served; no hand-made archive is called like that."""
        return f"mlflow-{self.version}"


def find_model(uri: str) -> RegisteredModel:
    """Look up `models:/cifar@champion` or `models:/cifar/7`.

    Raises:
        RegistryUnusable: no such name, alias or version, or MLflow cannot be asked.
    """
    found = re.fullmatch(URI_PATTERN, uri)
    if found is None:
        raise RegistryUnusable(f"{uri!r} names no model; expected models:/NAME@ALIAS or models:/NAME/VERSION")
    with _registry(f"{uri} cannot be looked up") as client:
        if found["alias"] is not None:
            version = client.get_model_version_by_alias(found["name"], found["alias"])
        else:
            version = client.get_model_version(found["name"], found["version"])
    return RegisteredModel(found["name"], str(version.version), version.tags.get("model_digest"))


def download(model: RegisteredModel, folder: Path) -> Path:
    """Fetch the TorchScript file of a version into a folder; return its path.

    Raises:
        RegistryUnusable: it cannot be had.
        ArchiveRejected: it is not the file that was registered, or not a model of training/register.py.
    """
    with _registry(f"{model.uri} cannot be downloaded"):
        root = Path(import_mlflow().artifacts.download_artifacts(model.uri, dst_path=str(folder)))
    try:
        described = yaml.safe_load((root / "MLmodel").read_text(encoding="utf-8"))
        file = root / str(described["flavors"]["python_function"]["artifacts"][_TORCHSCRIPT]["path"])
        digest = digest_file(file)
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ArchiveRejected(
            f"{model.uri} holds no TorchScript file ({error!r}); expected a model that `dvc repro` or `python -m "
            "training.register` registered"
        ) from None
    if model.digest is not None and digest != model.digest:
        raise ArchiveRejected(
            f"The TorchScript file of {model.uri} has the SHA-256 {digest}, registered was {model.digest}: it has been "
            "changed in MLflow's store. Register it again: python -m training.register"
        )
    return file


def tag(uri: str, outcome: str, reason: str = "") -> None:
    """Write onto a version what happened to it, and when.

    Args:
        uri: models:/NAME/VERSION.
        outcome: deployed, rejected, replaced, rolled back or undeployed.
        reason: why, or by what.

    Raises:
        RegistryUnusable: MLflow cannot be asked.
    """
    found = re.fullmatch(URI_PATTERN, uri)
    if found is None or found["version"] is None:
        raise RegistryUnusable(f"{uri!r} names no version; expected models:/NAME/VERSION")
    tags = {
        "deployment": outcome,
        "deployment_time": datetime.now(UTC).isoformat(timespec="seconds"),
        "deployment_reason": reason[:4000],  # MLflow takes 5,000 characters
    }
    with _registry(f"{uri} cannot be tagged as {outcome}") as client:
        for key, value in tags.items():
            client.set_model_version_tag(found["name"], found["version"], key, value)


@contextmanager
def _registry(rejection: str) -> Iterator[Any]:
    try:
        with first_contact(), store_errors(rejection):
            yield import_mlflow().MlflowClient()
    except TrackingError as error:
        raise RegistryUnusable(str(error)) from error
