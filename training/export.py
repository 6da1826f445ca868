"""The trained network as one TorchScript file that takes pixels and gives probabilities. The stage `export`."""

import copy
import io
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import orjson
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from cifar.archives.model_file import METADATA_NAME, REFERENCE_OUTPUTS_NAME
from cifar.archives.reference_outputs import pack_arrays, synthetic_images
from cifar.common.console import console, run_stage
from cifar.common.files import atomic_write, digest_file
from cifar.common.project import class_names
from cifar.common.training_record import read_record
from training.data import DATA_FILE, load_dataset
from training.errors import ExportRejected, ParameterError
from training.evaluate import read_baseline, read_evaluation
from training.gate import GateParams, check_gate
from training.model import EVALUATION_BATCH, Classifier
from training.params import check_sections, load_params
from training.weights import WEIGHTS_FILE, load_classifier

MODEL_FILE = Path("artifacts/model.pt")
_REFERENCE_IMAGES = 32


@dataclass(frozen=True)
class ExportParams:
    """The section `export` of params.yaml."""

    SECTION: ClassVar[str] = "export"

    tolerance: float

    def __post_init__(self) -> None:
        if self.tolerance <= 0:
            raise ParameterError(f"export.tolerance is {self.tolerance}; expected a number above 0")


@dataclass(frozen=True)
class ArchiveParams:
    """The section `archive` of params.yaml."""

    SECTION: ClassVar[str] = "archive"

    version: str


def export(
    classifier: Classifier, metadata: dict[str, Any], images: NDArray[np.uint8], tolerance: float, path: Path
) -> float:
    """Write the TorchScript file, after reading it back and comparing it with the eager network.

    Args:
        classifier: the network with its weights, in evaluation mode.
        metadata: is embedded in the file as `metadata.json`.
        images: (N, 32, 32, 3), what the two are compared on.
        tolerance: the most that any probability may differ.
        path: the file; untouched when the export is rejected.

    Returns:
        The largest difference of a probability.

    Raises:
        ExportRejected: a probability differs by more than `tolerance`, or another class is the most probable one.
    """
    content = _script(classifier, metadata)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
        exported = torch.jit.load(str(temporary), map_location="cpu")
        difference = largest_difference(classifier, exported, images)
        if not difference <= tolerance:  # NaN is rejected too
            raise ExportRejected(
                f"probabilities differ by {difference:.1e} from the trained network's, {tolerance:.1e} is allowed "
                f"(export.tolerance); {path} was not written"
            )
    return difference


def _script(classifier: Classifier, metadata: dict[str, Any]) -> bytes:
    """Return the TorchScript file; the same bytes for the same classifier, in whatever folder this runs.

    PyTorch puts the paths of the sources into the file, for its tracebacks. Read back without them, the network is
    saved with places in its own code instead.
    """
    first, second = io.BytesIO(), io.BytesIO()  # PyTorch's own writer answers a full disk by ending the process
    torch.jit.save(torch.jit.script(classifier), first)
    extra = {METADATA_NAME: orjson.dumps(metadata), REFERENCE_OUTPUTS_NAME: reference_outputs(classifier)}
    torch.jit.save(torch.jit.load(_without_paths(first)), second, _extra_files=extra)
    return second.getvalue()


def _without_paths(file: io.BytesIO) -> io.BytesIO:
    stripped = io.BytesIO()
    with zipfile.ZipFile(file) as full, zipfile.ZipFile(stripped, "w") as rest:
        for entry in full.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                rest.writestr(entry.filename, full.read(entry))
    stripped.seek(0)
    return stripped


@torch.inference_mode()
def reference_outputs(classifier: Classifier) -> bytes:
    """Return synthetic images with the probabilities of a classifier in evaluation mode, as a NumPy .npz file.

    In double precision, rounded to single at the end: then it is the same on every machine, whatever the order in which
    its CPU adds up.
    """
    images = synthetic_images(_REFERENCE_IMAGES)
    exact = copy.deepcopy(classifier).double()
    return pack_arrays(images, exact(torch.from_numpy(images)).numpy().astype(np.float32))


@torch.inference_mode()
def largest_difference(
    eager: Callable[[Tensor], Tensor], exported: Callable[[Tensor], Tensor], images: NDArray[np.uint8]
) -> float:
    """Return the largest difference of a probability over images (N, 32, 32, 3).

    Raises:
        ExportRejected: another class is the most probable one for some image.
    """
    largest = 0.0
    for start in range(0, len(images), EVALUATION_BATCH):
        batch = torch.from_numpy(images[start : start + EVALUATION_BATCH])
        expected, got = eager(batch), exported(batch)
        other = (expected.argmax(1) != got.argmax(1)).nonzero().flatten().tolist()
        if other:
            raise ExportRejected(
                f"the exported network gives image {start + other[0]} another class than the trained one "
                f"({len(other)} of {len(batch)} images from {start} on); no file was written"
            )
        if not torch.isfinite(expected - got).all():
            return float("nan")
        largest = max(largest, (expected - got).abs().max().item())
    return largest


def main(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="export.KEY=VALUE…")] = None,
    data: Annotated[Path, typer.Option(help="the data set whose test images the export is checked on")] = DATA_FILE,
    weights: Annotated[Path, typer.Option(help="the weights to export")] = WEIGHTS_FILE,
    output: Annotated[Path, typer.Option(help="the file to write")] = MODEL_FILE,
    gate: Annotated[bool, typer.Option(help="reject weights that are worse than the section gate allows")] = True,
) -> None:
    """Export weights as TorchScript. Without a prepared data set, the check runs on synthetic images, and says so."""
    given = overrides or []
    sections = [item for item in given if not item.startswith("model.")]
    check_sections(sections, ExportParams, ArchiveParams, GateParams)
    params, archive = load_params(ExportParams, given), load_params(ArchiveParams, given)
    thresholds = load_params(GateParams, given)
    if gate:
        check_gate(weights, thresholds)
    classifier = load_classifier(weights, given)
    if data.exists():
        images, kind = load_dataset(data).test_images, "test images"
    else:
        images, kind = synthetic_images(), "synthetic images (no prepared data set here)"
    metadata = describe(weights, archive.version)
    difference = export(classifier, metadata, images, params.tolerance, output)
    console.print(
        f"{output}: as the trained network on {len(images):,} {kind}, largest difference {difference:.1e}",
        highlight=False,
        soft_wrap=True,
    )


def describe(weights: Path, version: str) -> dict[str, Any]:
    """Return the metadata of an export: what a server must know to name its answers and to trace them back.

    Fields that are not known, as for external checkpoints, are None.
    """
    record = read_record(weights) or {}
    metrics = read_evaluation(weights) or {}
    weights_digest = digest_file(weights)
    return {
        "class_names": list(class_names()),
        "version": version,
        "git_commit": record.get("git_commit"),
        "data_digest": record.get("data_digest"),
        "mlflow_run": record.get("mlflow_run"),
        "weights_digest": weights_digest,
        "accuracy": metrics.get("accuracy"),
        "baseline": read_baseline(weights, weights_digest, record.get("temperature", 1.0)),
    }


if __name__ == "__main__":
    # PyTorch writes constants of modules in the order of a set: the order of Python's hashes, which differ by process.
    if os.environ.get("PYTHONHASHSEED") != "0":
        command = [sys.executable, "-m", "training.export", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | {"PYTHONHASHSEED": "0"})  # noqa: S606
    run_stage(main)
