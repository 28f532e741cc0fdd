"""What pyproject.toml cannot say of the build: the compiled codes, if there is a compiler.

They use Python's stable ABI, so one wheel serves every Python from 3.11 on.
"""

import sys

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

CODING, READER = "export/coding", "export/press/c"
CODES = (
    "press",
    "press_encode",
    "press_grid",
    "press_huffman",
    "press_mixed",
    "press_plain",
    "press_slabs",
    "press_sign_rows",
    "press_split",
)
FILES = ("checksums", "directory", "frame", "graph", "inflate", "lzma", "names", "reader")
ABI = (3, 11)  # the oldest Python of this package, whose stable ABI has the buffer protocol


class BuildCodes(build_ext):
    """Optimised for speed, and no fused multiply-add: floats are rounded after every operation (FORMAT.md, "Grid")."""

    def build_extensions(self) -> None:
        if self.compiler.compiler_type != "msvc":
            for extension in self.extensions:
                extension.extra_compile_args += [
                    "-std=c99",
                    "-O3",
                    "-ffp-contract=off",
                    "-fvisibility=hidden",
                ]
                if sys.platform.startswith("linux"):
                    extension.extra_link_args += ["-s"]  # no symbols: a tenth of the size
        super().build_extensions()


class Wheel(bdist_wheel):
    """One wheel serves every Python from the oldest on."""

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else (f"cp{ABI[0]}{ABI[1]}", "abi3", platform)


setup(
    ext_modules=[
        Extension(
            "modelpress.export.coding._core",
            [
                *(f"{CODING}/{part}.c" for part in ("_core", "_core_file", *CODES)),
                *(f"{READER}/press_{part}.c" for part in FILES),
            ],
            include_dirs=[CODING, READER],
            depends=[
                *(f"{CODING}/{header}.h" for header in ("_core", "press", "press_internal", "press_linked")),
                *(f"{READER}/press_{header}.h" for header in ("parts", "printable", "reader")),
            ],
            define_macros=[("Py_LIMITED_API", f"0x{ABI[0]:02X}{ABI[1]:02X}0000")],
            py_limited_api=True,
            optional=True,  # without a compiler everything works through NumPy
        )
    ],
    cmdclass={"build_ext": BuildCodes, "bdist_wheel": Wheel},
)
