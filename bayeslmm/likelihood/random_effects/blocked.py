"""The likelihood of random effects with independent errors, from cross-products alone.

With `V0 = Z Lambda Lambda' Z' + W^-1` one evaluation gives, for each theta, log |V0|, `[X y]' V0^-1 [X y]`, and the adjoints that every
derivative needs: for a factor with blocks T on the diagonal of Lambda

    d log|V0| (or the REML pair of log determinants) / dT   and   sum_k a_k a_k',  a = Z' V0^-1 (y - X alpha).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bayeslmm._arrays import Array, Mask
from bayeslmm.errors import InferenceError
from bayeslmm.likelihood.kernel import Solution, merge_solutions, solve_Xy, stack_solutions
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts
from bayeslmm.likelihood.random_effects.iterative import IterativeSchur, factorise_iteratively
from bayeslmm.likelihood.random_effects.level_blocks import CHUNK_ELEMENTS, BlockFactor, LevelSums, are_large, gram
from bayeslmm.likelihood.random_effects.off_diagonal import UnpairedOffDiagonal
from bayeslmm.likelihood.random_effects.schur import SchurComplement, factorise


@dataclass(frozen=True, eq=False)
class BlockedCholesky:
    """One evaluation: the solution, the states of the first factor and of the rest, and what links them; adjoints are kept once found."""

    cross: CrossProducts
    Ts: tuple[Array, ...]
    solution: Solution
    sums: LevelSums | None
    eliminated: BlockFactor | None
    rest: SchurComplement | IterativeSchur | None

    @cached_property
    def first(self) -> BlockFactor | None:
        """The first factor level by level; found only when asked for where sums over the levels, or a value alone, were enough."""
        if self.cross.first is not None and (self.eliminated is None or self.eliminated.projected is None):
            return self.cross.first.eliminate(self.Ts[0], derivatives=True)
        return self.eliminated

    # -- what remains after the first factor -------------------------------------------------------------------------------------------

    def rest_modes(self) -> Array:
        """beta of the remaining factors, (t, m), given alpha-hat."""
        assert self.rest is not None
        p, alpha = self.cross.p, self.solution.alpha
        return np.asarray(self.rest.QV[..., p] - np.einsum("tmx,tx->tm", self.rest.QV[..., :p], alpha))

    def _rest_scores(self) -> Array:
        """a = Z' V0^-1 (y - X alpha) of the remaining factors, (t, m)."""
        assert self.rest is not None
        p, seen = self.cross.p, self.rest.projected
        return np.asarray(seen[..., p] - np.einsum("tmx,tx->tm", seen[..., :p], self.solution.alpha))

    def _first_residual(self, modes: Array | None) -> Array:
        """F (C v - E beta_rest) = a of the first factor, (q, t, K)."""
        assert self.first is not None and self.first.projected is not None
        v = np.concatenate([-self.solution.alpha, np.ones((len(self.solution.alpha), 1))], axis=1)
        a = np.matmul(v[None, :, None, :], self.first.projected)[:, :, 0, :]
        if modes is None:
            return np.asarray(a)
        assert self.cross.coupling is not None
        return np.asarray(a - self.project(self.cross.coupling.times(modes[..., None])[:, :, 0, :]))

    @cached_property
    def _lone_share(self) -> Array:
        """A H of every level where the first factor has one column, (1, t, K)."""
        assert self.first is not None and self.cross.first is not None
        W = self.first.W[0]
        return np.asarray(self.cross.first.A[0] * (W * W))

    def project(self, s: Array) -> Array:
        """F_k s_k, F = I - A W'W; s (q, t, K)."""
        assert self.first is not None and self.cross.first is not None
        if len(s) == 1:
            return np.asarray(s - self._lone_share * s)
        W, A = self.first.W, self.cross.first.A
        Ws = np.einsum("abtk,btk->atk", W, s)
        H = np.einsum("cbtk,ctk->btk", W, Ws)
        return np.asarray(s - np.einsum("abk,btk->atk", A, H))

    def unproject(self, c: Array) -> Array:
        """F_k' c_k = c_k - H_k A_k c_k."""
        assert self.first is not None and self.cross.first is not None
        if len(c) == 1:
            return np.asarray(c - self._lone_share * c)
        Ac = np.einsum("abk,btk->atk", self.cross.first.A, c)
        Ws = np.einsum("abtk,btk->atk", self.first.W, Ac)
        return np.asarray(c - np.einsum("cbtk,ctk->btk", self.first.W, Ws))

    @cached_property
    def scores(self) -> list[Array]:
        """a_f = Z_f' V0^-1 (y - X alpha) for every factor: (q, t, K) each."""
        found = []
        modes = self.rest_modes() if self.rest is not None else None
        if self.first is not None:
            found.append(self._first_residual(modes))
        if self.rest is not None and modes is not None:
            flat = self._rest_scores()
            for span in self.rest.layout.spans:
                block = flat[:, span.offset : span.stop].reshape(len(flat), span.K, span.q)
                found.append(np.ascontiguousarray(block.transpose(2, 0, 1)))
        return found

    @cached_property
    def squares(self) -> list[Array]:
        """sum_k a_k a_k' of every factor, (t, q, q)."""
        if self.sums is not None and self.sums.products is not None:
            v = np.concatenate([-self.solution.alpha, np.ones((len(self.solution.alpha), 1))], axis=1)
            return [np.einsum("taxbz,tx,tz->tab", self.sums.products, v, v)]
        return [gram(a.transpose(1, 0, 2)) for a in self.scores]

    def logdet_adjoints(self, restricted: bool) -> list[Array]:
        """gT (t, q, q) of every factor: d logdet = sum gT * dT, with the REML term when restricted."""
        return self._restricted_adjoints if restricted else self._plain_adjoints

    @cached_property
    def _restricted_adjoints(self) -> list[Array]:
        return self._adjoints(True)

    @cached_property
    def _plain_adjoints(self) -> list[Array]:
        return self._adjoints(False)

    def _adjoints(self, restricted: bool) -> list[Array]:
        t, p = len(self.solution.r2), self.cross.p
        Qxx = self.solution.information_inverse if restricted else np.zeros((t, p, p))
        out = []
        if self.cross.first is not None:
            G = self._first_information(Qxx)
            out.append(2.0 * G @ self.Ts[0])
        if self.rest is not None:
            Rx = self.rest.projected[..., :p]
            out += self.rest.logdet_gradients(Qxx, Rx, self.rest.solved_Xy(p))
        return out

    def _first_information(self, Qxx: Array) -> Array:
        """sum over levels of [Z' P Z] of the first factor, (t, q, q)."""
        p = self.cross.p
        if self.sums is not None and self.sums.products is not None and self.sums.B is not None:
            return np.asarray(self.sums.B - np.einsum("taxbz,txz->tab", self.sums.products[:, :, :p, :, :p], Qxx))
        first = self.first
        assert first is not None and first.B is not None and first.projected is not None
        q = first.B.shape[0]
        G = first.B.sum(-1).transpose(2, 0, 1)
        Ex = first.projected[:, :, :p]
        if self.rest is None:
            if p:
                flat = Ex.transpose(1, 0, 2, 3).reshape(len(Qxx), q * p, -1)
                products = gram(flat).reshape(len(Qxx), q, p, q, p)
                G = G - (products * Qxx[:, None, :, None, :]).sum((2, 4))
            return np.asarray(G)
        coupling = self.cross.coupling
        assert coupling is not None and self.cross.first is not None
        QVx = self.rest.QV[..., :p]
        if isinstance(self.rest, IterativeSchur):
            G = G - self.rest.first_trace()
            inner = np.zeros_like(first.B)
        else:
            assert not isinstance(coupling, UnpairedOffDiagonal)
            inner = coupling.gather(self.rest.flat_Q())
        if p:
            seen = self.cross.first.fixed_products(p)[:, None] - coupling.times(QVx)
            inner += np.einsum("atxk,btxk->abtk", np.matmul(Qxx, seen), seen)
        if q == 1:
            return np.asarray(G - self.project(self.project(inner[0]))[None].sum(-1).transpose(2, 0, 1))
        left = np.stack([self.project(inner[:, b]) for b in range(q)], axis=1)
        both = np.stack([self.project(np.ascontiguousarray(left[a])) for a in range(q)])
        return G - both.sum(-1).transpose(2, 0, 1)

    def information(self, restricted: bool) -> list[Array]:
        """sum over levels of [Z' P Z] (REML) or [Z' V0^-1 Z] (ML) for every factor, (t, q, q): d log determinants / d Sigma."""
        t, p = len(self.solution.r2), self.cross.p
        Qxx = self.solution.information_inverse if restricted else np.zeros((t, p, p))
        out = [self._first_information(Qxx)] if self.cross.first is not None else []
        if self.rest is not None:
            Rx = self.rest.projected[..., :p]
            out += [self.rest.information_blocks(f, Qxx, Rx) for f in range(len(self.rest.layout.spans))]
        return out

    def average_information(self, parameter_derivatives: Sequence[Array]) -> Array:
        """w_i' P w_j for working variates w = Z (dSigma x I) a, factor after factor; one theta only.

        parameter_derivatives : (k, q, q) for every factor, dSigma of each of its parameters
        """
        if not parameter_derivatives:
            return np.zeros((0, 0))
        if self.rest is None:
            return self._lone_information(parameter_derivatives[0])
        return self._without_fixed(*self.working_products(parameter_derivatives))

    def working_products(self, parameter_derivatives: Sequence[Array]) -> tuple[Array, Array]:
        """w_i' V0^-1 w_j (k, k) and X' V0^-1 w_j (p, k) of the working variates, where factors remain after the first."""
        assert self.rest is not None
        scores, p = self.scores, self.cross.p
        skip = int(self.cross.first is not None)
        counts = [len(m) for m in parameter_derivatives]
        mine, k = sum(counts[:skip]), sum(counts)
        flat = np.zeros((self.rest.layout.m, k - mine))
        begin = 0
        for span, moves, a in zip(self.rest.layout.spans, parameter_derivatives[skip:], scores[skip:], strict=True):
            flat[span.offset : span.stop, begin : begin + len(moves)] = (moves @ a[:, 0]).transpose(2, 1, 0).reshape(-1, len(moves))
            begin += len(moves)
        Uc = self.rest.apply_U(flat[None])[0]
        Vx = self.rest.V[0, :, :p]
        total = np.zeros((k, k))
        total[mine:, mine:] = flat.T @ Uc
        dR, dX = np.empty((len(flat), k)), np.empty((p, k))
        dR[:, mine:], dX[:, mine:] = Uc, Vx.T @ flat
        if mine:
            assert self.cross.first is not None and self.cross.coupling is not None
            c = np.ascontiguousarray((parameter_derivatives[0] @ scores[0][:, 0]).transpose(1, 0, 2))
            e = self.unproject(c)
            A = self.cross.first.A
            total[:mine, :mine] = _products(c, A[0] * e if len(A) == 1 else np.einsum("abk,bsk->ask", A, e))
            dX[:, :mine] = _products(self.cross.first.fixed_products(p), e)
            dR[:, :mine] = self.cross.coupling.transpose_times(e[:, None])[0]
            total[:mine, mine:] = _products(e, self.cross.coupling.times(flat[None])[:, 0])
            total[mine:, :mine] = total[:mine, mine:].T
        QdR = self.rest.apply_Q(dR[None])[0]
        total -= dR.T @ QdR
        return total, dX - Vx.T @ QdR

    def _without_fixed(self, total: Array, dX: Array) -> Array:
        if self.cross.p:
            total = total - dX.T @ self.solution.information_inverse[0] @ dX
        return np.asarray(0.5 * (total + total.T))

    def _lone_information(self, moves: Array) -> Array:
        """Average information where no factor remains after the first; without its states at hand they are made piece by piece again."""
        block, p, k = self.cross.first, self.cross.p, len(moves)
        assert block is not None
        v = np.append(-self.solution.alpha[0], 1.0)
        again = (block.part(part, self.Ts[0], derivatives=True) for part in block.pieces(1))
        states = again if self.eliminated is None or self.eliminated.projected is None else [self.eliminated]
        total, dX = np.zeros((k, k)), np.zeros((p, k))
        for state in states:
            assert state.projected is not None and state.B is not None
            seen = state.projected[:, 0]
            c = moves @ np.tensordot(v, seen, (0, 1))
            flat = c.reshape(k, -1)
            total += (state.B[:, :, 0][None] * c[:, None]).sum(2).reshape(k, -1) @ flat.T
            if p:
                dX += seen[:, :p].transpose(1, 0, 2).reshape(p, -1) @ flat.T
        return self._without_fixed(total, dX)

    def fixed_products(self, parameter_derivatives: Sequence[Array]) -> Array:
        """X' V0^-1 dV0 V0^-1 X of every parameter, (k, p, p), where factors remain after the first; one theta only."""
        assert self.rest is not None
        p, found = self.cross.p, []
        blocks = []
        if self.first is not None and self.first.projected is not None and self.cross.coupling is not None:
            seen = self.first.projected[:, :, :p] - self._projected_columns(self.cross.coupling.times(self.rest.QV[..., :p]))
            blocks.append(seen[:, 0])
        for span in self.rest.layout.spans:
            rows = self.rest.projected[0, span.offset : span.stop, :p]
            blocks.append(rows.reshape(span.K, span.q, p).transpose(1, 2, 0))
        for moves, R in zip(parameter_derivatives, blocks, strict=True):
            found += [np.einsum("axk,ab,byk->xy", R, move, R, optimize=True) for move in moves]
        return np.array(found).reshape(-1, p, p)

    def _projected_columns(self, M: Array) -> Array:
        """F_k M_k for M (q, t, s, K)."""
        return np.stack([self.project(np.ascontiguousarray(M[:, :, j])) for j in range(M.shape[2])], axis=2) if M.shape[2] else M

    def modes(self) -> list[Array]:
        """Conditional modes beta of every factor, (q, t, K), on the standardized columns (before L of a relationship matrix)."""
        return [np.einsum("tab,tcb,ctk->atk", T, T, a) for T, a in zip(self.Ts, self.scores, strict=True)]


