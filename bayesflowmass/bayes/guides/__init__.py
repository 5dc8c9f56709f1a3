"""Distributions q(w) over weights that are fitted to their posterior."""

from bayesflowmass.bayes.guides.base import WeightGuide
from bayesflowmass.bayes.guides.eigenbasis import Eigenbasis
from bayesflowmass.bayes.guides.full_covariance import FullCovariance
from bayesflowmass.bayes.guides.mean_field import MeanField

__all__ = ["Eigenbasis", "FullCovariance", "MeanField", "WeightGuide"]
