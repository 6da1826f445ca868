"""Optimisers and learning rate schedules, by the names of params.yaml."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from training.train_params import TrainParams

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
        self._curve: LambdaLR | None = None
        if params.scheduler == "plateau":
            self._plateau = ReduceLROnPlateau(optimizer, factor=params.plateau_factor, patience=params.plateau_patience)
        else:
            self._curve = LambdaLR(optimizer, curve(params.scheduler, params.warmup, steps * params.epochs))

    def after_batch(self) -> None:
        """Move on by one step of the optimiser."""
        if self._curve:
            self._curve.step()

    def after_epoch(self, validation_loss: float) -> None:
        """Move on by one epoch with this validation loss."""
        if self._plateau:
            self._plateau.step(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule is."""
        state: dict[str, Any] = (self._plateau or self._curve).state_dict()  # type: ignore[union-attr]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        (self._plateau or self._curve).load_state_dict(state)  # type: ignore[union-attr]


def curve(scheduler: str, warmup: float, total: int) -> Callable[[int], float]:
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
