"""Integers round as float32 does, ties and what is near to them included."""

import struct
import subprocess
from fractions import Fraction

import numpy as np

from modelpress.export.firmware.folder import Settings, fixed_files, write_folder
from tests.helpers.firmware import SANITIZED, compile_c

HARNESS = """
#include <stdio.h>
#include "press_nn_arithmetic.h"

int main(void)
{
    struct { int32_t sum; uint32_t scale, first, second, constant; uint8_t a, b, shift, more; } one;

    while (fread(&one, sizeof one, 1, stdin) == 1) {
        const press_nn_sum sum = {one.first, one.second, one.constant, one.shift, 0, 255};
        const press_nn_terms terms = press_nn_terms_of(&sum);

        putchar(press_nn_code(one.sum, press_nn_factor_of(one.scale), 128, 0, 255));
        putchar(press_nn_sum_code(one.a, one.b, &terms));
    }
    return 0;
}
"""
SHIFT = 20


def rounded(value):
    """To float32: of two neighbours of what a float64 says, the nearer."""
    guess = np.float32(float(value))
    near = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    return min(near, key=lambda x: (abs(Fraction(float(x)) - value), int(x.view(np.uint32)) & 1))


def fused(code, ratio, addend):
    return rounded(code * Fraction(float(ratio)) + Fraction(float(addend)))


def byte(value):
    return int(np.clip(np.rint(value), 0, 255))


def test_codes_in_integers_are_those_of_float32(tmp_path):
    rng = np.random.default_rng(0)
    n = 3000
    sums = rng.integers(-(2**17), 2**17, n)
    scales = np.exp2(rng.uniform(-12, -8, n)).astype(np.float32)
    ties = (np.round(sums * scales) + 0.5) / np.where(sums, sums, 1)  # the nearest scales that give a half
    scales[::2] = np.abs(ties[::2]).astype(np.float32)
    scales[::10] = 2.0**-9  # halves of themselves
    scales[1::10] = np.exp2(rng.uniform(-40, 8, len(scales[1::10])))
    sums[1::20] *= 2**13  # more than the bits of a float32

    ratios = rng.uniform(0.1, 2, (2, n)).astype(np.float32)
    ratios[:, ::3] = np.float32(0.5)
    constants = rng.uniform(-60, 60, n).astype(np.float32)
    constants[::3] = np.round(constants[::3])
    codes = rng.integers(0, 256, (2, n))
    near = codes[0] * ratios[0].astype(float) + codes[1] * ratios[1]
    constants[1::3] = (np.round(near) + 0.5 - near)[1::3]

    records = b"".join(
        struct.pack("<iIIIIBBBB", s, *bits, a, b, SHIFT, 0)
        for s, bits, a, b in zip(
            sums.tolist(),
            np.stack([scales, *ratios, constants], axis=1).view(np.uint32).tolist(),
            *codes.tolist(),
            strict=True,
        )
    )
    write_folder(tmp_path / "c", fixed_files(Settings(integers=True)))
    (tmp_path / "c" / "main.c").write_text(HARNESS)
    parts = [tmp_path / "c" / name for name in ("main.c", "press_nn_exact.c")]
    compile_c("cc", *SANITIZED, "-o", tmp_path / "program", *parts)
    done = subprocess.run([tmp_path / "program"], input=records, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    found = np.frombuffer(done.stdout, np.uint8).reshape(n, 2)

    steps = np.rint(sums.astype(np.float32) * scales).astype(np.float64)
    np.testing.assert_array_equal(found[:, 0], np.clip(steps + 128, 0, 255))
    expected = [
        byte(fused(int(a), first, fused(int(b), second, constant)))
        for a, b, first, second, constant in zip(*codes, *ratios, constants, strict=True)
    ]
    np.testing.assert_array_equal(found[:, 1], expected)
