"""A recalibration: monotone maps and conformal levels by bin of predicted mass, for one population and prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.novelty.conformal import classes_of, one_per_halo
from bayesflowmass.posterior import MassPosterior
from bayesflowmass.recalibration.fit import FittedStage, fit_stage, halo_weights, stage_map
from bayesflowmass.recalibration.maps import StagedMap

_MOST_LEVELS = 2000


@dataclass(frozen=True)
class Recalibration:
    """What was learnt from clusters of known mass, drawn from the population that the prior describes.

    Attributes:
        prior: ``"flat"`` or ``"hmf"``, of the posteriors and of the clusters alike.
        log10_mass_range: limits of both, log10 M200c [Msun/h].
        edges: inner edges of the bins of the raw posterior median (k - 1,), log10 M200c [Msun/h].
        shift, log_scale: of the overall map and of the map of each bin on top of it, (2, k).
        coefficients: of their polynomials (2, k, 17).
        levels: sorted conformal scores of each bin: |2 u - 1| of held-out clusters, u recalibrated; k arrays.
        choices: what was fitted, overall and in each bin.
        n_clusters, n_haloes: that the maps were fitted to; n_conformal: that the levels come from.
    """

    prior: str
    log10_mass_range: tuple[float, float]
    edges: FloatArray
    shift: FloatArray
    log_scale: FloatArray
    coefficients: FloatArray
    levels: tuple[FloatArray, ...]
    choices: tuple[str, ...]
    n_clusters: int
    n_haloes: int
    n_conformal: int

    @classmethod
    def fit(
        cls,
        pit: npt.ArrayLike,
        predicted: npt.ArrayLike,
        halo_id: npt.ArrayLike,
        *,
        held_out: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
        edges: npt.ArrayLike,
        prior: str,
        log10_mass_range: tuple[float, float],
        seed: int = 0,
    ) -> Recalibration:
        """Fit maps to one set of clusters, and take conformal levels from another.

        Args:
            pit: cdf of the raw posterior at the truth (n,).
            predicted: median of the raw posterior (n,), log10 M200c [Msun/h].
            halo_id: (n,).
            held_out: the same three of clusters of other haloes.
            edges: inner edges of the bins.
            prior, log10_mass_range: see the attributes.
            seed: of the choice among projections of a halo, for the conformal levels.

        Raises:
            ValueError: there are no clusters, or a PIT is not in [0, 1].
        """
        u, mass = np.asarray(pit, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
        inner = np.asarray(edges, dtype=np.float64)
        later_u, later_mass = (np.asarray(values, dtype=np.float64) for values in held_out[:2])
        for name, values in (("pit", u), ("pit of the held-out clusters", later_u)):
            if values.size == 0 or not np.all((values >= 0.0) & (values <= 1.0)):
                raise ValueError(
                    f"A recalibration needs values in [0, 1]; the {name} has {values.size}, not all of them inside."
                )
        halo = np.asarray(halo_id)
        overall = fit_stage(u, halo_weights(halo))
        between = stage_map([overall])(torch.from_numpy(u)[:, None])[:, 0].numpy()
        bins = classes_of(mass, inner)
        stages = []
        for one in range(len(inner) + 1):
            rows = bins == one
            stages.append(fit_stage(between[rows], halo_weights(halo[rows])))
        result = cls(
            prior=prior,
            log10_mass_range=(float(log10_mass_range[0]), float(log10_mass_range[1])),
            edges=inner,
            shift=_pairs(overall, stages, "shift"),
            log_scale=_pairs(overall, stages, "log_scale"),
            coefficients=_pairs(overall, stages, "coefficients"),
            levels=(np.zeros(0),) * (len(inner) + 1),
            choices=(overall.choice, *(stage.choice for stage in stages)),
            n_clusters=len(u),
            n_haloes=len(np.unique(halo)),
            n_conformal=0,
        )
        return result._with_levels(later_u, later_mass, np.asarray(held_out[2]), seed)

    def _with_levels(
        self, pit: FloatArray, predicted: FloatArray, halo_id: npt.NDArray[Any], seed: int
    ) -> Recalibration:
        # Of one cluster of each halo: only then is a new cluster exchangeable with them.
        rows = one_per_halo(halo_id, seed)
        mapped = self.cdf_map(predicted[rows])(torch.from_numpy(pit[rows])[None])[0].numpy()
        score, bins = np.abs(2.0 * mapped - 1.0), classes_of(predicted[rows], self.edges)
        levels = tuple(_thinned(np.sort(score[bins == one])) for one in range(len(self.edges) + 1))
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Recalibration(**values | {"levels": levels, "n_conformal": len(rows)})

    @property
    def label(self) -> str:
        """In a line: for which population and prior, from how many clusters."""
        low, high = self.log10_mass_range
        return f"{self.prior} {low:g}-{high:g}, {self.n_clusters} clusters"

    def cdf_map(self, predicted: npt.ArrayLike) -> StagedMap:
        """The maps of clusters with these raw posterior medians (n,), log10 M200c [Msun/h]."""
        bins = torch.from_numpy(classes_of(np.asarray(predicted, dtype=np.float64), self.edges))
        most = max((len(one) for one in self.levels), default=0)
        padded = torch.ones(len(self.levels), most, dtype=torch.float64)
        for row, values in zip(padded, self.levels, strict=True):
            row[: len(values)] = torch.from_numpy(values)
        counts = torch.tensor([len(one) for one in self.levels])
        return StagedMap(
            torch.from_numpy(self.shift)[:, bins],
            torch.from_numpy(self.log_scale)[:, bins],
            torch.from_numpy(self.coefficients)[:, bins],
            padded[bins],
            counts[bins],
            self.label,
        )

    def apply(self, posterior: MassPosterior) -> MassPosterior:
        """The recalibrated posterior.

        Raises:
            ValueError: it is under another prior than this recalibration is for.
        """
        if not self.fits(posterior.prior.name, posterior.prior.log10_mass_range):
            low, high = posterior.prior.log10_mass_range
            raise ValueError(
                f"This recalibration is for {self.label}; the posterior is under the prior "
                f"{posterior.prior.name!r} over {low:g}-{high:g}. Recalibrate for that pair, or use the raw posterior."
            )
        return posterior.recalibrated(self.cdf_map(posterior.median))

    def fits(self, prior: str, log10_mass_range: tuple[float, float] | None = None) -> bool:
        """Whether it is for this prior, and for these limits where they are given."""
        same = log10_mass_range is None or bool(
            np.allclose(log10_mass_range, self.log10_mass_range, rtol=0.0, atol=1e-6)
        )
        return prior == self.prior and same

    def state(self) -> dict[str, Tensor]:
        """Tensors to be saved; `from_state` is the inverse."""
        names = ("edges", "shift", "log_scale", "coefficients")
        tensors = {name: torch.from_numpy(np.array(getattr(self, name))) for name in names}
        tensors["levels"] = torch.from_numpy(np.concatenate(self.levels))
        tensors["counts"] = torch.tensor([len(one) for one in self.levels])
        return tensors

    def describe(self) -> dict[str, Any]:
        """JSON-able description of what the tensors are."""
        return {
            "prior": self.prior,
            "log10_mass_range": list(self.log10_mass_range),
            "choices": list(self.choices),
            "n_clusters": self.n_clusters,
            "n_haloes": self.n_haloes,
            "n_conformal": self.n_conformal,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> Recalibration:
        """The recalibration that `state` and `describe` came from.

        Raises:
            ValueError: something is missing.
        """
        try:
            plain = {name: values.numpy() for name, values in state.items()}
            low, high = description["log10_mass_range"]
            return cls(
                prior=str(description["prior"]),
                log10_mass_range=(float(low), float(high)),
                edges=plain["edges"],
                shift=plain["shift"],
                log_scale=plain["log_scale"],
                coefficients=plain["coefficients"],
                levels=tuple(np.split(plain["levels"], np.cumsum(plain["counts"])[:-1])),
                choices=tuple(description["choices"]),
                **{name: int(description[name]) for name in ("n_clusters", "n_haloes", "n_conformal")},
            )
        except KeyError as error:
            raise ValueError(f"the recalibration lacks {error}") from None


def _pairs(overall: FittedStage, stages: list[FittedStage], name: str) -> FloatArray:
    """The same overall value for each bin, then that of the bin: (2, k, ...)."""
    first = np.asarray(getattr(overall, name), dtype=np.float64)
    second = np.stack([np.asarray(getattr(stage, name), dtype=np.float64) for stage in stages])
    return np.stack([np.broadcast_to(first, second.shape), second])


def _thinned(levels: FloatArray) -> FloatArray:
    """At most 2000 of sorted scores, such that no interval becomes narrower: each stands for those below it.

    Of m scores every s-th is kept, s = ceil(m / 2000). The ceil((m' + 1) q)-th of the m' kept ones is the s ceil((m' +
    1) q)-th of all, and s (m' + 1) > m: the coverage is at least q, and at most 1 / m' above.
    """
    step = -(-len(levels) // _MOST_LEVELS)
    return levels if step <= 1 else levels[step - 1 :: step]
