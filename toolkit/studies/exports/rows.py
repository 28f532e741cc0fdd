"""Ten networks of torchvision, each of another family."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from modelpress.export.errors import CommandLineError

EXPORTERS = ("torchscript", "dynamo")
NETWORKS = (
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "densenet121",
    "squeezenet1_1",
    "shufflenet_v2_x1_0",
    "mnasnet0_5",
    "regnet_y_400mf",
    "googlenet",
)
ROWS = tuple(f"{network}-{exporter}" for network in NETWORKS for exporter in EXPORTERS)


def choose_rows(wanted: Iterable[str]) -> list[str]:
    """Rows by name or pattern, in the order of the study; ``all`` is all.

    Raises:
        CommandLineError: One of them fits no row.

    Example:
        >>> choose_rows(["resnet*"])
        ['resnet18-torchscript', 'resnet18-dynamo']
    """
    chosen: set[str] = set()
    for text in wanted:
        found = {row for row in ROWS if text == "all" or fnmatchcase(row, text)}
        if not found:
            raise CommandLineError(f"--rows {text!r} fits no row; rows are {', '.join(ROWS)}")
        chosen |= found

    return [row for row in ROWS if row in chosen]
