"""The `study prune` command."""

from modelpress.toolkit.commands.options import AsJson
from modelpress.toolkit.commands.recipe_options import (
    Bf16,
    Config,
    DataDir,
    DeviceName,
    Download,
    Seed,
    common_keys,
)
from modelpress.toolkit.commands.study.network_options import (
    STUDIES,
    Dense,
    RowEpochs,
    Rows,
    StartAgain,
    StudyFolder,
    run_study,
)

EXAMPLE = """
modelpress study prune --rows post-training -c resnet20-cifar10 --data-dir cifar10 --checkpoint resnet20.pt
modelpress study prune --epochs 5 -c resnet20-cifar10 --data-dir cifar10 --checkpoint resnet20.pt -o runs/short
"""


def command(
    rows: Rows = "all",
    config: Config = None,
    checkpoint: Dense = None,
    data_dir: DataDir = None,
    download: Download = False,
    epochs: RowEpochs = None,
    seed: Seed = None,
    device: DeviceName = None,
    bf16: Bf16 = None,
    output: StudyFolder = STUDIES,
    overwrite: StartAgain = False,
    as_json: AsJson = False,
) -> None:
    """Pruning a trained network: the published experiments, and our recipe, each beside the published figure.

    Of the recipe only data, model, seed and run count; the rows bring everything else. Stop it any time: the same
    command goes on.
    """
    options = {"model.checkpoint": checkpoint, **common_keys(None, data_dir, download, seed, device, bf16)}
    run_study("prune", rows, config, options, output, epochs=epochs, overwrite=overwrite, as_json=as_json)