def _large(cross: CrossProducts, Ts: Sequence[Array]) -> Mask:
    """At which thetas the only factor is evaluated as a large one, (t,)."""
    if cross.first is None or cross.first.C.ndim != 3 or len(Ts) != 1:
        return np.zeros(len(Ts[0]) if Ts else 1, dtype=bool)
    return are_large(Ts[0])


def solve_blocked(cross: CrossProducts, Ts: Sequence[Array], solve: Callable[[Sequence[Array]], Solution]) -> Solution:
    """The profile in alpha at some thetas: by `solve` but where the only factor is large, which is evaluated for itself."""
    large = _large(cross, Ts)
    if not large.any():
        return solve(Ts)
    assert cross.first is not None
    T, step, parts = Ts[0][large], max(1, CHUNK_ELEMENTS // cross.first.K), []
    for begin in range(0, len(T), step):
        factor, net = cross.first.large(cross.Xy, T[begin : begin + step])
        parts.append(solve_Xy(factor.logdet, net))
    found = stack_solutions(parts)
    return found if large.all() else merge_solutions(large, found, solve([Ts[0][~large]]))


def evaluate_blocked(cross: CrossProducts, Ts: Sequence[Array], derivatives: bool = True) -> BlockedCholesky:
    """Evaluate at some thetas; Ts[f] : (t, q, q) lower triangular for each factor in the order of `cross.factors`."""
    if len(Ts) == 1 and len(Ts[0]) == 1 and cross.first is not None and _large(cross, Ts).all():
        factor, net = cross.first.large(cross.Xy, Ts[0])
        return BlockedCholesky(cross, tuple(Ts), solve_Xy(factor.logdet, net), None, factor, None)
    t = len(Ts[0]) if Ts else 1
    Xy = cross.Xy + np.zeros((t, 1, 1))
    logdet = np.zeros(t)
    first: BlockFactor | None = None
    rest: SchurComplement | IterativeSchur | None = None
    sums: LevelSums | None = None
    if cross.first is not None and cross.rest is None and (not derivatives or cross.first.K > CHUNK_ELEMENTS):
        sums = cross.first.sums(Ts[0], derivatives)
        Xy -= sums.Xy
        logdet += sums.logdet
    elif cross.first is not None:
        first = cross.first.eliminate(Ts[0], derivatives)
        Xy -= first.Xy
        logdet += first.logdet
    if cross.rest is not None:
        rest = _factorise_rest(cross, first, Ts, derivatives)
        Xy -= rest.Xy
        logdet += rest.logdet
    solution = solve_Xy(logdet, Xy)
    return BlockedCholesky(cross, tuple(Ts), solution, sums, first, rest)


def _factorise_rest(
    cross: CrossProducts, first: BlockFactor | None, Ts: Sequence[Array], derivatives: bool
) -> SchurComplement | IterativeSchur:
    """What remains after the first factor, at some thetas; at one where it is solved iteratively."""
    assert cross.rest is not None and cross.V0 is not None
    t = len(Ts[0])
    V = cross.V0.reshape(1, *cross.V0.shape[-2:]) if t == 1 else np.broadcast_to(cross.V0, (t, *cross.V0.shape[-2:]))
    if first is None or cross.first is None or cross.coupling is None:
        assert cross.U0 is not None
        U = cross.U0[None] if t == 1 else np.broadcast_to(cross.U0, (t, len(cross.U0)))
        return factorise(cross.rest, U, np.ascontiguousarray(V), Ts)
    V = np.ascontiguousarray(V - cross.coupling.transpose_times(_apply_inverse(first.W, cross.first.C)))
    if isinstance(cross.coupling, UnpairedOffDiagonal):
        assert cross.remaining is not None and cross.probes is not None
        if t > 1 or cross.V0.ndim == 3:
            what = "several thetas or responses are not evaluated at once with crossed factors that are solved iteratively"
            raise InferenceError(what, f"{cross.rest.m:,} crossed columns", "fit the responses one by one")
        return factorise_iteratively(cross.remaining, cross.coupling, first.W[:, :, 0], cross.first.A, V, Ts[1:], cross.probes, derivatives)
    assert cross.U0 is not None
    U = cross.U0[None] if t == 1 else np.broadcast_to(cross.U0, (t, len(cross.U0)))
    eliminated = cross.coupling.schur(first.W)
    return factorise(cross.rest, np.subtract(U, eliminated, out=eliminated), V, Ts[1:])


def _products(left: Array, right: Array) -> Array:
    """sum over columns and levels of left right', (s, z); left (q, s, K), right (q, z, K)."""
    return np.asarray(np.matmul(left, right.swapaxes(1, 2)).sum(0))


def _apply_inverse(W: Array, C: Array) -> Array:
    """H_k C_k, (q, t, r, K)."""
    if len(W) == 1:
        return np.asarray((W[0] * W[0])[:, :, None] * (C if C.ndim == 4 else C[:, None]))
    WC = np.einsum("abtk,brk->atrk" if C.ndim == 3 else "abtk,btrk->atrk", W, C)
    return np.asarray(np.einsum("catk,ctrk->atrk", W, WC))
