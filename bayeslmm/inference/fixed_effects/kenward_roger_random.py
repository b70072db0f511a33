"""Derivatives of V for Kenward-Roger: random effects with independent errors.

A component moves D alone: V_a = Z S_a Z' with S_a = I x E_a on the columns of one factor, so that P_a = G' S_a G, Q_ab = G' S_a M S_b G and
tr(V^-1 V_a V^-1 V_b) = tr(M S_a M S_b), in the space of levels. The errors come through Euler's identity, W^-1 = V0 - Z D Z'.

With Z = [Z_1 Z_2] (first factor, the rest), Y = Z_1' V_1^-1 Z_2 = F E, and U, Q of the rest as the likelihood has them,

    M = Z' V0^-1 Z = [ B - Y Q Y'      Y (I - Q U)  ]        G = Z' V0^-1 X
                     [ (I - U Q) Y'    U - U Q U    ]

where B is block diagonal by level. For S_a = I x E_a on the columns of one factor: G' S_a G, G' S_a M S_b G and tr(M S_a M S_b). Nothing
has n rows, and what has one row per column of the first factor is never multiplied out: `Y' S Y` is a sum over levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.covariance.base import Covariance, Derivatives
from bayeslmm.inference.fixed_effects.kenward_roger import VDerivatives, v_derivatives
from bayeslmm.likelihood.parameters import RandomParameters
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.blocked import BlockedCholesky
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsState
from bayeslmm.likelihood.random_effects.off_diagonal import DenseOffDiagonal, FactorisedOffDiagonal, UnpairedOffDiagonal, lower_entries
from bayeslmm.likelihood.threads import one_thread

Blocks = list[Array]
"""One (B, s, s) array for each batch of components of the remaining factors."""


@dataclass(frozen=True, slots=True)
class Direction:
    """I x E on the columns of one factor. E : (q, q) symmetric"""

    factor: int
    E: Array


@dataclass(frozen=True, slots=True, eq=False)
class LevelSpace:
    """M = Z' V0^-1 Z and G = Z' V0^-1 X at one theta.

    F, B : (q, q, K) of the first factor; G1 : (q, p, K); G2 : (m, p); p columns of X
    N : (q, q, K) the diagonal blocks of Y Q Y'; U, Q, R = I - Q U, M22 = U R : blocks of the rest
    """

    levels: BlockedCholesky
    F: Array | None
    B: Array | None
    G1: Array | None
    G2: Array | None
    N: Array | None
    U: Blocks
    Q: Blocks
    R: Blocks
    M22: Blocks

    @property
    def has_first(self) -> bool:
        return self.B is not None

    def sides(self, directions: Sequence[Direction]) -> tuple[list[int], list[int]]:
        """Positions of the directions on the first factor, and on the others."""
        first = [i for i, d in enumerate(directions) if self.has_first and d.factor == 0]
        return first, [i for i in range(len(directions)) if i not in first]

    # -- G' S G and G' S M S G -----------------------------------------------------------------------------------------------------

    def P(self, directions: Sequence[Direction]) -> Array:
        """(k, p, p)"""
        p = self.levels.cross.p
        out = np.zeros((len(directions), p, p))
        for i, d in enumerate(directions):
            if self.has_first and d.factor == 0:
                assert self.G1 is not None
                H = np.einsum("ab,bxk->axk", d.E, self.G1)
                out[i] = np.tensordot(self.G1, H, axes=([0, 2], [0, 2]))
            else:
                G = self._own_rows(d.factor)
                out[i] = np.einsum("lax,ab,lby->xy", G, d.E, G, optimize=True)
        return 0.5 * (out + out.swapaxes(-1, -2))

    def _own_rows(self, factor: int) -> Array:
        """Rows of G2 of one remaining factor, (K, q, p)."""
        assert self.levels.rest is not None
        assert self.G2 is not None
        span = self.levels.rest.layout.spans[factor - int(self.has_first)]
        return self.G2[span.offset : span.stop].reshape(span.K, span.q, -1)

    def Q_pairs(self, directions: Sequence[Direction]) -> Array:
        """(k, k, p, p)"""
        p, k = self.levels.cross.p, len(directions)
        first, rest = self.sides(directions)
        out = np.zeros((k, p, k, p))
        seen: Array | None = None
        if first:
            H = self._first_columns([directions[i].E for i in first])
            own, seen = self._first_products(H)
            out[np.ix_(first, range(p), first, range(p))] = own.reshape(len(first), p, len(first), p)
        if rest and self.levels.rest is not None:
            H2 = self._rest_columns([directions[i] for i in rest])
            MH = self._apply(self.M22, H2)
            out[np.ix_(rest, range(p), rest, range(p))] = (H2.T @ MH).reshape(len(rest), p, len(rest), p)
            if seen is not None:
                cross = (seen.T @ self._apply(self.R, H2)).reshape(len(first), p, len(rest), p)
                out[np.ix_(first, range(p), rest, range(p))] = cross
                out[np.ix_(rest, range(p), first, range(p))] = cross.transpose(2, 3, 0, 1)
        return np.ascontiguousarray(out.transpose(0, 2, 1, 3))

    def _first_columns(self, E: Sequence[Array]) -> Array:
        """S_a G of the first factor side by side, (q, k p, K)."""
        assert self.G1 is not None
        return np.concatenate([np.einsum("ab,bxk->axk", e, self.G1) for e in E], axis=1)

    def _first_products(self, H: Array) -> tuple[Array, Array | None]:
        """H' (B - Y Q Y') H, and Y' H (m, k p)."""
        assert self.B is not None
        assert self.F is not None
        BH = np.einsum("abk,bsk->ask", self.B, H)
        total = np.tensordot(H, BH, axes=([0, 2], [0, 2]))
        if self.levels.rest is None or self.levels.cross.coupling is None:
            return total, None
        FH = np.einsum("bak,bsk->ask", self.F, H)
        YH = self.levels.cross.coupling.transpose_times(np.ascontiguousarray(FH)[:, None])[0]
        return total - YH.T @ self._apply(self.Q, YH), YH

    def _rest_columns(self, directions: Sequence[Direction]) -> Array:
        """S_b G of the remaining factors side by side, (m, k p)."""
        assert self.levels.rest is not None
        assert self.G2 is not None
        m, p = self.G2.shape
        out = np.zeros((m, len(directions), p))
        for j, d in enumerate(directions):
            span = self.levels.rest.layout.spans[d.factor - int(self.has_first)]
            out[span.offset : span.stop, j] = np.einsum("ab,lbx->lax", d.E, self._own_rows(d.factor)).reshape(-1, p)
        return out.reshape(m, -1)

    def _apply(self, blocks: Blocks, M: Array) -> Array:
        """Block-diagonal times (m, s)."""
        assert self.levels.rest is not None
        out = np.empty_like(M)
        for batch, block in zip(self.levels.rest.layout.batches, blocks, strict=True):
            out[batch.index] = block @ M[batch.index]
        return out

    # -- tr(M S_a M S_b) -----------------------------------------------------------------------------------------------------------

    def traces(self, directions: Sequence[Direction]) -> Array:
        """(k, k)"""
        first, rest = self.sides(directions)
        out = np.zeros((len(directions), len(directions)))
        seen: list[Blocks] = []
        if first:
            E = [directions[i].E for i in first]
            out[np.ix_(first, first)], seen = self._first_traces(E)
        if rest:
            out[np.ix_(rest, rest)] = self._rest_traces([directions[i] for i in rest])
        if first and rest:
            cross = self._cross_traces(seen, [directions[i] for i in rest])
            out[np.ix_(first, rest)], out[np.ix_(rest, first)] = cross, cross.T
        return 0.5 * (out + out.T)

    def _first_traces(self, E: Sequence[Array]) -> tuple[Array, list[Blocks]]:
        """Within the first factor, and T_a = Y' S_a Y of every direction."""
        assert self.B is not None
        q = len(self.B)
        flat = self.B.reshape(q * q, -1)
        moments = _pair_products(flat @ flat.T, q)
        e = np.stack([x.ravel() for x in E])
        total = e @ moments @ e.T
        if self.levels.rest is None:
            return total, []
        assert self.N is not None
        mixed = _pair_products(flat @ self.N.reshape(q * q, -1).T, q)
        total -= e @ (mixed + mixed.T) @ e.T
        T = [self._seen(x) for x in E]
        QT = [[Q @ t for Q, t in zip(self.Q, blocks, strict=True)] for blocks in T]
        for a in range(len(E)):
            for b in range(a + 1):
                value = sum(float(np.einsum("bij,bji->", x, y)) for x, y in zip(QT[a], QT[b], strict=True))
                total[a, b] += value
                if a != b:
                    total[b, a] += value
        return total, T

    def _seen(self, E: Array) -> Blocks:
        """Y' (I x E) Y, by component."""
        assert self.F is not None
        assert self.levels.cross.coupling is not None
        assert self.levels.rest is not None
        H = np.einsum("cak,cd,dbk->abk", self.F, E, self.F, optimize=True)
        assert not isinstance(self.levels.cross.coupling, UnpairedOffDiagonal)
        flat = quadratic_form(self.levels.cross.coupling, H)
        found = []
        for batch in self.levels.rest.layout.batches:
            B, s = batch.index.shape
            lower = flat[batch.begin : batch.begin + batch.size].reshape(B, s, s)
            found.append(np.tril(lower) + np.tril(lower, -1).swapaxes(-1, -2))
        return found

    def _rest_traces(self, directions: Sequence[Direction]) -> Array:
        assert self.levels.rest is not None
        rest, skip = self.levels.rest, int(self.has_first)
        out = np.zeros((len(directions), len(directions)))
        for batch, M in zip(rest.layout.batches, self.M22, strict=True):
            tiles = {f + skip: part for f, part in rest.layout.local(batch)}
            moments: dict[tuple[int, int], Array] = {}
            for a, da in enumerate(directions):
                for b, db in enumerate(directions[: a + 1]):
                    f, g = da.factor, db.factor
                    if f not in tiles or g not in tiles:
                        continue
                    if (f, g) not in moments:
                        moments[f, g] = _moments(M[:, tiles[f], tiles[g]], len(da.E), len(db.E))
                    value = float(np.einsum("ij,mn,ijmn->", da.E, db.E, moments[f, g]))
                    out[a, b] += value
                    if a != b:
                        out[b, a] += value
        return out

    def _cross_traces(self, seen: Sequence[Blocks], directions: Sequence[Direction]) -> Array:
        """tr(R' T_a R S_b)."""
        assert self.levels.rest is not None
        out = np.zeros((len(seen), len(directions)))
        for a, T in enumerate(seen):
            for batch, R, t in zip(self.levels.rest.layout.batches, self.R, T, strict=True):
                inner = R.swapaxes(-1, -2) @ (t @ R)
                tiles = {f + int(self.has_first): part for f, part in self.levels.rest.layout.local(batch)}
                for b, d in enumerate(directions):
                    if d.factor in tiles:
                        out[a, b] += float(np.sum(_own_blocks(inner[:, tiles[d.factor], tiles[d.factor]], len(d.E)) * d.E))
        return out


