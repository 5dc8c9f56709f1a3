"""How to get the same numbers again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bayesflowmass.page.document import Block, Commands, Facts, Paragraph, Section


def provenance_section(
    records: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    commands: Sequence[str] = (),
    settings: Sequence[tuple[str, str]] = (),
    versions: Sequence[tuple[str, str]] = (),
) -> Section:
    """The commands in the order in which to type them, settings files, versions and seeds.

    Args:
        records: (which folder, content of its run.json), in the order of the commands.
        commands: further commands, of files that carry their own.
        settings: (name, text) of settings files that the commands take.
        versions: (file, versions and seed that it states), for files without a record.
    """
    lines = tuple(dict.fromkeys([*(str(record["command"]) for _, record in records), *commands]))
    blocks: list[Block] = []
    if lines:
        blocks.append(Commands("The commands that gave these results", lines))
    else:
        blocks.append(Paragraph("The files do not say which commands wrote them."))
    pairs = [(name or "this folder", _versions(record)) for name, record in records]
    pairs += list(versions)
    if pairs:
        blocks.append(Facts(tuple(pairs)))
    blocks += [Commands(name, tuple(text.splitlines()), folded=True) for name, text in settings]
    return Section("Provenance", tuple(blocks))


def _versions(record: Mapping[str, Any]) -> str:
    words = [f"bayesflowmass {record['version']}", f"Python {record['python']}", str(record["machine"])]
    words += [f"{name} {version}" for name, version in record.get("packages", {}).items()]
    seed = record.get("settings", {}).get("seed")
    words += [] if seed is None else [f"seed {seed}"]
    return ", ".join([str(record["date"]).split("T")[0], *words])
