"""Starting values: moments of level sums, one MIVQUE step, moments of residuals, a grid of ranges.

With H_k = (A_k + I)^-1, `s_k = H_k Z_k' e` of the least-squares residuals e has for its expected product

    sigma^2 H_k A_k H_k + H_k A_k D A_k H_k + sum over other factors and their levels j that meet k of H_k N_kj D' N_kj' H_k,

linear in the variances. One such equation for each factor, summed over its levels, and one for e'e are solved together. Several levels'
worth of data make this an estimate within a few per cent, which saves evaluations; a poor one costs nothing but those.

At relative covariances of 1, V0 = Z Z' + I, the expected values of y'P V_i P y are linear in sigma^2 and the entries s of every D,

    sum_j tr(P V_i P V_j) s_j = y'P V_i P y,    V_0 = I,  V_i = Z S_i Z',

which is MIVQUE(1) of Rao (1971). In balanced data its solution is the REML estimate itself, in others it is near (Searle, Casella and
McCulloch 1992, chapter 11). With G = Z'P Z, and P V0 P = P, nothing is left of the rows.

Where separate terms of one grouping factor may start: the moments of each level's own least-squares line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.spatial import SpatialCovariance
from bayeslmm.data.design import Design
from bayeslmm.likelihood.criterion import Criterion
from bayeslmm.likelihood.kernel import TUNING
from bayeslmm.likelihood.parameters import RandomParameters
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts
from bayeslmm.likelihood.random_effects.dense import DenseCrossProducts, DenseFactor
from bayeslmm.likelihood.random_effects.level_blocks import CHUNK_ELEMENTS, factor_unrolled, gram
from bayeslmm.likelihood.random_effects.off_diagonal import DenseOffDiagonal
from bayeslmm.likelihood.random_effects.schur import FactorColumns
from bayeslmm.likelihood.structured.blocks import PooledBatch
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel, SubjectData
from bayeslmm.likelihood.structured.residual_structure import GroupedStructure, ResidualStructure, SpatialStructure, VisitStructure

ROWS, LEVELS = 1000, 64
"""Rows, and levels of the first factor, from which moments are worth their time."""

SMALLEST, LARGEST = 0.05, 100.0
"""Relative standard deviations at which a search may start: at 0 the criterion is level, far out nearly so."""

LINEAR_STRUCTURES = ("us", "diag", "id")


@dataclass(frozen=True, slots=True, eq=False)
class _LevelSums:
    """One factor by level: A (q, q, K) and Z_k' e (q, K)."""

    A: Array
    c: Array

    @property
    def q(self) -> int:
        return len(self.A)

    def pieces(self) -> Iterator[_LevelSums]:
        """Levels in pieces that stay in cache."""
        for begin in range(0, self.A.shape[2], CHUNK_ELEMENTS):
            yield _LevelSums(self.A[..., begin : begin + CHUNK_ELEMENTS], self.c[..., begin : begin + CHUNK_ELEMENTS])

    def H(self) -> Array:
        """(A_k + I)^-1, (q, q, K)."""
        W = np.array(factor_unrolled(self.A, np.eye(self.q)[None])[1])[:, :, 0]
        return np.asarray(np.einsum("cak,cbk->abk", W, W))


def _by_level(cross: CrossProducts, span: FactorColumns) -> _LevelSums:
    """A factor of the remaining columns."""
    assert cross.rest is not None and cross.V0 is not None
    c = cross.V0[span.offset : span.stop, cross.p].reshape(span.K, span.q).T
    if cross.remaining is not None:
        return _LevelSums(np.ascontiguousarray(cross.remaining.blocks[cross.rest.spans.index(span)].transpose(1, 2, 0)), c)
    assert cross.U0 is not None
    level = span.offset + np.arange(span.K) * span.q
    A = np.empty((span.q, span.q, span.K))
    for a in range(span.q):
        for b in range(a + 1):
            A[a, b] = A[b, a] = cross.U0[cross.rest.target[level + a] + cross.rest.stride[level + b]]
    return _LevelSums(A, c)


def _factors(cross: CrossProducts) -> list[_LevelSums]:
    assert cross.first is not None
    spans = () if cross.rest is None else cross.rest.spans
    return [_LevelSums(cross.first.A, cross.first.C[:, cross.p]), *(_by_level(cross, span) for span in spans)]


