"""Kenward and Roger's covariances of the fixed effects (1997, 2009), their F test, and the derivatives of V under structured errors.

With C = (X' V^-1 X)^-1 and W the covariance of the components psi,

    C_A = C + 2 C { sum_ab W_ab (Q_ab - P_a C P_b - R_ab / 4) } C,     R_ab = X' V^-1 V_ab V^-1 X.

W is twice the inverse of the expected information (as pbkrtest has it), or of the observed one (as SAS and mmrm have it). Without the R
term ("linear") the result does not depend on how the covariance is parameterised; where V is linear in psi there is no R term.
Kenward and Roger (1997), Biometrics 53, 983-997.

psi are the components of the covariance: variances and covariances of every random term and of the errors wherever V is linear in them,
and sigma^2 last. All is on standardized columns of X and in units of sigma (V0 = V / sigma^2, psi_k = 1).

Under structured errors psi are the components of every random term, of every parameter set of R (its variances included), and the
parameters of the variance function; sigma^2 comes on its own only where nothing else is a scale of R. The R term depends on what the scale
of R is: beside a variance function it is that of the geometric mean of the rows, not of a row whose covariate is 0 or 1 or of a reference
level, so that neither units, origins nor the order of levels count. Independent errors with a variance for each stratum have these for
psi, in which V is linear, as SAS has for GROUP=.

With F = (X' V^-1 X)^-1, W the covariance of the parameters and M = sum_ab W_ab V_ab, the improvement of the linear adjustment is

    F_A = F_linear - 1/2 F X' V^-1 (M - PM) V^-1 X F,

PM being the projection of M on the first derivatives V_s in the inner product tr(P A P B), P = V^-1 - V^-1 X F X' V^-1: the bias of the
parameters, -1/4 sum W_sr tr(P M P V_r), is what it comes from. The result does not depend on how the covariance is parameterised; where
V is linear in its parameters it is that of 1997. Kenward and Roger (2009), Computational Statistics & Data Analysis 53, 2583-2595.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, singledispatch

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bayeslmm._arrays import Array, Codes
from bayeslmm.errors import BayesLMMWarning, InferenceError, warn_user
from bayeslmm.estimate.estimate import Fitted, is_restricted
from bayeslmm.inference.fixed_effects.degrees_of_freedom import ObservedInformation, parameter_covariance, parameter_sizes, pseudo_inverse
from bayeslmm.likelihood.identification import covariance_elements, shared_factors
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.kernel import BlockDiagonalState, PooledBlockFactor, StructuredBlockFactor
from bayeslmm.likelihood.structured.low_rank import LowRankState
from bayeslmm.likelihood.structured.residual_structure import GroupedStructure, SpatialStructure, VisitStructure
from bayeslmm.likelihood.threads import one_thread


@dataclass(frozen=True, slots=True, eq=False)
class VDerivatives:
    """Products of the derivatives V_a of V in k directions, sandwiched between V^-1.

    The directions are psi of random terms; of the errors psi, or what psi moves with where that tells more: near 1 their parameters tell
    apart what correlations do not.

    P : (k, p, p) X' V^-1 V_a V^-1 X
    Q : (k, k, p, p) X' V^-1 V_a V^-1 V_b V^-1 X
    traces : (k, k) tr(V^-1 V_a V^-1 V_b)
    jacobian : (k, size + 1) of the directions in tau = (x, log sigma)
    second : (k, k, p, p) X' V^-1 V_ab V^-1 X, V_ab in psi, or None where V is linear in psi
    moves : (k, k) dpsi of the directions, None where these are psi
    """

    P: Array
    Q: Array
    traces: Array
    jacobian: Array
    second: Array | None = None
    moves: Array | None = None

    def expected_information(self, C: Array) -> Array:
        """tr(P V_a P V_b), (k, k), with C = (X' V^-1 X)^-1: twice the expected REML information of the directions."""
        CP = C @ self.P
        return np.asarray(self.traces - 2.0 * np.einsum("xy,abyx->ab", C, self.Q) + np.einsum("axy,byx->ab", CP, CP))


@singledispatch
def v_derivatives(state: object, problem: Problem, x: Array) -> VDerivatives:  # noqa: ARG001
    """The pieces at an evaluation of a kernel; each kernel registers its own.

    x : (size,) where it was evaluated
    """
    raise InferenceError(
        "Kenward-Roger is not available for this kind of model",
        type(state).__name__,
        "use df='satterthwaite', which needs no more than the criterion",
    )


MOST_DF = 1e15
"""Degrees of freedom beyond this are infinite."""

ZERO_MOMENT = 1e-10
"""Below this a term of the moments is 0."""


@dataclass(frozen=True, slots=True, eq=False)
class KenwardRoger:
    """On standardized columns, in units of sigma.

    C : (p, p) model-based, adjusted : (p, p); P : (k, p, p) X' V^-1 V_a V^-1 X; W : (k, k) covariance of the directions
    """

    C: Array
    adjusted: Array
    P: Array
    W: Array

    def rows(self, L: Array) -> Array:
        """Degrees of freedom of each row of L (r, p)."""
        LC = L @ self.C
        return self.from_forms(np.column_stack([(LC * L).sum(1), *(((LC @ P) * LC).sum(1) for P in self.P)]))

    @property
    def forms(self) -> Sequence[Array]:
        return (self.C, *(self.C @ P @ self.C for P in self.P))

    def from_forms(self, values: Array) -> Array:
        variance, g = values[:, 0], values[:, 1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            df = 2.0 * variance**2 / ((g @ self.W) * g).sum(1)
        # a variance that moves with no parameter has what rounding leaves of an infinity
        return np.asarray(np.where(df > MOST_DF, np.inf, df))

    def joint(self, L: Array) -> tuple[float, float]:
        """Scale of F and denominator degrees of freedom for L (q, p) of full row rank."""
        q = len(L)
        if q == 1:
            return 1.0, float(self.rows(L)[0])
        LC = L @ self.C
        root = np.linalg.cholesky(LC @ L.T)
        half = np.linalg.solve(root, LC)
        moved = half @ self.P @ half.T
        traces = np.einsum("aii->a", moved)
        A1 = float(traces @ self.W @ traces)
        A2 = float(np.einsum("ab,aij,bji->", self.W, moved, moved))
        return scale_and_df(A1, A2, q)


def scale_and_df(A1: float, A2: float, q: int) -> tuple[float, float]:
    """lambda and m such that lambda F is about F(q, m): the two moments of Kenward and Roger, exact in the balanced cases they name."""
    if A2 <= 0.0:
        return 1.0, np.inf
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1.0) * A1 - (q + 4.0) * A2) / ((q + 2.0) * A2)
    c = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / c, (q - g) / c, (q + 2.0 - g) / c
    E = 1.0 / (1.0 - A2 / q)
    v0, v1, v2 = 1.0 + c1 * B, 1.0 - c2 * B, 1.0 - c3 * B
    # terms that vanish together in exact cases
    v0 = 0.0 if abs(v0) < ZERO_MOMENT else v0
    ratio = 1.0 if abs(v1) < ZERO_MOMENT and abs(1.0 - A2 / q) < ZERO_MOMENT else (1.0 - A2 / q) / v1
    rho = (1.0 / q) * ratio**2 * v0 / v2
    m = 4.0 + (q + 2.0) / (q * rho - 1.0)
    return (1.0 if abs(m - 2.0) < 0.01 else float(m / (E * (m - 2.0)))), float(m)


