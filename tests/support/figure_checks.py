"""What tests of figures look at: the texts as they are drawn, and whether they can be read."""

from __future__ import annotations

from itertools import combinations
from unittest.mock import patch

from matplotlib.text import Text


def drawn_texts(figure):
    """Every text that the renderer puts on paper, with its extent in pixels."""
    figure.canvas.draw()
    found, draw = [], Text.draw

    def note(text, renderer, *arguments, **options):
        if text.get_visible() and text.get_text().strip():
            found.append((text, text.get_window_extent(renderer)))
        return draw(text, renderer, *arguments, **options)

    with patch.object(Text, "draw", note):
        figure.canvas.draw()
    return found


def overlapping(texts, slack=1.0):
    """Pairs of `drawn_texts` whose extents overlap by more than `slack` pixels both ways."""
    pairs = []
    for (a, box_a), (b, box_b) in combinations(texts, 2):
        width = min(box_a.x1, box_b.x1) - max(box_a.x0, box_b.x0)
        height = min(box_a.y1, box_b.y1) - max(box_a.y0, box_b.y0)
        if width > slack and height > slack:
            pairs.append((a.get_text(), b.get_text()))
    return pairs


def off_the_page(figure, texts, slack=1.0):
    """Those of `drawn_texts` that the edge of the figure cuts."""
    width, height = figure.bbox.width, figure.bbox.height
    return [
        text.get_text()
        for text, box in texts
        if box.x0 < -slack or box.y0 < -slack or box.x1 > width + slack or box.y1 > height + slack
    ]
