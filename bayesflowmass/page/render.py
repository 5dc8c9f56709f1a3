"""From the parts of a page to HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count, groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bayesflowmass.common.version import __version__
from bayesflowmass.page.document import Block, Page, Section


def render_page(page: Page) -> str:
    """HTML of a page: one file, without scripts, links to other files or requests to a network.

    All texts are escaped, and what stands between backticks is set as code; the page forbids anything but its
    own style and its own pictures.
    """
    environment = Environment(
        loader=PackageLoader("bayesflowmass", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = _inline
    template = environment.get_template("page.html.jinja")
    style, _, _ = environment.loader.get_source(environment, "page.css")  # type: ignore[union-attr]
    numbers = count(1)
    return template.render(
        page=page,
        style=style,
        sections=list(_with_anchors(page)),
        runs=_runs,
        next_id=lambda: f"part-{next(numbers)}",
        version=__version__,
    )


def _inline(text: str) -> Markup:
    """Escaped text, in which what stands between backticks is code."""
    pieces = re.split(r"`([^`]+)`", text)
    marked = (
        Markup("<code>") + escape(piece) + Markup("</code>") if i % 2 else escape(piece)
        for i, piece in enumerate(pieces)
    )
    return Markup("").join(marked)


def _with_anchors(page: Page) -> Iterator[tuple[str, Section]]:
    """Each section with a name of its own to link to."""
    seen: dict[str, int] = {}
    for section in page.sections:
        name = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "section"
        seen[name] = seen.get(name, 0) + 1
        yield (name if seen[name] == 1 else f"{name}-{seen[name]}"), section


def _runs(section: Section) -> list[tuple[bool, list[Any]]]:
    """Blocks in order, neighbouring pictures together: (whether they are pictures, the blocks)."""

    def is_picture(block: Block) -> bool:
        return block.kind == "picture"

    return [(pictures, list(run)) for pictures, run in groupby(section.blocks, is_picture)]
