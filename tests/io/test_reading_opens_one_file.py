"""Reading a table opens that file and nothing else: no network, no other path, and no memory beyond its worth."""

from __future__ import annotations

import base64
import gzip
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

import bayesflowmass
from bayesflowmass.catalog import CatalogError
from bayesflowmass.inspect import inspect_file
from bayesflowmass.io import load_catalog
from bayesflowmass.io.any_table import read_any_table
from bayesflowmass.io.opening import UNPACKED_LIMIT

_WATCH: dict[str, list[str]] = {}


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _WATCH and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _WATCH["opened"].append(os.fsdecode(arguments[0]))
    elif _WATCH and event.startswith(
        ("socket.connect", "socket.getaddrinfo", "urllib.Request", "subprocess", "os.exec")
    ):
        _WATCH["network"].append(event)


sys.addaudithook(_hook)


@pytest.fixture
def watched():
    """What is opened, and which connections are tried, while a test runs."""
    _WATCH.update(opened=[], network=[])
    yield _WATCH
    _WATCH.clear()


def frame():
    rng = np.random.default_rng(0)
    return Table(
        {
            "cluster_id": np.ones(20, int),
            "x": rng.normal(size=20),
            "y": rng.normal(size=20),
            "v_los": rng.normal(0, 500, 20),
        }
    )


def write(path, kind):
    table = frame()
    if kind == "parquet":
        pq.write_table(pa.table({name: np.asarray(table[name]) for name in table.colnames}), path)
    else:
        table.write(path, format=kind, overwrite=True)
    return path


@pytest.mark.parametrize(
    "kind", ["ascii.csv", "ascii.ecsv", "ascii", "fits", "votable", "parquet", "ascii.mrt", "ascii.ipac"]
)
def test_each_format_opens_its_file_and_nothing_else(tmp_path, kind, watched):
    path = write(tmp_path / "table", kind)
    load_catalog(path, redshift=0.1)
    watched["opened"].clear()
    catalog = load_catalog(path, redshift=0.1, r_max=None, v_max=None)
    code = (*filter(None, sys.path), str(Path(bayesflowmass.__file__).parent), "/proc/")
    assert {name for name in watched["opened"] if not name.startswith(code)} <= {str(path)}
    assert watched["network"] == []
    assert catalog.n_galaxies_total == 20


def stream(href, inner=""):
    fields = "".join(f'<FIELD name="{n}" datatype="double"/>' for n in ("cluster_id", "x", "y", "v_los"))
    return (
        '<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>'
        f"{fields}<DATA><BINARY><STREAM {href}>{inner}</STREAM></BINARY></DATA></TABLE></RESOURCE></VOTABLE>"
    )


@pytest.mark.parametrize(
    "href",
    ['href="{}" encoding="base64"', "encoding='base64'\n HREF='{}'", 'a=">" href="{}"', 'xlink:href="{}"'],
)
def test_a_votable_that_points_elsewhere_is_refused(tmp_path, href, watched):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    watched["opened"].clear()
    for target in (f"file://{secret}", str(secret), "http://127.0.0.1:9/leak"):
        path = tmp_path / "t.vot"
        path.write_text(stream(href.format(target)), encoding="utf-8")
        with pytest.raises(CatalogError, match=r"STREAM href|not a whole XML"):
            read_any_table(path)
        assert not inspect_file(path).usable
    assert str(secret) not in watched["opened"]
    assert watched["network"] == []


def test_a_votable_with_its_rows_inside_is_read(tmp_path):
    rows = np.array([(1.0, 0.5, -0.5, 100.0)], dtype=">f8,>f8,>f8,>f8")
    path = tmp_path / "t.vot"
    path.write_text(stream('encoding="base64"', base64.b64encode(rows.tobytes()).decode()), encoding="utf-8")
    assert read_any_table(path)["v_los"].tolist() == [100.0]


@pytest.mark.parametrize(
    "document",
    [
        '<!DOCTYPE v [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE v [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE v SYSTEM "http://127.0.0.1:9/v.dtd" [<!ENTITY % p SYSTEM "http://127.0.0.1:9/p">%p;]>',
    ],
)
def test_entities_of_xml_are_refused(tmp_path, document, watched):
    path = tmp_path / "t.xml"
    write(path, "votable")
    path.write_text(path.read_text(encoding="utf-8").replace("?>", f"?>\n{document}", 1), encoding="utf-8")
    with pytest.raises(CatalogError, match="declares entities"):
        read_any_table(path)
    assert watched["network"] == []


