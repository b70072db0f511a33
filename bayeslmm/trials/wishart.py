"""Draws of alpha and of the covariance over visits under inverse Wishart priors, by Gibbs steps for many chains side by side.

Given the covariances, alpha (flat) and the residuals of the visits not seen are normal; given all residuals of a subject, each group's
covariance is inverse Wishart. What a subject has not seen needs no columns: only residuals are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayeslmm._arrays import Array, Codes, Generator
from bayeslmm.covariance.registry import is_unstructured
from bayeslmm.errors import SpecificationError
from bayeslmm.inference.intervals.batch_structured import Kinds, SubjectGroup, poolable, subject_groups, whole_sample
from bayeslmm.inference.intervals.resampling import VisitParameters, visit_parameters
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_structure import VisitStructure

CHAINS, BURN_IN, THINNING = 25, 50, 2
"""Chains side by side from the estimate; steps of each that are forgotten; steps for each set of parameters kept."""

PRIORS = ("model", "jeffreys", "inverse-wishart")


@dataclass(frozen=True, slots=True, eq=False)
class WishartPrior:
    """|R|^(-(df + m + 1) / 2) exp(-tr(scale R^-1) / 2) for each group; scale (G, m, m). df 0 and scale 0 are Jeffreys'."""

    df: float
    scale: Array


def read_wishart_prior(name: str, estimate: Array) -> WishartPrior:
    """A preset by its name; estimate : (G, m, m) R as estimated."""
    m = estimate.shape[-1]
    if name == "jeffreys":
        return WishartPrior(0.0, np.zeros_like(estimate))
    # m + 2 degrees of freedom, and the estimate as its mean
    return WishartPrior(m + 2.0, estimate)


def draw_visit_parameters(fit: Any, prior: str, n: int, rng: Generator) -> VisitParameters:
    """n sets of parameters given the outcomes of a fit.

    Raises SpecificationError for models that are not of unstructured covariances over visits, or with fewer subjects than these ask for.
    """
    problem: Problem = fit.problem
    kernel = problem.structured
    assert problem.design.residual is not None
    structure = None if kernel is None or not poolable(problem) else kernel.structure
    if not isinstance(structure, VisitStructure) or not is_unstructured(problem.design.residual.name, problem.design.residual.order):
        what = f"prior={prior!r} is one of an unstructured covariance over visits"
        raise SpecificationError(what, "prior", 'use residual="us(visit | subject)", or prior="model" with priors of the model')
    unit = problem.sigma2(1.0)
    whole = visit_parameters(problem, fit.estimate.x[None], np.array([fit.point.sigma2]), fit.point.state.solution.alpha)
    law = read_wishart_prior(prior, whole.R[0] / unit)
    groups = subject_groups(problem)
    counts = np.zeros(len(law.scale))
    for group in groups:
        np.add.at(counts, group.block.group[group.kind, 0], 1.0)
    m = law.scale.shape[-1]
    if (counts + law.df < m).any():
        what = f"a group of {int(counts.min())} subjects leaves no posterior of {m} visits under prior={prior!r}"
        raise SpecificationError(what, "prior", 'use prior="inverse-wishart", one covariance for all arms, or priors of the model')
    chains = min(CHAINS, n)
    steps = -(-n // chains)
    R, kept = np.repeat(whole.R / unit, chains, axis=0), []
    kinds = whole_sample(groups).kinds
    for step in range(BURN_IN + THINNING * steps):
        alpha = _draw_alpha(kinds, R, problem.criterion.p, rng)
        R = _draw_covariances(law, counts, _squares(groups, R, alpha, rng), rng)
        if step >= BURN_IN and (step - BURN_IN) % THINNING == 0:
            kept.append((alpha, R))
    alpha, R = (np.concatenate(parts)[:n] for parts in zip(*kept, strict=True))
    return VisitParameters(problem.alpha(alpha), unit * R, np.ones(n, bool))


def _places(kind: Kinds | SubjectGroup) -> list[tuple[Codes, int]]:
    assert kind.block.place is not None
    return [(place, int(group)) for place, group in zip(kind.block.place, kind.block.group[:, 0], strict=True)]


def _draw_alpha(kinds: tuple[Kinds, ...], R: Array, p: int, rng: Generator) -> Array:
    """alpha (B, p) given R (B, G, m, m) and what was observed."""
    B = len(R)
    information, right = np.zeros((B, p, p)), np.zeros((B, p))
    for kind in kinds:
        for c, (place, group) in enumerate(_places(kind)):
            W = np.linalg.inv(R[:, group][:, place[:, None], place]).reshape(B, -1)
            information += (W @ kind.XX[0, c]).reshape(B, p, p)
            right += W @ kind.XY[0, c]
    L = np.linalg.cholesky(0.5 * (information + information.swapaxes(-1, -2)))
    half = np.linalg.solve(L, right[..., None]) + rng.standard_normal((B, p, 1))
    return np.asarray(np.linalg.solve(L.swapaxes(-1, -2), half)[..., 0])


def _squares(groups: tuple[SubjectGroup, ...], R: Array, alpha: Array, rng: Generator) -> Array:
    """Sums of e e' over the subjects of each group (B, G, m, m), residuals of visits not seen drawn."""
    out = np.zeros_like(R)
    B, m = len(R), R.shape[-1]
    for own in groups:
        for c, (place, group) in enumerate(_places(own)):
            Xy = own.Xy[own.kind == c]
            e = np.empty((B, len(Xy), m))
            e[..., place] = Xy[..., -1] - np.tensordot(alpha, Xy[..., :-1], (1, 2))
            lost = np.setdiff1d(np.arange(m), place)
            if len(lost):
                S = R[:, group]
                A = np.linalg.solve(S[:, place[:, None], place], S[:, place[:, None], lost]).swapaxes(-1, -2)
                left = S[:, lost[:, None], lost] - A @ S[:, place[:, None], lost]
                root = np.linalg.cholesky(0.5 * (left + left.swapaxes(-1, -2)))
                noise = rng.standard_normal((B, len(Xy), len(lost)))
                e[..., lost] = e[..., place] @ A.swapaxes(-1, -2) + noise @ root.swapaxes(-1, -2)
            out[:, group] += e.swapaxes(-1, -2) @ e
    return out


def _draw_covariances(prior: WishartPrior, counts: Array, squares: Array, rng: Generator) -> Array:
    """R (B, G, m, m) from the inverse Wishart laws of the residuals: C A^-T A^-1 C' with C C' the scale and A A' Wishart (Bartlett)."""
    B, G, m, _ = squares.shape
    C = np.linalg.cholesky(squares + prior.scale)
    df = prior.df + counts
    A = np.tril(rng.standard_normal((B, G, m, m)), -1)
    places = np.arange(m)
    A[..., places, places] = np.sqrt(2.0 * rng.standard_gamma(0.5 * (df[:, None] - places), (B, G, m)))
    half = np.linalg.solve(A, C.swapaxes(-1, -2))
    return np.asarray(half.swapaxes(-1, -2) @ half)
