"""Networks as other people write them: one of each kind that counts, as small as the kind allows."""

import torch
from torch import nn

from modelpress.toolkit.studies.networks import hand_written
from modelpress.toolkit.studies.networks.shaking import shaken

__all__ = ["NETWORKS", "shaken"]


def small_cnn():
    return hand_written.small_cnn((8, 12, 16), size=16), torch.randn(4, 3, 16, 16)


def ds_cnn():
    return hand_written.ds_cnn(16, blocks=2), 3 * torch.randn(4, 1, 49, 10)


class InvertedResidual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        wide = 3 * channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return x + self.body(x)


def inverted_residuals():
    first = (nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
    network = nn.Sequential(
        *first, InvertedResidual(8), InvertedResidual(8), nn.Flatten(), nn.Linear(8 * 64, 6)
    )
    return network, torch.randn(4, 3, 16, 16)


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, dilation=1)
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, 4, 1),
            nn.SiLU(),
            nn.Conv2d(4, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        x = self.conv(x)
        return x * self.scale(x)


def squeeze_excite():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), SqueezeExcite(8))
    return nn.Sequential(*network, nn.Flatten(), nn.Linear(8 * 36, 5)), torch.randn(4, 3, 8, 8)


def pooled_to_seven():
    """An adaptive pool to a size that does not divide the input's, as in VGG on small images."""
    features = (nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(7))
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(6 * 49, 4)), torch.randn(4, 3, 4, 4)


def mlp():
    return hand_written.mlp((30, 64, 32, 2)), torch.randn(8, 30)


def vision_transformer():
    network = hand_written.VisionTransformer(32, heads=4, depth=2, wider=2, patch=4, size=16, classes=10)
    return network, torch.randn(4, 3, 16, 16)


def text_transformer():
    network = hand_written.TextTransformer(60, 32, depth=2, wider=2, length=16)
    return network, torch.randint(0, 60, (3, 12))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(12, 16, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(32, 12, batch_first=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        states, _ = self.lstm(x)
        states, _ = self.gru(states)
        return self.head(states[:, -1])


def recurrent():
    return Recurrent(), torch.randn(3, 10, 12)


class OtherConvolutions(nn.Module):
    """One and three axes, transposed, dilated."""

    def __init__(self):
        super().__init__()
        self.one, self.norm = nn.Conv1d(4, 16, 5, padding=4, dilation=2), nn.BatchNorm1d(16)
        self.up = nn.ConvTranspose1d(16, 8, 4, 2, 1)
        self.up_norm = nn.BatchNorm1d(8)
        self.three = nn.Conv3d(8, 6, (1, 3, 3), padding=(0, 1, 1))
        self.head = nn.Linear(6 * 8, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.one(x)))
        x = torch.relu(self.up_norm(self.up(x)))
        x = torch.relu(self.three(x[:, :, None, :, None]))
        return self.head(nn.functional.adaptive_avg_pool1d(x.flatten(2), 8).flatten(1))


def other_convolutions():
    return OtherConvolutions(), torch.randn(3, 4, 12)


class Halved(nn.Module):
    """Half of the channels go through a block, as in detectors; all are joined at the end."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, 16, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.last = nn.Conv2d(24, 16, 1)

    def forward(self, x):
        kept, passed = self.first(x).chunk(2, 1)
        return torch.relu(self.last(torch.cat([kept, passed, self.block(passed) + passed], 1)))


class Detector(nn.Module):
    """Halves of channels, space made larger by a factor and to a size, and a gate."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.body = Halved(12)
        self.down = nn.Conv2d(16, 16, 3, 2, 1)
        self.gate = nn.Conv2d(32, 24, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.body(torch.relu(self.stem(x)))
        up = nn.functional.interpolate(torch.relu(self.down(x)), scale_factor=2)
        x = nn.functional.glu(self.gate(torch.cat([up, x], 1)), 1)
        x = nn.functional.interpolate(x, size=(11, 11), mode="bilinear")
        return self.head(x.mean((2, 3)))


def detector():
    return Detector(), torch.randn(4, 3, 16, 16)


NETWORKS = {
    make.__name__: make
    for make in (
        small_cnn,
        ds_cnn,
        inverted_residuals,
        squeeze_excite,
        pooled_to_seven,
        mlp,
        vision_transformer,
        text_transformer,
        recurrent,
        other_convolutions,
        detector,
    )
}
