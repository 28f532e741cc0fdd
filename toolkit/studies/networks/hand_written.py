"""Networks as people write them by hand: plain PyTorch, nothing of this toolkit in them."""

from itertools import pairwise

import torch
from torch import Tensor, nn


def small_cnn(
    widths: tuple[int, int, int] = (32, 64, 128), *, size: int = 32, classes: int = 10
) -> nn.Module:
    """Convolutions with and without batch norm, pooled; ``(N, 3, size, size)``."""
    first, second, third = widths
    return nn.Sequential(
        *(nn.Conv2d(3, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(first, second, 3, padding=1), nn.BatchNorm2d(second), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(second, third, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(third * (size // 8) ** 2, classes)),
    )


def ds_cnn(channels: int = 64, *, blocks: int = 4, classes: int = 12) -> nn.Module:
    """Keyword spotting: one channel, a rectangular kernel, depthwise separable blocks; ``(N, 1, 49, 10)``.

    Source: Zhang et al. 2017, arXiv:1711.07128.
    """

    def normed(layer: nn.Module) -> list[nn.Module]:
        return [layer, nn.BatchNorm2d(channels), nn.ReLU()]

    layers = normed(nn.Conv2d(1, channels, (10, 4), stride=2, padding=(5, 1)))
    for _ in range(blocks):
        layers += normed(nn.Conv2d(channels, channels, 3, padding=1, groups=channels))
        layers += normed(nn.Conv2d(channels, channels, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def mlp(widths: tuple[int, ...] = (784, 1024, 512, 256, 10)) -> nn.Module:
    """Linear layers, with and without a bias, each but the last with batch norm; ``(N, features)``."""
    layers: list[nn.Module] = []
    for k, (before, after) in enumerate(pairwise(widths[:-1])):
        layers += [nn.Linear(before, after, bias=k % 2 == 0), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def _encoder(width: int, heads: int, depth: int, *, wider: int, pre_norm: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        *(width, heads, wider * width),
        dropout=0.0,
        activation="gelu" if pre_norm else "relu",
        batch_first=True,
        norm_first=pre_norm,
    )
    return nn.TransformerEncoder(
        layer, depth, enable_nested_tensor=False
    )  # its layers start with equal weights


class VisionTransformer(nn.Module):
    """A transformer over patches of an image; ``(N, 3, size, size)``.

    Source: Dosovitskiy et al. 2020, arXiv:2010.11929.
    """

    def __init__(
        self,
        width: int = 192,
        *,
        heads: int = 3,
        depth: int = 12,
        wider: int = 4,
        patch: int = 16,
        size: int = 224,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.position = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2 + 1, width))
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.encoder = _encoder(width, heads, depth, wider=wider, pre_norm=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, ``(N, classes)``."""
        patches = self.patches(x).flatten(2).transpose(1, 2)  # (N, patches, width)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1) + self.position
        return self.head(self.norm(self.encoder(tokens)[:, 0]))


class TextTransformer(nn.Module):
    """Numbers of words in, ``(N, length)``; the classifier's weight is the embedding's."""

    def __init__(
        self,
        words: int = 8000,
        width: int = 256,
        *,
        heads: int = 4,
        depth: int = 4,
        wider: int = 4,
        length: int = 64,
    ) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(words, width), nn.Embedding(length, width)
        nn.init.normal_(self.position.weight, std=0.02)  # or places would drown words
        self.encoder = _encoder(width, heads, depth, wider=wider, pre_norm=False)
        self.words = nn.Linear(width, words, bias=False)
        self.words.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of the next word, ``(N, length, words)``."""
        x = self.embedding(ids) + self.position(torch.arange(ids.shape[1], device=ids.device))
        return self.words(self.encoder(x))


class Lstm(nn.Module):
    """Two recurrent layers over a sequence, judged by its last step; ``(N, steps, features)``."""

    def __init__(self, features: int = 40, width: int = 256, *, classes: int = 12) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, width, 2, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, ``(N, classes)``."""
        states, _ = self.lstm(x)
        return self.head(states[:, -1])
