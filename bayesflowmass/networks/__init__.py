"""What learns between context and flow: dense and convolutional networks, and one over the galaxies."""

from bayesflowmass.networks.convolutional import ConvNetwork
from bayesflowmass.networks.dense import DenseNetwork
from bayesflowmass.networks.over_galaxies import SetNetwork, SetTrunk

__all__ = ["ConvNetwork", "DenseNetwork", "SetNetwork", "SetTrunk"]
