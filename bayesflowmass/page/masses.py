"""Masses of observed clusters, and which of them to distrust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bayesflowmass.common.numbers import number, with_error
from bayesflowmass.page.document import Block, Section, Table, Verdict
from bayesflowmass.page.folder import MassTable

Row = Mapping[str, Any]
# Rows shown; flagged ones first where there are more.
_MOST_ROWS = 200


def masses_verdict(table: MassTable, flags: Mapping[str, str]) -> Verdict:
    """How many masses there are, and which flags speak against them.

    Args:
        table: the masses.
        flags: name -> what it means.
    """
    n, without, counts = len(table), table.n_without, table.flag_counts
    flagged = n - counts[""]
    prior = {"hmf": "mass-function", "flat": "flat"}.get(str(table.header.get("prior")), "unknown")
    points = [
        f"{name}: {counts[name]} of {n} ({meaning})." for name, meaning in flags.items() if counts[name]
    ]
    if table.header.get("prior") == "flat":
        points.append(
            "The prior is flat in log mass. Clusters found in the sky follow the mass function: for their masses,"
            " counts and stacks, use `--prior hmf`."
        )
    if without or flagged == n:
        some = f"{without} of {n} clusters have no mass" if without else f"all {n} clusters are flagged"
        return Verdict("bad", f"Look at the flags first: {some}.", tuple(points))
    if flagged:
        return Verdict(
            "open",
            f"{n - flagged} of {n} masses stand ({prior} prior); {flagged} are flagged, see why below.",
            tuple(points),
        )
    return Verdict("good", f"{n} masses, none of them flagged ({prior} prior).", tuple(points))


def card_alt(row: Row, header: Mapping[str, Any]) -> str:
    """What the card of a cluster says, for readers who cannot see it."""
    mass = f"log10 M{header.get('mdef', '200c')} [{header.get('units', 'Msun/h')}]"
    flags = f"flags: {str(row['flags']).replace(',', ', ')}" if row["flags"] else "no flags"
    if row["log10_mass"] is None:
        return f"Card of cluster {row['cluster_id']}: no mass; {flags}."
    return (
        f"Card of cluster {row['cluster_id']}: {row.get('n_galaxies', 'unknown number of')} galaxies, {mass}"
        f" {number(row['log10_mass'], 2)}, 68 % from {number(row['q16'], 2)} to {number(row['q84'], 2)}; {flags}."
        " Sky map, phase space with its kernel density, velocity histogram, PDF."
    )


def masses_section(masses: MassTable, cards: Sequence[Block] = ()) -> Section:
    """The table of masses and the cards of single clusters.

    Args:
        masses: what `infer` wrote.
        cards: pictures of single clusters.
    """
    header, name = masses.header, masses.name
    mass = f"log10 M{header.get('mdef', '200c')} [{header.get('units', 'Msun/h')}]"
    shown = [masses.row(number) for number in masses.flagged_first(_MOST_ROWS)]
    note = f"Median, standard deviation and central 68 % of {mass}."
    if len(masses) > _MOST_ROWS:
        note += f" {_MOST_ROWS} of {len(masses)} clusters, flagged ones first; the others are in {name}."
    epistemic = any(row.get("sigma_epistemic") is not None for row in shown)
    members = any(row.get("n_members") is not None for row in shown)
    columns = [
        "cluster",
        "galaxies",
        *["expected members"] * members,
        "redshift",
        "log10 mass",
        "sigma [dex]",
    ]
    columns += [*["of which weights"] * epistemic, "16 %", "84 %", "flags"]
    table = Table(
        f"{name}: {mass}, {header.get('prior', 'unknown')} prior",
        tuple(columns),
        tuple(_row(row, members, epistemic) for row in shown),
        note,
    )
    return Section("Masses", (table, *cards))


def _row(row: Row, members: bool, epistemic: bool) -> tuple[str, ...]:
    redshift = row.get("redshift")
    return (
        str(row["cluster_id"]),
        str(row.get("n_galaxies", "")),
        *((with_error(row["n_members"], row["n_members_err"], 0),) if members else ()),
        number(redshift, 4),
        number(row["log10_mass"], 2),
        number(row["sigma"], 2),
        *((number(row["sigma_epistemic"], 3),) if epistemic else ()),
        number(row["q16"], 2),
        number(row["q84"], 2),
        str(row["flags"]).replace(",", ", "),
    )