def _pair_products(products: Array, q: int) -> Array:
    """(q^2, q^2) sum_k X_k[a, b] Y_k[c, d] turned into the form of tr(X E Y E'): rows (b, c) of E, columns (d, a) of E'."""
    return products.reshape(q, q, q, q).transpose(1, 2, 3, 0).reshape(q * q, q * q)


def _moments(M: Array, q: int, r: int) -> Array:
    """sum over pairs of levels of M[l i, l' m] M[l j, l' n]: (q, q, r, r), for tr(M S_a M S_b) = E_a[i, j] E_b[m, n] of it."""
    B, rows, columns = M.shape
    flat = M.reshape(B, rows // q, q, columns // r, r).transpose(2, 4, 0, 1, 3).reshape(q * r, -1)
    return np.asarray((flat @ flat.T).reshape(q, r, q, r).transpose(0, 2, 1, 3))


def _own_blocks(M: Array, q: int) -> Array:
    """The sum of the (q, q) diagonal blocks."""
    B, rows = M.shape[:2]
    tiles = M.reshape(B, rows // q, q, rows // q, q)
    return np.asarray(np.einsum("blilj->ij", tiles))


def quadratic_form(coupling: FactorisedOffDiagonal, H: Array) -> Array:
    """sum_k E_k' H_k E_k in flat storage (lower entries) for symmetric H (q, q, K)."""
    if isinstance(coupling, DenseOffDiagonal):
        total = sum((coupling.E[a] * H[a, b][:, None]).T @ coupling.E[b] for a in range(len(H)) for b in range(len(H)))
        return np.asarray(total).reshape(-1)
    return np.asarray(sum(product @ H[a, b] for (a, b), product in zip(lower_entries(len(H)), coupling.products, strict=True)))


def level_space(levels: BlockedCholesky) -> LevelSpace:
    """Read M and G off an evaluation of the likelihood."""
    p, rest, first = levels.cross.p, levels.rest, levels.first
    F = B = G1 = G2 = N = None
    U: Blocks = []
    Q: Blocks = []
    R: Blocks = []
    M22: Blocks = []
    if rest is not None:
        G2 = rest.projected[0, :, :p]
        for block in rest.blocks:
            u, q = block.U[0], block.Q[0]
            remainder = np.eye(u.shape[-1]) - q @ u
            U.append(u)
            Q.append(q)
            R.append(remainder)
            M22.append(u @ remainder)
    if first is not None and levels.cross.first is not None and first.B is not None and first.projected is not None:
        W = first.W[:, :, 0]
        H = np.einsum("cak,cbk->abk", W, W)
        F = np.eye(len(H))[..., None] - np.einsum("ack,cbk->abk", levels.cross.first.A, H)
        B, G1 = first.B[:, :, 0], np.ascontiguousarray(first.projected[:, 0, :p])
        if rest is not None and levels.cross.coupling is not None:
            coupling = levels.cross.coupling
            G1 = G1 - np.einsum("abk,bsk->ask", F, coupling.times(np.ascontiguousarray(rest.QV[..., :p]))[:, 0])
            assert not isinstance(coupling, UnpairedOffDiagonal)
            inner = coupling.gather(rest.flat_Q())[:, :, 0]
            N = np.einsum("ack,cdk,bdk->abk", F, inner, F, optimize=True)
    return LevelSpace(levels, F, B, G1, G2, N, U, Q, R, M22)


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """psi of all random terms: a direction each, what D itself is made of, and how psi moves with (x, log sigma).

    whole : directions that add up to D; weights : how (coefficients on the same directions)
    curved : pairs of components with the direction of d2V
    """

    directions: list[Direction]
    count: int
    weights: Array
    jacobian: Array
    curved: list[tuple[int, int, Direction]]


def covariance_components(parameters: RandomParameters, x: Array) -> Components:
    """Components of every term at x. The directions of D of a term that is not linear in its components stand after all others."""
    found: list[Direction] = []
    extra: list[Direction] = []
    weights: list[float] = []
    curved: list[tuple[int, int, Direction]] = []
    jacobian = np.zeros((parameters.size + 1, parameters.size + 1))
    for i, term in enumerate(parameters.terms):
        number, factor = next((f, g) for f, g in enumerate(parameters.factors) if i in g.terms)
        own = factor.slices[factor.terms.index(i)]
        covariance, here = term.covariance, x[term.part]
        values, derivatives, J = _natural(covariance, here)
        sigma, first, second = derivatives
        begin = len(found)

        def direction(E: Array, number: int = number, own: slice = own, q: int = factor.q) -> Direction:
            whole = np.zeros((q, q))
            whole[own, own] = E
            return Direction(number, whole)

        found += [direction(E) for E in first]
        rows = slice(begin, begin + len(first))
        jacobian[rows, term.part] = J
        jacobian[rows, -1] = J @ (covariance.degrees * here)
        if values is not None:
            weights += list(values)
            continue
        weights += [0.0] * len(first)
        extra.append(direction(sigma))
        curved += [
            (begin + a, begin + b, direction(second[a, b])) for a in range(len(first)) for b in range(len(first)) if np.any(second[a, b])
        ]
    jacobian[-1, -1] = 2.0
    return Components(found + extra, len(found), np.array(weights + [1.0] * len(extra)), jacobian, curved)


def _natural(covariance: Covariance, x: Array) -> tuple[Array | None, Derivatives, Array]:
    """Components where D is linear in them (else None), Sigma with its derivatives in the components, and d components / dx.

    Where components have no derivative (a correlation beside a standard deviation of 0) x itself stands for them.
    """
    values = covariance.components(x)
    derivatives = covariance.component_derivatives(values)
    if all(np.all(np.isfinite(d)) for d in derivatives):
        return values if covariance.component_linear else None, derivatives, covariance.component_jacobian(x)
    size, q = covariance.size, covariance.q
    return None, (covariance.matrix(x), covariance.matrix_derivative(x), np.zeros((size, size, q, q))), np.eye(size)


@v_derivatives.register
def _(state: RandomEffectsState, problem: Problem, x: Array) -> VDerivatives:
    with one_thread(problem.criterion.width):
        return assemble_derivatives(state, covariance_components(problem.random, x), problem.criterion.n)


def assemble_derivatives(state: RandomEffectsState, parts: Components, n: int) -> VDerivatives:
    """The pieces of all components, sigma^2 last: W^-1 = V0 - Z D Z'."""
    space = level_space(state.levels)
    p = state.levels.cross.p
    Xy = state.solution.Xy[0][:p, :p]
    k, w = parts.count, parts.weights
    P, Q, traces = space.P(parts.directions), space.Q_pairs(parts.directions), space.traces(parts.directions)
    single = _single_traces(state, parts.directions)
    P_D, Q_D, t_D = np.einsum("a,axy->xy", w, P), np.einsum("b,abxy->axy", w, Q), traces @ w
    Q_DD, t_DD, s_D = np.einsum("a,axy->xy", w, Q_D), float(w @ t_D), float(w @ single)
    P_all, Q_all, t_all = np.empty((k + 1, p, p)), np.empty((k + 1, k + 1, p, p)), np.empty((k + 1, k + 1))
    P_all[:k], P_all[k] = P[:k], Xy - P_D
    Q_all[:k, :k] = Q[:k, :k]
    Q_all[:k, k] = P[:k] - Q_D[:k]
    Q_all[k, :k] = Q_all[:k, k].swapaxes(-1, -2)
    Q_all[k, k] = Xy - 2.0 * P_D + Q_DD
    t_all[:k, :k] = traces[:k, :k]
    t_all[:k, k] = t_all[k, :k] = single[:k] - t_D[:k]
    t_all[k, k] = n - 2.0 * s_D + t_DD
    second = None
    if parts.curved:
        second = np.zeros((k + 1, k + 1, p, p))
        for (a, b, _), value in zip(parts.curved, space.P([d for _, _, d in parts.curved]), strict=True):
            second[a, b] = value
    return VDerivatives(P_all, Q_all, t_all, parts.jacobian, second)


def _single_traces(state: RandomEffectsState, directions: Sequence[Direction]) -> Array:
    """tr(V0^-1 V_a) = tr(M S_a)."""
    information = state.levels.information(False) if directions else []
    return np.array([float(np.sum(information[d.factor][0] * d.E)) for d in directions])
