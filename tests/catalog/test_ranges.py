"""The table of ranges: what is in it, what means unknown, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from bayesflowmass.catalog import CatalogError
from bayesflowmass.catalog.ranges import RANGES, check_range, is_sentinel, known_values


def test_what_tables_write_for_not_measured_is_told_from_numbers():
    written = [-1, 9, -9, 99, 99.9, -99.99, 999, -999, 999.9, -9999, 9999.0, 99999, -9.999, 1e20, -1e30, 1e38]
    assert is_sentinel(written).all()
    numbers = [
        0.0,
        1.0,
        -2.0,
        0.9,
        0.99,
        0.999,
        8.0,
        10.0,
        98.0,
        100.0,
        400.0,
        12.99,
        998.0,
        -22.5,
        99.5,
        np.nan,
    ]
    assert not is_sentinel(numbers).any()


def test_a_sentinel_of_an_optional_column_is_unknown_and_a_value_in_range_stays():
    values, unknown = known_values("gal_v_err", [45.0, -1.0, 99999.0, 99.0, np.nan])
    np.testing.assert_array_equal(values, [45.0, np.nan, np.nan, 99.0, np.nan])
    np.testing.assert_array_equal(unknown, [False, True, True, False, False])
    # A coordinate is no optional column: what cannot be is refused.
    assert not known_values("dec", [-99.0])[1].any()


def test_float32_sentinels_are_known():
    assert is_sentinel(np.array([99.99, -9.99, 99.9, 9999.9], dtype=np.float32)).all()


@pytest.mark.parametrize("name", RANGES)
def test_every_column_takes_the_ends_of_its_range_and_nothing_beyond(name):
    limits = RANGES[name]
    check_range(name, [limits.low, limits.high], lambda row: f"row {row}")
    for value in (np.nextafter(limits.low, -np.inf), np.nextafter(limits.high, np.inf), np.inf):
        with pytest.raises(CatalogError, match=r"row 1: .* is .*; expected"):
            check_range(name, [limits.high, value], lambda row: f"row {row}")
    assert bool(limits.holds(np.nan)) is limits.optional
