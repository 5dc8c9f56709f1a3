"""Clusters with fewer galaxies than are asked for: refused with their number, left out and listed, or kept."""

from __future__ import annotations

import numpy as np
import pytest
from flat_tables import frame_tables
from small_model import toy_catalog

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io import read_flat
from bayesflowmass.io.flat.read import drop_or_refuse_poor_clusters as treated


def catalog(*counts, r_max=1.6):
    """Clusters of so many galaxies."""
    whole = toy_catalog(len(counts))
    place = np.arange(whole.n_galaxies_total) - np.repeat(whole.offsets[:-1], whole.n_galaxies)
    poor = whole.filter_galaxies(place < np.array(counts)[whole.galaxy_rows])
    return poor.with_metadata(selection={"r_max": r_max, "v_max": 2500.0})


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((5, 0, 9), r"cluster 1 has no galaxies in the cylinder; expected at least 3 \(1 of 3 clusters have"),
        ((5, 9, 1), r"cluster 2 has one galaxy in the cylinder; expected at least 3 \(1 of 3"),
        ((2, 9, 1), r"cluster 0 has 2 galaxies in the cylinder; expected at least 3 \(2 of 3"),
    ],
)
def test_a_poor_cluster_is_refused_with_the_number_of_its_galaxies(counts, said):
    with pytest.raises(CatalogError, match=said):
        treated(catalog(*counts), 3, "error")
    without = said.replace(" in the cylinder", "")
    with pytest.raises(CatalogError, match=without):
        treated(catalog(*counts, r_max=None), 3, "error")
    assert treated(catalog(*counts), 0, "error").n_galaxies.tolist() == list(counts)


def test_a_cluster_without_a_redshift_is_poor_for_that_reason():
    poor = catalog(5, 0, 9).with_columns(redshift=np.array([0.1, np.nan, 0.1]))
    with pytest.raises(CatalogError, match="cluster 1 has no redshift; expected at least 3"):
        treated(poor, 3, "error")


def test_clusters_of_exactly_so_many_are_not_poor_and_the_others_are_left_out_or_kept():
    found = treated(catalog(5, 3, 2, 0), 3, "drop")
    assert found.n_galaxies.tolist() == [5, 3]
    assert found.metadata.extra["dropped_clusters"] == [2, 3]
    assert "dropped_clusters" not in treated(catalog(5, 3), 3, "drop").metadata.extra
    assert treated(catalog(5, 3, 2, 0), 3, "keep").n_galaxies.tolist() == [5, 3, 2, 0]
    with pytest.raises(CatalogError, match="none of the 2 clusters has 3 galaxies"):
        treated(catalog(2, 0), 3, "drop")


def test_tables_are_cut_where_either_limit_is_given_and_not_without_one():
    galaxies, clusters = frame_tables(n=2)
    plain = read_flat(galaxies, clusters, r_max=None, v_max=None)
    assert "r_max" not in plain.metadata.selection
    assert "galaxies_outside_cylinder" not in plain.metadata.extra
    for limits in ({"r_max": 1.0, "v_max": None}, {"r_max": None, "v_max": 700.0}):
        cut = read_flat(galaxies, clusters, few_galaxies="keep", **limits)
        assert {name: cut.metadata.selection[name] for name in limits} == limits
        outside = cut.metadata.extra["galaxies_outside_cylinder"]
        assert outside == plain.n_galaxies_total - cut.n_galaxies_total
        inside = np.hypot(plain.galaxies("x"), plain.galaxies("y")) < (limits["r_max"] or np.inf)
        inside &= np.abs(plain.galaxies("v_los")) < (limits["v_max"] or np.inf)
        assert cut.n_galaxies_total == inside.sum()
    with pytest.raises(CatalogError, match="few_galaxies is 'some'; expected one of"):
        read_flat(galaxies, clusters, few_galaxies="some")
    assert read_flat(galaxies, clusters, cleaned=True).metadata.selection["cleaned"] is True
    assert "cleaned" not in plain.metadata.selection
