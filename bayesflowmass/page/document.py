"""What a page is made of. All texts are plain; the renderer escapes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Tone = Literal["good", "open", "bad"]
"""What a verdict says: believe it, cannot be judged, do not believe it."""


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: str
    kind: str = field(default="paragraph", init=False)


@dataclass(frozen=True)
class Facts:
    """Names and what they are, such as of a training set.

    Args:
        pairs: (name, value).
    """

    pairs: tuple[tuple[str, str], ...]
    kind: str = field(default="facts", init=False)


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first of each row naming it.

    Args:
        caption: what it is a table of, units included.
        columns: headings, that of the row names first.
        rows: each as long as ``columns``.
        note: what a reader must know, below the table.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    kind: str = field(default="table", init=False)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Table '{self.caption}': the row {row[0] if row else row!r} has {len(row)} cells;"
                    f" expected {len(self.columns)}, one for each column."
                )


@dataclass(frozen=True)
class Picture:
    """A picture that travels with the page.

    Args:
        uri: ``data:`` URI.
        width, height: in pixels, or in units of the drawing.
        alt: what it shows, for readers who cannot see it.
        caption: what it is, for all readers.
    """

    uri: str
    width: int
    height: int
    alt: str
    caption: str
    kind: str = field(default="picture", init=False)


@dataclass(frozen=True)
class Commands:
    """Lines to type, or the text of a file.

    Args:
        label: what they do.
        lines: one each.
        folded: hidden until asked for.
    """

    label: str
    lines: tuple[str, ...]
    folded: bool = False
    kind: str = field(default="commands", init=False)


@dataclass(frozen=True)
class Verdict:
    """What to believe, in plain words.

    Args:
        tone: of the whole.
        headline: one sentence.
        points: sentences that support it, each with its numbers.
    """

    tone: Tone
    headline: str
    points: tuple[str, ...] = ()
    kind: str = field(default="verdict", init=False)


Block: TypeAlias = Paragraph | Facts | Table | Picture | Commands | Verdict


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole page.

    Args:
        title: heading and name of the page.
        subtitle: where it comes from.
        sections: the first is what a hurried reader sees.
        footer: who made it, and when.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    footer: str
