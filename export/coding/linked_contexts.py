"""Linked contexts in plain Python, for where nothing is compiled: what they decide otherwise than mixed contexts.

`press_linked.h` is the same in C; FORMAT.md, "Linked contexts", specifies every integer. Against mixed contexts, input
channels are linked, too: those that correlated in previous rows predict one another in this one. The weights of taps
adapt to the kernels of a tensor; counters have one rate, some are of one stream
alone; what bounds rule out is not coded.
"""

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, field

from modelpress.export.coding import context_mixing_kernels as kernels

MAX_INPUTS = 4096  # their correlations take memory
OWN = kernels.N_CONTEXTS  # counters from here on are of one stream alone
OWN_SIGN = OWN + 9
_OWN_NODE, _OWN_SIZE, _OWN_MEANS, _OWN_PRIOR = OWN_SIGN + 243, 170, 25, 169
N_CONTEXTS = _OWN_NODE + _OWN_SIZE * kernels.N_NODES
N_WEIGHTS = 8
_BIAS = 256
_TAP_SETS, _LATEST = 25, 8
_STEP = 1 << 21
_HALF = 1 << 21


def first_weights() -> list[list[int]]:
    """The weight sets as a file begins."""
    return [[3500] * N_WEIGHTS for _ in range(kernels.N_WEIGHT_SETS)]


@dataclass
class Learned:
    """What is kept from tensor to tensor: counters (probability, visits) by context, and weight sets."""

    counters: dict[int, list[int]] = field(default_factory=dict)
    weights: list[list[int]] = field(default_factory=first_weights)

    def copy(self) -> "Learned":
        """An independent one."""
        counters = {context: counter[:] for context, counter in self.counters.items()}
        return Learned(counters, [row[:] for row in self.weights])

    def begin(self) -> None:
        """Forget what is of one stream alone."""
        for context in [context for context in self.counters if context >= OWN]:
            del self.counters[context]


