"""Cluster-robust covariances of the fixed effects, CR0 to CR3, with the degrees of freedom of Bell and McCaffrey.

Rows of a cluster are whitened by the lower Cholesky factor of its V, so that with U_i = L_i^-1 X_i C^(1/2) the hat matrix of the cluster is
U_i U_i', of rank p, and every power of I - U_i U_i' comes from a p x p eigenproblem:

    C_CR = c C { sum_i X~_i' A_i e~_i e~_i' A_i X~_i } C,   A_i = I (CR0, CR1), (I - H_ii)^(-1/2) (CR2), (I - H_ii)^-1 (CR3)

Nothing of a cluster is needed but G_i = X_i' V_i^-1 X_i and s_i = X_i' V_i^-1 e_i. Any F_i with F_i' F_i = G_i stands for X~_i, with
F_i C F_i' in place of H_ii: rows of the whitened matrices where they are fewer than columns, the eigenvectors of G_i in C elsewhere.

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
from bayeslmm.likelihood.prediction import population_means
from bayeslmm.likelihood.structured.blocks import order_rows
from bayeslmm.likelihood.structured.kernel import BlockDiagonalState
from bayeslmm.likelihood.structured.low_rank import LowRankState
from bayeslmm.likelihood.structured.residual_covariance import error_covariances
from bayeslmm.likelihood.threads import one_thread

LEVERAGE_POWERS = {"CR0": 0.0, "CR1": 0.0, "CR2": -0.5, "CR3": -1.0}
FULL_LEVERAGE = 1e-10
"""A direction in which a cluster determines its own fit to within this is left out of its adjustment."""


@dataclass(frozen=True, slots=True, eq=False)
class ClusterProducts:
    """s (K, p) X_i' V_i^-1 e_i of every cluster, on standardized columns of X, and F (K, m, p) or G (K, p, p) = F' F = X_i' V_i^-1 X_i."""

    s: Array
    F: Array | None = None
    G: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Sandwich:
    """A robust covariance on standardized columns, and what its degrees of freedom need.

    C : (p, p) model-based; vcov : (p, p) robust
    F : (K, m, p) rows that stand for the whitened ones of each cluster; H, A : (K, m, m) F C F' and its adjustment
    """

    C: Array
    vcov: Array
    F: Array
    H: Array
    A: Array

    def rows(self, L: Array) -> Array:
        """Bell and McCaffrey: (tr P)^2 / tr P^2, P the covariance of the clusters' parts of the contrast if the model holds."""
        (K, m, p), r = self.F.shape, len(L)
        moved = self.A @ (self.F.reshape(-1, p) @ (self.C @ L.T)).reshape(K, m, r)
        length = (moved**2).sum(1)
        pulled = (moved * (self.H @ moved)).sum(1)
        u = np.ascontiguousarray((self.F.swapaxes(-1, -2) @ moved).transpose(2, 0, 1))
        CS = self.C @ (u.swapaxes(-1, -2) @ u)
        square = (length**2 - 2.0 * length * pulled).sum(0) + (CS * CS.swapaxes(-1, -2)).sum((-1, -2))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((length - pulled).sum(0) ** 2 / square)

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
        products = cluster_products(fit, factor)
        F, H, A, gain = _adjustment(products, C, LEVERAGE_POWERS[kind])
        pulled = products.s + (F.swapaxes(-1, -2) @ (gain @ (F @ (products.s @ C)[..., None])))[..., 0]
        meat = pulled.T @ pulled
    m = len(factor.levels)
    c = m / (m - 1.0) if kind == "CR1" and m > 1 else 1.0
    vcov = c * C @ meat @ C
    return Sandwich(C, 0.5 * (vcov + vcov.T), F, H, A)


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


def _adjustment(products: ClusterProducts, C: Array, power: float) -> tuple[Array, Array, Array, Array]:
    """F (K, m, p), H = F C F', A = (I - H)^power and (A - I) H^-1, (K, m, m) each."""
    if products.F is not None:
        F = products.F
        H = F @ C @ F.swapaxes(-1, -2)
        values, vectors = np.linalg.eigh(H)
    else:
        assert products.G is not None
        root = np.linalg.cholesky(C)
        values, vectors = np.linalg.eigh(root.T @ products.G @ root)
        F = np.linalg.solve(root.T, vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]).swapaxes(-1, -2)
        vectors = np.broadcast_to(np.eye(len(C)), vectors.shape)
        H = vectors * values[:, None, :]
    left = 1.0 - values
    with np.errstate(divide="ignore", invalid="ignore"):
        # where nothing is left the generalised inverse has 0; ((1 - h)^power - 1) / h tends to -power at h = 0
        f = np.where(left > FULL_LEVERAGE, np.maximum(left, FULL_LEVERAGE) ** power, 0.0) if power else np.ones_like(left)
        gain = np.where(values > FULL_LEVERAGE, (f - 1.0) / values, -power)
    A, gained = ((vectors * own[:, None, :]) @ vectors.swapaxes(-1, -2) for own in (f, gain))
    return F, H, A, gained


# -- the products of clusters ------------------------------------------------------------------------------------------------------------

CLUSTER_ELEMENTS = 4_000_000
"""Elements of the rows of clusters that are worked on together."""

LARGEST_RATIO = 1e8
"""Variance of the random effects of a cluster against that of its errors, beyond which their difference would lose digits."""


