"""Small `.press` files, damaged so that the damage gets past every checksum, and judged by the reference decoder.

    python -m tests.fuzz --mutants 1000000 --seed 7

Mutant *k* of a seed depends on these two numbers alone, so a run is continued with `--start`.
"""

import argparse
import random
import struct
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path

from rich.progress import Progress

from modelpress.export.coding.core import numpy_alone
from tests.helpers import c_reader
from tests.helpers.samples import encoded, in_every_encoding, quantized, samples, shared_samples
from tests.reference.agreement import disagreement
from tests.reference.press_writer import HEADER_BYTES, Parts, assemble, deflated, sealed

MAX_DECODED_BYTES = 1 << 17
GAPS, MIXED, SAME = 7, {10, 15, 20, 21}, 19  # encodings
MEMORY_EVERY = 50  # mutants whose memory is measured
INTERESTING = (
    0,
    1,
    2,
    7,
    8,
    15,
    16,
    127,
    128,
    255,
    256,
    1 << 14,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
)
ELEMENT_TYPES = range(28)


# --- Files to start from


@cache
def bases():
    """(weight, files): one tensor in one encoding each, files with shared tables, files with lanes."""
    lines = [line for name in samples() for line in encoded(name)]
    single = [Parts((line,)) for line in lines if line.encoding not in {GAPS, *MIXED}]
    gaps = [Parts((line,)) for line in lines if line.encoding == GAPS]  # eight variants of each sample
    mixed = [Parts((line,)) for line in lines if line.encoding in MIXED]
    shared = list(shared_samples().values())
    single, gaps, shared = (in_either_frame(files) for files in (single, gaps, shared))
    return (60, single), (15, gaps), (15, shared), (8, several(lines)), (0.5, mixed), (0.3, lanes())


def in_either_frame(files):
    """Every other one as version 1.2 frames it, and half with tables compressed as version 1.4 has them."""
    return [replace(parts, is_joint=k % 2 == 1, squeezes_tables=k % 4 > 1) for k, parts in enumerate(files)]


def several(lines):
    """Files of four tensors."""
    rng = random.Random(0)
    fast = [line for line in lines if line.encoding not in MIXED]
    fours = [rng.sample(fast, 4) for _ in range(20)]
    named = [tuple(replace(line, name=f"w{k}") for k, line in enumerate(four)) for four in fours]
    # the last one is the same as another
    return [
        Parts(
            (*four, replace(four[k % 4], name="w4", encoding=SAME, blob=bytes([k % 4]))), is_joint=k % 2 == 0
        )
        for k, four in enumerate(named)
    ]


@cache
def lanes():
    """One run of more than a lane in each Huffman encoding."""
    lines = in_every_encoding(quantized((2, 8201), bits=2, density=2))
    return [Parts((line,)) for line in lines if line.encoding in {6, 8}]


# --- Damage to bytes


def flip_bit(rng, data):
    k = rng.randrange(len(data))
    data[k] ^= 1 << rng.randrange(8)


def set_byte(rng, data):
    data[rng.randrange(len(data))] = rng.choice([0, 1, 2, 3, 127, 128, 254, 255, rng.randrange(256)])


def step_byte(rng, data):
    k = rng.randrange(len(data))
    data[k] = (data[k] + rng.choice([-1, 1])) % 256


