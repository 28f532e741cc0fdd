"""`modelpress verify BUNDLE`: no claim is passed over, whatever was made to fit the checksums."""

import json
import shutil

import numpy as np
import onnx
import pytest

from modelpress.benchmarks.measures.accuracy import wilson_interval
from modelpress.export.handoff.bundle_files import verify
from modelpress.export.onnx_flavours import FLAVOURS
from modelpress.export.press.writing import write_artifact
from modelpress.toolkit.commands.bundle import claims as bundle_claims
from tests.helpers.bundles import IMAGES, claim_of_accuracy, classifier, manifest_of, seal
from tests.helpers.command_line import modelpress, one_line


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """One bundle of every flavour."""
    folder = tmp_path_factory.mktemp("bundles")
    write_artifact(folder / "model.press", classifier({}))
    np.save(folder / "images.npy", IMAGES)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(bundle_claims, "ROUNDS", 1)
        for flavour in FLAVOURS:
            data = ["--calibration-data", folder / "images.npy"] if "int8" in flavour else []
            output = ["-o", folder / flavour, "--no-zip", "--flavour", flavour]
            assert modelpress(monkeypatch, "bundle", folder / "model.press", *output, *data) == 0
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(bundle_claims, "ROUNDS", 1)
    monkeypatch.setattr(verify, "_MAX_SECONDS", 0)


@pytest.fixture
def handoff(bundles, tmp_path, request):
    return shutil.copytree(bundles / getattr(request, "param", "float"), tmp_path / "handoff")


every_flavour = pytest.mark.parametrize("handoff", FLAVOURS, indirect=True)


def verified(call, handoff, *options):
    """Exit code, claims by what became of them, and the error."""
    code, out, err = call("verify", handoff, "--json", "-q", *options)
    found = {"held": {}, "failed": {}, "not checked": {}}
    for entry in json.loads(out)["claims"]:
        found[entry["is"]][entry["claim"]] = entry["detail"]
    return code, found, err


@every_flavour
def test_an_honest_bundle_of_every_flavour_is_held_bit_for_bit(handoff, call):
    code, found, _ = verified(call, handoff)
    assert (code, found["failed"]) == (0, {})
    assert "bit for bit" in found["held"]["model.press, weights"]
    assert {"model.press, graph", "compression", "model card", "scripts", "files"} <= set(found["held"])
    ranges = {"model.press, activation ranges"} if "int8" in manifest_of(handoff)["flavour"] else set()
    assert set(found["not checked"]) == {"latency", *ranges}


@every_flavour
def test_another_network_is_found_in_every_flavour(handoff, call):
    model = onnx.load(handoff / "model.onnx")
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    data = bytearray(largest.raw_data)
    data[4] ^= 1  # of float weights the last bit
    largest.raw_data = bytes(data)
    (handoff / "model.onnx").write_bytes(model.SerializeToString())
    seal(handoff, manifest_of(handoff))
    code, found, err = verified(call, handoff)
    assert code == 1
    # a change may be too small to be seen in what the model computes
    assert set(found["failed"]) - {"reference"} == {"model.press, weights"}
    assert largest.name in found["failed"]["model.press, weights"]
    assert one_line(err)


@every_flavour
def test_the_same_weights_in_another_graph_are_found(handoff, call):
    model = onnx.load(handoff / "model.onnx")
    output = model.graph.output[0].name
    last = next(node for node in model.graph.node if output in node.output)
    last.output[list(last.output).index(output)] = "before"
    model.graph.node.add(op_type="Neg", input=["before"], output=[output])
    (handoff / "model.onnx").write_bytes(model.SerializeToString())
    seal(handoff, manifest_of(handoff))
    code, found, _ = verified(call, handoff)
    assert code == 1
    assert set(found["failed"]) == {"model.press, graph", "reference"}


@pytest.mark.parametrize("handoff", ["int8", "int8-sparse"], indirect=True)
def test_activation_ranges_are_measured_again_on_the_data_of_their_calibration(
    handoff, bundles, tmp_path, call
):
    code, found, _ = verified(call, handoff, "--calibration-data", bundles / "images.npy")
    assert code == 0
    assert "activations have the steps" in found["held"]["model.press, activation ranges"]
    assert set(found["not checked"]) == {"latency"}

    np.save(tmp_path / "others.npy", IMAGES * 1.01)
    code, found, _ = verified(call, handoff, "--calibration-data", tmp_path / "others.npy")
    assert code == 1
    assert set(found["failed"]) == {"model.press, activation ranges"}
    assert "its step is off by" in found["failed"]["model.press, activation ranges"]


