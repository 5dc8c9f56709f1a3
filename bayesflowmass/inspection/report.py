"""What `bayesflowmass inspect` found out about a file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field


def command(verb: str, *words: object) -> str:
    """A command that a shell takes as it stands, whatever is in the names of files and columns."""
    return shlex.join(["bayesflowmass", verb, *map(str, words)])


@dataclass
class Inspection:
    """The findings; each a sentence or a line.

    Args:
        path: of the file.
        title: what it is.
        facts: what is in it.
        problems: what is wrong with it, and what to do.
        usable: whether a command can take it as it is.
        commands: what to run next.
    """

    path: str
    title: str
    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    usable: bool = True
    commands: list[str] = field(default_factory=list)

    def refuse(self, error: Exception) -> Inspection:
        """The report of a file that cannot be used."""
        self.problems.append(str(error))
        self.usable = False
        return self

    def text(self) -> str:
        """The report, several lines."""
        lines = [f"{self.path}: {self.title}"]
        lines += [f"  {fact}" for fact in self.facts]
        lines += ["Problems:"] * bool(self.problems) + [f"  - {problem}" for problem in self.problems]
        verdict = "can be used" if self.usable else "cannot be used as it is"
        lines.append(f"It {verdict}{'.' if not self.commands else '; next:'}")
        lines += [f"  {command}" for command in self.commands]
        # A line of ours stays one, whatever stands in the names of others.
        return "\n".join(line.replace("\n", "\\n") for line in lines)
