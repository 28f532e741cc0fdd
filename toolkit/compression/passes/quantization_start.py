"""Quantization that sets in after some epochs of a training."""

from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.training.rules import Moment, TrainingRule


class QuantizationStart(TrainingRule):
    """Weights are floats for some epochs; then grids are taken from them, and quantized ones are computed with.

    Args:
        network: Its quantizers are switched off and on.
        after: Epochs in floating point.
        renew: Whether grids are taken anew; under a price they stay, because weights have moved by them.
    """

    def __init__(self, network: CompressedNetwork, after: int, *, renew: bool = True) -> None:
        self._network, self._after, self._renew = network, after, renew

    def begin(self, moment: Moment) -> None:
        """On or off, as befits the moment; a training that is resumed later keeps its grids."""
        self._network.quantized = moment.epoch > self._after or (
            moment.epoch == self._after and moment.step > 0
        )

    def before_step(self, moment: Moment) -> bool:
        """Switch the quantizers on when their time has come."""
        if self._network.quantized or moment.epoch < self._after:
            return False

        if self._renew:
            self._network.renew_grids()
        self._network.quantized = True
        return True
