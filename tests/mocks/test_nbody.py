"""Mocks out of an N-body box: geometry and velocities on boxes whose answer is known, and by brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbody_box import (
    GALAXY_ID,
    HOST_ID,
    ToyBox,
    add_velocities,
    brute_force,
    expected_velocity,
    redshift_of_depth,
    toy_box,
)

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.cosmology import MDPL2
from bayesflowmass.mocks import simulate_nbody
from bayesflowmass.mocks.nbody import simulate as nbody
from bayesflowmass.mocks.nbody.directions import fibonacci_directions, lines_of_sight, sky_axes
from bayesflowmass.mocks.nbody.projection import HubbleFlow, depth_limit, line_of_sight_velocity

C = 299792.458
CUT = {"masses": "hmf", "redshift": 0.117, "v_max": 1500.0, "min_galaxies": 3, "workers": 1}
SLOW = settings(max_examples=5, deadline=None)


def cut(box, folder, **changes):
    """The catalogue that is cut from a box."""
    folder.mkdir(exist_ok=True)
    hosts, galaxies = box.write(folder)
    simulate_nbody(hosts, galaxies, folder / "cat.parquet", **{**CUT, "box_size": box.size, **changes})
    return ClusterCatalog.read(folder / "cat.parquet")


def one_host(offsets, velocities=None, *, at=(80.0, 80.0, 80.0), size=160.0, host_velocity=(0.0, 0.0, 0.0)):
    """A box with one host, and satellites of it at chosen offsets [Mpc/h]; the first galaxy is its central."""
    offsets = np.asarray(offsets, dtype=float)
    n = len(offsets)
    velocities = np.zeros((n, 3)) if velocities is None else np.asarray(velocities, dtype=float)
    return ToyBox(
        size=size,
        host_id=np.array([HOST_ID]),
        host_position=np.array([at], dtype=float),
        host_velocity=np.array([host_velocity], dtype=float),
        log10_mass=np.array([14.5]),
        r_vir=np.array([1.5]),
        galaxy_id=np.concatenate([[HOST_ID], GALAXY_ID + np.arange(n)]),
        upid=np.concatenate([[-1], np.full(n, HOST_ID)]),
        position=np.concatenate([[at], at + offsets]) % size,
        velocity=np.concatenate([[host_velocity], velocities]).astype("f4"),
    )


def along(catalog, axis):
    """The cluster that is seen along one axis of the box, as arrays by galaxy."""
    row = int(np.flatnonzero(catalog.column(f"los_{'xyz'[axis]}") == 1.0)[0])
    part = catalog[row]
    return {name: part.galaxies(name) for name in part.galaxy_columns} | {"r": part.r_proj}


def check_by_brute_force(box, catalog, *, kind, mode, membership, redshift, v_max=1500.0):
    """Compare every cluster with what brute force finds in its cylinder."""
    host = {name: row for row, name in enumerate(box.host_id)}
    for index in range(len(catalog)):
        part = catalog[index]
        row = host[part.column("halo_id")[0]]
        direction = np.array([part.column(f"los_{axis}")[0] for axis in "xyz"])
        sees = {"survey": True, "paper": False}[str(part.column("mode")[0]) if mode == "mixed" else mode]
        galaxy, radius, velocity, distance = brute_force(
            box, row, direction, redshift=redshift, r_max=1.6, v_max=v_max, centrals=sees
        )
        if membership == "id":
            own = (box.upid == box.host_id[row]) | (box.galaxy_id == box.host_id[row])
            member = own[galaxy]
        else:
            member = distance < box.r_vir[row]
        if kind == "pure":
            galaxy, radius, velocity, member = (a[member] for a in (galaxy, radius, velocity, member))
        order = np.argsort(box.galaxy_id[galaxy])
        np.testing.assert_array_equal(part.galaxies("gal_galaxy_id"), box.galaxy_id[galaxy][order])
        np.testing.assert_allclose(part.r_proj, radius[order], atol=2e-6)
        np.testing.assert_allclose(part.galaxies("v_los"), velocity[order], atol=2e-3)
        np.testing.assert_array_equal(part.galaxies("gal_is_member"), member[order])
        np.testing.assert_array_equal(part.galaxies("gal_is_central"), box.upid[galaxy][order] == -1)


@pytest.mark.parametrize(
    ("kind", "mode", "membership", "masses"),
    [
        ("contaminated", "paper", "id", "hmf"),
        ("contaminated", "survey", "radius", "flat"),
        ("pure", "mixed", "id", "flat"),
        ("pure", "paper", "radius", "hmf"),
    ],
)
@pytest.mark.parametrize("redshift", [0.0, 0.117, 0.9])
def test_clusters_are_those_of_brute_force(tmp_path, kind, mode, membership, masses, redshift):
    box = toy_box(int(100 * redshift) + len(kind + mode))
    lines = {"target_density": -4.6} if masses == "flat" else {}
    catalog = cut(
        box, tmp_path, kind=kind, mode=mode, membership=membership, masses=masses, redshift=redshift, **lines
    )
    if masses == "flat":
        assert catalog.column("projection").max() > 3
    catalog.validate()
    rows = np.random.default_rng(0).permutation(len(catalog))[:24]
    check_by_brute_force(box, catalog[rows], kind=kind, mode=mode, membership=membership, redshift=redshift)


@SLOW
@given(
    seed=st.integers(0, 10**6),
    size=st.floats(120.0, 400.0),
    speed=st.floats(0.0, 400.0),
    redshift=st.floats(0.0, 1.5),
    density=st.floats(-6.0, -4.5),
    mode=st.sampled_from(["paper", "survey", "mixed"]),
    membership=st.sampled_from(["id", "radius"]),
)
def test_any_box_is_cut_as_by_brute_force(
    tmp_path_factory, seed, size, speed, redshift, density, mode, membership
):
    box = toy_box(seed, size=size, n_hosts=5, n_field=400, speed=speed)
    catalog = cut(
        box,
        tmp_path_factory.mktemp("box"),
        mode=mode,
        membership=membership,
        masses="flat",
        redshift=redshift,
        target_density=max(density, np.log10(30.0 / size**3)),
        max_projections=9,
        v_max=1000.0,
    )
    catalog = catalog[np.random.default_rng(seed).permutation(len(catalog))[:12]]
    check_by_brute_force(
        box, catalog, kind="contaminated", mode=mode, membership=membership, redshift=redshift, v_max=1000.0
    )


def test_lines_of_sight_that_brute_force_finds_poor_are_the_ones_that_are_missing(tmp_path):
    box = toy_box(3, n_satellites=12)
    catalog = cut(box, tmp_path, min_galaxies=10)
    rich = set()
    for row, name in enumerate(box.host_id):
        for axis in range(3):
            found = brute_force(box, row, np.eye(3)[axis], redshift=0.117, r_max=1.6, v_max=1500.0)[0]
            if found.size >= 10:
                rich.add((name, axis))
    seen = np.stack([catalog.column(f"los_{axis}") for axis in "xyz"], axis=1).argmax(axis=1)
    assert set(zip(catalog.column("halo_id").tolist(), seen.tolist(), strict=True)) == rich
    assert 0 < len(rich) < 36
    assert catalog.metadata.extra["nbody"]["n_lines"] == 36
    assert catalog.metadata.extra["nbody"]["n_poor"] == 36 - len(rich)


@SLOW
@given(
    shift=st.tuples(*[st.floats(-200.0, 200.0)] * 3),
    seed=st.integers(0, 10**6),
)
def test_where_the_origin_of_the_box_lies_changes_nothing(tmp_path_factory, shift, seed):
    box = toy_box(seed, n_hosts=8, n_field=500)
    here = cut(box, tmp_path_factory.mktemp("here"))
    there = cut(box.shifted(np.array(shift)), tmp_path_factory.mktemp("there"))
    order = [np.argsort(catalog.column("cluster_id")) for catalog in (here, there)]
    here, there = here[order[0]], there[order[1]]
    np.testing.assert_array_equal(here.column("cluster_id"), there.column("cluster_id"))
    np.testing.assert_array_equal(here.galaxies("gal_galaxy_id"), there.galaxies("gal_galaxy_id"))
    for name, tolerance in (("x", 1e-5), ("y", 1e-5), ("v_los", 1e-2)):
        np.testing.assert_allclose(here.galaxies(name), there.galaxies(name), atol=tolerance)


def test_a_halo_across_a_corner_of_the_box_is_whole(tmp_path):
    offsets = np.array(np.meshgrid(*[[-0.8, 0.8]] * 3)).reshape(3, -1).T
    box = one_host(offsets, at=(0.0, 0.0, 0.0))
    assert np.unique(box.position[1:] > 80.0, axis=0).shape == (8, 3)
    catalog = cut(box, tmp_path, kind="pure")
    assert len(catalog) == 3
    np.testing.assert_array_equal(catalog.n_galaxies, 8)
    np.testing.assert_array_equal(catalog.column("richness_true"), 8)
    np.testing.assert_allclose(catalog.r_proj, 0.8 * np.sqrt(2.0), rtol=1e-6)
    # At rest, they are seen in the Hubble flow: 94.8 km/s per comoving Mpc/h at z = 0.117.
    np.testing.assert_allclose(np.abs(catalog.galaxies("v_los")), 0.8 * 94.77, rtol=1e-3)


def test_a_galaxy_that_moves_through_a_face_is_seen_to_move_steadily(tmp_path):
    steps = np.linspace(-2.0, 2.0, 9)
    host = (80.0, 80.0, 158.0)
    seen = []
    for index, step in enumerate(steps):
        # The face is 2 Mpc/h behind the host; one galaxy passes it, two keep the cluster rich enough.
        offsets = [[0.3, 0.0, 2.0 + step], [0.0, 0.5, 0.0], [0.0, -0.5, 0.1]]
        box = one_host(offsets, at=host)
        catalog = cut(box, tmp_path / str(index))
        seen.append(along(catalog, 2)["v_los"][0])
        assert (box.position[1, 2] < 10.0) == (step >= 0.0)
    jumps = np.diff(seen)
    np.testing.assert_allclose(jumps, 0.5 * 94.77, rtol=3e-3)


@pytest.mark.parametrize(("redshift", "flow"), [(0.0, 100.0), (0.117, 105.87 / 1.117)])
def test_a_galaxy_in_front_approaches_and_one_behind_recedes(tmp_path, redshift, flow):
    box = one_host([[0.1, 0.2, -5.0], [0.1, 0.2, 5.0], [0.2, 0.1, 0.0]])
    front, behind, beside = along(cut(box, tmp_path, redshift=redshift), 2)["v_los"]
    assert front == pytest.approx(-5.0 * flow, rel=5e-3)
    assert behind == pytest.approx(5.0 * flow, rel=5e-3)
    assert beside == pytest.approx(0.0, abs=1e-6)
    # At redshift 0 the galaxy in front has a negative redshift, not one that was set to 0.
    assert redshift_of_depth(redshift, -5.0) < redshift


def test_the_velocity_of_the_host_counts_as_much_as_that_of_the_galaxy(tmp_path):
    offsets = [[0.1, 0.2, 0.0], [0.2, 0.1, 0.0], [0.3, 0.1, 0.0]]
    still = along(cut(one_host(offsets, [[0, 0, 700]] * 3), tmp_path), 2)["v_los"]
    moving = cut(one_host(offsets, [[0, 0, 0]] * 3, host_velocity=(0, 0, -700)), tmp_path)
    np.testing.assert_allclose(still, along(moving, 2)["v_los"], rtol=1e-6)
    np.testing.assert_allclose(still, 700.0, atol=1e-3)
    np.testing.assert_allclose(along(moving, 0)["v_los"], [94.77 * 0.1, 94.77 * 0.2, 94.77 * 0.3], rtol=2e-3)


@SLOW
@given(seed=st.integers(0, 10**6))
def test_turning_box_and_line_of_sight_together_changes_nothing(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    offsets = rng.normal(0.0, 1.5, (40, 3)) * [1.0, 1.0, 4.0]
    velocities = rng.normal(0.0, 500.0, (40, 3))
    box = one_host(offsets, velocities, host_velocity=(200.0, -100.0, 300.0))
    turned = one_host(
        offsets @ turn.T, velocities @ turn.T, host_velocity=tuple(turn @ np.array([200.0, -100.0, 300.0]))
    )
    straight = along(cut(box, tmp_path_factory.mktemp("a"), membership="radius"), 2)
    lines = replace(lines_of_sight(turned.host_id, np.array([1]), 0), axis=np.array([-1]))
    lines = replace(lines, direction=turn[:, 2][None])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nbody, "lines_of_sight", lambda *_: lines)
        tilted = cut(turned, tmp_path_factory.mktemp("b"), membership="radius")
    np.testing.assert_array_equal(tilted.galaxies("gal_galaxy_id"), straight["gal_galaxy_id"])
    np.testing.assert_allclose(tilted.r_proj, straight["r"], atol=1e-5)
    np.testing.assert_allclose(tilted.galaxies("v_los"), straight["v_los"], atol=2e-3)
    np.testing.assert_array_equal(tilted.galaxies("gal_is_member"), straight["gal_is_member"])


@given(
    redshift=st.sampled_from([0.0, 0.022, 0.117, 0.304, 1.0]),
    depth=st.floats(-60.0, 60.0),
    galaxy=st.floats(-5000.0, 5000.0),
    host=st.floats(-2000.0, 2000.0),
)
@settings(deadline=None)
def test_velocities_are_the_relativistic_difference_of_composed_velocities(redshift, depth, galaxy, host):
    flow = HubbleFlow(redshift, MDPL2, 60.0)
    found = line_of_sight_velocity(np.array([depth]), np.array([galaxy]), np.array([host]), flow)[0]
    assert found == pytest.approx(expected_velocity(redshift, depth, galaxy, host), abs=1e-5)


@pytest.mark.parametrize(("speed", "difference"), [(800.0, 1.07), (-800.0, 1.07), (2000.0, 6.7)])
def test_velocities_agree_with_those_of_observers_to_second_order(speed, difference):
    flow, redshift, depth = HubbleFlow(0.117, MDPL2, 60.0), 0.117, 3.0
    host = -250.0
    galaxy = add_velocities(speed, host)
    v_los = line_of_sight_velocity(np.array([0.0]), np.array([galaxy]), np.array([host]), flow)[0]
    z_host = (1 + redshift) * np.sqrt((1 + host / C) / (1 - host / C)) - 1
    z_galaxy = (1 + redshift) * np.sqrt((1 + galaxy / C) / (1 - galaxy / C)) - 1
    observed = C * (z_galaxy - z_host) / (1 + z_host)
    assert v_los == pytest.approx(speed, abs=1e-6)
    assert observed - v_los == pytest.approx(difference, rel=0.03)
    behind = line_of_sight_velocity(np.array([depth]), np.array([galaxy]), np.array([host]), flow)[0]
    z_behind = (1 + redshift_of_depth(redshift, depth)) * (1 + z_galaxy) / (1 + redshift) - 1
    assert C * (z_behind - z_host) / (1 + z_host) - behind == pytest.approx(behind**2 / 2 / C, rel=0.03)


@pytest.mark.parametrize("redshift", [0.0, 0.117, 1.0])
def test_the_depth_of_a_cylinder_is_where_the_fastest_galaxy_just_falls_out(redshift):
    depth = depth_limit(redshift, MDPL2, 2500.0, 3000.0, 800.0)
    flow = HubbleFlow(redshift, MDPL2, 1.1 * depth)
    edge = np.abs(
        line_of_sight_velocity(
            np.array([depth, -depth]), np.array([-3000.0, 3000.0]), np.array([800.0, -800.0]), flow
        )
    )
    # The Hubble flow changes with depth, so that one of the two sides is the deeper one.
    assert edge.min() == pytest.approx(2500.0, abs=1e-6)
    assert edge.max() < 2700.0


@given(
    height=st.floats(-1.0, 1.0),
    angle=st.floats(0.0, 6.3),
    axis=st.sampled_from([None, 0, 1, 2, 3, 4, 5]),
)
def test_axes_on_the_sky_are_right_handed_everywhere(height, angle, axis):
    radius = np.sqrt(1.0 - height**2)
    z = np.array([[radius * np.cos(angle), radius * np.sin(angle), height]])
    if axis is not None:
        z = np.eye(3)[[axis % 3]] * (1.0 if axis < 3 else -1.0)
    x, y = sky_axes(z)
    np.testing.assert_allclose(np.cross(x, y), z, atol=1e-12)
    np.testing.assert_allclose([(x * y).sum(), (x * x).sum(), (y * y).sum()], [0, 1, 1], atol=1e-12)


@pytest.mark.parametrize("n", [4, 30, 500])
def test_fibonacci_points_are_evenly_spread_and_turn_with_their_phase(n):
    k = np.arange(n)
    points = fibonacci_directions(k, np.full(n, n), np.full(n, 0.3))
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0, rtol=1e-12)
    assert np.abs(points.mean(axis=0)).max() < 0.5 / n
    second = points.T @ points / n
    assert np.abs(second - np.eye(3) / 3.0).max() < 0.5 / n
    cosine = points @ points.T - 2.0 * np.eye(n)
    # The best that n points can do is 3.8 / sqrt n.
    assert np.arccos(cosine.max()) > 2.5 / np.sqrt(n)
    turned = fibonacci_directions(k, np.full(n, n), np.full(n, 0.3 + 1.0))
    angle = np.arctan2(turned[:, 1], turned[:, 0]) - np.arctan2(points[:, 1], points[:, 0])
    np.testing.assert_allclose(np.mod(angle, 2.0 * np.pi), 1.0, atol=1e-9)


def test_haloes_have_lines_and_phases_of_their_own_that_the_seed_draws():
    ids = HOST_ID + np.arange(4000)
    counts = np.resize([0, 1, 2, 3], ids.size)
    lines = lines_of_sight(ids, counts, 1)
    np.testing.assert_array_equal(np.bincount(lines.host, minlength=ids.size), counts)
    for number in (2, 3):
        chosen = lines.axis[counts[lines.host] == number].reshape(-1, number)
        assert (np.diff(np.sort(chosen, axis=1)) > 0).all()
    single = np.bincount(lines.axis[counts[lines.host] == 1], minlength=3)
    # Six standard deviations of a binomial count.
    assert np.abs(single - 1000 / 3).max() < 6 * np.sqrt(1000 * 2 / 9)
    again, other = lines_of_sight(ids, counts, 1), lines_of_sight(ids, counts, 2)
    np.testing.assert_array_equal(lines.direction, again.direction)
    assert (lines.axis != other.axis).mean() > 0.4
    many = lines_of_sight(ids[:50], np.full(50, 7), 1)
    phase = np.arctan2(many.direction[::7, 1], many.direction[::7, 0])
    assert np.unique(phase).size == 50
    assert (many.axis == -1).all()
    # A halo keeps its lines when others leave the file.
    np.testing.assert_array_equal(lines_of_sight(ids[7:8], np.array([7]), 1).direction, many.direction[49:56])
