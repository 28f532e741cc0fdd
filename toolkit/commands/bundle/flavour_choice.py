"""`model.onnx` of a bundle, where no flavour is asked for: the smallest that runs everywhere."""

from dataclasses import dataclass
from pathlib import Path

from modelpress.export.errors import ModelError
from modelpress.export.onnx_flavours import FLAVOURS, write_onnx
from modelpress.export.quantized import QuantizedModel

EVERYWHERE = tuple(name for name, flavour in FLAVOURS.items() if flavour.integer is None)


@dataclass(frozen=True)
class WrittenModel:
    """What was written.

    Attributes:
        why: Why this flavour; empty where it was asked for.
    """

    flavour: str
    why: str = ""


def write_smallest(path: Path, model: QuantizedModel) -> WrittenModel:
    """The smallest of the flavours that every engine runs in `bench runtime --engines`: those that compute in float.

    Raises:
        InputError: The file cannot be written.
        ModelError: The graph is no valid ONNX model.
    """
    sizes: dict[str, int] = {}
    part = path.with_name(f"{path.stem}.other.onnx")
    for flavour in EVERYWHERE:
        try:
            size = write_onnx(part, model, flavour=flavour)
        except ModelError:
            if flavour == EVERYWHERE[0]:  # which any valid model can be
                raise
            continue
        if size < min(sizes.values(), default=size + 1):
            part.replace(path)
        sizes[flavour] = size
    part.unlink(missing_ok=True)

    smallest = min(sizes, key=lambda flavour: sizes[flavour])
    listed = ", ".join(f"{flavour} {size:,}" for flavour, size in sizes.items())
    return WrittenModel(
        smallest,
        f"the smallest of those that compute in float ({listed} bytes), which ONNX Runtime from 1.15 on, its build for "
        "the web, OpenVINO and OpenCV run; integers are faster where they are fused, but not every engine runs them",
    )
