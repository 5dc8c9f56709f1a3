"""Mutated files through every reader of tables: ``python -m benchmarks.fuzz_readers --n 100000 --seed 0``.

A small valid table is written in each form and damaged at random. Reading it must end in a table or in a `CatalogError`
of one line, within two seconds of processor time; rows that are lost must be said; a damage that only moves blanks,
line ends or empty lines must leave every value as it was. Where Python or astropy can read the damaged file too, and
find as many rows, every value must be theirs. Prints what went wrong with the number of the file (``--start`` begins
with it), and ends with code 1 where anything did.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.table import Table

from bayesflowmass.catalog import CatalogError
from bayesflowmass.io import load_catalog, read_box
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.sources import open_table
from bayesflowmass.io.text.rows import MISSING

N_ROWS = 24
SLOW = 2.0
HUNG = 20.0
"""Seconds of processor time after which a reader is stopped."""
Reader = Callable[[Path], Any]


def table_of_galaxies() -> Table:
    """Two clusters with names, offsets and velocities."""
    rng = np.random.default_rng(7)
    return Table(
        {
            "cluster_id": np.repeat([1, 2], N_ROWS // 2),
            "x": np.round(rng.normal(0, 0.5, N_ROWS), 4),
            "y": np.round(rng.normal(0, 0.5, N_ROWS), 4),
            "v_los": np.round(rng.normal(0, 600, N_ROWS), 1),
            "name": [f"NGC {k}" for k in range(N_ROWS)],
        }
    )


def _text(kind: str, **options: Any) -> bytes:
    out = io.StringIO()
    table_of_galaxies().write(out, format=kind, **options)
    return out.getvalue().encode()


def _binary(kind: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t"
        table_of_galaxies().write(path, format=kind)
        return path.read_bytes()


def _parquet() -> bytes:
    out = io.BytesIO()
    table = table_of_galaxies()
    pq.write_table(pa.table({name: np.asarray(table[name]) for name in table.colnames}), out)
    return out.getvalue()


def _box(separator: str, names: str) -> bytes:
    rng = np.random.default_rng(3)
    rows = [
        separator.join(
            [str(k + 1), "-1", *(f"{value:.3f}" for value in rng.uniform(1, 99, 6)), "1e13", "1e13"]
        )
        for k in range(N_ROWS)
    ]
    return "\n".join([names.replace(" ", separator), *rows, ""]).encode()


def _caustic() -> bytes:
    rng = np.random.default_rng(5)
    rows = [
        f"{150 + a:.5f} {2 + b:.5f} {30000 + c:.1f}"
        for a, b, c in rng.normal(0, [0.1, 0.1, 500], (N_ROWS, 3))
    ]
    return "\n".join([f"{N_ROWS} 150.0 2.0 30000", *rows, ""]).encode()


def _sag() -> bytes:
    table = table_of_galaxies()
    lines = [f"{a} {x} {y} {v}" for a, x, y, v in zip(*(table[n] for n in table.colnames[:4]), strict=True)]
    return "\n".join([*lines, ""]).encode()


def seeds() -> dict[str, tuple[bytes, Reader, bool]]:
    """``{form: (a valid file, how it is read, whether it is text with a row in each line)}``."""
    flat: Reader = read_any_table
    comment = _text("ascii.csv").replace(b"cluster_id", b"# cluster_id", 1)
    return {
        "csv": (_text("ascii.csv"), flat, True),
        "commented": (comment, flat, True),
        "tsv": (_text("ascii.tab"), flat, True),
        "semicolons": (_text("ascii.basic", delimiter=";"), flat, True),
        "blanks": (_text("ascii"), flat, True),
        "ecsv": (_text("ascii.ecsv"), flat, True),
        "mrt": (_text("ascii.mrt"), flat, False),
        "ipac": (_text("ascii.ipac"), flat, False),
        "fits": (_binary("fits"), flat, False),
        "votable": (_binary("votable"), flat, False),
        "parquet": (_parquet(), flat, False),
        "gzip": (gzip.compress(_text("ascii.csv"), mtime=0), flat, False),
        "cosmosim": (_box(",", "rockstarId upId x y z vx vy vz M200c Mvir"), read_box, True),
        "rockstar": (_box(" ", "#id upid x y z vx vy vz m200c mvir"), read_box, True),
        "caustic": (_caustic(), load_catalog, False),
        "sag": (_sag(), lambda path: load_catalog(path, redshift=0.1, few_galaxies="keep"), False),
        "csv to a catalogue": (
            _text("ascii.csv"),
            lambda path: load_catalog(path, redshift=0.1, few_galaxies="keep"),
            False,
        ),
    }


def survey_seeds() -> dict[str, tuple[bytes, Reader, bool]]:
    """The files of surveys, archives and boxes that the tests of readers have."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
    import box_files
    import survey_tables as made
    from flat_tables import frame_tables

    made_of: dict[str, Callable[[Path], Any]] = {
        "ned": lambda path: made.ned().write(path, format="ascii.csv"),
        "ned 2026": lambda path: made.ned_2026().write(path, format="fits"),
        "skyserver": lambda path: made.skyserver().write(path, format="ascii.csv"),
        "redmapper": lambda path: made.redmapper_members().write(path, format="fits"),
        "erass": lambda path: made.erass().write(path, format="fits"),
        "mamposst": made.mamposst,
        "halo_cnn": made.halo_cnn,
        "universemachine": box_files.universemachine,
        "universemachine dr1": box_files.dr1,
        "catalogue": lambda path: load_catalog(*frame_tables()).write(path),
    }
    kept = {"few_galaxies": "keep"}
    read: dict[str, Reader] = dict.fromkeys(made_of, lambda path: open_table(path, "galaxies", {})[0])
    read |= {
        "erass": lambda path: open_table(path, "clusters", {})[0],
        "mamposst": lambda path: load_catalog(path, redshift=0.1, **kept),
        "halo_cnn": lambda path: load_catalog(path, redshift=0.117, **kept),
        "universemachine": read_box,
        "universemachine dr1": read_box,
        "catalogue": lambda path: load_catalog(path, **kept),
    }
    seeds = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, write in made_of.items():
            path = Path(folder) / f"{name}.npy"
            write(path)
            seeds[name] = (path.read_bytes(), read[name], False)
    return seeds


