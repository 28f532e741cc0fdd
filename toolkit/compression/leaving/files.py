"""The files of a run that leave early, and what is measured of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from modelpress.benchmarks.measures.exits import measure_exits
from modelpress.benchmarks.records import ExitsRecord
from modelpress.benchmarks.subjects.model_file import ModelFile
from modelpress.export.files.atomic import write_atomically
from modelpress.export.graphs.check import check_as_runtimes_do
from modelpress.export.onnx_flavours.leaving_early import LeavingEarly, leaving_early
from modelpress.export.post_training.calibration import ActivationRanges
from modelpress.export.quantized import QuantizedModel
from modelpress.toolkit.compression.run_folder import onnx_name
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.data.network_input import network_inputs
from modelpress.toolkit.recipe import ExitOptions


def write_leaving_early(
    packed: QuantizedModel, ranges: ActivationRanges | None, work: Work, folder: Path
) -> dict[str, LeavingEarly]:
    """The file with control flow of every flavour that the recipe asks for; by flavour, with its parts.

    Raises:
        ModelError: A flavour cannot be made of this model.
    """
    recipe = work.recipe
    made: dict[str, LeavingEarly] = {}
    for flavour in recipe.onnx:
        made[flavour] = leaving_early(
            packed, flavour=flavour, ranges=ranges, reduce_range=recipe.calibrate.reduce_range
        )
        name = onnx_name(f"{flavour}-exits")
        check_as_runtimes_do(made[flavour].one)
        data = made[flavour].one.SerializeToString()
        write_atomically(folder / name, data)
        work.progress.note(f"{name}: {len(data):,} bytes, checked")
    return made


def measured_exits(
    leaving: Mapping[str, LeavingEarly], models: Sequence[ModelFile], work: Work
) -> list[ExitsRecord]:
    """Who leaves where on the test images, and what that saves, by flavour."""
    if not leaving:
        return []
    data, options = work.data, work.recipe.exits or ExitOptions()
    images = np.asarray(next(iter(network_inputs(data.test, data, {}).values()))[:])
    files = {model.path.name: model for model in models}
    records = []

    work.progress.start("exits", 2 * len(leaving))
    for flavour, early in leaving.items():
        full = onnx_name(flavour)
        records.append(
            measure_exits(
                early,
                files[full].onnx_model,
                images,
                data.test.labels,
                names=(onnx_name(f"{flavour}-exits"), full),
                n_timed=options.timed,
                rounds=work.recipe.bench.rounds,
                on_step=work.progress.advance,
            )
        )
    work.progress.finish()

    for record in records:
        work.progress.note(
            f"{record.path}: top-1 {record.top1:.2%} against {record.baseline_top1:.2%}, mean latency "
            f"{record.ratio:.2f}x"
        )
    return records
