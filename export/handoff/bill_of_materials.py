"""The software bill of materials of a bundle, as CycloneDX 1.5 in JSON: what is in it, and what it needs to run.

Source: ECMA-424, https://cyclonedx.org/docs/1.5/json/. There is no date and no serial number in it, so that the same
bundle has the same bytes.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from modelpress.export.handoff.manifest import FileFacts

BILL = "sbom.cdx.json"
_MODELS = (".press", ".onnx")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)>=([A-Za-z0-9._]+)")


def bill_of_materials(
    *,
    name: str,
    license_: str,
    versions: Mapping[str, str],
    requirements: str,
    files: Mapping[str, FileFacts],
) -> bytes:
    """The content of `sbom.cdx.json`.

    Args:
        name: Of the bundle.
        license_: SPDX expression of the model's licence, or any other word.
        versions: Of the packages that made the bundle.
        requirements: The content of `requirements.txt`.
        files: Of the bundle, as far as they are written.
    """
    lines = [found for line in requirements.splitlines() if (found := _REQUIREMENT.match(line))]
    needed = {found[1]: found[2] for found in reversed(lines)}  # the first of several is for newer Pythons
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "bom-ref": "bundle",
                "type": "application",
                "name": name,
                "licenses": [{"license": {"name": license_}}],
            },
            "tools": {"components": [_package(*entry) for entry in sorted(versions.items())]},
        },
        "components": [
            *(_file(path, facts) for path, facts in sorted(files.items())),
            *(_needed(package, oldest) for package, oldest in sorted(needed.items())),
        ],
        "dependencies": _dependencies(files, sorted(needed)),
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def _file(path: str, facts: FileFacts) -> dict[str, Any]:
    return {
        "bom-ref": f"file:{path}",
        "type": "machine-learning-model" if path.endswith(_MODELS) else "file",
        "name": path,
        "hashes": [{"alg": "SHA-256", "content": facts.sha256}],
    }


def _package(name: str, version: str) -> dict[str, Any]:
    return {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name.lower()}@{version}"}


def _needed(name: str, oldest: str) -> dict[str, Any]:
    """What is installed where the bundle runs: the oldest version that will do, said as such."""
    return {
        "bom-ref": f"package:{name}",
        "type": "library",
        "name": name,
        "purl": f"pkg:pypi/{name.lower()}",
        "properties": [{"name": "modelpress:oldest-version", "value": oldest}],
    }


def _dependencies(files: Mapping[str, FileFacts], packages: Sequence[str]) -> list[dict[str, Any]]:
    needed = [f"package:{package}" for package in packages]
    return [{"ref": "bundle", "dependsOn": [*(f"file:{path}" for path in sorted(files)), *needed]}]
