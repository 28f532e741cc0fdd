"""What `inspect` and `verify` print."""

from typing import Any

from modelpress.export.coding.byte_parts import PARTS


def show_inspection(facts: dict[str, Any], *, wide: bool = False) -> None:
    """Print an inspection as tables."""
    from modelpress.toolkit.commands.console import answer_line, print_table

    numbers = ("bytes", *PARTS)
    rows = [
        {
            "name": tensor["name"],
            "shape": "x".join(map(str, tensor["shape"])),
            "bits": str(tensor["bits"] or "float"),
            "bits_per_weight": f"{tensor['bits_per_weight']:.2f}",
            "estimated_loss": "" if tensor["estimated_loss"] is None else f"{tensor['estimated_loss']:.1e}",
            "sparsity": f"{tensor['sparsity']:.1%}",
            "encoding": tensor["encoding"],
            **{key: f"{tensor[key]:,}" for key in numbers},
            "entropy_bound": "" if tensor["entropy_bound"] is None else f"{tensor['entropy_bound']:,}",
        }
        for tensor in facts["tensors"]
    ]

    # below the tensors, where the other bytes of the file are
    # a column that is empty in every row says nothing
    priced = ("estimated_loss",) if any(row["estimated_loss"] for row in rows) else ()
    each = ("bits_per_weight", *priced)
    rest = dict.fromkeys(("shape", "bits", *each, "sparsity", "encoding", *PARTS, "entropy_bound"), "")
    for name, size in (
        ("graph", facts["graph_bytes"]),
        ("tensor directory", facts["directory_bytes"]),
        ("shared code tables", facts["table_bytes"]),
        ("file and chunk headers", facts["frame_bytes"]),
        ("whole file", facts["size_bytes"]),
    ):
        rows.append({"name": name, "bytes": f"{size:,}", **rest})

    print_table(
        f"{facts['file']}, format {facts['format_version']}",
        rows,
        _headings("name", "shape", "bits", *each, "sparsity", "encoding", *numbers, "entropy_bound"),
        narrow=[
            *([_headings("name", "shape", "bits", *each, "sparsity", "bytes")] if priced else []),
            _headings("name", "shape", "bits", "sparsity", "encoding", "bytes"),
            _headings("name", "shape", "bits", "sparsity", "bytes"),
            _headings("name", "bits", "sparsity", "bytes"),
        ],
        text=("encoding",),
        wide=wide,
    )
    for key, value in facts["metadata"].items():
        answer_line(f"{key}: {value}")


def _headings(*keys: str) -> dict[str, str]:
    """Columns are titled with their keys, but for some."""
    titles = {"entropy_bound": "entropy", "bits_per_weight": "a weight", "estimated_loss": "loss"}
    return {key: titles.get(key, key) for key in keys}
