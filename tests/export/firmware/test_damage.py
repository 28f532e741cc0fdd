"""Damaged flash is refused or computes something else; it never reads or writes where it must not."""

import subprocess

from tests.export.firmware.test_operators import residual
from tests.helpers.firmware import SANITIZED, Layers, make

HARNESS = """
#include <stdio.h>
#define const /* so that what lies in flash can be damaged */
#include "model.c"
#undef const
#include "test/vectors.h"

static uint32_t arena[(MODEL_ARENA_BYTES + 3) / 4];
static press_nn_value values[MODEL_OUTPUT_SIZE];

int main(void)
{
    struct { uint8_t *at; size_t size; } parts[] = {@PARTS@};
    unsigned seed = 1, damaged = 0, k, run;

    if (model_run(arena, sizeof arena, (uint8_t *)test_codes, values) != PRESS_NN_OK) {
        return 1;
    }
    for (run = 0; run < @RUNS@; run++) {
        size_t part = run % (sizeof parts / sizeof *parts);
        uint8_t *at, before;
        seed = seed * 1103515245u + 12345u;
        at = parts[part].at + (seed >> 8) % parts[part].size;
        before = *at;
        *at = (uint8_t)(*at ^ (1u << (seed >> 4 & 7u)));
        k = (unsigned)model_run(arena, sizeof arena, (uint8_t *)test_codes, values);
        if (k != PRESS_NN_OK && k != PRESS_NN_DAMAGED) {
            return 2;
        }
        damaged += k == PRESS_NN_DAMAGED;
        *at = before;
    }
    printf("%u\\n", damaged);
    return 0;
}
"""


def test_damaged_codes_and_tables_are_refused_or_harmless(tmp_path):
    made = make(tmp_path / "fw", residual(Layers()))
    names = [
        line.split()[3].partition("[")[0] for line in made.firmware.source.splitlines() if _is_bytes(line)
    ]
    parts = ", ".join(f"{{{name}, sizeof {name}}}" for name in names)
    runs = 40 * len(names)
    main = tmp_path / "fw" / "harness.c"
    main.write_text(HARNESS.replace("@PARTS@", parts).replace("@RUNS@", str(runs)))
    done = subprocess.run([made.build(*SANITIZED, main=main)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert runs // 8 < int(done.stdout) <= runs  # what is not noticed stands for other weights


def _is_bytes(line):
    return line.startswith(("static const uint8_t data[", "static const uint8_t code_table_"))
