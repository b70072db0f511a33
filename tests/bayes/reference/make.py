"""Run the hierarchical graph for long and store what it says, as posteriordb does: only a run with R-hat < 1.01 and no divergences.

usage: python -m tests.bayes.reference.make [--case NAME ...] [--draws 10000] [--tune 3000] [--target 0.99] [--seed 20260] [--check]

Every random effect is a variable, sampled by nutpie; diagnostics and Monte Carlo standard errors are ArviZ's: nothing of the collapsed
sampler has a part in it. `--check` reads the stored files again and holds them to the rule.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from typing import Any

import numpy as np
from arviz_stats.base import array_stats

from bayeslmm._arrays import Array
from bayeslmm.bayes.sampling.hierarchical import draw_graph
from tests.bayes.reference.cases import CASES, PROBABILITIES, model, path, scalars

CHAINS = 4
LARGEST_R_HAT = 1.01
PACKAGES = ("nutpie", "pymc", "pytensor", "arviz-stats", "numpy")


def described(draws: Array) -> dict[str, float]:
    """Mean, sd and quantiles of one scalar (chains, draws), each with its Monte Carlo standard error."""
    found = {
        "mean": float(draws.mean()),
        "mean_se": float(array_stats.mcse(draws, method="mean")),
        "sd": float(draws.std(ddof=1)),
        "sd_se": float(array_stats.mcse(draws, method="sd")),
        "r_hat": float(array_stats.rhat(draws)),
        "ess_bulk": float(array_stats.ess(draws, method="bulk")),
        "ess_tail": float(array_stats.ess(draws, method="tail", prob=(0.05, 0.95))),
    }
    for p in PROBABILITIES:
        found[f"q{100 * p:g}"] = float(np.quantile(draws, p))
        found[f"q{100 * p:g}_se"] = float(array_stats.mcse(draws, method="quantile", prob=p))
    return {key: float(f"{value:.8g}") for key, value in found.items()}


def faults(stored: dict[str, Any]) -> list[str]:
    """Why a run is no reference."""
    found = [] if stored["divergences"] == 0 else [f"{stored['divergences']} divergences"]
    worst = max(stored["scalars"], key=lambda name: stored["scalars"][name]["r_hat"])
    r_hat = stored["scalars"][worst]["r_hat"]
    return found if r_hat < LARGEST_R_HAT else [*found, f"R-hat of {worst} is {r_hat:.4f}"]


def run(name: str, draws: int, tune: int, target: float, seed: int) -> dict[str, Any]:
    """One case from its graph to the summary."""
    begin = time.perf_counter()
    own = model(name)
    options = {"target_accept": target, "save_warmup": False, "cores": 2}
    _, tree = draw_graph(own.to_pymc("hierarchical"), "nutpie", draws, CHAINS, tune, seed, options)
    posterior = tree["posterior"]
    wanted = [key for key in own_names(own) if key in posterior]
    return {
        "case": name,
        **CASES[name],
        "draws": draws,
        "chains": CHAINS,
        "tune": tune,
        "target_accept": target,
        "seed": seed,
        "divergences": int(np.asarray(tree["sample_stats"]["diverging"]).sum()),
        "seconds": round(time.perf_counter() - begin, 1),
        "versions": {package: version(package) for package in PACKAGES},
        "scalars": {key: described(values) for key, values in scalars({key: posterior[key] for key in wanted})},
    }


def own_names(own: Any) -> list[str]:
    """The variables of a posterior of the model."""
    return list(own.sample(draws=10, chains=1, seed=1, method="importance").tree["posterior"].data_vars)


def main() -> None:
    """Make what was asked for, or check what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES), dest="cases")
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--tune", type=int, default=3000)
    parser.add_argument("--target", type=float, default=0.99)
    parser.add_argument("--seed", type=int, default=20_260)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    for name in asked.cases or CASES:
        stored = json.loads(path(name).read_text()) if asked.check else run(name, asked.draws, asked.tune, asked.target, asked.seed)
        why = faults(stored)
        print(name, f"{stored['seconds']} s", "; ".join(why) if why else "a reference", flush=True)
        if not why and not asked.check:
            path(name).write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
