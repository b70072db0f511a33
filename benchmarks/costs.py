"""What the dearest verbs cost beside what their algebra says they should: processor time and peak of memory, line by line.

python -m benchmarks.costs [DESIGN ...] [--only TEXT] [--sizes N ...] [--limit SECONDS]    pieces of it, as the designs of benchmarks.verbs
"""

from __future__ import annotations

import argparse
import gc
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

import bayeslmm as blm
from benchmarks.verbs import DESIGNS, FOLDER, Session, Verb

Ask = Callable[[Any], Any]


S, M, L, XL = 1_000, 10_000, 100_000, 1_000_000


@dataclass(frozen=True)
class Cost:
    """A verb of a design at some sizes.

    estimate : seconds at the largest; None: what `LMM()` and `fit()` take together; why : what may take longer
    """

    design: str
    of: str
    name: str
    ask: Ask
    sizes: tuple[int, ...]
    estimate: float | None = None
    why: str = ""


def new_rows(source: Any, n: int = 100_000) -> pd.DataFrame:
    """Rows of another sample of the same groups."""
    frame = pd.DataFrame(source.design.frame)
    return frame.iloc[np.random.default_rng(1).integers(0, len(frame), n)].reset_index(drop=True)


@cache
def one_row(letter: str) -> pd.DataFrame:
    """The first row of a design, as somebody would write it."""
    return DESIGNS[letter].data(S).head(1)


def sample(fit: Any) -> Any:
    return fit.model.sample(seed=1)


def fit_anew(fit: Any) -> Any:
    return fit.model.fit()


RULE = "more numbers than rows"
REFITS = "a fit for each replicate"
COSTS = (
    Cost("A", "Fit", "simulate(100)", lambda fit: fit.simulate(100, seed=1), (S, M, L, XL), 3.5, RULE),
    Cost("A", "Fit", "bootstrap(200)", lambda fit: fit.bootstrap(200, seed=1), (S, M, L, XL), 19.0, REFITS),
    Cost("A", "Fit", "tidy CR2", lambda fit: fit.tidy(vcov="CR2"), (S, M, L, XL), 0.040),
    Cost("A", "Fit", "influence g", lambda fit: fit.influence("g"), (S, M, L, XL), None, "a fit without each level"),
    Cost("A", "Fit", "save(rows=False)", lambda fit: fit.save(FOLDER / "f.blm", rows=False), (L, XL)),
    Cost("A", "FitPlots", "all", lambda plot: plot(), (L, XL), None, "four figures"),
    Cost("A", "Fit", "sample", sample, (S, M, L), 2.5, "draws of all parameters and random effects"),
    Cost("A", "Posterior", "summary", lambda post: post.summary(), (M, L), 0.11),
    Cost("A", "Posterior", "loo", lambda post: post.loo(), (S, M), 6.2, "draws x rows log densities"),
    Cost("A", "Posterior", "loo by g", lambda post: post.loo(by="group", group="g"), (M, L), 2.7, "a density of every level at every draw"),
    Cost("A", "Posterior", "r2", lambda post: post.r2(), (M, L), 0.020),
    Cost("A", "Posterior", "posterior_predictive(100)", lambda post: post.posterior_predictive(draws=100, seed=1), (M, L), None, RULE),
    Cost("A", "Posterior", "predict 1e5 new rows", lambda post: post.predict(new_rows(post)), (M,), 0.1),
    Cost("B", "Fit", "predict interval", lambda fit: fit.predict(interval="prediction"), (S, M, L), 0.15),
    Cost("B", "Fit", "influence()", lambda fit: fit.influence(), (M, L), 0.15),
    Cost("B", "Fit", "influence g", lambda fit: fit.influence("g"), (M, L), None, "a fit without each level"),
    Cost("B", "Fit", "sample", sample, (S, M), 0.5),
    Cost("C", "Fit", "influence g", lambda fit: fit.influence("g"), (M, L), None, "a fit without each level"),
    Cost("C", "Fit", "sample", sample, (S, M), None, "draws of all parameters and random effects"),
    Cost("D", "Fit", "tidy kenward-roger", lambda fit: fit.tidy(df="kenward-roger"), (M, L, XL), 0.05),
    Cost("D", "Fit", "tidy CR2", lambda fit: fit.tidy(vcov="CR2"), (M, L), 0.04),
    Cost("D", "Fit", "predict one row", lambda fit: fit.predict(one_row("D")), (M, L, XL), 0.01),
    Cost("D", "Fit", "predict", lambda fit: fit.predict(), (M, L, XL)),
    Cost("D", "Fit", "influence g", lambda fit: fit.influence("g"), (M, L), None, "a fit without each level"),
    Cost("E", "Fit", "influence g", lambda fit: fit.influence("g"), (M, L), None, "a fit without each level"),
    Cost("E", "Fit", "influence g, refit=False", lambda fit: fit.influence("g", refit=False), (M, L), 0.1),
    Cost("E", "Fit", "simulate(100)", lambda fit: fit.simulate(100, seed=1), (M, L), None, RULE),
    Cost("H", "Fit", "bootstrap(200)", lambda fit: fit.bootstrap(200, seed=1), (S, L), None, REFITS),
    Cost("H", "Fit", "profile", lambda fit: fit.profile(), (S, L), None, "a search at every point of every profile"),
    Cost("F", "Fit", "anova", lambda fit: fit.anova(), (30, 100, 300)),
    Cost("F", "Fit", "sample", sample, (30, 100), None, "draws of all parameters and random effects"),
    Cost("F", "Fit", "emmeans", lambda fit: fit.emmeans("arm"), (30, 100, 300)),
    Cost("G", "Fit", "anova", lambda fit: fit.anova(), (10, 100, 500)),
    Cost("G", "Fit", "pairs tukey", lambda fit: fit.emmeans("f").pairs(adjust="tukey"), (10, 50, 100, 500), None, "124,750 pairs"),
    Cost("I", "Fit", "LMM", lambda fit: blm.LMM(DESIGNS["I"].formula, fit.model.data), (180,), 0.000977),
    Cost("I", "Fit", "fit", fit_anew, (180,), 0.000868),
    Cost("I", "Fit", "fit, summary", lambda fit: str(fit_anew(fit).summary()), (180,), 0.002),
    Cost("I", "Fit", "emmeans", lambda fit: fit.emmeans("arm"), (180,), 0.001),
    Cost("I", "Fit", "refit", lambda fit: fit.refit(np.asarray(fit.model.y) + 0.1), (180,), 0.001349),
    Cost("I", "EMMeans", "tukey of 3", lambda means: means.pairs(adjust="tukey"), (180,), 0.005),
    Cost("I", "Fit", "report", lambda fit: fit.report(path=FOLDER / "report.html"), (180,), 0.64, "Matplotlib's layout of text"),
    Cost("I", "FitPlots", "all", lambda plot: plot(), (180,), 0.74, "Matplotlib's layout of text"),
    Cost("I", "FitPlots", "profile", lambda plot: plot.profile(), (180,), 1.05),
    Cost("I", "Fit", "to_pymc", lambda fit: fit.model.to_pymc().compile_logp(), (180,), 2.05, "the C compiler"),
)


