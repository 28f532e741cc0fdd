"""Flash, memory and instructions of what other tools make of a quantized ONNX model: emx-onnx-cgen and onnx2c.

Stands alone: needs NumPy, onnx and onnxruntime, both tools' programs, gcc, gcc-arm-none-eabi and valgrind. Everything
is compiled with the flags that `modelpress firmware` gives its own Makefile.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

FLAGS = ("-std=c99", "-O2", "-ffp-contract=off", "-ffunction-sections", "-fdata-sections")
CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
TIMEOUT_S = 3000
MAIN = """
#include <stdio.h>
#include <stdlib.h>
void ENTRY(const float *inputs, float *outputs);
static float inputs[INPUTS], outputs[OUTPUTS];
int main(int n, char **arguments)
{
    FILE *file = fopen(arguments[1], "rb");
    if (n < 2 || !file) {
        return 1;
    }
    while (fread(inputs, sizeof inputs, 1, file) == 1) {
        ENTRY(inputs, outputs);
        fwrite(outputs, sizeof outputs, 1, stdout);
    }
    return fclose(file);
}
"""


class PeerError(Exception):
    """Bad input, or a tool that fails on it."""


def main(arguments: list[str] | None = None) -> None:
    """Measure both tools on one model."""
    parser = argparse.ArgumentParser(description="ONNX to C by other tools: flash, memory, instructions")
    parser.add_argument("model", type=Path, metavar="INT8.onnx", help="flavour int8: nodes in QDQ form")
    parser.add_argument("--inputs", type=Path, required=True, metavar="INPUTS.npy", help="float32, a few")
    parser.add_argument("--emx", type=Path, metavar="PROGRAM", help="emx-onnx-cgen")
    parser.add_argument("--onnx2c", type=Path, metavar="PROGRAM", help="onnx2c")
    parser.add_argument("--json", type=Path, metavar="OUT.json")

    options = parser.parse_args(arguments)
    commands = {"emx-onnx-cgen": (options.emx, emx_command), "onnx2c": (options.onnx2c, onnx2c_command)}
    inputs = np.load(options.inputs).astype(np.float32)
    found: dict[str, Any] = {"images": len(inputs), "flags": " ".join(FLAGS), "tools": {}}
    try:
        model = with_one_input_at_a_time(options.model)
        for name, (program, command) in commands.items():
            if program is not None:
                found["tools"][name] = measured(command(program), model, inputs)
                print(f"{name}: {found['tools'][name]}")
    except (PeerError, OSError) as error:
        sys.exit(f"error: {error}")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def with_one_input_at_a_time(path: Path) -> onnx.ModelProto:
    """The model with its batch fixed to one, which both tools want."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return model


def emx_command(program: Path) -> list[str]:
    """Intermediate results on the stack, which is counted, not on the heap; weights in the source, not in a file."""
    return [
        str(program),
        "compile",
        "--model-name",
        "network",
        *("--large-temp-threshold", "0", "--large-weight-threshold", "0"),
    ]


def onnx2c_command(program: Path) -> list[str]:
    """It writes to standard output."""
    return [str(program)]


