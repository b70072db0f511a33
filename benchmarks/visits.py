"""Unstructured errors over visits: whole fits and single evaluations against the number of subjects, and nlme's gls where R is there.

python -m benchmarks.visits --out benchmarks/VISITS.md
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

import bayeslmm as blm
from benchmarks.report import machine

CASES = ((4, 200), (4, 2_000), (4, 100_000), (10, 200), (10, 2_000), (10, 100_000))
GLS_ROWS = 8_000
"""gls is asked only for four visits and up to this many rows: beyond, one fit takes many minutes."""

GLS = """
suppressMessages(library(nlme))
d <- read.csv(commandArgs(TRUE)[1], stringsAsFactors = TRUE)
d$v <- as.integer(d$visit)
rounds <- as.integer(commandArgs(TRUE)[2])
for (i in seq_len(rounds)) {
  t <- system.time(m <- gls(y ~ b + arm * visit, d, correlation = corSymm(form = ~ v | id), weights = varIdent(form = ~ 1 | visit)))
  cat(sprintf("%.4f %.9f\\n", t[["elapsed"]], -2 * as.numeric(logLik(m))))
}
"""


def simulate(subjects: int, visits: int, seed: int = 0) -> pd.DataFrame:
    """A trial with drop-out and missed visits."""
    rng = np.random.default_rng(seed)
    L = np.tril(rng.normal(size=(visits, visits)) * 0.3) + np.eye(visits)
    E = rng.normal(size=(subjects, visits)) @ L.T
    last = np.minimum(rng.geometric(0.06, subjects), visits)
    seen = (np.arange(visits) < last[:, None]) & (rng.random((subjects, visits)) > 0.03)
    seen[:, 0] = True
    i, v = np.nonzero(seen)
    arm, b = rng.integers(0, 2, subjects), rng.normal(size=subjects)
    visit = pd.Categorical.from_codes(v, [f"V{k:02d}" for k in range(visits)])
    columns = {
        "y": E[i, v] + b[i] + 0.3 * v + 0.2 * arm[i] * v,
        "b": b[i],
        "arm": pd.Categorical(np.array(["P", "T"])[arm[i]]),
        "visit": visit,
        "id": i,
    }
    return pd.DataFrame(columns)


def timed(work: Callable[[], object], rounds: int) -> float:
    """Median seconds."""
    work()
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return median(taken)


def ours(data: pd.DataFrame, rounds: int) -> dict[str, float]:
    """Seconds of a whole fit and of an evaluation with gradient, evaluations, criterion."""

    def fit() -> blm.Fit:
        return blm.LMM("y ~ b + arm * visit", data, residual="us(visit | id)").fit()

    found = fit()
    criterion, x = found.model.problem.criterion, found.estimate.x
    evaluation = timed(lambda: criterion.at(x, True, order=1), 10)
    return {"fit": timed(fit, rounds), "evaluation": evaluation, "evaluations": len(found.path), "criterion": found.criterion}


def gls(data: pd.DataFrame, rounds: int) -> tuple[float, float] | None:
    """Median seconds and criterion of nlme's gls; None without R or nlme."""
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        table, script = Path(folder) / "data.csv", Path(folder) / "gls.R"
        data.to_csv(table, index=False)
        script.write_text(GLS)
        found = subprocess.run(["Rscript", str(script), str(table), str(rounds)], capture_output=True, text=True, check=False)
    lines = [line.split() for line in found.stdout.splitlines()]
    return (median(float(line[0]) for line in lines), float(lines[0][1])) if lines else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/VISITS.md"))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rows = [
        "| visits | subjects | rows | whole fit (s) | value and gradient (ms) | evaluations | gls (s) | ratio | gls above our criterion |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for visits, subjects in CASES:
        data = simulate(subjects, visits)
        mine = ours(data, args.rounds if subjects < 50_000 else 2)
        other = gls(data, 1) if visits == 4 and len(data) <= GLS_ROWS else None
        theirs = "| | |" if other is None else f"{other[0]:.2f} | {other[0] / mine['fit']:.0f} | {other[1] - mine['criterion']:.1e} |"
        timing = f"{mine['fit']:.3f} | {1e3 * mine['evaluation']:.2f} | {mine['evaluations']:.0f}"
        rows.append(f"| {visits} | {subjects:,} | {len(data):,} | {timing} | {theirs}")
        print(rows[-1], flush=True)
    text = f"""# Unstructured errors over visits

`y ~ b + arm * visit` with `us(visit | id)`, REML, a simulated trial with drop-out; whole fits from the data frame, pooling included.
An evaluation costs patterns x visits^2 x coefficients^2: it grows with the patterns of missing visits, not with the subjects.
To make it again: `python -m benchmarks.visits`.

{machine(1)}

"""
    args.out.write_text(text + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
