"""The section `train` of params.yaml, and what is built by it: optimiser, learning rate schedule, moving average."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

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
    ema_decay: float
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
        for key in ("momentum", "label_smoothing", "ema_decay", "warmup"):
            _require(0 <= getattr(self, key) < 1, key, getattr(self, key), "at least 0 and below 1")
        _require(self.lr > 0, "lr", self.lr, "above 0")
        _require(0 < self.plateau_factor < 1, "plateau_factor", self.plateau_factor, "between 0 and 1")
        _require(self.crop_padding <= 31, "crop_padding", self.crop_padding, "below the image's 32 pixels")
        _require(self.cutout <= 32, "cutout", self.cutout, "at most the image's 32 pixels")
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


# Share of `lr` that a schedule which ends at nothing begins and ends with: the last steps should still learn something.
_LOWEST = 0.001


def build_optimizer(network: nn.Module, params: TrainParams) -> torch.optim.Optimizer:
    """Build the optimiser; weight decay acts on the weights of layers, not on biases and batch normalisation."""
    weights = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    groups = [{"params": weights, "weight_decay": params.weight_decay}, {"params": others, "weight_decay": 0.0}]
    # fused: one kernel for all weights instead of several a weight.
    if params.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=params.lr, momentum=params.momentum, nesterov=params.momentum > 0, fused=True)
    family = torch.optim.AdamW if params.optimizer == "adamw" else torch.optim.Adam
    return family(groups, lr=params.lr, fused=True)


class Schedule:
    """The learning rate over a run, whichever kind it is.

    Args:
        optimizer: whose rate is set; its `lr` is the highest one.
        params: `scheduler` and what belongs to it.
        steps: batches in an epoch.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, params: TrainParams, steps: int) -> None:
        self._plateau: ReduceLROnPlateau | None = None
        self._multiplier: LambdaLR | None = None
        if params.scheduler == "plateau":
            self._plateau = ReduceLROnPlateau(optimizer, factor=params.plateau_factor, patience=params.plateau_patience)
        else:
            self._multiplier = LambdaLR(
                optimizer, lr_multiplier(params.scheduler, params.warmup, steps * params.epochs)
            )

    def after_batch(self) -> None:
        """Move on by one step of the optimiser."""
        if self._multiplier:
            self._multiplier.step()

    def after_epoch(self, validation_loss: float) -> None:
        """Move on by one epoch with this validation loss."""
        if self._plateau:
            self._plateau.step(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule is."""
        state: dict[str, Any] = (self._plateau or self._multiplier).state_dict()  # type: ignore[union-attr]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from there."""
        (self._plateau or self._multiplier).load_state_dict(state)  # type: ignore[union-attr]


def lr_multiplier(scheduler: str, warmup: float, total: int) -> Callable[[int], float]:
    """Return the factor of the learning rate for step 0 to `total`.

    Args:
        scheduler: one_cycle rises in a straight line and falls in one to nearly 0 (Smith 2018, arXiv:1803.09820),
            cosine falls in half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983).
        warmup: the share of the steps in which it rises.
        total: steps of the whole run.
    """

    def factor(step: int) -> float:
        done = step / total
        if done < warmup:
            return max(done / warmup, _LOWEST)
        left = max(0.0, 1 - done) / (1 - warmup)
        fall = left if scheduler == "one_cycle" else (1 - math.cos(math.pi * left)) / 2
        return max(fall, _LOWEST)

    return factor


def ema(network: nn.Module, decay: float) -> AveragedModel:
    """Return the exponential moving average of `network`'s weights and buffers, not begun.

    Args:
        network: the trained one; call `update_parameters(network)` after each step.
        decay: share that stays at each step, 0-1; 0.999 looks back over about 1,000 steps.
    """
    return AveragedModel(network, multi_avg_fn=_moving_average(decay), use_buffers=True)


_Tensors = tuple[Tensor, ...] | list[Tensor]


def _moving_average(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    @torch.no_grad()
    def update(average: _Tensors, current: _Tensors, count: Tensor | int) -> None:
        if not average[0].is_floating_point():  # batch normalisation counts its batches
            torch._foreach_copy_(average, current)
            return
        # Looks back over a tenth of the run while that is shorter: random first weights are forgotten at once.
        seen = int(count)
        torch._foreach_lerp_(average, current, 1 - min(decay, (1 + seen) / (10 + seen)))

    return update
