"""The `bench firmware` command."""

from pathlib import Path
from typing import Annotated, Any

import typer

from modelpress.toolkit.commands.answers import answer
from modelpress.toolkit.commands.options import AsJson, DataFolder, DataSet, JsonFile, Overwrite

EXAMPLE = """
modelpress bench firmware firmware/
modelpress bench firmware firmware/ --against model-int8.onnx --data-dir cifar10 -o firmware.json
"""


def command(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...", help="Folders that [b]modelpress firmware[/] wrote.", show_default=False
        ),
    ] = [],
    tiny: Annotated[
        bool,
        typer.Option("--tiny", help="The four networks of the tiny benchmark too, with random weights."),
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="The int8 ONNX model of the same calibration: outputs of all test images are compared with it.",
            show_default=False,
        ),
    ] = None,
    dataset: DataSet = None,
    data_dir: DataFolder = None,
    output: JsonFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Flash, memory and instructions of firmware, built and run: here, and in qemu on a Cortex-M4 and M55."""
    from modelpress.benchmarks.environment import describe_environment
    from modelpress.benchmarks.measures.firmware import FirmwareFolder, measure_firmware, missing_tools
    from modelpress.export.errors import CommandLineError
    from modelpress.toolkit.commands.console import TerminalProgress
    from modelpress.toolkit.output_folder import check_output_file, write_json

    if not folders and not tiny:
        raise CommandLineError("name folders that `modelpress firmware` wrote, or pass --tiny")
    if output is not None:
        check_output_file(output, overwrite=overwrite)
    for folder in folders:
        FirmwareFolder(folder, folder)  # refuses what is none, before anything is built
    progress = TerminalProgress()
    missing = missing_tools()
    if missing:
        progress.note(f"not installed, so not all is measured: {', '.join(missing)}")

    facts: dict[str, Any] = {"environment": describe_environment(), "firmware": {}}
    compared = None if against is None else _Compared(against, dataset, data_dir)
    for folder in folders:
        found = measure_firmware(folder)
        if compared is not None:
            found["agreement"] = compared.agreement(folder)
        facts["firmware"][folder.name] = found

    if tiny:
        from modelpress.toolkit.commands.bench.tiny_firmware import measure_tiny

        facts["firmware"] |= measure_tiny(progress)
    answer(facts, lambda: _show(facts["firmware"]), as_json=as_json)
    if output is not None:
        write_json(output, facts)


class _Compared:
    """All test images and what ONNX Runtime makes of them, once for all folders."""

    def __init__(self, against: Path, dataset: Any, data_dir: Path | None) -> None:
        from modelpress.benchmarks.measures.accuracy import classify
        from modelpress.benchmarks.subjects.model_file import open_model
        from modelpress.export.graphs.parts import metadata
        from modelpress.export.runtime import open_session
        from modelpress.toolkit.data.measured_set import DATASET_METADATA
        from modelpress.toolkit.data.network_input import network_input
        from modelpress.toolkit.data.registry import load_data_set

        model = open_model(against).onnx_model
        facts = metadata(model)
        name = dataset or facts.get(DATASET_METADATA, "cifar10")
        images = load_data_set(name, folder=None if data_dir is None else str(data_dir), test_only=True)
        self.inputs = network_input(images.test.images, images, facts)
        self.labels = images.test.labels
        self.expected = classify(open_session(model.SerializeToString()), self.inputs)

    def agreement(self, folder: Path) -> dict[str, Any]:
        """The host build of a folder beside that."""
        import tempfile

        from modelpress.benchmarks.measures.firmware import FirmwareFolder, agreement

        with tempfile.TemporaryDirectory() as build:
            firmware = FirmwareFolder(folder, Path(build))
            found = firmware.values(firmware.input.codes(self.inputs))
        return agreement(found, firmware.as_given(self.expected), self.labels)


def _show(folders: dict[str, Any]) -> None:
    """A line for each folder and core."""
    from modelpress.toolkit.commands.console import print_table

    rows = []
    for name, facts in folders.items():
        for core, found in facts["cores"].items():
            if found is not None:
                rows.append(
                    {
                        "name": name,
                        "core": core,
                        "flash": f"{found['flash']:,}",
                        "memory": f"{found['memory']:,}",
                        "instructions": f"{found['instructions']:,}",
                        "equal": f"{found['equal']} of {found['images']}",
                    }
                )
        compared = facts.get("agreement")
        if "compared" in facts:
            compared = {"equal_bits": facts["equal_bits"], "images": facts["compared"]}
        host = facts["host_instructions"]
        rows.append(
            {
                "name": name,
                "core": "here",
                "flash": "–",
                "memory": f"{facts['arena_bytes']:,}",
                "instructions": "–" if host is None else f"{host:,}",
                "equal": "–" if compared is None else f"{compared['equal_bits']} of {compared['images']}",
            }
        )
    headings = {
        "name": "firmware",
        "core": "core",
        "flash": "flash, bytes",
        "memory": "memory, bytes",
        "instructions": "instructions",
        "equal": "equal bits",
    }
    print_table("", rows, headings, text=("core",))