class Links:
    """One stream of linked contexts on its way.

    Args:
        learned: Moved on.
        bounds: Lowest and highest level.
        n_inputs: Of a row.
        n_taps: Of an input.
    """

    def __init__(self, learned: Learned, bounds: tuple[int, int], n_inputs: int, n_taps: int) -> None:
        self._learned = learned
        self.lowest = max(min(bounds[0], 0), -kernels.MAX_LEVEL)
        self.highest = min(max(bounds[1], 0), kernels.MAX_LEVEL)
        self._n_slots = min(n_inputs, kernels.MAX_SLOTS) if n_inputs <= MAX_INPUTS else 0
        self._correlations: dict[int, list[int]] = {}
        self._recent = [[0] * self._n_slots for _ in range(n_taps)]
        self._tap_weights = [[0] * _LATEST for _ in range(_TAP_SETS)]
        self._latest = [0] * _LATEST
        self.means = 0, 0  # logarithms of the means of kernel and tap

    # --- Predictions

    def begin_row(self) -> None:
        """Inputs of the row before predict nothing any more."""
        for residuals in self._recent:
            residuals[:] = [0] * self._n_slots

    def predict(self, row: int, column: int, energy: int) -> list[int]:
        """What previous inputs of this row say of a kernel, for each tap; `energy` is the mean square, in 1/16."""
        correlations, known = self._of(column), (row + 18) * len(self._recent)
        return [
            int(kernels.prediction_of(correlations, own, energy * known // 16 + 1))  # type: ignore[no-untyped-call]
            for own in self._recent
        ]

    def remember(self, p: int, column: int, residual: int) -> None:
        """Learn from the residual of a tap."""
        correlations, own = self._of(column), self._recent[p]
        for slot, other in enumerate(own):
            correlations[slot] += residual * other
        if own:
            own[column % self._n_slots] = residual

    def _of(self, column: int) -> list[int]:
        return self._correlations.setdefault(column, [0] * self._n_slots)

    def spatial(self, levels: Sequence[int], first: int, p: int, fixed: int) -> int:
        """The spatial prediction of tap p of the kernel that starts at `first`: the fixed one, set right."""
        self._latest = [
            min(max(16 * levels[first + p - 1 - k], -4095), 4095) if k < p else 0 for k in range(_LATEST)
        ]
        weights = self._tap_weights[min(p, _TAP_SETS - 1)]
        dot = sum(w * x for w, x in zip(weights, self._latest, strict=True))
        return min(max(fixed + (dot >> 12), -16383), 16383)

    def learn_tap(self, p: int, error: int) -> None:
        """Move the weights of a tap against what was wrong with the prediction, 1/64 level."""
        power = 4096 + sum(x * x for x in self._latest)
        step = _STEP * min(max(error >> 2, -1023), 1023) // power
        step = min(max(step, -32767), 32767)
        weights = self._tap_weights[min(p, _TAP_SETS - 1)]
        for k, x in enumerate(self._latest):
            weights[k] = _short(weights[k] + (step * x + 2048 >> 12))

    # --- Decisions

    def energy(self, kernel_mean: int, tap_mean: int) -> int:
        """The energy before a level, from the logarithms of two means."""
        self.means = kernel_mean, tap_mean
        return 12 * kernel_mean + 8 * tap_mean >> 4

    def sign_context(self, left: int, above: int, above_left: int) -> int:
        """The counter of a sign that mixed contexts do not have."""
        left, above = min(max(left, -4), 4), min(max(above, -4), 4)
        return OWN_SIGN + 27 * (left + 4) + 3 * (above + 4) + min(max(above_left, -1), 1) + 1

    def code_bit(
        self,
        bit: int,
        contexts: Sequence[int],
        sets: tuple[int, int],
        coder: tuple[Sequence[int], MutableSequence[int], bytearray],
    ) -> int:
        """One decision under some contexts, mixed by two weight sets; ``coder``: tables, registers, bytes."""
        tables, registers, buffer = coder
        counters = [self._learned.counters.setdefault(context, [_HALF, 0]) for context in contexts]
        inputs = [tables[kernels.STRETCH + (counter[0] >> 10)] for counter in counters] + [_BIAS]
        weights = [self._learned.weights[number] for number in sets]
        logits = [
            min(max(sum(w * x for w, x in zip(own, inputs, strict=False)) >> 14, -2047), 2047)
            for own in weights
        ]
        probability = tables[kernels.SQUASH + (sum(logits) >> 1)]
        bit = int(kernels.code_bit(bit, probability, registers, buffer))  # type: ignore[no-untyped-call]

        for own, logit in zip(weights, logits, strict=True):
            error = (65535 * bit - tables[kernels.SQUASH + logit]) >> 1
            for k, x in enumerate(inputs):
                own[k] = _short(own[k] + (x * error + 32768 >> 16))

        for counter in counters:
            counter[0] += (4194303 * bit - counter[0]) * tables[kernels.RATES + counter[1]] >> 16
            counter[1] = min(counter[1] + 1, kernels.SLOW_LIMIT)
        return bit

    def code_node(
        self,
        bit: int,
        node: int,
        position: int,
        neighbours: tuple[int, int, int, int],
        coder: tuple[Sequence[int], MutableSequence[int], bytearray],
    ) -> int:
        """One modelled decision of a magnitude."""
        pair, by_energy, by_spatial, by_outward = neighbours
        first, own = kernels.NODE + node * kernels.NODE_SIZE, _OWN_NODE + node * _OWN_SIZE
        contexts = (
            first + kernels.NODE_PAIR + pair,
            first + kernels.NODE_ENERGY + by_energy,
            first + kernels.NODE_SPATIAL + by_spatial,
            first + kernels.NODE_PREDICTION + by_outward,
            own + pair,
            own + _OWN_MEANS + 12 * (self.means[0] >> 4) + (self.means[1] >> 4),
            own + _OWN_PRIOR,
        )
        return self.code_bit(
            bit, contexts, (kernels.NODE_BY_NODE + node, kernels.NODE_BY_POSITION + position), coder
        )

    def code_magnitude(
        self,
        magnitude: int,
        negative: int,
        position: int,
        neighbours: tuple[int, int, int, int],
        coder: tuple[Sequence[int], MutableSequence[int], bytearray],
    ) -> int:
        """A magnitude from 1 to what the bounds allow; what follows from them is not coded."""
        most = -self.lowest if negative else self.highest
        exponent, value = 0, 1
        while 2 << exponent <= most:
            more = int(magnitude >> (exponent + 1) != 0)
            if not self.code_node(more, 2 * exponent + negative, position, neighbours, coder):
                break
            exponent += 1

        for j in range(exponent):
            bit = magnitude >> (exponent - 1 - j) & 1
            if (2 * value + 1) << (exponent - 1 - j) > most:
                bit = 0
            elif j < 3:
                node = 2 * (8 + 7 * (exponent - 1) + value - 1) + negative
                bit = self.code_node(bit, node, position, neighbours, coder)
            else:
                bit = int(kernels.code_bit(bit, 32768, coder[1], coder[2]))  # type: ignore[no-untyped-call]
            value = 2 * value + bit
        return value


def _short(value: int) -> int:
    return min(max(value, -32768), 32767)
