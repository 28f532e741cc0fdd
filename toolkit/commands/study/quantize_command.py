"""The `study quantize` command."""

from modelpress.toolkit.commands.study.network_options import network_study

EXAMPLE = """
modelpress study quantize --rows pruned-3 -c resnet20-cifar10 --data-dir cifar10 --checkpoint resnet20.pt
modelpress study quantize --epochs 5 -c resnet20-cifar10 --data-dir cifar10 --checkpoint resnet20.pt -o runs/short
"""

command = network_study(
    "quantize",
    """Quantizing a trained network: the published experiments, and our recipes, each beside the published figure.

    Of the recipe only data, model, seed and run count; the rows bring everything else. Stop it any time: the same
    command goes on.
    """,
)
