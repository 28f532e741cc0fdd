"""Figures as files."""

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from modelpress.benchmarks.report.plots import STYLE
from modelpress.export.files.atomic import write_atomically

_DPI = 150


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``NAME.png`` and ``NAME.svg``; the same bytes for the same data."""
    paths = []
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        buffer = io.BytesIO()
        with mpl.rc_context(STYLE):
            figure.savefig(buffer, format=suffix, dpi=_DPI, metadata=metadata, facecolor="white")
        paths.append(folder / f"{name}.{suffix}")
        write_atomically(paths[-1], buffer.getvalue())

    return paths
