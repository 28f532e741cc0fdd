"""The reader in C, called from Python: a whole file as one stretch of bytes (see `tests/c/read_whole.h`)."""

import ctypes
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.helpers.c_compilers import HOST, TESTS, build
from tests.reference.press_reference import dequantized

# Why a file is refused that this reader, unlike the reference, cannot see
LEFT_OUT = "names are equal after normalisation and case folding"


@cache
def library():
    """`read_whole` and `press_message`; skips the test without a compiler."""
    with tempfile.TemporaryDirectory() as folder:
        path = build(HOST, Path(folder) / "reader.so", [TESTS / "read_whole.c"], "-O2", "-shared", "-fPIC")
        loaded = ctypes.CDLL(str(path))
    loaded.press_message.restype = ctypes.c_char_p
    pointer, size = ctypes.c_char_p, ctypes.c_size_t
    loaded.read_whole.argtypes = (pointer, size, ctypes.c_uint64, pointer, size, ctypes.POINTER(size))
    return loaded


def is_there():
    """Whether there is a compiler for this machine."""
    return shutil.which(HOST.compiler) is not None


def read_whole(data, max_decoded):
    """The bytes; or None and why the file is refused."""
    out = ctypes.create_string_buffer(3 * max_decoded + (8 << 20))
    written = ctypes.c_size_t()
    status = library().read_whole(data, len(data), max_decoded, out, len(out), ctypes.byref(written))
    if status:
        return None, library().press_message(status).decode()
    return ctypes.string_at(out, written.value), None


def expected(model):
    """What `read_whole` must give for what the reference read."""
    values = b"".join(map(dequantized, model.tensors))
    quantized = [tensor for tensor in model.tensors if tensor.grid is not None]
    return values + b"".join(map(codes_and_support, quantized)) + model.graph


def codes_and_support(tensor):
    support = tensor.support or [True] * len(tensor.codes)
    return bytes((code or 0) % 256 for code in tensor.codes) + bytes(support)
