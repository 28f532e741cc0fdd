"""The rows of the pruning and the quantization study: what each does, and what was published for it.

The published rows prune and quantize one ResNet-20 on CIFAR-10 (dense: 91.51 %). Pruning leaves the projections of the
shortcuts dense; quantization leaves the first convolution and the classifier in floating point. Their finetuning is SGD
with momentum 0.875, weight decay 1e-4 and a constant rate of 0.002 for 20 epochs of all training images. The rows
called improved are this toolkit's own recipes for the same tasks.

The rows of the frontier start from a better dense network: files of given sizes, trained at a price per byte, and
beside them fixed shares of zeros at fixed widths, and files of just these sizes at a price, in as many epochs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from modelpress.export.errors import CommandLineError
from modelpress.toolkit.recipe import Recipe, over_defaults

Study = Literal["prune", "quantize", "frontier"]
Kind = Literal["post-training", "reference", "improved", "priced", "fixed", "matched"]
Changes = dict[str, dict[str, Any]]

_ALL_IMAGES = {"validation": 0.0}
_PRUNABLE = {"exclude": ["*id_mapping*"]}
_DENSE = {"sparsity": 0.0}
_FLOAT = {"layers": {"*": "float"}}
_ENDS_IN_FLOAT = {"layers": {"head_conv*": "float", "final_fc*": "float"}}
_NO_TRAINING = {"epochs": 0}
_PUBLISHED_TRAINING = {
    "epochs": 20,
    "batch": 256,
    "lr": 0.002,
    "schedule": "constant",
    "momentum": 0.875,
    "nesterov": False,
    "weight_decay": 1e-4,
    "padding": 4,
}
_ITERATIVE = {"sparsity": 0.7, "schedule": "linear", "epochs": 10, "hold": False}
_OWN_TRAINING = {
    **_PUBLISHED_TRAINING,
    "lr": 0.03,
    "schedule": "cosine",
    "momentum": 0.9,
    "nesterov": True,
    "distill_weight": 0.7,
    "distill_temperature": 3.0,
}
_OWN_PRUNING = {"schedule": "cubic", "epochs": 8, "updates_per_epoch": 4}
_OWN_GRID = {"range": "mse", "learned": True, "layers": {"head_conv*": 8, "final_fc*": 8}}
_OWN_IMAGES = {"validation": 0.02}
_PRICED_GRID = {"bits": 3, "symmetric": True, "range": "mse", "layers": {"head_conv*": 8, "final_fc*": 8}}
_FRONTIER_TRAINING = {
    **_OWN_TRAINING,
    "epochs": 70,
    "batch": 512,
    "lr": 0.1,
    "warmup": 0.02,
    "distill_temperature": 4.0,
}
_SIZES = (64_000, 49_200, 39_400, 29_500, 19_600)  # a little below 65, 50, 40, 30 and 20 kB
_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Row:
    """One experiment.

    Attributes:
        name: As in ``--rows``.
        study: Which study it belongs to.
        kind: Without training; trained as published; trained by our recipe.
        method: For people.
        changes: Sections of the recipe, over its defaults.
        published: Top-1 accuracy on the test images, in percent; None where there is none.
        start: Row whose network it starts from; None: the dense one.
        size_of: Row whose file it is to be as large as, by a price; None: the row's recipe says how large, if it does.
        more_seed: Added to the seed of the base.
    """

    name: str
    study: Study
    kind: Kind
    method: str
    changes: Changes = field(repr=False)
    published: float | None = None
    start: str | None = None
    size_of: str | None = None
    more_seed: int = 0

    @property
    def after(self) -> set[str]:
        """Rows that have to be measured before it."""
        return {name for name in (self.start, self.size_of) if name is not None}

    def recipe(self, base: Recipe) -> Recipe:
        """The row's recipe: data, model, seed and run options of `base`, everything else the row's own."""
        own = base.model_dump(mode="json", include={"seed", "data", "model", "run"})
        own["seed"] += self.more_seed
        sections = {name: {**own.get(name, {}), **change} for name, change in self.changes.items()}
        return Recipe.model_validate(over_defaults({**own, **sections}))


def _post_training(prune: dict[str, Any], quantize: dict[str, Any]) -> Changes:
    return {
        "data": _ALL_IMAGES,
        "prune": {**_PRUNABLE, **prune},
        "quantize": quantize,
        "finetune": {**_PUBLISHED_TRAINING, **_NO_TRAINING},
        "pack": {"float16_parameters": False},
    }


def _trained(prune: dict[str, Any], quantize: dict[str, Any]) -> Changes:
    return {**_post_training(prune, quantize), "finetune": _PUBLISHED_TRAINING}


def _improved(prune: dict[str, Any], quantize: dict[str, Any]) -> Changes:
    return {
        "data": _OWN_IMAGES,
        "prune": {**_PRUNABLE, **prune},
        "quantize": quantize,
        "finetune": _OWN_TRAINING,
    }


def _by_layer(share: float) -> dict[str, Any]:
    return {"method": "layer-percentile", "sparsity": share}


def _pruning_rows() -> Iterable[Row]:
    yield Row("dense", "prune", "post-training", "nothing removed", _post_training(_DENSE, _FLOAT), 91.51)
    for share, published in ((30, 90.28), (50, 82.10), (70, 42.04)):
        changes = _post_training(_by_layer(share / 100), _FLOAT)
        yield Row(
            f"one-shot-{share}", "prune", "post-training", f"{share} % of every layer", changes, published
        )

    yield Row(
        "finetuned-70",
        "prune",
        "reference",
        "70 % of every layer, then finetuned, zeros held",
        _trained(_by_layer(0.7), _FLOAT),
        89.28,
    )
    yield Row(
        "iterative-70",
        "prune",
        "reference",
        "7, 14, … 70 % of every layer while finetuning",
        _trained({**_ITERATIVE, "method": "layer-percentile"}, _FLOAT),
        89.09,
    )
    yield Row(
        "iterative-global-70",
        "prune",
        "reference",
        "7, 14, … 70 % by one threshold while finetuning",
        _trained({**_ITERATIVE, "method": "global-magnitude"}, _FLOAT),
        89.72,
    )
    yield Row(
        "improved-70",
        "prune",
        "improved",
        "70 %, cubic schedule, one threshold, distilled",
        _improved({"sparsity": 0.7, **_OWN_PRUNING}, _FLOAT),
        89.72,
    )


def _quantization_rows() -> Iterable[Row]:
    for name, symmetric, figures in (
        ("asymmetric", False, (91.45, 91.12, 89.72, 76.62, 8.99)),
        ("symmetric", True, (91.24, 90.83, 88.75, 51.85, 10.00)),
    ):
        for bits, published in zip((6, 5, 4, 3, 2), figures, strict=True):
            grid = {"bits": bits, "symmetric": symmetric, **_ENDS_IN_FLOAT}
            method = f"{name}, {bits} bits, not trained"
            changes = _post_training(_DENSE, grid)
            yield Row(f"{name}-{bits}", "quantize", "post-training", method, changes, published)

    for bits, published in ((6, 91.45), (5, 91.12), (4, 89.72), (3, 76.62)):
        grid = {
            "bits": bits,
            "range": "mse",
            "per_channel": True,
            "batch_norm_images": 5000,
            **_ENDS_IN_FLOAT,
        }
        yield Row(
            f"improved-post-training-{bits}",
            "quantize",
            "post-training",
            f"least error per channel, {bits} bits, batch norm measured anew, not trained",
            _post_training(_DENSE, grid),
            published,
        )

    for bits, published in ((4, 91.36), (3, 90.49), (2, 85.87)):
        grid = {"bits": bits, **_ENDS_IN_FLOAT}
        method = f"asymmetric, {bits} bits, finetuned"
        yield Row(f"finetuned-{bits}", "quantize", "reference", method, _trained(_DENSE, grid), published)

    for bits, before, after in ((4, 87.22, 90.31), (3, 63.31, 88.46), (2, 10.00, 37.78)):
        start, grid = "iterative-global-70", {"bits": bits, **_ENDS_IN_FLOAT}
        method, changes = f"70 % removed, {bits} bits, not trained", _post_training(_DENSE, grid)
        yield Row(f"pruned-{bits}", "quantize", "post-training", method, changes, before, start)
        method, changes = f"70 % removed, {bits} bits, finetuned, zeros held", _trained(_DENSE, grid)
        yield Row(f"pruned-finetuned-{bits}", "quantize", "reference", method, changes, after, start)

    for bits, published in ((4, 91.36), (3, 90.49), (2, 85.87)):
        changes = _improved(_DENSE, {"bits": bits, **_OWN_GRID})
        method = f"learned steps, {bits} bits, distilled"
        yield Row(f"improved-{bits}", "quantize", "improved", method, changes, published)

    for share, bits, figure in ((70, 4, 90.31), (70, 3, 88.46), (70, 2, 37.78), (90, 4, None)):
        changes = _improved(
            {"sparsity": share / 100, **_OWN_PRUNING}, {"bits": bits, **_OWN_GRID, "after": 8}
        )
        method = f"{share} % removed, learned steps, {bits} bits, distilled"
        yield Row(f"improved-s{share}-w{bits}", "quantize", "improved", method, changes, figure)


def _frontier_rows() -> Iterable[Row]:
    changes = {**_post_training(_DENSE, _FLOAT), "pack": {"float16_parameters": False, "effort": "max"}}
    yield Row("start", "frontier", "post-training", "the dense network, packed as it is", changes)

    for seed in _SEEDS:
        named = f"-seed{seed}" if seed else ""
        for size in _SIZES:
            yield _of_frontier(
                f"bytes-{size // 1000}k{named}",
                "priced",
                f"a price per byte, at most {size:,} bytes",
                _DENSE,
                _PRICED_GRID,
                {"target_bytes": size, "rate_ramp": 0.5},
                more_seed=seed,
            )
    rounded = {"after": 28}  # in the same epochs, whatever decides on zeros
    for share, bits in ((70, 4), (70, 3), (70, 2), (80, 2), (90, 4), (90, 2)):
        schedule = {**_OWN_PRUNING, "epochs": 28, "updates_per_epoch": 1}
        fixed = f"fixed-s{share}-w{bits}"
        yield _of_frontier(
            fixed,
            "fixed",
            f"{share} % removed, learned steps, {bits} bits",
            {"sparsity": share / 100, **schedule},
            {"bits": bits, **_OWN_GRID, **rounded},
            {},
        )
        yield _of_frontier(
            f"as-large-as-{fixed}",
            "matched",
            f"a price per byte, to the bytes of {fixed}",
            _DENSE,
            {**_PRICED_GRID, **rounded},
            {"rate_ramp": 0.5},
            size_of=fixed,
        )


def _of_frontier(  # noqa: PLR0917 - the sections of a recipe
    name: str,
    kind: Kind,
    method: str,
    prune: dict[str, Any],
    quantize: dict[str, Any],
    finetune: dict[str, Any],
    *,
    size_of: str | None = None,
    more_seed: int = 0,
) -> Row:
    changes = _improved(prune, quantize)
    changes["finetune"] = {**_FRONTIER_TRAINING, **finetune}
    changes["pack"] = {"effort": "max"}
    return Row(name, "frontier", kind, method, changes, size_of=size_of, more_seed=more_seed)


ROWS: dict[str, Row] = {row.name: row for row in (*_pruning_rows(), *_quantization_rows(), *_frontier_rows())}


def rows_asked_for(study: Study, wanted: Iterable[str]) -> list[Row]:
    """Rows by name, pattern or kind, in the order of the study.

    Args:
        study: Whose rows.
        wanted: Names, shell-style patterns, kinds (``post-training``, ``reference`` and the like) or ``all``. As a
            kind, ``post-training`` leaves out rows that start from a row which is trained.

    Raises:
        CommandLineError: One of them fits no row.
    """
    of_study = [row for row in ROWS.values() if row.study == study]

    chosen: set[str] = set()
    for text in wanted:
        found = {row.name for row in of_study if text in _keywords(row) or fnmatchcase(row.name, text)}
        if not found:
            names = ", ".join(row.name for row in of_study)
            raise CommandLineError(
                f"--rows {text!r} fits no row; rows are {names}; kinds are {', '.join(get_args(Kind))}, all"
            )
        chosen |= found

    return [row for row in of_study if row.name in chosen]


def _keywords(row: Row) -> tuple[str, ...]:
    quick_only_by_itself = row.kind == "post-training" and row.start is not None
    return ("all",) if quick_only_by_itself else ("all", row.kind)


def choose_rows(study: Study, wanted: Iterable[str]) -> list[Row]:
    """`rows_asked_for`, and before them the rows that they need: to start from, or to be as large as.

    Example:
        >>> [row.name for row in choose_rows("quantize", ["pruned-3"])]
        ['iterative-global-70', 'pruned-3']
    """
    asked_for = rows_asked_for(study, wanted)
    names = {name for row in asked_for for name in (row.name, *row.after)}
    return [row for row in ROWS.values() if row.name in names]
