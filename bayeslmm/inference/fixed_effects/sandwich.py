"""Cluster-robust covariances of the fixed effects, CR0 to CR3, with the degrees of freedom of Bell and McCaffrey.

Rows of a cluster are whitened by the lower Cholesky factor of its V, so that with U_i = L_i^-1 X_i C^(1/2) the hat matrix of the cluster is
U_i U_i', of rank p: every power of I - U_i U_i' comes from a p x p eigenproblem, and no n x n matrix exists.

    C_CR = c C { sum_i X~_i' A_i e~_i e~_i' A_i X~_i } C,   A_i = I (CR0, CR1), (I - H_ii)^(-1/2) (CR2), (I - H_ii)^-1 (CR3)

Pustejovsky and Tipton (2018), Journal of Business & Economic Statistics 36, 672-683.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm._validation import require_name
from bayeslmm.data.design import Design
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.errors import InferenceError
from bayeslmm.estimate.estimate import Fitted
from bayeslmm.inference.fixed_effects.degrees_of_freedom import fai_cornelius, grouping_factors, is_nested, top_factor
from bayeslmm.likelihood.criterion import one_thread
from bayeslmm.likelihood.structured.kernel import order_rows
from bayeslmm.likelihood.structured.residual_covariance import error_covariances

LEVERAGE_POWERS = {"CR0": 0.0, "CR1": 0.0, "CR2": -0.5, "CR3": -1.0}
FULL_LEVERAGE = 1e-10
"""A direction in which a cluster determines its own fit to within this is left out of its adjustment."""


@dataclass(frozen=True, slots=True, eq=False)
class ClusterBatch:
    """Clusters of one size after whitening: X (B, k, p), e (B, k), and A_i as I + U_i M_i U_i' (U (B, k, p), M (B, p, p))."""

    X: Array
    e: Array
    U: Array
    M: Array

    def adjusted(self, R: Array) -> Array:
        """A_i R_i for (B, k, s)."""
        return np.asarray(R + self.U @ (self.M @ (self.U.swapaxes(-1, -2) @ R)))


@dataclass(frozen=True, slots=True, eq=False)
class Sandwich:
    """A robust covariance on standardized columns, and what its degrees of freedom need.

    C : (p, p) model-based; vcov : (p, p) robust
    """

    C: Array
    vcov: Array
    batches: tuple[ClusterBatch, ...]

    def rows(self, L: Array) -> Array:
        """Bell and McCaffrey: (tr P)^2 / tr P^2, P the covariance of the clusters' parts of the contrast if the model holds."""
        own = self.C @ L.T
        p, r = own.shape
        trace, square, S = np.zeros(r), np.zeros(r), np.zeros((r, p, p))
        for batch in self.batches:
            a = batch.adjusted(batch.X @ own)
            u = np.einsum("bkx,bkr->brx", batch.X, a)
            length = np.einsum("bkr,bkr->br", a, a)
            pulled = np.einsum("brx,xy,bry->br", u, self.C, u, optimize=True)
            trace += (length - pulled).sum(0)
            square += (length**2 - 2.0 * length * pulled).sum(0)
            S += np.einsum("brx,bry->rxy", u, u)
        CS = self.C @ S
        square += np.einsum("rxy,ryx->r", CS, CS)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(trace**2 / square)

    def joint(self, L: Array) -> tuple[float, float]:
        return fai_cornelius(self, L, self.vcov)


def sandwich(fit: Fitted, kind: str, cluster: str | None = None) -> Sandwich:
    """The robust covariance of one kind, "CR0" to "CR3".

    cluster : a grouping factor of the model; the outermost by default
    Errors: `InferenceError` if some random effect links rows of different clusters.
    """
    factor = cluster_factor(fit.design, cluster)
    _check_unrelated(fit.design, factor)
    scale = fit.point.sigma2 * fit.problem.standardization.y_scale**2
    assert fit.point.state is not None
    C = scale * fit.point.state.solution.information_inverse[0]
    with one_thread():
        batches = tuple(_adjust(X, e, C, LEVERAGE_POWERS[kind]) for X, e in _whiten_clusters(fit, factor.codes))
        meat = np.zeros_like(C)
        for batch in batches:
            scores = np.einsum("bkx,bk->bx", batch.X, batch.adjusted(batch.e[..., None])[..., 0])
            meat += scores.T @ scores
    m = len(factor.levels)
    c = m / (m - 1.0) if kind == "CR1" and m > 1 else 1.0
    vcov = c * C @ meat @ C
    return Sandwich(C, 0.5 * (vcov + vcov.T), batches)


