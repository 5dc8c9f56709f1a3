"""What a footprint makes of clusters: how far their fields reach, what of them was observed, what a model is told."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table
from small_model import toy_catalog, toy_estimator

from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import transverse_mpc_h_per_radian
from bayesflowmass.estimator.observations import read_observations
from bayesflowmass.estimator.observed_field import in_footprint
from bayesflowmass.estimator.told import tell
from bayesflowmass.infer import main as infer
from bayesflowmass.io.footprint_file import CompletenessMap, SkyRegions
from bayesflowmass.io.sky import sky_position
from bayesflowmass.selection import aperture

pytest.importorskip("regions")
R_MAX, STEP = 1.6, 1.6 / 32
PLACES = np.array([[150.0, 2.0], [0.001, -40.0], [266.0, 85.0]])


def on_sky(n=3, **changes):
    catalog = toy_catalog(n, seed=5, **changes)
    return catalog.with_columns(ra=PLACES[:n, 0], dec=PLACES[:n, 1])


def degrees(catalog, lengths):
    """Angles of lengths [Mpc/h] at the (one) redshift of a catalogue."""
    scale = transverse_mpc_h_per_radian(catalog.column("redshift")[0], catalog.metadata.cosmology)
    return np.degrees(np.asarray(lengths) / scale).tolist()


def regions(catalog, shape):
    return SkyRegions.parse(
        "icrs\n" + "\n".join(shape.format(ra=ra, dec=dec) for ra, dec in PLACES[: len(catalog)]), "field.reg"
    )


def test_discs_are_apertures():
    catalog = on_sky()
    radius = degrees(catalog, 0.8)
    seen = in_footprint(catalog, regions(catalog, f"circle({{ra}},{{dec}},{radius!r}d)"), R_MAX)
    np.testing.assert_allclose(seen.column("aperture"), 0.8, atol=1e-9)
    # Sixteen annuli of thirty-two; points of a spiral lie in them to one or two of some five hundred.
    np.testing.assert_allclose(seen.column("footprint_fraction"), 1.0, atol=0.01)
    expected = aperture(catalog, 0.8)
    np.testing.assert_array_equal(seen.n_galaxies, expected.n_galaxies)
    assert not seen.has("completeness")


@pytest.mark.parametrize("half", [0.3, 0.7, 1.2])
def test_a_square_reaches_a_little_beyond_its_inscribed_circle(half):
    catalog = on_sky()
    side = degrees(catalog, 2.0 * half)
    seen = in_footprint(catalog, regions(catalog, f"box({{ra}},{{dec}},{side!r}d,{side!r}d,30)"), R_MAX)
    edge = float(seen.column("aperture")[0])
    # cos(pi/8) of the covered half of an annulus, and one step.
    assert half / np.cos(np.pi / 8) - 2 * STEP <= edge <= half / np.cos(np.pi / 8) + 2 * STEP
    radius = np.linspace(0.0, edge, 100_001)[1:]
    covered = 1.0 - 4.0 / np.pi * np.arccos(np.minimum(half / radius, 1.0))
    # As many galaxies in a step of radius as mocks have.
    expected = np.average(covered, weights=radius / (radius + 0.15))
    np.testing.assert_allclose(seen.column("footprint_fraction"), expected, atol=0.01)


def test_an_edge_through_the_centre_halves_every_annulus():
    catalog = on_sky(1)
    text = "icrs\npolygon(150,-20,170,-20,170,20,150,20)"
    seen = in_footprint(catalog, SkyRegions.parse(text, "f"), R_MAX)
    assert seen.column("aperture")[0] == R_MAX
    # The innermost annulus holds eight points of the spiral, of which four give or take one lie on a side.
    assert seen.column("footprint_fraction")[0] == pytest.approx(0.5, abs=0.01)
    assert seen.galaxies("x").min() >= 0.0


def test_a_told_aperture_is_kept_where_it_is_smaller():
    """And the share that was observed is that inside it."""
    catalog = on_sky().with_columns(aperture=[0.5, 2.0, np.nan])
    side = degrees(catalog, 1.6)
    seen = in_footprint(catalog, regions(catalog, f"box({{ra}},{{dec}},{side!r}d,{side!r}d,0)"), R_MAX)
    np.testing.assert_array_equal(seen.column("aperture") > 0.5, [False, True, True])
    np.testing.assert_array_equal(seen.column("footprint_fraction") == 1.0, [True, False, False])


def test_a_map_says_the_completeness_and_regions_multiply_what_is_known():
    catalog = on_sky(1)
    steps = np.arange(-0.6, 0.6, 0.02)
    ra, dec = (grid.ravel() for grid in np.meshgrid(150.0 + steps, 2.0 + steps))
    sky = CompletenessMap(ra, dec, np.full(ra.size, 0.3))
    assert in_footprint(catalog, sky, R_MAX).column("completeness")[0] == pytest.approx(0.3)
    half = SkyRegions.parse("icrs\npolygon(150,-20,170,-20,170,20,150,20)", "f")
    known = in_footprint(catalog.with_columns(completeness=[0.8]), half, R_MAX)
    assert known.column("completeness")[0] == pytest.approx(0.4, abs=0.01)


def test_what_is_assumed_is_of_the_places_that_were_observed():
    model = toy_estimator()
    model.encoder.optional = type(model.encoder.optional)(("completeness", "abs_mag_limit"))
    half = SkyRegions.parse("icrs\npolygon(150,-20,170,-20,170,20,150,20)", "f")
    seen = in_footprint(on_sky(1), half, R_MAX)
    share = seen.column("footprint_fraction")[0]
    assert tell(seen, model, {"completeness": 0.9}).column("completeness")[0] == pytest.approx(0.9 * share)
    # A density is one of the survey: how much of a cluster it covers says nothing of its depth.
    whole, part = (
        tell(one, model, {"galaxy_density": 5e-3, "completeness": 0.9}) for one in (on_sky(1), seen)
    )
    assert part.column("abs_mag_limit")[0] == pytest.approx(whole.column("abs_mag_limit")[0])
    assert part.column("completeness")[0] == pytest.approx(0.9 * share)
    assert tell(seen, model, {"galaxy_density": 5e-3}).column("completeness")[0] == pytest.approx(share)


def test_a_cluster_that_was_not_observed_has_no_galaxies_and_no_completeness():
    catalog = on_sky().with_columns(completeness=0.5)
    radius = degrees(catalog, 3.0)
    sky = SkyRegions.parse(f"icrs\ncircle(150,2,{radius!r}d)", "f")
    seen = in_footprint(catalog, sky, R_MAX)
    assert seen.n_galaxies.tolist()[1:] == [0, 0]
    np.testing.assert_array_equal(np.isnan(seen.column("completeness")), [False, True, True])
    assert "2 clusters are outside the footprint; the first is 1." in seen.metadata.extra["notes"]


def test_without_places_on_the_sky_the_remedy_is_said():
    with pytest.raises(CatalogError, match=r"--footprint needs places on the sky.*give --aperture"):
        in_footprint(toy_catalog(2), SkyRegions.parse("icrs\ncircle(1,2,1d)", "f"), R_MAX)


def test_the_command_sees_what_lies_in_the_regions(tmp_path, capsys):
    """Masses are those of an aperture, where regions are discs of that radius."""
    catalog = on_sky()
    model = toy_estimator().save(tmp_path / "model")
    scale = transverse_mpc_h_per_radian(0.117, catalog.metadata.cosmology)
    row = catalog.galaxy_rows
    ra, dec = sky_position(
        PLACES[row, 0], PLACES[row, 1], catalog.galaxies("x") / scale, catalog.galaxies("y") / scale
    )
    z = 0.117 + catalog.galaxies("v_los") / 299792.458 * 1.117
    Table({"cluster_id": row, "ra": ra, "dec": dec, "z": z}).write(tmp_path / "galaxies.csv")
    clusters = {"cluster_id": np.arange(3), "ra": PLACES[:, 0], "dec": PLACES[:, 1], "z": np.full(3, 0.117)}
    Table(clusters).write(tmp_path / "clusters.csv")
    radius = degrees(catalog, 0.8)
    text = "icrs\n" + "\n".join(f"circle({a},{d},{radius!r}d)" for a, d in PLACES)
    (tmp_path / "field.reg").write_text(text, encoding="utf-8")
    tables = [str(tmp_path / "galaxies.csv"), str(tmp_path / "clusters.csv")]
    arguments = ["--galaxies", tables[0], "--clusters", tables[1], "--model", str(model), "--no-progress"]
    masses = {}
    for name, told in (("footprint", str(tmp_path / "field.reg")), ("aperture", "0.8")):
        out = tmp_path / f"{name}.ecsv"
        assert infer([*arguments, f"--{name}", told, "--out", str(out)]) == 0
        masses[name] = Table.read(out)
    error = capsys.readouterr().err
    assert "galaxies outside the footprint are left out" in error
    assert "fields reach to 0.80 Mpc/h, with 100 % of them observed" in error
    np.testing.assert_array_equal(masses["footprint"]["n_galaxies"], masses["aperture"]["n_galaxies"])
    np.testing.assert_allclose(masses["footprint"]["log10_mass"], masses["aperture"]["log10_mass"], atol=1e-6)
    told = read_observations(toy_estimator(), *tables, footprint=tmp_path / "field.reg")
    np.testing.assert_allclose(told.column("aperture"), 0.8)
