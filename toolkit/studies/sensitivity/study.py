"""What `sensitivity` does: its question, and the record of the answer."""

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from modelpress.benchmarks.environment import describe_environment
from modelpress.export.errors import CommandLineError, InputError
from modelpress.toolkit.compression.passes.half_parameters import half_parameters
from modelpress.toolkit.compression.run_folder import recorded_recipe
from modelpress.toolkit.compression.starting import start
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.progress import Progress, Silent
from modelpress.toolkit.recipe import QuantizeOptions, Recipe
from modelpress.toolkit.studies.sensitivity.measuring import (
    Sensitivity,
    WidthFile,
    WidthFiles,
    check_budget,
    measure,
    measured_options,
    measuring_images,
    pack_widths,
    propose,
    quality_with,
)
from modelpress.toolkit.training.evaluate import Judged, Quality

SCHEMA_VERSION = 1
_USUAL_BITS = 4  # of the uniform file whose size is the budget where none is given


@dataclass(frozen=True)
class Question:
    """What is asked about a network.

    Attributes:
        bits: Widths, ascending.
        budget: Of the whole file, in bytes; None: what it takes with 4 bits in every layer.
        n_images: At most so many are measured on.
    """

    bits: tuple[int, ...]
    budget: int | None
    n_images: int


def parse_bits(text: str) -> tuple[int, ...]:
    """Widths as they are written on the command line, ascending.

    Raises:
        CommandLineError: One is no whole number from 2 to 8 or is given twice, or there are none.

    Example:
        >>> parse_bits("8, 2,4")
        (2, 4, 8)
    """
    parts = text.replace(",", " ").split()
    if not parts or not all(re.fullmatch("[2-8]", part) for part in parts):
        raise CommandLineError(f"--bits is {text!r}; expected whole numbers from 2 to 8, as in --bits 2,4,8")
    bits = tuple(sorted(map(int, parts)))
    if len(set(bits)) < len(bits):
        raise CommandLineError(f"--bits is {text!r}; a width is given twice: give each one once")
    return bits


def check_unquantized(state: NetworkState, path: Path) -> None:
    """Refuse a network whose weights lie on a grid already.

    Raises:
        InputError: They do.
    """
    if state.quantizers:
        raise InputError(
            f"{path} is quantized already, so its layers say nothing about other widths; expected a dense or a "
            "pruned network: give the one that `quantize` started from"
        )


def measure_sensitivity(
    recipe: Recipe, question: Question, *, progress: Progress | None = None
) -> dict[str, Any]:
    """`run_sensitivity` of the recipe's checkpoint.

    Raises:
        InputError: Checkpoint, data or device are not usable, the network is quantized already, or as there.
    """
    state, work = start(recipe, progress=progress or Silent())
    check_unquantized(state, Path(str(recipe.model.checkpoint)))
    return run_sensitivity(state, work, question)


def run_sensitivity(state: NetworkState, work: Work, question: Question) -> dict[str, Any]:
    """Measure, propose, build; returns what the file holds.

    Args:
        state: Not quantized; its network is on the device.
        work: The recipe's section `quantize` says what the grids are like, `pack` whether float16 may be tried. Test
            images are not looked at; the device computes in float32.
        question: Widths and budget.

    Raises:
        InputError: The budget is too small, or the network's loss is not finite.
    """
    began = time.perf_counter()
    recipe, progress = work.recipe, work.progress
    source, chosen = measuring_images(work.data, limit=question.n_images, seed=recipe.seed)
    progress.note(f"{len(chosen):,} {source} images")

    # float16 is judged by the very images that losses are measured on
    if source == "validation":
        sample = replace(work.data, validation=chosen)
        state = half_parameters(state, replace(work, data=sample))

    split = Judged.of(chosen, work.data, work.device.torch_device)
    files = WidthFiles(state, recipe.quantize)
    pack_widths(files, question.bits, progress)
    budget = files.uniform(_USUAL_BITS).size_bytes if question.budget is None else question.budget
    check_budget(files, question.bits, budget=budget)

    sensitivity = measure(files, split, question.bits, progress)
    proposal = propose(sensitivity, files, budget=budget)
    uniform = [files.uniform(width) for width in question.bits]
    built = _measured(state, [*uniform, proposal], split, progress)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "sensitivity",
        "environment": describe_environment(),
        "recipe": recorded_recipe(recipe, Path()),
        "images": {"split": source, "count": len(chosen), "seed": recipe.seed},
        **_judged_by(work.data),
        "grid": _grid(recipe.quantize),
        "parameters": state.parameter_precision,
        "bits": list(question.bits),
        "budget_bytes": budget,
        "reference": asdict(sensitivity.reference),
        "layers": _layer_records(sensitivity, proposal),
        "uniform": [{"bits": next(iter(file.bits.values())), **_built(file, q)} for file, q in built[:-1]],
        "proposal": {
            **_built(*built[-1]),
            "bits": proposal.bits,
            "summed_loss_increase": sensitivity.summed(proposal.bits),
            "recipe": recipe_snippet(recipe.quantize, proposal.bits),
        },
        "seconds": time.perf_counter() - began,
    }


def _judged_by(data: DataSet) -> dict[str, Any]:
    """What the key `top1` of the record holds, where it is another figure."""
    metric = data.metric
    return {} if data.classifies else {"metric": {"name": metric.name, "fraction": metric.fraction}}


def _measured(
    state: NetworkState, files: Sequence[WidthFile], split: Judged, progress: Progress
) -> list[tuple[WidthFile, Quality]]:
    measured = []
    progress.start("uniform widths and proposal", len(files))
    try:
        for file in files:
            measured.append((file, quality_with(file.weights, state.network, split)))
            progress.advance()
    finally:
        progress.finish()
    return measured


def _grid(options: QuantizeOptions) -> dict[str, Any]:
    measured = measured_options(options)
    return {key: getattr(measured, key) for key in ("symmetric", "per_channel", "zero_point", "range")}


def _built(file: WidthFile, quality: Quality) -> dict[str, Any]:
    rest = file.size_bytes - sum(file.layer_bytes.values())
    return {"size_bytes": file.size_bytes, "rest_bytes": rest, **asdict(quality)}


def _layer_records(sensitivity: Sensitivity, proposal: WidthFile) -> list[dict[str, Any]]:
    return [
        {
            "name": layer,
            "weights": n_weights,
            "widths": [
                {
                    "bits": width,
                    "bytes": sensitivity.layer_bytes[layer][width],
                    **asdict(sensitivity.alone[layer][width]),
                    "loss_increase": sensitivity.increase(layer, width),
                }
                for width in sensitivity.bits
            ],
            "proposed_bits": proposal.bits[layer],
        }
        for layer, n_weights in sensitivity.weights.items()
    ]


def recipe_snippet(options: QuantizeOptions, bits: Mapping[str, int]) -> str:
    """The recipe's `quantize` section with these widths, as YAML: the commonest one, and the layers that differ.

    Example:
        >>> print(recipe_snippet(QuantizeOptions(), {"head": 8, "a": 3, "b": 3}), end="")
        quantize:
          bits: 3
          range: mse
          layers:
            head: 8
    """
    (common, _), *_ = Counter(bits.values()).most_common()
    kept = options.model_dump(mode="json", exclude_defaults=True, exclude={"bits", "range", "layers"})
    exceptions = {layer: width for layer, width in bits.items() if width != common}
    section = {"bits": common, **kept, "range": "mse", "layers": exceptions}
    return yaml.safe_dump({"quantize": section}, sort_keys=False)
