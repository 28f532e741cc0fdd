"""Runs of a search: judged by held-out examples alone, the test set kept for what is chosen in the end."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelpress.benchmarks.records import Results, write_results
from modelpress.benchmarks.report.page import write_report
from modelpress.export.errors import InputError
from modelpress.export.firmware.generating import FirmwareOptions, generate
from modelpress.export.firmware.report import facts_of
from modelpress.export.graphs.entering.opset import in_opset
from modelpress.export.onnx_flavours.int8 import MIN_OPSET
from modelpress.export.press.reading import read_artifact
from modelpress.toolkit.compression.measuring import calibrated, measure
from modelpress.toolkit.compression.network_file import load_network
from modelpress.toolkit.compression.run_folder import PRESS, REPORT, RESULTS, RunFolder
from modelpress.toolkit.compression.starting import images_for, load_images
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import AfterEpoch, Work, network_files
from modelpress.toolkit.output_folder import file_facts, read_manifest, write_manifest
from modelpress.toolkit.progress import Progress
from modelpress.toolkit.recipe import Recipe
from modelpress.toolkit.training.device import device_of

JUDGED_ON, FIRMWARE = "judged_on", "firmware"
_NOTE = (
    "Accuracies are those on held-out examples, by which a search chooses; the test set was not looked at."
)


@dataclass(frozen=True)
class HeldOut:
    """How a run is judged that is one of many.

    Attributes:
        after_epoch: Told of every epoch; what it raises ends the run, which can be resumed.
        timed: Whether latencies are measured.
        firmware: Whether flash and multiplications of the network in C are counted, for the manifest.
    """

    after_epoch: AfterEpoch | None = None
    timed: bool = False
    firmware: bool = False

    def judging(self, work: Work) -> Work:
        """The same work with the held-out examples in place of the test set.

        Raises:
            InputError: None are held out.
        """
        if not len(work.data.validation):
            raise InputError("nothing is held out to judge by: set data.validation above 0, as in 0.1")
        data = replace(work.data, test=work.data.validation)
        return replace(work, data=data, after_epoch=self.after_epoch)

    def measured(self, state: NetworkState, work: Work, folder: RunFolder) -> Results:
        """What `measure` finds on the held-out examples; the manifest says so."""
        folder.manifest[JUDGED_ON] = "held-out"
        if self.firmware:
            folder.manifest[FIRMWARE] = _in_firmware(folder.path / PRESS, work)
        results = measure(state, work, folder.path, folder.manifest["environment"], timed=self.timed)
        return results.model_copy(update={"notes": [*results.notes, _NOTE]})


def _in_firmware(packed: Path, work: Work) -> dict[str, Any]:
    """Bytes of weights in flash, and multiplications: of a dense network, and those that are run.

    Raises:
        ModelError: The network has operators without a form in firmware.
    """
    model = in_opset(read_artifact(packed), MIN_OPSET)
    facts = facts_of(generate(model, calibrated(model, work), FirmwareOptions()))
    return {key: facts[key] for key in ("weight_bytes", "products", "products_run")}


def measure_on_test(recipe: Recipe, folder: Path, progress: Progress) -> Results:
    """Measure a finished run of a search on the test set; its results and report are replaced.

    Args:
        recipe: Of the run.
        folder: Of the run.
        progress: Told of what takes time.

    Raises:
        InputError: The folder holds no finished run, or the data are not there.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("status") != "complete":
        raise InputError(f"{folder}/ holds no finished run")

    device, images = device_of(recipe.run), load_images(recipe)
    state = load_network(network_files(folder)["finetune"], recipe.model)
    device.place(state.network)
    masks = {name: mask.to(device.torch_device) for name, mask in state.masks.items()}
    state = replace(state, masks=masks)

    work = Work(recipe=recipe, data=images_for(state, images), device=device, progress=progress)
    results = measure(state, work, folder, manifest["environment"])
    write_results(folder / RESULTS, results)
    write_report(folder / REPORT, [results])

    files = {name: file_facts(folder / name) for name in manifest["files"]}
    write_manifest(folder, {**manifest, JUDGED_ON: "test", "dataset": work.data.test_facts(), "files": files})
    return results
