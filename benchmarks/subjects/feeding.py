"""What a model is fed with: decided once, from the file and from what the user gives, before anything runs.

What is not given is made: floats are normally distributed, integers lie within the table that they index, all others
are 1 and all truth values true, which is a mask that hides nothing and a count of one. Axes of any length get one that
is tried first, or that of an array or shape that was given for an axis of the same name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from modelpress.benchmarks.subjects.given import Array, ArrayFile, Given, read_array
from modelpress.benchmarks.subjects.inputs import UNNAMED, InputSpec, fits
from modelpress.export.errors import InputError
from modelpress.export.tensor_spec import DTYPES

LENGTHS = (
    16,
    64,
    224,
    1,
)  # tried for axes of any length, in turn: some networks take no short ones, some one alone
_MADE = {dtype.name for dtype in DTYPES.values()}
_BATCH_NAMES = frozenset({"n", "b", "bs", "batch", "batch_size", "batchsize"})


@dataclass(frozen=True)
class Feed:
    """The array for one input in one call.

    Attributes:
        file: Its ``.npy`` or ``.npz`` file, repeated or cut along the first axis to `shape`; empty for made numbers.
        entry: Of the ``.npz`` file.
        rows: Of the table that integers index; 0 for none.
        seed: Of made numbers.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str = ""
    entry: str = ""
    rows: int = 0
    seed: int = 0

    def array(self) -> Array:
        """Make it: the same numbers each time.

        Example:
            >>> Feed("x", "float32", (2, 3)).array().shape, Feed("mask", "int64", (3,)).array().tolist()
            ((2, 3), [1, 1, 1])
        """
        if not self.file:
            return self._made()
        stored = read_array(ArrayFile(Path(self.file), self.entry)).astype(self.dtype, copy=False)
        if stored.shape == self.shape:
            return np.ascontiguousarray(stored).reshape(self.shape)
        return np.ascontiguousarray(stored[np.arange(self.shape[0]) % len(stored)])

    def _made(self) -> Array:
        rng = np.random.default_rng(self.seed)
        if np.dtype(self.dtype).kind == "f":
            return np.asarray(rng.standard_normal(self.shape)).astype(self.dtype)
        if self.rows:
            return np.asarray(rng.integers(0, self.rows, self.shape)).astype(self.dtype)
        return np.ones(self.shape, self.dtype)

    def __str__(self) -> str:
        what = self.file or (f"below {self.rows}" if self.rows else "")
        return f"{self.name} {self.dtype} {self.shape}" + (f" {what}" if what else "")


@dataclass(frozen=True)
class InputPlan:
    """All calls that one model is timed with.

    Attributes:
        feeds: By batch size.
        note: Why these are not the batch sizes asked for, or what was made up; empty where there is nothing to say.
    """

    feeds: Mapping[int, list[Feed]]
    note: str = ""


def plan_inputs(
    file: str,
    specs: Sequence[InputSpec],
    given: Given,
    batches: Sequence[int],
    *,
    length: int = LENGTHS[0],
) -> InputPlan:
    """Decide what every timed call is fed with.

    Args:
        file: The model's name, for messages.
        specs: Its inputs.
        given: What the user says; the first call counts, and what is for other models is left out.
        batches: Batch sizes asked for. A model that can run only one is timed at that one.
        length: Of axes of any length that nothing is said about.

    Raises:
        InputError: Arrays are unreadable, or of another type or shape than the input; or nothing can be made for it.

    Example:
        >>> images = InputSpec("images", "float32", ("N", 3, 4, 4))
        >>> [feeds[0].shape for feeds in plan_inputs("m", [images], Given(), (1, 8)).feeds.values()]
        [(1, 3, 4, 4), (8, 3, 4, 4)]
    """
    whole = _call(file, specs, given.first, given.shapes, length=length)
    if all(feed.file for feed in whole):
        return _given_plan(file, specs, whole, batches)

    made = _what_was_made_up(file, specs, whole)
    if any(feed.file for feed in whole):
        return _single_batch(file, whole, batches, "some arrays are given, which are used as they are", made)
    if not any(_is_batch(specs, spec, k) for spec in specs for k in range(len(spec.shape or ()))):
        return _single_batch(file, whole, batches, "its batch axis is fixed", made)
    return InputPlan(
        {batch: _call(file, specs, {}, given.shapes, batch=batch, length=length) for batch in batches},
        made,
    )


def calls_with(
    file: str,
    specs: Sequence[InputSpec],
    given: Given,
    *,
    n_made: int = 1,
    batch: int | None = None,
    length: int = LENGTHS[0],
) -> list[list[Feed]]:
    """Calls of a model with the arrays that are given, as they are, and with others made; at least one.

    Args:
        file: As for `plan_inputs`, as are the others.
        specs: As there.
        given: All its calls count.
        n_made: How many calls, where no arrays are given; each is of other numbers.
        batch: Of arrays that are made; None: of the shapes that are given, else 1.
        length: As there.

    Raises:
        InputError: As there.
    """
    if given.calls:
        return [_call(file, specs, call, given.shapes, length=length) for call in given.calls]
    return [
        _call(file, specs, {}, given.shapes, batch=batch, length=length, seed=seed) for seed in range(n_made)
    ]