def kenward_roger(
    pieces: VDerivatives,
    moved: ObservedInformation,
    information: str,
    linear: bool,
    sizes: Array,
    random: int = 0,
    *,
    held: bool = False,
) -> KenwardRoger:
    """Adjust the covariance of the fixed effects.

    information : "expected" or "observed"; linear : leave the second-order term out; sizes : (size + 1,) `component_sizes`
    random : how many of the components are those of random terms; held : sigma is known, and no parameter
    """
    C = moved.C
    if information == "observed":
        W = pieces.jacobian @ moved.covariance @ pieces.jacobian.T
    else:
        W = _inverse_information(pieces.expected_information(C), sizes, random, held)
    inner = np.einsum("ab,abxy->xy", W, pieces.Q) - np.einsum("ab,axy,yz,bzw->xw", W, pieces.P, C, pieces.P, optimize=True)
    if pieces.second is not None and not linear:
        of_psi = W if pieces.moves is None else pieces.moves @ W @ pieces.moves.T
        inner -= 0.25 * np.einsum("ab,abxy->xy", of_psi, pieces.second)
    adjusted = C + 2.0 * C @ inner @ C
    if len(C) and not np.linalg.eigvals(np.linalg.solve(C, adjusted)).real.min() > 0.0:
        # no variance is negative: numbers made from it would be an infinite statistic or none at all
        adjusted = np.full_like(C, np.nan)
        what = "the covariance by Kenward and Roger is not positive definite: there is no standard error"
        remedy = 'the errors are nearly singular, or their parameters hardly known: write a simpler structure, or df="satterthwaite"'
        warn_user(BayesLMMWarning(what, "df or vcov", remedy))
    return KenwardRoger(C, 0.5 * (adjusted + adjusted.T), pieces.P, W)