def measured(
    command: Sequence[str], model: onnx.ModelProto, inputs: npt.NDArray[np.float32]
) -> dict[str, Any]:
    """Generate, compile for both machines, run on this one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        onnx.save(model, folder / "model.onnx")
        source, entry = generated(command, folder)
        flash, static = sizes_on_cortex_m4(source, entry)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        expected = np.concatenate([session.run(None, {name: one[None]})[0] for one in inputs])
        program = host_program(source, entry, inputs[0].size, expected[0].size)
        found = np.frombuffer(run([str(program), written(folder, inputs)]), np.float32).reshape(
            expected.shape
        )
        return {
            "flash": flash,
            "memory": static + deepest_stack(source.with_suffix(".su"), entry),
            "host_instructions": instructions(program, entry, written(folder, inputs[:1])),
            "equal_values": int((found == expected).all(axis=1).sum()),
            "equal_top1": int((found.argmax(axis=1) == expected.argmax(axis=1)).sum()),
        }


def generated(command: Sequence[str], folder: Path) -> tuple[Path, str]:
    """The C file, and the name of the function that runs the network."""
    source, writes_file = folder / "network.c", "compile" in command
    said = run([*command, str(folder / "model.onnx"), *([str(source)] if writes_file else [])])
    if not writes_file:
        source.write_bytes(said)
    entry = "network" if writes_file else "entry"
    if not re.search(rf"\b{entry}\s*\(", source.read_text()):
        raise PeerError(f"{command[0]}: no function {entry} in what it writes")
    return source, entry


def sizes_on_cortex_m4(source: Path, entry: str) -> tuple[int, int]:
    """Bytes of code and constants, with what they use of the C library, and of variables that are not on the stack."""
    program = source.with_suffix(".elf")
    link = ("-nostartfiles", "-Wl,--gc-sections", f"-Wl,-e,{entry}", f"-Wl,-u,{entry}", "--specs=nosys.specs")
    arm = ["arm-none-eabi-gcc", *CORTEX_M4, *FLAGS]
    run([*arm, "-fstack-usage", "-w", "-c", str(source), "-o", str(source.with_suffix(".o"))])
    run([*arm, *link, str(source.with_suffix(".o")), "-lm", "-o", str(program)])
    text, data, bss = run(["arm-none-eabi-size", str(program)]).splitlines()[1].split()[:3]
    return int(text) + int(data), int(data) + int(bss)


def deepest_stack(usage: Path, entry: str) -> int:
    """Frame of the entry, and the largest of what it calls: operators of both tools call none of each other."""
    frames = [line.split("\t") for line in usage.read_text().splitlines()]
    sizes = {place.rsplit(":", 1)[1]: int(size) for place, size, _ in frames}
    return sizes.pop(entry) + max(sizes.values(), default=0)


def host_program(source: Path, entry: str, inputs: int, outputs: int) -> Path:
    """For this machine, with a main program that reads inputs from a file."""
    main_file, program = source.with_name("main.c"), source.with_suffix(".x")
    text = MAIN.replace("ENTRY", entry).replace("INPUTS", str(inputs)).replace("OUTPUTS", str(outputs))
    main_file.write_text(text)
    run(
        [
            "gcc",
            *FLAGS,
            "-w",
            "-Wl,-z,stack-size=67108864",
            str(source),
            str(main_file),
            "-lm",
            "-o",
            str(program),
        ]
    )
    return program


def instructions(program: Path, entry: str, inputs: str) -> int:
    """Of one run of the network, as valgrind counts them."""
    tool = ["valgrind", "--tool=callgrind", f"--toggle-collect={entry}", "--callgrind-out-file=/dev/null"]
    done = subprocess.run([*tool, str(program), inputs], capture_output=True, check=False, timeout=TIMEOUT_S)
    counted = re.findall(rb"Collected : (\d+)", done.stderr)
    if not counted:
        raise PeerError(f"valgrind counts nothing: {done.stderr[-300:].decode(errors='replace')}")
    return int(counted[0])


def written(folder: Path, inputs: npt.NDArray[np.float32]) -> str:
    """A file of inputs, one after the other."""
    path = folder / f"inputs-{len(inputs)}"
    path.write_bytes(np.ascontiguousarray(inputs).tobytes())
    return str(path)


def run(command: Sequence[str]) -> bytes:
    """What a program writes to standard output.

    Raises:
        PeerError: It fails.
    """
    done = subprocess.run(command, capture_output=True, check=False, timeout=TIMEOUT_S)
    if done.returncode:
        raise PeerError(f"{command[0]} fails: {done.stderr[-500:].decode(errors='replace')}")
    return done.stdout


if __name__ == "__main__":
    main()
