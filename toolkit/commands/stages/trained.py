"""What the commands that train have in common."""

from pathlib import Path

from modelpress.benchmarks.measures.metrics import TOP1
from modelpress.toolkit.commands.answers import answer_line
from modelpress.toolkit.compression.run import NetworkResult


def answer_training(result: NetworkResult, output: Path, *, as_json: bool) -> None:
    """Tell how right the network is on the held-out split."""
    accuracy, metric = result.validation_top1, result.metric
    named = "" if metric is TOP1 else f"{metric.name} "
    found = "no validation split" if accuracy is None else f"validation {named}{metric.shown(accuracy)}"
    figure = (
        {"validation_top1": accuracy} if metric is TOP1 else {"metric": metric.name, "validation": accuracy}
    )
    facts = {"output": str(output), **figure, "epochs": result.epochs}
    answer_line(f"{output}: {found}", facts, as_json=as_json)
