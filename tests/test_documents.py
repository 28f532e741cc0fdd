"""What the documents point to is there."""

import re
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

_LEFT_OUT = {".venv", "build", "dist", "node_modules", "runs"}
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in ROOT.rglob("*.md")
    if not any(part in _LEFT_OUT or part.startswith(".") for part in path.relative_to(ROOT).parts)
    and "src" not in path.relative_to(ROOT).parts  # links to the same files
)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_PATH = re.compile(r"`((?:toolkit|export|benchmarks|tests|examples|recipes|docs|src)/[\w./*-]+)`")


def test_there_are_documents():
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md"} <= set(map(str, DOCUMENTS))


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_relative_link_points_to_a_file_and_a_heading(document):
    missing = []
    for link in _LINK.findall(_CODE.sub("", (ROOT / document).read_text(encoding="utf-8"))):
        target, _, heading = link.partition("#")
        if "://" in target:
            continue
        path = (ROOT / document).parent / target if target else ROOT / document
        if not path.exists() or (heading and heading not in _headings(path)):
            missing.append(link)
    assert missing == []


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.name != "CHANGELOG.md"], ids=str)
def test_every_path_of_ours_that_is_named_exists(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    assert [path for path in _PATH.findall(text) if not list(ROOT.glob(path.rstrip("/")))] == []


def _headings(path: Path) -> set[str]:
    """Anchors as GitHub makes them of headings."""
    text = _CODE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}
