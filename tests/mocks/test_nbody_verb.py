"""`bayesflowmass simulate --hosts --galaxies`: populations, folds, interruption, and what it says of mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from nbody_box import GALAXY_ID, HOST_ID, toy_box

from bayesflowmass.catalog import CatalogError, ClusterCatalog
from bayesflowmass.catalog.work import WorkFolder
from bayesflowmass.infer import main as infer
from bayesflowmass.mocks import simulate_nbody
from bayesflowmass.mocks.masses import sample_mass_function
from bayesflowmass.mocks.nbody import simulate as nbody
from bayesflowmass.mocks.nbody.flattening import flat_lines, flattening_weights, mass_bins
from bayesflowmass.mocks.nbody.hash import fold_of, hashed_uniform
from bayesflowmass.simulate import main
from bayesflowmass.train import main as train

CUT = {
    "masses": "hmf",
    "redshift": 0.117,
    "v_max": 1500.0,
    "min_galaxies": 3,
    "box_size": 160.0,
    "workers": 1,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return toy_box(1).write(tmp_path_factory.mktemp("box"))


def cut(files, folder, **changes):
    simulate_nbody(*files, folder / "cat.parquet", **{**CUT, **changes})
    return ClusterCatalog.read(folder / "cat.parquet")


def by_id(catalog):
    return catalog[np.argsort(catalog.column("cluster_id"))]


def test_flat_lines_are_as_many_per_dex_as_wanted_in_every_bin():
    mass = sample_mass_function(100_000, 13.5, 15.6, 0.117, np.random.default_rng(0))
    volume, target = 1e9, -5.2
    lines = flat_lines(mass, volume, target, 500, seed=3)
    per_dex = 10.0**target * volume
    edges, counts = mass_bins(mass)
    assert counts.min() >= 8
    wanted = flattening_weights(mass, per_dex, 10**9)
    bins = np.minimum(np.digitize(mass, edges), counts.size) - 1
    # Systematic sampling leaves at most one line at each end of an interval.
    for index in range(counts.size):
        inside = bins == index
        if wanted[inside].max() <= 500:
            share = per_dex * (edges[index + 1] - edges[index])
            assert lines[inside].sum() == pytest.approx(share, abs=2.0)
    # Within a bin, too: the halves of the well-filled ones, where the mass function falls by a sixth.
    for index in range(8):
        middle = 0.5 * (edges[index] + edges[index + 1])
        lower = lines[(bins == index) & (mass < middle)].sum()
        share = per_dex * (middle - edges[index])
        # Four standard deviations of the numbers of hosts, and the two ends.
        assert abs(lower - share) < 4.0 * share / np.sqrt(counts[index]) + 2.0
    rare, common = lines[mass > 14.9], lines[mass < 13.8]
    assert rare.min() > 3
    assert rare.max() <= 500
    assert set(np.unique(common)) == {0, 1}


def test_a_limit_of_lines_is_kept_and_bins_are_never_empty():
    mass = np.concatenate([np.linspace(13.5, 14.0, 100), [15.0]])
    assert flat_lines(mass, 1e9, -5.2, 40, seed=0).max() == 40
    edges, counts = mass_bins(mass)
    assert counts.min() >= 8
    assert counts.sum() == mass.size
    assert (edges[0], edges[-1]) == (13.5, 15.0)
    # With few hosts there is one bin, in which all weigh the same.
    few = flattening_weights(np.array([14.0, 14.1, 14.5]), 60.0, 500)
    np.testing.assert_allclose(few, 10.0)
    with pytest.raises(ValueError, match="needs a range of masses"):
        mass_bins(np.full(3, 14.0))


def test_folds_are_of_the_halo_alone_and_equally_full():
    ids = HOST_ID + np.arange(20_000)
    folds = fold_of(ids, 10)
    # Six standard deviations of a binomial count.
    assert np.abs(np.bincount(folds, minlength=10) - 2000).max() < 6 * np.sqrt(1800)
    np.testing.assert_array_equal(fold_of(ids[::7], 10), folds[::7])
    # Neighbouring ids have nothing to do with each other.
    assert abs(np.corrcoef(folds[1:], folds[:-1])[0, 1]) < 6 / np.sqrt(20_000)
    uniform = hashed_uniform(ids, "phase", 1)
    assert abs(np.corrcoef(uniform, hashed_uniform(ids, "phase", 2))[0, 1]) < 6 / np.sqrt(20_000)
    assert 0.0 <= uniform.min() < 0.001 < 0.999 < uniform.max() < 1.0


def test_a_halo_is_never_in_two_folds_whatever_the_seed_and_the_masses(files, tmp_path):
    flat = cut(files, tmp_path, masses="flat", target_density=-4.6, seed=1)
    hmf = cut(files, tmp_path, seed=2)
    fold = dict(zip(hmf.column("halo_id").tolist(), hmf.column("fold").tolist(), strict=True))
    assert [fold[halo] for halo in flat.column("halo_id").tolist()] == flat.column("fold").tolist()
    several = {"n_folds": 3, "masses": "flat", "target_density": -4.6}
    whole = cut(files, tmp_path, **several)
    parts = [cut(files, tmp_path, **several, folds=chosen) for chosen in ((0,), (2, 1))]
    assert not set(parts[0].column("halo_id")) & set(parts[1].column("halo_id"))
    ids = np.concatenate([part.column("cluster_id") for part in parts])
    np.testing.assert_array_equal(np.sort(ids), np.sort(whole.column("cluster_id")))
    assert set(parts[1].column("fold")) == {1, 2}


def test_the_catalogue_says_how_it_was_made(files, tmp_path):
    catalog = cut(files, tmp_path, mode="survey", membership="radius", seed=5, galaxy_min=11.5)
    metadata = catalog.metadata
    assert (metadata.kind, metadata.mode, metadata.seed) == ("contaminated", "survey", 5)
    assert metadata.selection == {
        "r_max": 1.6,
        "v_max": 1500.0,
        "min_galaxies": 3,
        "galaxy_column": "log10_mpeak",
        "galaxy_min": 11.5,
        "membership": "radius",
    }
    assert metadata.masses["distribution"] == "hmf"
    told = metadata.extra["nbody"]
    assert (told["hosts"], told["galaxies"], told["centrals"]) == ("hosts.csv", "galaxies.npy", "kept")
    assert (told["redshift"], told["box_size"], told["n_hosts"], told["n_lines"]) == (0.117, 160.0, 12, 36)
    assert metadata.units["x"] == "Mpc/h comoving"
    assert metadata.cosmology.name == "mdpl2"
    assert catalog.column("halo_id").dtype == catalog.galaxies("gal_galaxy_id").dtype == np.int64
    assert catalog.column("halo_id").min() >= HOST_ID
    assert GALAXY_ID in catalog.galaxies("gal_galaxy_id") or catalog.galaxies("gal_galaxy_id").max() > 2**61
    for name in ("concentration", "log10_m500c", "v_acc", "richness_true", "sigma_v_true"):
        assert np.isfinite(catalog.column(name)).all()
    member = np.bincount(catalog.galaxy_rows, catalog.galaxies("gal_is_member"), len(catalog))
    np.testing.assert_array_equal(member, catalog.column("n_members"))
    np.testing.assert_allclose(catalog.column("interloper_fraction"), 1 - member / catalog.n_galaxies)


def test_members_by_radius_leave_out_those_of_the_id_that_are_outside(files, tmp_path):
    by_upid, by_radius = (cut(files, tmp_path, membership=how) for how in ("id", "radius"))
    np.testing.assert_array_equal(by_upid.galaxies("gal_galaxy_id"), by_radius.galaxies("gal_galaxy_id"))
    lost = by_upid.galaxies("gal_is_member") & ~by_radius.galaxies("gal_is_member")
    assert 0.05 < lost.mean() < 0.9
    pure = cut(files, tmp_path, membership="radius", kind="pure", cylinder=False)
    np.testing.assert_array_equal(pure.n_galaxies, pure.column("richness_true"))
    assert "r_max" not in pure.metadata.selection


def test_centrals_are_left_out_or_kept_or_kept_around_half_of_the_hosts(files, tmp_path):
    paper, survey = (cut(files, tmp_path, mode=mode) for mode in ("paper", "survey"))
    assert not paper.galaxies("gal_is_central").any()
    own = survey.galaxies("gal_galaxy_id") == survey.column("halo_id")[survey.galaxy_rows]
    np.testing.assert_array_equal(np.bincount(survey.galaxy_rows, own, len(survey)), 1)
    assert survey.galaxies("gal_is_member")[own].all()
    assert survey.galaxies("gal_is_central").sum() > own.sum()
    mixed = by_id(cut(files, tmp_path, mode="mixed"))
    assert set(mixed.column("mode")) == {"paper", "survey"}
    seen = np.bincount(mixed.galaxy_rows, mixed.galaxies("gal_is_central"), len(mixed))
    np.testing.assert_array_equal(seen > 0, mixed.column("mode") == "survey")


def test_neither_workers_nor_blocks_change_the_clusters(files, tmp_path, monkeypatch):
    flat = {"masses": "flat", "target_density": -4.6}
    one = cut(files, tmp_path, **flat)
    monkeypatch.setattr(nbody, "_GALAXIES_PER_BLOCK", 60)
    several = cut(files, tmp_path, **flat, workers=2)
    again = cut(files, tmp_path, **flat, workers=1)
    assert several.equals(again)
    assert by_id(one).equals(by_id(several))


def test_a_dask_cluster_makes_the_same_clusters(files, tmp_path, monkeypatch, capsys):
    """Its workers find all that they need in the folder of the run, also when the run before left another plan."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(nbody, "_GALAXIES_PER_BLOCK", 300)
    box = ["--hosts", str(files[0]), "--galaxies", str(files[1]), "--masses", "hmf", "--no-progress"]
    box += ["--redshift", "0.117", "--v-max", "1500", "--min-galaxies", "3", "--box-size", "160"]
    # A free port: another test may have the default one.
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        for n_projections in (3, 1):
            out = tmp_path / f"dask_{n_projections}.parquet"
            told = ["--n-projections", str(n_projections), "--scheduler", cluster.scheduler_address]
            assert main([*box, *told, "--out", str(out)]) == 0, capsys.readouterr().err
            expected = cut(files, tmp_path, n_projections=n_projections)
            assert ClusterCatalog.read(out).equals(expected)
            (tmp_path / "cat.parquet").unlink()


