"""A price per byte in training: zeros and levels of all layers are chosen together for what their codes will cost.

The loss gains ``price * bytes``. A code costs ``-log2 p`` bits under an adaptive model like that of the coder: whether
it is zero, its sign, its magnitude, with the frequencies of its layer at that moment. Between two codes the cost is
interpolated, so that it has a slope for the weights (straight-through: the rounding itself has none). Scales stay as
they are: a batch norm undoes any change of weight and scale together, which no cost of codes would notice.

Source: Oktay et al. 2020, "Scalable Model Compression by Entropy Penalized Reparameterization", arXiv:1906.06624,
eq. (4), with counted instead of learned frequencies.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from modelpress.export.errors import InputError
from modelpress.export.grids import in_steps
from modelpress.toolkit.compression.network import CompressedNetwork
from modelpress.toolkit.recipe import FinetuneOptions
from modelpress.toolkit.training.rules import Moment, TrainingRule

_FIRST_PRICE = 0.02  # nats per kilobyte, where a size is asked for: too low for any network, and soon higher
_HIGHEST_PRICE = 10.0
# the price follows the relative distance of the size from the one that is due: by its sum, and at once
_PER_STEP, _AT_ONCE = 0.02, 6.0
_LARGEST_DISTANCE = 0.3
_AIM = 0.995  # of the size asked for: a little below it
# the size falls ever faster once zeros are many, because they get cheaper: so it is looked at ahead of time
_MEMORY, _AHEAD = 1 / 30, 3.0  # of the size's average in steps; of what it has moved since
_KILOBYTE = 1000.0
_SEEN = 0.5  # counts that every magnitude has before it is seen

FileSize = Callable[[], int]  # of the network as it is, in bytes


class RatePrice(TrainingRule):
    """Adds the price of all codes to the loss of a training.

    Args:
        network: Its layers on symmetric grids are priced; grids must not move.
        options: A price, or the size of the whole file at which the price is found: it follows the size that is due,
            which falls from that of the start to the one asked for over ``options.rate_ramp`` of the training.
        file_size: Packs the network; asked at the start and after every epoch, it corrects the estimate: the
            coder knows neighbours, which frequencies do not.

    Raises:
        InputError: There is no layer to price.
    """

    def __init__(self, network: CompressedNetwork, options: FinetuneOptions, file_size: FileSize) -> None:
        self._network, self._options, self._file_size = network, options, file_size
        self._names = [name for name, spec in network.quantizers.items() if spec.symmetric]
        if not self._names:
            raise InputError(
                "a price needs codes whose zero is zero: set quantize.symmetric to true, learned to false, range to mse"
            )
        self._target = _AIM * (options.target_bytes or 0)

        device = network.dense_weight(self._names[0]).device
        sizes = [network.dense_weight(name).numel() for name in self._names]
        self._layer = torch.repeat_interleave(
            torch.arange(len(sizes), device=device), torch.tensor(sizes, device=device)
        )
        highest = [network.quantizers[name].codes[1] for name in self._names]
        self._limit = torch.tensor(highest, dtype=torch.float32, device=device)[self._layer]

        first = options.rate if options.rate else _FIRST_PRICE
        self._price = torch.tensor(first, device=device)  # nats per kilobyte of the file
        self._level = self._price.clone()  # of the price, beside what distance adds at once
        self._bits = torch.zeros(len(sizes), max(highest) + 2, device=device)  # by layer and magnitude
        self._code_bytes = torch.zeros((), device=device)  # by frequencies alone
        # the file is this share of those, and bytes that do not depend on codes: learnt from the file itself
        self._share = torch.ones((), device=device)
        self._rest = torch.zeros((), device=device)
        self._start = torch.zeros((), device=device)
        self._usual = torch.zeros((), device=device)  # the size, averaged over some steps
        self._measured = 0.0

    def begin(self, moment: Moment) -> None:
        """Measure the network as it is; a training that goes on has its measures."""
        self._count()
        if not moment.epoch and not moment.step:
            self._correct()
            self._start.copy_(self._estimate())
            self._usual.copy_(self._start)

    def penalty(self) -> Tensor:
        """What the codes cost, in nats; with a slope for the weights."""
        steps = self._in_steps().abs().minimum(self._limit)
        below = steps.detach().floor().long()
        index = self._layer * self._bits.shape[1] + below
        flat = self._bits.view(-1)
        low, high = flat[index], flat[index + 1]

        bits = (low + (high - low) * (steps - below)).sum()
        return self._price * self._share * bits / (8 * _KILOBYTE)

    def after_step(self, learning_rate: float, progress: float) -> None:
        """Count the codes anew, and let the price follow the size that is due."""
        self._count()
        if not self._target:
            return

        ramp = self._options.rate_ramp
        risen = 1 - (1 - min(1.0, progress / ramp)) ** 3 if ramp else 1.0
        due = self._start + (self._target - self._start) * risen
        size = self._estimate()
        self._usual.lerp_(size, _MEMORY)
        ahead = size + _AHEAD * (size - self._usual)
        distance = (ahead / due - 1).clamp(-_LARGEST_DISTANCE, _LARGEST_DISTANCE)

        weight = learning_rate / self._options.lr  # late steps move no weight: no price would change that
        self._level.mul_(torch.exp(_PER_STEP * weight * distance)).clamp_(max=_HIGHEST_PRICE)
        self._price.copy_((self._level * torch.exp(_AT_ONCE * distance)).clamp(max=_HIGHEST_PRICE))

    def close_epoch(self) -> Mapping[str, float]:
        """Price, size of the file as estimated, and as it is; the estimate was last corrected an epoch ago."""
        estimate = float(self._estimate())
        self._correct()
        return {"price": float(self._price), "estimated_bytes": round(estimate), "file_bytes": self._measured}

    def sparsity(self) -> float:
        """Share of zero codes in the priced layers."""
        with torch.no_grad():
            return float((self._magnitudes() == 0).float().mean())

    def state(self) -> dict[str, Tensor]:
        """What a resumed training needs."""
        names = ("price", "level", "share", "rest", "start", "usual")
        return {name: getattr(self, f"_{name}") for name in names}

    def _in_steps(self) -> Tensor:
        rows = [in_steps(self._network.masked(name), self._network.grid(name)) for name in self._names]
        return torch.cat([row.reshape(-1).float() for row in rows])

    def _magnitudes(self) -> Tensor:
        return self._in_steps().abs().round().minimum(self._limit).long()

    @torch.no_grad()
    def _count(self) -> None:
        """Cost of every magnitude from the frequencies of each layer."""
        n_layers, width = self._bits.shape
        index = self._layer * width + self._magnitudes()
        counts = torch.zeros(n_layers * width, device=index.device)
        counts.index_add_(0, index, torch.ones_like(index, dtype=counts.dtype))
        counts = counts.view(n_layers, width)

        smooth = counts + _SEEN
        bits = -torch.log2(smooth / smooth.sum(dim=1, keepdim=True))
        bits[:, 1:] += 1.0  # the sign
        self._code_bytes.copy_((counts * bits).sum() / 8)
        # a zero is never dearer than a level: where zeros have become rare, a high price would drive out the last ones
        self._bits.copy_(bits.cummax(dim=1).values)

    def _estimate(self) -> Tensor:
        return self._rest + self._share * self._code_bytes

    @torch.no_grad()
    def _correct(self) -> None:
        """Take from the file what its codes cost there beside their frequencies."""
        self._measured = float(self._file_size())
        if not float(self._rest):  # what is no code hardly changes: it is taken once
            self._rest.fill_(max(1.0, self._measured - float(self._code_bytes)))
        self._share.fill_(max(0.1, (self._measured - float(self._rest)) / max(1.0, float(self._code_bytes))))
