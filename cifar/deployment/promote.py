"""The registry as the deploy button: a version in MLflow becomes an archive, and the archive is deployed."""

import tempfile
from dataclasses import replace
from pathlib import Path

from cifar.archives.build import build_archive
from cifar.archives.inspection import check_version
from cifar.common.errors import CifarError, DeploymentRunning, RegistryUnusable, ServerUnreachable
from cifar.common.project import MODEL_NAME
from cifar.deployment.deploy import Change, DeployOptions, deploy
from cifar.deployment.registry import download, find_model, tag
from cifar.deployment.steps import Steps
from cifar.deployment.target import Target
from cifar.server.desired_state import ServedVersion


def promote(uri: str, target: Target, steps: Steps, options: DeployOptions, version: str | None = None) -> Change:
    """Deploy a version of MLflow's registry, and tag it with what came of that.

    Args:
        uri: models:/NAME@ALIAS or models:/NAME/VERSION.
        target: the server.
        steps: told what happens.
        options: how.
        version: serve it as this version, instead of mlflow-<number>.

    Raises:
        CifarError: as of deploy; and RegistryUnusable.
    """
    if version is not None:
        check_version(version)
    with steps.step("look it up in the registry") as step:
        model = find_model(uri)
        step.note(f"{model.uri}, TorchScript SHA-256 {(model.digest or 'not recorded')[:12]}")
    try:
        with tempfile.TemporaryDirectory(prefix="cifar-promote-") as folder:
            with steps.step("pack it with the handler") as step:
                name = version or model.served_version
                archive = Path(folder) / f"{MODEL_NAME}-{name}.mar"
                build_archive(download(model, Path(folder)), name, archive)
                step.note(archive.name)
            change = deploy(archive, target, steps, replace(options, source=model.uri))
    except (DeploymentRunning, RegistryUnusable, ServerUnreachable):
        raise  # says nothing of the model
    except CifarError as error:
        try_tag(model.uri, "rejected", str(error), steps)
        raise
    record(change, steps)
    return change


def record(change: Change, steps: Steps, back: bool = False) -> None:
    """Tag the versions of a change that come from the registry.

    Args:
        change: what was changed.
        steps: told where the registry cannot be written.
        back: the default before was given up, not replaced.
    """
    before, now = change.before, change.now
    if from_registry(now):
        try_tag(now.source or "", "deployed", f"as version {now.version}", steps)
    if before is not None and before.version != now.version and from_registry(before):
        outcome = "rolled back" if back else "replaced"
        try_tag(before.source or "", outcome, f"version {now.version} is the default", steps)


def from_registry(served: ServedVersion) -> bool:
    """Tell whether a version was deployed from MLflow's registry."""
    return (served.source or "").startswith("models:/")


def try_tag(uri: str, outcome: str, reason: str, steps: Steps) -> None:
    """Tag, and say so where that fails: what is served matters more than what is written of it."""
    try:
        tag(uri, outcome, reason)
    except RegistryUnusable as error:
        steps.say(f"Not written into the registry: {error}")
