"""A version of the model `cifar` in MLflow's registry: exported file, metrics, run. The stage `register`."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import torch
import typer
from packaging.version import Version

from cifar.archives.model_file import METADATA_NAME
from cifar.archives.reference_outputs import synthetic_images
from cifar.common.console import console, run_stage
from cifar.common.files import digest_file, read_json, write_json
from cifar.common.mlflow_store import first_contact, import_mlflow, store_address, store_errors
from cifar.common.project import IMAGE_SIZE, MODEL_NAME
from cifar.common.training_record import EVALUATION_NAME, RECORD_NAME, read_record
from training.errors import RegistrationRejected
from training.evaluate import HEADLINE_METRICS, PLOTS_NAME
from training.export import MODEL_FILE
from training.tracking import RunLog, TrackedRun, choose_experiment, has_run
from training.weights import WEIGHTS_FILE

REGISTERED_NAME = "registered.json"  # beside the weights
PYFUNC_FILE = Path(__file__).with_name("pyfunc_model.py")
PACKAGES = ("torch", "numpy", "mlflow")  # what that file imports


@dataclass(frozen=True)
class ExportedModel:
    """What `load_exported_model` found.

    Attributes:
        model: the TorchScript file.
        digest: SHA-256 of its bytes.
        metadata: what is embedded in it: class names, archive version, where it comes from.
        weights: the state dict that it was made of.
        record: how they were trained.
        evaluation: how good they are on the test images.
    """

    model: Path
    digest: str
    metadata: dict[str, Any]
    weights: Path
    record: dict[str, Any]
    evaluation: dict[str, Any]


def load_exported_model(weights: Path, model: Path) -> ExportedModel:
    """Read a TorchScript file, and the record and the metrics beside the weights that it was made of.

    Raises:
        RegistrationRejected: one of them is missing, or they are not of the same weights.
        WeightsError: the record or the metrics cannot be read.
    """
    export = shlex.join(["python", "-m", "training.export", "--weights", str(weights), "--output", str(model)])
    evaluate = shlex.join(["python", "-m", "training.evaluate", "--weights", str(weights)])
    _require_file(weights, "make train")
    _require_file(model, export)
    record, evaluation = read_record(weights), read_json(weights.parent / EVALUATION_NAME)
    if record is None:
        raise RegistrationRejected(
            f"{weights.parent / RECORD_NAME} is missing; training writes it, and it must be copied with the weights"
        )
    if evaluation is None:
        raise RegistrationRejected(f"{weights.parent / EVALUATION_NAME} is missing; make it: {evaluate}")
    metadata, digest = read_metadata(model), digest_file(weights)
    _require_weights(model, metadata, weights, digest, export)
    _require_weights(weights.parent / EVALUATION_NAME, evaluation, weights, digest, evaluate)
    for key in ("mlflow_run", "git_commit", "data_digest"):
        if metadata.get(key) != record.get(key):
            raise RegistrationRejected(
                f"{model} says {key} {metadata.get(key)}, {weights.parent / RECORD_NAME} says {record.get(key)}: they "
                f"are of two trainings. Bring the record that belongs to the weights, or export again: {export}"
            )
    return ExportedModel(model, digest_file(model), metadata, weights, record, evaluation)


def read_metadata(model: Path) -> dict[str, Any]:
    """Return the metadata embedded in a TorchScript file; raises RegistrationRejected where it is not one of ours."""
    extra = {METADATA_NAME: ""}
    try:
        torch.jit.load(str(model), map_location="cpu", _extra_files=extra)
        metadata = orjson.loads(extra[METADATA_NAME])
    except (RuntimeError, ValueError) as error:  # not TorchScript; no metadata, or none that is JSON
        raise RegistrationRejected(
            f"{model} is no file of this project's export, or a truncated one: {error}"
        ) from None
    if not isinstance(metadata, dict):
        raise RegistrationRejected(f"{model} holds a {type(metadata).__name__} as {METADATA_NAME}; expected an object")
    return metadata


def _require_file(path: Path, command: str) -> None:
    if not path.is_file():
        raise RegistrationRejected(f"{path} is missing; make it: {command}")


def _require_weights(path: Path, content: dict[str, Any], weights: Path, digest: str, command: str) -> None:
    if content.get("weights_digest") != digest:
        raise RegistrationRejected(
            f"{path} is of weights {str(content.get('weights_digest'))[:12]}…, {weights} is {digest[:12]}…; "
            f"make it again: {command}"
        )


@dataclass(frozen=True)
class Registration:
    """Where a model stands in the registry.

    Attributes:
        name, version: of the registered model.
        model_uri: what `mlflow models serve` and `mlflow.pyfunc.load_model` take.
        model_digest: SHA-256 of the TorchScript file; the registry's copy has the same.
        run_id: the run that it belongs to.
        tracking_uri: MLflow's store, without a user's name and password.
    """

    name: str
    version: int
    model_uri: str
    model_digest: str
    run_id: str
    tracking_uri: str


def register(exported: ExportedModel) -> tuple[Registration, bool]:
    """Log an exported model and its metrics into the run that trained it, and register a version with them as tags.

    A file that the registry has is not registered again: the tags of its version, and the metrics of its run, are
    brought up to date.

    Returns:
        The version, and whether it is new.

    Raises:
        TrackingError: the store cannot be used.
    """
    with store_errors("the model cannot be looked up"), first_contact():
        version = _find_version(exported.digest)
    is_new = version is None
    with _run_of(exported, version) as run:
        _log_evaluation(run, exported)
        with store_errors("the model cannot be registered"):
            if version is None:
                version = _create_version(run, exported)
            else:
                _update_tags(version, _version_tags(exported))
    number = int(version.version)
    uri = f"models:/{MODEL_NAME}/{number}"
    return Registration(MODEL_NAME, number, uri, exported.digest, run.id, store_address()), is_new


def main(
    weights: Annotated[Path, typer.Option(help="the weights; record and metrics lie beside them")] = WEIGHTS_FILE,
    model: Annotated[Path, typer.Option(help="the TorchScript file that was made of them")] = MODEL_FILE,
) -> None:
    """Register an exported model in MLflow, in the store that MLFLOW_TRACKING_URI names."""
    exported = load_exported_model(weights, model)
    registration, is_new = register(exported)
    write_json(asdict(registration), weights.parent / REGISTERED_NAME)
    known = "" if is_new else f" is {model} already, its metrics are up to date"
    console.print(
        f"{registration.name} version {registration.version}{known}: run {registration.run_id}, "
        f"{registration.model_uri}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _find_version(digest: str) -> Any:
    """Return the registry's version of a file with this digest; None where there is none."""
    client = import_mlflow().MlflowClient()
    versions = client.search_model_versions(f"name = '{MODEL_NAME}' and tags.model_digest = '{digest}'")
    return min(versions, key=lambda version: int(version.version), default=None)


