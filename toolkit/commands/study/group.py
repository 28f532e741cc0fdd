"""The `study` commands: whole series of experiments, with tables and figures."""

import typer

from modelpress.toolkit.commands.lazy import MARKUP, Entry, example, lazy_group

COMMANDS = {
    "prune": Entry(
        "study.prune_command",
        "Pruning a trained network: the published experiments, and our recipe, each beside the published figure.",
    ),
    "quantize": Entry(
        "study.quantize_command",
        "Quantizing a trained network: the published experiments, and our recipes, each beside the published figure.",
    ),
    "frontier": Entry(
        "study.frontier_command",
        "Accuracy against bytes: files of given sizes, trained at a price per byte, beside fixed zeros and widths.",
    ),
    "price": Entry(
        "study.price_command",
        "Models packed at a price beside the nearest codes at every width: bytes at equal accuracy.",
    ),
    "networks": Entry(
        "study.networks_command",
        "Ten networks of other people: 50 % pruned, 4 bits, packed, decoded, written and run in every flavour.",
    ),
    "channels": Entry(
        "study.channels.channels_command",
        "Nine kinds of networks with 40 % of the weights gone in whole channels: the small beside the masked ones.",
    ),
    "budgets": Entry(
        "study.channels.budgets_command",
        "What budgets of latency leave of a network: multiplications, bytes, latency as floats and in int8.",
    ),
    "tasks": Entry(
        "study.tasks_command",
        "Images in a folder, a table, sounds, tokens: each trained, compressed, packed, measured and handed over.",
    ),
    "exports": Entry(
        "study.exports_command",
        "Ten networks of torchvision as both exporters write them: packed, in every flavour, beside quantize_static.",
    ),
    "sparse-regression": Entry(
        "study.sparse_regression_command",
        "Gradient descent, iterative pruning, L1 subgradient, proximal gradient, FISTA and trimmed L1 side by side.",
    ),
    "lasso-speed": Entry(
        "study.lasso_speed_command",
        "Our lasso solvers beside scikit-learn's coordinate descent, to the same duality gap.",
    ),
}

group = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=MARKUP, cls=lazy_group(COMMANDS)
)


@group.callback(epilog=example("modelpress study sparse-regression -o runs/sparse-regression"))
def _study() -> None:
    """Run a whole series of experiments."""
