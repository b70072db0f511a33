"""What every public verb costs after a fit, as its work grows: processor time and peak of memory over designs and sizes, with exponents.

python -m benchmarks.verbs [DESIGN ...] [--write]    verbs are found by introspection; each design and size has a process of its own
"""

from __future__ import annotations

import argparse
import copy
import gc
import inspect
import json
import math
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import bayeslmm as blm
from benchmarks.memory import peak_over
from benchmarks.process import TookTooLongError, Worker
from benchmarks.report import machine

PAGE = Path(__file__).with_name("VERBS.md")
LIMIT = 4.0
"""Seconds that a verb may take; a size at which it would take longer, by its last two, is not tried."""

DRAWS = 4000
CHAINS = 4

FLOOR = 0.01
"""Seconds that nobody waits for: no verb that takes less breaks the rule."""


# -- designs -----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Design:
    """A model of any number of rows: what it is, its formula, arguments of LMM, its data, its sizes; group : whose levels are left out."""

    title: str
    formula: str
    options: dict[str, Any]
    data: Callable[[int], pd.DataFrame]
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000)
    group: str = "g"


def rows(n: int, per_group: int = 50) -> pd.DataFrame:
    """Rows of groups in three arms: y on x with an intercept and a slope by group."""
    rng = np.random.default_rng(n)
    g = np.arange(n) // per_group
    K = int(g[-1]) + 1
    x, b = rng.normal(size=n), rng.normal(size=(K, 2))
    y = 1.0 + x + b[g, 0] + 0.5 * b[g, 1] * x + rng.normal(size=n)
    frame = {"y": y, "x": x, "g": g, "arm": np.array(["a", "b", "c"])[rng.permutation(K)[g] % 3], "visit": np.arange(n) % per_group}
    return pd.DataFrame({**frame, "w": rng.uniform(0.5, 2.0, n), "item": rng.integers(0, max(2, math.isqrt(n)), n)})


def crossed(n: int) -> pd.DataFrame:
    frame, rng = rows(n), np.random.default_rng(n + 1)
    K = math.isqrt(n)
    frame["g"] = rng.integers(0, K, n)
    frame["y"] = frame["x"] + rng.normal(size=K)[frame["g"]] + rng.normal(size=K)[frame["item"]] + rng.normal(size=n)
    frame["arm"] = np.array(["a", "b", "c"])[frame["g"] % 3]
    return frame


def nested(n: int) -> pd.DataFrame:
    frame, rng = rows(n, 40), np.random.default_rng(n + 2)
    frame["b"], frame["c"] = frame["visit"] // 8, frame["visit"] // 4 % 2
    inner = frame["g"] * 5 + frame["b"]
    frame["y"] += rng.normal(size=int(inner.max()) + 1)[inner]
    return frame


def columns(n: int, p: int) -> pd.DataFrame:
    wide = np.random.default_rng(p).normal(size=(n, p))
    return pd.concat([rows(n), pd.DataFrame(wide, columns=[f"x{i}" for i in range(p)])], axis=1)


def levels(n: int, count: int) -> pd.DataFrame:
    return rows(n).assign(f=[f"f{v}" for v in np.random.default_rng(count).integers(0, count, n)])


DESIGNS = {
    "A": Design("(x | g), 50 rows a group", "y ~ x + arm + (x | g)", {}, rows, (1_000, 10_000, 100_000, 1_000_000)),
    "B": Design("crossed, sqrt(n) levels each", "y ~ x + arm + (1 | g) + (1 | item)", {}, crossed),
    "C": Design("(1 | g/b/c)", "y ~ x + arm + (1 | g/b/c)", {}, nested),
    "D": Design("MMRM, 5 visits", "y ~ x + arm * C(visit)", {"residual": "us(visit | g)"}, lambda n: rows(n, 5)),
    "E": Design("ar1, 20 visits", "y ~ x + arm", {"residual": "ar1(visit | g)"}, lambda n: rows(n, 20)),
    "F": Design(
        "as many columns as sizes, 10,000 rows",
        "y ~ x + arm + {columns} + (1 | g)",
        {},
        lambda p: columns(10_000, p),
        (30, 100, 300),
    ),
    "G": Design("a factor of as many levels, 10,000 rows", "y ~ x + arm + f + (1 | g)", {}, lambda k: levels(10_000, k), (10, 100, 500)),
    "H": Design(
        "weights and power(x)",
        "y ~ x + arm + (1 | g)",
        {"weights": "w", "variance": "power(positive)"},
        lambda n: rows(n).assign(positive=lambda d: 1.0 + d["x"].abs()),
    ),
    "I": Design("180 rows", "y ~ x + arm + (x | g)", {}, lambda n: rows(n, 10), (180,)),
}


