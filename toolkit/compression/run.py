"""The chain: which passes a recipe asks for, and the runs that carry them out.

checkpoint → prune → quantize → finetune → freeze → model.press → ONNX → ONNX Runtime → report
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from modelpress.benchmarks.measures.metrics import TOP1, Metric
from modelpress.benchmarks.records import Results, read_results, write_results
from modelpress.benchmarks.report.page import write_report
from modelpress.export.errors import CommandLineError, InputError
from modelpress.export.files.places import check_not_read
from modelpress.export.onnx_flavours import write_onnx
from modelpress.export.press.reading import read_artifact
from modelpress.export.press.writing import write_artifact
from modelpress.toolkit.compression.freeze import freeze_state
from modelpress.toolkit.compression.judging.held_out import HeldOut
from modelpress.toolkit.compression.measuring import measure, write_flavours
from modelpress.toolkit.compression.network_file import load_network, save_network
from modelpress.toolkit.compression.passes.batch_norm import batch_norm
from modelpress.toolkit.compression.passes.choose_exits import choose_exits
from modelpress.toolkit.compression.passes.finetune import finetune
from modelpress.toolkit.compression.passes.half_parameters import half_parameters
from modelpress.toolkit.compression.passes.prune import prune, pruned_by_magnitude
from modelpress.toolkit.compression.passes.quantize import quantize
from modelpress.toolkit.compression.passes.shrink import shrink
from modelpress.toolkit.compression.passes.sparsify import sparsify
from modelpress.toolkit.compression.passes.train import train
from modelpress.toolkit.compression.passes.train_exits import train_exits
from modelpress.toolkit.compression.pruning.shrinking import narrowed
from modelpress.toolkit.compression.run_folder import (
    DENSE,
    PRESS,
    REPORT,
    RESULTS,
    RunFolder,
    files_read,
    is_complete,
)
from modelpress.toolkit.compression.starting import check_dense, check_recipe_fits, start
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import TrainingSection, Work, network_files
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.output_folder import check_network_output, state_path
from modelpress.toolkit.progress import Progress, Silent
from modelpress.toolkit.recipe import Recipe
from modelpress.toolkit.training.evaluate import validation_figure
from modelpress.toolkit.training.team import join_team

Pass = Callable[[NetworkState, Work], NetworkState]


def passes_of(recipe: Recipe) -> list[Pass]:
    """What leads from the dense network to the compressed one, in order.

    Example:
        >>> [each.__name__ for each in passes_of(Recipe())]
        ['prune', 'quantize', 'finetune', 'batch_norm', 'half_parameters']
    """
    heads = [train_exits] if recipe.exits is not None else []
    return [*heads, *pruning_passes(recipe), *passes_after_pruning(recipe)]


def pruning_passes(recipe: Recipe) -> list[Pass]:
    """What prunes before the network is quantized; nothing where the finetuning does, on a schedule."""
    if recipe.prune.scheduled:
        return []
    first = sparsify if recipe.prune.by_penalty else prune
    return [first, shrink] if recipe.prune.of_channels and recipe.prune.shrink else [first]


def passes_after_pruning(recipe: Recipe) -> list[Pass]:
    """What leads from the pruned network to the compressed one; each asks the recipe whether it has to act."""
    thresholds = [choose_exits] if recipe.exits is not None else []
    return [quantize, finetune, batch_norm, half_parameters, *thresholds]


def carry_out(passes: Iterable[Pass], state: NetworkState, work: Work) -> NetworkState:
    """Apply the passes one after the other; where the recipe distils, the teacher is `state` as it is now.

    Raises:
        InputError: The teacher is not usable, or a pass does not fit the network.
        Interrupted: Stopped on request.
    """
    work = work.with_teacher(state)
    for each in passes:
        state = each(state, work)
    return state


def compress(dense: NetworkState, work: Work) -> NetworkState:
    """Carry out the recipe's sections prune, sparsify, quantize and finetune; the network file is kept.

    Args:
        dense: Where to start; its network is changed. What was removed from it before stays removed.
        work: What to do, and where unfinished trainings and networks are kept.

    Raises:
        InputError: The teacher is not usable, or the network is quantized already.
        Interrupted: Stopped on request.
    """
    compressed = carry_out(passes_of(work.recipe), dense, work)
    work.keep("finetune", compressed)
    return compressed


def run_recipe(
    recipe: Recipe,
    output: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    held_out: HeldOut | None = None,
) -> Results | None:
    """Carry out a recipe; every file of the result is in `output`.

    Args:
        recipe: What to do.
        output: Folder; made if it is not there.
        overwrite: Replace the files of an earlier run.
        resume: Go on with an earlier run of the same recipe.
        progress: Told of every stage.
        held_out: Judge by held-out examples, and never look at the test set.

    Returns:
        What was measured; None in those of several processes that only help with the training.

    Raises:
        InputError: The recipe, the data, the checkpoint or the folder is not usable; found before training.
        Interrupted: Stopped on request; `resume` continues.
    """
    with join_team(recipe.run.device) as team:
        if not team.first:
            _help(recipe, output, resume=resume)
            return None

        folder = RunFolder(recipe, output, progress or Silent())
        folder.prepare(overwrite=overwrite, resume=resume)
        if resume and is_complete(recipe, output):
            folder.progress.note("this run is complete already")
            return read_results(output / RESULTS)
        return _run(folder, resume=resume, held_out=held_out)


def _run(folder: RunFolder, *, resume: bool, held_out: HeldOut | None) -> Results:
    recipe, output, progress = folder.recipe, folder.path, folder.progress

    with folder.stage("load"):
        dense, work = _start_run(recipe, output, resume=resume, progress=progress)
        if held_out is not None:
            work = held_out.judging(work)
        progress.note(f"{work.data.name}: {_counts(work.data)}; {work.device.describe()}")
    folder.begin(work.device, resume=resume)
    watched = replace(work, watch=lambda point, state: folder.report_validation(point, state, work))

    if recipe.model.checkpoint is None:
        with folder.stage("train"):
            dense = train(dense, work)
    with folder.stage("evaluate"):
        folder.report_validation("dense", dense, work)
        write_onnx(output / DENSE, freeze_state(dense), flavour="float")

    with folder.timed("compress"):  # its passes announce themselves
        compressed = compress(dense, watched)
    with folder.stage("pack"):
        frozen = freeze_state(compressed, note=progress.note)
        size = write_artifact(output / PRESS, frozen, effort=recipe.pack.effort)
        progress.note(f"{PRESS}: {size:,} bytes, decodes bit-exactly")
    with folder.stage("onnx"):
        leaving = write_flavours(read_artifact(output / PRESS), work, output)

    with folder.stage("bench"):
        if held_out is None:
            results = measure(compressed, work, output, folder.manifest["environment"], leaving=leaving)
        else:
            results = held_out.measured(compressed, work, folder)
    with folder.stage("report"):
        write_results(output / RESULTS, results)
        write_report(output / REPORT, [results])
    folder.finish(compressed, work.data)
    return results


def _help(recipe: Recipe, output: Path, *, resume: bool) -> None:
    """Take part in the trainings of the process that runs the same recipe; writes nothing."""
    if resume and is_complete(recipe, output):
        return
    dense, work = _start_run(recipe, output, resume=resume, progress=Silent())
    if recipe.model.checkpoint is None:
        dense = train(dense, work)
    compress(dense, work)


def _start_run(
    recipe: Recipe, output: Path, *, resume: bool, progress: Progress
) -> tuple[NetworkState, Work]:
    dense, work = start(recipe, progress=progress, outputs=network_files(output), resume=resume)
    check_dense(dense)
    check_recipe_fits(dense, recipe, work.device)
    return dense, work


def _counts(images: DataSet) -> str:
    counts = (
        f"{len(images.train):,} training, {len(images.validation):,} validation, {len(images.test):,} test"
    )
    return f"{counts} {images.noun}"


@dataclass(frozen=True)
class NetworkResult:
    """What a single stage made.

    Attributes:
        state: The network, as it is in the file.
        validation_top1: Accuracy on the held-out split, or the task's own figure; None without such a split, and where
            no images were read.
        epochs: Of its training, as in the history; empty where nothing was trained.
        metric: What the figure is.
    """

    state: NetworkState
    validation_top1: float | None
    epochs: list[dict[str, object]]
    metric: Metric = TOP1


def train_network(
    recipe: Recipe,
    output: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> NetworkResult:
    """Train the recipe's dense network and write its network file.

    Args:
        recipe: Its sections data, model, train and run count.
        output: Network file, ``.safetensors``; an unfinished training is kept beside it.
        overwrite: Replace an earlier file.
        resume: Go on with the unfinished training.
        progress: Told of every epoch.

    Raises:
        InputError: Data, checkpoint or output are not usable, or the checkpoint is compressed already.
        Interrupted: Stopped on request; `resume` continues.
    """
    _check_output(recipe, output, overwrite=overwrite, resume=resume)
    state, work = start(recipe, progress=progress or Silent(), outputs={"train": output}, resume=resume)
    check_dense(state)
    return _finished(train(state, work), work, "train")


def prune_network(
    recipe: Recipe,
    output: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> NetworkResult:
    """Prune the recipe's checkpoint, at once or by a penalty while training, and write the network file.

    By magnitude neither images nor a device are needed.

    Args:
        recipe: Its section prune says how; a penalty trains by its section sparsify.
        output: Network file, ``.safetensors``; an unfinished training is kept beside it.
        overwrite: Replace an earlier file.
        resume: Go on with the unfinished training.
        progress: Told of every epoch.

    Raises:
        InputError: Checkpoint, data or output are not usable; or the recipe removes weights while it finetunes.
        Interrupted: Stopped on request; `resume` continues.
    """
    if recipe.model.checkpoint is None:
        raise InputError("there is no network to prune: set model.checkpoint")
    passes = pruning_passes(recipe)
    if not passes:
        raise CommandLineError(
            "this recipe removes weights while it finetunes: give the dense network to `quantize` or `run`, or set "
            "prune.schedule to one-shot"
        )
    _check_output(recipe, output, overwrite=overwrite, resume=resume)

    if prune in passes:
        loaded = load_network(Path(recipe.model.checkpoint), recipe.model)
        progress = progress or Silent()
        for note in loaded.notes:
            progress.note(note)
        pruned = pruned_by_magnitude(loaded, recipe.prune)
        if shrink in passes:
            found = narrowed(pruned)
            progress.note(found.words)
            pruned = found.state
        save_network(output, pruned)
        state_path(output).unlink(missing_ok=True)
        return NetworkResult(pruned, None, [])

    state, work = start(recipe, progress=progress or Silent(), outputs={"sparsify": output}, resume=resume)
    return _finished(carry_out(passes, state, work), work, "sparsify")


def quantize_network(
    recipe: Recipe,
    output: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> NetworkResult:
    """Quantize the recipe's checkpoint, finetune it on its grid with zeros held, and write the network file.

    Args:
        recipe: Its sections quantize and finetune say how; a schedule of its section prune prunes on the way.
        output: Network file, ``.safetensors``; an unfinished training is kept beside it.
        overwrite: Replace an earlier file.
        resume: Go on with the unfinished training.
        progress: Told of every epoch.

    Raises:
        InputError: Checkpoint, teacher, data or output are not usable.
        Interrupted: Stopped on request; `resume` continues.
    """
    _check_output(recipe, output, overwrite=overwrite, resume=resume)
    state, work = start(recipe, progress=progress or Silent(), outputs={"finetune": output}, resume=resume)
    quantized = carry_out(passes_after_pruning(recipe), state, work)
    work.keep("finetune", quantized)
    return _finished(quantized, work, "finetune")


def _check_output(recipe: Recipe, output: Path, *, overwrite: bool, resume: bool) -> None:
    """`check_network_output`, and that it is none of the recipe's own files."""
    check_not_read(output, files_read(recipe))
    check_network_output(output, overwrite=overwrite, resume=resume)


def _finished(state: NetworkState, work: Work, section: TrainingSection) -> NetworkResult:
    """Drop what the unfinished training needed, and measure on the held-out split."""
    unfinished = work.unfinished(section)
    if unfinished is not None:
        unfinished.unlink(missing_ok=True)
    figure = validation_figure(state.compressed(), work.data, work.device)
    return NetworkResult(state, figure, state.history.get(section, []), work.data.metric)
