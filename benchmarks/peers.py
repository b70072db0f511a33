"""Each library behind one protocol: hand over a problem and a frame, get back a function that fits once."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.problems import Problem


class CannotExpressError(Exception):
    """The library has no way to write the model, or no memory to hold it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a fit says of itself.

    criterion : -2 log likelihood, in its REML form where that was asked for
    evaluations : of the criterion; None where the library does not tell
    """

    criterion: float
    evaluations: int | None = None


Fit = Callable[[], Outcome]


@dataclass(frozen=True, slots=True)
class Peer:
    """A library; `model` gives the formula and the method of what it really fits, `prepare` the function that is timed."""

    name: str
    package: str
    prepare: Callable[[Problem, pd.DataFrame], Fit]
    model: Callable[[Problem], tuple[str, str]] = lambda problem: (problem.formula, problem.method)

    def version(self) -> str:
        return importlib.metadata.version(self.package)


def prepare_bayeslmm(problem: Problem, data: pd.DataFrame) -> Fit:
    import bayeslmm as blm

    def fit() -> Outcome:
        done = blm.LMM(problem.formula, data).fit(problem.method)
        return Outcome(float(done.criterion), len(done.path))

    return fit


def prepare_statsmodels(problem: Problem, data: pd.DataFrame) -> Fit:
    from statsmodels.regression.mixed_linear_model import MixedLM

    first, *others = problem.groups
    widths = [int(data.groupby(list(columns), observed=True).ngroups) for columns in problem.groups]
    nested = all(set(first) <= set(columns) for columns in others)
    if others and not nested and len(data) * sum(widths) * 8 > 2e9:
        raise CannotExpressError(f"crossed factors need a dense matrix of {len(data) * sum(widths) * 8 / 1e9:.0f} GB")
    frame = data.copy()
    named = {columns: frame[list(columns)].astype(str).agg(":".join, axis=1) for columns in problem.groups} if others else {}
    one_group = np.ones(len(frame), dtype=np.int64)

    def fit() -> Outcome:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not others:
                re_formula = "1" if problem.slope is None else f"~{problem.slope}"
                model = MixedLM.from_formula(problem.fixed, frame, groups=frame[first[0]], re_formula=re_formula)
            else:
                crossing = {"_".join(columns): "0 + C(factor)".replace("factor", "_".join(columns) + "_") for columns in problem.groups}
                table = frame.assign(**{"_".join(columns) + "_": labels for columns, labels in named.items()})
                if nested:
                    crossing.pop("_".join(first))
                    model = MixedLM.from_formula(problem.fixed, table, groups=table[first[0]], re_formula="1", vc_formula=crossing)
                else:
                    model = MixedLM.from_formula(problem.fixed, table, groups=one_group, re_formula="0", vc_formula=crossing)
            done = model.fit(reml=problem.method == "REML")
        return Outcome(-2.0 * float(done.llf))

    return fit


def prepare_mixedlm(problem: Problem, data: pd.DataFrame) -> Fit:
    import mixedlm

    def fit() -> Outcome:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = mixedlm.lmer(problem.formula, data, REML=problem.method == "REML")
        return Outcome(float(done.deviance), int(done.function_evals))

    return fit


def prepare_lme_python(problem: Problem, data: pd.DataFrame) -> Fit:
    import lme_python
    import polars

    frame = polars.from_pandas(data.astype(dict.fromkeys(problem.factors, str)))  # its own kind of frame, factors as text

    def fit() -> Outcome:
        done = lme_python.lmer(problem.formula, frame, problem.method == "REML")
        return Outcome(float(done.deviance), done.iterations)

    return fit


def prepare_gpboost(problem: Problem, data: pd.DataFrame) -> Fit:
    import gpboost

    factors = np.column_stack([data[list(columns)].astype(str).agg(":".join, axis=1) for columns in problem.groups])
    response, _, rest = problem.fixed.partition(" ~ ")
    covariates = [] if rest == "1" else [rest]
    y = data[response].to_numpy(dtype=np.float64)
    X = np.column_stack([np.ones(len(data)), *(data[name].to_numpy(dtype=np.float64) for name in covariates)])
    slopes: dict[str, Any] = {}
    if problem.slope is not None:
        slopes = {"group_rand_coef_data": data[[problem.slope]].to_numpy(dtype=np.float64), "ind_effect_group_rand_coef": [1]}

    def fit() -> Outcome:
        model = gpboost.GPModel(group_data=factors, likelihood="gaussian", **slopes)
        model.fit(y=y, X=X)
        return Outcome(2.0 * float(model.get_current_neg_log_likelihood()), int(model._get_num_optim_iter()))

    return fit


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("bayeslmm", "bayeslmm", prepare_bayeslmm),
        Peer("statsmodels", "statsmodels", prepare_statsmodels),
        Peer("mixedlm", "mixedlm", prepare_mixedlm),
        Peer("lme-python", "lme-python", prepare_lme_python),
        # by maximum likelihood only, and without a correlation of intercept and slope
        Peer("gpboost", "gpboost", prepare_gpboost, lambda problem: (problem.uncorrelated(), "ML")),
    )
}
PROVISIONS = {name: peer.package for name, peer in PEERS.items() if name != "bayeslmm"}
