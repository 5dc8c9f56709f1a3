"""Synthetic N-body boxes as files, and mocks cut from them by brute force: an independent reference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.integrate import cumulative_simpson
from scipy.interpolate import CubicSpline

C = 299792.458
OM0 = 0.307115
HOST_ID = 2**60 + 1
GALAXY_ID = 2**61 + 1
"""Floats can hold neither."""

COSMOSIM = "rockstarId,upId,pId,Mvir,Rvir,Rs,Macc,Vacc,M500c,M200c,x,y,z,vx,vy,vz"
UNIVERSEMACHINE = "x y z vx vy vz upid id mvir mpeak obs_sm obs_sfr"


@dataclass
class ToyBox:
    """Hosts and galaxies of a periodic box; the first galaxies are the centrals of the hosts."""

    size: float
    host_id: np.ndarray
    host_position: np.ndarray
    host_velocity: np.ndarray
    log10_mass: np.ndarray
    r_vir: np.ndarray
    galaxy_id: np.ndarray
    upid: np.ndarray
    position: np.ndarray
    velocity: np.ndarray

    def shifted(self, vector):
        """The same box, its origin moved."""
        moved = {name: (getattr(self, name) + vector) % self.size for name in ("host_position", "position")}
        return ToyBox(**{**self.__dict__, **moved})

    def write(self, folder):
        """Files as CosmoSim and UniverseMachine give them; returns the paths of hosts and galaxies."""
        hosts, galaxies = folder / "hosts.csv", folder / "galaxies.npy"
        mass = 10.0**self.log10_mass
        rows = np.stack(
            [1.2 * mass, 1000.0 * self.r_vir, 200.0 * self.r_vir, mass, 0 * mass + 500.0, 0.7 * mass, mass]
        ).T
        with hosts.open("w", encoding="utf-8") as stream:
            stream.write(COSMOSIM + "\n")
            for index, name in enumerate(self.host_id):
                numbers = [*rows[index], *self.host_position[index], *self.host_velocity[index]]
                stream.write(f"{name},-1,-1," + ",".join(repr(float(v)) for v in numbers) + "\n")
        table = np.zeros(
            self.galaxy_id.size,
            dtype=[(n, "i8" if n in ("id", "upid") else "f8") for n in UNIVERSEMACHINE.split()],
        )
        for axis, name in enumerate("xyz"):
            table[name], table["v" + name] = self.position[:, axis], self.velocity[:, axis]
        table["id"], table["upid"] = self.galaxy_id, self.upid
        table["mvir"] = table["mpeak"] = 1e12
        table["obs_sm"] = 1e10
        np.save(galaxies, table)
        return hosts, galaxies


def toy_box(seed=0, *, size=160.0, n_hosts=12, n_field=2000, n_satellites=25, speed=300.0):
    """Hosts with Gaussian clouds of satellites, and satellites of haloes that are no hosts everywhere."""
    rng = np.random.default_rng(seed)
    mass = rng.uniform(13.5, 15.0, n_hosts)
    centre = rng.uniform(0.0, size, (n_hosts, 3))
    bulk = rng.normal(0.0, speed, (n_hosts, 3))
    r_vir = 10.0 ** ((mass - 14.0) / 3.0)
    owner = np.repeat(np.arange(n_hosts), rng.poisson(n_satellites, n_hosts))
    inner = centre[owner] + 0.6 * r_vir[owner, None] * rng.normal(size=(owner.size, 3))
    fast = bulk[owner] + 2.0 * speed * rng.normal(size=(owner.size, 3))
    n_all = n_hosts + owner.size + n_field
    ids = np.arange(n_hosts, dtype=np.int64) + HOST_ID
    order = rng.permutation(n_all)
    columns = {
        "galaxy_id": np.concatenate([ids, GALAXY_ID + np.arange(owner.size + n_field)]),
        "upid": np.concatenate([np.full(n_hosts, -1), ids[owner], rng.choice([-1, 17], n_field)]),
        "position": np.concatenate([centre, inner, rng.uniform(0.0, size, (n_field, 3))]) % size,
        "velocity": np.concatenate([bulk, fast, speed * rng.normal(size=(n_field, 3))]).astype("f4"),
    }
    return ToyBox(
        size, ids, centre, bulk, mass, r_vir, **{name: column[order] for name, column in columns.items()}
    )


@lru_cache
def _redshift_table(redshift):
    z = np.linspace(max(-0.5, redshift - 0.3), redshift + 0.3, 20001)
    distance = cumulative_simpson(C / 100.0 / np.sqrt(OM0 * (1 + z) ** 3 + 1 - OM0), x=z, initial=0.0)
    start = CubicSpline(z, distance)(redshift)
    return CubicSpline(distance - start, z)


def redshift_of_depth(redshift, depth):
    """Redshift of comoving distances [Mpc/h] behind a host, by integrating c/H."""
    return _redshift_table(redshift)(depth)


def add_velocities(a, b):
    """Relativistic sum [km/s]."""
    return (a + b) / (1.0 + a * b / C**2)


def expected_velocity(redshift, depth, galaxy, host):
    """v_los as it is defined: Hubble velocities, composed with the peculiar ones, and their difference."""

    def hubble(z):
        return C * ((1 + z) ** 2 - 1) / ((1 + z) ** 2 + 1)

    seen = add_velocities(hubble(redshift_of_depth(redshift, depth)), galaxy)
    return add_velocities(seen, -add_velocities(hubble(redshift), host))


def brute_force(box, row, direction, *, redshift, r_max, v_max, centrals=False):
    """Galaxies in one cylinder among all 27 images of all galaxies: indices, R, v_los, and 3-D distance."""
    images = box.size * np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    found = []
    for image in images:
        offset = box.position + image - box.host_position[row]
        depth = offset @ direction
        radius = np.linalg.norm(offset - depth[:, None] * direction, axis=1)
        near = np.flatnonzero((radius < r_max) & (np.abs(depth) < 0.5 * box.size))
        if not centrals:
            near = near[box.upid[near] != -1]
        velocity = expected_velocity(
            redshift, depth[near], box.velocity[near] @ direction, box.host_velocity[row] @ direction
        )
        kept = np.abs(velocity) < v_max
        distance = np.linalg.norm(offset[near], axis=1)
        found.append((near[kept], radius[near][kept], velocity[kept], distance[kept]))
    return tuple(np.concatenate(column) for column in zip(*found, strict=True))
