"""Quantization that sets in after some epochs of a training."""

from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.training.rules import Moment, TrainingRule


class QuantizationStart(TrainingRule):
    """Weights are floats for some epochs; then grids are taken from them, and quantized ones are computed with.

    Args:
        network: Its quantizers are switched off and on.
        after: Epochs in floating point.
    """

    def __init__(self, network: CompressedNetwork, after: int) -> None:
        self._network, self._after = network, after

    def begin(self, moment: Moment) -> None:
        """On or off, as befits the moment; a training that is resumed later keeps its grids."""
        self._network.quantized = moment.epoch > self._after or (
            moment.epoch == self._after and moment.step > 0
        )

    def before_step(self, moment: Moment) -> bool:
        """Switch the quantizers on when their time has come."""
        if self._network.quantized or moment.epoch < self._after:
            return False

        self._network.renew_grids()
        self._network.quantized = True
        return True