# -- verbs -------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verb:
    """A question: of which object, what it is called, and how it is asked."""

    of: str
    name: str
    ask: Callable[[Any], Any]


def few(source: Any) -> pd.DataFrame:
    """One row of the data."""
    return pd.DataFrame(source.design.frame).head(1)


def some_level(fit: Any) -> Any:
    """A level of the factor whose rows lie together."""
    design = fit.design
    return (design.residual.subject if design.residual is not None else design.terms[0].group).levels[0]


FOLDER = Path(tempfile.gettempdir())


HOW: dict[str, dict[str, Callable[[Any], Any] | None]] = {
    "Fit": {
        "bootstrap": lambda fit: fit.bootstrap(50, seed=1),
        "check_inference": lambda fit: fit.check_inference(50, seed=1),
        "contrast": lambda fit: fit.contrast({"a": {fit.fixef.index[-1]: 1.0}}),
        "contrast_rows": lambda fit: fit.contrast_rows(few(fit)),
        "emmeans": lambda fit: fit.emmeans("arm"),
        "emtrends": lambda fit: fit.emtrends("x", "arm"),
        "expanded": lambda fit: fit.expanded(np.asarray(fit.fixef_kept)),
        "marginal_cov": lambda fit: fit.marginal_cov(some_level(fit)),
        "power": lambda fit: fit.power(fit.fixef.index[-1], nsim=50, seed=1),
        "ratio": None,
        "refit": lambda fit: fit.refit(np.asarray(fit.model.y) + 0.1),
        "report": lambda fit: fit.report(path=FOLDER / "report.html"),
        "save": lambda fit: fit.save(FOLDER / "fit.blm"),
        "simulate": lambda fit: fit.simulate(20, seed=1),
        "to_marginaleffects": None,
        "warning": None,
        "with_params": lambda fit: fit.with_params(sigma=1.0),
    },
    "Posterior": {
        "contrast": lambda post: post.contrast({"a": {post.coef_names[-1]: 1.0}}),
        "emmeans": lambda post: post.emmeans("arm"),
        "emtrends": lambda post: post.emtrends("x", "arm"),
        "hypothesis": lambda post: post.hypothesis(f"{post.coef_names[-1]} > 0"),
        "kfold": lambda post: post.kfold(k=3, by="observation"),
        "log_evidence": None,
        "posterior_predictive": lambda post: post.posterior_predictive(),
        "rope": lambda post: post.rope(-0.1, 0.1),
        "save": lambda post: post.save(FOLDER / "post.blm"),
        "reshape_draws": lambda post: post.reshape_draws(post.draws.alpha),
        "update": None,
    },
    "EMMeans": {"within": lambda means: means.within("arm"), "plot": lambda means: means.plot()},
    "FitPlots": {
        "bootstrap": lambda plot: plot.bootstrap(50, seed=1),
        "effects": lambda plot: plot.effects("arm"),
        "emmeans": lambda plot: plot.emmeans("arm"),
        "influence": lambda plot: plot.influence("g"),
        "lines": lambda plot: plot.lines("x"),
        "subgroups": None,
    },
    "PosteriorPlots": {
        "subgroups": None,
        "effects": lambda plot: plot.effects("arm"),
        "emmeans": lambda plot: plot.emmeans("arm"),
        "lines": lambda plot: plot.lines("x"),
    },
}
"""How a verb with arguments is asked; None: it asks for another package, for other priors, or is measured by another line."""

