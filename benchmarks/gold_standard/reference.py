"""Exact draws of the gold standard's weights by NUTS (numpyro, double precision), written as a small file.

An implementation of density, derivatives and sampler that shares nothing with this package: the table checks that it
sampled the same density. Needs `pip install numpyro`; a few minutes each:

    python -m benchmarks.gold_standard.reference --seed 0
    python -m benchmarks.gold_standard.reference --seed 1
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from datetime import UTC, datetime

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS

from benchmarks.gold_standard.problem import GRID, LOC, N_TRAIN, OUT, SCALE, clusters, outputs, prior_scales


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--warmup", type=int, default=700)
    parser.add_argument("--samples", type=int, default=2000, help="of each chain")
    parser.add_argument("--tree-depth", type=int, default=8)
    parser.add_argument("--kept", type=int, default=400, help="of each chain, evenly spaced, in the file")
    arguments = parser.parse_args()
    numpyro.enable_x64()
    x, mass = clusters(N_TRAIN, 0)
    scales = prior_scales()

    def log_joint(scaled):
        mean, log_sd = outputs(scaled * scales, x, jnp.tanh)
        residual = ((mass - LOC) / SCALE - mean) * jnp.exp(-log_sd)
        likelihood = -0.5 * residual**2 - log_sd - 0.5 * jnp.log(2 * jnp.pi) - jnp.log(SCALE)
        prior = -0.5 * scaled**2 - jnp.log(scales) - 0.5 * jnp.log(2 * jnp.pi)
        return likelihood.sum() + prior.sum()

    kernel = NUTS(
        potential_fn=lambda scaled: -log_joint(scaled),
        dense_mass=True,
        target_accept_prob=0.85,
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
    # Each chain starts at a draw from the prior: far apart.
    mcmc.run(
        key,
        init_params=jax.random.normal(start, (arguments.chains, scales.size)),
        extra_fields=("num_steps", "diverging"),
    )
    scaled = mcmc.get_samples(group_by_chain=True)
    both = jax.lax.map(
        lambda one: jnp.concatenate(outputs(one * scales, GRID, jnp.tanh)), scaled.reshape(-1, scales.size)
    )
    values = np.asarray(both).reshape(*scaled.shape[:2], -1)
    fields = mcmc.get_extra_fields()
    found = {
        "command": shlex.join(["python", "benchmarks/gold_standard/reference.py", *sys.argv[1:]]),
        "seed": arguments.seed,
        "numpyro": numpyro.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "chains": arguments.chains,
        "samples": arguments.samples,
        "r_hat": float(split_gelman_rubin(values).max()),
        "effective_draws": float(effective_sample_size(values).min()),
        "divergences": int(fields["diverging"].sum()),
        "mean_steps": float(fields["num_steps"].mean()),
    }
    kept = scaled[:, :: arguments.samples // arguments.kept]
    density = jax.vmap(jax.vmap(log_joint))(kept)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        OUT.with_name(f"{OUT.name}_draws_{arguments.seed}.npz"),
        weights=np.asarray(kept * scales),
        log_joint=np.asarray(density),
        found=np.array(json.dumps(found)),
    )
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
