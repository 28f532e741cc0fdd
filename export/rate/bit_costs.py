"""What a code will cost in bits, as our adaptive coder is going to pay for it.

The mixed contexts of a file (`modelpress.export.coding.context_mixing`) code a level as a zero flag, a sign and a
magnitude, each under probabilities learned from what came before: the taps beside it in the kernel, how large its row
and its column have been. Here the same neighbours choose one of a few classes, and the counts of each class, from the
layers packed so far and from the last pass over this one, give the bits.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float64]
MAX_LEVEL = 127
N_CLASSES = 16
_COUNTED = 16  # magnitudes told apart; larger ones share a tail
_LEAST_ENERGY = 0.02  # mean magnitudes below are one class
_CLASSES_PER_OCTAVE = 1.5
_KERNEL, _ROW, _COLUMN = 0.35, 0.35, 0.3  # how much each neighbourhood says
_FADING = 0.5  # weight of the layers before, at each new one
_PRIOR = 4.0  # levels that a class is taken to have seen


@dataclass
class BitCosts:
    """Counts of magnitudes in each class of neighbourhoods.

    Attributes:
        counts: Shape ``(N_CLASSES, _COUNTED + 1)``, of the layers before.
    """

    counts: Floats = field(default_factory=lambda: np.zeros((N_CLASSES, _COUNTED + 1)))

    def learned_from(self, levels: Levels, classes: npt.NDArray[np.intp]) -> Floats:
        """Counts with those of one more tensor; levels and their classes have equal shapes."""
        magnitudes = np.minimum(np.abs(levels), _COUNTED).astype(np.intp)
        joint = np.bincount(
            (classes * (_COUNTED + 1) + magnitudes).reshape(-1), minlength=N_CLASSES * (_COUNTED + 1)
        )
        return self.counts + joint.reshape(N_CLASSES, _COUNTED + 1)

    def finished(self, counts: Floats) -> None:
        """A layer is done: its counts serve the next one, those before it fade."""
        self.counts = counts * _FADING


def bits_of(counts: Floats) -> npt.NDArray[np.float32]:
    """Bits of each magnitude in each class, sign included; shape ``(N_CLASSES, MAX_LEVEL + 1)``.

    A class that has seen little follows the geometric distribution of its energy.

    Example:
        >>> bits = bits_of(np.zeros((N_CLASSES, 17)))
        >>> bool((np.diff(bits, axis=1)[:, 1:] >= 0).all())  # small magnitudes are never dearer
        True
    """
    energy = energy_of_class(np.arange(N_CLASSES))
    mean = energy[:, None]
    magnitudes = np.arange(_COUNTED)
    ratio = mean / (1 + mean)
    geometric = np.concatenate([(1 - ratio) * ratio**magnitudes, ratio**_COUNTED], axis=1)
    smoothed = counts + _PRIOR * geometric + 1e-3
    probability = smoothed / smoothed.sum(axis=1, keepdims=True)

    bits = np.empty((N_CLASSES, MAX_LEVEL + 1))
    bits[:, : _COUNTED + 1] = -np.log2(probability)
    # how the larger ones share their part is not counted: geometrically, too
    tail = np.arange(MAX_LEVEL + 1 - _COUNTED)
    bits[:, _COUNTED:] = bits[:, _COUNTED, None] - np.log2(1 - ratio) - tail * np.log2(ratio)
    bits[:, 1:] += 1
    return bits.astype(np.float32)


def classes_of(energy: Floats) -> npt.NDArray[np.intp]:
    """The class of a mean magnitude of neighbours.

    Example:
        >>> classes_of(np.array([0.0, 0.02, 1.0, 1e9])).tolist()
        [0, 0, 8, 15]
    """
    octave = np.log2(np.maximum(energy, _LEAST_ENERGY) / _LEAST_ENERGY)
    return np.clip((octave * _CLASSES_PER_OCTAVE).astype(np.intp), 0, N_CLASSES - 1)


def energy_of_class(number: npt.NDArray[np.intp]) -> Floats:
    """A mean magnitude in the middle of a class."""
    return np.asarray(_LEAST_ENERGY * 2 ** ((number + 0.5) / _CLASSES_PER_OCTAVE), np.float64)


@dataclass
class Neighbourhood:
    """The mean magnitudes around the entries of some matrices, column by column.

    Attributes:
        taps: Entries of one kernel, which lie side by side in a row.
        width: Of these, in one line of the kernel.
    """

    taps: int
    width: int

    def energies(self, magnitudes: Floats) -> Floats:
        """Of whole matrices, shape ``(groups, rows, columns)``."""
        columns = magnitudes.mean(axis=1)
        rows = self.row_means(magnitudes)
        result = np.empty_like(magnitudes)
        for j in range(magnitudes.shape[2]):
            result[:, :, j] = self.energy(magnitudes, j, rows, columns)
        return result

    @staticmethod
    def row_means(magnitudes: Floats) -> Floats:
        """How large each row is, shape ``(groups, rows)``."""
        return np.asarray(magnitudes.mean(axis=2), np.float64)

    def energy(self, magnitudes: Floats, j: int, rows: Floats, columns: Floats) -> Floats:
        """Of one column, shape ``(groups, rows)``: from the taps to the left and above, and from means."""
        tap = j % self.taps
        near: Floats | None = None
        n = 0
        if self.taps > 1:
            if tap % self.width:
                near, n = magnitudes[:, :, j - 1], 1
            if tap >= self.width:
                above = magnitudes[:, :, j - self.width]
                near, n = (above if near is None else near + above), n + 1

        whole = (_ROW * rows + _COLUMN * columns[:, j, None]) / (_ROW + _COLUMN)
        if near is None:
            return whole
        share = _KERNEL * n / 2
        return (1 - share) * whole + share * near / n