def _by_csv(mark: str) -> Callable[[bytes], dict[str, list[Any]]]:
    def read(data: bytes) -> dict[str, list[Any]]:
        rows = [
            row
            for row in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=mark)
            if row
        ]
        return dict(zip(rows[0], map(list, zip(*rows[1:], strict=True)), strict=True))

    return read


def _by_astropy(kind: str) -> Callable[[bytes], dict[str, list[Any]]]:
    def read(data: bytes) -> dict[str, list[Any]]:
        return _columns(Table.read(data.decode(), format=kind))

    return read


def _by_astropy_fits(data: bytes) -> dict[str, list[Any]]:
    """Text ends at a zero byte, as FITS has it (standard 4.0, 7.3.3.1); astropy leaves what follows."""
    table = Table.read(io.BytesIO(data), format="fits")
    return {
        name: [cell.partition("\0")[0] if isinstance(cell, str) else cell for cell in cells]
        for name, cells in _columns(table).items()
    }


OTHERS: dict[str, Callable[[bytes], dict[str, list[Any]]]] = {
    "csv": _by_csv(","),
    "tsv": _by_csv("\t"),
    "semicolons": _by_csv(";"),
    "gzip": lambda data: _by_csv(",")(gzip.decompress(data)),
    **{kind: _by_astropy(f"ascii.{kind}") for kind in ("ecsv", "mrt", "ipac")},
    "fits": _by_astropy_fits,
}
"""Readers that are not ours, and know nothing of what ours refuses."""


def _same(ours: Any, theirs: Any) -> bool:
    """Whether two values are one: cells are compared as what ours took them for."""
    if ours is None:
        return theirs is None or str(theirs).strip() in MISSING
    if isinstance(ours, str | bool):
        # A number that ours leaves as text is refused where a number is needed.
        return not isinstance(theirs, str | bool | None) or _letters(ours) == _letters(theirs)
    text = str(theirs).strip().replace("D", "e").replace("d", "e").replace(",", ".")
    try:
        value = int(text) if isinstance(ours, int) and text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return False
    return value == ours or (value != value and ours != ours)


def _letters(text: Any) -> str:
    """Without blanks and control characters, which readers leave or not."""
    return "".join(mark for mark in str("" if text is None else text) if mark.isprintable() and mark != " ")


