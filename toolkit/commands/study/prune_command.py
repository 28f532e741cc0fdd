"""The `study prune` command."""

from modelpress.toolkit.commands.study.network_options import network_study

EXAMPLE = """
modelpress study prune --rows post-training -c resnet20-cifar10 --data-dir cifar10 --checkpoint resnet20.pt
modelpress study prune --epochs 5 -c resnet20-cifar10 --data-dir cifar10 --checkpoint resnet20.pt -o runs/short
"""

command = network_study(
    "prune",
    """Pruning a trained network: the published experiments, and our recipe, each beside the published figure.

    Of the recipe only data, model, seed and run count; the rows bring everything else. Stop it any time: the same
    command goes on.
    """,
)
