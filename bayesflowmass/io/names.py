"""Other names that the columns of galaxies and of clusters have in the tables of the field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping


def normal_name(name: str) -> str:
    """A column name as it is compared: lower case, without blanks, points, units and index in brackets."""
    plain = re.sub(r"[\[(][^\])]*[\])]", "", name.strip().lstrip("\ufeff").strip("\"'"))
    return re.sub(r"[\s._-]+", "_", plain.strip().lower()).strip("_")


def _table(text: str) -> dict[str, tuple[str, ...]]:
    """Lines ``ours: theirs theirs ...`` as a dictionary; a line that begins with a blank goes on."""
    rows = (line.partition(":") for line in re.sub(r"\n +", " ", text).split("\n"))
    return {ours: tuple(theirs.split()) for ours, _, theirs in rows if ours}


_EVERYWHERE = """
cluster_id: cluster_id clusterid id_cluster clid cl_id cluster cname cluster_name clname
ra: ra raj2000 ra_j2000 radeg ra_deg ra_d ra_icrs raicrs target_ra ra2000 ra_2000 right_ascension alpha_j2000 alphaj2000
 mean_fiber_ra r_a
dec: dec dej2000 dec_j2000 decj2000 dedeg decdeg de_deg dec_deg dec_d de_icrs deicrs dec_icrs target_dec dec2000
 dec_2000 declination delta_j2000 deltaj2000 mean_fiber_dec
"""

SURE = {
    "galaxies": _table(
        _EVERYWHERE
        + """
z: z zspec z_spec specz spec_z zsp z_sp z_helio zhelio z_hel zhel z_app z_obs zobs zcmb z_cmb
cz: cz cz_helio czhelio czhel cz_hel hrv vhelio v_helio vhel v_hel hv
v_los: v_los vlos
r_proj: r_proj rproj
z_err: z_err zerr z_error err_z e_z e_zspec e_z_spec zspec_err z_spec_err speczerr e_zsp e_z_app e_zhel e_z_helio
 e_redshift e_zcmb e_z_cmb
v_err: v_err verr v_error err_v e_v e_v_los e_vlos v_los_err e_cz cz_err e_hrv e_vhel e_czhel e_hv
"""
    ),
    "clusters": _table(
        _EVERYWHERE
        + """
redshift: redshift z zcl z_cl zc z_c z_cluster zcluster cluster_redshift best_z zspec z_spec z_clus zclus
 z_helio zhelio z_hel zhel z_app z_obs zobs zcmb z_cmb
redshift_err: redshift_err e_z z_err zerr e_redshift e_zcl e_zspec e_z_spec zspec_err z_spec_err e_zhel e_z_helio
 e_z_app e_zcmb e_z_cmb
"""
    ),
}
"""Names that mean one thing to everyone, by table; they are taken for ours, and that is said."""

OF_MICROWAVE_BACKGROUND = ("zcmb", "z_cmb")
"""Names of redshifts in that frame; all others are taken to be heliocentric."""

LIKELY = {
    "galaxies": _table("""
cluster_id: group_id groupid grp mem_match_id clus id_clus parent host
ra: alpha ra1
dec: de decl delta dec1
z: z_best zbest redshift red_shift
cz: velocity vel v rv rvel radial_velocity vrad
v_err: e_velocity e_vel e_rv e_rvel velocity_err vel_err sigv
v_los: v_los_kms vz v_z v_rest vpec v_pec delta_v dv
r_proj: r r_proj_mpch rp r_p radius rcen dist
"""),
    "clusters": _table("""
cluster_id: name id group_id groupid mem_match_id clus object main_id seq recno
ra: alpha
dec: de decl delta
redshift: z_lambda zmean z_mean zphot z_phot photoz
"""),
}
"""Names that probably mean it; they are proposed, not taken."""


def find_names(there: Iterable[str], known: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """``{our name: theirs}`` for our names that are not there, where a column has one of the other names."""
    columns = list(there)
    by_normal = {normal_name(column): column for column in reversed(columns)}
    found: dict[str, str] = {}
    for ours, others in known.items():
        theirs = next((by_normal[name] for name in others if name in by_normal), ours)
        if ours not in columns and theirs not in {ours, *found.values(), *known}:
            found[ours] = theirs
    return found


def known_name(name: str) -> str | None:
    """Our name of a column, whatever the table calls it; None for one that is not known."""
    plain = normal_name(name)
    if plain in ("x", "y", "halo_id", "galaxy_id", "log10_mass"):
        return plain
    return next((ours for names in SURE.values() for ours, others in names.items() if plain in others), None)
