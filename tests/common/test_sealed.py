"""Sealed JSON and hashes: what no bit can change unseen."""

from __future__ import annotations

import json

import pytest
import torch

from bayesflowmass.common.sealed import SEAL, is_as_sealed, seal
from bayesflowmass.common.tensors import hash_tensors, pack, unpack


def test_sealed_json_gives_its_values_back_and_any_flipped_bit_breaks_the_seal():
    values = {"update": 3, "loss": [0.5, 1e-3], "zeros": 64 * "0"}
    data = seal(values)
    content = json.loads(data)
    claimed = content.pop(SEAL)
    assert content == values
    assert is_as_sealed(data, claimed)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << (bit % 8)
        try:
            found = json.loads(damaged).get(SEAL)
        except ValueError:
            continue
        assert not is_as_sealed(bytes(damaged), found), bit


def test_a_seal_that_is_no_hash_holds_nothing():
    data = seal({"a": 1})
    for claimed in (None, 3, "", "a", 64 * "0", json.loads(data)[SEAL].upper()):
        assert not is_as_sealed(data, claimed)


def test_what_is_not_finite_is_sealed_only_where_that_is_allowed():
    assert json.loads(seal({"best": float("inf")}))["best"] == float("inf")
    with pytest.raises(ValueError, match="not JSON compliant"):
        seal({"best": float("inf")}, allow_nan=False)


def test_packed_tensors_come_back_and_under_another_hash_they_do_not():
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor([True])}
    content, their_hash = pack(tensors)
    found = unpack(content, their_hash)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    for content_of, claimed in ((content[:-1], their_hash), (content, their_hash[::-1]), (content, None)):
        with pytest.raises(ValueError, match="not what was written"):
            unpack(content_of, claimed)


def test_hashes_see_every_bit_and_not_the_order():
    a, b = torch.zeros(3), torch.arange(3)
    assert hash_tensors({"a": a, "b": b}) == hash_tensors({"b": b, "a": a})
    assert hash_tensors({"a": a}) != hash_tensors({"a": -a})
    assert hash_tensors({"a": a}) != hash_tensors({"a": a.reshape(3, 1)})
    assert hash_tensors({"a": a}) != hash_tensors({"b": a})
