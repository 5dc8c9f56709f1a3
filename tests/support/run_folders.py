"""Folders that the commands write, small: a model, its evaluation, masses of a table."""

from __future__ import annotations

import yaml
from small_model import toy_catalog

from bayesflowmass import evaluate, infer, train

SETTINGS = {
    "validation_fraction": 0.2,
    "encoder": {"grid": [12, 12], "scaling": "sqrt", "constant": 50.0},
    "flow": {"kind": "affine", "options": {"hidden": [16]}},
    "fit": {
        "learning_rate": 5e-3,
        "batch_size": 50,
        "max_updates": 80,
        "patience_updates": None,
        "validate_every": 20,
    },
}


def write_run(folder, *, n_train=400, n_test=300, galaxies=("alpha", "beta", "gamma")):
    """Train, evaluate and infer by their commands, as the demo does, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    toy_catalog(n_train, seed=1).write(folder / "train.parquet")
    toy_catalog(n_test, seed=2).write(folder / "test.parquet")
    (folder / "given.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    quiet = ["--no-progress", "--device", "cpu"]
    catalogs = [str(folder / name) for name in ("train.parquet", "test.parquet")]
    model = str(folder / "model")
    given = ["--config", str(folder / "given.yaml"), "--catalog", catalogs[0], "--out", model]
    assert train.main([*given, *quiet]) == 0
    judged = ["--model", model, "--catalog", catalogs[1], "--out", str(folder / "evaluation")]
    assert evaluate.main([*judged, "--baseline-catalog", catalogs[0], "--bootstrap", "10", *quiet]) == 0
    few = toy_catalog(len(galaxies), seed=3)
    rows = ["cluster_id,x,y,v_los"]
    owner = [name for name, n in zip(galaxies, few.n_galaxies, strict=True) for _ in range(n)]
    rows += [
        f'"{name}",{x:.4f},{y:.4f},{v:.1f}'
        for name, x, y, v in zip(owner, *(few.galaxies(c) for c in ("x", "y", "v_los")), strict=True)
    ]
    (folder / "galaxies.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    observed = ["--model", model, "--galaxies", str(folder / "galaxies.csv"), "--redshift", "0.117"]
    assert infer.main([*observed, "--out", str(folder / "masses.ecsv"), "--mode", "paper", *quiet]) == 0
    return folder