def test_data_of_calibration_are_for_integers(handoff, bundles, call):
    code, _, err = call("verify", handoff, "--calibration-data", bundles / "images.npy")
    assert code == 2
    assert "--calibration-data is for integer flavours" in one_line(err)


def test_a_model_of_another_flavour_than_claimed_is_found(handoff, bundles, call):
    shutil.copy(bundles / "sparse" / "model.onnx", handoff / "model.onnx")
    seal(handoff, manifest_of(handoff))
    assert "model.press, flavour" in verified(call, handoff)[1]["failed"]


def test_what_another_version_wrote_otherwise_is_not_checked(handoff, call):
    model = onnx.load(handoff / "model.onnx")
    model.graph.node[0].name = "of an older layout"
    (handoff / "model.onnx").write_bytes(model.SerializeToString())
    manifest = manifest_of(handoff)
    manifest["environment"]["versions"]["modelpress"] = "0.0.1"
    seal(handoff, manifest)
    code, found, _ = verified(call, handoff)
    assert code == 0
    assert "modelpress 0.0.1" in found["not checked"]["model.press, graph"]
    assert "model.press, weights" in found["held"]


INVENTED = {
    "a number of images that no data set has": {"n_images": 2**62},
    "an interval that is not its own": {"interval": [0.9, 1.0]},
    "the fingerprint of nothing": {"fingerprint": "0" * 64},
    "no whole number of images": {"top1": 0.9993},
}


@pytest.mark.parametrize("what", INVENTED)
def test_an_accuracy_that_cannot_be_fails_without_any_images(handoff, call, what):
    manifest = manifest_of(handoff)
    manifest["claims"]["accuracy"] = {**claim_of_accuracy(), **INVENTED[what]}
    seal(handoff, manifest)
    bundle = verify.BundleFolder(handoff)
    bundle.load()
    with pytest.raises(verify.Failed):
        bundle.check_accuracy(None)
    assert call("verify", handoff)[0] == 1


def test_an_accuracy_that_could_be_is_not_checked_and_strict_says_so(handoff, call):
    manifest = manifest_of(handoff)
    manifest["claims"]["accuracy"] = claim_of_accuracy("own photographs")
    seal(handoff, manifest)
    for options, expected in (((), 0), (("--strict",), 3)):
        code, found, _ = verified(call, handoff, *options)
        assert code == expected
        assert "own photographs; this data set cannot be read here" in found["not checked"]["accuracy"]


def test_a_claim_on_a_data_set_at_hand_is_measured_without_being_asked(handoff, call):
    manifest = manifest_of(handoff)
    manifest["claims"]["accuracy"] = claim_of_accuracy("digits")
    seal(handoff, manifest)
    code, found, _ = verified(call, handoff)
    assert code == 1
    assert "digits holds other test images" in found["failed"]["accuracy"]


@pytest.mark.parametrize("std", [[0.0, 0.0, 0.0], [-1.0, 1.0, 1.0]])
def test_a_normalisation_that_divides_by_nothing_fails(handoff, call, std):
    manifest = manifest_of(handoff)
    manifest["contract"]["normalisation"] = {"scale": 1 / 255, "mean": [0.5] * 3, "std": std}
    seal(handoff, manifest)
    assert "contract.normalisation.std" in call("verify", handoff)[2]
    found = {finding.check: finding.holds for finding in verify.findings(handoff, None)}
    assert found["input and output"] is False


def test_the_model_card_and_the_compression_are_checked_too(handoff, call):
    manifest = manifest_of(handoff)
    manifest["compression"]["zeros"] += 1
    (handoff / "MODEL_CARD.md").write_text("# 99.9 %")
    (handoff / "verify.py").write_text("print('all is well')")
    seal(handoff, manifest)
    _, found, _ = verified(call, handoff)
    assert set(found["failed"]) == {"compression"}
    assert {"model card", "scripts"} <= set(found["not checked"])


def test_a_zip_beside_the_folder_that_is_another_bundle_is_told(bundles, tmp_path, call):
    target = tmp_path / "handoff"
    assert call("bundle", bundles / "model.press", "-o", target)[0] == 0
    assert "same bundle" in verified(call, target)[1]["held"]["archive"]
    assert call("bundle", bundles / "model.press", "-o", target, "--no-zip", "--overwrite")[0] == 0
    assert "handoff.zip is another bundle, of " in verified(call, target)[1]["not checked"]["archive"]


def test_the_scripts_interval_is_the_one_that_is_claimed():
    for top1, n in ((0.0, 1), (0.915, 10_000), (1.0, 7)):
        np.testing.assert_allclose(verify.wilson_interval(top1, n), wilson_interval(top1, n), atol=1e-12)
