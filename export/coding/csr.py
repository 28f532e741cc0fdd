"""Compressed sparse rows, in SciPy's words: ``data, indices, indptr``."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelpress.export.errors import DamagedArtifact


@dataclass(frozen=True)
class Csr:
    """A sparse matrix of shape ``(rows, columns)``.

    Attributes:
        data: Shape ``(nnz,)``; the kept entries, row by row.
        indices: Shape ``(nnz,)``; the column of each, strictly increasing inside a row.
        indptr: Shape ``(rows + 1,)``; row ``r`` is ``data[indptr[r]:indptr[r + 1]]``.
        shape: ``(rows, columns)``.
    """

    data: npt.NDArray[np.integer]
    indices: npt.NDArray[np.int64]
    indptr: npt.NDArray[np.int64]
    shape: tuple[int, int]


def csr_from_dense(codes: npt.NDArray[np.integer], support: npt.NDArray[np.bool_]) -> Csr:
    """Keep the entries of `codes` where `support` is true.

    Args:
        codes: Shape ``(rows, columns)``.
        support: Same shape; which entries are stored (a stored code may itself be 0).

    Example:
        >>> csr = csr_from_dense(np.array([[0, 7], [0, 0], [5, 6]]), np.array([[0, 1], [0, 0], [1, 1]], bool))
        >>> csr.data, csr.indices, csr.indptr
        (array([7, 5, 6]), array([1, 0, 1]), array([0, 1, 1, 3]))
    """
    rows, columns = codes.shape
    row, column = np.nonzero(support)
    indptr = np.zeros(rows + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=rows), out=indptr[1:])
    return Csr(codes[row, column], column, indptr, (rows, columns))


def csr_to_dense(csr: Csr) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.bool_]]:
    """Undo `csr_from_dense`: codes (0 where nothing is stored) and support.

    Raises:
        DamagedArtifact: The arrays contradict each other (see `check_csr`).
    """
    check_csr(csr)
    flat = csr_positions(csr)
    codes = np.zeros(csr.shape, csr.data.dtype)
    support = np.zeros(csr.shape, np.bool_)
    codes.ravel()[flat] = csr.data
    support.ravel()[flat] = True
    return codes, support


def csr_positions(csr: Csr) -> npt.NDArray[np.int64]:
    """Row-major position of every stored entry, strictly increasing, shape ``(nnz,)``."""
    row = np.repeat(np.arange(csr.shape[0]), np.diff(csr.indptr))
    return row * csr.shape[1] + csr.indices


def csr_from_positions(
    data: npt.NDArray[np.integer], positions: npt.NDArray[np.int64], shape: tuple[int, int]
) -> Csr:
    """Undo `csr_positions`: row pointers and columns from row-major positions.

    Raises:
        DamagedArtifact: A position is outside the matrix, or they do not increase.

    Example:
        >>> csr_from_positions(np.array([7, 5]), np.array([1, 4]), (3, 2)).indptr
        array([0, 1, 1, 2])
    """
    rows, columns = shape
    if positions.size and not (int(positions[0]) >= 0 and int(positions[-1]) < rows * columns):
        raise DamagedArtifact(f"nonzero position {int(positions[-1]):,} is outside {rows} x {columns}")
    if np.any(np.diff(positions) <= 0):
        raise DamagedArtifact("nonzero positions do not increase")

    # sorted positions fall into rows where multiples of the row length would be inserted
    indptr = np.searchsorted(positions, np.arange(rows + 1) * columns)
    row = np.repeat(np.arange(rows), np.diff(indptr))
    return Csr(data, positions - row * columns, indptr.astype(np.int64), shape)


def check_csr(csr: Csr) -> None:
    """Refuse arrays that do not describe a matrix of this shape.

    Raises:
        DamagedArtifact: Row pointers are not monotone from 0 to nnz, a column is out of range, or columns
            inside a row do not increase.
    """
    rows, columns = csr.shape
    pointers = csr.indptr
    if pointers.shape != (rows + 1,) or pointers[0] != 0 or pointers[-1] != csr.data.size:
        raise DamagedArtifact(f"row pointers do not run from 0 to {csr.data.size:,} over {rows} rows")

    if np.any(np.diff(pointers) < 0):
        raise DamagedArtifact(f"row pointer {int(np.argmax(np.diff(pointers) < 0)) + 1} decreases")
    if csr.indices.shape != csr.data.shape:
        raise DamagedArtifact(f"{csr.indices.size:,} column indices for {csr.data.size:,} entries")

    outside = np.flatnonzero((csr.indices < 0) | (csr.indices >= columns))
    if outside.size:
        entry = int(outside[0])
        raise DamagedArtifact(
            f"column index {int(csr.indices[entry])} at entry {entry} is outside 0..{columns - 1}"
        )

    # columns need not increase from the end of one row to the start of the next
    row = np.repeat(np.arange(rows), np.diff(pointers))
    unsorted = (np.diff(csr.indices) <= 0) & (np.diff(row) == 0)
    if np.any(unsorted):
        raise DamagedArtifact(f"column indices do not increase at entry {int(np.argmax(unsorted)) + 1}")