def expected_curvature(fit: Fitted, moved: ObservedInformation) -> ObservedInformation:
    """What the information of a fit is expected to be over all outcomes, in the place of that of one.

    moved : the observed information
    """
    point, problem = fit.point, fit.problem
    assert point.state is not None
    pieces = v_derivatives(point.state, problem, point.x)
    own = pieces.expected_information(moved.C) if is_restricted(fit) else pieces.traces
    H = pieces.jacobian.T @ own @ pieces.jacobian
    if problem.criterion.held is not None:
        H[-1] = H[:, -1] = 0.0
    return ObservedInformation(moved.C, moved.slopes, H, parameter_covariance(H, parameter_sizes(problem, point.x)))


EMPTY_DIRECTION = 1e-12
"""Expected information, relative to the largest, below which a direction is not identified: it is no difference, and has its digits."""


def component_sizes(problem: Problem, x: Array) -> Array:
    """(size + 1,) units of the directions; NaN for variances and covariances of random terms, which their information measures."""
    sizes = parameter_sizes(problem, x)
    for term in problem.random.terms:
        one = term.covariance.start()
        scales = term.covariance.component_jacobian(one) @ (term.covariance.degrees * one) != 0.0
        sizes[term.part] = np.where(scales, np.nan, 1.0)
    return sizes


def _inverse_information(information: Array, sizes: Array, random: int, held: bool) -> Array:
    """The covariance of the directions, (k, k).

    Components of random terms are free each: a variance of 0 does not move with x to first order. A variance counts by its information,
    whatever it is to sigma^2.
    """
    own, scales = np.diagonal(information)[:random], np.isnan(sizes[:random])
    known = scales & (own > 0.0)
    units = np.where(np.isnan(sizes), 1.0, sizes)
    units[:random][known] = 1.0 / np.sqrt(own[known])
    k = len(units) - held
    out = np.zeros_like(information)
    out[:k, :k] = 2.0 * pseudo_inverse(information[:k, :k], units[:k], EMPTY_DIRECTION)
    return out


HELD_ELEMENTS = 20_000_000
"""Elements of derivative matrices held at once."""


@v_derivatives.register
def _(state: BlockDiagonalState, problem: Problem, x: Array) -> VDerivatives:  # noqa: ARG001
    with one_thread():
        return _Components(state, x).pieces()