def test_xml_in_another_encoding_cannot_hide_a_pointer(tmp_path):
    path = tmp_path / "t.vot"
    path.write_bytes(stream('href="http://127.0.0.1:9/"').encode("utf-16"))
    with pytest.raises(CatalogError):
        read_any_table(path)
    path.write_text(stream("").replace('"1.0"', '"1.0" encoding="utf-7"', 1), encoding="utf-8")
    with pytest.raises(CatalogError, match="not UTF-8"):
        read_any_table(path)


def test_aliases_in_ecsv_are_not_expanded(tmp_path):
    bomb = "".join(
        f"# {chr(98 + k)}: &{chr(98 + k)} [{','.join([f'*{chr(97 + k)}'] * 9)}]\n" for k in range(9)
    )
    path = tmp_path / "t.ecsv"
    head = "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: x, datatype: float64}\n"
    path.write_text(
        f"{head}# a: &a [x,x,x,x,x,x,x,x,x]\n{bomb}# schema: astropy-2.0\nx\n1.5\n", encoding="utf-8"
    )
    assert read_any_table(path)["x"].tolist() == [1.5]
    path.write_text(
        head.replace("float64", "!!python/object/apply:os.getcwd []") + "x\n1.5\n", encoding="utf-8"
    )
    with pytest.raises(CatalogError, match="the header of this ECSV file is damaged"):
        read_any_table(path)


def test_a_packed_file_that_fills_the_memory_is_refused(tmp_path):
    path = tmp_path / "t.csv.gz"
    with gzip.open(path, "wb", compresslevel=9) as packed:
        packed.write(b"cluster_id,x,y,v_los\n")
        for _ in range(UNPACKED_LIMIT // 2**20 + 2):
            packed.write(b"1,0.1,0.2,3.0\n" * (2**20 // 14 + 1))
    with pytest.raises(CatalogError, match="unpacks to more than 128 MiB"):
        read_any_table(path)
    path.write_bytes(gzip.compress(gzip.compress(b"a,b\n1,2\n")))
    with pytest.raises(CatalogError, match="packed twice"):
        load_catalog(path)


def test_a_few_bytes_that_announce_many_rows_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    rows = pa.array(np.zeros(UNPACKED_LIMIT // 8 + 1, dtype=np.int8))
    pq.write_table(pa.table({"x": pa.DictionaryArray.from_arrays(rows, pa.array([0.1]))}), path)
    with pytest.raises(CatalogError, match=r"bytes announce 16777217 rows of 1 columns"):
        read_any_table(path)
    cards = {"XTENSION": "'TABLE   '", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 0, "NAXIS2": 10**12}
    cards |= {"PCOUNT": 0, "GCOUNT": 1, "TFIELDS": 0}
    header = "".join(f"{key:8}= {value:>20}".ljust(80) for key, value in cards.items()) + "END"
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "t.fits")
    with (tmp_path / "t.fits").open("ab") as stream:
        stream.write(header.ljust(2880).encode("ascii"))
    with pytest.raises(CatalogError, match="1000000000000 rows of 0 bytes"):
        read_any_table(tmp_path / "t.fits")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_read_once(tmp_path):
    galaxies = write(tmp_path / "g.csv", "ascii.csv").read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(galaxies))
    writer.start()
    catalog = load_catalog(pipe, redshift=0.1, r_max=None, v_max=None)
    writer.join()
    assert catalog.n_galaxies_total == 20
    # Nobody writes any more: what was read once is read again.
    assert load_catalog(pipe, redshift=0.1, r_max=None, v_max=None).equals(catalog)


def test_what_is_no_file_is_named(tmp_path):
    for name, message in {
        "-": "for standard input it is /dev/stdin",
        "https://example.org/g.csv": "an address",
        f"{tmp_path}/*.csv": "a pattern is not expanded",
        f"{tmp_path}/none.csv": "no such file",
        f"{tmp_path}/{'x' * 400}": "cannot be opened: File name too long",
        "a\0b": "no name of a file",
    }.items():
        with pytest.raises(CatalogError, match=message.replace("*", r"\*")):
            load_catalog(name)


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    write(tmp_path / "g.csv", "ascii.csv")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(read_any_table("~/g.csv")) == 20
    assert isinstance(Path("~/g.csv"), Path)
