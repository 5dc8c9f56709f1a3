"""How unlike its training set a cluster, or a catalogue, is: calibrated p-values (docs/novelty.md)."""

from bayesflowmass.novelty.catalogue import CatalogueVerdict, Difference
from bayesflowmass.novelty.detector import Assessment, NoveltyDetector
from bayesflowmass.novelty.report import ALARM, verdict_sentence
from bayesflowmass.novelty.summaries import SUMMARIES, phase_space_summaries

__all__ = [
    "ALARM",
    "SUMMARIES",
    "Assessment",
    "CatalogueVerdict",
    "Difference",
    "NoveltyDetector",
    "phase_space_summaries",
    "verdict_sentence",
]
