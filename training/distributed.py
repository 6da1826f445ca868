"""Several processes train one network: `torchrun --nproc-per-node 2 -m training.train`.

Each takes its share of every batch; gradients are averaged by DistributedDataParallel. So that the result is that of
one process, batch normalisation computes its statistics over the whole batch (PyTorch's SyncBatchNorm does so on GPUs
only), and dropout drops what one process would drop (on a CPU; a GPU draws in another order).
"""

import os
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


class Workers:
    """The processes of a run, of which this is one. Without torchrun it is the only one, and all below does nothing.

    Args:
        device: cpu (they talk by gloo) or cuda (nccl, one GPU each).
    """

    def __init__(self, device: torch.device) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = device
        if device.type == "cuda" and self.count > 1:
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(self.device)

    @property
    def first(self) -> bool:
        """Whether this process writes files, tracks and prints."""
        return self.rank == 0

    def __enter__(self) -> Self:
        if self.count > 1:
            store, rank, count = next(rendezvous("env://"))
            dist.init_process_group(
                "nccl" if self.device.type == "cuda" else "gloo",
                store=_of_this_start(store),
                rank=rank,
                world_size=count,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.count > 1:
            dist.destroy_process_group()

    def share(self, count: int) -> slice:
        """Return this process's part of `count` items: whole, in order, as even as it goes."""
        return slice(self.rank * count // self.count, (self.rank + 1) * count // self.count)

    def any(self, value: bool) -> bool:
        """Return whether `value` holds in any process: all must leave a loop together, or the others wait for ever."""
        return bool(self.sum(torch.tensor([float(value)], device=self.device)).item()) if self.count > 1 else value

    def sum(self, values: Tensor) -> Tensor:
        """Add up over the processes, in place; the same result, bit for bit, in all of them."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, value: T) -> T:
        """Return the first process's `value`: only its machine may have the files."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, device=self.device)
        return values[0]

    def gather(self, part: Tensor, count: int) -> Tensor:
        """Put together what each process computed for its share of `count` items, in their order."""
        if self.count == 1:
            return part
        whole = torch.zeros(count, *part.shape[1:], dtype=part.dtype, device=part.device)
        whole[self.share(count)] = part
        return self.sum(whole)

    def distribute(self, network: nn.Module) -> nn.Module:
        """Return what to call instead of `network` while training; the weights are shared with it."""
        if self.count == 1:
            return network
        _replace(network, nn.BatchNorm2d, _WholeBatchNorm)
        _replace(network, nn.Dropout, _WholeBatchDropout)
        return DistributedDataParallel(network, forward_sync_buffers=False)


def _of_this_start(store: Any) -> Any:
    """Return the part of torchrun's store that holds what was written since its last restart.

    torchrun keeps one store over all restarts, in which PyTorch 2.13 leaves the addresses of the killed processes; a
    process that reads one before it is overwritten cannot connect. Only on a single machine is the number of restarts
    the same for all: on several, torchrun needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, with which it starts a new store.
    """
    if os.environ.get("GROUP_WORLD_SIZE") != "1":
        return store
    return PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)


class _WholeBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes, on any device."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        # (C + 1): the sums and the count; then squared distances from the mean, as one process computes them.
        sums = _sum(torch.cat([x.sum((0, 2, 3)), x.new_tensor([x.numel() / x.shape[1]])]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = x - mean[:, None, None]
        variance = _sum((centred**2).sum((0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalised: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normalised

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Update the statistics that evaluation uses."""
        statistics = dict(self.named_buffers())
        statistics["num_batches_tracked"] += 1
        statistics["running_mean"].lerp_(mean, self.momentum or 0.0)
        statistics["running_var"].lerp_(variance, self.momentum or 0.0)


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total


class _Sum(torch.autograd.Function):
    """The sum over all processes, through which gradients flow: each process's input counts in every process's loss."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class _WholeBatchDropout(nn.Dropout):
    """Dropout that draws for the whole batch and takes its share: every process draws the same, as one would."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        rank, count = dist.get_rank(), dist.get_world_size()
        sizes = torch.tensor([len(x)], device=x.device)
        dist.all_reduce(sizes)
        whole = int(sizes.item())
        keep = x.new_empty(whole, *x.shape[1:]).bernoulli_(1 - self.p).div_(1 - self.p)
        return x * keep[rank * whole // count : (rank + 1) * whole // count]


def _replace(network: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    """Turn the layers of exactly one class into a subclass of it, which has the same weights and settings."""
    for layer in network.modules():
        if type(layer) is old:
            layer.__class__ = new
