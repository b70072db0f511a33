"""Likelihood-ratio tests: nested models, random terms, variances at 0 (chi-bar-square), exact and bootstrap versions.

A column added to a random term brings a variance that cannot be negative, and covariances with the other columns that are free. One column:
half chi2(d - 1), half chi2(d) with d the parameters added (Self and Liang 1987; Stram and Lee 1994). Several columns in terms of their own:
binomial weights. k columns in one unstructured term: the cone of positive semi-definite k x k matrices, whose weights are known for k = 2
and simulated for more. Weights are those of an identity information: exact for one column, an approximation for several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import takewhile
from math import sqrt
from typing import Protocol

import numpy as np
import pandas as pd
from scipy import special

from bayeslmm._arrays import Array, freeze, generator
from bayeslmm._types import LikelihoodKind
from bayeslmm._validation import require_flag
from bayeslmm.covariance.registry import make
from bayeslmm.data.design import Design, RandomTerm
from bayeslmm.data.model_matrix import DesignBlock, Term
from bayeslmm.errors import BayesLMMError, BayesLMMWarning, InferenceError, SpecificationError, warn_user
from bayeslmm.estimate.estimate import Estimate, Fitted
from bayeslmm.estimate.reweighting import fit_reweighted
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.likelihood.threads import one_thread
from bayeslmm.partitions.fewer_terms import problem_with_terms, standing_rows
from bayeslmm.results.estimates import InformationCriteria
from bayeslmm.results.fitted import simulate_frame
from bayeslmm.results.foreign_names import answers_keywords

CONE_DRAWS = 20_000
"""Draws for a cone of 3 x 3 matrices or larger."""

HALF_WEIGHTS = np.array([0.5, 0.5])
CONE_WEIGHTS = np.array([(1.0 - sqrt(0.5)) / 2.0, sqrt(0.125), sqrt(0.125), (1.0 - sqrt(0.5)) / 2.0])


@dataclass(frozen=True, slots=True)
class ChiBarSquare:
    """blocks : sizes of the cones, one for each unstructured set of columns tested at 0; free : parameters tested inside their range."""

    blocks: tuple[int, ...]
    free: int

    def p_value(self, statistic: float) -> float:
        """P(statistic or larger)."""
        if not np.isfinite(statistic):
            return float("nan")
        if statistic <= 0.0:
            return 1.0
        known = [HALF_WEIGHTS if k == 1 else CONE_WEIGHTS for k in self.blocks if k <= 2]
        weights: Array = reduce(np.convolve, known, np.ones(1))
        apart = sum((_cone_draws(k) for k in self.blocks if k > 2), start=np.zeros(1))
        tails = [w * np.mean(_tail(statistic - apart, j + self.free)) for j, w in enumerate(weights)]
        return float(sum(tails))


def _tail(value: Array, df: int) -> Array:
    """chi2 with 0 degrees of freedom is 0."""
    return np.asarray((value <= 0.0).astype(float) if df == 0 else special.chdtrc(df, np.maximum(value, 0.0)))


def _cone_draws(k: int) -> Array:
    """Squared length of a standard normal symmetric matrix projected on the positive semi-definite ones, (DRAWS,)."""
    rng = np.random.default_rng(k)
    M = rng.standard_normal((CONE_DRAWS, k, k))
    # unit variance on the diagonal, one half off it: standard normal in the Frobenius norm
    values = np.linalg.eigvalsh((M + M.swapaxes(-1, -2)) / 2.0)
    return np.asarray(np.sum(np.maximum(values, 0.0) ** 2, axis=1))


def chi_bar_square(null: Design, alternative: Design, added: int) -> ChiBarSquare | None:
    """What a likelihood ratio of two designs is compared with; None where no variance is tested at 0, or which ones cannot be told.

    added : parameters that the alternative has more
    """
    blocks = added_columns(null, alternative)
    if not blocks:
        return None
    free = added - sum(k * (k + 1) // 2 for k in blocks)
    return ChiBarSquare(tuple(blocks), free) if free >= 0 else None


def added_columns(null: Design, alternative: Design) -> list[int]:
    """Sizes of the sets of random columns that only the alternative has; empty where the null is not the alternative without some."""
    if (null.residual is None) != (alternative.residual is None):
        return []
    had, blocks = _columns(null), []
    if not set(had) <= set(_columns(alternative)):
        return []
    for term in alternative.terms:
        new = [c for c in term.columns if (term.group.name, c) not in had]
        if not new:
            continue
        if _independent(term):
            blocks += [1] * len(new)
        elif term.covariance.name in ("us", "un"):
            blocks.append(len(new))
        else:
            return []
    return blocks


def _columns(design: Design) -> list[tuple[str, str]]:
    return [(term.group.name, column) for term in design.terms for column in term.columns]


def _independent(term: RandomTerm) -> bool:
    return term.covariance.name == "diag" or len(term.columns) == 1


class CountedFit(Fitted, Protocol):
    """A fit that knows what its information criteria count."""

    @property
    def counts(self) -> InformationCriteria: ...


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A model with its likelihood: npar counts coefficients, covariance parameters and sigma."""

    label: str
    design: Design
    npar: int
    criterion: float
    counts: InformationCriteria


