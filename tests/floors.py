"""The oldest versions that the project says it runs with, pinned for an audit: `python -m tests.floors`.

    python -m tests.floors > floors.txt && pip-audit --disable-pip --no-deps -r floors.txt

What a bundle needs is listed by `--bundle`, for an audit of its own: a package may stand in both with another version.
"""

import re
import sys
import tomllib

from modelpress.export.onnx_flavours import emit
from modelpress.toolkit.commands.bundle.making import requirements
from tests.helpers.models import small_model
from tests.helpers.paths import ROOT

_FLOOR = re.compile(r"([A-Za-z0-9._-]+)>=([0-9A-Za-z.]+)")


def floors(*, bundle=False):
    """Of the package and its extras, or of what a bundle needs: ``name==version``, sorted."""
    if bundle:
        listed = requirements(emit(small_model(), flavour="float").SerializeToString()).splitlines()
    else:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"].values()
        listed = [*project["dependencies"], *(line for extra in extras for line in extra)]
    return sorted({f"{found[1]}=={found[2]}" for line in listed if (found := _FLOOR.match(line))})


if __name__ == "__main__":
    print(*floors(bundle="--bundle" in sys.argv[1:]), sep="\n")
