"""Everything that a CUDA machine is wanted for, in order of worth, in slices of a few minutes; a program of its own:

    python -m modelpress.toolkit.studies.gpu --data-dir DIR --checkpoint FILE [--teacher FILE] -o DIR [--seconds N]

Each step is a command of this toolkit in a process of its own. When the time of a slice is over the present one is
stopped, which keeps its training; the next call goes on there. A step that fails is named and tried again by the next
call, and the others go on.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from modelpress.export.files.atomic import write_atomically
from modelpress.export.isolation.fresh import fresh_process
from modelpress.toolkit.output_folder import state_path
from modelpress.toolkit.studies.published.rows import ROWS

_STOPPED = 130
_TIME_TO_STOP = 60.0  # seconds that a training has to keep its state
_TEACHER = (
    "model.teacher_arch=resnet56",
    "model.teacher_shortcut=A",
    "model.map_names=true",
    "model.teacher_normalisation={mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}",
)


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: Of the file that says it is done.
        arguments: Of Python.
        needs: Files that earlier steps make.
    """

    name: str
    arguments: tuple[str, ...]
    needs: tuple[Path, ...] = ()


def steps(output: Path, data_dir: Path, checkpoint: Path, teacher: Path | None) -> list[Step]:
    """All of them, in order of worth.

    Args:
        output: Folder of all results.
        data_dir: CIFAR-10.
        checkpoint: The dense network of the published series.
        teacher: A ResNet-56 with shortcuts A to distil from; None: no distillation for the dense network, and the dense
            network itself for the compressed ones.
    """
    data = ("--data-dir", str(data_dir), "--device", "cuda")
    ours = ("-c", "resnet20-cifar10", *data)
    taught = () if teacher is None else _settings(f"model.teacher={teacher}", *_TEACHER)
    dense = output / "dense.safetensors"

    def study(kind: str, row: str, start: Path, *more: str) -> Step:
        options = (*ours, "--checkpoint", str(start), "-o", str(output / "studies"), *more)
        command = ("-m", "modelpress", "study", kind, "--rows", row, *options)
        return Step(row, command, needs=(start,))

    distilled = (
        () if teacher is None else _settings("train.distill_weight=0.7", "train.distill_temperature=4")
    )
    return [
        Step(
            "tests", ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/toolkit/training/test_cuda.py")
        ),
        Step(
            "throughput",
            (
                *("-m", "modelpress", "bench", "training", *ours, "--batch", "1024", "--rounds", "3"),
                *("--workers", "8", "-o", str(output / "training-speed.json"), "--overwrite"),
            ),
        ),
        *(
            study(row.study, name, checkpoint)
            for name, row in ROWS.items()
            if row.study != "frontier" and row.kind != "post-training"
        ),
        Step(
            "dense",
            (
                *("-m", "modelpress", "train", "-c", "resnet20-cifar10-dense", *data, *taught, *distilled),
                *("-o", str(dense), *(("--resume",) if state_path(dense).is_file() else ())),
            ),
        ),
        *(study(row.study, name, dense, *taught) for name, row in ROWS.items() if row.study == "frontier"),
    ]


def carry_out(todo: Sequence[Step], output: Path, seconds: float) -> list[str]:
    """Do what is not done yet until the time is over; returns the names of steps that failed."""
    end, failed = time.monotonic() + seconds, []
    for step in todo:
        mark = output / "done" / step.name
        if mark.is_file():
            continue
        if time.monotonic() >= end:
            print("the slice is over: the same command goes on", flush=True)
            break
        missing = [path for path in step.needs if not path.is_file()]
        if missing:
            print(f"== {step.name}: {missing[0]} is not there; left out", flush=True)
            failed.append(step.name)
            continue

        print(f"== {step.name}", flush=True)
        code = _run(step, end)
        if code == _STOPPED:
            print("the slice is over: the same command goes on", flush=True)
            break
        if code:
            failed.append(step.name)
        else:
            mark.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(mark, b"")
    return failed


def _run(step: Step, end: float) -> int:
    """Exit code of the step; `_STOPPED` where its time was over."""
    process = subprocess.Popen(fresh_process(*step.arguments))
    try:
        return process.wait(timeout=max(1.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=_TIME_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return _STOPPED


def _settings(*texts: str) -> tuple[str, ...]:
    return tuple(part for text in texts for part in ("--set", text))


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a slice; 1 where a step failed."""
    parser = argparse.ArgumentParser(description="What a CUDA machine is wanted for, in slices.")
    parser.add_argument("--data-dir", type=Path, required=True, help="CIFAR-10")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="the dense ResNet-20 of the published series"
    )
    parser.add_argument("--teacher", type=Path, help="a ResNet-56 with shortcuts A to distil from")
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--seconds", type=float, default=540.0, help="of this slice")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no CUDA device was found: this command is for a machine with one", file=sys.stderr)
        return 1

    given.output_dir.mkdir(parents=True, exist_ok=True)
    todo = steps(given.output_dir, given.data_dir, given.checkpoint, given.teacher)
    failed = carry_out(todo, given.output_dir, given.seconds)
    left = [step.name for step in todo if not (given.output_dir / "done" / step.name).is_file()]
    print(
        f"{len(todo) - len(left)} of {len(todo)} steps done; failed in this slice: {', '.join(failed) or 'none'}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
