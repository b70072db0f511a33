"""How often which engine ends at the lowest criterion: random designs against many starts of L-BFGS, and lme4 where R is at hand.

python -m benchmarks.optimum [--designs N] [--starts K] [--peers M] [--contextual N] [--structured N] [--write]

Independent errors, slopes between and within levels, and structured errors and variance functions have a part each of docs/optimum.md; with
0 designs it stays as it is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError
from bayeslmm.likelihood.problem import Problem
from benchmarks.random_designs import RandomDesign, contextual_design, random_design
from benchmarks.structured_designs import StructuredDesign, structured_design

TOLERANCE = 1e-4
"""Difference of the criterion that counts."""

SECONDS = 5.0
"""Time after which no further start is made on one design, once half of them are done."""

STRUCTURED_STARTS = 6
"""Starts on a design with structured errors, whose criterion takes longer."""

PAGE = Path(__file__).parents[1] / "docs" / "optimum.md"

LME4 = """
suppressMessages({library(lme4); library(jsonlite)}); folder <- commandArgs(TRUE)[1]
for (file in list.files(folder, pattern = "json$", full.names = TRUE)) {
  one <- fromJSON(file); d <- read.csv(sub("json$", "csv", file))
  value <- tryCatch(suppressWarnings(suppressMessages({
    .w <- if (is.null(one$weights)) NULL else d[[one$weights]]; .o <- if (is.null(one$offset)) NULL else d[[one$offset]]
    f <- as.formula(one$formula); environment(f) <- environment()
    REMLcrit <- function(m) if (one$reml) lme4::REMLcrit(m) else -2 * as.numeric(logLik(m))
    REMLcrit(lmer(f, d, REML = one$reml, weights = .w, offset = .o))})), error = function(e) NA)
  cat(one$seed, format(value, digits = 17), "\\n")
}
"""


@dataclass(frozen=True)
class Outcome:
    """One design: the criterion of the fit and of the best start, NaN where it is refused; flagged : a check says that it is unbounded."""

    seed: int
    n: int
    kind: str
    fit: float
    best: float
    flagged: bool
    reason: str = ""


def best_of_starts(problem: Problem, restricted: bool, starts: int, seed: int) -> float:
    """The lowest criterion of L-BFGS from starts far and wide."""
    rng, best, begin = np.random.default_rng(10_000 + seed), np.inf, time.perf_counter()
    errors = slice(problem.random.size, problem.size)

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        point = problem.criterion.at(x, restricted, order=1)
        return (point.value, point.gradient) if np.isfinite(point.value) else (1e10, np.zeros(len(x)))

    for k in range(starts if problem.size else 0):
        start = rng.normal(size=problem.size) * 10.0 ** rng.uniform(-1.3, 1.5, problem.size)
        # beyond a few units the correlations of errors are at their ends, and their sds far from one another
        start[errors] = problem.start[errors] + rng.choice([0.3, 1.0, 2.0]) * (problem.axis_units * rng.normal(size=problem.size))[errors]
        best = min(best, minimize(function, start, jac=True, method="L-BFGS-B", options={"maxiter": 300, "maxfun": 400}).fun)
        if k >= starts // 2 and time.perf_counter() - begin > SECONDS:
            break
    return float(best)


def compared(seed: int, starts: int, make: Callable[[int], RandomDesign | StructuredDesign]) -> Outcome:
    """The fit of one design beside the best of many starts."""
    design = make(seed)
    n, nothing = len(design.data), float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = blm.LMM(design.formula, design.data, **design.options)
            fit = model.fit("REML" if design.reml else "ML")
        except BayesLMMError as error:
            return Outcome(seed, n, design.kind, nothing, nothing, True, f"{type(error).__name__}: {error.what}")
        best = best_of_starts(model.problem, design.reml, starts, seed)
    flagged = "bounded" in fit.checks or not fit.converged
    return Outcome(seed, n, design.kind, fit.criterion, best, flagged)


def lme4(seeds: Sequence[int], make: Callable[[int], RandomDesign] = random_design) -> dict[int, float]:
    """lme4's criteria by its default optimiser; nothing where R or lme4 is not at hand."""
    if shutil.which("Rscript") is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            design = make(seed)
            design.data.to_csv(Path(folder) / f"{seed}.csv", index=False)
            said = {"seed": seed, "formula": design.formula, "weights": design.weights, "offset": design.offset, "reml": design.reml}
            (Path(folder) / f"{seed}.json").write_text(json.dumps({k: v for k, v in said.items() if v is not None}))
        script = Path(folder) / "lme4.R"
        script.write_text(LME4)
        out = subprocess.run(["Rscript", str(script), folder], capture_output=True, text=True, check=False).stdout
    return {int(line.split()[0]): float(line.split()[1].replace("NA", "nan")) for line in out.splitlines() if len(line.split()) == 2}


