"""Writes the files that the fuzzer of the C reader starts from: every encoding, small.

python -m tests.fuzzing.make_corpus
"""

import struct
from dataclasses import replace
from pathlib import Path

from tests.helpers.samples import encoded, samples, shared_samples
from tests.reference.press_writer import Line, Parts, assemble

CORPUS = Path(__file__).with_name("corpus")
MOST_BYTES, SAME = 700, 19


def files():
    """By name."""
    found = {}
    for k, name in enumerate(samples()):
        for line in encoded(name)[k % 3 :: 3]:
            found[f"{line.encoding:02d}-{len(line.blob):03d}-{line.element_type:02d}"] = (line,)
    pairs = [lines[0] for lines in found.values()]
    for k in range(0, len(pairs) - 2, 9):
        found[f"three-{k:03d}"] = tuple(
            replace(line, name=f"w{j}") for j, line in enumerate(pairs[k : k + 3])
        )
    twice = (pairs[1], replace(pairs[1], name="again", encoding=SAME, blob=b"\0"))
    found |= {"same": twice, "same-too": (*twice, replace(twice[1], name="once more"))}
    # no elements, but many inputs: working memory must not follow them
    found["no-taps"] = (Line("w", 1, (2, 1 << 25, 0), 10, bytes([3, 0]) + struct.pack("<f", 0.5)),)
    made = {
        name: assemble(Parts(lines, is_joint=k % 2 == 0)) for k, (name, lines) in enumerate(found.items())
    }
    made |= {
        f"shared-{k:02d}": assemble(replace(parts, squeezes_tables=k % 2 == 1))
        for k, parts in enumerate(shared_samples().values())
    }
    return {name: data for name, data in made.items() if len(data) <= MOST_BYTES}


def main():
    CORPUS.mkdir(exist_ok=True)
    for old in CORPUS.glob("*.press"):
        old.unlink()
    for name, data in files().items():
        (CORPUS / f"{name}.press").write_bytes(data)
    print(f"{len(files())} files, {sum(map(len, files().values())):,} bytes")


if __name__ == "__main__":
    main()