@dataclass(frozen=True, eq=False)
class _Components:
    """The components of a structured model at x, sigma = 1."""

    state: BlockDiagonalState
    x: Array

    def pieces(self) -> VDerivatives:
        p, random = self.state.kernel.data.r - 1, self.state.kernel.random.size
        psi = self.jacobian()
        k = len(psi)
        moves, jacobian = np.eye(k), np.eye(k)
        moves[random:, random:], jacobian[:random] = psi[random:, random:], psi[:random]
        P, Q, traces = np.zeros((k, p, p)), np.zeros((k * p, k * p)), np.zeros((k, k))
        second = np.zeros((k, k, p, p)) if self.is_nonlinear() else None
        if isinstance(self.state, LowRankState):
            self._add_low_rank(self.state, moves, P, Q, traces, second)
            return VDerivatives(P, Q.reshape(k, p, k, p).transpose(0, 2, 1, 3), traces, jacobian, second, moves)
        for pool in self.state.pooled:
            self._add_pooled(pool, moves, P, Q, traces, second)
        for part in self.state.rows:
            B, rows = part.batch.rows.shape
            step = max(1, HELD_ELEMENTS // max(1, k * rows * (rows + p)))
            for begin in range(0, B, step):
                cut = slice(begin, begin + step)
                V = np.tensordot(moves.T, self.first(part, cut), 1)
                inverse = part.inverse[cut]
                S = inverse @ part.U[cut][..., :p]
                Y = V @ S
                P += np.einsum("bkx,ibkz->ixz", S, Y, optimize=True)
                root = np.linalg.cholesky(inverse).swapaxes(-1, -2)
                half = (root @ Y).transpose(1, 2, 0, 3).reshape(-1, k * p)
                Q += half.T @ half
                M = inverse @ V
                traces += M.reshape(k, -1) @ M.swapaxes(-1, -2).reshape(k, -1).T
                if second is not None:
                    self._add_second(second, part, cut, S)
        return VDerivatives(P, Q.reshape(k, p, k, p).transpose(0, 2, 1, 3), traces, jacobian, second, moves)

    def _add_pooled(self, pool: PooledBlockFactor, moves: Array, P: Array, Q: Array, traces: Array, second: Array | None) -> None:
        """Patterns of visits: products between V^-1 contract with the summed products of rows of X, whatever the number of subjects."""
        residual, p, inverse = self._residual(), P.shape[-1], pool.inverse
        assert residual is not None
        B, rows, k = len(inverse), inverse.shape[-1], len(P)
        XX = pool.batch.G.reshape(B, rows * rows, p + 1, p + 1)[..., :p, :p].reshape(B, rows * rows, p * p)
        dR = np.tensordot(moves.T, self._residual_blocks(residual, pool, slice(0, B), 1), 1)
        within = second is not None and not residual.covariance.component_linear
        d2R = self._residual_blocks(residual, pool, slice(0, B), 2) if within else None
        for b, (W, count) in enumerate(zip(inverse, pool.batch.count, strict=True)):
            WV = W @ dR[:, b]
            WVW = WV @ W
            P += (WVW.reshape(k, -1) @ XX[b]).reshape(k, p, p)
            products = np.concatenate([(own @ WVW).reshape(k, -1) for own in WV])
            Q += (products @ XX[b]).reshape(k, k, p, p).transpose(0, 2, 1, 3).reshape(k * p, k * p)
            traces += count * (WV.reshape(k, -1) @ WV.swapaxes(-1, -2).reshape(k, -1).T)
            if d2R is not None and second is not None:
                for rows_of, V in zip(self._parts_of_sets(residual), d2R[:, :, b], strict=True):
                    own = (W @ V @ W).reshape(len(V), -1) @ XX[b]
                    second[rows_of, rows_of] += own.reshape(rows_of.stop - rows_of.start, -1, p, p)

    def _add_low_rank(self, state: LowRankState, moves: Array, P: Array, Q: Array, traces: Array, second: Array | None) -> None:
        """Independent errors beside random effects: dV is diagonal, or of the rank of the effects of a block."""
        kernel = state.kernel
        components = [term.covariance.component_derivatives(term.covariance.components(self.x[term.part])) for term in kernel.random.terms]
        dSigmas, diagonals = [found[1] for found in components], [self._diagonals(part.batch.rows) for part in state.blocks]
        traces += moves.T @ state.information(dSigmas, diagonals)[0] @ moves
        for part in state.component_products(dSigmas, diagonals):
            p = P.shape[-1]
            P += np.tensordot(moves.T, np.einsum("bkx,ibkz->ixz", part.scores, part.moved, optimize=True), 1)
            half = np.tensordot(moves.T, part.whitened, 1).transpose(1, 2, 0, 3).reshape(-1, len(P) * p)
            Q += half.T @ half
            if second is None:
                continue
            for term, (_, _, d2), A in zip(kernel.random.terms, components, part.by_level, strict=True):
                if not term.covariance.component_linear:
                    second[term.part, term.part] += np.einsum("blax,ijac,blcz->ijxz", A, d2, A, optimize=True)
            if kernel.variance.size and self._strata() is None:
                self._add_diagonal_second(second, part.rows, part.scores)

    def _diagonals(self, rows: Codes) -> Array:
        """dV0/dpsi of the components of independent errors, in scaled rows (B, k): (components, B, k)."""
        strata = self._strata()
        if strata is not None:
            own = strata[rows] == np.arange(self.state.kernel.variance.size + 1)[:, None, None]
            return np.asarray(own / self._stratum_variances()[:, None, None])
        return np.concatenate([np.ones((1, *rows.shape)), 2.0 * self.centred_slopes[:, rows]])

    def _add_diagonal_second(self, second: Array, rows: Codes, S: Array) -> None:
        """`_add_variance_second` of independent errors."""
        slope, begin = 2.0 * self.centred_slopes[:, rows], len(second) - self.state.kernel.variance.size
        for a in range(len(slope)):
            weights = slope[a] * slope
            if self.centred_bends is not None:
                weights = weights + 2.0 * self.centred_bends[a][:, rows]
            second[begin + a, begin:] += np.einsum("bkx,jbk,bkz->jxz", S, weights, S, optimize=True)
            cross = np.einsum("bkx,bk,bkz->xz", S, slope[a], S, optimize=True)
            second[begin + a, begin - 1] += cross
            second[begin - 1, begin + a] += cross

    def _parts_of_sets(self, residual: GroupedStructure) -> list[slice]:
        """Where the components of each parameter set of R stand in psi."""
        begin, s = self.state.kernel.random.size, residual.covariance.size
        return [slice(begin + g * s, begin + (g + 1) * s) for g in range(residual.groups)]

    # -- what psi is ---------------------------------------------------------------------------------------------------------------

    def _residual(self) -> GroupedStructure | None:
        structure = self.state.kernel.structure
        return structure if isinstance(structure, GroupedStructure) else None

    def _strata(self) -> Codes | None:
        """The stratum of every row where psi are the variances of strata: independent errors whose variance is a function of one factor."""
        kernel = self.state.kernel
        strata = [factor.strata for factor in kernel.variance.factors if factor.kind == "ident"]
        return strata[0] if len(strata) == len(kernel.variance.factors) == 1 and self._residual() is None else None

    def _stratum_variances(self) -> Array:
        return np.exp(2.0 * np.append(0.0, self.x[self.state.kernel.variance_part]))

    @cached_property
    def mean_slopes(self) -> Array:
        """Means over the rows of the derivatives of their log multipliers, (size,): they move the scale, which is the geometric mean."""
        return np.asarray(self.state.slopes.mean(axis=1))

    @cached_property
    def centred_slopes(self) -> Array:
        """These derivatives about their means, (size, n)."""
        return np.asarray(self.state.slopes - self.mean_slopes[:, None])

    @cached_property
    def centred_bends(self) -> list[Array] | None:
        """Second derivatives of the log multipliers about their means, (size, n) for each parameter; None where they are linear."""
        bends = self.state.kernel.variance.second_derivatives(self.x[self.state.kernel.variance_part])
        return None if bends is None else [own - own.mean(axis=1)[:, None] for own in bends]

    def jacobian(self) -> Array:
        """dpsi / d(x, log sigma), (k, size + 1)."""
        kernel, x = self.state.kernel, self.x
        residual, strata = self._residual(), self._strata()
        k_R = 1 if residual is None else residual.groups * residual.covariance.size
        k = kernel.random.size + k_R + kernel.variance.size
        out = np.zeros((k, kernel.size + 1))
        for term in kernel.random.terms:
            J = term.covariance.component_jacobian(x[term.part])
            out[term.part, term.part] = J
            out[term.part, -1] = J @ (term.covariance.degrees * x[term.part])
        begin = kernel.random.size
        if strata is not None:
            variances = self._stratum_variances()
            out[begin:, -1] = 2.0 * variances
            out[begin + 1 :, kernel.variance_part] = np.diag(2.0 * variances[1:])
            return out
        if residual is None:
            out[begin, -1] = 2.0
        else:
            full = residual.split_groups(x[kernel.residual_part])
            s = residual.covariance.size
            columns = np.arange(kernel.residual_part.start - 1, kernel.residual_part.stop)
            for g, own in enumerate(full):
                J = (
                    _spatial_jacobian(residual, own)
                    if isinstance(residual, SpatialStructure)
                    else residual.covariance.component_jacobian(own)
                )
                rows = slice(begin + g * s, begin + (g + 1) * s)
                mine = columns[g * s : (g + 1) * s]
                free = mine[1:] if g == 0 else mine
                out[rows, free] = J[:, 1:] if g == 0 else J
                out[rows, -1] = J @ (residual.covariance.degrees * own)
        if kernel.variance.size:
            out[begin : begin + k_R, kernel.variance_part] = np.outer(out[begin : begin + k_R, -1], self.mean_slopes)
        out[begin + k_R :, kernel.variance_part] = np.eye(kernel.variance.size)
        return out

    def first(self, part: StructuredBlockFactor, cut: slice) -> Array:
        """dV0/dpsi of some blocks, (k, B, rows, rows), in scaled rows."""
        kernel = self.state.kernel
        found = []
        for i, term in enumerate(kernel.random.terms):
            values = term.covariance.components(self.x[term.part])
            found.append(self.state.random_derivative(part, cut, i, term.covariance.component_derivatives(values)[1]))
        residual = self._residual()
        strata = self._strata()
        if strata is not None:
            own = strata[part.batch.rows[cut]] == np.arange(kernel.variance.size + 1)[:, None, None]
            return np.concatenate([*found, (own / self._stratum_variances()[:, None, None])[..., None] * part.R[cut]])
        found.append(part.R[cut][None] if residual is None else self._residual_blocks(residual, part, cut, 1))
        if kernel.variance.size:
            slope = self.centred_slopes[:, part.batch.rows[cut]]
            found.append((slope[..., :, None] + slope[..., None, :]) * part.R[cut])
        return np.concatenate(found)

    def _residual_blocks(
        self, residual: GroupedStructure, part: StructuredBlockFactor | PooledBlockFactor, cut: slice, order: int
    ) -> Array:
        """First (groups x size) or second (groups x size x size) derivatives of R0 in its components, over blocks."""
        block = part.batch.block.part(cut)
        s, full = residual.covariance.size, residual.split_groups(self.state.phi)
        found = []
        for g, own in enumerate(full):
            if isinstance(residual, VisitStructure):
                assert block.place is not None
                derivative = residual.covariance.component_derivatives(residual.covariance.components(own))[order]
                values = derivative.reshape(-1, *derivative.shape[-2:])[:, block.place[:, :, None], block.place[:, None, :]]
            else:
                assert isinstance(residual, SpatialStructure) and block.distances is not None
                values = _spatial_derivatives(residual, own, block.distances, order)
            if residual.groups > 1:
                values = values * (block.group[:, :, None] == g)
            found.append(values if block.same is None else values * block.same)
        return np.stack(found) if order == 2 else np.concatenate(found).reshape(residual.groups * s, *found[0].shape[1:])

    # -- second order --------------------------------------------------------------------------------------------------------------

    def is_nonlinear(self) -> bool:
        """Whether V is not linear in psi."""
        kernel, residual = self.state.kernel, self._residual()
        random = any(not term.covariance.component_linear for term in kernel.random.terms)
        if random or (residual is not None and not residual.covariance.component_linear):
            return True
        return kernel.variance.size > 0 and self._strata() is None

    def _add_second(self, second: Array, part: StructuredBlockFactor, cut: slice, S: Array) -> None:
        kernel, residual = self.state.kernel, self._residual()
        for i, term in enumerate(kernel.random.terms):
            if not term.covariance.component_linear:
                d2 = term.covariance.component_derivatives(term.covariance.components(self.x[term.part]))[2]
                size = len(d2)
                V = self.state.random_derivative(part, cut, i, d2.reshape(size * size, *d2.shape[2:]))
                second[term.part, term.part] += _sandwich(S, V).reshape(size, size, *second.shape[2:])
        if residual is not None and not residual.covariance.component_linear:
            s = residual.covariance.size
            for rows, V in zip(self._parts_of_sets(residual), self._residual_blocks(residual, part, cut, 2), strict=True):
                second[rows, rows] += _sandwich(S, V).reshape(s, s, *second.shape[2:])
        if kernel.variance.size and self._strata() is None:
            self._add_variance_second(second, part, cut, S)

    def _add_variance_second(self, second: Array, part: StructuredBlockFactor, cut: slice, S: Array) -> None:
        """S R0 S: d2V_ij = ((a_i + a_j)(b_i + b_j) + ab_i + ab_j) R_ij, a, b, ab of log S, and d2V = (a_i + a_j) dR_ij with R's."""
        kernel = self.state.kernel
        slope = self.centred_slopes[:, part.batch.rows[cut]]
        both = slope[..., :, None] + slope[..., None, :]
        begin = len(second) - kernel.variance.size
        residual = self._residual()
        dR = part.R[cut][None] if residual is None else self._residual_blocks(residual, part, cut, 1)
        for a in range(kernel.variance.size):
            second[begin + a, begin:] += _sandwich(S, both[a] * both * part.R[cut])
            if self.centred_bends is not None:
                bend = self.centred_bends[a][:, part.batch.rows[cut]]
                second[begin + a, begin:] += _sandwich(S, (bend[..., :, None] + bend[..., None, :]) * part.R[cut])
            cross = _sandwich(S, both[a] * dR)
            inner = slice(kernel.random.size, kernel.random.size + len(dR))
            second[begin + a, inner] += cross
            second[inner, begin + a] += cross


def _sandwich(S: Array, V: Array) -> Array:
    """S' V S summed over blocks, (i, p, p)."""
    return np.asarray(np.einsum("bkx,ibkl,blz->ixz", S, V, S, optimize=True))


def _spatial_jacobian(residual: SpatialStructure, x: Array) -> Array:
    """d(v, r)/dx of these."""
    z, _ = residual.located.curve.standardize(x[1:], np.zeros((1, 1)))
    return residual.covariance.component_jacobian(np.append(x[:1], z))


def _spatial_derivatives(residual: SpatialStructure, x: Array, distances: Array, order: int) -> Array:
    """Derivatives of v C(r) in (v, r) over blocks, r free of the unit of distances, the indices of psi flattened."""
    curve = residual.located.curve
    z, distances = curve.standardize(x[1:], distances)
    v, r = x[0] ** 2, curve.natural(z)
    C, first = curve.matrix_at(r, distances), curve.first_at(r, distances)
    if order == 1:
        return np.concatenate([C[None], v * first])
    s = len(x)
    out = np.zeros((s, s, *C.shape))
    out[0, 1:] = out[1:, 0] = first
    out[1:, 1:] = v * curve.second_at(r, distances)
    return out.reshape(s * s, *C.shape)


MOVED_ERRORS = 1e-3
"""Of the differences, in standard errors of the parameters."""

MOST_PAIRS = 20_000_000
"""Pairs of rows that may depend on one another."""


def improve(problem: Problem, x: Array, sigma2: float, covariance: Array, linear: KenwardRoger) -> KenwardRoger:
    """The improved adjustment.

    x : (size,) and sigma2 : the optimum; covariance : (size + 1, size + 1) of (x, log sigma); linear : the adjustment without second order
    """
    design, tau = problem.design, np.append(x, 0.5 * np.log(sigma2))
    blocks = _blocks(problem)
    pairs = sum(len(block) ** 2 for block in blocks)
    if pairs > MOST_PAIRS:
        what = f"the improved Kenward-Roger adjustment takes {pairs:,} pairs of rows"
        raise InferenceError(what, "DDFM=KR2", "use ddfm=kr, which differs where the covariance is not linear in its parameters")
    X = problem.standardization.Xy(design, slice(0, design.nobs))[:, :-1]
    values, vectors = np.linalg.eigh(covariance)
    moves = [np.sqrt(value) * vector for value, vector in zip(values, vectors.T, strict=True) if value > 1e-14 * values.max()]
    k, p = len(moves), X.shape[1]
    F_inverse, XMX, XVX = np.zeros((p, p)), np.zeros((p, p)), np.zeros((k, p, p))
    kept: list[tuple[Array, Array, Array]] = []
    for rows in blocks:
        at = np.stack([np.repeat(rows, len(rows)), np.tile(rows, len(rows))], axis=1)

        def V(t: Array, at: Codes = at, size: int = len(rows)) -> Array:
            return covariance_elements(problem, t, at).reshape(size, size)

        middle = V(tau)
        sides = [(V(tau + MOVED_ERRORS * move), V(tau - MOVED_ERRORS * move)) for move in moves]
        first = np.stack([(up - down) / (2.0 * MOVED_ERRORS) for up, down in sides]) if sides else np.zeros((0, *middle.shape))
        M = np.sum([(up - 2.0 * middle + down) / MOVED_ERRORS**2 for up, down in sides], axis=0) if sides else np.zeros_like(middle)
        inverse = np.linalg.inv(middle)
        S = inverse @ X[rows]
        F_inverse += X[rows].T @ S
        XMX += S.T @ M @ S
        XVX += S.T @ first @ S
        kept.append((np.concatenate([first, M[None]]), inverse, S))
    F = np.linalg.inv(F_inverse)
    products = _inner_products(kept, F, np.concatenate([XVX, XMX[None]]))
    share = np.linalg.lstsq(products[:k, :k], products[:k, k], rcond=None)[0]
    bent = XMX - np.einsum("s,sxy->xy", share, XVX)
    scale = float(np.trace(linear.C) / np.trace(F)) if p else 1.0
    adjusted = linear.adjusted - 0.5 * scale * (F @ bent @ F)
    return replace(linear, adjusted=0.5 * (adjusted + adjusted.T))


def _inner_products(kept: list[tuple[Array, Array, Array]], F: Array, sandwiched: Array) -> Array:
    """tr(P A P B) of the derivatives and M, over all blocks: tr(V^-1 A V^-1 B) - 2 tr(F X'V^-1 A V^-1 B V^-1 X) + tr(F A* F B*)."""
    size = len(sandwiched)
    whole = np.zeros((size, size))
    for A, inverse, S in kept:
        moved = inverse @ A
        whole += moved.reshape(size, -1) @ moved.swapaxes(-1, -2).reshape(size, -1).T
        AS = A @ S
        whole -= 2.0 * np.einsum("xy,aix,ij,bjy->ab", F, AS, inverse, AS, optimize=True)
    FA = F @ sandwiched
    return np.asarray(whole + np.einsum("axy,byx->ab", FA, FA))


def _blocks(problem: Problem) -> list[Codes]:
    """Rows that are linked by levels or subjects that they share."""
    n, begin, left, right = problem.design.nobs, problem.design.nobs, [], []
    for codes in shared_factors(problem):
        left.append(np.arange(n))
        right.append(begin + codes)
        begin += int(codes.max(initial=-1)) + 1
    if not left:
        return [np.array([i]) for i in range(n)]
    graph = coo_array((np.ones(n * len(left)), (np.concatenate(left), np.concatenate(right))), shape=(begin, begin))
    label = connected_components(graph, directed=False)[1][:n]
    order = np.argsort(label, kind="stable")
    return [np.asarray(part) for part in np.split(order, np.flatnonzero(np.diff(label[order])) + 1)]