def cluster_factor(design: Design, cluster: str | None) -> GroupingFactor:
    """The clusters: named, or the outermost grouping factor."""
    if cluster is None:
        return top_factor(design, "a robust covariance")
    factors = {g.name: g for g in grouping_factors(design)}
    if require_name(cluster, "cluster") not in factors:
        where = f"grouping factors: {', '.join(factors) or 'none'}"
        raise InferenceError(f"{cluster!r} is not a grouping factor of the model", where, "name one of them")
    for other in factors.values():
        if not is_nested(other.codes, factors[cluster].codes):
            raise InferenceError(
                "clusters must be independent of one another",
                f"levels of {other.name} lie in several levels of {cluster}",
                "cluster by the outermost grouping factor, cluster=None",
            )
    return factors[cluster]


def _check_unrelated(design: Design, cluster: GroupingFactor) -> None:
    """A known relationship matrix may tie clusters together."""
    for term in design.terms:
        if term.relationship is None:
            continue
        of_level = np.zeros(len(term.group.levels), np.int64)
        of_level[term.group.codes] = cluster.codes
        if np.any(term.relationship[of_level[:, None] != of_level[None, :]]):
            raise InferenceError(
                "clusters must be independent of one another",
                f"the relationship matrix of {term.group.name} ties levels of {cluster.name} together",
                "use df='satterthwaite' or df='kenward-roger' with the model-based covariance",
            )


def _adjust(X: Array, e: Array, C: Array, power: float) -> ClusterBatch:
    U = X @ np.linalg.cholesky(C)
    values, vectors = np.linalg.eigh(U.swapaxes(-1, -2) @ U)
    left = 1.0 - values
    with np.errstate(divide="ignore", invalid="ignore"):
        # where nothing is left the generalised inverse has 0; ((1 - h)^power - 1) / h tends to -power at h = 0
        f = np.where(left > FULL_LEVERAGE, np.maximum(left, FULL_LEVERAGE) ** power, 0.0 if power else 1.0)
        weights = np.where(values > FULL_LEVERAGE, (f - 1.0) / values, -power)
    return ClusterBatch(X, e, U, (vectors * weights[:, None, :]) @ vectors.swapaxes(-1, -2))


def _whiten_clusters(fit: Fitted, codes: Codes) -> Iterator[tuple[Array, Array]]:
    """L^-1 X (B, k, p) and L^-1 (y - X alpha) (B, k) of all clusters of one size, on standardized columns of X."""
    design, c = fit.design, fit.problem.standardization
    X = (design.X - c.center) @ c.B
    e = design.y - design.X @ fit.estimate.alpha - (0.0 if design.offset is None else design.offset)
    both = np.column_stack([X, e])
    for rows in order_rows(design, codes):
        L = np.linalg.cholesky(_marginal(fit, rows))
        white = np.linalg.solve(L, both[rows])
        yield white[..., :-1], white[..., -1]


def _marginal(fit: Fitted, rows: Codes) -> Array:
    """V over the rows of some clusters, (B, k, k)."""
    problem, design = fit.problem, fit.design
    sigma2 = problem.sigma2(fit.point.sigma2)
    V = error_covariances(problem, fit.point, rows)
    for term, parameters in zip(design.terms, problem.random.terms, strict=True):
        root, code = parameters.root(fit.point.x, term.Z[rows], problem.standardization.weight_mean), term.group.codes[rows]
        left, right = code[:, :, None], code[:, None, :]
        link = (left == right).astype(float) if term.relationship is None else term.relationship[left, right]
        V += sigma2 * (root @ root.swapaxes(-1, -2)) * link
    return V
