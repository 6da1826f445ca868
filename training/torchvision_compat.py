"""Makes `import torchvision` work beside a PyTorch of another build.

torchvision registers a fake kernel for `torchvision::nms` on import. When its compiled part does not load (a CUDA build
of torchvision beside a CPU build of PyTorch), the operator was never defined and the import dies with "operator
torchvision::nms does not exist". Declaring the two operators first is enough for what this project uses: data sets and
transforms, which never call them. Call `allow_mixed_builds` before the first import of torchvision.
"""

import contextlib
import importlib.util
from pathlib import Path

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def allow_mixed_builds() -> None:
    """Declare torchvision's operators where its own library cannot; does nothing where it can, and nothing twice.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    _load_torchvision_library()  # a matching build defines the operators itself, and must not find them defined
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", _SIGNATURE)


def _load_torchvision_library() -> None:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchvision is not installed: pip install -e '.[training]'", name="torchvision")
    for library in Path(spec.origin).parent.glob("_C.*"):
        with contextlib.suppress(OSError):
            torch.ops.load_library(str(library))
