"""What learns between context and flow: dense and convolutional networks, and one over the galaxies."""

from bayesflowmass.networks.convolutional import *  # noqa: F403
from bayesflowmass.networks.dense import *  # noqa: F403
from bayesflowmass.networks.over_galaxies import *  # noqa: F403