def other_value(name: str, data: bytes, table: Any) -> str:
    """A value that another reader finds to be otherwise; empty where there is none, or no other reader."""
    if name not in OTHERS:
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = OTHERS[name](data)
    except Exception:
        return ""
    for one, ours in _columns(table).items():
        for mine, other in zip(
            ours, theirs.get(one, ours) if len(theirs.get(one, ())) == len(ours) else ours, strict=True
        ):
            if not _same(mine, other):
                return f"{other!r} of {one} was read as {mine!r}"
    return ""


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Flipped bits, lost or doubled pieces, odd characters."""
    result = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        place, kind = int(rng.integers(0, max(1, len(result)))), int(rng.integers(0, 6))
        length = int(rng.integers(1, 40))
        if kind == 0 and result:
            result[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del result[place : place + length]
        elif kind == 2:
            result[place:place] = result[place : place + length]
        elif kind == 3:
            del result[place:]
        elif kind == 4:
            result[place:place] = bytes(rng.choice(list(b'""##,;\t |\n\r\0<>&\'-+eD_\xff'), size=1).tolist())
        else:
            result[place : place + 1] = bytes([int(rng.integers(0, 256))])
    return bytes(result)


def one_odd_character(data: bytes, rng: np.random.Generator) -> bytes:
    """A quote, hash, blank or delimiter inside a line: as many lines as before."""
    mark = bytes([int(rng.choice(list(b'"""##,;\t |\'x')))])
    place = int(rng.integers(0, len(data)))
    return data[:place] + mark + data[place:]


def harmless(data: bytes, rng: np.random.Generator) -> bytes:
    """Line ends, empty lines and a byte-order mark change nothing that a table says."""
    kind = int(rng.integers(0, 5))
    if kind == 0:
        return data.replace(b"\n", b"\r\n")
    if kind == 1:
        return b"\xef\xbb\xbf" + data
    if kind == 2:
        return data.rstrip(b"\n")
    lines = data.split(b"\n")
    if kind == 3:
        lines.insert(int(rng.integers(len(lines) - N_ROWS, len(lines))), b"")
    else:
        lines.append(b"\n\n")
    return b"\n".join(lines)


def _columns(table: Any) -> dict[str, list[Any]]:
    if isinstance(table, dict):
        return {name: values.tolist() for name, values in table.items()}
    return {name: table[name].tolist() for name in table.colnames}


def _rows_said(table: Any) -> int:
    """Rows, with those that the notes say were passed over."""
    if isinstance(table, dict):
        return len(next(iter(table.values())))
    said = sum(
        int(note.rstrip(".").split()[-1]) for note in table.meta.get("notes", []) if "passed over" in note
    )
    return len(table) + said


def check(name: str, seed: tuple[bytes, Reader, bool], path: Path, rng: np.random.Generator) -> str:
    """Damage one file, read it, and say what is wrong with the outcome; empty where nothing is."""
    data, read, lines = seed
    sort = int(rng.integers(0, 4)) if lines else 0
    change = one_odd_character if sort == 1 else harmless if sort == 2 else damaged
    changed = change(data, rng)
    path.write_bytes(changed)
    signal.setitimer(signal.ITIMER_PROF, HUNG)
    start = time.process_time()
    problem, table = "", None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = read(path)
    except CatalogError as error:
        problem = "a message of several lines" if "\n" in str(error) else ""
        if change is harmless:
            problem = f"refused though nothing is wrong: {error}"
    except Exception as error:
        problem = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    if time.process_time() - start > SLOW:
        return "slower than two seconds"
    if table is None or problem:
        return problem
    if change is harmless:
        path.write_bytes(data)
        return "" if _columns(table) == _columns(read(path)) else "a value changed"
    if change is one_odd_character and _rows_said(table) not in (N_ROWS, N_ROWS + 1):
        return f"{_rows_said(table)} of {N_ROWS} rows, and nothing said"
    return other_value(name, changed, table)


def _stop(*_: Any) -> None:
    raise TimeoutError(f"more than {HUNG:g} s")


def main(argv: list[str] | None = None) -> int:
    """Returns 1 where anything went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=10_000, help="files (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the damages (default: 0)")
    parser.add_argument("--start", type=int, default=0, help="number of the first file (default: 0)")
    parser.add_argument("--only", default=None, help="one form, such as csv")
    settings = parser.parse_args(argv)
    forms = {name: seed for name, seed in (seeds() | survey_seeds()).items() if settings.only in (None, name)}
    names = list(forms)
    found: Counter[str] = Counter()
    signal.signal(signal.SIGPROF, _stop)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(settings.start, settings.start + settings.n):
            name = names[number % len(names)]
            rng = np.random.default_rng([settings.seed, number])
            problem = check(name, forms[name], Path(folder) / "table", rng)
            if problem:
                found[f"{name}: {problem}"] += 1
                if found[f"{name}: {problem}"] == 1:
                    print(f"file {number}, {name}: {problem}")
    print(f"{settings.n} files in {len(names)} forms: {sum(found.values())} faults.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
