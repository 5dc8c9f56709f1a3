"""What observing does to a catalogue.

Small pure functions, catalogue in, catalogue out. Each works on all galaxies at once, takes a seed where it
is random (the same seed gives the same galaxies), and writes what it did into ``metadata.selection``. The
same functions serve mocks, data and random augmentation in training. `SelectionProbability` is what a cut in
richness does to a population: P(select | log10 mass, z), from mocks; `SelectionTable` is P as a table.
"""

from bayesflowmass.selection.collisions import fibre_collisions
from bayesflowmass.selection.cuts import aperture, cylinder, magnitude_limit, richness_limits
from bayesflowmass.selection.errors import miscentre, velocity_errors
from bayesflowmass.selection.interlopers import remove_interlopers
from bayesflowmass.selection.limited import LimitedSample
from bayesflowmass.selection.losses import central_losses, completeness
from bayesflowmass.selection.probability import SelectionProbability
from bayesflowmass.selection.recentring import recentre, recentre_position, recentre_velocity
from bayesflowmass.selection.table import SelectionTable

__all__ = [
    "LimitedSample",
    "SelectionProbability",
    "SelectionTable",
    "aperture",
    "central_losses",
    "completeness",
    "cylinder",
    "fibre_collisions",
    "magnitude_limit",
    "miscentre",
    "recentre",
    "recentre_position",
    "recentre_velocity",
    "remove_interlopers",
    "richness_limits",
    "velocity_errors",
]
