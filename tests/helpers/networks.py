"""Networks as other people write them: one of each kind that counts, as small as the kind allows."""

import torch
from torch import nn


def small_cnn():
    features = (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
    more = (nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*features, *more, nn.Flatten(), nn.Linear(12 * 16, 10)), torch.randn(4, 3, 16, 16)


def ds_cnn():
    """Keyword spotting: one channel, a rectangular kernel, depthwise separable blocks."""

    def block(channels):
        depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        return [depthwise, nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1)]

    first = nn.Conv2d(1, 16, (10, 4), stride=2, padding=(5, 1))
    layers = [first, nn.BatchNorm2d(16), nn.ReLU(), *block(16), nn.BatchNorm2d(16), nn.ReLU(), *block(16)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 12))
    return network, 3 * torch.randn(4, 1, 49, 10)


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
    layers = [nn.Linear(30, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32, bias=False)]
    return nn.Sequential(*layers, nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2)), torch.randn(8, 30)


def _encoder(width):
    layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)  # its layers start with equal weights


class VisionTransformer(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.position = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.encoder = _encoder(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.position
        return self.head(self.encoder(tokens)[:, 0])


def vision_transformer():
    return VisionTransformer(), torch.randn(4, 3, 16, 16)


class TextTransformer(nn.Module):
    """Token ids in; the classifier's weight is the embedding's."""

    def __init__(self, words=60, width=32):
        super().__init__()
        self.embedding, self.position = nn.Embedding(words, width), nn.Embedding(16, width)
        self.encoder = _encoder(width)
        self.words = nn.Linear(width, words, bias=False)
        self.words.weight = self.embedding.weight

    def forward(self, ids):
        x = self.embedding(ids) + self.position(torch.arange(ids.shape[1], device=ids.device))
        return self.words(self.encoder(x))


def text_transformer():
    return TextTransformer(), torch.randint(0, 60, (3, 12))


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
    )
}


def shaken(network, seed=0):
    """With weights and statistics that let outputs depend on the input, as those of a trained network do."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)  # the default fades with depth
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low in (
                (module.running_var, 0.5),
                (module.weight.data, 0.5),
                (module.running_mean, 0.0),
            ):
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
            module.bias.data.copy_(0.2 * torch.randn(module.bias.shape, generator=generator))
    return network
