"""Answers of archives, written in their documented layouts, served in place of the network."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlparse

import numpy as np
import requests

C = 299792.458
NAME, RA, DEC, Z = "Abell 2142", 239.5833, 27.2333, 0.0909

NED_FIELDS = (
    ("No.", "int", None),
    ("Object Name", "char", "*"),
    ("RA", "double", None),
    ("DEC", "double", None),
    ("Type", "char", "*"),
    ("Velocity", "double", None),
    ("Redshift", "double", None),
    ("Redshift Flag", "char", "*"),
    ("Magnitude and Filter", "char", "*"),
    ("Separation", "double", None),
)


class Clock:
    """Time that only sleeping moves, or a hand."""

    def __init__(self):
        self.now, self.pauses = 100.0, []

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


def members(n=40, seed=0, dispersion=900.0, ra=RA, dec=DEC, redshift=Z, spread=0.1):
    """Galaxies of a cluster: (ra, dec [deg], z)."""
    rng = np.random.default_rng(seed)
    z = redshift + (1 + redshift) * dispersion * rng.normal(size=n) / C
    return np.stack([ra + spread * rng.normal(size=n), dec + spread * rng.normal(size=n), z], axis=-1)


def ned_table(rows):
    """A VOTable of NED; rows (name, ra, dec, type, redshift or None, flag)."""
    fields = "".join(
        f'<FIELD ID="f{i}" name="{name}" datatype="{kind}"{f" arraysize={chr(34)}{size}{chr(34)}" if size else ""}/>'
        for i, (name, kind, size) in enumerate(NED_FIELDS)
    )
    cells = []
    for number, (name, ra, dec, kind, z, flag) in enumerate(rows, 1):
        velocity = "" if z is None else f"{C * z:.1f}"
        values = (number, name, ra, dec, kind, velocity, "" if z is None else f"{z:.6f}", flag, "17.1g", 0.1)
        cells.append("<TR>" + "".join(f"<TD>{value}</TD>" for value in values) + "</TR>")
    return (
        '<?xml version="1.0"?><VOTABLE version="1.1" xmlns="http://www.ivoa.net/xml/VOTable/v1.1"><RESOURCE>'
        f'<PARAM name="p" datatype="int" value="1"/><TABLE name="main">{fields}<DATA><TABLEDATA>{"".join(cells)}'
        "</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
    ).encode()


NED_ERROR = (
    b'<?xml version="1.0"?><VOTABLE version="1.1"><RESOURCE><PARAM name="a" datatype="char" value="1"/>'
    b'<PARAM name="Error" datatype="char" arraysize="*" value="%s"/></RESOURCE></VOTABLE>'
)


def ned_cluster():
    """What NED says about the cluster itself."""
    return ned_table([("ABELL 2142", RA, DEC, "GClstr", Z, "")])


def ned_galaxies(n=40):
    """Galaxies, and all that has to be left out."""
    rows = [(f"G {i}", f"{a:.6f}", f"{d:.6f}", "G", z, "") for i, (a, d, z) in enumerate(members(n))]
    rows += [
        ("PHOT 1", RA, DEC + 0.01, "G", Z, "PHOT"),
        ("EST 1", RA, DEC + 0.02, "G", Z, "EST"),
        ("CLUSTER", RA, DEC, "GClstr", Z, ""),
        ("NOTHING", RA, DEC + 0.03, "IrS", None, ""),
        ("AGAIN", rows[0][1], rows[0][2], "G", rows[0][4], ""),
        ("BEHIND", RA, DEC + 0.04, "G", 0.25, ""),
    ]
    return ned_table(rows)


def sdss_csv(n=40, extra=()):
    """CSV of the SkyServer, as `SELECT ... FROM SpecObj` gives it."""
    lines = ["#Table1", "specObjID,ra,dec,z,zErr,zWarning,class"]
    for i, (a, d, z) in enumerate(members(n)):
        lines.append(f"{1299000000000000000 + i},{a:.6f},{d:.6f},{z:.7f},1.5E-05,0,GALAXY")
    lines += extra
    return ("\n".join(lines) + "\n").encode()


def vizier_table(n=80, velocity=False, name="J/ApJ/000/1/galaxies", ucds=True):
    """A VOTable of VizieR with UCDs, error column and an id."""
    ucd = "spect.dopplerVeloc.opt" if velocity else "src.redshift"
    column = "cz" if velocity else "zsp"
    unit = ' unit="km/s"' if velocity else ""

    def field(name, kind, ucd, more=""):
        return (
            f'<FIELD name="{name}" datatype="{kind}"{f" ucd={chr(34)}{ucd}{chr(34)}" if ucds else ""}{more}/>'
        )

    fields = (
        field("_RAJ2000", "double", "pos.eq.ra", ' unit="deg"')
        + field("_DEJ2000", "double", "pos.eq.dec", ' unit="deg"')
        + field("Name", "char", "meta.id;meta.main", ' arraysize="*"')
        + field(f"e_{column}", "double", f"stat.error;{ucd}", unit)
        + field("zph", "double", "src.redshift.phot")
        + field(column, "double", ucd, unit)
    )
    cells = ""
    for i, (a, d, z) in enumerate(members(n)):
        value, error = (C * z, 30.0) if velocity else (z, 1e-4)
        cells += f"<TR><TD>{a:.6f}</TD><TD>{d:.6f}</TD><TD>G{i}</TD><TD>{error}</TD><TD>0.3</TD>"
        cells += f"<TD>{'' if i == 3 else f'{value:.7f}'}</TD></TR>"
    return _vizier([(name, fields, cells)])


def _vizier(tables):
    body = "".join(
        f'<TABLE ID="t{i}" name="{name}">{fields}<DATA><TABLEDATA>{cells}</TABLEDATA></DATA></TABLE>'
        for i, (name, fields, cells) in enumerate(tables)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
        f'<RESOURCE name="r">{body}</RESOURCE></VOTABLE>'
    ).encode()


class Archives:
    """Stands in for the network: a list of requests, and a function from a request to what is answered."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        self.timeouts = []

    def send(self, adapter, request, *arguments, timeout=None, **options):
        self.requests.append(request)
        self.timeouts.append(timeout)
        found = self.answer(request, len(self.requests))
        if isinstance(found, Exception):
            raise found
        status, content, headers = found if isinstance(found, tuple) else (200, found, {})
        response = requests.Response()
        response.status_code, response._content = status, content
        response.headers.update(headers)
        response.request, response.url, response.encoding = request, request.url, "utf-8"
        return response

    def words(self, index=-1):
        """The question of a request: its query and its body, readable."""
        request = self.requests[index]
        body = request.body if isinstance(request.body, str) else (request.body or b"").decode()
        return unquote(f"{urlparse(request.url).query} {body}").replace("+", " ")

    def parameters(self, index=-1):
        """Query parameters of a request."""
        return {k: v[0] for k, v in parse_qs(urlparse(self.requests[index].url).query).items()}


def usual(request, number):
    """Every archive in good health."""
    words = unquote(request.url)
    if "objname" in words:
        return ned_cluster()
    if "ned" in words:
        return ned_galaxies()
    return sdss_csv() if "SELECT" in words.replace("+", " ") else vizier_table()