def cluster_products(fit: Fitted, factor: GroupingFactor) -> ClusterProducts:
    """From the blocks of V^-1 under structured errors, from sums over rows where all random effects belong to the clusters, else dense."""
    if fit.problem.structured is not None:
        return _from_blocks(fit, factor)
    terms = fit.design.terms
    if all(term.relationship is None and np.array_equal(term.group.codes, factor.codes) for term in terms):
        found = _from_sums(fit, factor)
        if found is not None:
            return found
    return _from_rows(fit, factor)


def _from_blocks(fit: Fitted, factor: GroupingFactor) -> ClusterProducts:
    state, scale = fit.point.state, fit.problem.standardization.y_scale
    assert isinstance(state, BlockDiagonalState)
    p, unit = fit.problem.criterion.p, fit.point.sigma2 * scale**2
    s, levels, found = np.zeros((factor.size, p)), [], []
    for (rows, X, white), e in zip(whitened_blocks(state, p), state.residual_scores, strict=True):
        level = factor.codes[rows[:, 0]]
        np.add.at(s, level, (e[:, None] @ X)[:, 0] * scale / unit)
        levels.append(level)
        found.append(white / np.sqrt(unit))
    most = max(part.shape[1] for part in found)
    alone = np.bincount(np.concatenate(levels), minlength=factor.size).max() == 1
    if alone and most < p:
        F = np.zeros((factor.size, most, p))
        for level, rows in zip(levels, found, strict=True):
            F[level, : rows.shape[1]] = rows
        return ClusterProducts(s, F=F)
    G = np.zeros((factor.size, p, p))
    for level, rows in zip(levels, found, strict=True):
        np.add.at(G, level, rows.swapaxes(-1, -2) @ rows)
    return ClusterProducts(s, G=G)


def whitened_blocks(state: BlockDiagonalState, p: int) -> Iterator[tuple[Codes, Array, Array]]:
    """Rows (B, k) of every batch, X of them (B, k, p), and rows whose products are X' V0^-1 X."""
    if isinstance(state, LowRankState):
        for part, white in state.whitened_columns():
            yield part.batch.rows, part.U[..., :p], white[..., :p]
        return
    for block in state.row_states:
        X = block.U[..., :p]
        yield block.batch.rows, X, np.linalg.cholesky(block.inverse).swapaxes(-1, -2) @ X if block.root is None else block.root @ X


def _from_sums(fit: Fitted, factor: GroupingFactor) -> ClusterProducts | None:
    """V_i^-1 = W - W Z T (I + T' Z' W Z T)^-1 T' Z' W of every cluster, D = T T' in units of sigma."""
    design, problem = fit.design, fit.problem
    columns, e = _columns(fit)
    roots = [
        parameters.root(fit.point.x, term.Z, problem.standardization.weight_mean)
        for term, parameters in zip(design.terms, problem.random.terms, strict=True)
    ]
    both = np.column_stack([*roots, columns, e])
    if design.weights is not None:
        both *= np.sqrt(design.weights)[:, None]
    p, q = columns.shape[1], both.shape[1] - columns.shape[1] - 1
    products = np.empty((factor.size, both.shape[1], both.shape[1]))
    order, starts = factor.sorted_rows
    sizes = np.diff(starts)
    for k in np.unique(sizes):
        same = np.flatnonzero(sizes == k)
        step = max(1, CLUSTER_ELEMENTS // (int(k) * both.shape[1]))
        for begin in range(0, len(same), step):
            own = same[begin : begin + step]
            rows = both[order[starts[own][:, None] + np.arange(k)]]
            products[own] = rows.swapaxes(-1, -2) @ rows
    sums = products[:, q:, q:]
    if q:
        inner = products[:, :q, :q]
        if float(np.trace(inner, axis1=-2, axis2=-1).max()) > LARGEST_RATIO:
            return None
        half = np.linalg.solve(np.linalg.cholesky(np.eye(q) + inner), products[:, :q, q:])
        sums = sums - half.swapaxes(-1, -2) @ half
    unit = problem.sigma2(fit.point.sigma2)
    return ClusterProducts(sums[:, :p, p] / unit, G=sums[:, :p, :p] / unit)


def _from_rows(fit: Fitted, factor: GroupingFactor) -> ClusterProducts:
    """Clusters of one size together: their V, and the rows whitened by it."""
    columns, e = _columns(fit)
    both, p = np.column_stack([columns, e]), columns.shape[1]
    G, s = np.empty((factor.size, p, p)), np.empty((factor.size, p))
    for rows in order_rows(fit.design, factor.codes):
        k = rows.shape[1]
        step = max(1, CLUSTER_ELEMENTS // (k * (k + p)))
        for begin in range(0, len(rows), step):
            own = rows[begin : begin + step]
            white = np.linalg.solve(np.linalg.cholesky(_marginal(fit, own)), both[own])
            level = factor.codes[own[:, 0]]
            G[level] = white[..., :p].swapaxes(-1, -2) @ white[..., :p]
            s[level] = np.einsum("bkx,bk->bx", white[..., :p], white[..., p])
    return ClusterProducts(s, G=G)


def _columns(fit: Fitted) -> tuple[Array, Array]:
    """Standardized columns of X (n, p) and y - X alpha (n,)."""
    design, c = fit.design, fit.problem.standardization
    X = c.design_rows(design)
    return X, design.y - population_means(fit.problem, fit.point, fit.estimate.alpha)


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