def swap_nibbles(rng, data):
    """Two codeword lengths of one table: Kraft's equality still holds."""
    first = rng.randrange(2 * len(data))
    second = min(first + rng.randrange(1, 12), 2 * len(data) - 1)
    a, b = (data[k // 2] >> 4 * (k % 2) & 15 for k in (first, second))
    for k, nibble in ((first, b), (second, a)):
        data[k // 2] = data[k // 2] & (240 if k % 2 == 0 else 15) | nibble << 4 * (k % 2)


def set_integer(rng, data):
    size = rng.choice([size for size in (1, 2, 4, 8) if size <= len(data)])
    start = rng.randrange(len(data) - size + 1)
    value = int.from_bytes(data[start : start + size], "little") + rng.choice([-1, 1])
    if rng.random() < 0.5:
        value = rng.choice(INTERESTING)
    data[start : start + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


def set_float(rng, data):
    if len(data) < 8:
        return
    value = rng.choice(
        [0.0, -0.0, 1e-45, -1e-40, 1e-5, -1.0, 3e38, -3e38, 2.7e36, float("nan"), float("inf")]
    )
    start = rng.choice([2, 6, rng.randrange(len(data) - 3)])
    data[start : start + 4] = struct.pack("<f", value)[: len(data) - start]


def insert(rng, data):
    k = rng.randrange(len(data) + 1)
    data[k:k] = bytes(rng.choice([0, 255, rng.randrange(256)]) for _ in range(rng.choice([1, 1, 2, 4])))


def delete(rng, data):
    k = rng.randrange(len(data))
    del data[k : k + rng.choice([1, 1, 2, 4])]


def truncate(rng, data):
    del data[rng.randrange(len(data)) :]


def repeat(rng, data):
    start = rng.randrange(len(data))
    part = data[start : start + rng.randrange(1, 9)]
    data[start:start] = part


BYTE_DAMAGE = (
    *(flip_bit, flip_bit, set_byte, step_byte, step_byte, swap_nibbles, swap_nibbles),
    *(set_integer, set_float, insert, delete, truncate, repeat),
)


def damaged(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if data:
            rng.choice(BYTE_DAMAGE)(rng, data)
    return bytes(data)


# --- Damage to files: each takes a generator and parts, and returns a file


def in_a_blob(rng, parts):
    return assemble(with_line(rng, parts, lambda line: replace(line, blob=damaged(rng, line.blob))))


def in_the_front_of_a_blob(rng, parts):
    """Grid, parameters and tables are there."""

    def front(line):
        k = rng.randrange(1, 24)
        return replace(line, blob=damaged(rng, line.blob[:k]) + line.blob[k:])

    return assemble(with_line(rng, parts, front))


def spliced(rng, parts):
    """The front of one blob, the end of another."""
    other = rng.choice(rng.choice(bases()[:3])[1]).lines[0].blob or b"\0"

    def splice(line):
        return replace(
            line, blob=line.blob[: rng.randrange(len(line.blob) + 1)] + other[rng.randrange(len(other)) :]
        )

    return assemble(with_line(rng, parts, splice))


def in_a_line(rng, parts):
    """Another encoding, type or shape for the same bytes."""

    def change(line):
        match rng.randrange(4):
            case 0:
                return replace(line, encoding=rng.randrange(21))
            case 1:
                return replace(line, element_type=rng.choice(ELEMENT_TYPES))
            case 2:
                return replace(line, shape=damaged_shape(rng, line.shape))
        return replace(line, name=rng.choice(["w0", "W0", "Å", "ﬀ", "a\n", "", "ẞ", "w"]))

    return assemble(with_line(rng, parts, change))


def damaged_shape(rng, shape):
    shape = list(shape)
    match rng.randrange(5):
        case 0:
            rng.shuffle(shape)
        case 1:
            shape.insert(rng.randrange(len(shape) + 1), rng.choice([0, 1, 1, 2, 1 << 20]))
        case 2 if shape:
            shape.pop(rng.randrange(len(shape)))
        case 3 if shape:
            k = rng.randrange(len(shape))
            shape[k] = max(shape[k] + rng.choice([-1, 1]), 0)
        case 4 if shape:
            shape[rng.randrange(len(shape))] = rng.choice([0, 1, 100, 5000, *INTERESTING[-3:]]) % (1 << 32)
    return tuple(shape)


def in_the_directory(rng, parts):
    return assemble(parts, directory=damaged(rng, parts.directory))


def in_the_tables(rng, parts):
    return assemble(parts, tables=damaged(rng, parts.tables or b"\1\1\0\2\x11"))


def in_the_graph(rng, parts):
    return assemble(parts, graph=damaged(rng, parts.graph))


def in_the_frame(rng, parts):
    """Header, chunk headers, compressed bytes; length and SHA-256 made right."""
    file = assemble(parts)
    if rng.random() < 0.3:
        start = rng.choice([8, 10, 12, 56, 60])
        return sealed(file[:start] + damaged(rng, file[start : start + 8]) + file[start + 8 :])
    return sealed(file[:HEADER_BYTES] + damaged(rng, file[HEADER_BYTES:]))


def with_extra_chunk(rng, parts):
    kind = rng.choice([b"abcd", b"ABCD", b"tABL", b"TABL", b"TABZ", b"GRPH", b"META", b"a\xe9bc", b"x1yz"])
    payload = rng.choice([b"", b"\0", deflated(b"")])
    file = bytearray(assemble(parts))
    file[12] += 1
    return sealed(bytes(file) + kind + struct.pack("<Q", len(payload)) + payload)


def without_checksums(rng, parts):
    return damaged(rng, assemble(parts))


FILE_DAMAGE = (
    (40, in_a_blob),
    (25, in_the_front_of_a_blob),
    (6, spliced),
    (12, in_a_line),
    (5, in_the_directory),
    (8, in_the_tables),
    (3, in_the_graph),
    (4, in_the_frame),
    (1, with_extra_chunk),
    (1, without_checksums),
)


def with_line(rng, parts, change):
    k = rng.randrange(len(parts.lines))
    return replace(parts, lines=(*parts.lines[:k], change(parts.lines[k]), *parts.lines[k + 1 :]))


def mutant(seed, k):
    """Mutant `k` of a seed."""
    rng = random.Random(f"{seed}:{k}")
    (files,) = rng.choices([files for _, files in bases()], [weight for weight, _ in bases()])
    (damage,) = rng.choices([damage for _, damage in FILE_DAMAGE], [weight for weight, _ in FILE_DAMAGE])
    return damage(rng, rng.choice(files))


def mutants(seed, n, start=0):
    """``n`` files, the same for the same seed."""
    return (mutant(seed, k) for k in range(start, start + n))


def judge(data, k=1):
    """What is wrong about how the product or its reader in C reads a mutant, or None."""
    return disagreement(
        data,
        max_decoded_bytes=MAX_DECODED_BYTES,
        measure_memory=k % MEMORY_EVERY == 0,
        also=c_reader.disagreement if c_reader.is_there() else None,
    )


def compiled():
    """The product's compiled functions, which are in use where they are built."""
    return nullcontext()


def not_compiled():
    """As where nothing is compiled."""
    return numpy_alone()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--start", type=int, default=0, help="first mutant, to continue a run")
    parser.add_argument("--numpy", action="store_true", help="without compiled functions")
    parser.add_argument("--keep", type=Path, help="folder for mutants that are read differently")
    options = parser.parse_args()
    with not_compiled() if options.numpy else compiled():
        found = run(options)
    print(
        f"{options.mutants:,} mutants of seed {options.seed} from {options.start:,}: {found} read differently"
    )
    raise SystemExit(found > 0)


def run(options):
    """How many mutants were read differently; prints each."""
    found = 0
    with Progress() as progress:
        task = progress.add_task(f"seed {options.seed}", total=options.mutants)
        for k, data in enumerate(mutants(options.seed, options.mutants, options.start), options.start):
            wrong = judge(data, k)
            progress.advance(task)
            if wrong:
                found += 1
                progress.console.print(f"mutant {k}: {wrong}", markup=False, highlight=False)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{options.seed}-{k}.press").write_bytes(data)
    return found


if __name__ == "__main__":
    main()