def page(outcomes: Sequence[Outcome], starts: int, peers: dict[int, float]) -> str:
    """The table as a page of the docs."""
    refused = [o for o in outcomes if np.isnan(o.fit)]
    flagged = [o for o in outcomes if o.flagged and not np.isnan(o.fit)]
    plain = [o for o in outcomes if not o.flagged]
    worse = _above(plain)
    lower = [o for o in plain if o.fit < o.best - TOLERANCE]
    lines = [
        "# The best maximum",
        "",
        f"{len(outcomes):,} random designs of 12 to 2,000 rows (`benchmarks/random_designs.py`) fitted by default, and searched by L-BFGS",
        f"from {starts} starts far and wide on the same criterion. A difference counts from {TOLERANCE:g} on. Run again by `make optimum`.",
        "",
        "| Designs | number |",
        "|---|---|",
        f"| fitted, the likelihood bounded | {len(plain):,} |",
        f"| of these, the fit is above the best of the starts | {len(worse):,} |",
        f"| of these, the best of the starts is above the fit | {len(lower):,} |",
        f"| fitted, with the failed check `bounded` | {len(flagged):,} |",
        f"| refused by name: levels too few, or a likelihood without a bound | {len(refused):,} |",
    ]
    lines += beside_lme4(plain, peers)
    if worse:
        lines += [
            "",
            "Above the best of the starts, in valleys that few starts end in and that are not among the lowest after the first steps:",
            "",
            "| seed | rows | kind | by |",
            "|---|---|---|---|",
        ]
        lines += [f"| {o.seed} | {o.n} | {o.kind} | {o.fit - o.best:.2g} |" for o in worse]
    return "\n".join(lines) + "\n"


def beside_lme4(outcomes: Sequence[Outcome], peers: dict[int, float]) -> list[str]:
    """How often lme4 ends above our fits, and our fits above lme4's."""
    ours = {o.seed: o for o in outcomes}
    both = [(ours[s].fit, value) for s, value in peers.items() if s in ours and np.isfinite(value)]
    if not both:
        return []
    return [
        "",
        f"lme4 (`lmer`, default optimiser) fits {len(both):,} of the first {len(peers):,} designs:",
        "",
        "| | number |",
        "|---|---|",
        f"| lme4 ends above the fit | {sum(theirs > fit + TOLERANCE for fit, theirs in both):,} |",
        f"| the fit is above lme4 | {sum(fit > theirs + TOLERANCE for fit, theirs in both):,} |",
    ]


CONTEXTUAL = "## Slopes between levels and within them"


def contextual_part(outcomes: Sequence[Outcome], starts: int, peers: dict[int, float]) -> str:
    """The table of designs whose criterion often has two minima, far from one another."""
    plain = [o for o in outcomes if not o.flagged]
    worse = _above(plain)
    lines = [
        CONTEXTUAL,
        "",
        f"{len(outcomes):,} random designs of 8 to 2,000 rows with a covariate whose slope between levels is another than within them",
        "(`contextual_design`). Effects small beside the errors let the levels tell of the slope, large ones the rows: each may be a",
        f"maximum, and the start of a search decides which it finds. {starts} starts each.",
        "",
        "| Designs | number |",
        "|---|---|",
        f"| fitted, converged, the likelihood bounded | {len(plain):,} |",
        f"| of these, the fit is above the best of the starts | {len(worse):,} |",
        f"| of these, the best of the starts is above the fit | {sum(o.fit < o.best - TOLERANCE for o in plain):,} |",
        f"| flagged, or refused by name | {len(outcomes) - len(plain):,} |",
        *beside_lme4(plain, peers),
    ]
    if worse:
        lines += ["", "Above the best of the starts:", "", "| seed | rows | kind | by |", "|---|---|---|---|"]
        lines += [f"| {o.seed} | {o.n} | {o.kind} | {o.fit - o.best:.2g} |" for o in worse]
    return "\n".join(lines) + "\n"


