"""What a survey says of its own sky: ``bayesflowmass calibrate`` and :func:`calibrate`.

``bayesflowmass calibrate --galaxies cat.parquet --prior sz:14.2 --out my_sky`` infers what nobody knows of the sky
(velocity bias, interlopers, richness) from all clusters together, and corrects their masses (docs/calibrate.md).
`recalibrate` is another thing: it needs clusters of known mass.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bayesflowmass.command import run_command
from bayesflowmass.command.paths import InputPath, ModelPath, OutFolder
from bayesflowmass.command.reading import ReadingSettings
from bayesflowmass.command.record import command_line, write_record
from bayesflowmass.command.shared import DrawSettings
from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.common.files import write_json, write_whole
from bayesflowmass.common.terminal import say, say_aside
from bayesflowmass.estimator.observations import read_for

# The rest is imported where it is used: --help, and an error in the input, should not wait for torch.
if TYPE_CHECKING:
    from astropy.table import Table

    from bayesflowmass.catalog import ClusterCatalog
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.hierarchical import SummaryLikelihood
    from bayesflowmass.posterior import MassPrior
    from bayesflowmass.posterior.tabulated import Tabulated

__all__ = ["CalibrateSettings", "Calibration", "calibrate", "main"]

_SVI_FROM = 1000


class CalibrateSettings(ReadingSettings, DrawSettings):
    """`bayesflowmass calibrate`: what a survey says of its own sky, and its masses with that."""

    listed_last: ClassVar[tuple[str, ...]] = (*ReadingSettings.listed_last, *DrawSettings.listed_last)

    model: ModelPath | None = Field(
        None, description="model folder, or the name of a shipped model; default: sky"
    )
    galaxies: InputPath = Field(description="catalogue (parquet), or table of galaxies")
    clusters: InputPath | None = Field(None, description="table of clusters")
    out: OutFolder = Field(
        description="folder for masses.ecsv, posterior.nc, calibration.json and the likelihood"
    )
    prior: str = Field(
        "hmf",
        description="how the clusters were chosen: hmf, or sz:14.5,0.1, xray:14.2, richness:20 as of `infer`; a wrong"
        " one makes wrong masses",
    )
    unknown: dict[str, tuple[float, float]] | None = Field(
        None,
        description="parameters with their limits, velocity_bias='[0.95, 1.1]'; default: docs/calibrate.md",
    )
    n_mocks: int = Field(96000, ge=1000, le=10_000_000, description="mocks that teach the likelihood")
    n_samples: int = Field(150, ge=10, le=100_000, description="draws of theta in each chain")
    chains: int = Field(2, ge=1, le=64, description="chains of NUTS")
    method: Literal["nuts", "svi"] | None = Field(
        None, description=f"how theta is sampled; default: nuts for fewer than {_SVI_FROM} clusters"
    )


@dataclass(frozen=True)
class Calibration:
    """theta of a survey and the masses of its clusters with it.

    Attributes:
        table: that of `infer` with the masses of the survey's own sky: ``log10_mass_before``, ``sigma_before`` and
            ``shift`` are beside them, ``sigma_systematic`` is what the posterior of theta leaves.
        theta: draws by name, (chains, draws).
        priors: limits of the uniform priors of theta.
        mass_draws: of log10 mass for each draw of theta (chains, draws, n), of the clusters that were ``used``.
        used: which clusters of the catalogue have enough galaxies (m,).
        density: p(log10 mass | all clusters) of the n that were used.
    """

    table: Table
    theta: dict[str, FloatArray]
    priors: dict[str, tuple[float, float]]
    mass_draws: FloatArray
    used: BoolArray
    density: Tabulated

    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation of each parameter, before and after, and how well the chains mixed; JSON-able."""
        import torch
        from pyro.ops.stats import effective_sample_size, split_gelman_rubin

        result: dict[str, Any] = {"n_clusters": int(self.used.sum()), "theta": {}}
        for name, draws in self.theta.items():
            low, high = self.priors[name]
            values = torch.from_numpy(draws)
            result["theta"][name] = {
                "mean": float(draws.mean()),
                "sd": float(draws.std()),
                **{f"q{q}": float(np.quantile(draws, q / 100)) for q in (2.5, 16, 50, 84, 97.5)},
                "prior": [low, high],
                "sd_over_prior": float(draws.std() / ((high - low) / 12**0.5)),
                "r_hat": float(split_gelman_rubin(values, 0, 1)),
                "effective_draws": float(effective_sample_size(values, 0, 1)),
            }
        shift = np.ma.asarray(self.table["shift"]).compressed()
        return result | {"mean_shift": float(shift.mean()), "largest_shift": float(np.abs(shift).max())}

    def to_arviz(self) -> Any:
        """ArviZ's container: group ``posterior`` with theta (chain, draw) and log10_mass (chain, draw, cluster)."""
        from bayesflowmass.posterior.arviz_adapter import survey_arviz

        return survey_arviz(self.theta, self.mass_draws, np.asarray(self.table["cluster_id"])[self.used])


