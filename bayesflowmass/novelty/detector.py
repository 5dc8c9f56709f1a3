"""How unlike the training set a cluster or a catalogue is, with calibrated p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bayesflowmass.catalog import ClusterCatalog
from bayesflowmass.common.arrays import BoolArray, FloatArray, IntArray
from bayesflowmass.novelty.catalogue import CatalogueVerdict, permutation_test
from bayesflowmass.novelty.conformal import classes_of, conformal_p_values, one_per_halo
from bayesflowmass.novelty.context_space import ContextSpace
from bayesflowmass.novelty.features import ConditionalNormal
from bayesflowmass.novelty.score import StrangenessScore
from bayesflowmass.novelty.summaries import SUMMARIES, phase_space_summaries

POPULATIONS = ("either", "training", "hmf")
N_COMPONENTS = 12
MOST_HELD_OUT = 3000
"""Held-out clusters that are kept with a model: 200 kB."""

FEWEST_TRAINING = 400
FEWEST_HELD_OUT = 199
_PER_CLASS = 400
# Clusters of a catalogue that its test looks at: more than enough to see a shift of a tenth of a standard deviation.
_MOST_TESTED = 2000


@dataclass(frozen=True)
class Assessment:
    """What a detector finds for n clusters.

    Attributes:
        p_value: (n,), at most alpha with probability alpha for a cluster like the training set of that richness.
        score: strangeness (n,).
        features: normal over training clusters of the same richness (n, K).
        kind: class of richness (n,).
    """

    p_value: FloatArray
    score: FloatArray
    features: FloatArray
    kind: IntArray

    @classmethod
    def concatenate(cls, parts: Sequence[Assessment]) -> Assessment:
        """Assessments of consecutive clusters as one."""
        columns = ("p_value", "score", "features", "kind")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


@dataclass(frozen=True)
class NoveltyDetector:
    """Features of clusters, their distribution in the training set, and held-out clusters that calibrate p-values.

    Attributes:
        r_max, v_max: cylinder [comoving Mpc/h, km/s] that the summaries refer to.
        space: of contexts.
        normal: summaries and coordinates -> features (n, K).
        strangeness: features -> score.
        edges: inner edges of the classes of ln N (k - 1,).
        features: of the held-out clusters (m, K), one of each halo.
        log_n: ln of their number of galaxies (m,).
        log_hmf: ln of the density of the mass function over that of the training masses at each of them (m,), up to a
            constant.
        log10_mass: of them, log10 M200c [Msun/h] (m,); None in models of version 0.1, which did not keep it.
    """

    r_max: float
    v_max: float
    space: ContextSpace
    normal: ConditionalNormal
    strangeness: StrangenessScore
    edges: FloatArray
    features: FloatArray
    log_n: FloatArray
    log_hmf: FloatArray
    log10_mass: FloatArray | None = None

    @classmethod
    def fit(
        cls,
        training: ClusterCatalog,
        training_context: Tensor,
        held_out: ClusterCatalog,
        held_out_context: Tensor,
        *,
        r_max: float,
        v_max: float,
        log_hmf: npt.ArrayLike,
        seed: int,
    ) -> NoveltyDetector | None:
        """Measure training clusters and calibrate on held-out ones; None where they are too few (400, 199 haloes).

        Args:
            training, held_out: clusters that share no halo, with ``log10_mass``; at most 3000 haloes of the latter
                are kept.
            training_context, held_out_context: their contexts (n, c), images only.
            r_max, v_max: cylinder of both [comoving Mpc/h, km/s].
            log_hmf: see the attribute, of the held-out clusters.
            seed: of the components and of the choice among projections of a halo.
        """
        halo = held_out.column("halo_id" if held_out.has("halo_id") else "cluster_id")
        rows = one_per_halo(halo, seed)
        if len(rows) > MOST_HELD_OUT:
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MOST_HELD_OUT])
        if len(training) < FEWEST_TRAINING or len(rows) < FEWEST_HELD_OUT:
            return None
        space = ContextSpace.fit(training_context, N_COMPONENTS, seed)
        log_n = np.log(np.asarray(training.n_galaxies, dtype=np.float64))
        raw = _raw(training, training_context, space, r_max, v_max)
        normal = ConditionalNormal.fit(raw, log_n)
        strangeness = StrangenessScore.fit(normal(raw, log_n))
        classes = int(np.clip(len(rows) // _PER_CLASS, 1, 6))
        edges = np.quantile(log_n, np.linspace(0.0, 1.0, classes + 1)[1:-1])
        kept, kept_log_n = held_out[rows], np.log(np.asarray(held_out.n_galaxies, dtype=np.float64))[rows]
        index = torch.from_numpy(rows).to(held_out_context.device)
        features = normal(_raw(kept, held_out_context[index], space, r_max, v_max), kept_log_n)
        weight = np.asarray(log_hmf, dtype=np.float64)[rows]
        mass = np.array(kept.column("log10_mass"), dtype=np.float64)
        return cls(
            r_max, v_max, space, normal, strangeness, edges, _rounded(features), kept_log_n, weight, mass
        )

    @property
    def names(self) -> list[str]:
        """Names of the features (K,)."""
        components = [f"image component {k + 1}" for k in range(self.space.basis.shape[1])]
        return [*SUMMARIES, *components, "image remainder"]

    def assess(self, catalog: ClusterCatalog, context: Tensor) -> Assessment:
        """p-value of each cluster, and what the test of the catalogue needs.

        Args:
            catalog: clusters of at least three galaxies.
            context: their contexts (n, c), the image part at least.
        """
        log_n = np.log(np.asarray(catalog.n_galaxies, dtype=np.float64))
        raw = _raw(catalog, context, self.space, self.r_max, self.v_max)
        features = _rounded(self.normal(raw, log_n))
        known, strangeness = self._measurable(features)
        score, kind = strangeness(features[:, known]), classes_of(log_n, self.edges)
        p_value = conformal_p_values(
            score, kind, strangeness(self.features[:, known]), classes_of(self.log_n, self.edges)
        )
        return Assessment(p_value, score, features, kind)

    def test(
        self,
        found: Assessment,
        halo_id: npt.ArrayLike | None = None,
        *,
        population: str = "either",
        log10_mass_range: tuple[float, float] | None = None,
        n_permutations: int = 999,
        seed: int = 0,
    ) -> CatalogueVerdict:
        """Test of a whole catalogue (`bayesflowmass.novelty.catalogue`).

        Args:
            found: of its clusters, one at least.
            halo_id: of each cluster (n,); default: all differ.
            population: its masses are distributed as in ``"training"``, as the mass function (``"hmf"``), or as
                ``"either"``.
            log10_mass_range: limits of log10 M200c [Msun/h] of that population; default: those of training. A model of
                version 0.1 does not know the masses of its held-out clusters and takes all of them.
            n_permutations: smallest p-value 1 / (n_permutations + 1).
            seed: of the permutations and of the choice of projections.

        Raises:
            ValueError: there are no clusters, the population is unknown, or no held-out cluster has such a mass.
        """
        if population not in POPULATIONS:
            raise ValueError(f"Unknown population {population!r}; expected one of {', '.join(POPULATIONS)}.")
        good = np.flatnonzero(np.isfinite(found.score))
        if good.size == 0:
            raise ValueError("A catalogue without a measurable cluster cannot be tested.")
        halo = np.arange(len(found.score)) if halo_id is None else np.asarray(halo_id)
        rows = good[one_per_halo(halo[good], seed)]
        if len(rows) > _MOST_TESTED:
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:_MOST_TESTED])
        held_out = self._in_range(log10_mass_range)
        kind = classes_of(self.log_n, self.edges)
        features = np.asarray(found.features[rows], dtype=np.float64)
        known, strangeness = self._measurable(features)
        ours = (
            features[:, known],
            strangeness.whiten(features[:, known]),
            found.score[rows],
            found.kind[rows],
        )
        names = [name for name, there in zip(self.names, known, strict=True) if there]
        results = []
        for name in ("training", "hmf") if population == "either" else (population,):
            kept = held_out if name == "training" else held_out[self._thinned(held_out, seed)]
            features = self.features[kept][:, known]
            theirs = (features, strangeness.whiten(features), strangeness(features), kind[kept])
            p_value, effect, differences = permutation_test(
                *ours, theirs, names, n_permutations=n_permutations, seed=seed
            )
            results.append(
                CatalogueVerdict(p_value, effect, name, int(good.size), len(rows), len(kept), differences)
            )
            if np.ptp(self.log_hmf) < 1e-9:
                break  # The training masses follow the mass function.
        return max(results, key=lambda verdict: verdict.p_value)

    def _measurable(self, features: FloatArray) -> tuple[BoolArray, StrangenessScore]:
        """Which features (K,) some clusters (n, K) have, and the score of these: not all are known of a catalogue of
        distances without directions."""
        known: BoolArray = np.asarray(np.isfinite(features).any(axis=0))
        if known.all() or not known.any():
            return np.ones_like(known), self.strangeness
        return known, self.strangeness.restricted(known, self.features)

    def _in_range(self, log10_mass_range: tuple[float, float] | None) -> IntArray:
        """Held-out clusters with masses in a range."""
        if log10_mass_range is None or self.log10_mass is None:
            return np.arange(len(self.log_n))
        low, high = log10_mass_range
        rows = np.flatnonzero((self.log10_mass >= low) & (self.log10_mass <= high))
        if rows.size == 0:
            raise ValueError(
                f"The model's training set has no cluster with a log10 mass in {low:g}-{high:g} to compare with."
            )
        return rows

    def _thinned(self, rows: IntArray, seed: int) -> IntArray:
        """Which of some held-out clusters follow the mass function in each class of richness: rejection with the
        largest weight there."""
        kind, weight = classes_of(self.log_n, self.edges)[rows], self.log_hmf[rows]
        top = np.array([weight[kind == one].max(initial=-np.inf) for one in range(kind.max() + 1)])
        accept = np.exp(weight - top[kind])
        return np.flatnonzero(np.random.default_rng([seed, 1]).random(len(kind)) < accept)

    def state(self) -> dict[str, Tensor]:
        """Tensors to be saved, a few hundred kB; `from_state` is the inverse."""
        plain = {
            "normal.log_n": self.normal.log_n,
            "normal.median": self.normal.median,
            "normal.scale": self.normal.scale,
            "normal.nodes": self.normal.nodes,
            "strangeness.whitening": self.strangeness.whitening,
            "strangeness.nodes": self.strangeness.nodes,
            "edges": self.edges,
            "log_n": self.log_n,
            "log_hmf": self.log_hmf,
        }
        if self.log10_mass is not None:
            plain["log10_mass"] = self.log10_mass
        tensors = {name: torch.from_numpy(np.array(values)) for name, values in plain.items()}
        tensors["features"] = torch.from_numpy(self.features.astype(np.float16))
        return tensors | {"space.mean": self.space.mean, "space.basis": self.space.basis}

    def describe(self) -> dict[str, Any]:
        """JSON-able description of what the tensors are."""
        return {
            "kind": "phase-space-and-context",
            "r_max": self.r_max,
            "v_max": self.v_max,
            "names": self.names,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> NoveltyDetector:
        """The detector that `state` and `describe` came from.

        Raises:
            ValueError: the description is of another kind, or a tensor is missing.
        """
        if description.get("kind") != "phase-space-and-context":
            raise ValueError(
                f"novelty is of the kind {description.get('kind')!r}, which this version does not know"
            )
        try:
            plain = {
                name: values.to(torch.float64).numpy()
                for name, values in state.items()
                if not name.startswith("space.")
            }
            detector = cls(
                float(description["r_max"]),
                float(description["v_max"]),
                ContextSpace(state["space.mean"], state["space.basis"]),
                ConditionalNormal(
                    *(plain[f"normal.{name}"] for name in ("log_n", "median", "scale", "nodes"))
                ),
                StrangenessScore(plain["strangeness.whitening"], plain["strangeness.nodes"]),
                plain["edges"],
                plain["features"],
                plain["log_n"],
                plain["log_hmf"],
                plain.get("log10_mass"),
            )
        except KeyError as error:
            raise ValueError(f"novelty lacks {error}") from None
        if detector.names != description.get("names"):
            raise ValueError("novelty was measured with other summaries than those of this version")
        return detector


def _raw(
    catalog: ClusterCatalog, context: Tensor, space: ContextSpace, r_max: float, v_max: float
) -> FloatArray:
    summaries = phase_space_summaries(catalog, r_max=r_max, v_max=v_max)
    return np.concatenate([summaries, space(context[:, : len(space.mean)])], axis=1)


def _rounded(features: FloatArray) -> FloatArray:
    """As they are stored: held-out and new clusters must be treated alike."""
    return features.astype(np.float16).astype(np.float64)