MORE: dict[str, dict[str, Callable[[Any], Any]]] = {
    "Fit": {
        "tidy kenward-roger": lambda fit: fit.tidy(df="kenward-roger"),
        "tidy CR2": lambda fit: fit.tidy(vcov="CR2"),
        "ranef se": lambda fit: fit.ranef(se=True),
        "predict interval": lambda fit: fit.predict(interval="prediction"),
        "predict one row": lambda fit: fit.predict(few(fit), interval="prediction"),
        "influence g": lambda fit: fit.influence("g"),
        "sample": lambda fit: fit.model.sample(seed=1, draws=DRAWS // CHAINS, chains=CHAINS),
    },
    "Posterior": {
        "predict interval": lambda post: post.predict(interval="prediction", seed=1),
        "loo by g": lambda post: post.loo(by="group", group="g"),
    },
    "EMMeans": {"pairs tukey": lambda means: means.pairs(adjust="tukey")},
    "FitPlots": {"all": lambda plot: plot()},
    "PosteriorPlots": {
        "subgroups": None,
    },
}


@cache
def classes() -> dict[str, type]:
    from bayeslmm.bayes.posterior.plots import PosteriorPlots
    from bayeslmm.bayes.posterior.posterior import Posterior
    from bayeslmm.inference.means.emmeans import EMMeans
    from bayeslmm.model.fit import Fit
    from bayeslmm.model.fit_plots import FitPlots

    return {"Fit": Fit, "Posterior": Posterior, "EMMeans": EMMeans, "FitPlots": FitPlots, "PosteriorPlots": PosteriorPlots}


def verbs() -> Iterator[Verb]:
    """All public callables of the classes, and the variations that cost otherwise."""
    for of, kind in classes().items():
        for name in sorted(vars_of(kind)):
            how = HOW[of][name] if name in HOW[of] else _plain(kind, name)
            if how is not None:
                yield Verb(of, name, how)
        for name, how in MORE[of].items():
            yield Verb(of, name, how)


def vars_of(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))]


def _plain(kind: type, name: str) -> Callable[[Any], Any]:
    needed = [
        p.name
        for p in list(inspect.signature(getattr(kind, name)).parameters.values())[1:]
        if p.default is p.empty and p.kind not in (2, 4)
    ]
    if needed:
        raise LookupError(f"{kind.__name__}.{name} needs {', '.join(needed)}: say in HOW how it is asked")
    return lambda source: getattr(source, name)()


# -- the worker --------------------------------------------------------------------------------------------------------------------------


