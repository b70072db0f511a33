"""Likelihood-ratio tests of nested models, and of the random terms of one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.covariance import make
from bayeslmm.data.design import Design, RandomTerm
from bayeslmm.data.terms import Term, expand
from bayeslmm.errors import BayesLMMWarning, InferenceError
from bayeslmm.estimate.estimate import Estimate
from bayeslmm.estimate.settle import settled
from bayeslmm.inference.fitted import Fitted
from bayeslmm.inference.mixture import mixture
from bayeslmm.likelihood.criterion import Method
from bayeslmm.likelihood.problem import build


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A model with its likelihood: npar counts coefficients, covariance parameters and sigma."""

    label: str
    design: Design
    npar: int
    criterion: float

    @property
    def aic(self) -> float:
        return self.criterion + 2.0 * self.npar

    @property
    def bic(self) -> float:
        return self.criterion + float(np.log(self.design.nobs)) * self.npar


def candidate(label: str, design: Design, found: Estimate) -> Candidate:
    """The likelihood of an estimate and what it counts."""
    return Candidate(label, design, len(found.alpha) + len(found.x) + 1, found.criterion)


# -- lrt -------------------------------------------------------------------------------------------------------------------------------


def lrt(*fits: Fitted, boundary: bool = True) -> pd.DataFrame:
    """Compare nested models: `model, npar, aic, bic, loglik, statistic, df, p_value`, each row against the one before it.

    Models stand in the order of their number of parameters. REML fits with different fixed effects are refitted by ML, with one warning.
    boundary : p values of variances tested at 0 from their mixture of chi-squares; False gives the plain chi-square

    Errors: `InferenceError` for fewer than two fits, or fits to different data.

    >>> lrt(fit.update(". ~ . - (Days | Subject) + (1 | Subject)"), fit)["df"].tolist()[1:]
    [2.0]
    """
    if len(fits) < 2:
        raise InferenceError("a likelihood-ratio test compares two fits or more", f"{len(fits)} given", "lrt(small, large)")
    for fit in fits:
        if not hasattr(fit, "estimate"):
            raise InferenceError(f"a {type(fit).__name__} is no fit", "lrt", "lrt(small, large), each made by LMM.fit")
    demand_same_data(fits)
    method = common_method(fits)
    if any(fit.estimate.method != method for fit in fits):
        what = "models with different fixed effects, or fitted by different methods, are compared after refitting them by ML"
        warnings.warn(BayesLMMWarning(what, "lrt", "fit them by 'ML' yourself to be rid of this warning"), stacklevel=2)
    return _table([_refitted(fit, method) for fit in fits], boundary)


def _refitted(fit: Fitted, method: Method) -> Candidate:
    found = fit.estimate if fit.estimate.method == method else settled(fit.problem, method)[1]
    return candidate(fit.design.spec.formula.text, fit.design, found)


def common_method(fits: Sequence[Fitted]) -> Method:
    """REML where all are REML fits with the same columns of X."""
    first = fits[0].design
    same = all(f.design.X.shape == first.X.shape and np.array_equal(f.design.X, first.X) for f in fits)
    return "REML" if same and all(f.estimate.method == "REML" for f in fits) else "ML"


def demand_same_data(fits: Sequence[Fitted]) -> None:
    first = fits[0].design
    for fit in fits[1:]:
        own = fit.design
        if own.nobs != first.nobs or not np.array_equal(own.y, first.y):
            raise InferenceError(
                "models fitted to different data cannot be compared by their likelihoods",
                f"{first.nobs} rows in the first, {own.nobs} in another" if own.nobs != first.nobs else "the responses differ",
                "fit all models to the same rows: drop those with missing values beforehand",
            )


def _table(found: Sequence[Candidate], boundary: bool) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    before: Candidate | None = None
    for one in sorted(found, key=lambda c: c.npar):
        row: dict[str, object] = {"model": one.label, "npar": one.npar, "aic": one.aic, "bic": one.bic, "loglik": -0.5 * one.criterion}
        row |= {"statistic": np.nan, "df": np.nan, "p_value": np.nan} if before is None else _against(before, one, boundary)
        rows.append(row)
        before = one
    return pd.DataFrame(rows)


