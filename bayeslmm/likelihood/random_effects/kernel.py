"""The kernel of random effects with independent errors: value, gradient, Newton matrix; many thetas at once when levels are alike.

sum_k C_k' H_k C_k = sum over classes of H_c : G_c,   G_c = sum of C_k C_k' over the levels of the class

which is one matrix product over all thetas, its cost free of the number of levels. Subjects seen at the same visits are one class: a
balanced design has a single one. What crosses the first factor is pooled likewise. Values and what draws of random effects need;
derivatives go through the kernel itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from bayeslmm._arrays import Array, Codes, Mask
from bayeslmm.likelihood.kernel import TUNING, Slopes, Solution, State, merge_solutions, solve_Xy, stack_solutions
from bayeslmm.likelihood.parameters import RandomParameters
from bayeslmm.likelihood.random_effects.blocked import BlockedCholesky, evaluate_blocked, solve_blocked
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts
from bayeslmm.likelihood.random_effects.dense import DenseCrossProducts, DenseFactor, dense_cross_products
from bayeslmm.likelihood.random_effects.iterative import IterativeSchur
from bayeslmm.likelihood.random_effects.level_blocks import LARGE_SD, factor_unrolled
from bayeslmm.likelihood.random_effects.off_diagonal import DenseOffDiagonal, FactorisedOffDiagonal, UnpairedOffDiagonal, lower_entries
from bayeslmm.likelihood.random_effects.schur import ComponentKinds, SchurComplement, factorise, find_component_kinds, solve_kinds

SINGULAR_VALUE = 1e-8
"""Singular values of T below this are not divided by."""

SMALLEST_REGULAR = 3e-3
"""Entries of T's diagonal that differences in x do not step over."""


