"""Imputation of trials, power and checks of inference: the time of whole tasks.

python -m benchmarks.trials [--write]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import bayeslmm as blm
from benchmarks.report import machine

PAGE = Path(__file__).with_name("TRIALS.md")
STRATEGIES = ("MAR", "JR", "CR", "CIR", "LMCF")


def trial(subjects: int = 172, visits: int = 4, seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A trial of two arms in which about a quarter of the subjects stop, and when they did."""
    rng = np.random.default_rng(seed)
    id_, week = np.repeat(np.arange(subjects), visits), np.tile(np.arange(visits), subjects)
    drug, base = (np.arange(subjects) % 2)[id_], rng.normal(size=subjects)[id_]
    own = rng.normal(size=(subjects, visits)).cumsum(axis=1).ravel()
    y = 0.5 * base - 0.3 * drug * week + own + rng.normal(size=len(id_))
    stop = np.where(rng.random(subjects) < 0.25, rng.integers(1, visits, subjects), visits)
    weeks = pd.Categorical(week.astype(str), [str(v) for v in range(visits)], ordered=True)
    frame = pd.DataFrame({"id": id_, "week": weeks, "arm": np.array(["placebo", "drug"])[drug], "base": base})
    frame["y"] = np.where(week >= stop[id_], np.nan, y)
    stopped = np.flatnonzero(stop < visits)
    return frame, pd.DataFrame({"id": stopped, "week": stop[stopped].astype(str)})


def mmrm(data: pd.DataFrame) -> blm.LMM:
    return blm.LMM("y ~ base * week + arm * week", data, residual="us(week | id)")


def jackknife_of_five_strategies(subjects: int = 172) -> None:
    """Conditional means of every strategy, each with a jackknife over subjects, analysed and pooled; a tipping grid of one."""
    data, events = trial(subjects)
    model = mmrm(data)
    first = blm.impute(model, treatment="arm", reference={"drug": "placebo"}, events=events, strategy=STRATEGIES[0])
    for strategy in STRATEGIES:
        imp = first.under(strategy)
        imp.analyse("y ~ arm + base").pool()
    grid = list(np.linspace(-3.0, 3.0, 21))
    imp.tipping({"drug": grid, "placebo": grid}, analysis="y ~ arm + base")


def bayes() -> None:
    """1,000 imputations from the posterior, analysed and pooled."""
    data, events = trial()
    imp = blm.impute(
        mmrm(data), treatment="arm", reference={"drug": "placebo"}, events=events, strategy="JR", method="bayes", n=1000, seed=1
    )
    imp.analyse("y ~ arm + base").pool()


def power_of_a_trial() -> None:
    """10,000 simulated trials of 200 subjects, an MMRM fitted to each, the difference at the last visit tested by Satterthwaite."""
    data, _ = trial(200)
    fit = mmrm(data.assign(y=data["y"].fillna(0.0))).fit()
    fit.power(fit.fixef.index[-1], nsim=10_000, seed=1)


def power_under_dropout() -> None:
    """10,000 trials of 120 subjects of which three in ten are gone by the last of four visits."""
    i = np.repeat(np.arange(120), 4)
    frame = pd.DataFrame({"id": i.astype(str), "visit": np.tile(np.arange(4), 120), "arm": np.array(["a", "b"])[i % 2]})
    R = 4.0 * 0.6 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    plan = blm.assume("y ~ C(visit) * arm", frame, alpha=[0.0] * 7 + [1.2], residual="us(visit | id)", R=R)
    plan.power({"arm[T.b]": 1.0, "C(visit)[T.3]:arm[T.b]": 1.0}, nsim=10_000, seed=1, dropout=[0.0, 0.1, 0.2, 0.3])


def check_of_inference() -> None:
    """2,000 data sets drawn from a fit of sleepstudy: coverage, size and bias of every batched method."""
    blm.LMM("Reaction ~ Days + (Days | Subject)", blm.load_dataset("sleepstudy")).fit().check_inference(2000, seed=1)


TASKS: tuple[tuple[str, Callable[[], object], float, str], ...] = (
    (
        "172 subjects, 4 visits: jackknife of five strategies, and a tipping grid of 21 x 21",
        jackknife_of_five_strategies,
        1.0,
        "rbmi: 19 s of processor for one strategy (refits 13.9, imputation 1.4, analyses 3.7), no grid",
    ),
    (
        "1,000 imputations from the posterior",
        bayes,
        2.0,
        "rbmi: 34 s of processor to compile (200 s by the clock), then 3.4 s for draws and imputation of 100",
    ),
    ("power: 10,000 MMRM trials of 200 subjects", power_of_a_trial, 30.0, "simr: has no MMRM; one `lmer` fit after the other"),
    ("power with drop-out: 10,000 MMRM trials of 120 subjects", power_under_dropout, 30.0, "simr: none"),
    ("check_inference(2000) of sleepstudy", check_of_inference, 5.0, "none"),
)

KNOWN = """The last column is not measured here: rbmi and simr are R packages, which this machine does not have. What it says of rbmi was
measured with rbmi 1.6.0.9000, mmrm 0.3.18 and R 4.2.2 on the antidepressant trial (172 subjects, 4 visits), on another, loaded, machine
whose clock is of no use: compare processor seconds, and by their size alone."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = ["| task | processor s | clock s | goal s | known of others |", "|---|---|---|---|---|"]
    jackknife_of_five_strategies(40)  # imports
    for name, task, goal, others in TASKS:
        begin, processor = time.perf_counter(), time.process_time()
        task()
        lines.append(f"| {name} | {time.process_time() - processor:.2f} | {time.perf_counter() - begin:.2f} | {goal:g} | {others} |")
        print(lines[-1], flush=True)
    if asked.write:
        text = "# Trials: imputation, power, checks of inference\n\nWhole tasks, from data to the pooled table, imports warm. "
        text += "To make it again: `make bench-trials`.\n\n" + "\n".join(lines) + "\n\n" + KNOWN + "\n\n" + machine(1) + "\n"
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
