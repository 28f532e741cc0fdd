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
            "sparsity": f"{tensor['sparsity']:.1%}",
            "encoding": tensor["encoding"],
            **{key: f"{tensor[key]:,}" for key in numbers},
            "entropy_bound": "" if tensor["entropy_bound"] is None else f"{tensor['entropy_bound']:,}",
        }
        for tensor in facts["tensors"]
    ]

    # below the tensors, where the other bytes of the file are
    rest = dict.fromkeys(("shape", "bits", "sparsity", "encoding", *PARTS, "entropy_bound"), "")
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
        _headings("name", "shape", "bits", "sparsity", "encoding", *numbers, "entropy_bound"),
        narrow=[
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
    """Columns are titled with their keys, but for one."""
    return {key: "entropy" if key == "entropy_bound" else key for key in keys}