def _crossed_levels(cross: CrossProducts, span: FactorColumns) -> tuple[Codes, Codes, Array]:
    """Pairs of levels of the first factor and one of the others: k (P,), j (P,), N (q, q', P)."""
    coupling = cross.coupling
    assert coupling is not None
    if isinstance(coupling, DenseOffDiagonal):
        E = coupling.E[:, :, span.offset : span.stop]
        q, K, _ = E.shape
        whole = E.reshape(q, K, span.K, span.q)
        k, j = np.nonzero(whole.any(axis=(0, 3)))
        return k, j, np.ascontiguousarray(whole[:, k, j].swapaxes(1, 2))
    return _level_pairs(coupling.columns, span, span.q)


def _level_pairs(matrices: Sequence[sp.csr_array], span: FactorColumns, q: int) -> tuple[Codes, Codes, Array]:
    """Levels of the rows and of the columns of a span that meet, and their cross-products (len(matrices), q, P)."""
    pattern = matrices[0]
    rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
    if span.offset == 0 and span.stop == pattern.shape[1]:
        values, columns = np.stack([E.data for E in matrices]), pattern.indices
    else:
        own = (pattern.indices >= span.offset) & (pattern.indices < span.stop)
        values, columns, rows = np.stack([E.data[own] for E in matrices]), pattern.indices[own], rows[own]
    # the columns of a level lie side by side
    N = values.reshape(len(values), -1, q).swapaxes(1, 2)
    level = (columns[::q].astype(np.int64) - span.offset) // q
    return rows[::q].astype(np.int64), level, np.asarray(N, float)


def _crossed_remaining(cross: CrossProducts, f: int, g: int) -> tuple[Codes, Codes, Array]:
    """Pairs of levels of two remaining factors, f before g: k of g (P,), j of f (P,), N (q_g, q_f, P)."""
    assert cross.rest is not None
    spans, found = cross.rest.spans, []
    if cross.remaining is not None:
        assert cross.remaining.pairs is not None
        own = cross.remaining.pairs[spans[g].offset : spans[g].stop]
        return _level_pairs([own[a :: spans[g].q] for a in range(spans[g].q)], spans[f], spans[f].q)
    assert cross.U0 is not None
    for batch in cross.rest.batches:
        local = dict(cross.rest.local(batch))
        if f not in local or g not in local:
            continue
        B, s = batch.index.shape
        block = cross.U0[batch.begin : batch.begin + batch.size].reshape(B, s, s)[:, local[g], local[f]]
        whole = block.reshape(B, -1, spans[g].q, block.shape[2] // spans[f].q, spans[f].q)
        b, k, j = np.nonzero(whole.any(axis=(2, 4)))
        level_g = (batch.index[:, local[g]][b, k * spans[g].q] - spans[g].offset) // spans[g].q
        level_f = (batch.index[:, local[f]][b, j * spans[f].q] - spans[f].offset) // spans[f].q
        found.append((level_g, level_f, whole[b, k, :, j].transpose(1, 2, 0)))
    if not found:
        none = np.zeros(0, np.int64)
        return none, none, np.zeros((spans[g].q, spans[f].q, 0))
    return tuple(np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True))  # type: ignore[return-value]


def _moment_matrix(H: Array, k: Codes, N: Array) -> Array:
    """sum over pairs of (H_k N) D (H_k N)' as a matrix on vec D, (q^2, q'^2)."""
    q, other = N.shape[:2]
    G = np.einsum("abk,bck->ack", H[:, :, k], N).reshape(q * other, -1)
    return np.asarray(gram(G).reshape(q, other, q, other).transpose(0, 2, 1, 3).reshape(q * q, other * other))


def _equations(cross: CrossProducts, factors: list[_LevelSums]) -> tuple[Array, Array]:
    """Matrix and right-hand side of the moments in (sigma^2, vec D of every factor)."""
    begin = np.concatenate([[0], np.cumsum([levels.q**2 for levels in factors])]) + 1
    part = [slice(low, high) for low, high in pairwise(begin)]
    M, right = np.zeros((begin[-1], begin[-1])), np.zeros(begin[-1])
    right[0], M[0, 0] = cross.Xy[cross.p, cross.p], cross.n - cross.p
    for own, levels in zip(part, factors, strict=True):
        for piece in levels.pieces():
            _add_own(M, right, own, piece)
    spans = () if cross.rest is None else cross.rest.spans
    H = [levels.H() for levels in factors] if spans else []
    for g, span in enumerate(spans, start=1):
        pairs = [(0, _crossed_levels(cross, span))] + [(f, _swap(_crossed_remaining(cross, f - 1, g - 1))) for f in range(1, g)]
        for f, (k, j, N) in pairs:
            M[part[f], part[g]] = _moment_matrix(H[f], k, N)
            M[part[g], part[f]] = _moment_matrix(H[g], j, N.swapaxes(0, 1))
    return M, right


