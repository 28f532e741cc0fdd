"""Several processes that train one network together, each on its part of every batch.

Started by torchrun; the gradients and the batch-norm statistics of a batch are those of the whole batch, so the result
is that of one process up to rounding.

Source: Goyal et al. 2017, arXiv:1706.02677, section 4; batch norm over all processes: Peng et al. 2018,
arXiv:1711.07240, section 3.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn

from modelpress.export.errors import InputError


@dataclass(frozen=True)
class Team:
    """This process among those that train together.

    Attributes:
        rank: Number of this process, from 0; the first one writes the files.
        size: Number of processes; 1: alone.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and tells."""
        return self.rank == 0

    def part(self, n: int) -> slice:
        """This process's share of n images in a row.

        Raises:
            InputError: They cannot be shared evenly.

        Example:
            >>> Team(rank=1, size=2).part(8)
            slice(4, 8, None)
        """
        if n % self.size:
            raise InputError(
                f"{n} images per step cannot be shared evenly by {self.size} processes: choose a multiple"
            )
        share = n // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over all processes, in one exchange."""
        if self.size == 1:
            return

        # one exchange of one tensor: the price of an exchange hardly depends on its size
        gradients = [p.grad for p in parameters if p.grad is not None]
        together = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(together)
        together /= self.size

        for gradient, mean in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def mean(self, value: float, device: torch.device) -> float:
        """Of a number that every process has."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.all_reduce(total)
        return float(total) / self.size

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in one of the processes; all of them must ask."""
        return self.mean(float(flag), device) > 0

    @contextmanager
    def joint_batch_norm(self, network: nn.Module) -> Iterator[None]:
        """Batch norms of the network use the statistics of all processes' images while this lasts."""
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)] if self.size > 1 else []
        for norm in norms:
            norm.forward = partial(_joint_norm, norm, self.size)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for norm in norms:
                del norm.forward


ALONE = Team()


def started_by_torchrun() -> bool:
    """Whether several processes were started for one training."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def join_team(device: str) -> Iterator[Team]:
    """Meet the other processes that torchrun started; alone without it.

    Args:
        device: Of the recipe: with ``cpu``, or without CUDA devices, the processes talk over gloo, else over NCCL.

    Raises:
        InputError: There are more processes than CUDA devices.
    """
    if not started_by_torchrun():
        yield ALONE
        return

    on_cuda = torch.cuda.is_available() and device != "cpu"
    if on_cuda:
        number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= there:
            raise InputError(f"{there} CUDA devices for more processes: start torchrun with at most {there}")
        torch.cuda.set_device(number)

    distributed.init_process_group("nccl" if on_cuda else "gloo")
    try:
        yield current_team()
    finally:
        distributed.destroy_process_group()


def current_team() -> Team:
    """This process's team: that of `join_team`, or itself alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Team(distributed.get_rank(), distributed.get_world_size())


class _Sum(torch.autograd.Function):
    """Sum over all processes, in both directions."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


def _joint_norm(norm: nn.BatchNorm2d, n_processes: int, x: Tensor) -> Tensor:
    """`norm` with mean and variance over all processes; every process has equally many images."""
    if not norm.training:
        return nn.BatchNorm2d.forward(norm, x)

    values = x.float()
    n = values.numel() // values.shape[1] * n_processes  # per channel

    mean = _Sum.apply(values.sum(dim=(0, 2, 3))) / n
    centred = values - mean[:, None, None]
    variance = _Sum.apply(centred.square().sum(dim=(0, 2, 3))) / n
    # normalised by the variance of the batch, remembered as the unbiased one, as torch does it
    _update_statistics(norm, mean.detach(), variance.detach() * n / max(n - 1, 1))

    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return (centred * scale[:, None, None] + norm.bias[:, None, None]).to(x.dtype)


@torch.no_grad()
def _update_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    assert norm.running_mean is not None  # every BatchNorm2d of a trained network tracks them
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    step = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, step)
    norm.running_var.lerp_(variance, step)
