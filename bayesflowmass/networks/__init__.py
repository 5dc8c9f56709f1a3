"""What learns between context and flow: dense and convolutional networks."""

from bayesflowmass.networks.convolutional import ConvNetwork
from bayesflowmass.networks.dense import DenseNetwork

__all__ = ["ConvNetwork", "DenseNetwork"]