def make_candidate(label: str, design: Design, found: Estimate, fit: CountedFit) -> Candidate:
    """The likelihood of an estimate and what it counts, by the rule of the fit that it is one of."""
    counts = replace(
        fit.counts,
        restricted=found.method == "REML",
        criterion=found.criterion,
        covariance=fit.counts.covariance + len(found.x) - len(fit.estimate.x),
    )
    return Candidate(label, design, len(found.alpha) + len(found.x) + 1, found.criterion, counts)


# -- lrt -------------------------------------------------------------------------------------------------------------------------------


@answers_keywords
def lrt(*fits: CountedFit, boundary: bool = True) -> pd.DataFrame:
    """Compare nested models: `model, npar, aic, bic, loglik, statistic, df, p_value`, each row against the one before it.

    Models stand in the order of their number of parameters. REML fits with different fixed effects are refitted by ML, with one warning.

    Parameters
    ----------
    *fits : Fit
        Two fits or more of the same data.
    boundary : bool, default True
        P values of variances tested at 0 from their mixture of chi-squares; False gives the plain chi-square.

    Returns
    -------
    DataFrame
        One row for each model.

    Raises
    ------
    InferenceError
        For fewer than two fits, or fits to different data.

    Examples
    --------
    >>> lrt(fit.update(". ~ . - (Days | Subject) + (1 | Subject)"), fit)["df"].tolist()[1:]
    [2.0]
    """
    require_flag(boundary, "boundary")
    if len(fits) < 2:
        raise InferenceError("a likelihood-ratio test compares two fits or more", f"{len(fits)} given", "lrt(small, large)")
    for fit in fits:
        if not hasattr(fit, "estimate"):
            raise InferenceError(f"a {type(fit).__name__} is no fit", "lrt", "lrt(small, large), each made by LMM.fit")
    require_same_data(fits)
    method = common_method(fits)
    if any(fit.estimate.method != method for fit in fits):
        what = "models with different fixed effects, or fitted by different methods, are compared after refitting them by ML"
        warn_user(BayesLMMWarning(what, "lrt", "fit them by 'ML' yourself to be rid of this warning"))
    return _table([_refit_by_ml(fit, method) for fit in fits], boundary)


def _refit_by_ml(fit: CountedFit, method: LikelihoodKind) -> Candidate:
    found = fit.estimate if fit.estimate.method == method else fit_reweighted(fit.problem, method)[1]
    return make_candidate(fit.design.spec.title, fit.design, found, fit)


