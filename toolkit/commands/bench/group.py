"""The `bench` commands: what files weigh, how right and how fast they are; the speed of coding and of training."""

from typing import Any

import typer

from modelpress.toolkit.commands.lazy import MARKUP, Entry, LazyGroup, lazy_group

_FILES = "files"
COMMANDS = {
    _FILES: Entry(
        "bench.files_command",
        "Measure size, sparsity, accuracy and latency in ONNX Runtime.",
        "What else is measured",
    ),
    "size": Entry(
        "bench.size_command", "The size ladder: the same weights in every form.", "What else is measured"
    ),
    "archives": Entry(
        "bench.archives_command",
        "Bytes of whole files packed without loss, beside zstandard -19 and xz -9e.",
        "What else is measured",
    ),
    "coding": Entry(
        "bench.coding_command",
        "Speed of the codes beside zstandard, and of loading into ONNX Runtime.",
        "What else is measured",
    ),
    "scaling": Entry(
        "bench.scaling_command",
        "Time per weight and memory of packing and loading one tensor of growing size.",
        "What else is measured",
    ),
    "large": Entry(
        "bench.large_command",
        "Memory and processor time of packing, verifying and unpacking a model too large for one ONNX file.",
        "What else is measured",
    ),
    "firmware": Entry(
        "bench.firmware_command",
        "Flash, memory and instructions of firmware, built and run: here, and in qemu on a Cortex-M4 and M55.",
        "What else is measured",
    ),
    "training": Entry(
        "bench.training_command",
        "Images per second in training beside a plain PyTorch loop.",
        "What else is measured",
    ),
    "streaming": Entry(
        "bench.streaming_command",
        "Images per second in training on data ten times larger than the memory they may take, beside data in memory.",
        "What else is measured",
    ),
    "runtime": Entry(
        "bench.runtime_command",
        "What ONNX Runtime does with each way of storing weights, or whether files run in other versions and engines.",
        "What else is measured",
    ),
}


class FilesByDefault(LazyGroup):
    """``bench FILE…`` is ``bench files FILE…``, and its help the help of both."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the command where it is left out."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = [_FILES, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Those beside the one that needs no name."""
        return [name for name in super().list_commands(ctx) if name != _FILES]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The form that people use."""
        return ["[OPTIONS]", "FILE...", "|", "COMMAND"]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """What ``bench FILE…`` takes, and the other commands."""
        files = self.entries[_FILES].load(_FILES)
        own = self.help, self.epilog, self.params
        self.help, self.epilog, self.params = files.help, files.epilog, files.params
        try:
            super().format_help(ctx, formatter)
        finally:
            self.help, self.epilog, self.params = own


group = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=MARKUP,
    cls=lazy_group(COMMANDS, base=FilesByDefault),
)


@group.callback()
def _bench() -> None:
    """Measure files, the coding, or the training."""
