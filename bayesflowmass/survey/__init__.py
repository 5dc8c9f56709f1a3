"""One survey: how its clusters were observed, mocks of it, and whether a model of its own is better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesflowmass.common.lazy import lazy_exports

__all__ = ["Fact", "beside", "configuration", "measure", "verdict"]

if TYPE_CHECKING:
    from bayesflowmass.survey.compared import beside, verdict
    from bayesflowmass.survey.measured import Fact, measure
    from bayesflowmass.survey.settings_file import configuration

__getattr__, __dir__ = lazy_exports(__name__, __file__)