@dataclass(frozen=True, eq=False)
class RandomEffectsState:
    """An evaluation of the kernel of random effects."""

    parameters: RandomParameters
    x: Array
    levels: BlockedCholesky

    @property
    def solution(self) -> Solution:
        return self.levels.solution

    def modes(self) -> list[Array]:
        """Conditional modes beta of every factor, (q, t, K), on the standardized columns (before L of a relationship matrix)."""
        return self.levels.modes()

    @cached_property
    def derivatives(self) -> list[tuple[int, slice, slice, Array]]:
        """For every term: its factor, its columns there, its part of x, dT/dx (t, size, q, q)."""
        return self.parameters.derivatives(self.x)

    @cached_property
    def _r2_slope(self) -> Array:
        return self.parameters.chain(self.derivatives, [-2.0 * S @ T for S, T in zip(self.levels.squares, self.levels.Ts, strict=True)])

    def gradients(self, restricted: bool) -> tuple[Array, Array]:
        return self.parameters.chain(self.derivatives, self.levels.logdet_adjoints(restricted)), self._r2_slope

    @cached_property
    def _parameter_derivatives(self) -> list[Array]:
        """dT of the parameters of every factor, (k, q, q), the matrices of the whole factor."""
        found: list[list[Array]] = [[] for _ in self.levels.Ts]
        for f, own, _, dT in self.derivatives:
            q = self.levels.Ts[f].shape[-1]
            if own.stop - own.start == q:
                found[f].append(dT[0])
                continue
            whole = np.zeros((dT.shape[1], q, q))
            whole[:, own, own] = dT[0]
            found[f].append(whole)
        return [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in found]

    @cached_property
    def _sigma_derivatives(self) -> list[Array]:
        """dSigma of the parameters of every factor, (k, q, q)."""
        halves = [dT @ T[0].T for dT, T in zip(self._parameter_derivatives, self.levels.Ts, strict=True)]
        return [half + half.swapaxes(-1, -2) for half in halves]

    @cached_property
    def _average_information(self) -> Array:
        information = self.levels.average_information(self._sigma_derivatives)
        order = self.parameters.order
        return information if order is None else information[order[:, None], order]

    def newton_matrix(self, restricted: bool, sigma2: float, df: int) -> Array:
        # 2 (AI - AI_s AI_s' / AI_ss), the average information with sigma profiled out
        information = self._average_information
        slope = self._r2_slope[0] / sigma2
        return np.asarray(information / sigma2 - slope[:, None] * slope / df + self.curvature(restricted, 1.0 / sigma2))

    @property
    def estimated(self) -> IterativeSchur | None:
        """What remains of the first factor where probes estimate its determinant; None where all is exact."""
        rest = self.levels.rest
        return rest if isinstance(rest, IterativeSchur) else None

    @property
    def has_own_derivatives(self) -> bool:
        """Whether the gradient in x is that of an estimated determinant, which G = d criterion / d Sigma follows up to its error only.

        Not where T is singular: there G says more than the gradient.
        """
        if self.estimated is None:
            return False
        return all(float(np.abs(T[0].diagonal()).min(initial=np.inf)) > SMALLEST_REGULAR for T in self.levels.Ts)

    def monte_carlo(self) -> MonteCarlo | None:
        """The error of the determinant where probes estimate it; None where it is exact."""
        rest = self.estimated
        if rest is None:
            return None
        count, size = rest.probes.count, self.x.shape[1]
        _, dX = self.levels.working_products(self._sigma_derivatives)
        slopes = -(self.levels.solution.information_inverse[0] @ dX).T
        order = self.parameters.order
        slopes = slopes if order is None else slopes[order]
        if count < 2:
            return MonteCarlo(count, 0.0, np.zeros((size, size)), slopes)
        samples = self.parameters.chain(self.derivatives, rest.probe_slopes(self.levels.Ts[0][0]))
        samples = samples - samples.mean(0)
        criterion = float(rest.logdet_samples.std(ddof=1)) / np.sqrt(count)
        return MonteCarlo(count, criterion, samples.T @ samples / (count * (count - 1)), slopes)

    def average_derivatives(self, restricted: bool, sigma2: float) -> tuple[Array, Array] | None:
        """Average information of x at fixed sigma (size, size), and d (X' V0^-1 X)^-1 / d x (size, p, p); None where others are cheap."""
        if self.estimated is None:
            return None
        C, order = self.levels.solution.information_inverse[0], self.parameters.order
        moved = self.levels.fixed_products(self._sigma_derivatives)
        information = self._average_information / sigma2 + self.curvature(restricted, 1.0 / sigma2)
        return information, C @ (moved if order is None else moved[order]) @ C

    def sigma_gradients(self, restricted: bool, sigma2: float) -> list[Array]:
        """G = d criterion / d(Sigma) of every term, in the order of the formula."""
        G: dict[int, Array] = {}
        information = self.levels.information(restricted)
        for factor, block, square in zip(self.parameters.factors, information, self.levels.squares, strict=True):
            whole = block[0] - square[0] / sigma2
            for i, own in zip(factor.terms, factor.slices, strict=True):
                G[i] = 0.5 * (whole[own, own] + whole[own, own].T)
        return [G[i] for i in range(len(G))]

    def curvature(self, restricted: bool, weight: float) -> Array:
        """2 tr(G dT_i dT_j') with G the derivative of the criterion in Sigma: what the parameterisation adds."""
        out = np.zeros((self.x.shape[1], self.x.shape[1]))
        begin = 0
        for G, dT in zip(self._factor_gradients(restricted, weight), self._parameter_derivatives, strict=True):
            part = slice(begin, begin + len(dT))
            out[part, part] = 2.0 * ((G @ dT).reshape(len(dT), -1) @ dT.reshape(len(dT), -1).T)
            begin = part.stop
        order = self.parameters.order
        return out if order is None else out[order[:, None], order]

    def _factor_gradients(self, restricted: bool, weight: float) -> list[Array]:
        """d criterion / d Sigma of every factor: from gT = 2 G T where T can be divided by, else from the cross-products."""
        smooth = all(float(np.abs(T[0].diagonal()).min(initial=np.inf)) > SINGULAR_VALUE for T in self.levels.Ts)
        if smooth:
            adjoints = self.levels.logdet_adjoints(restricted)
            halves = [0.5 * np.linalg.solve(T[0].T, g[0].T).T for T, g in zip(self.levels.Ts, adjoints, strict=True)]
        else:
            halves = [g[0] for g in self.levels.information(restricted)]
        return [g - weight * square[0] for g, square in zip(halves, self.levels.squares, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class MonteCarlo:
    """The error that probes leave at one x.

    probes : how many; criterion : standard deviation of its error; gradient : (size, size) covariance of the error of its gradient
    alpha_slopes : (size, p) d alpha / d x, on standardized columns
    """

    probes: int
    criterion: float
    gradient: Array
    alpha_slopes: Array

    def covariance(self, hessian: Array) -> Array:
        """(size, size) of the error of the optimum; hessian : of the criterion."""
        inverse = symmetric_inverse(hessian)
        return np.asarray(inverse @ self.gradient @ inverse)

    def share(self, hessian: Array) -> float:
        """The largest error of any function of x at the optimum, as a share of its standard error."""
        values, vectors = np.linalg.eigh(hessian)
        kept = values > FLAT * values.max(initial=0.0)
        root = vectors[:, kept] / np.sqrt(values[kept])
        return float(np.sqrt(0.5 * max(np.linalg.eigvalsh(root.T @ self.gradient @ root).max(initial=0.0), 0.0)))


FLAT = 1e-10
"""Curvature, relative to the largest, below which the criterion is level in a direction."""


def symmetric_inverse(hessian: Array) -> Array:
    """The inverse over the directions in which a criterion is curved upwards."""
    values, vectors = np.linalg.eigh(hessian)
    kept = values > FLAT * values.max(initial=0.0)
    return np.asarray((vectors[:, kept] / values[kept]) @ vectors[:, kept].T)


class PointState(RandomEffectsState):
    """An evaluation made without levels; what is asked of them is found level by level when it is first asked for."""

    def __init__(self, kernel: RandomEffectsKernel, x: Array, point: DenseFactor | RowEvaluation) -> None:
        for name, value in {"parameters": kernel.parameters, "x": x, "kernel": kernel, "point": point}.items():
            object.__setattr__(self, name, value)

    kernel: RandomEffectsKernel
    point: DenseFactor | RowEvaluation

    @cached_property
    def levels(self) -> BlockedCholesky:
        return self.kernel.by_level(self.x, derivatives=True).levels

    @property
    def estimated(self) -> IterativeSchur | None:
        return None

    @property
    def solution(self) -> Solution:
        return self.point.solution

    def newton_matrix(self, restricted: bool, sigma2: float, df: int) -> Array:
        return self.point.newton_matrix(restricted, sigma2, df)


class DenseState(PointState):
    """An evaluation of few columns as one matrix."""

    point: DenseFactor

    def modes(self) -> list[Array]:
        return self.point.modes()

    def gradients(self, restricted: bool) -> tuple[Array, Array]:
        return self.point.logdet_slope(restricted)[None], self.point.r2_slope[None]


class RowState(PointState):
    """An evaluation by rows, where effects are so large that cross-products have lost the residuals; levels from the cross-products."""

    point: RowEvaluation

    def gradients(self, restricted: bool) -> tuple[Array, Array]:
        return self.point.gradients(restricted)

    def sigma_gradients(self, restricted: bool, sigma2: float) -> list[Array]:
        return self.point.sigma_gradients(restricted, sigma2)

    def modes(self) -> list[Array]:
        scores, found = self.point.scores(), []
        for factor, T in zip(self.parameters.factors, self.parameters.blocks(self.x), strict=True):
            own = np.concatenate([scores[i] for i in factor.terms])
            found.append((T[0] @ (T[0].T @ (own if factor.root is None else own @ factor.root)))[:, None])
        return found


class RowEvaluation(State, Protocol):
    """An evaluation that knows the rows."""

    def scores(self) -> list[Array]:
        """Z' V0^-1 (y - X alpha) by level of every term, (q, K)."""


class RowKernel(Protocol):
    """The kernel of the same model row by row."""

    def solve(self, x: Array) -> Solution: ...

    def evaluate_one(self, x: Array) -> RowEvaluation: ...


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Makes the kernel of rows for some parameters; sums : of these rows, no others."""

    sums: CrossProducts
    kernel: Callable[[RandomParameters], RowKernel]


@dataclass(frozen=True, slots=True, eq=False)
class SeparateStates:
    """Evaluations at several points, made one by one."""

    states: list[RandomEffectsState]

    @property
    def solution(self) -> Solution:
        return stack_solutions([state.solution for state in self.states])

    def gradients(self, restricted: bool) -> tuple[Array, Array]:
        logdet, r2 = zip(*(state.gradients(restricted) for state in self.states), strict=True)
        return np.concatenate(logdet), np.concatenate(r2)


@dataclass(frozen=True, eq=False)
class RandomEffectsKernel:
    """Random effects with independent errors.

    together : one x at a time may be evaluated with all columns as one matrix, where they are few
    rows : of few rows with several factors, for effects so large that cross-products lose the residuals
    """

    parameters: RandomParameters
    cross: CrossProducts
    together: bool = True
    rows: Rows | None = None

    @property
    def size(self) -> int:
        return self.parameters.size

    @cached_property
    def dense(self) -> DenseCrossProducts | None:
        return dense_cross_products(self.parameters, self.cross) if self.together else None

    @cached_property
    def by_rows(self) -> RowKernel | None:
        """The kernel of the rows where these are at hand."""
        return None if self.rows is None or self.rows.sums is not self.cross else self.rows.kernel(self.parameters)

    def _hides_residuals(self, x: Array) -> Mask:
        """Which x (t, size) are evaluated by rows, (t,)."""
        found = np.abs(x).max(axis=-1, initial=0.0) >= LARGE_SD
        return found if found.any() and self.by_rows is not None else np.zeros(len(x), bool)

    def solve(self, x: Array) -> Solution:
        if len(x) == 1 and not x.any():
            return solve_Xy(np.zeros(1), self.cross.Xy[None])
        by_rows = self._hides_residuals(x)
        if by_rows.any():
            assert self.by_rows is not None
            exact = self.by_rows.solve(x[by_rows])
            return exact if by_rows.all() else merge_solutions(by_rows, exact, self.solve(x[~by_rows]))
        if self.cross.remaining is not None:
            return stack_solutions([self.by_level(row[None], derivatives=False).solution for row in x])
        return solve_blocked(self.cross, self.parameters.blocks(x), lambda Ts: evaluate_blocked(self.cross, Ts, False).solution)

    def _large(self, x: Array) -> bool:
        """Whether T may be so large that each x is better evaluated by itself."""
        large = float(np.abs(x).max(initial=0.0)) >= LARGE_SD
        return large and (len(self.cross.factors) == 1 or self.by_rows is not None)

    def by_level(self, x: Array, derivatives: bool) -> RandomEffectsState:
        """The profile at x (t, size), level by level."""
        for known in self._recent:
            if np.array_equal(x, known.x):
                return known
        state = RandomEffectsState(self.parameters, x, evaluate_blocked(self.cross, self.parameters.blocks(x), derivatives))
        if derivatives and self.cross.remaining is not None:
            self._recent[:] = [*self._recent[-1:], state]
        return state

    @cached_property
    def _recent(self) -> list[RandomEffectsState]:
        """The last two evaluations with derivatives where each takes many sparse products: a search ends at one of them."""
        return []

    def evaluate_many(self, x: Array) -> Slopes:
        if self.cross.remaining is not None:
            return SeparateStates([self.by_level(row[None], derivatives=True) for row in x])
        found = self.dense.evaluate_many(x) if self.dense is not None else None
        return self.by_level(x, derivatives=True) if found is None else found

    def evaluate_together(self, x: Array) -> Slopes | None:
        """The profile at a few x (t, size) in one go where all columns are one small matrix; else None: memory would grow with t."""
        if self.dense is None or self._large(x):
            return None
        try:
            return self.dense.evaluate_many(x)
        except np.linalg.LinAlgError:
            return None

    def evaluate(self, x: Array, derivatives: bool) -> RandomEffectsState:
        if len(x) == 1 and self._hides_residuals(x).all():
            assert self.by_rows is not None
            return RowState(self, x, self.by_rows.evaluate_one(x[0]))
        if self.dense is not None and derivatives and len(x) == 1 and not self._large(x):
            point = self.dense.evaluate(x[0])
            if point is not None:
                return DenseState(self, x, point)
        return self.by_level(x, derivatives)


LEVEL_DECIMALS = 12
"""Decimals, in units of their largest, to which cross-products of two levels must agree to share a class."""


@dataclass(frozen=True, slots=True, eq=False)
class PooledLevelsState:
    """Many x at once: the profile in alpha, W (q, q, t, K or 1) = L^-1 T' of every level or of all alike, and the remaining factors."""

    solution: Solution
    W: Array
    rest: SchurComplement | None


@dataclass(frozen=True, slots=True, eq=False)
class PooledLevelsKernel:
    """The likelihood at many x, level classes in place of levels.

    classes : (K,) of every level; A : (q, q, C); count : (C,) levels of each class
    Xy : (e C, r r) products with [X y] for the e lower entries of H, those off the diagonal with both their sides
    U : (e C, flat) what the remaining columns lose; V : (q q C, m r) what they lose with [X y]; None without remaining columns
    kinds : equal components of the remaining columns, whose U0 and U are `kind_U` (1 + e C, their flat); None where few are equal
    """

    parameters: RandomParameters
    cross: CrossProducts
    classes: Codes
    A: Array
    count: Array
    Xy: Array
    U: Array | None
    V: Array | None
    kinds: ComponentKinds | None
    kind_U: Array | None

    def solve(self, x: Array) -> Solution:
        """The profile in alpha at x (t, size)."""
        values = self._solve_kinds if self.kinds is not None else lambda Ts: self._solve(Ts)[0]
        return solve_blocked(self.cross, self.parameters.blocks(x), values)

    def state(self, x: Array) -> PooledLevelsState:
        """What draws of the random effects at x (t, size) need."""
        solution, W, rest = self._solve(self.parameters.blocks(x))
        return PooledLevelsState(solution, self._of_levels(W), rest)

    def whiten(self, x: Array) -> Array:
        """W = L^-1 T' of every level, (q, q, t, K or 1 where all are alike)."""
        return self._of_levels(factor_unrolled(self.A, self.parameters.blocks(x)[0])[1])

    def _of_levels(self, W: list[list[Array]]) -> Array:
        q = len(W)
        own = np.array([[np.broadcast_to(W[a][b], W[0][0].shape) for b in range(q)] for a in range(q)])
        return own if len(self.count) == 1 else own[..., self.classes]

    def _solve(self, Ts: Sequence[Array]) -> tuple[Solution, list[list[Array]], SchurComplement | None]:
        logdet, W, H, flat, Xy = self._eliminate(Ts)
        if self.cross.rest is None or self.U is None or self.V is None:
            return solve_Xy(logdet, Xy), W, None
        assert self.cross.U0 is not None
        rest = factorise(self.cross.rest, self.cross.U0 - flat @ self.U, self._of_rest(H), Ts[1:])
        return solve_Xy(logdet + rest.logdet, Xy - rest.Xy), W, rest

    def _solve_kinds(self, Ts: Sequence[Array]) -> Solution:
        logdet, _, H, flat, Xy = self._eliminate(Ts)
        assert self.cross.rest is not None and self.kinds is not None and self.kind_U is not None
        own, lost = solve_kinds(self.cross.rest, self.kinds, self.kind_U[0] - flat @ self.kind_U[1:], self._of_rest(H), Ts[1:])
        return solve_Xy(logdet + own, Xy - lost)

    def _eliminate(self, Ts: Sequence[Array]) -> tuple[Array, list[list[Array]], dict[tuple[int, int], Array], Array, Array]:
        """The first factor: its log determinant (t,), W = L^-1 T', the entries of H = W' W (t, C), all of them, what it leaves of [X y]."""
        t, q, r = len(Ts[0]), len(self.A), self.cross.p + 1
        det, W = factor_unrolled(self.A, Ts[0])
        H = {(a, b): np.asarray(sum(W[c][a] * W[c][b] for c in range(q))) for a, b in lower_entries(q)}
        flat = np.concatenate([H[entry] for entry in lower_entries(q)], axis=1)
        return np.log(det) @ self.count, W, H, flat, self.cross.Xy - (flat @ self.Xy).reshape(t, r, r)

    def _of_rest(self, H: dict[tuple[int, int], Array]) -> Array:
        """What is left of the remaining columns' products with [X y], (t, m, r)."""
        assert self.cross.V0 is not None and self.V is not None
        q = len(self.A)
        square = np.concatenate([H[max(a, b), min(a, b)] for a in range(q) for b in range(q)], axis=1)
        return np.asarray(self.cross.V0 - (square @ self.V).reshape(len(square), -1, self.cross.p + 1))


def pool_levels(kernel: RandomEffectsKernel) -> PooledLevelsKernel | None:
    """A kernel's classes; None where pooled cross-products would be larger than levels are worth."""
    cross, first = kernel.cross, kernel.cross.first
    if first is None or first.C.ndim != 3 or first.q > TUNING.unrolled_columns or (cross.rest is not None and cross.U0 is None):
        return None
    classes = classify_levels(first.A)
    C, q, r = int(classes.max()) + 1, first.q, cross.p + 1
    held = C * q * q * (r * r + (0 if cross.rest is None else cross.rest.flat + cross.rest.m * r))
    if held > TUNING.pooled_elements:
        return None
    pool = sp.csr_array((np.ones(first.K), (classes, np.arange(first.K))), shape=(C, first.K))
    count = np.bincount(classes, minlength=C).astype(float)
    A = np.stack([np.stack([pool @ first.A[a, b] / count for b in range(q)]) for a in range(q)])
    U, V = None, None
    if cross.coupling is not None and not isinstance(cross.coupling, UnpairedOffDiagonal):
        U = _pooled_products(cross.coupling, pool, classes)
        V = _pooled_with_Xy(cross.coupling, first.C, classes, C)
    kinds, kind_U = None, None
    if cross.rest is not None and U is not None and cross.U0 is not None:
        whole = np.concatenate([np.reshape(cross.U0, (1, -1)), U])
        kinds = find_component_kinds(cross.rest, whole)
        kind_U = None if kinds is None else whole[:, kinds.entries]
    return PooledLevelsKernel(kernel.parameters, cross, classes, A, count, _pooled_Xy(first.C, classes, C), U, V, kinds, kind_U)


def classify_levels(A: Array) -> Codes:
    """The class of every level, (K,): levels whose cross-products are equal; A (q, q, K)."""
    q, K = A.shape[0], A.shape[2]
    size = np.sqrt(np.maximum(A[np.arange(q), np.arange(q)].max(axis=1), 1e-300))
    scaled = np.round((A / np.outer(size, size)[..., None]).reshape(q * q, K).T, LEVEL_DECIMALS)
    return np.unique(scaled + 0.0, axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def _pooled_Xy(C: Array, classes: Codes, count: int) -> Array:
    """sum over the levels of a class of C_a C_b' (+ its transpose off the diagonal), (e count, r r)."""
    q, r, _ = C.shape
    order = np.argsort(classes, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(classes, minlength=count))])
    out = []
    for a, b in lower_entries(q):
        for c in range(count):
            own = order[bounds[c] : bounds[c + 1]]
            G = C[a][:, own] @ C[b][:, own].T
            out.append((G if a == b else G + G.T).ravel())
    return np.array(out).reshape(-1, r * r)


def _pooled_products(coupling: FactorisedOffDiagonal, pool: sp.csr_array, classes: Codes) -> Array:
    """The Schur complement's coefficients by class, (e C, flat)."""
    if isinstance(coupling, DenseOffDiagonal):
        return _dense_products(coupling, classes, pool.shape[0])
    return np.concatenate([(product @ pool.T).toarray().T for product in coupling.products])


def _dense_products(coupling: DenseOffDiagonal, classes: Codes, count: int) -> Array:
    out = []
    for a, b in lower_entries(coupling.q):
        for c in range(count):
            own = classes == c
            G = coupling.E[a][own].T @ coupling.E[b][own]
            out.append((G if a == b else G + G.T).ravel())
    return np.array(out)


def _pooled_with_Xy(coupling: FactorisedOffDiagonal, C: Array, classes: Codes, count: int) -> Array:
    """sum over the levels of a class of E_a' C_b, (q q count, m r)."""
    columns: Sequence[Array | sp.csr_array] = list(coupling.E) if isinstance(coupling, DenseOffDiagonal) else list(coupling.columns)
    out = []
    for E in columns:
        for b in range(len(columns)):
            out += [np.asarray(E[np.flatnonzero(classes == c)].T @ C[b][:, classes == c].T).ravel() for c in range(count)]
    return np.array(out)