def _add_own(M: Array, right: Array, own: slice, levels: _LevelSums) -> None:
    """What levels of a factor say of it, of sigma^2 and of e'e."""
    q, H = levels.q, levels.H()
    s = np.einsum("abk,bk->ak", H, levels.c)
    right[own] += gram(s).ravel()
    M[0, own] += levels.A.sum(-1).ravel()
    HA = np.einsum("abk,bck->ack", H, levels.A)
    M[own, 0] += np.einsum("abk,cbk->ac", HA, H).ravel()
    flat = HA.reshape(q * q, -1)
    M[own, own] += gram(flat).reshape(q, q, q, q).transpose(0, 2, 1, 3).reshape(q * q, -1)


def _swap(pairs: tuple[Codes, Codes, Array]) -> tuple[Codes, Codes, Array]:
    k, j, N = pairs
    return j, k, N.swapaxes(0, 1)


def _limit_eigenvalues(D: Array) -> Array:
    """D with its eigenvalues brought within the limits."""
    low, high = SMALLEST**2, LARGEST**2
    if len(D) == 1:
        return np.minimum(np.maximum(D, low), high)
    values, vectors = np.linalg.eigh(0.5 * (D + D.T))
    return D if low <= values[0] and values[-1] <= high else (vectors * np.clip(values, low, high)) @ vectors.T


def linear_in_variances(parameters: RandomParameters) -> bool:
    """Whether the covariance of every term is linear in its variances: unstructured, diagonal or one common variance."""
    return all(term.covariance.name in LINEAR_STRUCTURES for term in parameters.terms)


def x_from_covariances(parameters: RandomParameters, relative: list[Array]) -> Array | None:
    """x of relative covariances, one (q, q) for each factor, brought within the limits of a start."""
    out = np.empty(parameters.size)
    for factor, D in zip(parameters.factors, relative, strict=True):
        for i, own in zip(factor.terms, factor.slices, strict=True):
            term = parameters.terms[i]
            out[term.part] = term.covariance.from_matrix(_limit_eigenvalues(D[own, own]))
    return out if np.isfinite(out).all() else None


def moment_start(parameters: RandomParameters, cross: CrossProducts) -> Array | None:
    """x at which relative covariances have the moments of the data; None where the equations cost more than they save, or have no solution.

    Unstructured, diagonal and common variances only: other structures have a start of their own.
    """
    first = cross.first
    tied = any(f.root is not None or f.q > TUNING.unrolled_columns for f in cross.factors)
    if first is None or first.K < LEVELS or cross.n < ROWS or tied:
        return None
    if not linear_in_variances(parameters):
        return None
    M, right = _equations(cross, _factors(cross))
    found = np.linalg.lstsq(M / np.abs(M).max(axis=1, keepdims=True), right / np.abs(M).max(axis=1), rcond=1e-12)[0]
    if not np.isfinite(found).all() or found[0] <= 0.0:
        return None
    sizes = [factor.q**2 for factor in parameters.factors]
    parts = np.split(found[1:] / found[0], np.cumsum(sizes)[:-1])
    return x_from_covariances(parameters, [part.reshape(f.q, f.q) for part, f in zip(parts, parameters.factors, strict=True)])


SCORING_PARAMETERS = 28
"""Parameters above which the equations cost more than the evaluations that they save."""


def scoring_start(dense: DenseCrossProducts, residual_df: int) -> Array | None:
    """x at which covariances are those of one scoring step; None where its equations have no solution. residual_df : n - p.

    Unstructured, diagonal and common variances only: other structures have a start of their own.
    """
    parameters = dense.parameters
    if not 0 < parameters.size <= SCORING_PARAMETERS or not linear_in_variances(parameters):
        return None
    point = dense.at_unit(np.concatenate([term.covariance.start() for term in parameters.terms]))
    if point is None:
        return None
    _, found, failed = lapack.dposv(*scoring_equations(point, residual_df))
    if failed or not np.isfinite(found).all() or found[0] <= 0.0:
        return None
    dT = point.dT
    D = ((found[1:] / found[0]) @ dT.reshape(len(dT), -1)).reshape(dT.shape[1:])
    D += D.T
    return x_from_covariances(parameters, [D[begin:end, begin:end] for begin, end in pairwise(dense.starts)])


