"""Some models at a series of prices and plainly rounded at every width; each file is measured on the test set once."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from modelpress.benchmarks.environment import describe_environment
from modelpress.export.choices import Effort
from modelpress.export.errors import InputError
from modelpress.export.graphs.parts import metadata
from modelpress.export.press.reading import read_artifact
from modelpress.export.press.writing import write_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.export.runtime import open_decoded, run_batched
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.data.network_input import network_inputs
from modelpress.toolkit.model_files.pricing import (
    MIN_ELEMENTS,
    PricedPacking,
    PriceRequest,
    onnx_in_float,
)
from modelpress.toolkit.output_folder import prepare_output_folder, write_json
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.studies.price.files import PLAIN, PRICED, plainly_rounded, zeros_in

SCHEMA_VERSION = 1
FLOAT = "float"
WIDTHS = tuple(range(8, 1, -1))


@dataclass(frozen=True)
class PriceFile:
    """One file.

    Attributes:
        model: Its name.
        kind: ``float``, ``min-max``, ``least-error`` or ``priced``.
        setting: Width in bits, or the price.
        size_bytes: Of the file; of the float model, of its numbers.
        top1: Of the test images, in ONNX Runtime.
        n_images: How many these are.
        zeros: Share of the codes.
        processor_s: Of rounding and of coding for a size, all threads together; None where it went on after an
            interruption.
    """

    model: str
    kind: str
    setting: float
    size_bytes: int
    top1: float
    n_images: int
    zeros: float = 0.0
    processor_s: float | None = 0.0


@dataclass(frozen=True)
class StudyPlan:
    """What is measured.

    Attributes:
        data: Test images of it count.
        calibration: Training inputs, without labels.
        n_inputs: Of these, at most.
        prices: Of a bit.
        widths: Of plain rounding, in this order until a file has lost too much.
        points: That a file may lose to be compared.
        effort: Of the coder, for all files.
    """

    data: DataSet
    calibration: Path
    n_inputs: int
    prices: tuple[float, ...]
    widths: tuple[int, ...] = WIDTHS
    points: float = 0.5
    effort: Effort = "max"


_FILES = TypeAdapter(PriceFile)


def run_study(
    paths: Iterable[Path], folder: Path, plan: StudyPlan, progress: Progress, *, overwrite: bool = False
) -> list[PriceFile]:
    """Measure what has not been measured in this folder; with `overwrite`, everything.

    Plain rounding goes through the widths until a file has lost more than `plan.points`.

    Returns:
        All files, in the order of the models.

    Raises:
        InputError: A model, the data or the folder are not usable.
        ModelError: A model holds something that cannot be packed.
    """
    prepare_output_folder(folder, overwrite=True, resume=None)  # nothing in it is a reason to refuse
    found: list[PriceFile] = []
    for path in paths:
        progress.stage(path.stem)
        found += _Row(path, folder, plan, progress, overwrite=overwrite).files()
    return found


class _Row:
    """One model."""

    def __init__(
        self, path: Path, folder: Path, plan: StudyPlan, progress: Progress, *, overwrite: bool
    ) -> None:
        self._name, self._folder, self._plan = path.stem, folder, plan
        self._progress, self._overwrite = progress, overwrite
        self._model = onnx_in_float(path, allow_external_data=False)
        inputs = network_inputs(plan.data.test, plan.data, metadata(self._model.graph))
        self._images = np.asarray(next(iter(inputs.values()))[:], np.float32)
        self._packing: PricedPacking | None = None

    def files(self) -> list[PriceFile]:
        """All of them, measured now or before."""
        found = [self._once(FLOAT, 0, self._in_float)]
        least = found[0].top1 - self._plan.points / 100
        for grid in PLAIN:
            for bits in self._plan.widths:
                found.append(self._once(grid, bits, partial(self._plain, grid, bits)))
                if found[-1].top1 < least:
                    break

        for price in self._plan.prices:
            found.append(self._once(PRICED, price, partial(self._priced, price)))
        if self._packing is not None:
            self._packing.finished()
        return found

    def _once(self, kind: str, setting: float, measure: Callable[[], PriceFile]) -> PriceFile:
        path = self._path(kind, setting, "json")
        before = None if self._overwrite else _measured_before(path)
        if before is not None:
            return before
        found = measure()
        write_json(path, asdict(found))
        self._progress.note(f"{self._name}, {kind} {setting:g}: {found.size_bytes:,} bytes, {found.top1:.2%}")
        return found

    def _in_float(self) -> PriceFile:
        n_bytes = sum(np.asarray(tensor).nbytes for tensor in self._model.tensors.values())
        return self._measured(FLOAT, 0, self._model, n_bytes)

    def _plain(self, grid: str, bits: int) -> PriceFile:
        return self._packed(grid, bits, plainly_rounded(self._model, grid, bits, min_elements=MIN_ELEMENTS))

    def _priced(self, price: float) -> PriceFile:
        began = time.process_time()
        if self._packing is None:
            request = PriceRequest(rate=1.0, data=self._plan.calibration, n_inputs=self._plan.n_inputs)
            self._packing = PricedPacking(
                self._model,
                request,
                effort=self._plan.effort,
                progress=self._progress,
                folder=self._folder / f".{self._name}.search",
            )
        priced, _ = self._packing.at(price)
        kept = self._packing.unfinished
        whole = kept is None or not kept.goes_on
        return self._packed(PRICED, price, priced.model, time.process_time() - began if whole else None)

    def _packed(
        self, kind: str, setting: float, model: QuantizedModel, processor_s: float | None = 0.0
    ) -> PriceFile:
        path = self._path(kind, setting, "press")
        size = write_artifact(path, model, effort=self._plan.effort)
        return self._measured(kind, setting, read_artifact(path), size, processor_s)

    def _measured(
        self, kind: str, setting: float, model: QuantizedModel, size: int, processor_s: float | None = 0.0
    ) -> PriceFile:
        logits = run_batched(open_decoded(model, spinning=False), self._images)
        top1 = float(np.mean(logits.argmax(axis=1) == self._plan.data.test.labels))
        seconds = None if processor_s is None else round(processor_s, 1)
        return PriceFile(self._name, kind, setting, size, top1, len(logits), zeros_in(model), seconds)

    def _path(self, kind: str, setting: float, ending: str) -> Path:
        return self._folder / f"{self._name}-{kind}-{setting:g}.{ending}"


def smallest(files: Iterable[PriceFile], kinds: Sequence[str], *, least: float) -> PriceFile | None:
    """The smallest file of some kinds that keeps an accuracy."""
    keeping = [file for file in files if file.kind in kinds and file.top1 >= least]
    return min(keeping, key=lambda file: file.size_bytes, default=None)


def comparison(files: Sequence[PriceFile], points: float) -> dict[str, Any]:
    """The smallest file at a price beside the smallest plain one, of one model; where either is missing, without ratio.

    Example:
        >>> files = [PriceFile("a", "float", 0, 400, 0.9, 100), PriceFile("a", "min-max", 5, 60, 0.899, 100)]
        >>> files += [PriceFile("a", "priced", 1e-7, 30, 0.897, 100), PriceFile("a", "priced", 1e-6, 20, 0.8, 100)]
        >>> comparison(files, 0.5)["smaller"]
        0.5
    """
    least = next(file.top1 for file in files if file.kind == FLOAT) - points / 100
    plain, priced = (smallest(files, kinds, least=least) for kinds in (PLAIN, (PRICED,)))
    smaller = None if plain is None or priced is None else 1 - priced.size_bytes / plain.size_bytes
    return {
        "model": files[0].model,
        "points": points,
        "plain": None if plain is None else asdict(plain),
        "priced": None if priced is None else asdict(priced),
        "smaller": smaller,
    }


def study_record(files: Sequence[PriceFile], plan: StudyPlan) -> dict[str, Any]:
    """What the study's JSON file holds."""
    names = list(dict.fromkeys(file.model for file in files))
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "price",
        "environment": describe_environment(),
        "calibration_inputs": plan.n_inputs,
        "effort": plan.effort,
        "compared": [
            comparison([file for file in files if file.model == name], plan.points) for name in names
        ],
        "files": [asdict(file) for file in files],
    }


def _measured_before(path: Path) -> PriceFile | None:
    if not path.is_file():
        return None
    try:
        return _FILES.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{path} is damaged; delete it to measure the file again") from error
