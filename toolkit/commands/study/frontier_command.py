"""The `study frontier` command."""

from modelpress.toolkit.commands.options import AsJson
from modelpress.toolkit.commands.recipe_options import (
    Bf16,
    Config,
    DataDir,
    DeviceName,
    Download,
    Seed,
    Settings,
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
modelpress study frontier --rows bytes-49k -c resnet20-cifar10 --data-dir cifar10 --checkpoint dense.safetensors
modelpress study frontier --rows matched --epochs 20 -c resnet20-cifar10 --data-dir cifar10 --checkpoint net.pt
"""


def command(
    rows: Rows = "all",
    config: Config = None,
    checkpoint: Dense = None,
    data_dir: DataDir = None,
    download: Download = False,
    settings: Settings = [],
    epochs: RowEpochs = None,
    seed: Seed = None,
    device: DeviceName = None,
    bf16: Bf16 = None,
    output: StudyFolder = STUDIES,
    overwrite: StartAgain = False,
    as_json: AsJson = False,
) -> None:
    """Accuracy against bytes: files of given sizes, trained at a price per byte, beside fixed zeros and widths.

    Rows of the kind matched bring those of fixed zeros along, and train at a price to the very bytes of their files.
    Of the recipe only data, model (with its teacher), seed and run count; the rows bring everything else. Stop it any
    time: the same command goes on.
    """
    options = {"model.checkpoint": checkpoint, **common_keys(None, data_dir, download, seed, device, bf16)}
    run_study(
        "frontier",
        rows,
        config,
        options,
        output,
        epochs=epochs,
        overwrite=overwrite,
        as_json=as_json,
        settings=settings,
    )
