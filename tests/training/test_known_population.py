"""The likelihood of masses drawn from a known population: what it is, what it teaches, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from small_model import toy_catalog

from bayesflowmass.bayes import choose
from bayesflowmass.bayes.initialisation import fresh_copy
from bayesflowmass.catalog import CatalogError
from bayesflowmass.cosmology import MDPL2
from bayesflowmass.encoders import ContextEncoder, KDEEncoder
from bayesflowmass.estimator import MassEstimator
from bayesflowmass.flows import build_flow
from bayesflowmass.flows.known_population import TrainingPopulation
from bayesflowmass.posterior import FlatPrior, MassFunctionPrior, PiecewisePrior, SelectedPrior
from bayesflowmass.selection import SelectionTable
from bayesflowmass.train import main, train
from bayesflowmass.training.checkpoint import CheckpointError
from bayesflowmass.training.fit import fit
from bayesflowmass.training.known_population import known_population, tabulate
from bayesflowmass.training.last_layers import cut_before_random_layers
from bayesflowmass.training.sources import FixedSource

RANGE = (13.2, 15.6)
THINNED = PiecewisePrior((13.2, 14.4, 15.6), (1.0, 0.1), "thinned")


def flow(kind="affine+spline"):
    return build_flow(kind, 3, 14.4, 0.6, hidden=(8, 6), shared=True)


def contexts(n=6):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["affine", "affine+spline", "affine+mixture"])
@pytest.mark.parametrize(
    "prior",
    [
        THINNED,
        PiecewisePrior((13.2, 14.41, 15.6), (1.0, 0.01), "off"),
        MassFunctionPrior(RANGE),
        FlatPrior(RANGE),
    ],
    ids=lambda prior: prior.name,
)
def test_the_likelihood_is_that_of_the_population(kind, prior):
    network = flow(kind).double()
    context = contexts()
    mass = torch.linspace(13.4, 15.5, 6, dtype=torch.float64)
    population = tabulate(prior, toy_catalog(50))
    plain = network.log_prob(mass, context).detach()
    network.population = population
    found = network.log_prob(mass, context)
    log_q = prior.log_density(np.full(6, 0.117))

    def density(m, i=0):
        m = torch.as_tensor(m, dtype=torch.float64).reshape(-1, 1)
        return log_q(m.expand(-1, 6))[:, i].exp().numpy()

    inner = list(population.edges.numpy())
    # Gauss-Legendre in panels that no jump of q crosses; where a spline bends they are off by the width squared.
    panels = np.unique([*np.linspace(*RANGE, 4001), *inner, *getattr(prior, "edges", ())])
    half, middle = 0.5 * np.diff(panels), 0.5 * (panels[1:] + panels[:-1])
    unit, weights = np.polynomial.legendre.leggauss(6)
    nodes, weights = (middle[:, None] + half[:, None] * unit).ravel(), (half[:, None] * weights).ravel()
    norm = weights @ density(nodes)
    for i in range(6):
        p = network.condition(context[i])
        pdf = p.log_prob(torch.from_numpy(nodes)).exp().detach().numpy()
        whole = weights @ (pdf * density(nodes, i))
        ends = (
            p.cdf(torch.tensor(RANGE[0], dtype=torch.float64)),
            p.log_sf(torch.tensor(RANGE[1], dtype=torch.float64)).exp(),
        )
        # Beyond the ends the density goes on as it is in the first and the last piece.
        outside = population.log_density[[0, -1]].exp() * norm
        whole += sum(float(end.detach()) * float(q) for end, q in zip(ends, outside, strict=True))
        here = float(population.log_density[np.searchsorted(inner, float(mass[i]), side="right")])
        # A density that slopes by 7 per dex in ln q is taken for its mean over 0.03 dex: second order in the sum.
        slope = 7.0 * 0.03 if prior.name == "hmf" else 0.0
        assert float(found[i].detach()) == pytest.approx(
            float(plain[i]) + here - math.log(whole / norm), abs=slope**2 / 24 + 1e-7
        )
        assert here == pytest.approx(
            math.log(float(density(float(mass[i]), i)[0]) / norm), abs=slope / 2 + 1e-8
        )


@pytest.mark.parametrize("sigma", [0.1, 0.008, 1e-4])
@pytest.mark.parametrize("offset", np.linspace(0.0, 0.03, 7)[:-1])
def test_a_pdf_narrower_than_a_cell_gains_nothing(sigma, offset):
    """Its likelihood is p q / int p q by quadrature over each piece, in float64, wherever in a cell it lies."""
    network = build_flow("affine", 3, 14.1 + offset, sigma, affine_blocks=1, hidden=(2,)).double()
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    network.population = tabulate(MassFunctionPrior(RANGE), toy_catalog(50))
    edges, density = network.population.edges.numpy(), network.population.log_density.exp().numpy()
    normal = stats.norm(14.1 + offset, sigma)
    pieces = np.diff([0.0, *normal.cdf(edges), 1.0])
    mass = torch.tensor([normal.mean(), normal.mean() + 0.7 * sigma], dtype=torch.float64)
    found = network.log_prob(mass, torch.zeros(2, 3, dtype=torch.float64)).detach().numpy()
    here = density[np.searchsorted(edges, mass.numpy(), side="right")]
    assert_allclose(found, normal.logpdf(mass) + np.log(here / (density @ pieces)), atol=1e-10)
    # By Jensen's inequality nothing is gained on average over p, however narrow.
    draws = torch.from_numpy(normal.ppf((np.arange(400) + 0.5) / 400))
    found = network.log_prob(draws, torch.zeros(400, 3, dtype=torch.float64)).detach().numpy()
    assert np.mean(found - normal.logpdf(draws)) < 1e-3


def test_a_flat_population_is_none_at_all():
    network = flow().double()
    context, mass = contexts(), torch.linspace(13.4, 15.5, 6, dtype=torch.float64)
    plain = network.log_prob(mass, context)
    network.population = tabulate(FlatPrior(RANGE), toy_catalog(50))
    assert torch.equal(network.log_prob(mass, context), plain)


def test_it_integrates_to_one_over_the_population_and_beyond():
    network = flow().double()
    network.population = tabulate(THINNED, toy_catalog(50))
    mass = torch.linspace(9.0, 20.0, 110_001, dtype=torch.float64)
    density = network.log_prob(mass, contexts(1).expand(len(mass), 3)).exp().detach()
    # The trapezoidal rule is off by half a step at the jump of the density.
    jump = 0.5 * 1e-4 * float(density.max())
    assert float(torch.trapezoid(density, mass)) == pytest.approx(1.0, abs=jump)


@pytest.mark.parametrize("kind", ["affine", "affine+mixture"])
def test_a_pdf_where_there_are_no_clusters_has_a_finite_likelihood_that_drives_it_away(kind):
    none_above = SelectedPrior(
        FlatPrior(RANGE), SelectionTable([13.2, 14.4, 14.41, 15.6], [1.0, 1.0, 0.0, 0.0])
    )
    catalog = toy_catalog(50)
    low = catalog.filter(catalog.column("log10_mass") < 14.38)
    network = build_flow(kind, 3, 15.4, 0.01, hidden=(4,), components=2)
    network.population = tabulate(none_above, low)
    loss = -network.log_prob(torch.full((6,), 14.0), contexts().float()).mean()
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_the_pdf_itself_is_not_changed():
    network = flow()
    before = network.condition(contexts().float()).mean
    network.population = tabulate(THINNED, toy_catalog(50))
    assert torch.equal(network.condition(contexts().float()).mean, before)
    assert "population" not in network.state_dict()


def test_a_flow_cut_below_its_random_layers_has_the_same_likelihood():
    network = flow()
    network.population = tabulate(THINNED, toy_catalog(50))
    parts = cut_before_random_layers(network, choose(network, "last"))
    context, mass = contexts().float(), torch.linspace(13.4, 15.5, 6)
    assert torch.allclose(parts.head.log_prob(mass, parts.features(context)), network.log_prob(mass, context))


def test_members_of_an_ensemble_have_the_same_likelihood():
    network = flow().eval()
    network.population = tabulate(THINNED, toy_catalog(50))
    member = fresh_copy(network, seed=5)
    assert member.population is not None
    assert member.training
    assert not torch.equal(next(member.parameters()), next(network.parameters()))
    expected = flow()
    expected.load_state_dict(member.state_dict())
    expected.population = network.population
    context, mass = contexts().float(), torch.linspace(13.4, 15.5, 6)
    assert torch.equal(member.log_prob(mass, context), expected.log_prob(mass, context))


def test_gradients_are_those_of_finite_differences():
    network = flow().double()
    network.population = tabulate(THINNED, toy_catalog(50))
    context, mass = contexts(), torch.linspace(13.4, 15.5, 6, dtype=torch.float64)
    weight = next(network.parameters())
    (gradient,) = torch.autograd.grad(network.log_prob(mass, context).sum(), weight)
    with torch.no_grad():
        weight[0, 1] += 1e-6
        above = network.log_prob(mass, context).sum()
        weight[0, 1] -= 2e-6
        below = network.log_prob(mass, context).sum()
    assert float(gradient[0, 1]) == pytest.approx(float(above - below) / 2e-6, rel=1e-5)


def test_the_density_of_a_table_is_one_over_its_range():
    population = tabulate(MassFunctionPrior(RANGE), toy_catalog(50))
    assert isinstance(population, TrainingPopulation)
    width = torch.cat(
        [population.edges.new_tensor([RANGE[0]]), population.edges, population.edges.new_tensor([RANGE[1]])]
    )
    assert float(population.log_density.exp() @ width.diff()) == pytest.approx(1.0)


def test_steps_of_a_density_stand_where_the_prior_says():
    population = tabulate(PiecewisePrior((13.2, 14.4123, 15.6), (1.0, 0.1)), toy_catalog(50))
    assert population.edges.tolist() == [14.4123]
    assert float(population.log_density.diff()) == pytest.approx(math.log(0.1))


def test_masses_that_the_population_does_not_have_are_refused():
    with pytest.raises(CatalogError, match=r"training clusters have masses that the population 'flat' over"):
        tabulate(FlatPrior((14.0, 15.6)), toy_catalog(50))
    none_above = SelectedPrior(
        FlatPrior(RANGE), SelectionTable([13.2, 14.4, 14.5, 15.6], [1.0, 1.0, 0.0, 0.0])
    )
    with pytest.raises(CatalogError, match="give the population that they were drawn from"):
        tabulate(none_above, toy_catalog(50))


def test_a_population_that_changes_from_cluster_to_cluster_is_refused():
    near, far = toy_catalog(20, redshift=0.05), toy_catalog(20, redshift=0.6)
    with pytest.raises(CatalogError, match=r"between the redshifts 0\.050 and 0\.600"):
        tabulate(MassFunctionPrior(RANGE), near, far)
    tabulate(FlatPrior(RANGE), near, far)


def test_a_selection_is_of_a_population(tmp_path):
    with pytest.raises(ValueError, match="give population, flat or hmf"):
        train(toy_catalog(20), out=tmp_path, selection="table.csv", progress=False)
    with pytest.raises(ValueError, match="give population, flat or hmf"):
        train(toy_catalog(20), out=tmp_path, population=THINNED, selection="table.csv", progress=False)


def test_a_run_is_not_resumed_under_another_population(tmp_path):
    network, (context, mass) = flow(), (contexts(40).float(), torch.linspace(13.4, 15.5, 40))
    arguments = {"max_updates": 4, "validate_every": 2, "batch_size": 10, "checkpoint_every": 1, "progress": False,
                 "checkpoint_folder": tmp_path, "device": "cpu"}  # fmt: skip
    network.population = tabulate(THINNED, toy_catalog(50))
    fit(network, FixedSource(context, mass), (context, mass), **arguments)
    network.population = tabulate(MassFunctionPrior(RANGE), toy_catalog(50))
    with pytest.raises(CheckpointError, match="population"):
        fit(network, FixedSource(context, mass), (context, mass), resume=True, **arguments)


def test_a_table_multiplies_the_population(tmp_path):
    table = tmp_path / "kept.csv"
    table.write_text("log10_mass,probability\n13.2,1\n14.399999,1\n14.4,0.1\n15.6,0.1\n", encoding="utf-8")
    found = tabulate(known_population("flat", table, RANGE, MDPL2), toy_catalog(50))
    expected = tabulate(THINNED, toy_catalog(50))
    mass = torch.tensor([13.3, 14.39, 14.41, 15.5], dtype=torch.float64)
    # The ramp of the table fills a millionth of a dex of a cell of 0.03.
    assert_allclose(
        found.log_density[torch.bucketize(mass, found.edges)],
        expected.log_density[torch.bucketize(mass, expected.edges)],
        atol=1e-4,
    )


def trained(catalog, out, **arguments):
    return train(
        catalog,
        out=out,
        encoder=ContextEncoder(KDEEncoder(grid=(8, 8)), constant=1.0),
        flow={"kind": "affine", "shared": True, "hidden": (16, 8)},
        options={"max_updates": 1200, "learning_rate": 3e-3, "validate_every": 20, "batch_size": 32,
                 "patience_updates": None},
        device="cpu",
        progress=False,
        **arguments,
    )  # fmt: skip


def thinned(seed=1, n=1500):
    catalog = toy_catalog(n, seed=seed)
    massive = catalog.column("log10_mass") > 14.4
    return catalog.filter(~massive | (np.random.default_rng([seed, 1]).random(n) < 0.1))


def test_a_network_that_knows_of_the_thinning_is_not_biased_by_it(tmp_path):
    test = toy_catalog(300, seed=9)
    massive = test.column("log10_mass") > 14.4
    offset = {}
    for name, population in (("unaware", None), ("aware", THINNED)):
        model = trained(thinned(), tmp_path / name, population=population)
        median = model.posterior(test).median
        offset[name] = float(np.mean(test.column("log10_mass")[massive] - median[massive]))
    # Unaware, it takes massive clusters for less massive ones.
    assert offset["unaware"] > 0.04
    assert abs(offset["aware"]) < 0.5 * offset["unaware"]


def test_posteriors_of_the_weights_are_wider_where_the_population_is_thin(tmp_path):
    weights = {"method": "variational", "which": "last", "fit": {"max_updates": 600, "validate_every": 200}}
    model = trained(thinned(), tmp_path / "model", population=THINNED, weights=weights)
    again = MassEstimator.load(tmp_path / "model")
    assert again.training_info.masses == "flat"
    assert again.training_info.log10_mass_range == RANGE
    assert again.flow.population is None
    posterior = model.posterior(toy_catalog(300, seed=9), n_draws=64)
    massive = posterior.median > 14.6
    share = (posterior.sigma_epistemic / posterior.sigma) ** 2
    assert share[massive].mean() > 1.5 * share[~massive].mean()


def test_the_command_takes_population_and_table(tmp_path, capsys):
    thinned(n=200).write(tmp_path / "train.parquet")
    table = tmp_path / "kept.csv"
    table.write_text("log10_mass,probability\n13.2,1\n14.399999,1\n14.4,0.1\n15.6,0.1\n", encoding="utf-8")
    flags = ["--catalog", str(tmp_path / "train.parquet"), "--out", str(tmp_path / "m"), "--no-progress"]
    flags += ["--fit.population", "flat", "--fit.selection", str(table), "--fit.max-updates", "210"]
    flags += ["--fit.validate-every", "70", "--encoder.grid", "8", "8", "--device", "cpu"]
    assert main(flags) == 0
    config = MassEstimator.load(tmp_path / "m").training_info.config
    assert config["population"] == "flat"
    assert config["selection"] == str(table)
    assert "validation loss" in capsys.readouterr().out
