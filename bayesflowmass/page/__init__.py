"""One self-contained HTML page from parts: text, tables, pictures, commands.

The parts are plain data (:mod:`bayesflowmass.page.document`); one module each says what a kind of result
means; :func:`render_page` makes HTML of them that needs no network, no script and no second file.
"""

from bayesflowmass.page.document import (
    Block,
    Commands,
    Facts,
    Page,
    Paragraph,
    Picture,
    Section,
    Table,
    Verdict,
)
from bayesflowmass.page.pictures import picture
from bayesflowmass.page.render import render_page

__all__ = [
    "Block",
    "Commands",
    "Facts",
    "Page",
    "Paragraph",
    "Picture",
    "Section",
    "Table",
    "Verdict",
    "picture",
    "render_page",
]