def count_numbers(value: Any) -> int:
    """How many numbers an answer holds."""
    if isinstance(value, pd.DataFrame | pd.Series | np.ndarray):
        return int(value.size)
    if isinstance(value, dict):
        return sum(map(count_numbers, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(count_numbers, value))
    if is_dataclass(value) and not hasattr(value, "problem"):
        return sum(count_numbers(getattr(value, f.name)) for f in fields(value) if f.name not in ("fit", "model", "post"))
    return 1


def cold(source: Any) -> Any:
    """The same object with nothing kept that it works out when asked."""
    fresh = copy.copy(source)
    for name in [key for key in vars(source) if isinstance(inspect.getattr_static(type(source), key, None), cached_property)]:
        del fresh.__dict__[name]
    return fresh


class Session:
    """A model at one size in this process; a verb is asked of a new fit of it."""

    def __init__(self, letter: str, size: int) -> None:
        design = DESIGNS[letter]
        formula = design.formula.replace("{columns}", " + ".join(f"x{i}" for i in range(size)))
        frame = design.data(size)
        for _ in range(2):  # imports and code warm
            begin = time.process_time()
            self.model = blm.LMM(formula, frame, **design.options)
            middle = time.process_time()
            self.fit = self.model.fit()
            self.prepared = {"LMM": middle - begin, "fit": time.process_time() - middle}
        self.post: Any = None

    def source(self, of: str) -> Any:
        if of.startswith("Posterior"):
            self.post = self.model.sample(seed=1, draws=DRAWS // CHAINS, chains=CHAINS) if self.post is None else self.post
            return cold(self.post) if of == "Posterior" else cold(self.post).plot
        fit = self.model.fit()
        return {"Fit": lambda: fit, "EMMeans": lambda: fit.emmeans("arm"), "FitPlots": lambda: fit.plot}[of]()

    def measure(self, verb: Verb) -> dict[str, Any]:
        """Processor seconds, MB, numbers; or the refusal."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = self.source(verb.of)
            took: list[float] = []

            def ask() -> Any:
                begin = time.process_time()
                found = verb.ask(source)
                took.append(time.process_time() - begin)
                return found

            try:
                value, peak = peak_over(ask)
            except (blm.errors.BayesLMMError, MemoryError) as error:
                return {"error": f"{type(error).__name__}: {error}".split("\n")[0][:90]}
            finally:
                plt.close("all")
        return {"seconds": took[0], "megabytes": peak / 1e6, "numbers": count_numbers(value)}


def work() -> None:
    """Answer requests, one a line."""
    known = {(verb.of, verb.name): verb for verb in verbs()}
    warm: set[tuple[str, str]] = set()
    session: Session | None = None
    small: Session | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if "size" in request:
            least = min(DESIGNS[request["design"]].sizes)
            small = small or Session(request["design"], least)
            session = small if request["size"] == least else Session(request["design"], request["size"])
            gc.collect()
            gc.freeze()  # collecting what stays would take longer than most verbs
            answer = dict(session.prepared)
        else:
            assert session is not None and small is not None
            key = (request["of"], request["name"])
            if key not in warm:
                small.measure(known[key])  # what it imports
                warm.add(key)
            answer = session.measure(known[key])
        print(json.dumps(answer), flush=True)


# -- the table ---------------------------------------------------------------------------------------------------------------------------

BEFORE: dict[tuple[str, str, str], dict[int, float]] = {
    ("A", "Fit", "bootstrap"): {1_000: 0.010, 10_000: 0.050, 100_000: 0.53, 1_000_000: 4.8},
    ("A", "Fit", "simulate"): {1_000: 0.002, 10_000: 0.007, 100_000: 0.058, 1_000_000: 0.7},
    ("A", "Fit", "tidy CR2"): {1_000: 0.008, 10_000: 0.025, 100_000: 0.12, 1_000_000: 2.2},
    ("A", "Fit", "influence g"): {1_000: 0.028, 10_000: 0.32, 100_000: 3.2, 1_000_000: math.inf},
    ("A", "Fit", "sample"): {1_000: 0.07, 10_000: 0.26, 100_000: 2.5, 1_000_000: 34.0},
    ("A", "Posterior", "summary"): {10_000: 2.9},
    ("A", "Posterior", "loo"): {10_000: 6.2, 100_000: math.inf},
    ("A", "Posterior", "loo by g"): {10_000: 2.7, 100_000: math.inf},
    ("A", "Posterior", "r2"): {10_000: 1.4, 100_000: 8.9},
    ("A", "Posterior", "posterior_predictive"): {10_000: 2.9, 100_000: math.inf},
    ("B", "Fit", "predict interval"): {1_000: 0.006, 10_000: 0.054, 100_000: 1.1},
    ("B", "Fit", "influence"): {10_000: 0.053, 100_000: 1.35},
    ("B", "Fit", "influence g"): {10_000: 1.7, 100_000: math.inf},
    ("B", "Fit", "sample"): {10_000: 10.5},
    ("C", "Fit", "influence g"): {10_000: 0.64, 100_000: 20.8},
    ("C", "Fit", "sample"): {10_000: 7.6},
    ("D", "Fit", "tidy kenward-roger"): {10_000: 0.092, 100_000: 0.66},
    ("D", "Fit", "predict one row"): {100_000: 0.010},
    ("D", "Fit", "influence g"): {10_000: 35.0, 100_000: math.inf},
    ("E", "Fit", "influence g"): {10_000: 3.7, 100_000: math.inf},
    ("E", "Fit", "simulate"): {10_000: 0.034, 100_000: 0.54},
    ("H", "Fit", "bootstrap"): {1_000: 3.3, 100_000: math.inf},
    ("H", "Fit", "profile"): {1_000: 2.0, 100_000: 9.6},
    ("F", "Fit", "anova"): {30: 0.042, 100: 0.214, 300: 5.0},
    ("F", "Fit", "sample"): {30: 0.66, 100: 7.7},
    ("F", "Fit", "emmeans"): {100: math.inf},
    ("G", "Fit", "anova"): {10: 0.015, 100: 0.069, 500: 4.5},
    ("I", "Fit", "summary"): {180: 0.0025},
    ("I", "Fit", "emmeans"): {180: 0.0030},
    ("I", "EMMeans", "pairs tukey"): {180: 0.0098},
    ("I", "Fit", "report"): {180: 0.64},
    ("I", "FitPlots", "all"): {180: 0.74},
    ("I", "FitPlots", "profile"): {180: 2.1},
}
"""Processor seconds of version 0.1, taken to as many replicates as here; inf: it ended in a MemoryError, an error or after 35 s."""

REASONS = {
    "bootstrap": "50 refits",
    "check_inference": "50 data sets, each fitted and tested",
    "power": "50 data sets, each fitted and tested",
    "profile": "a search at every point of every profile",
    "ranova": "a fit without each random term",
    "influence g": "a fit without each level",
    "influence": "a fit without each level, for the figure",
    "kfold": "the posterior of every fold",
    "sample": "draws of all parameters and random effects",
    "loo": "draws x rows log densities",
    "loo by g": "a density of every level at every draw",
    "log_likelihood": "draws x rows log densities",
    "sensitivity": "draws x rows log densities",
    "posterior_predictive": "draws x rows outcomes",
    "predict interval": "as many numbers as rows, each with a variance",
    "predictive": "draws x rows outcomes",
    "report": "figures and every table",
    "all": "four figures, of which Matplotlib's text takes half a second",
    "confint": "profiles, or a figure",
    "refit": "a fit",
    "prior_predictive": "draws x rows outcomes",
    "simulate": "20 responses: more numbers than rows",
    "save": "the rows are written",
    "tidy kenward-roger": "second derivatives of V, and X'V^-1 X of every pair of parameters",
}
"""Why a verb may cost more than LMM() and fit() together."""


@dataclass
class Line:
    """A verb of one design: size -> its answer."""

    design: str
    verb: Verb
    cells: dict[int, dict[str, Any]]

    @property
    def exponent(self) -> float | None:
        found = [(size, cell["seconds"]) for size, cell in sorted(self.cells.items()) if "seconds" in cell]
        if len(found) < 2 or found[-1][1] < 0.004:
            return None
        (n, s), (N, S) = found[-2:]
        return math.log(S / max(s, 1e-4)) / math.log(N / n)

    def next_seconds(self, size: int) -> float:
        """What it would take at a larger size."""
        found = [(n, cell.get("seconds", math.inf)) for n, cell in sorted(self.cells.items())]
        if not found:
            return 0.0
        return found[-1][1] * (size / found[-1][0]) ** max(self.exponent or 0.0, 0.0)


def is_asked(letter: str, verb: Verb, size: int) -> bool:
    """Figures cost much the same in every design: they are drawn for few rows and for many of one."""
    return "Plots" not in verb.of or letter == "I" or (letter == "A" and size == DESIGNS[letter].sizes[2])


ORDER = (("Fit", "EMMeans"), ("Posterior",), ("FitPlots", "PosteriorPlots"))
"""What is asked first at all sizes."""


def run(letters: list[str], budget: float) -> tuple[list[Line], dict[tuple[str, int], dict[str, float]]]:
    """All cells of some designs, one process for each. budget : seconds for each design; what is left then is not tried"""
    lines, prepared = [], {}
    for letter in letters:
        own, end = [Line(letter, verb, {}) for verb in verbs()], time.monotonic() + budget
        worker: Worker | None = None
        ready = 0
        for size, line in ((size, line) for of in ORDER for size in DESIGNS[letter].sizes for line in own if line.verb.of in of):
            if not is_asked(letter, line.verb, size) or line.next_seconds(size) > LIMIT or time.monotonic() > end:
                continue
            try:
                if worker is None:
                    worker, ready = start(), 0
                if ready != size:
                    worker.limit, ready = 60.0, size
                    prepared[(letter, size)] = worker.ask(design=letter, size=size)
                    worker.limit = 4.0 * LIMIT
                line.cells[size] = worker.ask(of=line.verb.of, name=line.verb.name)
            except TookTooLongError as error:
                line.cells[size], worker = {"error": str(error)}, None
            if "status" in line.cells[size].get("error", ""):
                worker = None
        if worker is not None:
            worker.close()
        print(letter, file=sys.stderr, flush=True)
        lines += own
    return lines, prepared


def start() -> Worker:
    return Worker([sys.executable, "-W", "ignore", "-m", "benchmarks.verbs", "--work"], limit=60.0, threads=1)


def page(lines: list[Line], prepared: dict[tuple[str, int], dict[str, float]]) -> str:
    """The tables, and what breaks the rule."""
    out = [HEADER]
    broken = []
    for letter in dict.fromkeys(line.design for line in lines):
        design = DESIGNS[letter]
        sizes = [size for size in design.sizes if (letter, size) in prepared]
        out += [f"\n## {letter}: {design.title}\n", f"`{design.formula}` {design.options or ''}\n"]
        out += [
            "| verb | " + " | ".join(f"{size:,}" for size in sizes) + " | exponent | MB | before |",
            "|---|" + "---|" * (len(sizes) + 3),
        ]
        for name in ("LMM", "fit"):
            out.append(f"| **{name}()** | " + " | ".join(_seconds(prepared[(letter, size)].get(name)) for size in sizes) + " | | | |")
        for line in lines:
            if line.design != letter or not line.cells:
                continue
            before = BEFORE.get((letter, line.verb.of, line.verb.name), {})
            told = "; ".join(f"{n:,}: {'failed' if math.isinf(s) else _seconds(s)}" for n, s in before.items())
            largest = max(line.cells)
            cells = [_cell(line.cells.get(size)) for size in sizes]
            memory = line.cells[largest].get("megabytes")
            shown = f"{memory:.0f}" if memory is not None else ""
            exponent = "" if line.exponent is None else f"{line.exponent:.1f}"
            out.append(f"| {line.verb.of}.{line.verb.name} | {' | '.join(cells)} | {exponent} | {shown} | {told} |")
            limit = sum(prepared[(letter, largest)].get(name, 0.0) for name in ("LMM", "fit"))
            cell, rows_there = line.cells[largest], largest if letter not in "FG" else 10_000
            if (
                cell.get("seconds", math.inf) > max(limit, FLOOR)
                and cell.get("numbers", 0) <= rows_there
                and "Error" not in cell.get("error", "")
            ):
                took = cell.get("seconds")
                times = "more than the limit" if took is None else f"{took / limit:.1f} times"
                reason = REASONS.get(line.verb.name) or _other_reason(line)
                broken.append(f"| {letter} {largest:,} | {line.verb.of}.{line.verb.name} | {times} | {reason} |")
    out += [
        "\n## Dearer than `LMM()` and `fit()` together\n",
        "At the largest size that was tried, with no more numbers in its answer than rows.\n",
    ]
    out += ["| design | verb | cost | reason |", "|---|---|---|---|", *broken, ""]
    return "\n".join(out)


FLAT = 0.6
"""Exponent below which what is spent is mostly spent on any number of rows."""


def _other_reason(line: Line) -> str:
    if "Plots" in line.verb.of or "plot" in line.verb.name:
        return "a figure"
    return "a table's own cost: it grows slower than the rows" if line.exponent is not None and line.exponent < FLAT else "**none**"


HEADER = f"""# What every verb costs

Processor seconds of every public callable of `Fit`, `Posterior`, `EMMeans` and their figures after a fit, at several sizes; caches are
cold, imports warm. The rule: a verb after a fit costs less than `LMM()` and `fit()` together, unless it returns more numbers than rows, and
needs no more memory than its answer and the sums. MB: the peak over the data and the fit at the largest size.

A verb that would take more than {LIMIT:.0f} s is not tried at the next size, nor is what a design's share of the clock did not reach.
"before": the same in version 0.1. Posteriors have {DRAWS:,} draws, `bootstrap`, `power` and `check_inference` 50 replicates, `simulate` 20.

To make it again: `make bench-verbs`.

{machine(1)}
"""


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{1e3 * value:.1f} ms" if value < 0.1 else f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    return _seconds(cell["seconds"]) if "seconds" in cell else cell["error"].split(":")[0]


def peers() -> str:
    """The same questions asked of R's packages, where `Rscript` has them."""
    script = Path(__file__).with_name("verbs.R")
    try:
        done = subprocess.run(["Rscript", str(script)], capture_output=True, text=True, timeout=240, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("designs", nargs="*", default=[])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--work", action="store_true")
    parser.add_argument("--budget", type=float, default=300.0, help="seconds for each design")
    asked = parser.parse_args()
    if asked.work:
        work()
        return
    lines, prepared = run(asked.designs or list(DESIGNS), asked.budget)
    text = page(lines, prepared) + "\n" + peers()
    if asked.write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
