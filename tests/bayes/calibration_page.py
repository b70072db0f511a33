"""The page `docs/calibration.md`, written by `python -m tests.bayes.calibration_page` from a run of the whole suite (half an hour).

Every finished scenario is kept in `build/calibration`, so that a run that was broken off goes on where it was; once the page is written
they are deleted. `--seconds 300` begins nothing more after five minutes, `--processes 2` runs two scenarios at a time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from bayeslmm.bayes.calibration import Calibration, calibrate
from tests.bayes.calibration_suite import (
    EXPENSIVE,
    FALSE_ALARM,
    OTHER_PRIORS,
    PLANTED,
    REPLICATIONS,
    SCENARIOS,
    SEED,
    PolynomialSampler,
    expensive,
    failing,
    level,
    run,
    run_planted,
    scenario,
    with_other_priors,
)

PAGE = Path(__file__).parents[2] / "docs" / "calibration.md"

AGAIN = {"slopes": ("log likelihood", 10_000), "variance function": ("expon|Residual", 4_000)}
"""Quantities whose ranks at the suite's seed a test of one quantity refused in an earlier run: run again, longer, at another seed."""
OTHER_SEED = 1001

HEAD = """# Calibration of the samplers

Parameters are drawn from their priors, data from the parameters, a posterior from the data: if prior, likelihood and sampler belong
together, the rank of the truth among the draws is uniform. `model.calibrate(1000)` does this with your own design and priors; this page
is what the package does to itself. In each scenario {replications:,} replications of 8 groups of 6 rows, {draws} draws each, at the one
seed that the suite has always had. Standard deviations have half-normal priors of scale 1.5, an exponent a standard normal one: the tails
of the defaults make data that no design would meet. What is ranked: every coefficient, every covariance parameter, an effect of each
grouping factor, the log likelihood, and one fitted row.

| scenario | model | quantities | lost | mean rank furthest from 0.5 | smallest p | of | limit of p | ranks |
|---|---|--:|--:|--:|--:|---|--:|---|
"""

RULE = """
## The rule

The statistic of a quantity is the smallest binomial tail anywhere in the distribution of its ranks; its p value is exact. A run of the
suite makes {tests} such tests, and all together they may raise a false alarm in {alarm:g} of the runs: a scenario has an eighth of that,
shared out among its quantities. Nothing else decides, and the seed is not changed to pass. As it is one seed, the scenarios draw partly
the same random numbers, and what is unlikely in one is often so in others; the rate holds for tests that depend on each other too.

The rule has been tried: in an earlier run a test of that quantity alone would have refused two of them, with p of 0.0002. Longer runs at
another seed say that it was chance:

| scenario | quantity | mean rank and p, this seed | replications | mean rank and p, another seed | standard error of the mean |
|---|---|--:|--:|--:|--:|
{again}
For `slopes` a reference says so too: `tests/bayes/test_calibration_reference.py` ranks the truths of this very seed by a posterior that
shares no line with the sampler, and finds them where the sampler does. It is the truths that were drawn.

## Planted errors

A suite that finds nothing proves something only if it finds what is there. Each of these is the sampler with one thing wrong:

| planted error | scenario | what is wrong | smallest p | of | |
|---|---|---|--:|---|---|
"""

