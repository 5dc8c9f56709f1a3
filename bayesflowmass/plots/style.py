"""How every figure looks: one journal column wide, Times-like type, the Okabe-Ito colours.

Figures are made without pyplot: no global state, no display.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.common.files import whole_file

COLUMN_WIDTH = 3.32
"""Width of one column of MNRAS or ApJ [inches]."""

PAGE_WIDTH = 6.97
"""Width of both columns with the gap between them [inches]."""

COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermillion": "#D55E00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "yellow": "#F0E442",
    "black": "#000000",
    "grey": "#999999",
}
"""Okabe and Ito (2008): distinct to colour-blind readers and in print."""

MASS_LABEL = r"$\log_{10}(M_{200\mathrm{c}}\,[h^{-1}M_\odot])$"
PDF_LABEL = r"$p(\log_{10} M\,|\,\mathrm{galaxies})$ [dex$^{-1}$]"
R_LABEL = r"$R_\mathrm{proj}$ [comoving $h^{-1}$ Mpc]"
V_LABEL = r"$v_\mathrm{los}$ [km s$^{-1}$]"

# Keys of rcParams differ between versions of matplotlib, and its stubs list those of one.
_STYLE: Any = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.titlesize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.2,
    # So far from the axis that numbers of x and y do not touch in the corner.
    "xtick.major.pad": 5.0,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "axes.prop_cycle": cycler(
        color=[COLOURS[c] for c in ("blue", "vermillion", "green", "orange", "purple", "sky", "black")]
    ),
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "savefig.dpi": 300,
    # Type 42 keeps text searchable and editable; journals refuse type 3.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
}


_SCREEN_DPI = 130


@contextmanager
def journal_style() -> Iterator[None]:
    """The look of our figures, for the length of a ``with`` block."""
    with mpl.rc_context(_STYLE):
        yield


class JournalFigure(Figure):
    """A figure that shows itself in a notebook, in this style and without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with journal_style():
            self.savefig(buffer, format="png", dpi=_SCREEN_DPI, metadata={"Software": None})
        return buffer.getvalue()


def column_figure(
    height: float = 2.6, *, rows: int = 1, columns: int = 1, width: float = COLUMN_WIDTH, **subplots: Any
) -> tuple[Figure, list[Axes]]:
    """An empty figure of one journal column and its axes, row by row.

    Args:
        height, width: in inches.
        rows, columns: of axes.
        subplots: further arguments of ``Figure.subplots``.
    """
    with journal_style():
        figure = JournalFigure(figsize=(width, height))
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False, **subplots)
    return figure, list(axes.reshape(-1))


def fixed_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches whose parts stay where they are put."""
    # Without an engine the figure would take the constrained one when it is saved in our style.
    engine = PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=True)
    figure = JournalFigure(figsize=(width, height), layout=engine)
    FigureCanvasAgg(figure)
    return figure


def text_extent(text: Text) -> Bbox:
    """Where a text stands in its figure, in pixels."""
    figure = text.figure
    assert isinstance(figure, Figure)
    assert isinstance(figure.canvas, FigureCanvasAgg)
    return text.get_window_extent(figure.canvas.get_renderer())


def bin_values(bins: Mapping[str, Any], name: str) -> FloatArray:
    """A row of numbers of a JSON file of bins, NaN where it holds none."""
    return np.array([np.nan if v is None else v for v in bins[name]], dtype=np.float64)


def save_figure(figure: Figure, stem: str | Path, formats: Sequence[str] = ("pdf", "png")) -> list[Path]:
    """Write ``stem``.pdf (vector) and ``stem``.png (300 dpi), or one of them, whole or not at all.

    Returns:
        The paths.
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for extension in formats:
        path = stem.with_name(f"{stem.name}.{extension}")
        # No date in the file: the same numbers give the same bytes.
        metadata = {"CreationDate": None} if extension == "pdf" else {"Software": None}
        with journal_style(), whole_file(path) as partial:
            figure.savefig(partial, metadata=metadata)
        paths.append(path)
    return paths
