"""Mock clusters cut out of an N-body box."""

from bayesflowmass.mocks.nbody.simulate import simulate_nbody
from bayesflowmass.mocks.nbody.write import NbodySummary

__all__ = ["NbodySummary", "simulate_nbody"]
