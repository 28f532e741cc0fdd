"""Where things are in the checkout, and where real data are."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
GOLDEN = ROOT / "tests" / "golden"

# Beside the checkout, unless the environment says otherwise.
SHARED = Path(os.environ.get("MODELPRESS_SHARED", ROOT.parent / "shared"))
