"""A model packed at a price per bit: the smallest loss for its bytes, without training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from modelpress.export.choices import CALIBRATION_INPUTS, Effort
from modelpress.export.errors import CommandLineError, InputError
from modelpress.export.files.kinds import check_ending
from modelpress.export.graphs.batch_norm import fold_batch_norm
from modelpress.export.graphs.cleaning.constant_folding import with_constants_computed
from modelpress.export.graphs.cleaning.constant_identities import without_constant_identities
from modelpress.export.graphs.cleaning.layout import with_weights_in_place
from modelpress.export.graphs.parts import metadata
from modelpress.export.lazy_tensors import dense_of, spec_of
from modelpress.export.post_training.calibration import Feed, calls_of
from modelpress.export.post_training.packing import WeightOptions, open_for_packing
from modelpress.export.post_training.rounding import PostTraining, quantize_weight
from modelpress.export.press.writing import PASSES, encode_artifact, write_artifact
from modelpress.export.quantized import QuantizedModel
from modelpress.export.rate.activations import outputs_of
from modelpress.export.rate.divergence import Divergence, divergence
from modelpress.export.rate.outcomes import LayerOutcome, with_price
from modelpress.export.rate.pricing import Priced, Pricing
from modelpress.export.rate.search import Found, highest_price, lowest_price
from modelpress.export.rate.unfinished import Unfinished, fingerprint_of
from modelpress.toolkit.data.calibration_data import load_calibration
from modelpress.toolkit.data.calibration_feeds import load_feeds
from modelpress.toolkit.progress import Progress

MIN_ELEMENTS = 128
_BATCH = 64
_PROBED = 256  # inputs that measure sensitivities
_FIRST_LOSS = 0.02  # that a search begins with, of the variance of the outputs


@dataclass(frozen=True)
class PriceRequest:
    """How small, or how good; one of the first three.

    Attributes:
        rate: Price of a bit, in units of the loss: squared error of the outputs over their variance.
        target: Most bytes of the file.
        loss: Most loss: percentage points of inputs whose class may change with `in_points`, else the root of the
            squared error of the outputs over their variance.
        in_points: What `loss` counts.
        data: Calibration inputs: a file or a folder.
        n_inputs: How many of them at most.
        min_elements: Smaller weights stay as they are.

    Raises:
        CommandLineError: Not one of the three is given, or it is out of range.
    """

    rate: float | None = None
    target: int | None = None
    loss: float | None = None
    in_points: bool = True
    data: Path | None = None
    n_inputs: int = CALIBRATION_INPUTS
    min_elements: int = MIN_ELEMENTS

    def __post_init__(self) -> None:
        given = [value for value in (self.rate, self.target, self.loss) if value is not None]
        if len(given) != 1:
            raise CommandLineError("give one of --rate, --target and --loss")
        if not 0 < given[0] < float("inf"):
            raise CommandLineError(f"a price, size or loss is {given[0]:g}; expected a number above 0")


@dataclass(frozen=True)
class PricedReport:
    """What packing at a price came to.

    Attributes:
        output: The file.
        source_bytes: Of the model before, with its weights in float32.
        size_bytes: Of the file.
        ratio: The former by the latter.
        price: Of a bit.
        estimated_loss: Sum of the layers'.
        measured_error: Root of the squared error of the outputs over their variance, on the calibration inputs.
        changed_points: Percentage of calibration inputs whose class changed; None where there are no classes.
        layers: Every weight that was rounded.
        kept: Why other weights were not.
    """

    output: str
    source_bytes: int
    size_bytes: int
    ratio: float
    price: float
    estimated_loss: float
    measured_error: float
    changed_points: float | None
    layers: tuple[LayerOutcome, ...]
    kept: Mapping[str, str]


def onnx_in_float(path: Path, *, allow_external_data: bool) -> QuantizedModel:
    """An ONNX file with its constants computed and batch norm folded.

    Raises:
        InputError: The file cannot be read.
        ModelError: It is no valid model, or holds something that cannot be packed.
    """
    lossless = WeightOptions(lossless=True, min_elements=0)
    source = open_for_packing(path, lossless, allow_external_data=allow_external_data)
    dense = {name: dense_of(source.model.tensors, name) for name in source.model.tensors}
    return in_place(QuantizedModel(source.model.graph, dense))


def in_place(model: QuantizedModel) -> QuantizedModel:
    """The same function with every weight where an operator reads it, and batch norm folded into the layers."""
    for clean in (
        with_constants_computed,
        without_constant_identities,
        with_weights_in_place,
        fold_batch_norm,
    ):
        model = clean(model)
    return model


class PricedPacking:
    """One model, packed at any price.

    Args:
        model: In float.
        request: What is wanted.
        effort: How hard files are written.
        progress: Told of everything that takes time.
        folder: Where what is done is kept until `finished`, so that the same search goes on after an interruption;
            None: nowhere.
    """

    def __init__(
        self,
        model: QuantizedModel,
        request: PriceRequest,
        *,
        effort: Effort,
        progress: Progress,
        folder: Path | None = None,
    ) -> None:
        self.request, self.effort, self.progress = request, effort, progress
        feeds = _feeds(model, request)
        fitted, self._held = _split(feeds) if request.loss is not None else (feeds, feeds)
        self.unfinished = self._opened(folder, model, feeds, n_fitted=len(fitted))
        n_probes = -(-_PROBED // max(min(len(np.atleast_1d(value)) for value in feeds[0].values()), 1))
        progress.note(f"measuring how far the outputs move with each channel, on {len(fitted)} calls")
        self.pricing = Pricing.of(
            model,
            fitted,
            min_elements=request.min_elements,
            n_probes=n_probes,
            unfinished=self.unfinished,
        )
        self._before = self.pricing.outputs if self._held is fitted else outputs_of(model, self._held)
        self._priced: dict[float, tuple[Priced, int]] = {}

    def _opened(
        self, folder: Path | None, model: QuantizedModel, feeds: Sequence[Feed], *, n_fitted: int
    ) -> Unfinished | None:
        if folder is None:
            return None
        facts: dict[str, object] = {"effort": self.effort, "fitted": n_fitted}
        facts["min_elements"] = self.request.min_elements
        facts["version"] = version("modelpress")
        found = Unfinished(folder, fingerprint_of(model, feeds, facts))
        if found.goes_on:
            self.progress.note("going on with what an interrupted search has left")
        return found

    def finished(self) -> None:
        """Everything is written: what was kept for going on is of no use any more."""
        if self.unfinished is not None:
            self.unfinished.remove()

    @property
    def first_price(self) -> float:
        """Where a search begins: at fine steps the loss of a weight is the price over ``2 ln 2``."""
        n_weights = sum(int(np.prod(layer.shape)) for layer in self.pricing.layers)
        return _FIRST_LOSS / max(0.75 * n_weights, 1)

    def at(self, price: float) -> tuple[Priced, int]:
        """The model at a price, and the size of its file; kept for when it is asked for again."""
        if price not in self._priced:
            self.progress.start(f"price {price:.3g}", len(self.pricing.layers))
            try:
                priced = self.pricing.at(price, on_layer=self.progress.advance)
            finally:
                self.progress.finish()
            losses = {layer.name: layer.loss for layer in priced.layers}
            priced = replace(priced, model=with_price(self._complete(priced.model), price, losses))
            size = int(
                self._figure(price, "size", lambda: len(encode_artifact(priced.model, effort=self.effort)))
            )
            self.progress.note(
                f"price {price:.3g}: {size:,} bytes, estimated loss {priced.estimated_loss:.3g}"
            )
            self._priced[price] = priced, size
        return self._priced[price]

    def _figure(self, price: float, name: str, measure: Callable[[], float]) -> float:
        """A number that belongs to a price; measured unless it has been."""
        known = {} if self.unfinished is None else self.unfinished.figures(price)
        if name not in known:
            known[name] = measure()
            if self.unfinished is not None:
                self.unfinished.keep_figures(price, known)
        return known[name]

    def measured(self, priced: Priced) -> Divergence:
        """How far its outputs are from those in float."""
        return divergence(self._before, outputs_of(priced.model, self._held))

    def found(self) -> float:
        """The price that the request asks for.

        Raises:
            InputError: No price reaches the size or the loss.
        """
        request = self.request
        if request.rate is not None:
            return request.rate
        if request.target is not None:
            found = lowest_price(lambda p: self.at(p)[1], limit=request.target, start=self.first_price)
            return _reached(
                found, f"{request.target:,} bytes", f"the smallest file has {found.figure:,.0f} bytes"
            )

        assert request.loss is not None
        found = highest_price(self._loss_at, limit=request.loss, start=self.first_price)
        unit = " points" if request.in_points else ""
        return _reached(
            found, f"a loss of {request.loss:g}{unit}", f"the least loss is {found.figure:.3g}{unit}"
        )

    def _loss_at(self, price: float) -> float:
        found = self.measured(self.at(price)[0])
        if self.request.in_points and found.changed is None:
            raise InputError("the model's outputs are no classes: give --loss without pt, as in --loss 0.1")
        loss = found.points if self.request.in_points else found.error
        self.progress.note(f"price {price:.3g}: loss {loss:.3g}{' points' * self.request.in_points}")
        return loss

    def _complete(self, model: QuantizedModel) -> QuantizedModel:
        """The weights that have no price, rounded to the nearest code of 8 bits, as they are without calibration."""
        tensors = dict(model.tensors)
        for name in self.pricing.kept:
            array = np.asarray(tensors[name])
            tensors[name] = quantize_weight(array, PostTraining(), channel_axis=None)
        return QuantizedModel(model.graph, tensors)


def pack_at_price(
    model: QuantizedModel, output: Path, request: PriceRequest, *, effort: Effort, progress: Progress
) -> PricedReport:
    """Pack a model in float at the price that is asked for; interrupted, the same call goes on where it was.

    Raises:
        InputError: The calibration data do not fit, no price reaches the target, or a file cannot be written.
        ModelError: The model holds something that cannot be packed.
    """
    check_ending(output, "an artifact", (".press",))
    packing = PricedPacking(model, request, effort=effort, progress=progress, folder=search_folder(output))
    for name, reason in packing.pricing.kept.items():
        progress.note(f"{name}: rounded to the nearest code of 8 bits: {reason}")
    price = packing.found()
    priced, _ = packing.at(price)

    progress.start("pack", PASSES * len(priced.model.tensors))
    try:
        size = write_artifact(output, priced.model, effort=effort, on_tensor=progress.advance)
    finally:
        progress.finish()
    report = report_of(packing, priced, output, size)
    packing.finished()
    return report


def search_folder(output: Path) -> Path:
    """Where the search for a file keeps what it has, while it is unfinished."""
    return output.with_name(f".{output.name}.search")


def report_of(packing: PricedPacking, priced: Priced, output: Path, size: int) -> PricedReport:
    """What one file came to."""
    source = sum(
        spec_of(packing.pricing.model.tensors, name).n_bytes for name in packing.pricing.model.tensors
    )
    found = packing.measured(priced)
    return PricedReport(
        str(output),
        source,
        size,
        source / size,
        priced.price,
        priced.estimated_loss,
        found.error,
        None if found.changed is None else found.points,
        priced.layers,
        dict(packing.pricing.kept),
    )


def facts_of(report: PricedReport) -> dict[str, Any]:
    """A report for programs."""
    return asdict(report)


def _feeds(model: QuantizedModel, request: PriceRequest) -> list[Feed]:
    if request.data is None:
        raise CommandLineError(
            "packing at a price needs inputs to measure on: pass --calibration-data PATH; 500 to 2,000 inputs do"
        )
    inputs = load_feeds(request.data, model, n_calls=request.n_inputs)
    if inputs is None:
        given = load_calibration(request.data, n_images=request.n_inputs, metadata=metadata(model.graph))
        return calls_of(model, given, batch=_BATCH)
    return calls_of(model, inputs, batch=_BATCH)


def _split(feeds: Sequence[Feed]) -> tuple[list[Feed], list[Feed]]:
    """Calls to calibrate on, and the last quarter to measure on; all for both where there are fewer than four."""
    n_held = len(feeds) // 4
    if not n_held:
        return [*feeds], [*feeds]
    return [*feeds[:-n_held]], [*feeds[-n_held:]]


def _reached(found: Found, wanted: str, nearest: str) -> float:
    if found.price is None:
        raise InputError(f"no price reaches {wanted}: {nearest}; ask for that, or for more")
    return found.price
