"""Tables in the documented layouts of surveys, archives and published mocks."""

from __future__ import annotations

import numpy as np
from astropy.table import MaskedColumn, Table

from bayesflowmass.cosmology import SPEED_OF_LIGHT

Z = 0.08
CENTRE = (230.0, 20.0)


def words(text):
    return text.split()


def sky(n=30, seed=0):
    """Galaxies around one cluster: ra, dec, z."""
    rng = np.random.default_rng(seed)
    ra = CENTRE[0] + rng.normal(0.0, 0.1, n)
    dec = CENTRE[1] + rng.normal(0.0, 0.1, n)
    return ra, dec, Z + rng.normal(0.0, 700.0, n) / SPEED_OF_LIGHT * (1.0 + Z)


def one_cluster(**columns):
    return Table({"cluster_id": ["A1"], "ra": [CENTRE[0]], "dec": [CENTRE[1]], "redshift": [Z]} | columns)


def ned(*, old=False, n=30):
    ra, dec, z = sky(n)
    names = ("RA(deg)", "DEC(deg)", "Distance (arcmin)") if old else ("RA", "DEC", "Separation")
    table = Table(
        {
            "No.": np.arange(1, n + 1),
            "Object Name": [f"WISEA J{i:06d}" for i in range(n)],
            names[0]: ra,
            names[1]: dec,
            "Type": ["G"] * n,
            "Velocity": z * SPEED_OF_LIGHT,
            "Redshift": MaskedColumn(z, mask=np.arange(n) < 2),
            "Redshift Flag": ["SPEC"] * 5 + [""] * (n - 5),
            names[2]: np.linspace(0, 20, n),
        }
    )
    table["Redshift Flag"] = table["Redshift Flag"].astype("U12")
    table["Type"] = table["Type"].astype("U12")
    return table


NED_2026 = {"Type": "Phys Type", "Velocity": "cz", "Redshift": "Redshift (z)", "Redshift Flag": "z flag"}
"""Names of NED's services since 2026; "Redshift" is a number of measurements there."""


def ned_2026(n=30):
    table = ned(n=n)
    table.rename_columns(list(NED_2026), list(NED_2026.values()))
    table["Reference"], table["Redshift"] = np.full(n, 57), np.full(n, 3)
    return table


def skyserver(n=30):
    ra, dec, z = sky(n)
    table = Table({"objid": 1237671768542478711 + np.arange(n), "ra": ra, "dec": dec})
    table["specz"], table["speczerr"], table["rmag"] = z, np.full(n, 2e-5), np.full(n, 17.0)
    return table


def redmapper_clusters():
    return Table(
        {
            "MEM_MATCH_ID": [3, 7, 9],
            "RA": [10.0, 20.0, 30.0],
            "DEC": [1.0, 2.0, 3.0],
            "Z_LAMBDA": [0.21, 0.31, -1.0],
            "Z_LAMBDA_E": [0.006, 0.007, 0.01],
            "LAMBDA": [25.0, 60.0, 30.0],
            "CG_SPEC_Z": [0.2, -1.0, -1.0],
        }
    )


def redmapper_members():
    ra, dec, z = sky()
    table = Table({"MEM_MATCH_ID": np.full(30, 3), "ID": np.arange(30) + 2**60, "RA": ra, "DEC": dec})
    table["R"], table["P"], table["PFREE"] = np.linspace(0, 1, 30), np.full(30, 0.9), np.full(30, 0.8)
    table["ZSPEC"] = np.where(np.arange(30) < 10, -1.0, z)
    return table


def erass():
    table = Table({"DETUID": ["em01", "em02", "em03"], "RA": [10.0, 20.0, 30.0], "DEC": [1.0, 2.0, 3.0]})
    table["BEST_Z"], table["M500"], table["R500"] = (
        [0.1, 0.2, 0.3],
        [30.0, 10.0, 50.0],
        [900.0, 700.0, 1000.0],
    )
    return table


def caustic(path, *, announced=30):
    ra, dec, z = sky()
    rows = [f"{a:.6f} {d:.6f} {v:.1f}" for a, d, v in zip(ra, dec, z * SPEED_OF_LIGHT, strict=True)]
    path.write_text(
        "\n".join([f"{announced} {CENTRE[0]} {CENTRE[1]} {Z * SPEED_OF_LIGHT:.1f}", *rows]) + "\n",
        encoding="utf-8",
    )
    return path


def mamposst(path, *, weight=False, scale=1.0):
    rng = np.random.default_rng(0)
    columns = [rng.uniform(50, 2000, 30) * scale, rng.normal(0, 800, 30), np.full(30, 50.0)]
    columns += [np.ones(30)] if weight else []
    rows = ["  ".join(f"{value:.3f}" for value in row) for row in zip(*columns, strict=True)]
    path.write_text("\n".join(["# R(kpc)  v(km/s)  e_v(km/s)", "# ", *rows]) + "\n", encoding="utf-8")
    return path


def sag(folder, *, sdss=False, n=4):
    rng = np.random.default_rng(0)
    ids = np.arange(1, n + 1)
    place = np.repeat(rng.uniform(0, 1000, (n // 2, 3)), 2, axis=0)
    columns = [
        ids,
        rng.uniform(14, 15, n),
        np.full(n, 350.0),
        *place.T,
        *np.eye(3)[ids % 3].T,
        np.full(n, 0.8951),
    ]
    columns = [ids, columns[1], np.full(n, 0.1)] if sdss else columns
    name = "clusters_M200c_SDSS_GALWCAT19_4Mpcph" if sdss else "clusters_M200c_SAG_v3.0_4Mpch"
    np.savetxt(folder / name, np.stack(columns, axis=-1))
    each = np.repeat(ids, 12)
    galaxies = [each, *rng.normal(0, 0.5, (2, each.size)), rng.normal(0, 700, each.size)]
    np.savetxt(folder / "galaxies_XYvZ_SAG_v3.0_4Mpch", np.stack(galaxies, axis=-1))
    return folder / "galaxies_XYvZ_SAG_v3.0_4Mpch", folder / name


def halo_cnn(path, **changes):
    rng = np.random.default_rng(0)
    n, width = 5, 20
    shapes = {
        f"gal_{name}": (width,) for name in words("xproj yproj zproj Rproj vlos memb_halo memb_vir Macc")
    }
    hosts = words("rockstarId M200c x y z rotation Ngal sigv")
    kinds = [(name, "f8") for name in hosts]
    kinds += [(name, "?" if "memb" in name else "f8", shape) for name, shape in shapes.items()]
    rows = np.zeros(n, dtype=kinds)
    rows["rockstarId"], rows["M200c"] = [7, 7, 8, 9, 9], 10.0 ** rng.uniform(13.5, 15, n)
    rows["Ngal"] = [20, 12, 15, 11, 13]
    there = np.arange(width)[None, :] < rows["Ngal"][:, None]
    for name in words("gal_xproj gal_yproj gal_vlos"):
        rows[name][there] = rng.normal(0, 700 if "v" in name else 0.5, there.sum())
    rows["gal_Rproj"] = np.hypot(rows["gal_xproj"], rows["gal_yproj"])
    rows["gal_memb_halo"] = there & (rows["gal_Rproj"] < 0.7)
    for name, change in changes.items():
        rows[name] = change(rows[name])
    np.save(path, rows)
    return path, rows