def common_method(fits: Sequence[Fitted]) -> LikelihoodKind:
    """REML where all are REML fits with the same columns of X."""
    first = fits[0].design
    same = all(_same_columns(f.design, first) for f in fits)
    return "REML" if same and all(f.estimate.method == "REML" for f in fits) else "ML"


SUMMED_ALIKE = 1e-9
"""Relative difference of moments below which rows that were added up are the same rows: the order of adding leaves far less."""


def _same_columns(one: Design, other: Design) -> bool:
    """Whether two designs have the same columns of fixed effects; by their moments where rows were added up and not kept."""
    if one.in_memory and other.in_memory:
        return one.X.shape == other.X.shape and np.array_equal(one.X, other.X)
    a, b = (rows.X.T @ rows.X / len(rows.X) for rows in (one.moments, other.moments))
    if one.coef_names != other.coef_names or a.shape != b.shape:
        return False
    size = np.sqrt(np.diagonal(a))
    return bool(np.all(np.abs(a - b) <= SUMMED_ALIKE * np.outer(size, size)))


def _same_response(one: Design, other: Design) -> bool:
    """Whether two designs have the same response, in the same way."""
    if one.nobs != other.nobs or (one.in_memory and other.in_memory):
        return one.nobs == other.nobs and np.array_equal(one.y, other.y)
    a, b = ((*design.response_size, float(design.moments.y.mean())) for design in (one, other))
    return bool(np.all(np.abs(np.subtract(a, b)) <= SUMMED_ALIKE * max(a[0], b[0])))


def require_same_data(fits: Sequence[Fitted]) -> None:
    first = fits[0].design
    for fit in fits[1:]:
        own = fit.design
        if not _same_response(own, first):
            raise InferenceError(
                "models fitted to different data cannot be compared by their likelihoods",
                f"{first.nobs} rows in the first, {own.nobs} in another" if own.nobs != first.nobs else "the responses differ",
                "fit all models to the same rows: drop those with missing values beforehand",
            )


def _table(found: Sequence[Candidate], boundary: bool) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    before: Candidate | None = None
    ordered = sorted(found, key=lambda c: c.npar)
    for one, label in zip(ordered, _telling_labels([one.label for one in ordered]), strict=True):
        row: dict[str, object] = {"model": label, "npar": one.npar, "aic": one.counts.aic, "bic": one.counts.bic}
        row["loglik"] = -0.5 * one.criterion
        row |= {"statistic": np.nan, "df": np.nan, "p_value": np.nan} if before is None else _against(before, one, boundary)
        rows.append(row)
        before = one
    return pd.DataFrame(rows)


_LABEL_WIDTH = 50
"""Characters of a text that pandas shows in a table."""


def _telling_labels(labels: list[str]) -> list[str]:
    """Titles of models; where they are longer than a table shows, without what they begin with alike."""
    if max(map(len, labels)) <= _LABEL_WIDTH:
        return labels
    alike = sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*labels, strict=False)))
    return [_tail_from(label, alike) for label in labels]


