"""The cluster card: complete and legible for mocks and observed clusters, few galaxies and many, any name."""

from __future__ import annotations

import numpy as np
import pytest
from figure_checks import drawn_texts, off_the_page, overlapping
from matplotlib.text import Text
from small_model import toy_catalog, with_uncertain_weights

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.estimator import FLAGS
from bayesflowmass.estimator.memberships import Memberships
from bayesflowmass.evaluation.cards import cluster_cards
from bayesflowmass.infer import main
from bayesflowmass.plots.card.names import card_names
from bayesflowmass.plots.card.page import plot_cluster_card
from bayesflowmass.plots.card.text import attribution_rows

LONG = "SDSS-C4-DR3 2163 = Abell 2142 (BCG of RXC J1558.3+2713), $a cluster$ with a name twice as wide as the page)"


def mock(n_galaxies, seed=0):
    """One mock cluster of given size, with members and interlopers known."""
    rng = np.random.default_rng(seed)
    member = rng.random(n_galaxies) < 0.7
    member[:2] = True, False
    radius, angle = 1.6 * np.sqrt(rng.random(n_galaxies)), rng.uniform(0.0, 2.0 * np.pi, n_galaxies)
    v = np.where(member, 700.0 * rng.normal(size=n_galaxies), rng.uniform(-2400.0, 2400.0, n_galaxies))
    template = toy_catalog(2, seed=1)
    return ClusterCatalog.from_arrays(
        {"cluster_id": np.array([17]), "redshift": np.array([0.117]), "log10_mass": np.array([14.4])},
        {"x": radius * np.cos(angle), "y": radius * np.sin(angle), "v_los": v, "gal_is_member": member},
        [n_galaxies],
        template.metadata,
    )


def observed(n_galaxies, name=LONG):
    """The same without anything that only a mock knows."""
    return (
        mock(n_galaxies)
        .without("gal_is_member", "log10_mass")
        .with_columns(cluster_id=np.array([name]))
        .with_metadata(masses=None)
    )


@pytest.fixture(scope="module")
def bayesian(estimator):
    return with_uncertain_weights(estimator)


def words(figure):
    return "\n".join(text.get_text() for text in figure.findobj(Text))


