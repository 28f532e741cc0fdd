"""YAML from anywhere, counted before it is built: an alias costs what it stands for, each time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from modelpress.export.errors import InputError
from modelpress.export.files.inputs import read_input

MAX_NODES = 10_000  # a recipe has some hundred
MAX_BYTES = 1 << 17
DESCRIBING = ("data", "task")  # the sections that describe data


def load_yaml(text: str) -> Any:
    """What `yaml.safe_load` gives.

    Raises:
        yaml.YAMLError: The text is no YAML, or comes to too many values once aliases and merge keys are written out.
        ValueError: A value is not what its type says, as a date of month 13.
        RecursionError: It is nested too deeply.

    Example:
        >>> load_yaml("base: &b {bits: 4}\\nquantize: {<<: *b, symmetric: true}")["quantize"]
        {'bits': 4, 'symmetric': True}
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _written_out(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node comes to; 0 stands in `known` for one that is not finished, and holds itself.

    Raises:
        yaml.YAMLError: They are too many, or endless.
    """
    if id(node) in known:
        if not known[id(node)]:
            raise yaml.YAMLError("an alias stands for what it is inside of")
        return known[id(node)]

    known[id(node)] = 0
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_written_out(child, known) for child in node.value)
    elif isinstance(node, yaml.MappingNode):
        total += sum(_written_out(child, known) for pair in node.value for child in pair)

    if total > MAX_NODES:
        raise yaml.YAMLError(f"more than {MAX_NODES:,} values once its aliases are written out")
    known[id(node)] = total
    return total


def described(data: str) -> dict[str, dict[str, Any]]:
    """The sections of a YAML file, or one that names the source.

    Raises:
        InputError: The file cannot be read, or holds no section ``data``.
    """
    if not data.lower().endswith((".yaml", ".yml")):
        return {"data": {"source": data}}
    try:
        document = load_yaml(read_input(Path(data), most=MAX_BYTES).decode())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{data}: is no YAML: {' '.join(str(error).split())}") from error
    found = document if isinstance(document, Mapping) else {}
    sections = {name: found[name] for name in DESCRIBING if name in found}
    if isinstance(sections.get("task"), str):
        sections["task"] = {"kind": sections["task"]}
    if not all(isinstance(section, Mapping) for section in sections.values()) or "source" not in sections.get(
        "data", {}
    ):
        raise InputError(f"{data}: expected a section data with a source, as in data: {{source: photos}}")
    return {name: dict(section) for name, section in sections.items()}
