"""How a network is trained: the section `train` of params.yaml, checked before any work."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from training.errors import ParameterError


@dataclass(frozen=True)
class TrainParams:
    """The section `train` of params.yaml, which explains each."""

    SECTION: ClassVar[str] = "train"

    epochs: int
    batch_size: int
    optimizer: Literal["sgd", "adam", "adamw"]
    lr: float
    momentum: float
    weight_decay: float
    scheduler: Literal["plateau", "one_cycle", "cosine"]
    plateau_factor: float
    plateau_patience: int
    warmup: float
    early_stopping_patience: int
    label_smoothing: float
    average_decay: float
    crop_padding: int
    flip: bool
    cutout: int
    precision: Literal["auto", "fp32", "bf16"]
    compile: bool | None
    seed: int
    device: Literal["auto", "cpu", "cuda"]

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "early_stopping_patience"):
            _require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        for key in ("weight_decay", "crop_padding", "cutout", "plateau_patience", "seed"):
            _require(getattr(self, key) >= 0, key, getattr(self, key), "at least 0")
        for key in ("momentum", "label_smoothing", "average_decay", "warmup"):
            _require(0 <= getattr(self, key) < 1, key, getattr(self, key), "at least 0 and below 1")
        _require(self.lr > 0, "lr", self.lr, "above 0")
        _require(0 < self.plateau_factor < 1, "plateau_factor", self.plateau_factor, "between 0 and 1")
        _require(self.crop_padding <= 31, "crop_padding", self.crop_padding, "below the picture's 32 pixels")
        _require(self.cutout <= 32, "cutout", self.cutout, "at most the picture's 32 pixels")
        _require(self.seed < 2**63, "seed", self.seed, "below 2**63")
        if self.device == "cuda":
            _require(torch.cuda.is_available(), "device", self.device, "cpu or auto: PyTorch sees no GPU here")

    def torch_device(self) -> torch.device:
        """Return the device to train on; `auto` is the GPU where there is one."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def dtype(self) -> torch.dtype:
        """Return what convolutions and matrix products compute in; `auto` is bfloat16 on GPUs that have it."""
        if self.precision == "auto":
            fast = self.torch_device().type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if fast else torch.float32
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def compiled(self) -> bool:
        """Return whether torch.compile is used; null is yes on a GPU, no on a CPU, where it does not win."""
        return self.torch_device().type == "cuda" if self.compile is None else self.compile


def _require(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds:
        raise ParameterError(f"train.{key} is {value}; expected {expected}")
