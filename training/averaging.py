"""Weight averaging: a second network whose weights follow the trained ones slowly, and often predict better."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(network: nn.Module, decay: float) -> AveragedModel:
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
