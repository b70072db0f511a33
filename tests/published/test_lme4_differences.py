"""Random models against lme4 itself, where R has it: the same criterion at our theta, no lower optimum, the same figures there."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

pytestmark = pytest.mark.slow

SCRIPT = r"""
suppressMessages(library(lme4))
options(contrasts = c("contr.treatment", "contr.treatment"), digits = 17)
folder <- commandArgs(TRUE)[1]
off <- lmerControl(check.nobs.vs.nRE = "ignore", check.nobs.vs.rankZ = "ignore", check.nobs.vs.nlev = "ignore", check.scaleX = "ignore")
say <- function(name, v) cat(name, sprintf("%.17g", as.numeric(v)), "\n")
for (line in readLines(file.path(folder, "models.txt"))) {
  part <- strsplit(line, "@", fixed = TRUE)[[1]]
  d <- read.csv(file.path(folder, paste0(part[1], ".csv")), stringsAsFactors = TRUE)
  args <- list(as.formula(part[2]), d, REML = part[3] == "REML", control = off)
  if (part[4] == "w") args$weights <- d$w
  parsed <- suppressMessages(suppressWarnings(do.call(lFormula, args)))
  f <- do.call(mkLmerDevfun, parsed)
  theta <- as.numeric(strsplit(part[5], " ")[[1]])
  cat("case", part[1], "\n")
  say("at", f(theta))
  m <- mkMerMod(environment(f), list(par = theta, fval = f(theta), conv = 0, message = "", feval = 1), parsed$reTrms, fr = parsed$fr)
  say("fixef", fixef(m)); say("sigma", sigma(m)); say("fitted", fitted(m)); say("se", sqrt(diag(as.matrix(vcov(m)))))
  lower <- environment(f)$lower
  best <- Inf
  for (start in list(environment(f)$pp$theta, theta, ifelse(lower == 0, 1, 0))) {
    found <- minqa::bobyqa(pmax(start, lower), f, lower = lower, control = list(rhobeg = 0.2, rhoend = 1e-8, maxfun = 5000))
    best <- min(best, found$fval)
  }
  say("best", best)
}
"""

FIXED = ("1", "x", "x + f", "x * f", "0 + f", "x + I(x^2)", "poly(z, 2) + f", "x + z + x:z", "log(p) + x")
RANDOM = (
    "(1 | g)", "(x | g)", "(x || g)", "(0 + f | g)", "(x + z | g)", "(1 | g) + (1 | i)", "(x | g) + (1 | i)", "(x | g/b)", "(log(p) | g)",
    "(x + z | g) + (1 | i)", "(0 + x + z | g)", "(1 | g) + (0 + x | g)",
)  # fmt: skip


def simulated(seed: int) -> tuple[pd.DataFrame, str, str, str | None]:
    """Data, formula, method and weights; a third of the covariances are singular, scales go from 1e-3 to 1e3."""
    rng = np.random.default_rng(seed)
    G, per = int(rng.choice([6, 12, 30])), int(rng.choice([4, 8, 12]))
    g, n = np.repeat(np.arange(G), per), G * per
    x, z, f, i = rng.normal(size=n), rng.normal(size=n), rng.integers(0, 3, n), rng.integers(0, 6, n)
    sd = np.exp(0.7 * rng.normal(size=4)) * (rng.random(4) > 0.3)
    b, c = rng.normal(size=(G, 3)) * sd[:3], rng.normal(size=6) * sd[3]
    y = 2.0 + x + 0.5 * f + b[g, 0] + b[g, 1] * x + b[g, 2] * z + c[i] + rng.normal(size=n)
    data = pd.DataFrame(
        {
            "y": y * 10.0 ** rng.uniform(-3, 3),
            "x": x,
            "z": z,
            "p": np.exp(0.5 * rng.normal(size=n)),
            "w": rng.uniform(0.3, 3.0, n),
            "f": np.array(["a b", "c:d", "e"])[f],
            "g": np.char.add("s", g.astype(str)),
            "i": np.char.add("i", i.astype(str)),
            "b": np.array(["u", "v"])[np.arange(n) % per % 2],
        }
    )
    weights = "w" if rng.random() < 0.3 else None
    return data, f"y ~ {rng.choice(FIXED)} + {rng.choice(RANDOM)}", str(rng.choice(["REML", "ML"])), weights


def in_order(fit: blm.Fit) -> np.ndarray:
    """theta with the terms as lme4 orders them: by levels, the most first, where the formula has them in another order."""
    terms = fit.model.design.terms
    parts, begin = [], 0
    for term in terms:
        stop = begin + term.covariance.q * (term.covariance.q + 1) // 2
        parts.append(np.asarray(fit.theta)[begin:stop])
        begin = stop
    levels = [term.group.size for term in terms]
    if any(after > before for before, after in pairwise(levels)):
        parts = [parts[k] for k in sorted(range(len(parts)), key=lambda k: levels[k])[::-1]]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, blm.Fit, dict[str, np.ndarray]]]:
    """Each case as its text, our fit, and what lme4 says."""
    if shutil.which("Rscript") is None:
        pytest.skip("there is no Rscript")
    if subprocess.run(["Rscript", "-e", "library(lme4)"], capture_output=True, check=False).returncode:
        pytest.skip("R has no lme4")
    folder: Path = tmp_path_factory.mktemp("lme4")
    fits: list[tuple[str, blm.Fit]] = []
    lines = []
    for seed in range(60):
        data, formula, method, weights = simulated(seed)
        data.to_csv(folder / f"{seed}.csv", index=False, float_format="%.17g")
        options: dict[str, Any] = {"weights": weights} if weights else {}
        fit = blm.LMM(formula, data, check="warn", **options).fit(method)
        fits.append((f"{seed}: {formula} {method} {json.dumps(options)}", fit))
        lines.append("@".join([str(seed), formula, method, weights or "-", " ".join(f"{t:.17g}" for t in in_order(fit))]))
    (folder / "models.txt").write_text("\n".join(lines) + "\n")
    (folder / "compare.R").write_text(SCRIPT)
    ran = subprocess.run(["Rscript", str(folder / "compare.R"), str(folder)], capture_output=True, text=True, check=True)
    said: list[dict[str, np.ndarray]] = []
    for line in ran.stdout.splitlines():
        name, *values = line.split()
        if name == "case":
            said.append({})
        else:
            said[-1][name] = np.array(values, float)
    return [(text, fit, theirs) for (text, fit), theirs in zip(fits, said, strict=True)]


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
def test_the_criterion_at_our_theta_is_lme4s(compared: list[tuple[str, blm.Fit, dict[str, np.ndarray]]]) -> None:
    for text, fit, theirs in compared:
        assert float(theirs["at"][0]) == pytest.approx(fit.criterion, abs=2e-6, rel=1e-9), text


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
def test_lme4_finds_nothing_lower(compared: list[tuple[str, blm.Fit, dict[str, np.ndarray]]]) -> None:
    for text, fit, theirs in compared:
        assert fit.converged, text
        assert fit.criterion <= float(theirs["best"][0]) + 1e-6 * max(1.0, 1e-3 * abs(fit.criterion)), text


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
def test_what_follows_from_theta_is_lme4s(compared: list[tuple[str, blm.Fit, dict[str, np.ndarray]]]) -> None:
    for text, fit, theirs in compared:
        assert fit.sigma == pytest.approx(float(theirs["sigma"][0]), rel=1e-6), text
        size = float(np.abs(theirs["fitted"]).max())
        np.testing.assert_allclose(fit.fitted(), theirs["fitted"], atol=1e-6 * size, err_msg=text)
        np.testing.assert_allclose(np.sort(fit.fixef), np.sort(theirs["fixef"]), atol=1e-6 * size, rtol=1e-6, err_msg=text)
        np.testing.assert_allclose(np.sort(np.sqrt(np.diag(fit.vcov))), np.sort(theirs["se"]), rtol=1e-5, err_msg=text)
