"""The page `docs/calibration.md`, written by `python -m tests.bayes.calibration_page` from a run of the whole suite (ten minutes)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bayeslmm.bayes.calibration import Calibration, calibrate
from tests.bayes.calibration_suite import FALSE_ALARM, PLANTED, REPLICATIONS, SCENARIOS, failing, level, run, run_planted, scenario

PAGE = Path(__file__).parents[2] / "docs" / "calibration.md"

UNLIKELY = "slopes"
"""The scenario whose ranks at the suite's seed a test of one quantity would refuse: run again, longer, at another seed."""
AGAIN, OTHER_SEED = 10_000, 1001

HEAD = """# Calibration of the samplers

Parameters are drawn from their priors, data from the parameters, a posterior from the data: if prior, likelihood and sampler belong
together, the rank of the truth among the draws is uniform. `model.calibrate(1000)` does this with your own design and priors; this page
is what the package does to itself. In each scenario {replications:,} replications of 8 groups of 6 rows, {draws} draws each, at the one
seed that the suite has always had. What is ranked: every coefficient, every covariance parameter, an effect of each grouping factor, the
log likelihood, and one fitted row.

| scenario | model | quantities | lost | mean rank furthest from 0.5 | smallest p | of | limit of p | ranks |
|---|---|--:|--:|--:|--:|---|--:|---|
"""

RULE = """
## The rule

The statistic of a quantity is the smallest binomial tail anywhere in the distribution of its ranks; its p value is exact. A run of the
suite makes {tests} such tests, and all together they may raise a false alarm in {alarm:g} of the runs: a scenario has an eighth of that,
shared out among its quantities. Nothing else decides, and the seed is not changed to pass. As it is one seed, the scenarios draw partly
the same random numbers, and what is unlikely in one is often so in others; the rate holds for tests that depend on each other too.

The rule has been tried. At this seed the ranks of the log likelihood of `{name}` have a mean of {mean:.3f} and p = {p}, which a test of
that quantity alone would refuse. In {again:,} replications at another seed their mean is {other:.4f}, with a standard error of
{error:.4f}, and p = {p_other}. It is the truths that were drawn: `tests/bayes/test_calibration_reference.py` ranks the same truths by a
posterior that shares no line with the sampler, and finds them where the sampler does.

## Planted errors

A suite that finds nothing proves something only if it finds what is there. Each of these is the sampler with one thing wrong:

| planted error | scenario | what is wrong | smallest p | of | |
|---|---|---|--:|---|---|
"""

FOOT = """
A bad proposal must not get as far as a posterior: planted in the sampler, it is refused by the gate on the importance weights, and Markov
chains take over. That is a test of every run of `make test`.

`make sbc` repeats the suite as tests; `python -m tests.bayes.calibration_page` writes this page.
"""


def worst(found: Calibration) -> tuple[float, str]:
    """The smallest p value, and the quantity that has it."""
    place = int(found.frame["p_value"].argmin())
    return float(found.frame["p_value"].iloc[place]), str(found.frame["quantity"].iloc[place])


def shown(p: float) -> str:
    return "< 1e-12" if p < 1e-12 else f"{p:.2g}"


def safe(text: str) -> str:
    """Text in a cell of a table."""
    return text.replace("|", "\\|")


def scenario_row(name: str, found: Calibration) -> str:
    formula, more = SCENARIOS[name]
    more_of_it = [f"{key} `{value}`" if isinstance(value, str) else f"a {key} matrix" for key, value in more.items()]
    model = ", ".join([f"`{formula}`", *more_of_it])
    means = found.frame["mean_rank"].to_numpy()
    furthest = float(means[np.abs(means - 0.5).argmax()])
    p, quantity = worst(found)
    verdict = "uniform" if failing(found).empty else "**not uniform**"
    limit = f"{level(len(found.frame)):.1e}"
    cells = [name, model, str(len(found.frame)), str(found.lost), f"{furthest:.3f}", shown(p), quantity, limit, verdict]
    return "| " + " | ".join(map(safe, cells)) + " |\n"


def planted_row(name: str, found: Calibration) -> str:
    where, sampler = PLANTED[name]
    p, quantity = worst(found)
    wrong = (sampler.__doc__ or "").rstrip(".")
    cells = [f"`{name}`", where, wrong, shown(p), quantity, "**missed**" if failing(found).empty else "found"]
    return "| " + " | ".join(map(safe, cells)) + " |\n"


def log_likelihood(found: Calibration) -> tuple[float, str]:
    """Mean rank and p value of the log likelihood."""
    place = list(found.frame["quantity"]).index("log likelihood")
    return float(found.frame["mean_rank"].iloc[place]), shown(float(found.frame["p_value"].iloc[place]))


def page(scenarios: Mapping[str, Calibration], planted: Mapping[str, Calibration], again: Calibration) -> str:
    """The text of the page."""
    mean, p = log_likelihood(scenarios[UNLIKELY])
    other, p_other = log_likelihood(again)
    draws = again.draws
    # of the mean of uniform ranks 0 to `draws`, as a share
    error = ((draws + 2) / (12 * draws * len(again.ranks))) ** 0.5
    tests = sum(len(found.frame) for found in scenarios.values())
    rule = RULE.format(
        tests=tests, alarm=FALSE_ALARM, name=UNLIKELY, mean=mean, p=p, again=len(again.ranks), other=other, error=error, p_other=p_other
    )
    rows = "".join(scenario_row(name, found) for name, found in scenarios.items())
    wrong = "".join(planted_row(name, found) for name, found in planted.items())
    return HEAD.format(replications=REPLICATIONS, draws=draws) + rows + rule + wrong + FOOT


if __name__ == "__main__":
    PAGE.write_text(
        page(
            {name: run(name) for name in SCENARIOS},
            {name: run_planted(name) for name in PLANTED},
            calibrate(scenario(UNLIKELY), AGAIN, seed=OTHER_SEED),
        ),
        encoding="utf-8",
    )
