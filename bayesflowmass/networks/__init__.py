"""What learns between context and flow: dense and convolutional networks."""

from bayesflowmass.networks.convolutional import *  # noqa: F403
from bayesflowmass.networks.dense import *  # noqa: F403
