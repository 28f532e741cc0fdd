"""What the commands that train have in common."""

from pathlib import Path

from modelpress.toolkit.commands.answers import answer_line
from modelpress.toolkit.compression.run import NetworkResult


def answer_training(result: NetworkResult, output: Path, *, as_json: bool) -> None:
    """Tell how right the network is on the held-out split."""
    accuracy = result.validation_top1
    found = "no validation split" if accuracy is None else f"validation {accuracy:.2%}"
    facts = {"output": str(output), "validation_top1": accuracy, "epochs": result.epochs}
    answer_line(f"{output}: {found}", facts, as_json=as_json)
