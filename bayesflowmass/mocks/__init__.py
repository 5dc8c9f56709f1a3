"""Mock galaxy clusters: dark-matter physics or an N-body box in, a catalogue of galaxies on the sky out."""

from bayesflowmass.mocks.catalog_builder import simulate_catalog
from bayesflowmass.mocks.galaxies import Component
from bayesflowmass.mocks.masses import sample_mass_function
from bayesflowmass.mocks.nbody import NbodySummary, simulate_nbody
from bayesflowmass.mocks.orbits import Orbit
from bayesflowmass.mocks.parameters import PRESETS, MockParameters, parameter_table
from bayesflowmass.mocks.randomisation import PRIORS, Randomisation

__all__ = [
    "PRESETS",
    "PRIORS",
    "Component",
    "MockParameters",
    "NbodySummary",
    "Orbit",
    "Randomisation",
    "parameter_table",
    "simulate_catalog",
    "simulate_nbody",
    "sample_mass_function",
]
