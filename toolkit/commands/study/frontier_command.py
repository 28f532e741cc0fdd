"""The `study frontier` command."""

from modelpress.toolkit.commands.study.network_options import network_study

EXAMPLE = """
modelpress study frontier --rows bytes-49k -c resnet20-cifar10 --data-dir cifar10 --checkpoint dense.safetensors
modelpress study frontier --rows matched --epochs 20 -c resnet20-cifar10 --data-dir cifar10 --checkpoint net.pt
"""

command = network_study(
    "frontier",
    """Accuracy against bytes: files of given sizes, trained at a price per byte, beside fixed zeros and widths.

    Rows of the kind matched bring those of fixed zeros along, and train at a price to the very bytes of their files.
    Of the recipe only data, model (with its teacher), seed and run count; the rows bring everything else. Stop it any
    time: the same command goes on.
    """,
)