STRUCTURED = "## Structured errors and variance functions"


def structured_part(outcomes: Sequence[Outcome], starts: int) -> str:
    """The table of designs with structured errors or variance functions."""
    refused = [o for o in outcomes if np.isnan(o.fit)]
    flagged = [o for o in outcomes if o.flagged and not np.isnan(o.fit)]
    plain = [o for o in outcomes if not o.flagged]
    worse, lower = _above(plain), [o for o in plain if o.fit < o.best - TOLERANCE]
    lines = [
        STRUCTURED,
        "",
        f"{len(outcomes):,} random designs of 20 to 300 rows (`benchmarks/structured_designs.py`): every structure of R, by group,",
        f"with a nugget, beside random effects of every structure and variance functions, by REML and ML; {starts} starts each.",
        "",
        "| Designs | number |",
        "|---|---|",
        f"| fitted, converged, the likelihood bounded | {len(plain):,} |",
        f"| of these, the fit is above the best of the starts | {len(worse):,} |",
        f"| of these, the best of the starts is above the fit | {len(lower):,} |",
        f"| fitted, with a failed check of convergence or `bounded` | {len(flagged):,} |",
        f"| refused by name: parameters that cannot be told apart, or a likelihood without a bound | {len(refused):,} |",
    ]
    if worse:
        what = "Above the best of the starts, where one start of the six ends lower, in another valley of errors that rows tell little of:"
        lines += ["", what, "", "| seed | rows | kind | by |", "|---|---|---|---|"]
        lines += [f"| {o.seed} | {o.n} | {o.kind} | {o.fit - o.best:.2g} |" for o in worse]
    return "\n".join(lines) + "\n"


def _above(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Fits above the best of the starts."""
    return [o for o in outcomes if not o.flagged and o.fit > o.best + TOLERANCE]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--designs", type=int, default=2000)
    parser.add_argument("--starts", type=int, default=14)
    parser.add_argument("--peers", type=int, default=300, help="designs that lme4 fits as well")
    parser.add_argument("--contextual", type=int, default=500, help="designs with other slopes between levels than within them")
    parser.add_argument("--structured", type=int, default=300, help="designs with structured errors or variance functions")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write docs/optimum.md")
    given = parser.parse_args()
    head, _, rest = PAGE.read_text().partition(CONTEXTUAL)
    middle, _, last = rest.partition(STRUCTURED)
    parts, worse = [head.rstrip() + "\n", CONTEXTUAL + middle.rstrip() + "\n", STRUCTURED + last], []
    few = min(given.starts, STRUCTURED_STARTS)
    with ProcessPoolExecutor(given.workers) as pool:

        def search(make: Callable[[int], RandomDesign | StructuredDesign], count: int, starts: int) -> list[Outcome]:
            found = list(pool.map(partial(compared, starts=starts, make=make), range(count), chunksize=10))
            worse.extend(_above(found))
            return found

        if given.designs:
            outcomes = search(random_design, given.designs, given.starts)
            parts[0] = page(outcomes, given.starts, lme4(range(min(given.peers, given.designs))))
        if given.contextual:
            outcomes = search(contextual_design, given.contextual, given.starts)
            parts[1] = contextual_part(outcomes, given.starts, lme4(range(min(given.peers, given.contextual)), contextual_design))
        if given.structured:
            parts[2] = structured_part(search(structured_design, given.structured, few), few)
    text = "\n".join(parts)
    print(text)
    if given.write:
        PAGE.write_text(text)
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main())
