"""Several processes train one network: `torchrun --nproc-per-node 2 -m training.train`.

Each takes its share of every batch, and PyTorch's DistributedDataParallel averages the gradients. Without batch
normalisation and dropout the weights are those of one process but for the order of additions: within 1e-3 of each, or
1e-5. Batch normalisation sees the share of its process alone and dropout is drawn by each, so that with them the result
differs as that of another seed does. A last batch with fewer images than processes is left out.
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


class ProcessGroup:
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
        return network if self.count == 1 else DistributedDataParallel(network)

    def seed_dropout(self, seed: int, epoch: int) -> None:
        """Let each process drop other units; by the epoch, as a checkpoint has the first process's state alone."""
        if self.count > 1:
            torch.manual_seed(((seed + epoch) * self.count + self.rank) % 2**63)

    def copy_buffers(self, network: nn.Module) -> None:
        """Give all processes the first one's buffers: each has normalised its own share of the batches."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)


def _of_this_start(store: Any) -> Any:
    """Return the part of torchrun's store that holds what was written since its last restart.

    torchrun keeps one store over all restarts, in which PyTorch 2.13 leaves the addresses of the killed processes; a
    process that reads one before it is overwritten cannot connect. Only on a single machine is the number of restarts
    the same for all: on several, torchrun needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, with which it starts a new store.
    """
    if os.environ.get("GROUP_WORLD_SIZE") != "1":
        return store
    return PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