def _call(
    file: str,
    specs: Sequence[InputSpec],
    arrays: Mapping[str, ArrayFile],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    batch: int | None = None,
    length: int,
    seed: int = 0,
) -> list[Feed]:
    """What every input gets in one call; `batch` takes the place of a given shape's."""
    stated = {s.name: _checked_array(file, s, arrays[s.name]).shape for s in specs if s.name in arrays}
    for spec in specs:
        if spec.name not in stated and spec.name in shapes:
            stated[spec.name] = _checked_shape(file, spec, shapes[spec.name])

    # an axis of a name has one length, in whichever input it is
    known = {
        name: axis
        for spec in specs
        for name, axis in zip(spec.shape or (), stated.get(spec.name, ()), strict=False)
        if isinstance(name, str) and name != UNNAMED
    }
    made = []
    for spec in specs:
        if spec.name in arrays:
            source = arrays[spec.name]
            made.append(Feed(spec.name, spec.dtype, stated[spec.name], str(source.path), source.entry))
            continue

        shape = stated.get(spec.name) or tuple(
            axis if isinstance(axis, int) else known.get(axis, 1 if _is_batch(specs, spec, k) else length)
            for k, axis in enumerate(_declared(file, spec))
        )
        if batch is not None:
            shape = tuple(batch if _is_batch(specs, spec, k) else axis for k, axis in enumerate(shape))
        made.append(Feed(spec.name, spec.dtype, shape, rows=spec.rows, seed=seed))

    return made


def batch_of(specs: Sequence[InputSpec], feeds: Sequence[Feed]) -> int:
    """How many examples a call holds; 1 where no axis counts them.

    Example:
        >>> images = InputSpec("images", "float32", ("N", 3))
        >>> batch_of([images], [Feed("images", "float32", (8, 3))])
        8
    """
    lengths = (
        length
        for spec, feed in zip(specs, feeds, strict=True)
        for k, length in enumerate(feed.shape)
        if _is_batch(specs, spec, k)
    )
    return next(lengths, 1)


def _declared(file: str, spec: InputSpec) -> tuple[int | str, ...]:
    """The axes of an input for which numbers can be made.

    Raises:
        InputError: They cannot.
    """
    options = f"--input {spec.name}=FILE.npy"
    if spec.dtype not in _MADE:
        raise InputError(f"{file}: no numbers are made up for input {spec}. Give an array: {options}")
    if spec.shape is None:
        raise InputError(
            f"{file}: the shape of input {spec.name} is open. Give it, --shape {spec.name}=1,80, or an array, {options}"
        )
    return spec.shape


def _is_batch(specs: Sequence[InputSpec], spec: InputSpec, position: int) -> bool:
    """Whether an axis may have any length and counts the examples."""
    axis = spec.shape[position] if spec.shape is not None and position < len(spec.shape) else 0
    if not isinstance(axis, str):
        return False
    name = _batch_name(specs)
    return axis == name if axis != UNNAMED else position == 0


def _batch_name(specs: Sequence[InputSpec]) -> str:
    """What the batch axis is called: as batch axes are, or as the first axis that may have any length."""
    names = [axis for spec in specs for axis in spec.shape or () if isinstance(axis, str)]
    firsts = [str(spec.shape[0]) for spec in specs if spec.has_dynamic_batch and spec.shape]
    return next((name for name in names if name.lower() in _BATCH_NAMES), next(iter(firsts), UNNAMED))


def _what_was_made_up(file: str, specs: Sequence[InputSpec], feeds: Sequence[Feed]) -> str:
    """Empty where all that was made up are floats of the shape that the file declares."""
    free = any(
        isinstance(axis, str) and not _is_batch(specs, spec, k)
        for spec in specs
        for k, axis in enumerate(spec.shape or ())
    )
    made = [feed for feed in feeds if not feed.file]
    if not free and all(np.dtype(feed.dtype).kind == "f" for feed in made):
        return ""
    words = ", ".join(map(str, made))
    return f"{file}: made up: {words}; give what the model will see by --input or --shape"


def _given_plan(
    file: str, specs: Sequence[InputSpec], whole: list[Feed], batches: Sequence[int]
) -> InputPlan:
    """Arrays along dynamic first axes are cut or repeated, if they all have the same length there."""
    lengths = {feed.shape[0] for spec, feed in zip(specs, whole, strict=True) if spec.has_dynamic_batch}
    if not lengths:
        return _single_batch(file, whole, batches, "its batch axis is fixed")
    if len(lengths) > 1:
        return _single_batch(
            file, whole, batches, "the arrays differ in length, so they are used as they are"
        )

    return InputPlan(
        {
            batch: [
                replace(feed, shape=(batch, *feed.shape[1:])) if spec.has_dynamic_batch else feed
                for spec, feed in zip(specs, whole, strict=True)
            ]
            for batch in batches
        }
    )


def _single_batch(
    file: str, feeds: list[Feed], batches: Sequence[int], reason: str, more: str = ""
) -> InputPlan:
    batch = next((feed.shape[0] for feed in feeds if feed.shape), 1)
    notes = [] if tuple(batches) == (batch,) else [f"{file}: {reason}: timed at batch {batch} only"]
    return InputPlan({batch: feeds}, "; ".join([*notes, *([more] if more else [])]))


def _checked_array(file: str, spec: InputSpec, source: ArrayFile) -> Array:
    array = read_array(source)
    where = f"--input {spec.name}={source}"
    if array.dtype.newbyteorder("=").name != spec.dtype:
        raise InputError(
            f"{where}: holds {array.dtype.name}; {file} expects {spec.dtype}: save array.astype({spec.dtype!r})"
        )
    if spec.shape is not None and not fits(array.shape, spec.shape):
        raise InputError(f"{where}: has shape {array.shape}; {file} expects {spec}")
    if array.size == 0:
        raise InputError(f"{where}: is empty, shape {array.shape}")

    return array


def _checked_shape(file: str, spec: InputSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    if spec.shape is not None and not fits(shape, spec.shape):
        raise InputError(f"--shape {spec.name}={','.join(map(str, shape))}: {file} expects {spec}")
    return shape
