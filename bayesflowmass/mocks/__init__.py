"""Mock galaxy clusters: dark-matter physics in, a catalogue of galaxies on the sky out."""

from bayesflowmass.mocks.catalog_builder import simulate_catalog
from bayesflowmass.mocks.galaxies import Component
from bayesflowmass.mocks.parameters import MockParameters, parameter_table
from bayesflowmass.mocks.randomisation import PRIORS, Randomisation

__all__ = [
    "PRIORS",
    "Component",
    "MockParameters",
    "Randomisation",
    "parameter_table",
    "simulate_catalog",
]