FOOT = """
A bad proposal must not get as far as a posterior: planted in the sampler, it is refused by the gate on the importance weights, and Markov
chains take over. That is a test of every run of `make test`.

## Other priors, and polynomials

The same with fewer replications, each of the two lists by a rule of its own: all its tests together raise a false alarm in {alarm:g} of
the runs. First what lies beside a held sigma or sd, products of variance functions, correlations under LKJ(2), structured errors, and
every other proper family of priors. A prior flat on log sigma is improper: it has no truths to draw, so that this method cannot judge it.

| scenario | replications | quantities | lost | mean rank furthest from 0.5 | smallest p | of | limit of p | ranks |
|---|--:|--:|--:|--:|--:|---|--:|---|
{others}
Then posteriors drawn by polynomials in place of a density that is slow to evaluate:

| scenario | replications | quantities | lost | mean rank furthest from 0.5 | smallest p | of | limit of p | ranks |
|---|--:|--:|--:|--:|--:|---|--:|---|
{polynomials}
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
    return row(name, ", ".join([f"`{formula}`", *more_of_it]), found, len(SCENARIOS))


def row(name: str, second: str, found: Calibration, scenarios: int) -> str:
    """A row of a table of so many scenarios; the second cell says what was run."""
    means = found.frame["mean_rank"].to_numpy()
    furthest = float(means[np.abs(means - 0.5).argmax()])
    p, quantity = worst(found)
    verdict = "uniform" if failing(found, scenarios).empty else "**not uniform**"
    limit = f"{level(len(found.frame), scenarios):.1e}"
    cells = [name, second, str(len(found.frame)), str(found.lost), f"{furthest:.3f}", shown(p), quantity, limit, verdict]
    return "| " + " | ".join(map(safe, cells)) + " |\n"


def rows(runs: Mapping[str, Calibration]) -> str:
    """Rows of scenarios that differ in their number of replications."""
    return "".join(row(name, str(len(found.ranks)), found, len(runs)) for name, found in runs.items())


def planted_row(name: str, found: Calibration) -> str:
    where, sampler = PLANTED[name]
    p, quantity = worst(found)
    wrong = (sampler.__doc__ or "").rstrip(".")
    cells = [f"`{name}`", where, wrong, shown(p), quantity, "**missed**" if failing(found).empty else "found"]
    return "| " + " | ".join(map(safe, cells)) + " |\n"


def ranked(found: Calibration, quantity: str) -> str:
    """Mean rank and p value of a quantity."""
    place = list(found.frame["quantity"]).index(quantity)
    return f"{float(found.frame['mean_rank'].iloc[place]):.3f}, {shown(float(found.frame['p_value'].iloc[place]))}"


def again_row(name: str, found: Calibration, longer: Calibration) -> str:
    quantity, n = AGAIN[name][0], len(longer.ranks)
    # of the mean of n uniform ranks 0 to `draws`, as a share
    error = ((longer.draws + 2) / (12 * longer.draws * n)) ** 0.5
    cells = [name, quantity, ranked(found, quantity), f"{n:,}", ranked(longer, quantity), f"{error:.3f}"]
    return "| " + " | ".join(map(safe, cells)) + " |\n"


def page(
    scenarios: Mapping[str, Calibration],
    planted: Mapping[str, Calibration],
    again: Mapping[str, Calibration],
    others: Mapping[str, Calibration],
    polynomials: Mapping[str, Calibration],
) -> str:
    """The text of the page."""
    tests = sum(len(found.frame) for found in scenarios.values())
    longer = "".join(again_row(name, scenarios[name], found) for name, found in again.items())
    first = "".join(scenario_row(name, found) for name, found in scenarios.items())
    wrong = "".join(planted_row(name, found) for name, found in planted.items())
    draws = next(iter(scenarios.values())).draws
    head = HEAD.format(replications=REPLICATIONS, draws=draws)
    foot = FOOT.format(alarm=FALSE_ALARM, others=rows(others), polynomials=rows(polynomials))
    return head + first + RULE.format(tests=tests, alarm=FALSE_ALARM, again=longer) + wrong + foot


TABLES = {"scenarios": SCENARIOS, "planted": PLANTED, "again": AGAIN, "others": OTHER_PRIORS, "polynomials": EXPENSIVE}
"""The tables of the page, by the arguments of `page`, and what each has a run of."""

PIECES = [(table, name) for table, names in TABLES.items() for name in names]


def run_piece(table: str, name: str) -> Calibration:
    """The run of one row of a table."""
    match table:
        case "scenarios":
            return run(name)
        case "planted":
            return run_planted(name)
        case "again":
            return calibrate(scenario(name), AGAIN[name][1], seed=OTHER_SEED)
        case "others":
            return calibrate(with_other_priors(name), OTHER_PRIORS[name][3], seed=SEED)
        case _:
            return calibrate(expensive(name), EXPENSIVE[name][1], seed=SEED, sampler=PolynomialSampler())


def kept(place: Path, piece: tuple[str, str]) -> Path:
    """The file of a piece: its place in the list, for a name may hold what no file name does."""
    return place / f"{piece[0]}-{list(TABLES[piece[0]]).index(piece[1])}.pickle"


def keep_piece(place: Path, deadline: float, piece: tuple[str, str]) -> None:
    """Run a piece and write it, unless the time is up."""
    if time.time() < deadline:
        begin, found = time.perf_counter(), run_piece(*piece)
        text = pickle.dumps(found)
        part = kept(place, piece).with_suffix(".part")
        part.write_bytes(text)
        part.replace(kept(place, piece))
        print(f"{' '.join(piece)}: {time.perf_counter() - begin:.0f} s, smallest p {shown(worst(found)[0])}", flush=True)


def write_page(place: Path, seconds: float, processes: int) -> bool:
    """Run what is missing, for so long; the page, where nothing is missing any more."""
    place.mkdir(parents=True, exist_ok=True)
    missing = [piece for piece in PIECES if not kept(place, piece).exists()]
    work = partial(keep_piece, place, time.time() + seconds)
    if processes == 1:
        for piece in missing:
            work(piece)
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            pool.map(work, missing, chunksize=1)
    if not all(kept(place, piece).exists() for piece in PIECES):
        return False
    runs = {
        table: {name: pickle.loads(kept(place, (table, name)).read_bytes()) for name in names}  # noqa: S301 written above
        for table, names in TABLES.items()
    }
    PAGE.write_text(page(**runs), encoding="utf-8")
    for piece in PIECES:
        kept(place, piece).unlink()
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write docs/calibration.md, in as many runs as it takes.")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing more after so many seconds")
    parser.add_argument("--processes", type=int, default=1, help="scenarios at a time")
    asked = parser.parse_args()
    done = write_page(PAGE.parents[1] / "build" / "calibration", asked.seconds, asked.processes)
    print("the page is written" if done else "not all is done: run it again")
