"""``bayesflowmass <verb>``: one entry for all commands."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from bayesflowmass.common.terminal import say, say_aside
from bayesflowmass.common.version import __version__

__all__ = ["main"]

VERBS = {
    "simulate": "make a catalogue of mock clusters",
    "train": "train a mass estimator",
    "adapt": "a model for one survey, from one that is there",
    "infer": "masses of the clusters of a catalogue or of tables",
    "evaluate": "accuracy and calibration on clusters of known mass",
    "recalibrate": "make stated probabilities come true, on clusters of known mass",
    "calibrate": "what a survey says of its own sky, and its masses corrected with that",
    "compare": "any number of models on one catalogue, by bins of mass",
    "figures": "the figures of the paper, with your model and your test set",
    "report": "one HTML page from what any of these wrote",
    "fetch": "galaxies around a cluster from NED, SDSS or VizieR",
    "inspect": "what a file is, what is wrong with it, which command takes it",
    "demo": "all of it in a few minutes",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (2: bad input, with one sentence on standard error)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        say("usage: bayesflowmass <command> [--help] [flags]\n")
        say("\n".join(f"  {verb:12} {what}" for verb, what in VERBS.items()))
        return 0
    if words[0] in ("-V", "--version"):
        say(f"bayesflowmass {__version__}")
        return 0
    if words[0] not in VERBS:
        near = difflib.get_close_matches(words[0], VERBS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"commands are {', '.join(VERBS)}."
        say_aside(f"bayesflowmass: error: there is no command '{words[0]}'; {hint}")
        return 2
    # Imported late: a typo or --help should not wait for torch.
    verb = importlib.import_module(f"bayesflowmass.{words[0]}")
    code: int = verb.main(words[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())
