"""Archives of tiny networks, whose workers are ready in two seconds, made by the real export and the real archiver."""

import shutil
from pathlib import Path

import torch

from cifar.archives.build import build_archive
from cifar.archives.reference_outputs import synthetic_images
from cifar.common.project import ROOT, class_names
from training.export import export
from training.model import Classifier, ModelParams, build_classifier

PARAMS = ModelParams("ImprovedCNN", filters=(4, 4, 4), hidden_width=8)


def tiny_classifier(seed: int) -> Classifier:
    torch.manual_seed(seed)
    return build_classifier(PARAMS).eval()


def copy_handler(folder: Path, workers: int = 1) -> Path:
    """Copy the handler's folder, with small batches, of which fewer shapes must be warmed, and few workers."""
    shutil.copytree(ROOT / "handler", folder, ignore=shutil.ignore_patterns("__pycache__"))
    config = folder / "model-config.yaml"
    text = config.read_text()
    for own, tiny in (("batchSize: 16", "batchSize: 2"), ("Workers: 2", f"Workers: {workers}")):
        assert own in text
        text = text.replace(own, tiny)
    config.write_text(text)
    return folder


def tiny_archive(folder: Path, version: str, seed: int, handler: Path) -> Path:
    """Return `cifar-<version>.mar` with its digest beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"class_names": list(class_names()), "version": version, "weights_digest": f"{seed:064x}"}
    export(tiny_classifier(seed), metadata, synthetic_images(6), 1e-5, folder / "model.pt")
    archive = folder / f"cifar-{version}.mar"
    build_archive(folder / "model.pt", version, archive, handler)
    return archive
