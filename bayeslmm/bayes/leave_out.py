"""A model without some of its rows, on the axes and under the priors of the whole: what leaving out needs, for any design.

For every draw of the covariance parameters  log p(y_out | y_in, phi) = log p(y | phi) - log p(y_in | phi),  both by the kernel, alpha and
beta integrated out; so no covariance matrix of rows is ever formed, and crossed factors are as easy as one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bayeslmm.arrays import Array, Codes
from bayeslmm.bayes.density import Density, arranged
from bayeslmm.bayes.importance import sample_importance
from bayeslmm.bayes.mode import find_mode
from bayeslmm.data.design import Design, GroupingFactor, RandomTerm, ResidualDesign
from bayeslmm.errors import InferenceError
from bayeslmm.likelihood.criterion import one_thread
from bayeslmm.likelihood.problem import Problem, build
from bayeslmm.likelihood.subjects import SubjectsKernel

CONDITION = 1e-10
"""Columns of X nearer to collinear than this are not told apart."""


def without_rows(design: Design, out: Codes) -> Design:
    """The design without the rows `out`: same columns, levels that no row has any more left out."""
    kept = np.ones(design.nobs, bool)
    kept[out] = False
    return replace(
        design,
        y=design.y[kept],
        X=design.X[kept],
        weights=None if design.weights is None else design.weights[kept],
        offset=None if design.offset is None else design.offset[kept],
        terms=tuple(_term(term, kept) for term in design.terms),
        residual=None if design.residual is None else _residual(design.residual, kept),
        variance=tuple(
            replace(
                factor,
                covariate=None if factor.covariate is None else factor.covariate[kept],
                strata=None if factor.strata is None else factor.strata[kept],
            )
            for factor in design.variance
        ),
        rows=design.rows[kept],
    )


def _factor(factor: GroupingFactor, kept: Array) -> tuple[GroupingFactor, Codes]:
    own, codes = np.unique(factor.codes[kept], return_inverse=True)
    return replace(factor, levels=factor.levels[own], codes=codes.astype(np.int64)), own


def _term(term: RandomTerm, kept: Array) -> RandomTerm:
    group, own = _factor(term.group, kept)
    relationship = None if term.relationship is None else term.relationship[np.ix_(own, own)]
    return replace(term, group=group, Z=term.Z[kept], relationship=relationship)


def _residual(residual: ResidualDesign, kept: Array) -> ResidualDesign:
    # the groups of parameters stay as they are, even where one is left without rows
    return replace(
        residual,
        subject=_factor(residual.subject, kept)[0],
        visit=None if residual.visit is None else residual.visit[kept],
        coords=None if residual.coords is None else residual.coords[kept],
        group=None if residual.group is None else replace(residual.group, codes=residual.group.codes[kept]),
    )


def without(target: Density, out: Codes, label: str) -> Density:
    """The density given all rows but `out`.

    Raises InferenceError where the rows left do not determine alpha under a flat prior.
    """
    problem = target.problem
    design = without_rows(problem.design, out)
    _demand_rank(target, design, label)
    kernel, fitted = problem.structured, None
    if kernel is not None and any(factor.covariate is None and factor.kind != "ident" for factor in problem.design.variance):
        whole = next(
            v for f, v in zip(kernel.variance.factors, kernel.variance.values, strict=True) if f.covariate is None and v is not None
        )
        fitted = np.delete(whole, out)
    less = build(design, fitted)
    own = less.criterion.kernel
    if kernel is not None and isinstance(own, SubjectsKernel):
        # a spatial structure measures ranges in steps of the whole data
        less = replace(less, criterion=replace(less.criterion, kernel=replace(own, structure=kernel.structure)))
    return over(target, less)


def over(target: Density, problem: Problem) -> Density:
    """The same axes and priors over another problem of the same columns, which are conditioned in another way."""
    terms = tuple(replace(block, term=term) for block, term in zip(target.layout.terms, problem.random.terms, strict=True))
    return replace(arranged(problem, target.priors, replace(target.layout, terms=terms)), volume=target.volume)


def _demand_rank(target: Density, design: Design, label: str) -> None:
    loose = [i for i, prior in enumerate(target.alpha.priors) if prior.family == "flat"]
    if not loose:
        return
    X = design.X[:, loose]
    size = np.linalg.norm(X, axis=0)
    smallest = np.linalg.svd(X / np.where(size > 0, size, 1.0), compute_uv=False)[-1] if len(X) >= len(loose) else 0.0
    if smallest < CONDITION or np.any(size == 0):
        raise InferenceError(
            f"without {label} the coefficients are not determined, and under a flat prior nothing is predicted for it",
            label,
            'give alpha a proper prior: priors=Priors(alpha="normal")',
        )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """log p(y_out | y_in): by importance weights from the whole posterior, or exact, from a posterior given the rest.

    inside : log mean density over the whole posterior; k : Pareto shape of the weights; exact : it was refitted
    """

    elpd: float
    inside: float
    k: float
    exact: bool


def predictive(target: Density, less: Density, phi: Array, full: Array) -> Array:
    """log p(y_out | y_in, phi) of every phi; `full` is log p(y | phi)."""
    found = np.empty(len(phi))
    with one_thread(less.problem.criterion.width), np.errstate(invalid="ignore"):
        for begin in range(0, len(phi), target.batch):
            part = slice(begin, begin + target.batch)
            found[part] = full[part] - less.log_likelihood(phi[part])
    return found


def evidence(target: Density, begin: Array, draws: int, rng: np.random.Generator) -> tuple[float, bool]:
    """log of the integral of the density by importance weights, and whether they are trusted.

    The gap between that of the whole data and that of the rest is log p(y_out | y_in): unlike a mean of densities of y_out over draws given
    the rest, it is not at the mercy of the few draws that expect an outlying y_out.
    """
    found = sample_importance(target.values, find_mode(target, begin), draws, rng)
    return found.weights.evidence, found.trusted


def log_likelihoods(target: Density, phi: Array) -> Array:
    """log p(y | phi) of every phi, in batches."""
    with one_thread(target.problem.criterion.width):
        parts = [target.log_likelihood(phi[begin : begin + target.batch]) for begin in range(0, len(phi), target.batch)]
    return np.concatenate(parts)


def log_mean(values: Array, log_weights: Array) -> float:
    """log of a weighted mean of exponentials; weights sum to 1, and a value that does not exist counts 0."""
    terms = np.where(np.isfinite(values) & np.isfinite(log_weights), values + log_weights, -np.inf)
    top = float(terms.max())
    return top + float(np.log(np.exp(terms - top).sum())) if np.isfinite(top) else -np.inf
