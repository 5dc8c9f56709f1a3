"""Exact predictions of the gold standard's problems by NUTS (numpyro, double precision), written as one small file.

An implementation of density, derivatives and sampler that shares nothing with this package: the table checks that it
sampled the same density. Cells that are in the file are kept. Needs `pip install numpyro`; some minutes:

    python -m benchmarks.gold_standard.reference --seed 0
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from datetime import UTC, datetime
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.scipy.special import logsumexp, ndtr
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS

from benchmarks.gold_standard.problems import (
    N_CONTEXTS,
    N_TEST,
    NETWORKS,
    OUT,
    PROBLEMS,
    REGIONS,
    Problem,
    layers,
    outputs,
    prior_scales,
)

TEST_SEED = 12345


def sample(
    problem: Problem, network: str, arguments: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Predictions (arrays by name) and what was found about the chains."""
    began = time.process_time()
    x, mass = problem.clusters(problem.n_train, 0)
    scales, sizes = prior_scales(problem, network), layers(problem, network)

    def log_joint(scaled):
        mean, log_sd = outputs(scaled * scales, x, sizes, jnp.tanh)
        residual = ((mass - problem.loc) / problem.scale - mean) * jnp.exp(-log_sd)
        likelihood = -0.5 * residual**2 - log_sd - 0.5 * jnp.log(2 * jnp.pi) - jnp.log(problem.scale)
        prior = -0.5 * scaled**2 - jnp.log(scales) - 0.5 * jnp.log(2 * jnp.pi)
        return likelihood.sum() + prior.sum()

    kernel = NUTS(
        potential_fn=lambda scaled: -log_joint(scaled),
        target_accept_prob=0.8,
        max_tree_depth=arguments.tree_depth,
    )
    mcmc = MCMC(
        kernel,
        num_warmup=arguments.warmup,
        num_samples=arguments.samples,
        num_chains=arguments.chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    key, start = jax.random.split(jax.random.PRNGKey(arguments.seed))
    # Each chain starts at a draw from the prior, not too far out: apart.
    start = 0.5 * jax.random.normal(start, (arguments.chains, scales.size))
    mcmc.run(key, init_params=start, extra_fields=("num_steps", "diverging"))
    scaled = mcmc.get_samples(group_by_chain=True)
    chains = int(scaled.shape[0])
    arrays: dict[str, Any] = {}
    values = []
    for region in REGIONS:
        contexts, test = problem.clusters(N_TEST, TEST_SEED, region)
        mean, log_sd = jax.lax.map(
            lambda one, contexts=contexts: outputs(one * scales, contexts, sizes, jnp.tanh),
            scaled.reshape(-1, scales.size),
        )
        mean, sd = problem.loc + problem.scale * mean, problem.scale * jnp.exp(log_sd)
        log_prob = -0.5 * ((test - mean) / sd) ** 2 - jnp.log(sd) - 0.5 * jnp.log(2 * jnp.pi)
        arrays[f"log_prob_{region}"] = logsumexp(log_prob, 0) - jnp.log(len(mean))
        mean, sd = mean[:, :N_CONTEXTS], sd[:, :N_CONTEXTS]
        values.append(jnp.concatenate([mean, jnp.log(sd)], -1).reshape(chains, -1, 2 * N_CONTEXTS))
        # Two halves of the chains: their difference is the noise of the whole.
        for half, rows in enumerate(jnp.split(jnp.arange(len(mean)), 2)):
            z = (problem.masses()[:, None, None] - mean[rows]) / sd[rows]
            arrays[f"cdf_{region}_{half}"] = ndtr(z).mean(1).astype(np.float32)
            arrays[f"epistemic_{region}_{half}"] = jnp.stack([mean[rows].mean(0), mean[rows].std(0)])
    every = np.concatenate([np.asarray(part) for part in values], -1)
    few = scaled[:, :: arguments.samples // 2][:, :2].reshape(-1, scales.size)
    arrays |= {"weights": few * scales, "log_joint": jax.vmap(log_joint)(few)}
    fields = mcmc.get_extra_fields()
    found = {
        "r_hat": float(split_gelman_rubin(every).max()),
        "effective_draws": float(effective_sample_size(every).min()),
        "divergences": int(fields["diverging"].sum()),
        "mean_steps": float(fields["num_steps"].mean()),
        "seconds": time.process_time() - began,
    }
    return {name: np.asarray(value) for name, value in arrays.items()}, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chains", type=int, default=4, help="an even number")
    parser.add_argument("--warmup", type=int, default=250)
    parser.add_argument("--samples", type=int, default=350, help="of each chain")
    parser.add_argument("--tree-depth", type=int, default=7)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    arguments = parser.parse_args()
    numpyro.enable_x64()
    path, arrays, found = OUT.with_name(f"{OUT.name}_nuts.npz"), {}, {}
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != "found"}
            found = json.loads(str(file["found"]))
    found |= {
        "command": shlex.join(["python", "-m", "benchmarks.gold_standard.reference", *sys.argv[1:]]),
        "numpyro": numpyro.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "chains": arguments.chains,
        "samples": arguments.samples,
    }
    for name in arguments.problems:
        for network in NETWORKS:
            cell = f"{name}, {network}"
            if cell in found:
                continue
            parts, found[cell] = sample(PROBLEMS[name], network, arguments)
            arrays |= {f"{cell}/{key}": value for key, value in parts.items()}
            print(cell, json.dumps(found[cell]), flush=True)
            np.savez_compressed(path, found=np.array(json.dumps(found)), **arrays)


if __name__ == "__main__":
    main()
