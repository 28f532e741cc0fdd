"""Where and in which precision the network runs."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from modelpress.export.errors import InputError
from modelpress.toolkit.recipe import RunOptions
from modelpress.toolkit.training.team import ALONE, Team, current_team


@dataclass(frozen=True)
class Device:
    """A device with the fast modes it supports.

    Attributes:
        torch_device: The device itself.
        bf16: Convolutions and products in bfloat16 while training; weights and sums stay float32.
        channels_last: Activations laid out as (N, H, W, C) in memory.
        compile: Networks in training are compiled.
        captures: Their steps are recorded as CUDA graphs.
        team: The processes that train together.
    """

    torch_device: torch.device
    bf16: bool
    channels_last: bool
    compile: bool = False
    captures: bool = False
    team: Team = ALONE

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision, if on."""
        if not self.bf16:
            return nullcontext()
        # weights that a recorded step reads from a cache would be those of the step that was recorded
        return torch.autocast(self.torch_device.type, torch.bfloat16, cache_enabled=not self.captures)

    def place(self, network: nn.Module) -> nn.Module:
        """The network on this device, in its memory layout."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        network.to(self.torch_device)
        network.to(memory_format=layout)
        return network

    def describe(self) -> str:
        """For people."""
        kind = self.torch_device.type
        name = (
            torch.cuda.get_device_name(self.torch_device)
            if kind == "cuda"
            else f"{torch.get_num_threads()} threads"
        )
        together = f", {self.team.size} processes" if self.team.size > 1 else ""
        return f"{kind} ({name}, {'bfloat16' if self.bf16 else 'float32'}{together})"


def device_of(options: RunOptions) -> Device:
    """The device that a recipe asks for; see `choose_device`."""
    return choose_device(
        options.device,
        bf16=options.bf16,
        channels_last=options.channels_last,
        compiled=options.compile,
        captures=options.cuda_graphs,
    )


def choose_device(
    name: str = "auto",
    *,
    bf16: bool = True,
    channels_last: bool = True,
    compiled: bool = False,
    captures: bool = True,
) -> Device:
    """The device of that name with its fast modes, each of which can be turned off.

    Args:
        name: ``auto`` (CUDA if present), ``cpu``, ``cuda`` or ``cuda:1``.
        bf16: Allow bfloat16 where the device computes in it.
        channels_last: Allow that layout.
        compiled: Compile networks in training.
        captures: Record their steps as CUDA graphs, where the device has them.

    Raises:
        InputError: The device is unknown or missing.
    """
    cuda = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if cuda else "cpu"

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r} is unknown; choose auto, cpu or cuda") from error

    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is not supported; choose auto, cpu or cuda")
    if device.type == "cuda" and (not cuda or (device.index or 0) >= torch.cuda.device_count()):
        raise InputError(
            f"device {name!r} is not there: {torch.cuda.device_count()} CUDA devices found; try --device cpu"
        )

    team = current_team()
    return Device(
        device,
        bf16 and _computes_in_bf16(device),
        channels_last,
        compiled,
        captures and device.type == "cuda" and team.size == 1,
        team,
    )


def _computes_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch has no public question for this; without these instructions bfloat16 is slower than float32
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(getattr(torch.cpu, ask)() for ask in asks if hasattr(torch.cpu, ask))
