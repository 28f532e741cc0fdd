"""The folder that a firmware engineer gets."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from modelpress.export import coding
from modelpress.export.choices import Target
from modelpress.export.files.atomic_folder import atomic_folder
from modelpress.export.files.places import check_folder_place
from modelpress.export.firmware.generating import Firmware
from modelpress.export.firmware.report import facts_of, readme
from modelpress.export.firmware.vectors import Vectors, vectors_header

REPORT = "report.json"
_SOURCES = Path(__file__).parent / "c"
_CORE = Path(coding.__file__).parent
_COPIED = (
    "press_nn.h",
    "press_nn_arithmetic.h",
    "press_nn_by_value.h",
    "press_nn.c",
    "press_nn_conv.c",
    "press_nn_exact.c",
    "Makefile",
    "CMakeLists.txt",
    "test/host_test.c",
    "test/test_same.h",
    "example/main.c",
    "example/startup.c",
    "example/cortex-m.ld",
)
_OF_NETWORK = ("model.c", "model.h", "test/vectors.h", "README.md", REPORT)
_BUILD = "build"
_DECODER = {"press.h": "press.h", "press_internal.h": "press_internal.h", "press_huffman.c": "press.c"}
_NUMBERED = 256  # by a byte
_GUARD = "#define PRESS_H\n"
_SMALL = """
/* The decoder as firmware needs it: short tables, runs of any length in one piece. */
#ifndef PRESS_SMALL
#define PRESS_SMALL
#endif
"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What kernels are compiled for; press_nn.h.

    Attributes:
        integers: Integers only.
        whole_bytes: No codes have other bounds than 0 and 255.
        few_products: Layers that do not go by value are compiled for size.
        many_planes: There are more activations than a byte can number.
    """

    integers: bool = False
    whole_bytes: bool = False
    few_products: bool = False
    many_planes: bool = False

    def __call__(self, header: str) -> str:
        """`press_nn.h` with these."""
        for name, value in asdict(self).items():
            setting = f"#define PRESS_NN_{name.upper()}"
            header = header.replace(f"{setting} 0", f"{setting} {int(value)}", 1)
        return header


def fixed_files(settings: Settings) -> dict[str, str]:
    """What is the same for every network: kernels, decoder, builds, tests and example, by name."""
    files = {name: (_SOURCES / name).read_text() for name in _COPIED}
    for source, name in _DECODER.items():
        files[name] = (_CORE / source).read_text()
    files["press_nn.h"] = settings(files["press_nn.h"])
    files["press.h"] = files["press.h"].replace(_GUARD, _GUARD + _SMALL, 1)
    return files


def settings_of(firmware: Firmware) -> Settings:
    """Those of a network."""
    return Settings(
        integers=firmware.is_integer,
        whole_bytes=firmware.network.has_whole_bytes,
        few_products=firmware.has_few_products,
        many_planes=len(firmware.arena.planes) > _NUMBERED,
    )


def files_of(firmware: Firmware, vectors: Vectors, *, target: Target = Target.HOST) -> dict[str, str]:
    """The whole folder, by name; `target`: what `make` builds where it is told nothing."""
    fixed = fixed_files(settings_of(firmware))
    default = "test" if target is Target.HOST else str(target)
    return {
        **fixed,
        "Makefile": fixed["Makefile"].replace("all: test", f"all: {default}", 1),
        "model.c": firmware.source,
        "model.h": firmware.header,
        "test/vectors.h": vectors_header(vectors, firmware.network, integers=firmware.is_integer),
        "README.md": readme(firmware, n_vectors=len(vectors.codes)),
        REPORT: json.dumps(facts_of(firmware), indent=2) + "\n",
    }


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Make sure that firmware may take this place, before the work for it starts.

    Raises:
        InputError: Something is there that is not to be replaced, or the path cannot be looked at.
    """
    check_folder_place(folder, _strangers, kind="firmware", overwrite=overwrite)


def _strangers(folder: Path) -> list[str]:
    own = _own_names()
    return sorted(path.name for path in folder.iterdir() if path.name not in own)


def _own_names() -> set[str]:
    """What lies in a folder of firmware, and what its Makefile puts there."""
    written = (*_COPIED, *_DECODER.values(), *_OF_NETWORK)
    return {name.partition("/")[0] for name in written} | {_BUILD}


def write_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Write all files, or nothing.

    Raises:
        InputError: The folder cannot be written.
    """
    with atomic_folder(folder) as new:
        fill_folder(new, files)


def fill_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Write all files into a folder that is there."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
