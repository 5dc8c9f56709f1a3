"""Posteriors of the masses of many clusters at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from astropy.table import Table
from torch import Tensor

from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.cosmology import MDPL2, Cosmology
from bayesflowmass.posterior.converted import ConvertedDensity
from bayesflowmass.posterior.density import Density
from bayesflowmass.posterior.draws import DrawPosteriors, uniform
from bayesflowmass.posterior.flow_density import ConditionedDistribution, FlowDensity
from bayesflowmass.posterior.masses_table import masses_table
from bayesflowmass.posterior.priors import MassPrior, make_prior
from bayesflowmass.posterior.recalibrated import CdfMap, RecalibratedDensity
from bayesflowmass.posterior.reweighted import ReweightedDensity
from bayesflowmass.posterior.tabulated import NODES, Tabulated

# Probability inside the training range below which a PDF tells no mass: the 95 % interval does not reach into it.
_INSIDE = 0.025


class MassPosterior:
    """p(log10 M200c | galaxies) of n clusters, float64, densities per dex, masses in log10 Msun/h.

    Under the prior of training the posterior is the flow's own PDF, kept whole: what little of it leaks
    outside the training range is the network's error and is reported by the flag ``edge``, not cut
    away. Under any other prior pi it is p_flow(m) pi(m) / pi_train(m), normalised over the training
    range, because outside it both the training prior and what the network knows are zero (docs/priors.md).

    Arrays that come in broadcast against the clusters (..., n): a grid (g, 1) gives (g, n).

    Args:
        distribution: a conditioned flow of batch shape (n,), or (draws, n) for a mixture over draws of
            its weights;
            or a list of them for consecutive clusters.
        log10_mass_range: limits of the training masses, log10 M200c [Msun/h].
        training_prior: ``"flat"`` or ``"hmf"``, the population of the training masses, or a `MassPrior`.
        redshift: (n,) or one number; needed by the mass function and by conversions of mass.
        cosmology: of the mass function and of conversions.
        cluster_id: names of the clusters (n,); default 0 ... n - 1.
        n_galaxies: number of galaxies (n,); default unknown.
        n_nodes: of the table (`bayesflowmass.posterior.tabulated.tabulate`); fewer are faster.

    Raises:
        ValueError: shapes disagree or the prior is unknown.
    """

    def __init__(
        self,
        distribution: ConditionedDistribution | Sequence[ConditionedDistribution],
        *,
        log10_mass_range: tuple[float, float],
        training_prior: str | MassPrior = "flat",
        redshift: npt.ArrayLike | None = None,
        cosmology: Cosmology = MDPL2,
        cluster_id: npt.ArrayLike | None = None,
        n_galaxies: npt.ArrayLike | None = None,
        n_nodes: int = NODES,
    ) -> None:
        blocks: Sequence[Any] = distribution if isinstance(distribution, list | tuple) else [distribution]
        self.flow_density = FlowDensity(blocks, n_nodes)
        n = self.flow_density.n_clusters
        self.cosmology = cosmology
        self.training_prior: MassPrior = (
            make_prior(training_prior, log10_mass_range, cosmology)
            if isinstance(training_prior, str)
            else training_prior
        )
        self.prior: MassPrior = self.training_prior
        self.mdef = "200c"
        self._raw: MassPosterior | None = None
        self._cdf_map: CdfMap | None = None
        self.redshift = None if redshift is None else np.broadcast_to(np.asarray(redshift, np.float64), (n,))
        self.cluster_id = np.arange(n) if cluster_id is None else np.asarray(cluster_id)
        self.n_galaxies = None if n_galaxies is None else np.asarray(n_galaxies)
        for name in ("cluster_id", "n_galaxies"):
            values = getattr(self, name)
            if values is not None and values.shape != (n,):
                raise ValueError(f"MassPosterior: {name} has shape {values.shape}; {n} clusters need ({n},).")
        self._density: Density = self.flow_density

    def __len__(self) -> int:
        return self.flow_density.n_clusters

    def __getitem__(self, rows: slice | npt.ArrayLike) -> MassPosterior:
        """The posteriors of some clusters, one at least: a slice, row numbers or a mask (n,); no network runs again.

        Raises:
            ValueError: no cluster is left.
        """
        index = np.arange(len(self))[rows if isinstance(rows, slice) else np.asarray(rows)]
        if index.ndim != 1 or not len(index):
            raise ValueError("A posterior is of one cluster at least; give a slice, row numbers or a mask.")
        taken = {
            name: None if getattr(self, name) is None else getattr(self, name)[index]
            for name in ("redshift", "cluster_id", "n_galaxies")
        }
        kept = torch.from_numpy(index)
        return self._derived(
            self._density.part(kept),
            flow_density=self.flow_density.part(kept),
            _raw=self._raw and self._raw[index],
            _cdf_map=self._cdf_map and self._cdf_map.part(kept),
            **taken,
        )

    def __repr__(self) -> str:
        return f"MassPosterior({len(self)} clusters, M{self.mdef}, prior {self.prior.name!r})"

    def with_prior(
        self, prior: str | MassPrior, log10_mass_range: tuple[float, float] | None = None
    ) -> MassPosterior:
        """The posterior under another prior.

        Args:
            prior: ``"flat"``, ``"hmf"``, or a `MassPrior`.
            log10_mass_range: limits of that prior inside the training range [log10 Msun/h], such as the
                lowest mass
                of a sample; default: the training range.

        Raises:
            ValueError: the range leaves the training range, the mass function lacks redshifts, or the posterior was
                recalibrated for another prior.
        """
        if self._raw is not None:
            return self._same_prior(prior, log10_mass_range)
        low, high = self.training_prior.log10_mass_range
        if isinstance(prior, str):
            prior = make_prior(prior, log10_mass_range or (low, high), self.cosmology)
        start, end = prior.log10_mass_range
        if max(low - start, end - high) > 1e-9:
            raise ValueError(
                f"The prior covers log10 mass {start}-{end}, the model was trained on {low}-{high}; "
                "a change of prior cannot leave the training range."
            )
        if self.mdef != "200c":
            raise ValueError("A change of prior acts on M200c; change the prior before the mass definition.")
        if prior.name == self.training_prior.name and (start, end) == (low, high):
            return self._derived(self.flow_density, prior=prior)
        density = ReweightedDensity(self.flow_density, prior, self.training_prior, self.redshift)
        return self._derived(density, prior=prior)

    def _same_prior(
        self, prior: str | MassPrior, log10_mass_range: tuple[float, float] | None
    ) -> MassPosterior:
        """A recalibrated posterior under its own prior: itself. Under any other it is not known to be calibrated."""
        name = prior if isinstance(prior, str) else prior.name
        limits = log10_mass_range if isinstance(prior, str) else prior.log10_mass_range
        here = self.prior.log10_mass_range
        if name == self.prior.name and (limits is None or np.allclose(limits, here, rtol=0.0, atol=1e-6)):
            return self
        raise ValueError(
            f"This posterior was recalibrated for the prior {self.prior.name!r} over {here[0]:g}-{here[1]:g}, and "
            "a recalibration does not carry over to another; change the prior of `posterior.raw`, which was not."
        )

    def recalibrated(self, cdf_map: CdfMap) -> MassPosterior:
        """The posterior with the cdf R(F(m)) and the density p(m) R'(F(m)); `raw` of the result is this one.

        Users call `bayesflowmass.recalibration.Recalibration.apply`, or get it from a recalibrated model.

        Args:
            cdf_map: R of each cluster.

        Raises:
            ValueError: the posterior was recalibrated before, or is of another mass than M200c.
        """
        if self._raw is not None or self.mdef != "200c":
            raise ValueError("Only the raw posterior of M200c can be recalibrated, and only once.")
        density = RecalibratedDensity(self._density, cdf_map)
        return self._derived(density, _raw=self, _cdf_map=cdf_map)

    @property
    def raw(self) -> MassPosterior:
        """The posterior before recalibration, of the same mass under the same prior; itself where there was none."""
        return self if self._raw is None else self._raw.with_mass_definition(self.mdef)

    @property
    def recalibration(self) -> str | None:
        """What the posterior was recalibrated for, in a line; None: it was not."""
        return None if self._cdf_map is None else self._cdf_map.label

    def with_mass_definition(self, mdef: str) -> MassPosterior:
        """The posterior of another mass, widened by the scatter of the concentration (`ConvertedDensity`).

        Args:
            mdef: ``"200c"``, ``"500c"``, ``"vir"`` or ``"200m"``.

        Raises:
            ValueError: the definition is unknown, the posterior is converted already or has no redshifts.
        """
        if mdef == self.mdef:
            return self
        if self.mdef != "200c":
            raise ValueError(f"This posterior is of M{self.mdef} already; convert that of M200c.")
        if self.redshift is None:
            raise ValueError("A conversion of mass needs `redshift`, one for each cluster.")
        return self._derived(ConvertedDensity(self._density, mdef, self.redshift, self.cosmology), mdef=mdef)

    def _derived(self, density: Density, **changes: Any) -> MassPosterior:
        """The same clusters with another density; all that follows from a density is kept by the density."""
        result = copy(self)
        result._density = density
        for name, value in changes.items():
            setattr(result, name, value)
        return result

    @property
    def table(self) -> Tabulated:
        """The density and its cdf on adaptive nodes (`Tabulated`)."""
        return self._density.table

    def pdf(self, log10_mass: npt.ArrayLike) -> FloatArray:
        """Density per dex at log10 masses (..., n)."""
        return np.exp(self.log_pdf(log10_mass))

    def log_pdf(self, log10_mass: npt.ArrayLike) -> FloatArray:
        """ln of the density per dex at log10 masses (..., n); -inf outside the range of a new prior."""
        return self._apply(self._density.log_pdf, log10_mass)

    def cdf(self, log10_mass: npt.ArrayLike) -> FloatArray:
        """P(log10 mass < x) at x (..., n); at the true masses this is the probability integral transform."""
        return self._apply(self._density.cdf, log10_mass)

    def quantile(self, p: npt.ArrayLike) -> FloatArray:
        """log10 masses at probabilities: a number gives (n,), a list (q, n), an array (..., n) its shape.

        Single flows under the prior of training answer with their own exact inverse; otherwise the cubic cdf is
        inverted, and polished where the cdf is another. |cdf(quantile(p)) - p| < 1e-10 for p in [1e-8, 1 - 1e-8], and
        1e-8 after a change of the mass definition.

        Raises:
            ValueError: a probability is outside (0, 1).
        """
        levels = np.asarray(p, dtype=np.float64)
        if not np.all((levels > 0.0) & (levels < 1.0)):
            raise ValueError("Probabilities of quantiles must lie between 0 and 1, both excluded.")
        shape = np.broadcast_shapes(levels.shape if levels.ndim != 1 else (levels.size, 1), (len(self),))
        wide = levels if levels.ndim != 1 else levels[:, None]
        flat = torch.from_numpy(np.array(np.broadcast_to(wide, shape))).reshape(-1, len(self))
        return np.asarray(self._density.quantile(flat).reshape(shape).numpy())

    @property
    def mean(self) -> FloatArray:
        """Mean of log10 mass (n,)."""
        return np.asarray(self._density.moments[0].numpy())

    @property
    def sigma(self) -> FloatArray:
        """Standard deviation of log10 mass (n,), dex."""
        return np.asarray(self._density.moments[1].sqrt().numpy())

    @property
    def median(self) -> FloatArray:
        """Median log10 mass (n,)."""
        return np.asarray(self._density.median.numpy())

    @property
    def map(self) -> FloatArray:
        """log10 mass of the highest density per dex (n,), to 1e-5 dex; the first of equal peaks."""
        return np.asarray(self._density.mode.numpy())

    @property
    def has_mass(self) -> BoolArray:
        """Whether a PDF tells a mass (n,): it is finite, and at least 2.5 % of it lies inside the training range.

        It is the network's own PDF that is asked, under the prior of training. Beyond the range nothing was learnt:
        where all but a tail of the PDF lies there, another prior would only enlarge that tail.
        """
        limits = torch.tensor(self.training_prior.log10_mass_range, dtype=torch.float64)
        below, not_above = self.flow_density.cdf(limits[:, None])
        return np.asarray((not_above - below >= _INSIDE).numpy())

    @property
    def n_draws(self) -> int | None:
        """Draws of the weights that this is a mixture over; None for a point model."""
        return self.flow_density.n_draws

    @property
    def sigma_aleatoric(self) -> FloatArray | None:
        """Root of the mean over draws of the variance (n,), dex; None for a point model."""
        found = self._density.disagreement
        return None if found is None else found.sigma_aleatoric

    @property
    def sigma_epistemic(self) -> FloatArray | None:
        """Standard deviation over draws of the mean (n,), dex; None for a point model."""
        found = self._density.disagreement
        return None if found is None else found.sigma_epistemic

    @property
    def mutual_information(self) -> FloatArray | None:
        """Mutual information of log10 M200c and the weights (n,), nats (`draws.mutual_information`); None for a point
        model.

        It is what one would learn about the weights from the true mass of the cluster. Over D draws it is
        at most ln D.
        """
        return self._density.mutual_information

    def interval(self, level: float = 0.68, kind: str = "central") -> FloatArray:
        """Lower and upper limits (2, n) of an interval that holds the probability `level`.

        Args:
            level: between 0 and 1.
            kind: ``"central"``: equal tails; ``"hpd"``: the shortest interval, which for one peak is
                the region of
                highest density (for several peaks that region may be several intervals; this is one);
                ``"conformal"``, for a recalibrated posterior: the central interval that holds the truth of a
                cluster of that predicted mass with this probability at least, in finite samples.

        Raises:
            ValueError: an unknown kind or an impossible level.
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"An interval cannot hold a probability of {level}; expected 0 < level < 1.")
        if kind == "central":
            return self.quantile([0.5 * (1.0 - level), 0.5 * (1.0 + level)])
        if kind == "conformal":
            return self._conformal(level)
        if kind != "hpd":
            raise ValueError(f"Unknown kind of interval {kind!r}; expected 'central', 'hpd' or 'conformal'.")
        return np.asarray(self.table.shortest(level).T.contiguous().numpy())

    def _conformal(self, level: float) -> FloatArray:
        if self._cdf_map is None or self.mdef != "200c":
            raise ValueError(
                "Conformal intervals are those of M200c of a recalibrated model (docs/recalibration.md)."
            )
        half = 0.5 * self._cdf_map.conformal_level(level).clamp(0.0, 1.0 - 1e-12).numpy()
        return self.quantile(np.stack([0.5 - half, 0.5 + half]))

    def sample(self, n_samples: int, seed: int) -> FloatArray:
        """Draws (n_samples, n) by the inverse cdf; the same seed gives the same draws."""
        return self.quantile(uniform(np.random.default_rng(seed), (n_samples, len(self))))

    def to_table(self, mdef: str | None = None, **options: Any) -> Table:
        """The masses table (`bayesflowmass.posterior.masses_table`).

        Args:
            mdef: definition of mass, ``"200c"``, ``"500c"``, ``"vir"`` or ``"200m"``; default: that of this posterior.
            options: ``units``, ``h``, ``pdf``, ``flags``, ``model``.

        Raises:
            ValueError: unknown units or definition, or an h that is not positive.
        """
        return masses_table(self if mdef is None else self.with_mass_definition(mdef), **options)

    def to_arviz(self, log10_true: npt.ArrayLike | None = None, **options: Any) -> Any:
        """ArviZ's container of these posteriors (`bayesflowmass.posterior.arviz_adapter`).

        Args:
            log10_true: true masses of a test set (n,).
            options: ``n_samples``, ``seed``, ``bin_width``, ``constants``.
        """
        # ArviZ takes a second to import, and few need it.
        from bayesflowmass.posterior.arviz_adapter import to_arviz

        return to_arviz(self, log10_true, **options)

    def of_draws(self, at: Tensor | None = None) -> DrawPosteriors:
        """The posterior of each draw of the weights under this prior, and its density `at` masses (n,).

        Raises:
            ValueError: the mass definition was converted, or the posterior recalibrated.
        """
        return self._density.of_draws(at)

    def _apply(self, function: Callable[[Tensor], Tensor], log10_mass: npt.ArrayLike) -> FloatArray:
        values = np.asarray(log10_mass, dtype=np.float64)
        shape = np.broadcast_shapes(values.shape, (len(self),))
        flat = torch.from_numpy(np.array(np.broadcast_to(values, shape)))
        return np.asarray(function(flat.reshape(-1, len(self))).reshape(shape).numpy())
