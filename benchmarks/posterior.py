"""Effective draws a second: the collapsed posterior against the hierarchical graph and Bambi's default, under the same priors.

usage: python -m benchmarks.posterior [--set NAME ...] [--sampler NAME ...] [--limit 900] [--out benchmarks/POSTERIOR.md]

Every pair of set and sampler runs in a process of its own. Cold counts from the start of that process, imports and compilation
included; warm is a second run in it, sampling only for what has been compiled. The figure is the smallest bulk or tail effective sample
size over alpha, standard deviations, correlations, sigma and six random effects, over the seconds. Bambi fits what it can express:
independent random effects.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import machine

SETS: dict[str, tuple[str, str]] = {
    "Dyestuff": ("Dyestuff", "Yield ~ 1 + (1 | Batch)"),
    "sleepstudy": ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    "Penicillin": ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    "Pastes": ("Pastes", "strength ~ 1 + (1 | batch / cask)"),
    "Machines": ("Machines", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)"),
    "trial": ("trial", "BCVA_CHG ~ VISITN + BCVA_BL + (1 | USUBJID)"),
    "InstEval": ("InstEval", "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)"),
}
SAMPLERS = ("collapsed", "hierarchical nutpie", "hierarchical pymc", "bambi nutpie", "bambi pymc")
EFFECTS = 6


@dataclass(frozen=True, slots=True)
class Run:
    """One sampler on one set: seconds, smallest effective sample size, divergences; warm is the second run."""

    name: str
    sampler: str
    cold: float
    cold_ess: float
    warm: float
    warm_ess: float
    divergences: int
    mean_sigma: float


def least_ess(draws: dict[str, Any]) -> float:
    """The smallest bulk or tail effective sample size over arrays (chain, draw, ...)."""
    import arviz_stats
    import xarray

    found = []
    for name, values in draws.items():
        flat = np.asarray(values).reshape(*np.shape(values)[:2], -1)
        table = xarray.Dataset({name: (("chain", "draw", "entry"), flat)})
        for method in ("bulk", "tail"):
            options = {"prob": (0.05, 0.95)} if method == "tail" else {}
            found.append(float(arviz_stats.ess(table, method=method, **options)[name].min()))
    return min(found)


def own_draws(posterior: Any) -> dict[str, Any]:
    """What is judged, from a posterior under our names."""
    found = {}
    for name in map(str, posterior.data_vars):
        values = np.asarray(posterior[name])
        if name == "alpha" or name == "sigma" or name.startswith("sd_"):
            found[name] = values
        elif name.startswith("corr_"):
            rows, columns = np.tril_indices(values.shape[-1], -1)
            found[name] = values[..., rows, columns]
        elif name.startswith("beta_") and "(" not in name:
            found[name] = values[:, :, :EFFECTS]
    return found


def bambi_draws(posterior: Any) -> dict[str, Any]:
    found = {}
    for name in map(str, posterior.data_vars):
        values = np.asarray(posterior[name])
        if "_offset" in name or name == "mu":
            continue
        found[name] = values.reshape(*values.shape[:2], -1)[..., :EFFECTS]
    return found


def runner(data: str, formula: str, sampler: str) -> Callable[[int], tuple[dict[str, Any], int]]:
    """A function of the seed that samples 4 chains of 1000 draws."""
    import bayeslmm as blm

    frame = blm.load_dataset(data)
    kind, _, by = sampler.partition(" ")
    if kind == "bambi":
        formula = formula.replace("(Days | Subject)", "(Days || Subject)")
    model = blm.LMM(formula, frame, check="warn")
    if kind == "collapsed":
        return lambda seed: (own_draws(model.sample(seed=seed).tree["posterior"]), 0)
    if kind == "bambi":
        bambi = model.to_bambi()
        bambi.build()
        graph, read = bambi.backend.model, bambi_draws
    else:
        graph, read = model.to_pymc("hierarchical"), own_draws
    return sampled(graph, by, read)


def sampled(graph: Any, by: str, read: Callable[[Any], dict[str, Any]]) -> Callable[[int], tuple[dict[str, Any], int]]:
    if by == "nutpie":
        import nutpie

        compiled = nutpie.compile_pymc_model(graph)

        def draw(seed: int) -> tuple[dict[str, Any], int]:
            tree = nutpie.sample(compiled, draws=1000, tune=1000, chains=4, seed=seed, progress_bar=False)
            return read(tree["posterior"]), int(tree["sample_stats"]["diverging"].sum())

        return draw
    import pymc as pm

    def draw_pymc(seed: int) -> tuple[dict[str, Any], int]:
        with graph:
            tree = pm.sample(1000, tune=1000, chains=4, random_seed=seed, progressbar=False, compute_convergence_checks=False)
        return read(tree["posterior"]), int(tree["sample_stats"]["diverging"].sum())

    return draw_pymc


def measure(name: str, sampler: str, started: float) -> Run:
    """Cold, counted from `started`, then warm."""
    draw = runner(*SETS[name], sampler)
    first, _ = draw(1)
    cold = time.time() - started
    begin = time.perf_counter()
    second, divergences = draw(2)
    warm = time.perf_counter() - begin
    sigma = float(np.mean(second["sigma"]))
    return Run(name, sampler, cold, least_ess(first), warm, least_ess(second), divergences, sigma)


def in_a_process(name: str, sampler: str, limit: float) -> Run | str:
    command = [sys.executable, "-m", "benchmarks.posterior", "--worker", name, sampler, repr(time.time())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return f"> {limit:.0f} s"
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return (done.stderr.strip().splitlines() or ["failed"])[-1][:80]
    return Run(**json.loads(lines[-1]))


def table(name: str, found: dict[str, Run | str]) -> str:
    """Markdown of one set, ratios against the collapsed sampler."""
    lines = [
        f"## {name}: `{SETS[name][1]}`",
        "",
        "| sampler | cold s | warm s | warm ESS | ESS/s warm | ours is | ESS/s cold | ours is | divergences |",
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    ours = found.get("collapsed")
    for sampler, run in found.items():
        if isinstance(run, str):
            lines.append(f"| {sampler} | {run} | | | | | | | |")
            continue
        warm, cold = run.warm_ess / run.warm, run.cold_ess / run.cold
        ratios = ("", "")
        if isinstance(ours, Run) and run is not ours:
            ratios = (f"{ours.warm_ess / ours.warm / warm:.0f} x", f"{ours.cold_ess / ours.cold / cold:.0f} x")
        cells = (
            f"{run.cold:.1f}",
            f"{run.warm:.2f}",
            f"{run.warm_ess:.0f}",
            f"{warm:.0f}",
            ratios[0],
            f"{cold:.1f}",
            ratios[1],
            run.divergences,
        )
        lines.append(f"| {sampler} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what was asked for and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", choices=list(SETS), dest="sets")
    parser.add_argument("--sampler", action="append", choices=SAMPLERS, dest="samplers")
    parser.add_argument("--limit", type=float, default=900.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        name, sampler, started = asked.worker
        print(json.dumps(asdict(measure(name, sampler, float(started)))))
        return
    parts = [f"# Posterior benchmark\n\n{__doc__.partition('Every pair')[0].splitlines()[0]}\n\n{machine(1)}\n"]
    for name in asked.sets or [n for n in SETS if n != "InstEval"]:
        found: dict[str, Run | str] = {}
        for sampler in asked.samplers or SAMPLERS:
            found[sampler] = in_a_process(name, sampler, asked.limit)
            print(name, sampler, found[sampler], flush=True)
        parts.append(table(name, found))
    text = "\n".join(parts)
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