CASES = {
    "5 galaxies": lambda: (observed(5), {}),
    "mock of 60": lambda: (mock(60), {"p_novelty": [0.02]}),
    "all flags": lambda: (observed(40), {"flags": [",".join(FLAGS)]}),
    "no attribution": lambda: (observed(40), {"attribution": False, "flags": ["edge,mode"]}),
    "1500 galaxies": lambda: (mock(1500), {"attribution": False}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_text_of_a_card_can_be_read(case, estimator):
    cluster, options = CASES[case]()
    (figure,) = cluster_cards(estimator, cluster, model="runs/" + "a_long_name_of_a_run/" * 8, **options)
    texts = drawn_texts(figure)
    assert overlapping(texts) == []
    assert off_the_page(figure, texts) == []
    assert min(float(text.get_fontsize()) for text, _ in texts) >= 6.0


def test_a_card_of_a_bayesian_model_shows_draws_and_both_parts_of_the_width(bayesian):
    cluster = mock(60)
    (figure,) = cluster_cards(bayesian, cluster, attribution=False)
    posterior = bayesian.posterior(cluster)
    text = words(figure)
    assert overlapping(drawn_texts(figure)) == []
    assert f"{posterior.sigma_aleatoric[0]:.3f}, {posterior.sigma_epistemic[0]:.3f} dex" in text
    pdf = next(axis for axis in figure.axes if "p(\\log" in axis.get_ylabel())
    assert sum(line.get_linewidth() == 0.4 for line in pdf.lines) == 5
    assert "draws of the weights" in text


def test_a_mock_shows_its_truth_and_an_observed_cluster_has_none(estimator):
    (figure,) = cluster_cards(estimator, mock(60), attribution=False)
    assert "truth" in words(figure)
    assert "interlopers" in words(figure)
    (figure,) = cluster_cards(estimator, observed(60), attribution=False)
    assert "truth" not in words(figure)
    assert "interlopers" not in words(figure)
    known = observed(60).with_columns(log10_mass=np.array([14.7]))
    (figure,) = cluster_cards(estimator, known, attribution=False)
    assert "in the catalogue" in words(figure)


def test_numbers_on_the_card_are_those_of_the_posterior(estimator):
    cluster = mock(60)
    posterior = estimator.posterior(cluster, "hmf")
    (figure,) = cluster_cards(estimator, cluster, prior="hmf", attribution=False)
    text = words(figure)
    assert f"{posterior.median[0]:.2f}" in text
    assert "hmf prior" in text
    assert "60 galaxies" in text
    v = cluster.galaxies("v_los")
    assert f"{np.std(v, ddof=1):.0f}, " in text
    pdf = next(axis for axis in figure.axes if "p(\\log" in axis.get_ylabel())
    curve = max(pdf.lines, key=lambda line: line.get_linewidth())
    x, p = curve.get_data()
    np.testing.assert_allclose(p, posterior.pdf(x[:, None])[:, 0])


def test_flags_are_explained_in_words_and_named_where_there_is_no_room(estimator):
    (figure,) = cluster_cards(estimator, observed(40), flags=["edge,mode"], attribution=False)
    text = words(figure).replace("\n", " ")
    for name in ("edge", "mode"):
        assert f"{name}: {FLAGS[name]}" in text
    (figure,) = cluster_cards(estimator, observed(40), flags=[",".join(FLAGS)], attribution=False)
    assert all(name in words(figure) for name in FLAGS)


def test_memberships_colour_galaxies_and_give_the_expected_number(estimator):
    cluster = mock(60)
    p = np.linspace(0.0, 1.0, 60)
    found = Memberships(p, np.array([p.sum()]), np.array([3.4]))
    figure = plot_cluster_card(cluster, estimator.posterior(cluster), memberships=found)
    shown = np.concatenate([np.asarray(c.get_array()) for c in figure.axes[1].collections])
    np.testing.assert_allclose(np.sort(shown), p)
    assert r"$30 \pm 3$ of 60" in words(figure)
    texts = drawn_texts(figure)
    assert overlapping(texts) == []
    assert off_the_page(figure, texts) == []
    velocities = next(axis for axis in figure.axes if "galaxies per" in axis.get_ylabel())
    expected = max(velocities.patches, key=lambda patch: len(patch.get_path().vertices)).get_path().vertices
    assert expected[:, 1].max() <= 60


def test_members_colour_galaxies_also_beside_an_attribution(estimator):
    cluster = mock(60)
    p = np.linspace(0.0, 1.0, 60)
    found = Memberships(p, np.array([p.sum()]), np.array([3.4]))
    change = np.linspace(-0.02, 0.03, 60)
    figure = plot_cluster_card(cluster, estimator.posterior(cluster), memberships=found, attribution=change)
    shown = np.concatenate([np.asarray(c.get_array()) for c in figure.axes[1].collections])
    np.testing.assert_allclose(np.sort(shown), p)
    assert "what the galaxy adds [dex]" in words(figure)


def test_where_directions_are_not_known_no_sky_is_drawn(estimator):
    cluster = observed(60)
    cluster = cluster.with_metadata(selection=cluster.metadata.selection | {"positions": "radial"})
    (figure,) = cluster_cards(estimator, cluster, attribution=False)
    assert "directions not known" in words(figure)
    assert overlapping(drawn_texts(figure)) == []
    counts = [patch.get_height() for patch in figure.axes[1].patches]
    assert sum(counts) == 60


def test_attribution_colours_each_galaxy_and_lists_the_extremes(estimator):
    cluster = mock(60)
    change = np.linspace(-0.02, 0.03, 60)
    change[7] = np.nan
    posterior = estimator.posterior(cluster)
    figure = plot_cluster_card(cluster, posterior, attribution=change)
    sky = figure.axes[1]
    shown = np.concatenate([np.asarray(c.get_array()) for c in sky.collections if c.get_array() is not None])
    np.testing.assert_allclose(np.sort(shown), np.sort(np.nan_to_num(change)))
    bars = next(axis for axis in figure.axes if axis.get_xlabel() == "what the galaxy adds [dex]")
    lengths = sorted(p.get_width() for p in bars.patches)
    np.testing.assert_allclose(lengths, [*change[:5], *change[-5:]])


def test_the_listed_galaxies_are_the_extremes_with_their_names():
    cluster = mock(8).with_galaxies(gal_galaxy_id=np.array([f"J{i:030d}" for i in range(8)]))
    change = np.array([0.1, -0.3, 0.2, np.nan, 0.05, -0.1, 0.0, 0.3])
    rows = attribution_rows(cluster, np.array([True] * 7 + [False]), change)
    assert [value for _, value in rows] == [0.3, 0.2, 0.1, 0.0, -0.1, -0.3]
    assert "interloper" in rows[0][0]
    assert rows[0][0].startswith("J000000...0000007")
    assert f"{cluster.r_proj[7]:.2f}" in rows[0][0]


def test_card_names_are_safe_and_unique():
    assert card_names(["A 85", "a_85", "../etc/passwd", "Coma", "$M$", "..", 12]) == [
        "A_85",
        "a_85_2",
        "etc_passwd",
        "Coma",
        "M",
        "cluster",
        "12",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, c: plot_cluster_card(toy_catalog(2), e.posterior(toy_catalog(2))), "one cluster"),
        (lambda e, c: plot_cluster_card(c, e.posterior(c), attribution=np.zeros(3)), "attribution"),
        (lambda e, c: plot_cluster_card(c, e.posterior(c).with_mass_definition("500c")), "M200c"),
    ],
    ids=["two clusters", "length", "definition"],
)
def test_a_card_refuses_what_does_not_fit(change, message, estimator):
    with pytest.raises(ValueError, match=message):
        change(estimator, mock(30))


def test_infer_writes_a_card_for_each_cluster_that_has_a_mass(tmp_path, estimator, capsys):
    model, catalog, out = tmp_path / "model", tmp_path / "cat.parquet", tmp_path / "cards"
    estimator.save(model)
    clusters = [mock(20), mock(15).with_columns(cluster_id=np.array([18]))]
    whole = ClusterCatalog.concatenate(clusters).without("log10_mass")
    # The second is left with two galaxies, too few for a mass.
    whole.filter_galaxies(np.r_[np.ones(20, dtype=bool), np.arange(15) < 2]).write(catalog)
    flags = ["--model", str(model), "--galaxies", str(catalog), "--out", str(tmp_path / "m.ecsv")]
    assert main([*flags, "--cards", str(out), "--no-progress", "--device", "cpu"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["17.pdf", "17.png"]
    assert "1 card in" in capsys.readouterr().out
