"""Loads one model in this process and says how much processor time that took."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import onnxruntime  # noqa: F401 - so that it is imported before anything is timed

from modelpress.export.press.reading import open_artifact
from modelpress.export.runtime import open_decoded, open_session


def loaded(path: Path) -> Any:
    """A session of one thread, of an ONNX file or an artifact."""
    if path.suffix == ".onnx":
        return open_session(path.read_bytes(), threads=1)
    with open_artifact(path) as artifact:
        return open_decoded(artifact.model_once(), threads=1)


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    began = time.process_time()
    loaded(Path(job["path"]))
    print(json.dumps({"cpu_seconds": time.process_time() - began}))