class TooLongError(Exception):
    """A line took more than its limit."""


def measure(cost: Cost, size: int, limit: float, sessions: dict[tuple[str, int], Session]) -> dict[str, Any]:
    """Seconds, MB and the sum of LMM() and fit(); the least of some where it is short."""
    key = (cost.design, size)
    if key not in sessions:
        sessions.clear()
        sessions[key] = Session(*key)
        gc.collect()
        gc.freeze()

    def stop(*_: Any) -> None:
        raise TooLongError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        verb, found = Verb(cost.of, cost.name, cost.ask), {}
        for k in range(6):
            took = sessions[key].measure(verb)
            if "error" in took:
                return took
            found = took if k < 2 or took["seconds"] < found["seconds"] else found
            if took["seconds"] > (0.3 if k else 2.0):
                break
        return {**found, "prepared": sum(sessions[key].prepared.values())}
    except TooLongError:
        return {"error": f"> {limit:.0f} s"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def lines(asked: argparse.Namespace) -> Iterator[str]:
    sessions: dict[tuple[str, int], Session] = {}
    todo = [(cost, size) for cost in COSTS for size in cost.sizes if not asked.designs or cost.design in asked.designs]
    for cost, size in sorted(todo, key=lambda each: (each[0].design, each[1])):
        if asked.only not in cost.name or (asked.sizes and size not in asked.sizes):
            continue
        begin = time.monotonic()
        found = measure(cost, size, asked.limit, sessions)
        told, goal = found.get("error", ""), ""
        if not told:
            limit = found["prepared"] if cost.estimate is None else cost.estimate
            met = found["seconds"] <= limit
            told = f"{1e3 * found['seconds']:.1f} ms, {found['megabytes']:.0f} MB"
            goal = f"{1e3 * limit:.1f} ms: " + ("met" if met else f"{found['seconds'] / limit:.1f} times; {cost.why or 'no reason'}")
        yield f"| {cost.design} {cost.of}.{cost.name} | {size:,} | {told} | {goal} | {time.monotonic() - begin:.0f} s |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("designs", nargs="*", default=[])
    parser.add_argument("--only", default="", help="lines whose verb has this text")
    parser.add_argument("--sizes", nargs="*", type=int, default=[])
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of the clock for a line")
    print("| verb | size | took | estimate | clock |\n|---|---|---|---|---|")
    for line in lines(parser.parse_args()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