def interrupted_after(n, error):
    """Blocks that are kept until one more is wanted."""
    kept = []
    keep = WorkFolder.keep

    def keeping(self, block, catalog):
        if len(kept) == n:
            raise error
        keep(self, block, catalog)
        kept.append(block)

    return keeping


@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (CatalogError("the disk is full"), CatalogError)],
)
def test_after_an_interruption_the_same_call_goes_on(files, tmp_path, monkeypatch, error, raised):
    monkeypatch.setattr(nbody, "_GALAXIES_PER_BLOCK", 300)
    whole = cut(files, tmp_path)
    (tmp_path / "cat.parquet").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "keep", interrupted_after(2, error))
        with pytest.raises(
            raised, match=r"2 of \d blocks .* goes on" if raised is KeyboardInterrupt else "full"
        ):
            cut(files, tmp_path)
    work = tmp_path / "cat.parquet.work"
    assert not (tmp_path / "cat.parquet").exists()
    assert len(list(work.glob("block_*.parquet"))) == 2
    (work / ".block_000002.parquet.x.tmp").write_bytes(b"half")
    with pytest.raises(CatalogError, match=r"unfinished run in which seed is 0, and here it is 1; repeat"):
        cut(files, tmp_path, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(nbody, "sort_galaxies", None)
        resumed = cut(files, tmp_path)
    assert resumed.equals(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["cat.parquet"]


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(files, tmp_path, monkeypatch):
    slow = f"""
import time
from bayesflowmass.mocks.nbody import simulate as nbody
from bayesflowmass.catalog.work import WorkFolder
nbody._GALAXIES_PER_BLOCK = 100
keep = WorkFolder.keep
def slowly(self, block, catalog):
    keep(self, block, catalog)
    time.sleep(0.5)
WorkFolder.keep = slowly
nbody.simulate_nbody({str(files[0])!r}, {str(files[1])!r}, {str(tmp_path / "cat.parquet")!r}, **{CUT!r})
"""
    work = tmp_path / "cat.parquet.work"
    with subprocess.Popen([sys.executable, "-c", slow]) as process:
        while process.poll() is None and not list(work.glob("block_*.parquet")):
            time.sleep(0.02)
        process.kill()
    done = len(list(work.glob("block_*.parquet")))
    assert done >= 1
    assert not (tmp_path / "cat.parquet").exists()
    monkeypatch.setattr(nbody, "_GALAXIES_PER_BLOCK", 100)
    with monkeypatch.context() as patch:
        patch.setattr(nbody, "sort_galaxies", None)
        resumed = cut(files, tmp_path)
    assert not work.exists()
    assert resumed.equals(cut(files, tmp_path))


def test_a_killed_preparation_begins_anew(files, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bayesflowmass.mocks.nbody.galaxies._join", killed)
        with pytest.raises(KeyboardInterrupt):
            cut(files, tmp_path)
    assert (tmp_path / "cat.parquet.work").is_dir()
    assert len(cut(files, tmp_path)) == 36


def test_subhaloes_of_the_same_file_can_be_the_galaxies(tmp_path):
    box = toy_box(2, n_field=300)
    hosts, _ = box.write(tmp_path)
    lines = hosts.read_text(encoding="utf-8").splitlines()
    satellite = box.upid != -1
    for index in np.flatnonzero(satellite):
        numbers = [2e11, 50.0, 10.0, 2e11, 100.0, 1e11, 2e11, *box.position[index], *box.velocity[index]]
        lines.append(
            f"{box.galaxy_id[index]},{box.upid[index]},-1," + ",".join(repr(float(v)) for v in numbers)
        )
    hosts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    catalog = cut((hosts, hosts), tmp_path)
    assert set(catalog.column("halo_id")) == set(box.host_id)
    assert catalog.metadata.selection["galaxy_column"] == "log10_macc"


def edited(folder, change, seed=1):
    """Files of a box whose columns of galaxies were changed."""
    hosts, galaxies = toy_box(seed).write(folder)
    np.save(galaxies, change(np.load(galaxies)))
    return hosts, galaxies


def without(files, column):
    hosts, galaxies = files
    lines = [line.split(",") for line in hosts.read_text(encoding="utf-8").splitlines()]
    index = lines[0].index(column)
    hosts.write_text(
        "\n".join(",".join(line[:index] + line[index + 1 :]) for line in lines) + "\n", encoding="utf-8"
    )
    return hosts, galaxies


def twice(files):
    hosts, galaxies = files
    hosts.write_text(
        hosts.read_text(encoding="utf-8") + hosts.read_text(encoding="utf-8").splitlines()[1] + "\n",
        encoding="utf-8",
    )
    return hosts, galaxies


def unrelated(table):
    table["upid"][table["upid"] > 17] = 18
    return table


BAD = {
    "hosts alone": (None, ["--hosts", "h.csv"], "--hosts needs --galaxies"),
    "galaxies alone": (None, ["--galaxies", "g.npy"], "--galaxies goes with an N-body box; name its host"),
    "membership of nothing": (None, ["--membership", "id"], "--membership goes with an N-body box"),
    "a number of clusters": (plain := (lambda t: toy_box(1).write(t)), ["--n-clusters", "9"], "leave it out"),
    "projections and a density": (plain, ["--n-projections", "3"], "--target-density says how many lines"),
    "a density and no flatness": (
        plain,
        ["--masses", "hmf", "--target-density", "-5"],
        "goes with masses flat; with masses hmf, --n-projections says",
    ),
    "four projections": (
        plain,
        ["--masses", "hmf", "--n-projections", "4"],
        "n_projections is 4; expected 1 to 3",
    ),
    "folds that are not": (plain, ["--folds", "3", "10"], "folds are [3, 10]; expected some of 0 to 9"),
    "no cylinder": (plain, ["--no-cylinder"], "choose kind pure"),
    "no redshift": (plain, ["--redshift", "null"], "'redshift' in the flags is None"),
    "no host in the range": (
        plain,
        ["--log10-mass-range", "15.3", "16"],
        "none of 12 hosts (upid -1) has log10",
    ),
    "too deep": (plain, ["--v-max", "6000"], "the cylinder is deeper than the box"),
    "no galaxy column": (
        plain,
        ["--galaxy-column", "v_max"],
        "--galaxy-column is v_max, which the file does not",
    ),
    "no galaxy limit": (plain, ["--galaxy-column", "sfr"], "give its lower limit with --galaxy-min"),
    "no galaxy": (plain, ["--galaxy-min", "13"], "rows is left as a galaxy (2"),
    "a small box": (plain, ["--box-size", "100"], "comoving Mpc/h, the size of the box: check --box-size"),
    "a large box": (plain, ["--box-size", "200"], "galaxies reach only to 1"),
    "poor clusters": (plain, ["--min-galaxies", "900"], "lines of sight has 900 galaxies"),
    "an unknown parameter": (plain, ["--cosmology", "Om=0.3"], "cosmology: unknown parameter 'Om'"),
    "no mass": (
        lambda t: without(toy_box(1).write(t), "M200c"),
        [],
        "column M200c is missing (it gives id, upid",
    ),
    "a host twice": (lambda t: twice(toy_box(1).write(t)), [], f"host {HOST_ID} stands in 2 rows"),
    "other galaxies": (lambda t: edited(t, unrelated), [], "no galaxy has a host of"),
    "no peak mass": (
        lambda t: edited(t, lambda table: table[[n for n in table.dtype.names if n != "mpeak"]].copy()),
        [],
        "there is neither log10_macc nor log10_mpeak to choose galaxies by; name a column with --galaxy-column",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, capsys, name):
    write, flags, message = BAD[name]
    argv = ["--out", str(tmp_path / "m.parquet"), "--no-progress"]
    if write is not None:
        hosts, galaxies = write(tmp_path)
        argv += ["--hosts", str(hosts), "--galaxies", str(galaxies)]
        defaults = {"--redshift": "0.117", "--box-size": "160", "--v-max": "1500"}
        argv += [word for flag, value in defaults.items() if flag not in flags for word in (flag, value)]
    assert main([*argv, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("m.parquet*"))


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(files, tmp_path, capsys):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no device that is always full")
    slab = tmp_path / "m.parquet.work" / "galaxies" / "slab_00"
    slab.parent.mkdir(parents=True)
    slab.symlink_to(full)
    argv = ["--hosts", str(files[0]), "--galaxies", str(files[1]), "--box-size", "160", "--redshift", "0.1"]
    assert main([*argv, "--v-max", "1500", "--out", str(tmp_path / "m.parquet"), "--no-progress"]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_redshift_and_size_are_asked_for_where_no_file_says_them(files, tmp_path):
    with pytest.raises(
        CatalogError, match="the redshift is not known from the files or their names; give --redshift"
    ):
        cut(files, tmp_path, redshift=None)
    with pytest.raises(CatalogError, match=r"box size is not known .*give --box-size in comoving"):
        cut(files, tmp_path, box_size=None)


def test_names_of_files_say_the_redshift_and_must_agree(tmp_path):
    hosts, galaxies = toy_box(1).write(tmp_path)
    named = hosts.rename(tmp_path / "mdpl2_120.csv"), galaxies.rename(tmp_path / "sfr_catalog_0.895100.npy")
    assert cut(named, tmp_path, redshift=None).column("redshift")[0] == pytest.approx(0.117, abs=1e-3)
    other = named[0], named[1].rename(tmp_path / "sfr_catalog_1.000000.npy")
    with pytest.raises(CatalogError, match=r"is of redshift 0.117 and .* of 0; take files of one snapshot"):
        cut(other, tmp_path, redshift=None)
    assert cut(other, tmp_path, redshift=0.0).column("redshift")[0] == 0.0


def test_from_a_box_to_masses(tmp_path, capsys):
    hosts, galaxies = toy_box(4, n_hosts=40, n_field=1000).write(tmp_path)
    box = ["--hosts", str(hosts), "--galaxies", str(galaxies), "--box-size", "160", "--redshift", "0.117"]
    box += ["--v-max", "1500", "--n-folds", "4", "--no-progress"]
    catalogs = {
        "train": ["--target-density", "-4.4", "--folds", "0", "1", "2"],
        "test": ["--masses", "hmf", "--folds", "3", "--seed", "1"],
    }
    for name, flags in catalogs.items():
        assert main([*box, *flags, "--out", str(tmp_path / f"{name}.parquet")]) == 0
    assert "clusters with" in capsys.readouterr().out
    halos = [set(ClusterCatalog.read(tmp_path / f"{name}.parquet").column("halo_id")) for name in catalogs]
    assert halos[0]
    assert halos[1]
    assert not halos[0] & halos[1]
    settings = {
        "encoder": {"grid": [8, 8]},
        "flow": {"kind": "affine", "options": {"hidden": [8]}},
        "fit": {"max_updates": 4, "validate_every": 2, "batch_size": 16},
        "validation_fraction": 0.2,
    }
    (tmp_path / "small.yaml").write_text(json.dumps(settings), encoding="utf-8")
    run, masses = tmp_path / "run", tmp_path / "masses.ecsv"
    argv = ["--config", str(tmp_path / "small.yaml"), "--catalog", str(tmp_path / "train.parquet")]
    assert train([*argv, "--out", str(run), "--device", "cpu", "--no-progress"]) == 0
    argv = ["--model", str(run), "--galaxies", str(tmp_path / "test.parquet"), "--out", str(masses)]
    assert infer([*argv, "--device", "cpu"]) == 0
    assert "log10_mass" in masses.read_text(encoding="utf-8")