def scoring_equations(point: DenseFactor, residual_df: int) -> tuple[Array, Array]:
    """Matrix (k + 1, k + 1) and right-hand side in sigma^2 and s, S_i = dT_i + dT_i' on the levels of its factor."""
    m, a, d, half = point.data.m, point.scores, point.dLambda, 0.5 * point.x
    k, A = len(d), point.A[:, :-1]
    G = point.data.products[:m, :m] - A @ A.T
    seen = (d + d.swapaxes(1, 2)) @ G
    M, right = np.empty((k + 1, k + 1)), np.empty(k + 1)
    M[1:, 1:] = seen.reshape(k, -1) @ seen.swapaxes(1, 2).reshape(k, -1).T
    right[1:] = 2.0 * ((d @ a) @ a)
    # what belongs to sigma^2 follows from V0 = I + sum x_i V_i / 2 and P V0 P = P
    traces = 2.0 * (d.reshape(k, -1) @ G.ravel())
    M[0, 1:] = M[1:, 0] = traces - M[1:, 1:] @ half
    M[0, 0] = residual_df - traces @ half - M[0, 1:] @ half
    right[0] = float(point.L[-1, -1]) ** 2 - right[1:] @ half
    return M, right


CLEAR = 1e-10
"""Relative eigenvalue of a level's Z'WZ below which the level has no line of its own."""


def separate(parameters: RandomParameters) -> list[int]:
    """Factors with several columns whose covariance is not left free: `||`, `diag`, several terms."""
    return [
        f
        for f, factor in enumerate(parameters.factors)
        if factor.q > 1 and factor.root is None and (len(factor.terms) > 1 or parameters.terms[factor.terms[0]].covariance.name != "us")
    ]


def line_moments(levels: _LevelSums, squares: float, residual_df: int) -> list[Array]:
    """Relative covariances (q, q) of the levels' own lines, what their errors add left in and taken out; none where there are no lines.

    squares : sum of squares of the least-squares residuals; residual_df : n - p
    """
    A, c = levels.A.transpose(2, 0, 1), levels.c.T
    values = np.linalg.eigvalsh(A)
    own = values[:, 0] > CLEAR * values[:, -1]
    if own.sum() < 2:
        return []
    inverse = np.linalg.inv(A[own])
    lines = np.einsum("kab,kb->ka", inverse, c[own])
    left = residual_df - levels.q * int(own.sum())
    within = (squares - float((lines * c[own]).sum())) / left if left > 0 else 0.0
    if within <= CLEAR * squares:
        within = squares / max(residual_df, 1)
    spread = lines.T @ lines / len(lines) / within
    return [spread, np.diag(np.maximum(np.diagonal(spread - inverse.mean(axis=0)), SMALLEST**2))]


def levels_of(cross: CrossProducts, f: int) -> _LevelSums:
    """One factor of the cross-products by level."""
    if cross.first is None:
        assert cross.rest is not None
        return _by_level(cross, cross.rest.spans[f])
    return _factors(cross)[f] if f else _LevelSums(cross.first.A, cross.first.C[:, cross.p])


def levels_of_rows(data: SubjectData, terms: Sequence[int]) -> _LevelSums:
    """The terms of one factor by level, from rows."""
    own = [data.terms[i] for i in terms]
    Z, codes, K = np.concatenate([term.Z for term in own], axis=1), own[0].codes, own[0].K
    q, y = Z.shape[1], data.Xy[:, -1]
    A = np.array([[np.bincount(codes, Z[:, a] * Z[:, b], K) for b in range(q)] for a in range(q)])
    return _LevelSums(A, np.array([np.bincount(codes, Z[:, a] * y, K) for a in range(q)]))


SHRINK_CORRELATIONS = 0.9
"""Correlations of the moment matrix are drawn towards 0 by this factor, which keeps the start inside the structure."""


def residual_products(residual: Array, subject: Array, visit: Array, m: int, subjects: int) -> tuple[Array, Array]:
    """Products of the residuals summed over the subjects who have both visits, and how many have; (m, m) each."""
    table = np.full((subjects, m), np.nan)
    table[subject, visit] = residual
    seen = np.isfinite(table).astype(float)
    filled = np.nan_to_num(table)
    return filled.T @ filled, seen.T @ seen


