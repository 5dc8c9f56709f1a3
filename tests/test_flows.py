"""Contracts that every conditional flow keeps."""

from __future__ import annotations

import json

import pytest
import torch

from bayesflowmass.flows import FLOW_KINDS, ConditionalFlow, build_flow


@pytest.mark.parametrize("kind", FLOW_KINDS)
class TestEveryFlow:
    def test_description_survives_json(self, kind):
        flow = build_flow(kind, 4, 14.37, 0.613, hidden=(8,), seed=3)
        rebuilt = ConditionalFlow.from_description(json.loads(json.dumps(flow.describe())))
        assert rebuilt.describe() == flow.describe()
        for name, value in flow.state_dict().items():
            assert torch.equal(rebuilt.state_dict()[name], value)
