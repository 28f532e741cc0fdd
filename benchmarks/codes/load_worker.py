"""Loads one model in this process and says how much processor time that took."""

import json
import sys
import time
from pathlib import Path

import onnxruntime  # noqa: F401 - so that it is imported before anything is timed

from modelpress.export.sessions import load_session

if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    began = time.process_time()
    load_session(Path(job["path"]), threads=1)
    print(json.dumps({"cpu_seconds": time.process_time() - began}))