def calibrate(
    estimator: MassEstimator,
    catalog: ClusterCatalog,
    *,
    prior: str | MassPrior = "hmf",
    unknown: Mapping[str, tuple[float, float]] | None = None,
    likelihood: SummaryLikelihood | None = None,
    n_mocks: int = 96000,
    n_samples: int = 150,
    chains: int = 2,
    method: str | None = None,
    model: str = "",
    n_draws: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Calibration:
    """theta from all clusters of a survey together, and their masses with it.

    Args:
        estimator: the model whose masses are corrected.
        catalog: the survey; clusters with fewer galaxies than its selection asks for say nothing and keep no mass.
        prior: the population with its selection, see `infer`; ``"richness:20"`` is a cut in N.
        unknown: limits of the parameters; default: `bayesflowmass.evaluation.survey_mocks.unknown_of`.
        likelihood: of an earlier call for a survey observed likewise; default: learnt from ``n_mocks`` mocks.
        n_samples, chains: of NUTS; for ``method="svi"`` their product is drawn.
        method: ``"nuts"`` or ``"svi"``; default: by the number of clusters.
        model: name, for the header of the table.
        n_draws: of the weights, for the masses before.
        seed: of mocks, weights and chains.
        progress: show bars on standard error.

    Raises:
        CatalogError: no cluster has enough galaxies.
        ValueError: see `unknown_of` and `SummaryLikelihood.fit`.
    """
    from bayesflowmass.evaluation.masses_table import whole_table
    from bayesflowmass.evaluation.road import posteriors
    from bayesflowmass.evaluation.survey_mocks import learn_likelihood, summaries, unknown_of
    from bayesflowmass.hierarchical import SurveyModel
    from bayesflowmass.posterior import make_prior

    info, least = estimator.training_info, least_of(prior)
    chosen = make_prior(prior, info.log10_mass_range, info.cosmology) if isinstance(prior, str) else prior
    if likelihood is None:
        theta = unknown_of(estimator, catalog, unknown)
        likelihood = learn_likelihood(
            estimator, catalog, theta, least=least, n_mocks=n_mocks, seed=seed, progress=progress
        )
    t = summaries(estimator, catalog, least, progress=progress)
    used = np.asarray(np.isfinite(t).all(axis=1))
    redshift = np.asarray(catalog.column("redshift"), dtype=np.float64)[used]
    survey = SurveyModel(likelihood, t[used], redshift, chosen, least)
    if (method or ("nuts" if len(survey) < _SVI_FROM else "svi")) == "nuts":
        draws = survey.sample(n_samples=n_samples, chains=chains, seed=seed, progress=progress)
    else:
        draws = survey.sample_svi(n_samples=n_samples * chains, seed=seed, progress=progress)
    density, means, mass_draws = survey.masses(draws.flatten(0, 1), seed)
    batches = posteriors(estimator, catalog, prior, n_draws=n_draws, seed=seed, progress=progress)
    table, _ = whole_table(batches, model=model)
    _correct(table, used, density, means.std(axis=0))
    names = list(likelihood.priors)
    return Calibration(
        table,
        {name: draws[..., k].numpy() for k, name in enumerate(names)},
        likelihood.priors,
        mass_draws.reshape(*draws.shape[:2], -1),
        used,
        density,
    )


def least_of(prior: str | MassPrior) -> int:
    """Fewest galaxies of a cluster in a sample."""
    found = re.fullmatch(r"richness:(\d+)", prior) if isinstance(prior, str) else None
    return max(10, int(found[1])) if found else 10


def _correct(table: Table, used: BoolArray, density: Tabulated, systematic: FloatArray) -> None:
    """Put the masses of a density in the place of those of a table; rows that were not used are masked."""
    import torch
    from astropy.table import MaskedColumn

    from bayesflowmass.cosmology import radius_delta

    mean, variance = (values.numpy() for values in density.moments())
    levels = torch.tensor([0.025, 0.16, 0.5, 0.84, 0.975], dtype=torch.float64).expand(len(mean), -1)
    columns = dict(
        zip(("q025", "q16", "log10_mass", "q84", "q975"), density.quantile(levels).numpy().T, strict=True)
    )
    columns |= {
        "log10_mass_mean": mean,
        "log10_mass_map": density.x.gather(1, density.pdf.argmax(1, keepdim=True))[:, 0].numpy(),
        "sigma": np.sqrt(variance),
        "sigma_systematic": systematic,
        "r200c": radius_delta(
            columns["log10_mass"], np.asarray(table["redshift"])[used], "200c", comoving=True
        ),
    }
    before = {name: table[name].copy() for name in ("log10_mass", "sigma")}
    for name, values in columns.items():
        full = np.zeros(len(used))
        full[used] = values
        table.replace_column(name, MaskedColumn(full, mask=~used, description=table[name].description))
    for name in ("sigma_aleatoric", "sigma_epistemic"):
        table[name].mask = True
    place = table.colnames.index("prior")
    shift = table["log10_mass"] - before["log10_mass"]
    for name, column, what in (
        ("log10_mass_before", before["log10_mass"], "median before the survey was asked"),
        ("sigma_before", before["sigma"], "standard deviation before [dex]"),
        ("shift", shift, "log10_mass - log10_mass_before [dex]"),
    ):
        table.add_column(MaskedColumn(column, description=what), index=place, name=name)
        place += 1


def run(settings: CalibrateSettings, report: Callable[[str], None] = say) -> Calibration:
    """The command: read, learn the likelihood or take the one that is there, sample, write, say what was found."""
    from bayesflowmass.estimator import MassEstimator
    from bayesflowmass.estimator.shipped import choose_model
    from bayesflowmass.estimator.told import notes, tell
    from bayesflowmass.estimator.training_info import read_training_info
    from bayesflowmass.evaluation.survey_mocks import learn_or_read, summaries, unknown_of
    from bayesflowmass.posterior import make_prior
    from bayesflowmass.posterior.write_table import write_table

    chosen = choose_model(settings.model)
    catalog = read_for(read_training_info(chosen), settings.galaxies, settings.clusters, **settings.reading())
    estimator = MassEstimator.load(chosen, settings.device)
    catalog = tell(catalog, estimator, settings.assume)
    for note in [*catalog.metadata.extra.get("notes", []), *notes(catalog, estimator)]:
        say_aside(f"note: {note}")
    # What cannot be used is said before the mocks are made.
    make_prior(settings.prior, estimator.training_info.log10_mass_range)
    summaries(estimator, catalog, least_of(settings.prior))
    likelihood = learn_or_read(
        settings.out / "likelihood",
        estimator,
        catalog,
        unknown_of(estimator, catalog, settings.unknown),
        least=least_of(settings.prior),
        n_mocks=settings.n_mocks,
        seed=settings.seed,
        progress=settings.progress,
        report=report,
    )
    found = calibrate(
        estimator,
        catalog,
        prior=settings.prior,
        likelihood=likelihood,
        n_samples=settings.n_samples,
        chains=settings.chains,
        method=settings.method,
        model=str(chosen),
        n_draws=settings.n_draws,
        seed=settings.seed,
        progress=settings.progress,
    )
    found.table.meta["command"] = command_line("bayesflowmass calibrate", settings)
    write_table(found.table, settings.out / "masses.ecsv")
    # HDF5 wants to lock its file itself.
    with tempfile.TemporaryDirectory() as folder:
        found.to_arviz().to_netcdf(f"{folder}/posterior.nc")
        write_whole(settings.out / "posterior.nc", Path(folder, "posterior.nc").read_bytes())
    summary = found.summary()
    write_json(settings.out / "calibration.json", summary)
    write_record(settings.out, "bayesflowmass calibrate", settings)
    for line in describe(summary, len(catalog)):
        report(line)
    report(
        f"In {settings.out}: masses.ecsv, posterior.nc, calibration.json, and the likelihood for another run."
    )
    return found


def describe(summary: Mapping[str, Any], n_clusters: int) -> list[str]:
    """What was found, in a few lines."""
    lines = [f"{summary['n_clusters']} of {n_clusters} clusters have enough galaxies and were used."]
    for name, one in summary["theta"].items():
        low, high = one["prior"]
        lines.append(
            f"  {name}: {one['mean']:.3f} +- {one['sd']:.3f} (prior {low:g} to {high:g}, of whose width"
            f" {100 * one['sd_over_prior']:.0f} % is left; R-hat {one['r_hat']:.2f})"
        )
    lines.append(f"Masses moved by {summary['mean_shift']:+.3f} dex on average.")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """``bayesflowmass calibrate``; returns the exit code."""
    return run_command(CalibrateSettings, run, argv, prog="bayesflowmass calibrate")


if __name__ == "__main__":
    sys.exit(main())
