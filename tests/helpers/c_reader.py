"""The reader in C, called from Python: a whole file as one stretch of bytes (see `tests/c/read_whole.h`)."""

import ctypes
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.helpers.c_compilers import HOST, TESTS, build
from tests.reference.press_reference import Refused, dequantized

# Why a file is refused that this reader, unlike the reference, cannot see
LEFT_OUT = "names are equal after normalisation and case folding"


# Slabs of 64 elements, to have several in small tensors
SMALL_SLABS = (
    "-DPRESS_SLAB_ELEMENTS=(size_t)64",
    "-DPRESS_KERNEL_SLAB=(size_t)64",
    "-DPRESS_MIXED_SLAB=(size_t)64",
    "-DPRESS_LANE_SYMBOLS=(size_t)16384",
)


@cache
def library(*flags):
    """`read_whole` and the reader's own functions; skips the test without a compiler."""
    with tempfile.TemporaryDirectory() as folder:
        path = build(
            HOST, Path(folder) / "reader.so", [TESTS / "read_whole.c"], "-O1", "-shared", "-fPIC", *flags
        )
        loaded = ctypes.CDLL(str(path))
    loaded.press_message.restype = ctypes.c_char_p
    data, size = ctypes.c_char_p, ctypes.c_size_t
    loaded.read_whole.argtypes = (data, size, ctypes.c_uint64, data, size, ctypes.POINTER(size))
    loaded.press_inflate.argtypes = (data, size, data, size)
    loaded.press_lzma_probabilities.restype = size
    loaded.press_unlzma.argtypes = (
        *(data, size, ctypes.c_uint, data),
        *(data, size, data, size, ctypes.c_int),
    )
    loaded.press_check_graph.argtypes = loaded.press_crc32.argtypes = (data, size)
    loaded.press_crc32.restype = ctypes.c_uint32
    loaded.press_is_text.argtypes = (data, size, ctypes.c_int)
    return loaded


@cache
def is_there():
    """Whether there is a compiler for this machine."""
    return shutil.which(HOST.compiler) is not None


@cache
def _room(size):
    return ctypes.create_string_buffer(size)


def read_whole(data, max_decoded, *flags):
    """The bytes; or None and why the file is refused."""
    out = _room(2 * max_decoded + (8 << 20))  # codes and supports take no more than values
    written = ctypes.c_size_t()
    status = library(*flags).read_whole(data, len(data), max_decoded, out, len(out), ctypes.byref(written))
    if status:
        return None, library().press_message(status).decode()
    return ctypes.string_at(out, written.value), None


def disagreement(data, reading, max_decoded, *flags):
    """What is wrong about how the reader in C reads these bytes, or None; `reading` is the reference's."""
    found, reason = read_whole(data, max_decoded, *flags)
    if isinstance(reading, Refused):
        return (
            None if found is None or LEFT_OUT in str(reading) else f"only the reader in C accepted: {reading}"
        )
    if found is None:
        return f"only the reader in C refused: {reason}"
    return None if found == expected(reading) else "the reader in C reads something else"


def expected(model):
    """What `read_whole` must give for what the reference read."""
    values = b"".join(map(dequantized, model.tensors))
    quantized = [tensor for tensor in model.tensors if tensor.grid is not None]
    return values + b"".join(map(codes_and_support, quantized)) + model.graph


def codes_and_support(tensor):
    support = tensor.support or [True] * len(tensor.codes)
    return bytes((code or 0) % 256 for code in tensor.codes) + bytes(support)
