"""Who is better where, and by how much more than chance: stored predictions side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesflowmass.common.lazy import lazy_exports

__all__ = ["Bin", "Comparison", "Method", "Verdict", "align", "mass_bins"]

if TYPE_CHECKING:
    from bayesflowmass.comparison.alignment import align
    from bayesflowmass.comparison.statistics import Bin, Comparison, Method, mass_bins
    from bayesflowmass.comparison.verdicts import Verdict

# Imported on first use: what a folder holds can be listed without torch.
__getattr__, __dir__ = lazy_exports(__name__, __file__)
