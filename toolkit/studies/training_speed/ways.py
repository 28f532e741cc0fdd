"""One measurement of training speed; as a program, the process of its own that `training_speed` starts:

    python -m modelpress.toolkit.studies.training_speed.ways < JOB.json

prints the measurement as one line of JSON.
"""

import sys
from dataclasses import replace

import numpy as np

from modelpress.export.errors import InputError, ModelpressError
from modelpress.toolkit.compression.network_file import new_network
from modelpress.toolkit.compression.passes.finetune import finetune
from modelpress.toolkit.compression.passes.prune import prune
from modelpress.toolkit.compression.passes.quantize import quantize
from modelpress.toolkit.compression.starting import load_named
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work
from modelpress.toolkit.data.data_set import DataSet
from modelpress.toolkit.recipe import FinetuneOptions, PruneOptions, QuantizeOptions, Recipe, TrainingOptions
from modelpress.toolkit.studies.training_speed.plain_loop import train_plainly
from modelpress.toolkit.studies.training_speed.rounds import Measurement, Refusal, TrainingJob, Way
from modelpress.toolkit.training.device import Device, device_of

_EPOCHS = 2  # one to warm up, one to measure
_IMAGES_ON_CPU = 5120
_SPARSITY, _BITS = 0.7, 4


def measure(job: TrainingJob) -> Measurement:
    """Train a fresh network, for two epochs, in the way that the job asks for.

    The clock runs over an epoch's steps; what happens once (images into device memory, workers started) or takes no
    time to speak of (drawing the order of our batches) is outside.

    Raises:
        InputError: The data or the device are not there, there are fewer images, or torchvision is missing.
        ModelpressError: The loss is not finite.
    """
    recipe, bf16 = job.recipe, job.recipe.run.bf16 and job.way is not Way.FLOAT32
    device = device_of(recipe.run.model_copy(update={"bf16": bf16}))
    images = _training_images(recipe, device, job.images)
    options = _options(recipe.finetune, job.batch)

    network = new_network(recipe.model, seed=recipe.seed, n_classes=len(images.class_names))
    if job.way is Way.PLAIN:
        speeds = train_plainly(network, images, options, device.torch_device, workers=job.workers)
    else:
        device.place(network)
        recipe = _finetuning(recipe, options, job.way)
        speeds = _train_here(NetworkState(network, recipe.model), images, recipe, device, way=job.way)

    return Measurement(images_per_second=speeds[-1], images=len(images.train), device=device.describe())


def _training_images(recipe: Recipe, device: Device, n_images: int | None) -> DataSet:
    images = load_named(recipe)
    n_there = len(images.train)

    if n_images is None:
        n_images = min(_IMAGES_ON_CPU, n_there) if device.torch_device.type == "cpu" else n_there
    if n_images > n_there:
        raise InputError(f"--images is {n_images:,}; {recipe.data.dataset} has {n_there:,} training images")
    return replace(images, train=images.train.take(np.arange(n_images)))


def _options(finetune: TrainingOptions, batch: int) -> TrainingOptions:
    """What both loops do alike; the recipe's teacher and average would be more work for one of them."""
    return TrainingOptions(
        epochs=_EPOCHS,
        batch=batch,
        lr=finetune.lr,
        schedule="constant",
        momentum=finetune.momentum,
        nesterov=finetune.nesterov,
        weight_decay=finetune.weight_decay,
        padding=finetune.padding,
    )


def _finetuning(recipe: Recipe, options: TrainingOptions, way: Way) -> Recipe:
    """The recipe's data, network, layers and device; how to train and compress is ours to say."""
    learned = way is Way.LEARNED
    prune = PruneOptions(sparsity=_SPARSITY, exclude=recipe.prune.exclude)
    quantize = QuantizeOptions(
        bits=_BITS, range="mse" if learned else "min-max", learned=learned, layers=recipe.quantize.layers
    )
    return recipe.model_copy(
        update={
            "finetune": FinetuneOptions.model_validate(options.model_dump()),
            "prune": prune,
            "quantize": quantize,
        }
    )


def _train_here(
    state: NetworkState, images: DataSet, recipe: Recipe, device: Device, *, way: Way
) -> list[float]:
    """Finetune as every command does, with masks and quantizers where the way has them."""
    passes = [prune, quantize, finetune] if way in (Way.MIN_MAX, Way.LEARNED) else [finetune]
    work = Work(recipe=recipe, data=images, device=device)
    for each in passes:
        state = each(state, work)
    return [epoch["images_per_second"] for epoch in state.history["finetune"]]


def main() -> None:
    """Measure here; see the module."""
    job = TrainingJob.model_validate_json(sys.stdin.read())
    answer: Measurement | Refusal
    try:
        answer = measure(job)
    except ModelpressError as error:
        answer = Refusal(refused=str(error))
    print(answer.model_dump_json())


if __name__ == "__main__":
    main()