@contextmanager
def _run_of(exported: ExportedModel, version: Any) -> Iterator[RunLog]:
    """Give the run that a version has, or that trained the weights; a new one where the store has neither."""
    trained_in = exported.record.get("mlflow_run")
    for run_id in (version and version.run_id, trained_in):
        if run_id and has_run(run_id):
            with store_errors("the run's experiment cannot be found"):
                choose_experiment(run_id)
            yield RunLog(run_id)
            return
    # The weights were trained by other code, into another store. This run is not their training, and must not look so.
    with TrackedRun(name=f"register {exported.digest[:12]}") as run:
        origin = {key: exported.record.get(key) for key in ("git_commit", "data_digest")} | {
            "trained_in_run": trained_in
        }
        run.set_tags({key: str(value) for key, value in origin.items()})
        run.log_file(exported.weights.parent / RECORD_NAME)
        yield run


def _log_evaluation(run: RunLog, exported: ExportedModel) -> None:
    """Keep the metrics on the test images with the run: every number as a metric, the file, the images."""
    folder = exported.weights.parent
    run.log_metrics({f"test_{name}": value for name, value in exported.evaluation.items() if _is_number(value)})
    run.log_file(folder / EVALUATION_NAME)
    if (folder / PLOTS_NAME).is_dir():
        run.log_file(folder / PLOTS_NAME, PLOTS_NAME)


def _create_version(run: RunLog, exported: ExportedModel) -> Any:
    """Log the model into the run, and make a version of it."""
    mlflow = import_mlflow()
    from mlflow.types import Schema, TensorSpec

    images = TensorSpec(np.dtype(np.uint8), (-1, IMAGE_SIZE, IMAGE_SIZE, 3))
    probabilities = TensorSpec(np.dtype(np.float32), (-1, len(exported.metadata["class_names"])))
    # Not mlflow.pyfunc.log_model: that would begin the run again, and end it, which changes its status and duration.
    logged = mlflow.models.Model.log(
        artifact_path=None,
        name=MODEL_NAME,
        flavor=mlflow.pyfunc,
        run_id=run.id,
        python_model=str(PYFUNC_FILE),
        artifacts={"torchscript": str(exported.model)},
        # Without names, so that a plain array can be given, and `instances` as well as `inputs` to a server.
        signature=mlflow.models.ModelSignature(Schema([images]), Schema([probabilities])),
        input_example=synthetic_images(2),  # synthetic: no image of the data set may be passed on
        pip_requirements=[f"{name}=={Version(installed_version(name)).public}" for name in PACKAGES],
        metadata=exported.metadata,
    )
    return mlflow.register_model(logged.model_uri, MODEL_NAME, tags=_version_tags(exported))


def _update_tags(version: Any, tags: dict[str, str]) -> None:
    client = import_mlflow().MlflowClient()
    for key, value in tags.items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(version.name, version.version, key, value)


def _version_tags(exported: ExportedModel) -> dict[str, str]:
    """Return what distinguishes versions: metrics, and what the file was made of."""
    origin = {key: exported.metadata.get(key) for key in ("weights_digest", "git_commit", "data_digest")}
    origin |= {"model_digest": exported.digest, "archive_version": exported.metadata.get("version")}
    metrics = {name: exported.evaluation.get(name) for name in HEADLINE_METRICS}
    return {key: str(value) for key, value in (metrics | origin).items() if value is not None}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


if __name__ == "__main__":
    run_stage(main)
