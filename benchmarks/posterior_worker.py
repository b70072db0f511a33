"""One sampler on one data set in a process of its own: a line of JSON for the first run, imports and compilation included, then one for
every later run.

usage: python -m benchmarks.posterior_worker SET SAMPLER STARTED

STARTED : seconds since the epoch when the process was begun
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

SETS: dict[str, tuple[str, str]] = {
    "Dyestuff": ("Dyestuff", "Yield ~ 1 + (1 | Batch)"),
    "sleepstudy": ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    "Penicillin": ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    "Pastes": ("Pastes", "strength ~ 1 + (1 | batch / cask)"),
    "Machines": ("Machines", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)"),
    "trial": ("trial", "BCVA_CHG ~ VISITN + BCVA_BL + (1 | USUBJID)"),
    "InstEval": ("InstEval", "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)"),
}
SAMPLERS = ("collapsed", "collapsed, tree", "hierarchical nutpie", "hierarchical pymc", "bambi nutpie", "bambi pymc")
DRAWS, TUNE, CHAINS = 1000, 1000, 4
EFFECTS = 6
"""Random effects of each grouping factor that are judged."""

SECONDS, RUNS = 3.0, 9
"""Later runs are repeated up to this many seconds in all, or this many times."""

PACKAGES = ("bayeslmm", "pymc", "pytensor", "nutpie", "bambi", "numpy")

Draws = dict[str, Any]
Draw = Callable[[int], tuple[Draws, int]]


def formula(name: str, sampler: str) -> str:
    """The formula of a set; Bambi has no correlation of random effects, and fits them as independent."""
    text = SETS[name][1]
    return text.replace("(Days | Subject)", "(Days || Subject)") if sampler.startswith("bambi") else text


def least_ess(draws: Draws) -> float:
    """The smallest bulk or tail effective sample size over arrays (chain, draw, ...)."""
    from arviz_stats.base import array_stats

    found = []
    for values in draws.values():
        flat = np.asarray(values, float).reshape(*np.shape(values)[:2], -1)
        for j in range(flat.shape[2]):
            found.append(float(array_stats.ess(flat[..., j], method="bulk")))
            found.append(float(array_stats.ess(flat[..., j], method="tail", prob=(0.05, 0.95))))
    return min(found)


def judged(variables: dict[str, Any]) -> Draws:
    """alpha, sigma, sds, correlations below the diagonal and some random effects, from variables under our names."""
    found = {}
    for name, values in variables.items():
        array = np.asarray(values)
        if name in ("alpha", "sigma") or name.startswith("sd_"):
            found[name] = array
        elif name.startswith("corr_"):
            rows, columns = np.tril_indices(array.shape[-1], -1)
            found[name] = array[..., rows, columns]
        elif name.startswith("beta_") and "(" not in name and "[" not in name:
            found[name] = array[:, :, :EFFECTS]
    return found


def judged_bambi(posterior: Any) -> Draws:
    found = {}
    for name in map(str, posterior.data_vars):
        values = np.asarray(posterior[name])
        if not name.endswith("_offset") and name != "mu":
            found[name] = values.reshape(*values.shape[:2], -1)[..., :EFFECTS]
    return found


def in_tree(posterior: Any) -> Draws:
    return judged({str(name): posterior[name].values for name in posterior.data_vars})


def runner(name: str, sampler: str) -> Draw:
    """A function of the seed that samples 4 chains of 1000 draws, in 1000 of warm-up where there is any."""
    import bayeslmm as blm

    kind, _, by = sampler.partition(" ")
    model = blm.LMM(formula(name, sampler), blm.load_dataset(SETS[name][0]), check="warn")
    if kind == "collapsed":
        return lambda seed: (arrays(model.sample(DRAWS, CHAINS, seed)), 0)
    if kind == "collapsed,":
        return lambda seed: (in_tree(model.sample(DRAWS, CHAINS, seed).tree["posterior"]), 0)
    if kind == "hierarchical":
        return sampled(model.to_pymc("hierarchical"), by, in_tree)
    bambi = model.to_bambi()
    bambi.build()
    return sampled(bambi.backend.model, by, judged_bambi)


def arrays(post: Any) -> Draws:
    """The draws by name as arrays (chain, draw, ...)."""
    from bayeslmm.bayes.posterior.datatree import posterior_variables

    return judged({name: post.reshape_draws(variable.values) for name, variable in posterior_variables(post).items()})


def sampled(graph: Any, by: str, read: Callable[[Any], Draws]) -> Draw:
    """Sampling a graph, compiled once."""
    if by == "nutpie":
        import nutpie

        compiled = nutpie.compile_pymc_model(graph)

        def draw(seed: int) -> tuple[Draws, int]:
            tree = nutpie.sample(compiled, draws=DRAWS, tune=TUNE, chains=CHAINS, seed=seed, progress_bar=False)
            return read(tree["posterior"]), int(tree["sample_stats"]["diverging"].sum())

        return draw
    import pymc as pm

    def draw_pymc(seed: int) -> tuple[Draws, int]:
        # PyMC's own NUTS, which is what Bambi asks for: left to itself, PyMC takes nutpie where that is installed
        options = {"nuts_sampler": "pymc", "progressbar": False, "compute_convergence_checks": False}
        with graph:
            tree = pm.sample(DRAWS, tune=TUNE, chains=CHAINS, random_seed=seed, **options)
        return read(tree["posterior"]), int(tree["sample_stats"]["diverging"].sum())

    return draw_pymc


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    """The first run, then later ones until enough time has gone into them."""
    name, sampler, started = sys.argv[1:4]
    draw = runner(name, sampler)
    draws, divergences = draw(1)
    seconds = time.time() - float(started)
    tell(part="cold", seconds=seconds, ess=least_ess(draws), divergences=divergences, versions=versions())
    taken: list[float] = []
    while len(taken) < RUNS and sum(taken) < SECONDS:
        begin = time.perf_counter()
        draws, divergences = draw(2 + len(taken))
        taken.append(time.perf_counter() - begin)
        means = {key: float(np.mean(draws[key])) for key in draws if key in ("sigma", "alpha")}
        tell(part="warm", seconds=taken[-1], ess=least_ess(draws), divergences=divergences, means=means)


if __name__ == "__main__":
    main()
