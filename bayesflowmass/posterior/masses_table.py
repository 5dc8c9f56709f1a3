"""The table of masses: one row per cluster, units and prior in the header."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.table import MaskedColumn, Table

from bayesflowmass.common.arrays import BoolArray, FloatArray
from bayesflowmass.common.version import __version__
from bayesflowmass.cosmology import radius_delta
from bayesflowmass.posterior.summary import PosteriorSummary

MASS_UNITS = ("Msun/h", "Msun")

_QUANTILES = {"q025": 0.025, "q16": 0.16, "q84": 0.84, "q975": 0.975}
# Spacing of the grid of `pdf=True`, and its margin beyond the training range [dex].
_GRID_STEP, _GRID_MARGIN = 0.01, 0.3
NEVER_MASKED = ("cluster_id", "n_galaxies", "redshift", "prior", "flags")


def masses_table(
    posterior: PosteriorSummary,
    *,
    units: str = "Msun/h",
    h: float | None = None,
    pdf: bool = False,
    flags: npt.ArrayLike | None = None,
    model: str = "",
) -> Table:
    """Masses of all clusters of a posterior.

    Columns: ``cluster_id, n_galaxies, redshift, log10_mass`` (median), ``log10_mass_mean,
    log10_mass_map, sigma, sigma_aleatoric, sigma_epistemic`` (masked for a point model), ``q025, q16,
    q84, q975``, the comoving radius ``r200c`` (or of the definition asked for) of the median mass,
    ``prior, flags`` and, on request, ``pdf`` per dex on the grid ``linspace(pdf_lo, pdf_hi, pdf_n)`` of
    log10 mass, whose limits are in the header. Where the numbers are no mass (`MassPosterior.has_mass`) they are masked
    and the flag ``no_density`` is set.

    Args:
        units: of all masses, ``"Msun/h"`` or ``"Msun"``; the radius is then in Mpc/h or Mpc.
        h: Hubble parameter that turns one into the other; default: that of the model's cosmology.
        pdf: add the PDF.
        flags: of each cluster (n,), joined by commas.
        model: where the masses come from, for the header.

    Raises:
        ValueError: unknown units, or an h that is not positive.
    """
    if units not in MASS_UNITS:
        raise ValueError(f"Unknown unit of mass {units!r}; expected 'Msun/h' or 'Msun'.")
    h = posterior.cosmology.h if h is None else float(h)
    if not (math.isfinite(h) and h > 0.0):
        raise ValueError(f"h is {h}; expected a positive number such as 0.6777.")
    scale, length = (1.0 / h, "Mpc") if units == "Msun" else (1.0, "Mpc/h")
    shift = math.log10(scale)
    n = len(posterior)
    told = posterior.has_mass & np.isfinite([posterior.median, posterior.mean, posterior.sigma]).all(0)

    table = Table(masked=True)
    table["cluster_id"] = posterior.cluster_id
    if posterior.n_galaxies is not None:
        table["n_galaxies"] = posterior.n_galaxies
    if posterior.redshift is not None:
        table["redshift"] = posterior.redshift
    mdef = posterior.mdef
    mass = f"log10 M{mdef} [{units}]"
    _add(table, "log10_mass", posterior.median + shift, f"median of {mass}")
    _add(table, "log10_mass_mean", posterior.mean + shift, f"mean of {mass}")
    _add(table, "log10_mass_map", posterior.map + shift, f"highest density per dex of {mass}")
    _add(table, "sigma", posterior.sigma, "standard deviation [dex]")
    _add(table, "sigma_aleatoric", posterior.sigma_aleatoric, "its part from galaxies and noise [dex]")
    _add(table, "sigma_epistemic", posterior.sigma_epistemic, "its part from the weights [dex]")
    for name, values in zip(_QUANTILES, posterior.quantile(list(_QUANTILES.values())), strict=True):
        _add(table, name, values + shift, f"quantile {_QUANTILES[name]} of {mass}")
    if posterior.redshift is not None:
        known = np.where(told, posterior.median, np.nan)
        radius = radius_delta(known, posterior.redshift, mdef, comoving=True, cosmology=posterior.cosmology)
        _add(table, f"r{mdef}", radius * scale, f"comoving R{mdef} of the median mass [{length}]")
    table["prior"] = np.full(n, posterior.prior.name)
    table["flags"] = np.full(n, "") if flags is None else np.asarray(flags, dtype=np.str_)
    table.meta = {
        "units": units,
        "mdef": mdef,
        "h": h,
        "prior": posterior.prior.name,
        "mass_lo": posterior.prior.log10_mass_range[0],
        "mass_hi": posterior.prior.log10_mass_range[1],
        "radius": f"comoving {length}",
        "version": __version__,
        "model": str(model),
    }
    if posterior.recalibration is not None:
        table.meta["recal"] = posterior.recalibration
    if pdf:
        low, high = posterior.training_prior.log10_mass_range
        start = round(low + shift - _GRID_MARGIN, 2)
        count = math.ceil((high + shift + _GRID_MARGIN - start) / _GRID_STEP) + 1
        grid = start + _GRID_STEP * np.arange(count)
        _add(table, "pdf", posterior.pdf((grid - shift)[:, None]).T, f"density per dex of {mass}")
        table.meta |= {"pdf_lo": float(grid[0]), "pdf_hi": float(grid[-1]), "pdf_n": count}
    _mask(table, ~told)
    return table


def _mask(table: Table, rows: BoolArray) -> None:
    """Take from rows the numbers that are no masses, and say so in their flags."""
    if not rows.any():
        return
    for name in table.colnames:
        if name not in NEVER_MASKED:
            table[name].mask[rows] = True
    names = [set(filter(None, str(flags).split(","))) | {"no_density"} for flags in table["flags"][rows]]
    flags = np.asarray(table["flags"]).astype(object)
    flags[rows] = [",".join(sorted(one)) for one in names]
    table["flags"] = flags.astype(np.str_)


def with_missing_rows(table: Table, usable: BoolArray, columns: dict[str, npt.NDArray[Any]]) -> Table:
    """Rows for clusters without a mass, masked, in their place among the others.

    Args:
        table: masses of the usable clusters.
        usable: which clusters those are (n,).
        columns: values for all n clusters of the columns that are never masked.
    """
    rows = np.flatnonzero(usable)
    full = Table()
    full.meta = dict(table.meta)
    for name in table.colnames:
        source = table[name]
        if name in columns:
            full[name] = columns[name]
            continue
        if name in NEVER_MASKED:
            full[name] = np.full(len(usable), source[0] if len(source) else "")
            continue
        values = np.zeros((len(usable), *source.shape[1:]), dtype=source.dtype)
        mask = np.ones(values.shape, dtype=bool)
        values[rows], mask[rows] = np.asarray(source), np.ma.getmaskarray(source)
        full[name] = MaskedColumn(values, mask=mask, description=source.description)
    return full


def _add(table: Table, name: str, values: FloatArray | None, description: str) -> None:
    column = MaskedColumn(np.zeros(len(table)), mask=True) if values is None else MaskedColumn(values)
    column.description = description
    table[name] = column
