"""ResNets for 32x32 images.

Source: He, Zhang, Ren and Sun 2016, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section 4.2.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelpress.export.errors import InputError
from modelpress.toolkit.networks.names import NetworkName, Shortcut

DEPTHS: dict[NetworkName, int] = {
    "resnet20": 3,
    "resnet32": 5,
    "resnet44": 7,
    "resnet56": 9,
}  # blocks per stage
WIDTHS = (16, 32, 64)


class Conv(nn.Module):
    """3x3 or 1x1 convolution without bias, padded so that only the stride changes the image size."""

    def __init__(self, c_in: int, c_out: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) to (N, c_out, H/stride, W/stride)."""
        return self.conv(x)


class PadShortcut(nn.Module):
    """Option A: subsample the image and add zero channels on both sides; no parameters."""

    def __init__(self, c_in: int, c_out: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (c_out - c_in) // 2
        self.after = c_out - c_in - self.before

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) to (N, c_out, H/stride, W/stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, c_in: int, c_out: int, *, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(Conv(c_in, c_out, stride=stride), nn.BatchNorm2d(c_out), nn.ReLU())
        self.conv2 = nn.Sequential(Conv(c_out, c_out), nn.BatchNorm2d(c_out))
        self.id_mapping: nn.Module = nn.Identity()

        if stride != 1 and shortcut == "A":
            self.id_mapping = PadShortcut(c_in, c_out, stride=stride)
        elif stride != 1:
            self.id_mapping = nn.Sequential(Conv(c_in, c_out, kernel=1, stride=stride), nn.BatchNorm2d(c_out))

        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) to (N, c_out, H/stride, W/stride)."""
        return self.relu(self.conv2(self.conv1(x)) + self.id_mapping(x))

    def kept_channels(self, stays: Mapping[str, Mapping[int, Tensor]]) -> dict[str, int]:
        """How many zero channels the shortcut has to add, once only these channels are left."""
        if not isinstance(self.id_mapping, PadShortcut):
            return {}
        pad = self.id_mapping
        made = stays.get("conv2.0.conv.weight", {}).get(0)
        if made is None:
            return {"before": pad.before, "after": pad.after}
        return {"before": int(made[: pad.before].sum()), "after": int(made[len(made) - pad.after :].sum())}

    def count_channels(self, counts: Mapping[str, int]) -> None:
        """Add so many zero channels.

        Raises:
            InputError: More than before, or a negative number of them.
        """
        if not isinstance(self.id_mapping, PadShortcut):
            return
        pad = self.id_mapping
        before, after = counts.get("before", -1), counts.get("after", -1)
        if not (0 <= before <= pad.before and 0 <= after <= pad.after):
            raise InputError(
                f"a shortcut adds {before} and {after} channels; expected 0 to {pad.before} and 0 to {pad.after}"
            )
        pad.before, pad.after = before, after


class ResNetCifar(nn.Module):
    """A 3x3 convolution, three stages of basic blocks, global average pooling, a linear classifier.

    Args:
        depth: Name of a depth, a key of `DEPTHS`.
        shortcut: Where the shape changes: "A" pads with zeros, "B" projects with a 1x1 convolution.
        n_classes: Number of outputs.

    Example:
        >>> ResNetCifar("resnet20")(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, depth: NetworkName = "resnet20", *, shortcut: Shortcut = "B", n_classes: int = 10
    ) -> None:
        super().__init__()
        self.head_conv = nn.Sequential(Conv(3, WIDTHS[0]), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU())
        self.body_op = nn.Sequential()

        c_in = WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for block in range(DEPTHS[depth]):
                stride = 2 if stage > 0 and block == 0 else 1
                self.body_op.append(BasicBlock(c_in, width, stride=stride, shortcut=shortcut))
                c_in = width

        self.pool = nn.AdaptiveAvgPool2d(1)
        self.final_fc = nn.Sequential()
        self.final_fc.add_module("linear", nn.Linear(c_in, n_classes))
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) to logits (N, n_classes)."""
        features = self.pool(self.body_op(self.head_conv(x)))  # (N, 64, 1, 1)
        return self.final_fc(torch.flatten(features, 1))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)  # He et al. 2015, arXiv:1502.01852
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
