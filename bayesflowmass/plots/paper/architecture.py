"""The architecture of a model, drawn from the model itself (figure 3 of Kodi Ramanah et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from bayesflowmass.estimator import MassEstimator
from bayesflowmass.plots.paper.model_layout import Block, Layer, ModelLayout, model_layout
from bayesflowmass.plots.style import (
    COLOURS,
    COLUMN_WIDTH,
    PAGE_WIDTH,
    fixed_figure,
    journal_style,
    text_extent,
)

# Inches. The axes are the whole figure, in inches too: what fits here fits on paper.
_MARGIN = 0.07
_GAP = 0.15
_HEADER = 0.62
_STEP = 1.24
_RAIL = 0.13
_SIZE, _SMALLEST = 7.0, 5.0

_FACE = {"data": "#F2F2F2", "none": "#D8E6F0", "some": "#FBE3CF", "all": "#FBE3CF", "step": "#DDF0E9"}


def plot_architecture(estimator: MassEstimator, *, title: str | None = None) -> Figure:
    """Galaxies to images to context, the shared layers, and one row for each step of the flow.

    A row reads from left to right: the layers that turn the context, or the features of the shared layers, into
    the parameters of a step, then the step. The steps read downwards from log10 M to the base distribution, the
    direction in which the density is computed. Each layer says its width, what follows it, and its number of
    weights; layers whose weights have a posterior have thick orange frames, broken where only some have. Sizes
    of boxes mean nothing. One column wide; both, where a step has more than four layers of its own.

    Args:
        estimator: any model, trained or not.
        title: above the drawing.
    """
    layout = model_layout(estimator)
    steps = _grouped(layout.blocks)
    rows = _wrapped(layout.trunk)
    height = 2 * _MARGIN + (0.2 if title else 0.0) + _HEADER + sum(_height(row) + _GAP for row in rows)
    height += 0.32 + sum(_step_height(step) + _GAP for step, _ in steps) + 0.16 * _legend_lines(layout)
    width = PAGE_WIDTH if max(len(step.network) for step, _ in steps) > 4 else COLUMN_WIDTH
    figure = fixed_figure(width, height)
    with journal_style():
        axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axis.set(xlim=(0, width), ylim=(0, height))
        axis.axis("off")
        y = height - _MARGIN
        if title:
            _text(axis, 0.5 * width, y - 0.08, title, width - 2 * _MARGIN, 9.0)
            y -= 0.2
        y = _draw_encoder(axis, layout, y)
        y = _draw_trunk(axis, rows, y)
        y = _draw_steps(axis, layout, steps, y)
        _draw_legend(axis, layout, y)
    return figure


def _right(axis: Axes) -> float:
    return float(axis.get_xlim()[1]) - _MARGIN


def _grouped(blocks: Sequence[Block]) -> list[tuple[Block, int]]:
    """Long runs of equal steps as one row with their number."""
    result: list[tuple[Block, int]] = []
    for block, run in groupby(blocks):
        count = len(list(run))
        result += [(block, count)] if count > 3 else [(block, 1)] * count
    return result


def _wrapped(layers: Sequence[Layer]) -> list[Sequence[Layer]]:
    """Rows of about equal length."""
    n = math.ceil(len(layers) / 6)
    size = math.ceil(len(layers) / n) if n else 0
    return [layers[i * size : (i + 1) * size] for i in range(n)]


def _height(layers: Sequence[Layer]) -> float:
    """Height of a row of layers with that many lines of text."""
    return 0.09 + 0.115 * max(_words(layer).count("\n") + 1 for layer in layers)


def _step_height(block: Block) -> float:
    own = 0.12 + 0.125 * (1 + bool(block.formula) + bool(block.detail))
    return max(own, _height(block.network)) if block.network else own


def _draw_encoder(axis: Axes, layout: ModelLayout, y: float) -> float:
    """Galaxies, images, context, from left to right; returns the y below them."""
    low, right = y - _HEADER, _right(axis)
    widths, gap = (0.72, 1.0), 0.15
    middle = right - _MARGIN - sum(widths) - 2 * gap
    mid_y = y - 0.5 * _HEADER
    _box(axis, _MARGIN, low, widths[0], _HEADER, layout.inputs.replace("galaxies $", "galaxies\n$"), "data")
    x = _MARGIN + widths[0] + gap
    images = [*layout.encoders, *(_words(layer) for layer in layout.encoder_layers)]
    columns = min(len(images), 2)
    down = math.ceil(len(images) / columns)
    w, h = (middle - 0.05 * (columns - 1)) / columns, (_HEADER - 0.05 * (down - 1)) / down
    texts = []
    for i, image in enumerate(images):
        column, row = i % columns, i // columns
        image = image if down == 1 else image.replace("\n$h_0 =", ", $h_0 =")
        texts.append(_box(axis, x + column * (w + 0.05), y - (row + 1) * h - row * 0.05, w, h, image, "data"))
    _same_size(texts)
    _arrow(axis, (x - gap, mid_y), (x, mid_y))
    _arrow(axis, (x + middle, mid_y), (x + middle + gap, mid_y))
    context = (
        layout.context.replace(": ", "\n", 1).replace(": pixels", "\npixels").replace(", with", "\nwith")
    )
    _box(axis, right - widths[1], low, widths[1], _HEADER, context, "data")
    return low


def _draw_trunk(axis: Axes, rows: Sequence[Sequence[Layer]], y: float) -> float:
    texts = []
    for layers in rows:
        height = _height(layers)
        # From the context, or from the end of the row above, round to the beginning of this row.
        middle = y - _GAP - 0.5 * height
        rail = _rail(axis, y, y - 0.5 * _GAP, middle)
        texts += _draw_layers(axis, layers, rail, _right(axis), middle, height)
        y -= _GAP + height
    _same_size(texts)
    return y


def _draw_steps(axis: Axes, layout: ModelLayout, steps: Sequence[tuple[Block, int]], y: float) -> float:
    x = _right(axis) - _STEP
    middle_x, source, networks = x + 0.5 * _STEP, y, []
    _text(axis, middle_x, y - 0.2, r"$\log_{10} M_{200\mathrm{c}}$", _STEP, 8.0)
    y -= 0.28
    texts = []
    for block, count in steps:
        height = _step_height(block)
        middle = y - _GAP - 0.5 * height
        _arrow(axis, (middle_x, y), (middle_x, y - _GAP))
        name = block.name + (rf" ($\times${count})" if count > 1 else "")
        lines = "\n".join(text for text in (name, block.formula, block.detail) if text)
        _box(axis, x, y - _GAP - height, _STEP, height, lines, "step")
        if block.network:
            networks.append(middle)
            own = _height(block.network)
            texts += _draw_layers(axis, block.network, _MARGIN + 0.04, x - 0.13, middle, own)
            _arrow(axis, (x - 0.13, middle), (x, middle))
        y -= _GAP + height
    if networks:
        _rail(axis, source, source - 0.5 * _GAP, min(networks))
        what = "features of the shared layers" if layout.trunk else "context"
        place = (_MARGIN + _RAIL + 0.02, source - 0.5 * _GAP - 0.09)
        _text(axis, *place, what, x - 2 * _RAIL, 7.0, ha="left", style="italic")
    _same_size(texts)
    return y


def _draw_layers(
    axis: Axes, layers: Sequence[Layer], rail: float, right: float, middle: float, height: float
) -> list[Text]:
    """A row of layers that ends at ``right``, with an arrow into it from the rail."""
    gap = 0.08
    room = right - rail - (_RAIL - 0.04) - gap * (len(layers) - 1)
    width = min(0.62, room / len(layers))
    x = right - len(layers) * width - (len(layers) - 1) * gap
    _arrow(axis, (rail, middle), (x, middle))
    texts = []
    for i, layer in enumerate(layers):
        if i:
            _arrow(axis, (x - gap, middle), (x, middle))
        texts.append(_box(axis, x, middle - 0.5 * height, width, height, _words(layer), layer.random))
        x += width + gap
    return texts


def _words(layer: Layer) -> str:
    head = (
        f"{layer.width}"
        if layer.what == "dense"
        else f"{layer.what.replace(', ', chr(10))}\n{layer.width} maps"
    )
    return "\n".join([head, *layer.after, f"[{_count(layer.n_parameters)}]"])


def _count(n: int) -> str:
    if n < 10_000:
        return str(n)
    return f"{n / 1e3:.0f} k" if n < 999_500 else f"{n / 1e6:.2f} M"


def _legend_lines(layout: ModelLayout) -> int:
    return 2 if layout.n_random else 1


def _draw_legend(axis: Axes, layout: ModelLayout, y: float) -> None:
    width = _right(axis) - _MARGIN
    y -= 0.1
    _text(axis, _MARGIN, y, f"[ ]: weights of a layer; {layout.n_parameters:,} in all".replace(",", r"$\,$"),
          width, 7.0, ha="left")  # fmt: skip
    if layout.n_random:
        y -= 0.16
        axis.add_patch(_patch(_MARGIN + 0.01, y - 0.045, 0.16, 0.09, "all"))
        text = f"with a posterior ({layout.method}): {layout.n_random:,} weights".replace(",", r"$\,$")
        _text(axis, _MARGIN + 0.24, y, text, width - 0.24, 7.0, ha="left")


def _patch(x: float, y: float, width: float, height: float, kind: str) -> FancyBboxPatch:
    random = kind in ("all", "some")
    return FancyBboxPatch(
        (x, y), width, height,
        boxstyle="round,pad=0,rounding_size=0.03",
        facecolor=_FACE[kind],
        edgecolor=COLOURS["vermillion"] if random else "#555555",
        linewidth=1.5 if random else 0.6,
        linestyle="--" if kind == "some" else "-",
    )  # fmt: skip


def _box(axis: Axes, x: float, y: float, width: float, height: float, text: str, kind: str) -> Text:
    axis.add_patch(_patch(x, y, width, height, kind))
    return _text(axis, x + 0.5 * width, y + 0.5 * height, text, width - 0.03, _SIZE, height - 0.02)


def _same_size(texts: Sequence[Text]) -> None:
    """All as small as the smallest."""
    for text in texts:
        text.set_fontsize(min(float(t.get_fontsize()) for t in texts))


def _text(
    axis: Axes,
    x: float,
    y: float,
    text: str,
    width: float,
    size: float,
    height: float = math.inf,
    *,
    ha: str = "center",
    style: str = "normal",
) -> Text:
    """Text in a box of given inches, smaller where it must be."""
    spacing = 1.3 if "sqrt" in text else 1.08
    label = axis.text(x, y, text, ha=ha, va="center", fontsize=size, style=style, linespacing=spacing)
    extent, dpi = text_extent(label), axis.figure.dpi
    fits = min(width * dpi / extent.width, height * dpi / extent.height)
    if fits < 1.0:
        # Text in small print is relatively wider: its hints are those of whole pixels.
        label.set_fontsize(max(_SMALLEST, math.floor(38.0 * size * fits) / 40.0))
    return label


def _line(axis: Axes, points: Sequence[tuple[float, float]]) -> None:
    axis.plot(*zip(*points, strict=True), color="#555555", lw=0.7, solid_capstyle="butt")


def _rail(axis: Axes, y: float, turn: float, end: float) -> float:
    """From the right end of the row above across to the left and down; returns its x there."""
    x = _MARGIN + 0.04
    start = _right(axis) - 0.3
    _line(axis, [(start, y), (start, turn), (x, turn), (x, end)])
    return x


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axis.annotate(
        "", end, start,
        arrowprops={"arrowstyle": "-|>", "lw": 0.7, "color": "#555555", "mutation_scale": 6, "shrinkA": 0,
                    "shrinkB": 0},
    )  # fmt: skip
