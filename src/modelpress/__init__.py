"""Prune, quantize, entropy-code and export neural networks, and measure the files that come out.

The names below are the public API; each is imported when it is first used, so that `import modelpress` costs nothing.

Example:
    >>> import modelpress, tempfile
    >>> from pathlib import Path
    >>> from onnx import parser, save
    >>> folder = tempfile.TemporaryDirectory()
    >>> source, packed = Path(folder.name, "model.onnx"), Path(folder.name, "model.press")
    >>> save(parser.parse_model('''
    ...     <ir_version: 8, opset_import: ["": 17]>
    ...     double (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {2, 0, 0, 2}> { y = MatMul(x, w) }
    ... '''), source)
    >>> modelpress.pack(source, packed, lossless=True).kept_tensors
    1
    >>> model = modelpress.read_artifact(packed)
    >>> model.tensors["w"].tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    >>> modelpress.write_onnx(Path(folder.name, "again.onnx"), model) > 0
    True
    >>> folder.cleanup()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelpress.benchmarks.records import Results
    from modelpress.export.errors import (
        ArtifactError,
        ChecksumMismatch,
        DamagedArtifact,
        InputError,
        ModelError,
        ModelpressError,
        NotAnArtifact,
        TruncatedArtifact,
        UnsupportedVersion,
    )
    from modelpress.export.press.reading import Artifact, open_artifact, read_artifact
    from modelpress.export.press.writing import write_artifact
    from modelpress.export.quantized import QuantizedModel, QuantizedTensor
    from modelpress.export.runtime import run_batched
    from modelpress.export.sessions import open_session
    from modelpress.toolkit.api import bench, pack, verify, write_onnx
    from modelpress.toolkit.compression.own_loop import compress
    from modelpress.toolkit.recipe import Recipe, load_recipe

    __version__: str

# Where each name is when it is asked for; a test compares this with the imports above, which type checkers read.
_HOME = {
    "Artifact": "export.press.reading",
    "ArtifactError": "export.errors",
    "ChecksumMismatch": "export.errors",
    "DamagedArtifact": "export.errors",
    "InputError": "export.errors",
    "ModelError": "export.errors",
    "ModelpressError": "export.errors",
    "NotAnArtifact": "export.errors",
    "QuantizedModel": "export.quantized",
    "QuantizedTensor": "export.quantized",
    "Recipe": "toolkit.recipe",
    "Results": "benchmarks.records",
    "TruncatedArtifact": "export.errors",
    "UnsupportedVersion": "export.errors",
    "bench": "toolkit.api",
    "compress": "toolkit.compression.own_loop",
    "load_recipe": "toolkit.recipe",
    "open_artifact": "export.press.reading",
    "open_session": "export.sessions",
    "pack": "toolkit.api",
    "read_artifact": "export.press.reading",
    "run_batched": "export.runtime",
    "verify": "toolkit.api",
    "write_artifact": "export.press.writing",
    "write_onnx": "toolkit.api",
}

__all__ = [
    "Artifact",
    "ArtifactError",
    "ChecksumMismatch",
    "DamagedArtifact",
    "InputError",
    "ModelError",
    "ModelpressError",
    "NotAnArtifact",
    "QuantizedModel",
    "QuantizedTensor",
    "Recipe",
    "Results",
    "TruncatedArtifact",
    "UnsupportedVersion",
    "__version__",
    "bench",
    "compress",
    "load_recipe",
    "open_artifact",
    "open_session",
    "pack",
    "read_artifact",
    "run_batched",
    "verify",
    "write_artifact",
    "write_onnx",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        value: Any
        try:
            value = version("modelpress")
        except PackageNotFoundError:  # run from its source
            value = "not installed"
    elif name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    """The public names beside those of the module."""
    return sorted({*globals(), *__all__})
