"""What `sensitivity` shows: a table of layers, a table of files, and the lines for the recipe."""

from typing import Any

from modelpress.toolkit.commands.console import answer_line, print_table


def show_sensitivity(record: dict[str, Any]) -> None:
    """Print two tables and the lines for the recipe."""
    metric = record.get("metric")
    figure, loss = (metric["name"], "loss") if metric else ("top-1", "loss, nats")
    in_percent = metric is None or metric["fraction"]
    widths = [str(width) for width in record["bits"]]
    headings = {"name": "layer", "weights": "weights", **{w: f"{w} bits" for w in widths}, "bits": "use"}
    print_table(
        f"Loss increase with one layer quantized, in 1/1000{'' if metric else ' nats'}, and the bits to use",
        [_layer_row(layer) for layer in record["layers"]],
        headings,
    )
    files = [
        {"name": "not quantized", "bytes": "–", **_quality_cells(record["reference"], in_percent)},
        *(_file_row(f"{file['bits']} bits", file, in_percent) for file in record["uniform"]),
        _file_row("proposal", record["proposal"], in_percent),
    ]
    print_table(
        f"No training; budget {record['budget_bytes']:,} bytes",
        files,
        {"name": "all layers", "bytes": "bytes", "loss": loss, "top1": figure},
    )
    for line in _remarks(record):
        answer_line(line)
    answer_line("For the recipe:")
    answer_line("")
    for line in record["proposal"]["recipe"].splitlines():
        answer_line(line)


def _layer_row(layer: dict[str, Any]) -> dict[str, str]:
    increases = {str(width["bits"]): _thousandths(width["loss_increase"]) for width in layer["widths"]}
    return {
        "name": layer["name"],
        "weights": f"{layer['weights']:,}",
        **increases,
        "bits": str(layer["proposed_bits"]),
    }


def _thousandths(nats: float) -> str:
    """At most six characters, so that all widths from 2 to 8 find room in 110 columns."""
    return f"{1000 * nats:.1f}" if abs(nats) < 1 else f"{1000 * nats:,.0f}"


def _file_row(name: str, file: dict[str, Any], in_percent: bool) -> dict[str, str]:
    return {"name": name, "bytes": f"{file['size_bytes']:,}", **_quality_cells(file, in_percent)}


def _quality_cells(quality: dict[str, Any], in_percent: bool) -> dict[str, str]:
    value = quality["top1"]
    return {"loss": f"{quality['loss']:.4f}", "top1": f"{value:.2%}" if in_percent else f"{value:.4g}"}


def _remarks(record: dict[str, Any]) -> list[str]:
    """What a reader should not overlook."""
    proposal, budget = record["proposal"], record["budget_bytes"]
    better = [
        f"{file['bits']} bits in every layer"
        for file in record["uniform"]
        if file["size_bytes"] <= budget and file["loss"] < proposal["loss"]
    ]
    if not better:
        return []
    return [f"Within the budget too, and with a smaller loss on these images: {', '.join(better)}."]
