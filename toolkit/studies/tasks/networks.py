"""The network of each task: those of other people, in sizes that suit small data."""

import torch
from torch import Tensor, nn

from modelpress.toolkit.studies.networks import hand_written


def small_cnn() -> nn.Module:
    """For images of 16 by 16."""
    return hand_written.small_cnn((16, 32, 64), size=16)


def mlp() -> nn.Module:
    """For 30 features, with BatchNorm1d."""
    return hand_written.mlp((30, 64, 64, 2))


def ds_cnn() -> nn.Module:
    """For spectrograms of one channel."""
    return hand_written.ds_cnn(32, blocks=3, classes=10)


class TokenClassifier(nn.Module):
    """A small transformer over tokens, judged by the mean of its states; ``(N, length)`` of int64."""

    def __init__(self, tokens: int = 17, width: int = 32, *, length: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.position = nn.Parameter(0.1 * torch.randn(1, length, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, ``(N, classes)``."""
        states = self.encoder(self.embedding(tokens) + self.position)
        return self.head(self.norm(states).mean(dim=1))


def token_transformer() -> nn.Module:
    """For 64 tokens of 17 kinds."""
    return TokenClassifier()