def _against(null: Candidate, alternative: Candidate, boundary: bool) -> dict[str, object]:
    statistic, df = null.criterion - alternative.criterion, alternative.npar - null.npar
    return {"statistic": statistic, "df": float(df), "p_value": p_value(null.design, alternative.design, statistic, df, boundary)}


def p_value(null: Design, alternative: Design, statistic: float, df: int, boundary: bool) -> float:
    """From the mixture where a variance is tested at 0, else from chi-square."""
    if df <= 0:
        return float("nan")
    mixed = mixture(null, alternative, df) if boundary else None
    return mixed.p_value(statistic) if mixed is not None else float(stats.chi2.sf(statistic, df))


# -- ranova ----------------------------------------------------------------------------------------------------------------------------


def ranova(fit: Fitted, boundary: bool = True) -> pd.DataFrame:
    """Likelihood-ratio tests of the random terms: `term, npar, loglik, aic, statistic, df, p_value`, the full model first.

    `(1 | g)` is left out whole; `x in (x | g)` leaves x out of the term. Every model is fitted by the method of the fit.
    boundary : as in `lrt`

    >>> ranova(fit)["term"].tolist()
    ['<none>', 'Days in (Days | Subject)']
    """
    method: Method = "ML" if fit.estimate.method == "ML" else "REML"
    if fit.estimate.method == "MAP":
        raise InferenceError("a MAP fit maximises no likelihood", "ranova", "fit by 'REML' or 'ML'")
    if not fit.design.terms:
        raise InferenceError("the model has no random terms", "ranova", "compare models by lrt(small, large)")
    full = candidate("<none>", fit.design, fit.estimate)
    rows = [_ranova_row(full)]
    for label, design in reductions(fit.design):
        found = settled(build(design), method)[1]
        one = candidate(label, design, found)
        statistic, df = one.criterion - full.criterion, full.npar - one.npar
        rows.append(_ranova_row(one, statistic, float(df), p_value(design, fit.design, statistic, df, boundary)))
    return pd.DataFrame(rows)


def _ranova_row(one: Candidate, statistic: float = np.nan, df: float = np.nan, p: float = np.nan) -> dict[str, object]:
    row: dict[str, object] = {"term": one.label, "npar": one.npar, "loglik": -0.5 * one.criterion, "aic": one.aic}
    return row | {"statistic": statistic, "df": df, "p_value": p}


def reductions(design: Design) -> list[tuple[str, Design]]:
    """Every design with one random term less, or with one variable less in it."""
    found = []
    for i, term in enumerate(design.terms):
        others = design.terms[:i], design.terms[i + 1 :]
        dropped = _droppable(term)
        if not dropped:
            found.append((f"({shown(term)})", replace(design, terms=(*others[0], *others[1]))))
        for gone in dropped:
            kept = _without(design, i, gone)
            found.append((f"{gone.name} in ({shown(term)})", replace(design, terms=(*others[0], *kept, *others[1]))))
    return found


def shown(term: RandomTerm) -> str:
    """The term as people write it: `Days | Subject`, its intercept left out where something else is there."""
    text = term.spec.text
    return text.removeprefix("1 + ") if text.startswith("1 + ") else text


def _droppable(term: RandomTerm) -> list[Term]:
    """Variables that can leave a term: those in no interaction with others there; none where the structure needs all its columns."""
    if term.covariance.name not in ("us", "un", "diag"):
        return []
    own = [t for t in expand(term.spec.left) if t.atoms]
    return [t for t in own if not any(set(t.atoms) < set(o.atoms) for o in own)]


def _without(design: Design, position: int, gone: Term) -> tuple[RandomTerm, ...]:
    """The term without the columns of one variable; nothing if none are left."""
    term = design.terms[position]
    names = design.encoding.random_coders[position].block.terms
    stay = [j for j, name in enumerate(names) if frozenset(name.split(":")) != frozenset(gone.name.split(":"))]
    if not stay:
        return ()
    columns = tuple(term.columns[j] for j in stay)
    return (replace(term, Z=np.ascontiguousarray(term.Z[:, stay]), columns=columns, covariance=make(term.covariance.name, len(stay))),)