def residual_moments(products: Array, count: Array) -> Array:
    """Mean products of the residuals over the subjects who have both visits, made positive definite; (m, m)."""
    overall = max(float(np.trace(products) / np.trace(count)), 1e-300)
    S = np.where(count > 0, products / np.maximum(count, 1.0), 0.0)
    sd = np.sqrt(np.where(np.diagonal(count) > 1, np.maximum(np.diagonal(S), 1e-3 * overall), overall))
    C = (
        np.clip(S / np.outer(np.sqrt(np.maximum(np.diagonal(S), 1e-300)), np.sqrt(np.maximum(np.diagonal(S), 1e-300))), -0.99, 0.99)
        * SHRINK_CORRELATIONS
    )
    np.fill_diagonal(C, 1.0)
    values, vectors = np.linalg.eigh(C)
    C = (vectors * np.maximum(values, 0.05)) @ vectors.T
    scale = np.sqrt(np.diagonal(C))
    return np.asarray(C / np.outer(scale, scale) * np.outer(sd, sd))


def residual_start(design: Design, structure: ResidualStructure, residual: Array, mixed: bool) -> Array:
    """phi at the start. residual : (n,) least squares, divided by what weights scale rows by; mixed : there are random effects too."""
    if not isinstance(structure, GroupedStructure):
        return np.zeros(structure.size)
    plain = np.tile(structure.covariance.start(), (structure.groups, 1))
    if mixed or isinstance(structure.covariance, SpatialCovariance) or not isinstance(structure, VisitStructure):
        return structure.join_groups(plain)[1]
    term = design.residual
    assert term is not None and term.visit is not None
    sets = np.zeros(len(residual), np.int64) if term.group is None else term.group.codes
    sums = []
    for g in range(structure.groups):
        rows = sets == g
        sums.append(
            residual_products(residual[rows], term.subject.codes[rows], term.visit[rows], structure.covariance.q, term.subject.size)
        )
    return start_from_moments(structure, sums)


def start_of_patterns(structure: VisitStructure, patterns: Sequence[PooledBatch]) -> Array:
    """`residual_start` from sums by pattern of visits."""
    m = structure.covariance.q
    products, count = np.zeros((2, structure.groups * m * m))
    for batch in patterns:
        assert batch.block.place is not None
        place = (batch.block.group[:, :, None] * m + batch.block.place[:, :, None]) * m + batch.block.place[:, None, :]
        products += np.bincount(place.ravel(), batch.G[:, :, -1].ravel(), len(products))
        count += np.bincount(place.ravel(), np.repeat(batch.count, place[0].size), len(count))
    return start_from_moments(structure, list(zip(products.reshape(-1, m, m), count.reshape(-1, m, m), strict=True)))


def start_from_moments(structure: GroupedStructure, sums: Sequence[tuple[Array, Array]]) -> Array:
    """phi near the moments of the residuals. sums : of every group, as `residual_products`"""
    full = []
    for products, count in sums:
        x = structure.covariance.from_matrix(residual_moments(products, count))
        full.append(x if _is_positive_definite(structure, x) else structure.covariance.start())
    return structure.join_groups(np.stack(full))[1]


def _is_positive_definite(structure: GroupedStructure, x: Array) -> bool:
    """Whether a start is a positive definite matrix."""
    T = structure.covariance.factor(x)
    return bool(np.all(np.isfinite(T)) and np.abs(np.diagonal(T)).min() > 1e-6 * np.abs(np.diagonal(T)).max())


RANGE_MOVES = np.linspace(-2.0, 4.0, 9)
"""Moves of the range of a spatial structure tried for a start, on its free axis: a criterion may have several minima in a range.

Beside random effects only the shorter ones: errors that are alike over a whole subject would stand for its random intercept.
"""


def range_start(criterion: Criterion, kernel: BlockDiagonalKernel, start: Array) -> Array:
    """The start with the best of some ranges, where the structure is a function of distances."""
    if not isinstance(kernel.structure, SpatialStructure):
        return start
    size = kernel.structure.covariance.size
    places = kernel.residual_part.start + np.arange(kernel.structure.groups) * size
    moves = RANGE_MOVES[RANGE_MOVES <= 0.5] if kernel.random.terms else RANGE_MOVES
    tried = np.tile(start, (len(moves), 1))
    tried[:, places] += moves[:, None]
    return np.asarray(tried[np.argmin(criterion.values(tried, restricted=True))])
