"""Tables that a benchmark wrote as markdown, as parts of a page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from bayesflowmass.page.document import Block, Commands, Paragraph, Section, Table

_RULE = re.compile(r"^\|?(\s*:?-+:?\s*\|)+\s*(:?-+:?\s*)?$")


def note_sections(name: str, text: str) -> Iterator[Section]:
    """A section for each heading: its tables, commands and paragraphs.

    Args:
        name: of the file, for what stands before the first heading.
        text: headings, paragraphs, pipe tables, and lines of code, as our benchmarks write them.
    """
    title, lines = name.replace("_", " "), list[str]()
    for line in [*text.splitlines(), "# "]:
        heading = re.match(r"#+ ?(.*)", line)
        if heading is None:
            lines.append(line)
            continue
        blocks = tuple(_blocks(lines, title))
        if blocks:
            yield Section(title, blocks)
        title, lines = heading.group(1).strip() or title, []


def _blocks(lines: Sequence[str], title: str) -> Iterator[Block]:
    paragraph: list[str] = []
    table: list[list[str]] = []

    def finished() -> Iterator[Block]:
        if table:
            widths = len(table[0])
            rows = tuple((*row, *[""] * (widths - len(row)))[:widths] for row in table[1:])
            yield Table(title, tuple(cell or "–" for cell in table[0]), rows)
        elif paragraph:
            words = " ".join(paragraph)
            command = re.fullmatch(r"`([^`]+)`\s*(.*)", words)
            if command:
                yield Commands("The command", (command.group(1),))
            rest = command.group(2) if command else words
            if rest:
                yield Paragraph(_plain(rest))
        table.clear()
        paragraph.clear()

    for line in [*lines, ""]:
        row = line.strip().startswith("|")
        if not line.strip() or (row and paragraph) or (table and not row):
            yield from finished()
        if row and not _RULE.match(line.strip()):
            table.append([_plain(cell) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
        elif line.strip() and not row:
            paragraph.append(line.strip())


def _plain(text: str) -> str:
    """Without the marks of emphasis and links; code keeps its backticks."""
    text = re.sub(r"!?\[([^\]]+)\]\([^)]*\)", r"\1", text.replace("\\|", "|"))
    return re.sub(r"\*\*([^*]+)\*\*", r"\1", text).strip()
