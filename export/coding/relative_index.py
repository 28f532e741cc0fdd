"""Positions of nonzeros as gaps, with a filler symbol for the long ones.

The gap before a nonzero is the number of zeros between it and its predecessor (in row-major order, row ends
do not interrupt it, so row pointers need no bytes). With ``gap_bits = g`` the alphabet is ``0 .. 2**g - 1``;
the last symbol is the filler and stands for ``2**g - 1`` zeros without a nonzero after them.

Source: Han, Mao and Dally 2016, "Deep Compression", arXiv:1510.00149, section 2 (figure 2).
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import DamagedArtifact

_AT_ONCE = 1 << 18  # symbols

Positions = npt.NDArray[np.int64]


def gaps_from_positions(positions: Positions, *, gap_bits: int) -> npt.NDArray[np.int64]:
    """Gap symbols of strictly increasing positions.

    Args:
        positions: Shape ``(nnz,)``, non-negative.
        gap_bits: Width of the alphabet in bits, at least 1.

    Returns:
        Shape ``(nnz + fillers,)``.

    Example:
        >>> gaps_from_positions(np.array([0, 2, 10]), gap_bits=2)   # 7 zeros = 3 + 3 + 1
        array([0, 1, 3, 3, 1])
    """
    filler = (1 << gap_bits) - 1
    gaps = np.diff(positions, prepend=-1) - 1
    n_fillers, rest = np.divmod(gaps, filler)
    symbols = np.full(int(n_fillers.sum()) + positions.size, filler, np.int64)
    symbols[np.cumsum(n_fillers + 1) - 1] = rest
    return symbols


def positions_from_gaps(symbols: npt.NDArray[np.integer], *, gap_bits: int) -> Positions:
    """Undo `gaps_from_positions`.

    Example:
        >>> positions_from_gaps(np.array([0, 1, 3, 3, 1]), gap_bits=2)
        array([ 0,  2, 10])
    """
    filler = (1 << gap_bits) - 1
    is_nonzero = symbols != filler
    reached = np.cumsum(symbols + is_nonzero, dtype=np.int64)
    return np.asarray(reached[is_nonzero] - 1, np.int64)


def positions_in_pieces(symbols: npt.NDArray[np.integer], *, gap_bits: int) -> Iterator[Positions]:
    """The positions of `positions_from_gaps`, some at a time: bounds the working memory.

    Example:
        >>> [p.tolist() for p in positions_in_pieces(np.array([0, 1, 3, 3, 1]), gap_bits=2)]
        [[0, 2, 10]]
    """
    filler = (1 << gap_bits) - 1
    reached = 0  # elements passed
    for start in range(0, symbols.size, _AT_ONCE):
        piece = symbols[start : start + _AT_ONCE].astype(np.int64)
        yield reached + positions_from_gaps(piece, gap_bits=gap_bits)
        reached += int(piece.sum()) + int(np.count_nonzero(piece != filler))


def check_positions(positions: Positions, count: int) -> None:
    """Refuse increasing positions that leave a tensor.

    Raises:
        DamagedArtifact: The last one is not below `count`.
    """
    if positions.size and int(positions[-1]) >= count:
        raise DamagedArtifact(f"nonzero position {int(positions[-1]):,} is outside {count:,} weights")


def gap_counts(positions: Positions, *, gap_bits: int) -> npt.NDArray[np.int64]:
    """How often each symbol of `gaps_from_positions` occurs, shape ``(2**gap_bits,)``.

    Example:
        >>> gap_counts(np.array([0, 2, 10]), gap_bits=2)
        array([1, 2, 0, 2])
    """
    filler = (1 << gap_bits) - 1
    gaps = np.diff(positions, prepend=-1) - 1
    counts = np.bincount(gaps % filler, minlength=filler + 1)
    counts[filler] = (gaps // filler).sum()
    return counts
