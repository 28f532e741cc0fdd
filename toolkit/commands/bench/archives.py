"""What `bench archives` does."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modelpress.benchmarks.codes.archives import Archived, archived
from modelpress.benchmarks.environment import describe_environment
from modelpress.export.choices import Effort
from modelpress.export.errors import InputError
from modelpress.toolkit.commands.console import print_table
from modelpress.toolkit.output_folder import file_facts
from modelpress.toolkit.progress import Progress


def measure_archives(
    paths: list[Path],
    effort: Effort,
    progress: Progress,
    *,
    known: list[Archived] | None = None,
    on_file: Callable[[dict[str, Any]], None] = lambda facts: None,
) -> dict[str, Any]:
    """Whole ONNX files without loss, beside general compressors.

    Args:
        paths: ONNX files.
        effort: Of packing.
        progress: Told of every file.
        known: Results of the same bytes at the same effort: files among them are not compressed again.
        on_file: Called with the record so far, after every file.

    Raises:
        InputError: A file cannot be read.
        ModelError: It holds something that cannot be packed.
    """
    by_content = {(entry.file, entry.sha256): entry for entry in known or []}
    facts: dict[str, Any] = {"effort": effort, "files": [], "environment": describe_environment()}

    progress.start("archives", len(paths))
    for path in paths:
        entry = by_content.get((path.name, file_facts(path)["sha256"])) or archived(path, effort)
        facts["files"].append(asdict(entry))
        on_file(facts)
        progress.advance(path.name)
    progress.finish()
    return facts


def known_archives(path: Path, effort: Effort) -> list[Archived]:
    """What an earlier record holds, to go on with.

    Raises:
        InputError: It is no such record, or one of another effort.
    """
    if not path.is_file():
        return []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        entries = [Archived(**entry) for entry in record["files"]]
        of_effort = record["effort"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path}: no record to go on with ({error}); pass --overwrite to start again"
        ) from error

    if of_effort != effort:
        raise InputError(f"{path}: is of effort {of_effort}, not {effort}; choose another --output")
    return entries


def show_archives(facts: dict[str, Any]) -> None:
    """One table."""
    rows = []
    for file in facts["files"]:
        ours, others = file["artifact"], {name: file[name] for name in ("zstandard", "xz")}
        sizes = {name: "–" if size is None else f"{size:,}" for name, size in others.items()}
        shares = {
            f"of {name}": "–" if size is None else f"{ours / size:.3f}" for name, size in others.items()
        }
        rows.append(
            {
                "file": file["file"],
                "original": f"{file['original']:,}",
                "ours": f"{ours:,}",
                **sizes,
                **shares,
            }
        )
    headings = {
        "file": "",
        "original": "bytes",
        "ours": "artifact",
        "zstandard": "zstd -19",
        "xz": "xz -9e",
        "of zstandard": "of zstd",
        "of xz": "of xz",
    }
    narrow = {key: headings[key] for key in ("file", "ours", "of zstandard", "of xz")}
    print_table(f"Without loss, effort {facts['effort']}", rows, headings, narrow=[narrow])
