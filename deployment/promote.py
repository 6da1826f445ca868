"""The registry as the deploy button: a version in MLflow becomes an archive, and the archive is deployed."""

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from client.errors import CifarError, ServerUnreachable
from client.inference import MODEL_NAME
from deployment.archive import check_version
from deployment.deploy import Change, Options, deploy
from deployment.errors import ArchiveRefused, DeploymentRunning, RegistryUnusable
from deployment.registry import download, find_model, tag
from deployment.steps import Steps
from deployment.target import Target
from launcher.serving import ServedVersion
from training.archive import normalise
from training.errors import ExportRefused

_HANDLER = Path(__file__).resolve().parent.parent / "handler"


def promote(uri: str, target: Target, steps: Steps, options: Options, version: str | None = None) -> Change:
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
                archive = pack(download(model, Path(folder)), version or model.served_version, Path(folder))
                step.note(archive.name)
            change = deploy(archive, target, steps, replace(options, source=model.uri))
    except (DeploymentRunning, RegistryUnusable, ServerUnreachable):
        raise  # says nothing of the model
    except CifarError as error:
        try_tag(model.uri, "refused", str(error), steps)
        raise
    record(change, steps)
    return change


def pack(model: Path, version: str, folder: Path, handler: Path | None = None) -> Path:
    """Pack a TorchScript file with a handler, by default this checkout's; return the archive."""
    handler = handler or _HANDLER
    command = [str(Path(sys.executable).with_name("torch-model-archiver")), "--force", "--model-name", MODEL_NAME]
    command += ["--version", version, "--serialized-file", str(model), "--handler", str(handler / "cifar_handler.py")]
    command += ["--extra-files", f"{handler}/*.py,{handler}/*.json"]
    command += ["--config-file", str(handler / "model-config.yaml"), "--export-path", str(folder)]
    environment = os.environ | {"TMPDIR": str(folder)}  # where it works
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise ArchiveRefused(f"torch-model-archiver could not pack {model.name}: {said}")
    archive = folder / f"{MODEL_NAME}-{version}.mar"
    try:
        normalise(folder / f"{MODEL_NAME}.mar", archive)
    except ExportRefused as error:  # it is to be signed, and cannot be
        raise ArchiveRefused(str(error)) from error
    return archive


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
