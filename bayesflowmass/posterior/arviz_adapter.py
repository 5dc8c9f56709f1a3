"""Mass posteriors for ArviZ: its groups, netCDF, selection by bin. The only module that knows ArviZ.

Groups (dimensions): ``posterior`` (chain = draw of the weights, draw, cluster), ``posterior_predictive`` (the
mixture over the weights, same shape), ``observed_data`` (cluster), ``log_likelihood`` (chain, draw, cluster)
and ``constant_data`` (cluster). The mass of a cluster is a parameter to an observer and a datum to the
network: draws stand in both of the first two groups, the true masses of a test set in ``observed_data``.

`az.loo` on these groups is meaningless (docs/calibration.md); PIT, held-out log density and coverage are
not.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from bayesflowmass.common.arrays import FloatArray
from bayesflowmass.posterior.draws import uniform
from bayesflowmass.posterior.summary import PosteriorSummary

with warnings.catch_warnings():
    # 0.23 announces version 1 once a day.
    warnings.simplefilter("ignore", FutureWarning)
    import arviz as az

VARIABLE = "log10_mass"
_ATTRIBUTES = {"units": "log10(Msun/h)", "mass_definition": "200c"}


def to_arviz(
    posterior: PosteriorSummary,
    log10_true: npt.ArrayLike | None = None,
    *,
    n_samples: int = 500,
    seed: int = 0,
    bin_width: float = 0.25,
    constants: Mapping[str, npt.ArrayLike] | None = None,
) -> Any:
    """ArviZ's container of the posteriors of n clusters: `InferenceData` (0.x) or `DataTree` (1.x).

    Args:
        posterior: of M200c.
        log10_true: true masses of a test set, log10 M200c [Msun/h], shape (n,); without them there is no
            ``observed_data`` and no ``log_likelihood``.
        n_samples: draws of the mass of each cluster for each draw of the weights.
        seed: same seed, same draws.
        bin_width: of ``predicted_bin`` and ``true_bin`` [dex]; a bin is named by its lower edge.
        constants: further columns of ``constant_data``, shape (n,): ``halo_id``, ``richness``.

    Raises:
        ValueError: the mass definition was converted, or shapes disagree.
    """
    n = len(posterior)
    true = None if log10_true is None else np.asarray(log10_true, dtype=np.float64)
    columns = {name: np.asarray(values) for name, values in (constants or {}).items()}
    for name, values in {"log10_true": true, **columns}.items():
        if values is not None and values.shape != (n,):
            raise ValueError(f"{name} has shape {values.shape}; {n} clusters need ({n},).")
    draws_of = posterior.of_draws(None if true is None else torch.from_numpy(true))
    n_draws = len(draws_of.table.x) // n
    by_draw, mixture = np.random.default_rng(seed).spawn(2)
    u = torch.from_numpy(uniform(by_draw, (n_draws * n, n_samples)))
    draws = draws_of.table.quantile(u).numpy().reshape(n_draws, n, n_samples).transpose(0, 2, 1)
    predictive = posterior.quantile(uniform(mixture, (n_draws * n_samples, n)))
    coords = {
        "chain": np.arange(n_draws),
        "draw": np.arange(n_samples),
        "cluster": np.asarray(posterior.cluster_id),
    }
    full = ("chain", "draw", "cluster")
    groups = {
        "posterior": _dataset({VARIABLE: (full, draws)}, coords),
        "posterior_predictive": _dataset(
            {VARIABLE: (full, predictive.reshape(n_draws, n_samples, n))}, coords
        ),
    }
    constant: dict[str, Any] = {"predicted_bin": _bin(posterior.median, bin_width), **columns}
    for name, values in (("redshift", posterior.redshift), ("n_galaxies", posterior.n_galaxies)):
        if values is not None:
            constant.setdefault(name, np.asarray(values))
    if true is not None:
        constant |= {"true_bin": _bin(true, bin_width), "pit": posterior.cdf(true)}
        assert draws_of.log_pdf_at is not None
        # Each draw of the weights has one density: it is repeated along the draws of the mass.
        log_density = draws_of.log_pdf_at.numpy()[:, None]
        groups["observed_data"] = _dataset({VARIABLE: (("cluster",), true)}, coords)
        groups["log_likelihood"] = _dataset(
            {VARIABLE: (full, np.repeat(log_density, n_samples, axis=1))}, coords
        )
    groups["constant_data"] = _dataset({k: (("cluster",), v) for k, v in constant.items()}, coords)
    attributes = {"prior": posterior.prior.name, "draws_of_the_weights": n_draws, "seed": seed}
    for group in groups.values():
        group.attrs |= attributes
    return _container(groups)


def survey_arviz(
    theta: Mapping[str, npt.ArrayLike], log10_mass: npt.ArrayLike, cluster_id: npt.NDArray[Any]
) -> Any:
    """ArviZ's container of parameters common to n clusters, (chain, draw), and their masses (chain, draw, cluster)."""
    values = {name: (("chain", "draw"), np.asarray(draws)) for name, draws in theta.items()}
    masses = np.asarray(log10_mass)
    values[VARIABLE] = (("chain", "draw", "cluster"), masses)  # type: ignore[assignment]
    coords = {"chain": np.arange(len(masses)), "draw": np.arange(masses.shape[1]), "cluster": cluster_id}
    return _container({"posterior": _dataset(values, coords)})


def select_bin(data: Any, name: str, value: float) -> Any:
    """The clusters of one bin, in every group.

    Args:
        data: of :func:`to_arviz`.
        name: a column of ``constant_data``, such as ``predicted_bin``.
        value: of the column, such as 14.25 for predicted masses of 14.25-14.50.

    Raises:
        ValueError: there is no such column or no cluster in that bin.
    """
    constant = data["constant_data"]
    if name not in constant.data_vars:
        raise ValueError(f"constant_data has no column {name!r}; it has {', '.join(constant.data_vars)}.")
    column = constant[name]
    chosen = column["cluster"].values[np.isclose(column.values.astype(float), value)]
    if not chosen.size:
        known = ", ".join(f"{v:g}" for v in np.unique(column.values))
        raise ValueError(f"No cluster has {name} = {value}; there are {known}.")
    return data.sel(cluster=chosen)


def read_arviz(path: str | os.PathLike[str]) -> Any:
    """Read what ``to_arviz(...).to_netcdf(path)`` wrote, loaded into memory."""
    if hasattr(az, "InferenceData"):
        return az.InferenceData.from_netcdf(os.fspath(path)).load()
    return xr.load_datatree(os.fspath(path))


def _container(groups: Mapping[str, xr.Dataset]) -> Any:
    """The one place where ArviZ 0.x and 1.x differ: 1.x takes xarray's own tree."""
    if hasattr(az, "InferenceData"):
        return az.InferenceData(**groups)
    return xr.DataTree.from_dict(dict(groups))


def _dataset(variables: Mapping[str, Any], coords: Mapping[str, npt.NDArray[Any]]) -> xr.Dataset:
    used = {d for dims, _ in variables.values() for d in dims}
    dataset = xr.Dataset(dict(variables), coords={k: v for k, v in coords.items() if k in used})
    if VARIABLE in dataset:
        dataset[VARIABLE].attrs |= _ATTRIBUTES
    return dataset


def _bin(log10_mass: FloatArray, width: float) -> FloatArray:
    return np.round(np.floor(log10_mass / width + 1e-9) * width, 6)
