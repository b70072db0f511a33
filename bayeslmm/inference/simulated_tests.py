"""Likelihood-ratio tests by simulation: the parametric bootstrap, and the exact distribution for a single variance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bayeslmm.arrays import Array, frozen
from bayeslmm.errors import BayesLMMError, InferenceError, SpecificationError
from bayeslmm.estimate.estimate import estimate
from bayeslmm.estimate.settle import settled
from bayeslmm.inference.fitted import Fitted
from bayeslmm.inference.lrt import common_method, demand_same_data
from bayeslmm.likelihood.criterion import Method, one_thread
from bayeslmm.likelihood.problem import Problem, build
from bayeslmm.results.simulate import simulated
from bayeslmm.seeds import generator

CHUNK = 2_000_000
"""Squared normals held at once."""

LARGEST = 6000
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
    demand_same_data([small, large])
    method = common_method([small, large])
    found = [settled(f.problem, method)[1] for f in (small, large)]
    observed = found[0].criterion - found[1].criterion
    problem, null = small.problem, found[0]
    responses = simulated(problem, null.alpha, null.theta, null.sigma, n, seed)
    draws, failed = [], 0
    for name in responses:
        y = frozen(responses[name].to_numpy())
        try:
            draws.append(_criterion(problem, y, method, null.x) - _criterion(large.problem, y, method, found[1].x))
        except (BayesLMMError, np.linalg.LinAlgError):
            failed += 1
    values = np.array(draws)
    share = (1.0 + float((values >= observed - 1e-9).sum())) / (1.0 + len(values))
    return SimulatedTest(observed, share, values, failed)


def _criterion(problem: Problem, y: Array, method: Method, start: Array) -> float:
    """The optimum for another response, from a start that the same design already has had."""
    again = build(replace(problem.design, y=y))
    begin = np.where(np.abs(start) > 0.05, start, again.start) if len(start) else start
    return float(estimate(again, method, start=begin).criterion)


def exact_rlrt(fit: Fitted, n: int = 10_000, seed: int | None = None) -> SimulatedTest:
    """The test of one variance against 0 with its exact finite-sample distribution (Crainiceanu and Ruppert 2004).

    For models with a single random term of one column and independent errors: the restricted test for REML fits, the unrestricted one for
    ML fits. No refit is needed: the likelihood ratio under the null is a function of independent normals and of two sets of eigenvalues.

    >>> exact_rlrt(fit.update(". ~ . - (Days | Subject) + (1 | Subject)"), n=1000, seed=1).p_value
    0.0
    """
    _demand_one_variance(fit)
    reml = fit.estimate.method != "ML"
    method: Method = "REML" if reml else "ML"
    null = settled(build(replace(fit.design, terms=())), method)[1]
    observed = max(null.criterion - fit.estimate.criterion, 0.0)
    mu, xi, rest = _eigenvalues(fit)
    rng = generator(seed)
    scale = max(float(xi.max()), 1e-300)
    ratios = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 200) / scale * max(1.0, len(mu))])
    terms = xi if not reml else mu
    df = fit.nobs - fit.problem.criterion.p if reml else fit.nobs
    logs = np.log1p(ratios[:, None] * terms).sum(1)
    shrunk = 1.0 / (1.0 + ratios[:, None] * mu)
    draws = []
    step = max(1, CHUNK // max(1, len(mu)))
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


def _demand_one_variance(fit: Fitted) -> None:
    design = fit.design
    one = len(design.terms) == 1 and design.terms[0].Z.shape[1] == 1 and design.residual is None and not design.variance
    if not one or fit.estimate.method == "MAP":
        raise InferenceError(
            "the exact distribution is known for a single variance, independent errors and a REML or ML fit",
            fit.design.spec.formula.text,
            "use bootstrap_lrt(small, large), or ranova() with its mixture of chi-squares",
        )
    if len(design.terms[0].group.levels) > LARGEST:
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
    c = fit.problem.conditioning
    X = (design.X - c.center) @ c.B
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
