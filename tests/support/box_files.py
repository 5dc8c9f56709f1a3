"""Files of N-body boxes in the formats of the field."""

from __future__ import annotations

import numpy as np

from bayesflowmass.io.formats.universemachine import DR1_RECORD


def words(text):
    return text.replace(",", " ").split()


FULL = words(
    "row_id rockstarId upId pId descId breadthFirstId M200b Rvir x y z vx vy vz M500c Rs Macc Vacc Mvir M200c scale"
)
QUERY = words("rockstarId upId pId Mvir Rvir Rs Macc Vacc M500c M200c x y z vx vy vz")
HLIST = words(
    "scale id desc_scale desc_id num_prog pid upid desc_pid phantom sam_mvir mvir rvir rs vrms mmp? "
    "scale_of_last_MM vmax x y z vx vy vz M200b M200c M500c Macc Mpeak Vacc Vpeak"
)
OUT = words("ID DescID Mvir Vmax Vrms Rvir Rs Np X Y Z VX VY VZ M200b M200c M500c PID")
UM = words("x y z vx vy vz upid id mvir mpeak obs_sm obs_sfr")
BIG = 2**60 + 1
"""Floats cannot hold it."""


def haloes(n=40, seed=0):
    """Columns of haloes under the finder's names, in its units."""
    rng = np.random.default_rng(seed)
    table = {name: rng.uniform(1.0, 900.0, n) for name in {*FULL, *QUERY, *HLIST, *OUT}}
    ids = BIG + np.arange(n, dtype=np.int64)
    host = np.where(np.arange(n) % 3 == 0, -1, BIG)
    table |= dict.fromkeys(("rockstarId", "id", "ID"), ids)
    table |= dict.fromkeys(("upId", "upid", "pId", "pid", "PID"), host)
    table |= {
        name: np.arange(n) for name in ("row_id", "descId", "breadthFirstId", "desc_id", "DescID", "Np")
    }
    for name in ("M200c", "Mvir", "mvir", "M500c", "M200b", "Macc", "Mpeak"):
        table[name] = 10.0 ** rng.uniform(11.0, 15.0, n)
    for name in ("vx", "vy", "vz", "VX", "VY", "VZ"):
        table[name] = rng.normal(0.0, 400.0, n)
    table["scale"] = np.full(n, 0.8951)
    return table


def rows_of(table, names, separator):
    columns = [[str(value) for value in table[name].tolist()] for name in names]
    return [separator.join(row) for row in zip(*columns, strict=True)]


def cosmosim(path, names=FULL, *, index=True, table=None):
    rows = rows_of(haloes() if table is None else table, names, ",")
    header = ",".join(names)
    if index:
        header, rows = "," + header, [f"{i},{row}" for i, row in enumerate(rows)]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def rockstar(path, names=HLIST, *, indexed=True):
    header = "#" + " ".join(f"{name}({i})" if indexed else name for i, name in enumerate(names))
    comments = [
        "#a = 0.895100",
        "#Om = 0.307115; Ol = 0.692885; h = 0.677700",
        "#Box size: 1000.000000 Mpc/h",
    ]
    path.write_text("\n".join([header, *comments, *rows_of(haloes(), names, " ")]) + "\n", encoding="utf-8")
    return path


def universemachine(path, *, width="f4", ids="i8", names=UM):
    table = haloes()
    table |= {"mpeak": table["Mpeak"], "obs_sm": table["Mvir"] / 100, "obs_sfr": table["x"] / 100}
    rows = np.zeros(40, dtype=[(name, ids if name in ("id", "upid") else width) for name in names])
    for name in names:
        rows[name] = table[name] % 1000 if rows.dtype[name].kind == "u" else table[name]
    np.save(path, rows)
    return path


def dr1(path):
    table = haloes()
    rows = np.zeros(40, dtype=DR1_RECORD)
    rows["id"], rows["upid"] = table["id"], table["upid"]
    rows["pos"] = np.stack([table[name] for name in ("x", "y", "z", "vx", "vy", "vz")], axis=-1)
    rows["mp"], rows["m"], rows["obs_sm"] = table["Mpeak"], table["mvir"], table["Mvir"] / 100
    rows["flags"][:5] = 16
    rows.tofile(path)
    return path
