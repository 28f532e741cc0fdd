"""What firmware takes: flash and memory layer by layer, multiplications, and the arena drawn."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from modelpress.export.choices import Optimise
from modelpress.export.firmware.c_text import template
from modelpress.export.firmware.generating import Firmware
from modelpress.export.firmware.network import Activation, Conv, ConvValues, Operator
from modelpress.export.safe_text import for_markdown, for_terminal

_WIDTH = 64  # of the drawing, in letters
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class LayerFacts:
    """One step.

    Attributes:
        name: As in the graph.
        operator: What it is.
        output: Shape of what it makes.
        coding: Of its weights; empty without any.
        codes: Bytes of coded weights.
        tables: Bytes of code tables and values; shared ones count for the first layer.
        biases: Bytes of biases and scales.
        memory: Bytes of the activations that are there while it runs.
        products: Multiplications of a dense network.
        run: Those that are run: weights that are not zero.
    """

    name: str
    operator: str
    output: tuple[int, int, int]
    coding: str
    codes: int
    tables: int
    biases: int
    memory: int
    products: int
    run: int


def layer_facts(firmware: Firmware) -> list[LayerFacts]:
    """Every step in its order."""
    seen: set[bytes] = set()
    return [
        _facts(firmware, place, operator, seen) for place, operator in enumerate(firmware.network.operators)
    ]


def _facts(firmware: Firmware, place: int, operator: Operator, seen: set[bytes]) -> LayerFacts:
    made = firmware.network.activations.get(operator.output)
    output = (firmware.network.outputs, 1, 1) if made is None else (made.channels, made.height, made.width)
    memory = _memory(firmware, place)
    if not isinstance(operator, Conv | ConvValues):
        kind = getattr(operator, "kind", type(operator).__name__)
        return LayerFacts(operator.name, kind, output, "", 0, 0, 0, memory, 0, 0)

    weights, coded = operator.weights, firmware.coded[operator.output]
    fresh = {table for table in (coded.masks, coded.levels) if table not in seen}
    seen |= fresh
    tables = sum(map(len, fresh)) + (0 if coded.values is None else coded.values.size)
    positions = output[1] * output[2]
    with_sum = isinstance(operator, Conv) and operator.added is not None
    return LayerFacts(
        operator.name,
        weights.kind + (" + Add" if with_sum else ""),
        output,
        coded.coding,
        len(coded.codes),
        tables,
        firmware.channel_bytes[operator.output],
        memory,
        weights.rows.size * positions,
        int(np.count_nonzero(weights.rows)) * positions,
    )


def _memory(firmware: Firmware, place: int) -> int:
    arena = firmware.arena
    starts = {
        (arena.planes[name].start, arena.planes[name].size)
        for name, (first, last) in arena.lives.items()
        if first <= place <= last
    }
    return sum(size for _, size in starts)


def flash_elsewhere(firmware: Firmware) -> dict[str, int]:
    """Bytes of the same weights in other forms, biases and scales of 8 bytes a channel with the integers."""
    layers = [o.weights for o in firmware.network.operators if isinstance(o, Conv | ConvValues)]
    channels = sum(weights.outputs for weights in layers)
    size = sum(weights.rows.size for weights in layers)
    table_bits = sum(weights.rows.size * (4 if weights.bits <= 4 else 8) for weights in layers)
    tables = sum(16 * weights.outputs for weights in layers if weights.bits <= 4)  # one for each channel
    return {
        "int8": size + 8 * channels,
        "4-bit look-up tables": table_bits // 8 + tables + 8 * channels,
        "float32": 4 * (size + channels),
    }


def drawing(firmware: Firmware) -> str:
    """The arena from its start to its end, a line for each step, a letter for each activation that is there."""
    arena = firmware.arena
    letters = {name: _LETTERS[k % len(_LETTERS)] for k, name in enumerate(arena.lives)}
    unit = max(arena.size, 1) / _WIDTH
    lines = []
    for place, operator in enumerate(firmware.network.operators):
        line = ["."] * _WIDTH
        for name, (first, last) in arena.lives.items():
            if first <= place <= last:
                planes = arena.planes[name]
                end = max(int((planes.start + planes.size) / unit), int(planes.start / unit) + 1)
                for k in range(int(planes.start / unit), min(end, _WIDTH)):
                    line[k] = letters[name]
        lines.append(f"{''.join(line)}  {for_terminal(operator.name)[:40]}")
    return "\n".join(lines)


def facts_of(firmware: Firmware) -> dict[str, Any]:
    """All of it, for programs."""
    layers, source = layer_facts(firmware), firmware.network.source
    return {
        "input": {
            "shape": [source.channels, source.height, source.width],
            "scale": float(source.scale),
            "zero": source.zero,
        },
        "outputs": firmware.network.outputs,
        "optimise": str(firmware.options.optimise),
        "arithmetic": str(firmware.options.arithmetic),
        "arena_bytes": firmware.room.end,
        "activation_bytes": firmware.arena.size,
        "weight_bytes": sum(layer.codes + layer.tables + layer.biases for layer in layers),
        "products": sum(layer.products for layer in layers),
        "products_run": sum(layer.run for layer in layers),
        "elsewhere": flash_elsewhere(firmware),
        "layers": [asdict(layer) for layer in layers],
    }


def readme(firmware: Firmware, *, n_vectors: int) -> str:
    """`README.md` of the folder."""
    layers = layer_facts(firmware)
    return template("README.md.j2").render(
        facts=facts_of(firmware),
        layers=[(layer, for_markdown(layer.name), "×".join(map(str, layer.output))) for layer in layers],
        drawing=drawing(firmware),
        source=firmware.network.source,
        outputs=firmware.network.outputs,
        ending=firmware.network.ending,
        pixels=firmware.network.pixel_tables is not None,
        is_integer=firmware.is_integer,
        is_small=firmware.options.optimise is Optimise.SIZE,
        n_vectors=n_vectors,
        size=_size,
    )


def _size(activation: Activation) -> str:
    return f"{activation.channels} × {activation.height} × {activation.width}"
