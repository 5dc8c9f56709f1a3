"""How unlike its training set a cluster, or a catalogue, is: calibrated p-values (docs/novelty.md)."""

from bayesflowmass.novelty.catalogue import ALARM, CatalogueVerdict, Difference
from bayesflowmass.novelty.detector import Assessment, NoveltyDetector
from bayesflowmass.novelty.report import NOTICEABLE, judge, verdict_sentence
from bayesflowmass.novelty.summaries import SUMMARIES, phase_space_summaries

__all__ = [
    "ALARM",
    "NOTICEABLE",
    "SUMMARIES",
    "Assessment",
    "CatalogueVerdict",
    "Difference",
    "NoveltyDetector",
    "judge",
    "phase_space_summaries",
    "verdict_sentence",
]
