"""What is installed with the project and with a bundle: no floor below a version known to be weak."""

import json
import re

import pytest
from packaging.version import Version

from modelpress.export.handoff.bill_of_materials import BILL, bill_of_materials
from modelpress.export.handoff.manifest import FileFacts
from tests.floors import floors

# the first release without the weakness named by its number
MENDED = {
    "brotli": "1.2",  # CVE-2025-6176
    "jinja2": "3.1.6",  # CVE-2025-27516
    "numpy": "1.22",  # CVE-2021-34141
    "onnx": "1.21",  # CVE-2026-27489
    "pillow": "11.3",  # CVE-2025-48379; a later one is in a format that run.py does not open
    "pydantic": "2.4",  # CVE-2024-3772
    "pytest": "9.0.3",  # CVE-2025-71176
    "PyYAML": "5.4",  # CVE-2020-14343
    "scikit-learn": "1.5",  # CVE-2024-5206
    "setuptools": "78.1.1",  # CVE-2025-47273
    "torch": "2.8",  # CVE-2025-3730
}


@pytest.mark.parametrize("bundle", [False, True])
def test_no_floor_has_a_known_weakness(bundle):
    listed = dict(line.split("==") for line in floors(bundle=bundle))
    assert {name for name in listed if name in MENDED} == ({"numpy", "pillow"} if bundle else set(MENDED))
    for name, version in listed.items():
        assert Version(version) >= Version(MENDED.get(name, "0")), name


def test_the_bill_of_materials_is_cyclonedx_and_the_same_each_time():
    files = {
        "model.onnx": FileFacts(size_bytes=1, sha256="0a" * 32),
        "run.py": FileFacts(size_bytes=2, sha256="1b" * 32),
    }
    requirements = (
        'numpy>=1.22\npillow>=12.1.1; python_version >= "3.10"\npillow>=11.3; python_version < "3.10"\n'
    )
    given = {"name": "handoff", "license_": "MIT", "requirements": requirements}
    first = bill_of_materials(**given, versions={"onnx": "1.21", "numpy": "2.0"}, files=files)
    assert first == bill_of_materials(
        **given, versions={"numpy": "2.0", "onnx": "1.21"}, files=dict(reversed(files.items()))
    )
    assert BILL.endswith(".cdx.json")
    bill = json.loads(first)
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.5", 1)
    components = {part["name"]: part for part in bill["components"]}
    assert list(components) == ["model.onnx", "run.py", "numpy", "pillow"]
    assert components["model.onnx"]["type"] == "machine-learning-model"
    assert components["run.py"]["hashes"] == [{"alg": "SHA-256", "content": "1b" * 32}]
    assert components["pillow"]["properties"][0]["value"] == "12.1.1"
    references = [part["bom-ref"] for part in bill["components"]]
    assert len(set(references)) == len(references)
    assert bill["dependencies"] == [{"ref": "bundle", "dependsOn": references}]
    assert not re.search(rb"timestamp|serialNumber", first)