def _tail_from(label: str, alike: int) -> str:
    """A title from the word on in which it differs from others, or its last words where it ends there."""
    start = label.rfind(" ", 0, max(0, min(alike, len(label) - _LABEL_WIDTH // 2))) + 1
    return f"... {label[start:]}" if start else label


def _against(null: Candidate, alternative: Candidate, boundary: bool) -> dict[str, object]:
    statistic, df = likelihood_ratio(null.criterion, alternative.criterion), alternative.npar - null.npar
    return {"statistic": statistic, "df": float(df), "p_value": p_value(null.design, alternative.design, statistic, df, boundary)}


ROUNDED_RATIO = 1e-10
"""Difference of two criteria, relative to 1 and to their size, that is rounding: a mixture's p value is 1 at 0 and one half beside it."""


def likelihood_ratio(null: float, alternative: float) -> float:
    """The difference of two criteria; 0 where that is only rounding."""
    ratio = null - alternative
    return 0.0 if abs(ratio) <= ROUNDED_RATIO * max(1.0, abs(null)) else ratio


def p_value(null: Design, alternative: Design, statistic: float, df: int, boundary: bool) -> float:
    """From the mixture where a variance is tested at 0, else from chi-square."""
    if df <= 0:
        return float("nan")
    mixed = chi_bar_square(null, alternative, df) if boundary else None
    return mixed.p_value(statistic) if mixed is not None else float(special.chdtrc(df, max(statistic, 0.0)))


# -- ranova ----------------------------------------------------------------------------------------------------------------------------


def ranova(fit: CountedFit, boundary: bool = True) -> pd.DataFrame:
    """Likelihood-ratio tests of the random terms: `term, npar, loglik, aic, statistic, df, p_value`, the full model first.

    `(1 | g)` is left out whole; `x in (x | g)` leaves x out of the term. Every model is fitted by the method of the fit.
    boundary : as in `lrt`

    >>> ranova(fit)["term"].tolist()
    ['<none>', 'Days in (Days | Subject)']
    """
    require_flag(boundary, "boundary")
    method: LikelihoodKind = "ML" if fit.estimate.method == "ML" else "REML"
    if fit.estimate.method == "MAP":
        raise InferenceError("a MAP fit maximises no likelihood", "ranova", "fit by 'REML' or 'ML'")
    if not fit.design.terms:
        raise InferenceError("the model has no random terms", "ranova", "compare models by lrt(small, large)")
    full = make_candidate("<none>", with_intercepts(standing_rows(fit.design)), fit.estimate, fit)
    rows = [_ranova_row(full)]
    for label, design in reductions(full.design):
        found = fit_reweighted(problem_with_terms(fit.design, design), method)[1]
        one = make_candidate(label, design, found, fit)
        statistic, df = likelihood_ratio(one.criterion, full.criterion), full.npar - one.npar
        rows.append(_ranova_row(one, statistic, float(df), p_value(design, full.design, statistic, df, boundary)))
    return pd.DataFrame(rows)


def _ranova_row(one: Candidate, statistic: float = np.nan, df: float = np.nan, p: float = np.nan) -> dict[str, object]:
    row: dict[str, object] = {"term": one.label, "npar": one.npar, "loglik": -0.5 * one.criterion, "aic": one.counts.aic}
    return row | {"statistic": statistic, "df": df, "p_value": p}


def with_intercepts(design: Design) -> Design:
    """The same model, in which a term that has one free effect for every level of a factor has an intercept among its columns.

    The indicators of all levels add up to 1, so that `(0 + f | g)` is `(f | g)`: what is left without f is `(1 | g)` in both.
    """
    blocks = [coder.block for coder in design.encoding.random_coders]
    terms = [_with_intercept(term, block) for term, block in zip(design.terms, blocks, strict=True)]
    return replace(design, terms=tuple(terms))


def _with_intercept(term: RandomTerm, block: DesignBlock) -> RandomTerm:
    at = block.indicators()
    if term.covariance.name not in ("us", "un") or at is None:
        return term
    others = [j for j in range(len(term.columns)) if j != at]
    Z = np.column_stack([np.ones(len(term.Z)), term.Z[:, others]])
    return replace(term, Z=Z, columns=("Intercept", *(term.columns[j] for j in others)))


def reductions(design: Design) -> list[tuple[str, Design]]:
    """Every design with one random term less, or with one variable less in it."""
    found = []
    for i, term in enumerate(design.terms):
        others = design.terms[:i], design.terms[i + 1 :]
        dropped = _droppable(term)
        written = "" if term.covariance.name in ("us", "un") else term.covariance.name
        if not dropped:
            found.append((f"({term_label(term)})", replace(design, terms=(*others[0], *others[1]))))
        for gone in dropped:
            kept = _drop_term(design, i, gone)
            found.append((f"{gone.name} in {written}({term_label(term)})", replace(design, terms=(*others[0], *kept, *others[1]))))
    return found


def term_label(term: RandomTerm) -> str:
    """The term as people write it: `Days | Subject`, its intercept left out where something else is there."""
    return term.spec.text.removeprefix("1 + ")


def _droppable(term: RandomTerm) -> list[Term]:
    """Variables that can leave a term: those in no interaction with others there; none where the structure needs all its columns."""
    if term.covariance.name not in ("us", "un", "diag"):
        return []
    own = [Term(atoms) for atoms in term.spec.terms if atoms]
    return [t for t in own if not any(set(t.atoms) < set(o.atoms) for o in own)]


def _drop_term(design: Design, position: int, gone: Term) -> tuple[RandomTerm, ...]:
    """The term without the columns of one variable; nothing if none are left."""
    term = design.terms[position]
    block = design.encoding.random_coders[position].block
    owner = dict(zip(block.names, block.terms, strict=True))
    stay = [j for j, column in enumerate(term.columns) if frozenset(owner.get(column, "").split(":")) != frozenset(gone.name.split(":"))]
    if not stay:
        return ()
    columns = tuple(term.columns[j] for j in stay)
    return (replace(term, Z=np.ascontiguousarray(term.Z[:, stay]), columns=columns, covariance=make(term.covariance.name, len(stay))),)


NORMALS_AT_ONCE = 2_000_000
"""Squared normals held at once."""

MAX_EXACT_LEVELS = 6000
"""Levels beyond which the eigenvalues of the exact test are not computed."""


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedTest:
    """A likelihood ratio and what it is compared with.

    statistic : the ratio observed; p_value : share of draws as large; draws : (n,) under the null; failed : refits without an optimum
    """

    statistic: float
    p_value: float
    draws: Array
    failed: int = 0

    def __repr__(self) -> str:
        lost = f", {self.failed} refits failed" if self.failed else ""
        return f"SimulatedTest(statistic={self.statistic:.4f}, p_value={self.p_value:.4g}, {len(self.draws)} draws{lost})"


def bootstrap_lrt(small: Fitted, large: Fitted, n: int = 1000, seed: int | None = None) -> SimulatedTest:
    """Parametric-bootstrap likelihood-ratio test: responses drawn from the small model, both models fitted to each.

    REML where both are REML fits with the same fixed effects, else ML. The p value is (1 + draws as large) / (1 + draws).

    >>> bootstrap_lrt(small, large, n=20, seed=1).failed
    0
    """
    if n < 1:
        raise SpecificationError(f"n is {n!r}", "n=", "the number of simulations, 1 or more")
    require_same_data([small, large])
    method = common_method([small, large])
    found = [fit_reweighted(f.problem, method)[1] for f in (small, large)]
    observed = likelihood_ratio(found[0].criterion, found[1].criterion)
    problem, null = small.problem, found[0]
    responses = simulate_frame(problem, null.alpha, null.theta, null.sigma, n, seed)
    draws, failed = [], 0
    for name in responses:
        y = freeze(responses[name].to_numpy())
        try:
            draws.append(_criterion(problem, y, method, null.x) - _criterion(large.problem, y, method, found[1].x))
        except (BayesLMMError, np.linalg.LinAlgError):
            failed += 1
    values = np.array(draws)
    share = (1.0 + float((values >= observed - 1e-9).sum())) / (1.0 + len(values))
    return SimulatedTest(observed, share, values, failed)


def _criterion(problem: Problem, y: Array, method: LikelihoodKind, start: Array) -> float:
    """The optimum for another response, from a start that the same design already has had."""
    again = build_problem(replace(problem.design, y=y))
    begin = np.where(np.abs(start) > 0.05, start, again.start) if len(start) else start
    return float(fit_reweighted(again, method, start=begin)[1].criterion)


def exact_rlrt(fit: Fitted, n: int = 10_000, seed: int | None = None) -> SimulatedTest:
    """The test of one variance against 0 with its exact finite-sample distribution (Crainiceanu and Ruppert 2004).

    For models with a single random term of one column and independent errors: the restricted test for REML fits, the unrestricted one for
    ML fits. No refit is needed: the likelihood ratio under the null is a function of independent normals and of two sets of eigenvalues.

    >>> exact_rlrt(fit.update(". ~ . - (Days | Subject) + (1 | Subject)"), n=1000, seed=1).p_value
    0.0
    """
    _require_one_variance(fit)
    reml = fit.estimate.method != "ML"
    method: LikelihoodKind = "REML" if reml else "ML"
    null = fit_reweighted(build_problem(replace(fit.design, terms=())), method)[1]
    observed = max(likelihood_ratio(null.criterion, fit.estimate.criterion), 0.0)
    mu, xi, rest = _eigenvalues(fit)
    rng = generator(seed)
    scale = max(float(xi.max()), 1e-300)
    ratios = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 200) / scale * max(1.0, len(mu))])
    terms = xi if not reml else mu
    df = fit.nobs - fit.problem.criterion.p if reml else fit.nobs
    logs = np.log1p(ratios[:, None] * terms).sum(1)
    shrunk = 1.0 / (1.0 + ratios[:, None] * mu)
    draws = []
    step = max(1, NORMALS_AT_ONCE // max(1, len(mu)))
    with one_thread():
        for begin in range(0, n, step):
            w = rng.chisquare(1.0, size=(min(step, n - begin), len(mu)))
            other = rng.chisquare(rest, size=len(w)) if rest > 0 else np.zeros(len(w))
            left = w @ shrunk.T + other[:, None]
            total = w.sum(1) + other
            draws.append(np.max(df * np.log(total[:, None] / left) - logs, axis=1))
    values = np.concatenate(draws)
    p = float(np.mean(values >= observed - 1e-9)) if observed > 1e-9 else 1.0
    return SimulatedTest(observed, p, values)


def _require_one_variance(fit: Fitted) -> None:
    design = fit.design
    one = len(design.terms) == 1 and design.terms[0].Z.shape[1] == 1 and design.residual is None and not design.variance
    if not one or fit.estimate.method == "MAP":
        raise InferenceError(
            "the exact distribution is known for a single variance, independent errors and a REML or ML fit",
            fit.design.spec.formula.text,
            "use bootstrap_lrt(small, large), or ranova() with its mixture of chi-squares",
        )
    if len(design.terms[0].group.levels) > MAX_EXACT_LEVELS:
        raise InferenceError(
            f"the exact test needs the eigenvalues of a matrix over {len(design.terms[0].group.levels):,} levels",
            design.terms[0].group.name,
            "use ranova(): with so many levels its mixture of chi-squares is accurate",
        )


def _eigenvalues(fit: Fitted) -> tuple[Array, Array, int]:
    """Eigenvalues of Z'P0Z and of Z'WZ (of L'Z'.. L with a relationship matrix A = L L'), and what is left of n - p."""
    design = fit.design
    term, n = design.terms[0], design.nobs
    w = np.ones(n) if design.weights is None else design.weights
    codes, K, z = term.group.codes, len(term.group.levels), term.Z[:, 0]
    c = fit.problem.standardization
    X = c.design_rows(design)
    cross = np.stack([np.bincount(codes, w * z * column, K) for column in X.T]) if X.shape[1] else np.zeros((0, K))
    own = np.diag(np.bincount(codes, w * z**2, K))
    gram = (X * w[:, None]).T @ X
    left = own - (cross.T @ np.linalg.solve(gram, cross) if len(gram) else 0.0)
    if term.relationship is not None:
        values, vectors = np.linalg.eigh(term.relationship)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        own, left = root.T @ own @ root, root.T @ left @ root
    mu = np.maximum(np.linalg.eigvalsh(left), 0.0)
    mu = mu[mu > 1e-10 * mu.max()]
    return mu, np.maximum(np.linalg.eigvalsh(own), 0.0), n - X.shape[1] - len(mu)
