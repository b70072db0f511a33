"""The Schur complement of the first factor by products alone: for crossed factors too large for a dense block.

`S = Lambda' U Lambda + I`, `U = A - sum_k E_k' H_k E_k`, is never formed: products with it need only the sparse cross-products A and E. Its
exact diagonal blocks P = L L', one for each level, make `S~ = L^-1 S L^-T`, which is near I where levels are met by many. Solutions come
from conjugate gradients and are exact to rounding. The determinant is

    log |S| = log |P| + tr (log S~ - S~ + I),

the trace of S~ - I being 0. What is left is estimated from probes z, the same ones at every theta: the criterion is a smooth function with
derivatives of its own, and a Monte Carlo error, which its spread over the probes shows. A few directions along which S~ is far from I,
those of columns that fixed effects span too, are taken exactly and out of the probes. With as many directions as columns none is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from bayeslmm._arrays import Array, Generator
from bayeslmm.errors import InferenceError, SizeError
from bayeslmm.likelihood.random_effects.krylov import Quadrature, combine, conjugate_gradients, quadrature
from bayeslmm.likelihood.random_effects.off_diagonal import UnpairedOffDiagonal, lower_entries
from bayeslmm.likelihood.random_effects.schur import ComponentLayout, FactorColumns, SchurBlock, is_divisible

BASIS_ELEMENTS = 1 << 25
"""Elements of the basis of the probes worked on at once (256 MB), at `EXPECTED_STEPS` steps each."""

EXPECTED_STEPS = 12

MOST_TOGETHER = 12
"""Probes worked on at once: products with more columns do not get faster."""

PROBE_SEED = 20250511
"""Of the probes."""

MOST_BLOCK_PROBES, LARGEST_BLOCK_ERROR = 512, 0.01
"""Probes after which conditional standard deviations are taken as they are, and the relative error at which they are good enough."""

MOST_FORMS = 10_000
"""Rows whose variances are found one solution each."""


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """What the trace is seen from.

    exact : (m, k) orthonormal directions that are taken exactly
    random : (m, s) probes, orthogonal to them; none where the directions are a basis
    signs : (m,) of their entries
    """

    exact: Array
    random: Array
    signs: Array

    @property
    def count(self) -> int:
        return int(self.random.shape[1])

    @property
    def complete(self) -> bool:
        """Whether the directions are a basis."""
        return bool(self.exact.shape[0] == self.exact.shape[1])

    def more(self, rng: Generator, count: int) -> Array:
        """Other probes (m, count)."""
        z = self.signs[:, None] * rng.choice([-1.0, 1.0], (count, len(self.exact))).T
        return np.asarray(z - self.exact @ (self.exact.T @ z))


def draw_probes(columns: RemainingColumns, count: int) -> Probes:
    """`count` probes; the unit vectors instead where there are no more columns than that."""
    m = columns.layout.m
    if count >= m:
        return Probes(np.eye(m), np.zeros((m, 0)), columns.signs)
    known = Probes(columns.leading_directions(), np.zeros((m, 0)), columns.signs)
    return known if known.complete else replace(known, random=known.more(np.random.default_rng(PROBE_SEED), count))


@dataclass(frozen=True, slots=True, eq=False)
class RemainingColumns:
    """Cross-products of the columns after the first factor's.

    layout : the columns of every factor
    blocks : for every factor (K, q, q) its own cross-products by level
    pairs : (m, m) cross-products between factors, both triangles, or None where only one factor remains
    squares : for every factor, (a, b) of the first factor's columns and (c, d) of its own, (K', K) E_ac E_bd + E_bc E_ad by pair of levels
    signs : (m,) with which a column's entries of the probes are taken
    """

    layout: ComponentLayout
    blocks: tuple[Array, ...]
    pairs: sp.csr_array | None
    squares: tuple[dict[tuple[int, int, int, int], sp.csr_array], ...]
    signs: Array

    def times(self, M: Array) -> Array:
        """A M; M (m, s)."""
        out = multiply_blocks(self.layout.spans, self.blocks, M)
        return out if self.pairs is None else out + self.pairs @ M

    @property
    def multiplications(self) -> float:
        """Those of one vector's share in an evaluation, to leading order."""
        own = sum(block.size for block in self.blocks) + (0 if self.pairs is None else self.pairs.nnz)
        met = sum(next(iter(squares.values())).nnz * len(squares) for squares in self.squares)
        return EXPECTED_STEPS * float(own + 2 * met)

    def products(self, H: Array) -> list[Array]:
        """sum over levels k of E_kl' H_k E_kl by level l, (K', q', q') for every factor; H (q, q, K) symmetric."""
        found = []
        for own, squares in zip(self.blocks, self.squares, strict=True):
            block = np.zeros_like(own)
            for (a, b, c, d), square in squares.items():
                part = (square @ H[a, b]) * (0.5 if a == b else 1.0)
                block[:, c, d] += part
                if c != d:
                    block[:, d, c] += part
            found.append(block)
        return found

    def schur_blocks(self, H: Array) -> list[Array]:
        """The diagonal blocks of U, (K', q', q') for every factor."""
        return [own - loss for own, loss in zip(self.blocks, self.products(H), strict=True)]

    def gather_blocks(self, weights: Sequence[Array], q: int) -> Array:
        """sum over the levels l that a level k of the first factor meets of E_kl w_l E_kl', (q, q, K); weights symmetric (K', q', q')."""
        K = next(iter(self.squares[0].values())).shape[1]
        out = np.zeros((q, q, K))
        for weight, squares in zip(weights, self.squares, strict=True):
            for (a, b, c, d), square in squares.items():
                own = (square.T @ weight[:, c, d]) * (0.5 if c == d else 1.0)
                out[a, b] += own
                if a != b:
                    out[b, a] += own
        return out

    def leading_directions(self) -> Array:
        """Orthonormal directions (m, k) along which S~ is far from I.

        The sum of each column over the levels of a factor, which fixed effects span too; and every column of a factor of few levels, with
        what it is among the columns of other factors, of which it may be a sum.
        """
        scale = np.sqrt(np.maximum(np.concatenate([np.diagonal(block, axis1=1, axis2=2).ravel() for block in self.blocks]), 0.0))
        inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0.0)
        found = []
        for span in self.layout.spans:
            for a in range(span.q):
                whole = np.zeros(self.layout.m)
                whole[span.offset + a : span.stop : span.q] = scale[span.offset + a : span.stop : span.q]
                found.append(whole)
            if self.pairs is not None and span.K * span.q <= FEW_COLUMNS:
                own = np.arange(span.offset, span.stop)
                found += list(self.pairs[own].toarray() * inverse)
                found += [_unit_vector(self.layout.m, int(j)) for j in own]
        directions = np.stack([v / np.linalg.norm(v) for v in found if v.any()], axis=1) if found else np.zeros((self.layout.m, 0))
        Q, R, _ = scipy.linalg.qr(directions, mode="economic", pivoting=True)
        size = np.abs(np.diagonal(R))
        return np.ascontiguousarray(Q[:, size > INDEPENDENT])


INDEPENDENT = 1e-6
"""Length of what a direction adds to others, below which it adds nothing."""

FEW_COLUMNS = 32
"""Columns of a factor of few levels: each is a direction to be taken exactly."""


def _unit_vector(m: int, j: int) -> Array:
    out = np.zeros(m)
    out[j] = 1.0
    return out


def multiply_blocks(spans: Sequence[FactorColumns], blocks: Sequence[Array], M: Array, *, transposed: bool = False) -> Array:
    """The block diagonal matrix, or its transpose, times M (m, s); blocks (K, q, q) of every factor."""
    out = np.empty_like(M)
    for span, block in zip(spans, blocks, strict=True):
        part = slice(span.offset, span.stop)
        if span.q == 1:
            out[part] = block[:, :, 0] * M[part]
        else:
            rows = M[part].reshape(span.K, span.q, -1)
            out[part] = np.matmul(block.swapaxes(1, 2) if transposed else block, rows).reshape(out[part].shape)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _BlockProducts:
    """Sums over vectors: own (K', q', q') of every factor, inner (q, q, K) of the first; squares (K', q') and (q, K) of their diagonals."""

    own: list[Array]
    own_squares: list[Array]
    inner: Array
    inner_squares: Array

    def plus(self, other: _BlockProducts) -> _BlockProducts:
        return _BlockProducts(
            [a + b for a, b in zip(self.own, other.own, strict=True)],
            [a + b for a, b in zip(self.own_squares, other.own_squares, strict=True)],
            self.inner + other.inner,
            self.inner_squares + other.inner_squares,
        )

    def scale(self, factor: float) -> _BlockProducts:
        return _BlockProducts(
            [factor * a for a in self.own], [factor * a for a in self.own_squares], factor * self.inner, factor * self.inner_squares
        )

    def largest_error(self, exact: _BlockProducts, taken: int) -> float:
        """The largest Monte Carlo error of the root of a diagonal entry of S~^-1, relative to it, after so many probes."""
        largest = 0.0
        for own, square, known in zip(self.own, self.own_squares, exact.own, strict=True):
            mean = np.diagonal(own, axis1=1, axis2=2) / taken
            error = np.sqrt(np.maximum(square / taken - mean**2, 0.0) / taken)
            whole = np.maximum(1.0 + mean + np.diagonal(known, axis1=1, axis2=2), 1e-300)
            largest = max(largest, float((0.5 * error / whole).max(initial=0.0)))
        return largest


@dataclass(frozen=True, eq=False)
class TraceDerivatives:
    """What d log|S| is made of.

    own : (1 + s, q, q) for every remaining factor, d log|S| / dT with U fixed; first what is exact, then the share of each probe
    first : (1 + s, q, q) sum over levels of the first factor of F_k E_k Q E_k' F_k', by which its own falls
    """

    own: list[Array]
    first: Array


@dataclass(frozen=True, eq=False)
class IterativeSchur:
    """The Schur complement at one theta.

    Ts : (1, q, q) of every remaining factor
    V, QV : (1, m, r) U and Q with [X y]; Xy : (1, r, r) what [X y] loses
    """

    columns: RemainingColumns
    coupling: UnpairedOffDiagonal
    H: Array
    F: Array
    Ts: tuple[Array, ...]
    probes: Probes
    roots: tuple[Array, ...]
    V: Array
    derivatives: bool

    @property
    def layout(self) -> ComponentLayout:
        return self.columns.layout

    @property
    def blocks(self) -> Sequence[SchurBlock]:
        """Refused: no block of the inverse is at hand."""
        raise InferenceError(
            f"it needs the inverse of a matrix of {self.layout.m:,} crossed columns, which is solved with and never formed",
            " and ".join(f"{span.K:,} levels" for span in self.layout.spans),
            "use what goes without: df='satterthwaite' or 'asymptotic', Wald and profile intervals; or a subset with fewer levels",
        )

    def flat_Q(self) -> Array:
        """Refused, as `blocks` are."""
        return self.blocks[0].lower_Q()

    @cached_property
    def outer(self) -> tuple[Array, ...]:
        """C = Lambda L^-T by level, for every factor."""
        return tuple(T[0] @ np.linalg.inv(L).swapaxes(1, 2) for T, L in zip(self.Ts, self.roots, strict=True))

    @cached_property
    def inverse_roots(self) -> tuple[Array, ...]:
        """L^-1 by level."""
        return tuple(np.linalg.inv(L) for L in self.roots)

    @cached_property
    def unit(self) -> tuple[Array, ...]:
        """L^-1 L^-T by level."""
        return tuple(Li @ Li.swapaxes(1, 2) for Li in self.inverse_roots)

    def _times_E(self, M: Array) -> Array:
        """E M (q, K, s) by level of the first factor."""
        return np.stack([E @ M for E in self.coupling.columns])

    def _times_U(self, M: Array) -> tuple[Array, Array]:
        """U M (m, s), and E M (q, K, s) by level of the first factor."""
        EM = self._times_E(M)
        HEM = self.H[0, 0][None, :, None] * EM if len(EM) == 1 else np.einsum("abk,bks->aks", self.H, EM)
        out = self.columns.times(M)
        for E, rows in zip(self.coupling.transposed, HEM, strict=True):
            out -= E @ rows
        return out, EM

    def operator(self, v: Array) -> tuple[Array, Array, Array]:
        """S~ v, U C v and E C v."""
        spans = self.layout.spans
        UCv, ECv = self._times_U(multiply_blocks(spans, self.outer, v))
        image = multiply_blocks(spans, self.outer, UCv, transposed=True) + multiply_blocks(spans, self.unit, v)
        return image, UCv, ECv

    def _solve(self, b: Array) -> Array:
        """S~^-1 b; b (m, s)."""
        parts = [conjugate_gradients(lambda v: self.operator(v)[0], b[:, part]) for part in portions(b.shape[1], 2 * MOST_TOGETHER)]
        return np.concatenate(parts, axis=1) if parts else b

    @cached_property
    def _solved(self) -> Array:
        """S~^-1 C' V, (m, r)."""
        return self._solve(multiply_blocks(self.layout.spans, self.outer, self.V[0], transposed=True))

    @cached_property
    def QV(self) -> Array:
        return multiply_blocks(self.layout.spans, self.outer, self._solved)[None]

    @cached_property
    def Xy(self) -> Array:
        product = self.V[0].T @ self.QV[0]
        return np.asarray(0.5 * (product + product.T)[None])

    def apply_Q(self, M: Array) -> Array:
        """Q M for M (1, m, s)."""
        spans = self.layout.spans
        return multiply_blocks(spans, self.outer, self._solve(multiply_blocks(spans, self.outer, M[0], transposed=True)))[None]

    def apply_U(self, M: Array) -> Array:
        """U M for M (1, m, s)."""
        return self._times_U(M[0])[0][None]

    def solved_Xy(self, p: int) -> Array:
        """S^-1 Lambda' V of X, (1, m, p)."""
        return multiply_blocks(self.layout.spans, self.inverse_roots, self._solved[:, :p], transposed=True)[None]

    @cached_property
    def projected(self) -> Array:
        """V - U Q V, (1, m, r)."""
        out = self.V - self.apply_U(self.QV)
        solved = multiply_blocks(self.layout.spans, self.inverse_roots, self._solved, transposed=True)
        for span, T in zip(self.layout.spans, self.Ts, strict=True):
            if is_divisible(T):
                rows = solved[span.offset : span.stop].reshape(span.K, span.q, -1)
                out[0, span.offset : span.stop] = np.linalg.solve(T[0].T, rows).reshape(span.K * span.q, -1)
        return out

    def quadratic_forms(self, d: sp.csr_array) -> Array:
        """d' Q d of every row of d (n, m)."""
        if d.shape[0] > MOST_FORMS:
            what = f"variances of {d.shape[0]:,} predictions need as many solutions with {self.layout.m:,} crossed columns"
            raise SizeError(what, "", f"ask for {MOST_FORMS:,} rows at a time, or for predictions without their variances")
        total = np.empty(d.shape[0])
        for part in portions(d.shape[0], 2 * MOST_TOGETHER):
            right = multiply_blocks(self.layout.spans, self.outer, d[part].toarray().T.copy(), transposed=True)
            total[part] = np.einsum("ms,ms->s", right, self._solve(right))
        return total

    def inverse_blocks(self) -> tuple[list[Array], Array]:
        """The diagonal blocks of Q for every factor (K', q', q'), and E_k Q E_k' (q, q, K) of the first factor's levels, by probes.

        Of S~^-1 only what it is more than I comes from probes: so many that no standard deviation is in doubt by more than a little.
        """
        exact = self._block_products(self.probes.exact)
        total, taken = exact.scale(0.0), 0
        while not self.probes.complete and taken < MOST_BLOCK_PROBES:
            z = self.probes.more(np.random.default_rng((PROBE_SEED, taken)), MOST_TOGETHER)
            total, taken = total.plus(self._block_products(z)), taken + MOST_TOGETHER
            if total.largest_error(exact, taken) <= LARGEST_BLOCK_ERROR:
                break
        mean = exact if taken == 0 else exact.plus(total.scale(1.0 / taken))
        outer = [C @ C.swapaxes(1, 2) for C in self.outer]
        own = [S + C @ block @ C.swapaxes(1, 2) for S, C, block in zip(outer, self.outer, mean.own, strict=True)]
        inner = self.columns.gather_blocks(outer, self.coupling.q) + mean.inner
        return [0.5 * (block + block.swapaxes(1, 2)) for block in own], 0.5 * (inner + inner.swapaxes(0, 1))

    def _block_products(self, z: Array) -> _BlockProducts:
        """What some vectors give for the diagonal blocks of S~^-1 - I and for E C (S~^-1 - I) C' E', added up."""
        spans, solved = self.layout.spans, self._solve(z)
        left = solved - 2.0 * z + self.operator(z)[0]
        own, squares = [], []
        for span in spans:
            rows, columns = (M[span.offset : span.stop].reshape(span.K, span.q, -1) for M in (left, z))
            own.append(np.matmul(rows, columns.swapaxes(1, 2)))
            squares.append(((rows * columns) ** 2).sum(-1))
        far, near = (self._times_E(multiply_blocks(spans, self.outer, M)) for M in (solved - z, z))
        return _BlockProducts(own, squares, np.einsum("aks,bks->abk", far, near), ((far * near) ** 2).sum(-1))

    # -- the determinant ---------------------------------------------------------------------------------------------------------------

    @cached_property
    def _traces(self) -> tuple[Array, Array, TraceDerivatives | None]:
        """Values of the exact directions (k,) and of the probes (s,), and what derivatives are made of."""
        adjoint = _Adjoint(self) if self.derivatives else None
        exact, vectors = self.probes.exact.shape[1], np.concatenate([self.probes.exact, self.probes.random], axis=1)
        values = np.zeros(vectors.shape[1])
        for part in portions(vectors.shape[1], self._together):
            z = np.ascontiguousarray(vectors[:, part])
            found = quadrature(self.operator, z, keep=adjoint is not None)
            values[part] = found.values
            if adjoint is not None:
                for s, size in enumerate(np.einsum("ms,ms->s", z, z)):
                    adjoint.add(found, s, float(size), max(part.start + s - exact + 1, 0))
        return values[:exact], values[exact:], adjoint.finish() if adjoint is not None else None

    @property
    def _together(self) -> int:
        per_probe = EXPECTED_STEPS * (2 * self.layout.m + self.coupling.q * self.coupling.K)
        return int(np.clip(BASIS_ELEMENTS // per_probe, 1, MOST_TOGETHER))

    @cached_property
    def logdet(self) -> Array:
        """log |S|, (1,)."""
        exact, random, _ = self._traces
        own = sum(2.0 * float(np.log(np.diagonal(L, axis1=1, axis2=2)).sum()) for L in self.roots)
        return np.array([own + float(exact.sum()) + (float(random.mean()) if len(random) else 0.0)])

    @property
    def logdet_samples(self) -> Array:
        """What each probe gives for the random part of log |S|, (s,)."""
        return self._traces[1]

    @cached_property
    def trace_derivatives(self) -> TraceDerivatives:
        found = self._traces[2]
        return (
            found
            if found is not None
            else IterativeSchur(
                self.columns, self.coupling, self.H, self.F, self.Ts, self.probes, self.roots, self.V, True
            ).trace_derivatives
        )

    def probe_slopes(self, T: Array) -> list[Array]:
        """What each probe gives for d log|S| / dT of every factor, (s, q, q) each, without the exact part; T (q, q) of the first factor."""
        found = self.trace_derivatives
        return [-2.0 * found.first[1:] @ T, *(own[1:] for own in found.own)]

    def first_trace(self) -> Array:
        """sum over levels of F_k E_k Q E_k' F_k', (1, q, q)."""
        return _total(self.trace_derivatives.first)[None]

    def logdet_gradients(self, Qxx: Array, Rx: Array, N: Array) -> list[Array]:
        """d logdet / dT of every factor, (1, q, q) each: that of log |S|, and - 2 sum over levels of Rx Qxx N'."""
        out = []
        for span, own in zip(self.layout.spans, self.trace_derivatives.own, strict=True):
            part = slice(span.offset, span.stop)
            left = (Rx[0, part] @ Qxx[0]).reshape(span.K, span.q, -1)
            right = N[0, part].reshape(span.K, span.q, -1)
            out.append((_total(own) - 2.0 * np.einsum("lax,lbx->ab", left, right))[None])
        return out

    def information_blocks(self, f: int, Qxx: Array, Rx: Array) -> Array:
        """sum over levels of [Z' P Z] of factor f, (1, q, q).

        Half of d logdet / dT, divided by T; where that is singular it is U - U Q U itself, from the probes' A^-1 z.
        """
        span = self.layout.spans[f]
        R = Rx[0, span.offset : span.stop].reshape(span.K, span.q, -1)
        fixed = np.einsum("lax,xz,lbz->ab", R, Qxx[0], R)
        T = self.Ts[f][0]
        if np.abs(T.diagonal()).min() > SMALLEST_DIVISOR:
            G = 0.5 * np.linalg.solve(T.T, _total(self.trace_derivatives.own[f]).T).T
            return np.asarray((0.5 * (G + G.T) - fixed)[None])
        return np.asarray((self._level_information(f) - fixed)[None])

    def _level_information(self, f: int) -> Array:
        """sum over levels of (U - U Q U) of factor f, (q, q), Q from solutions at the probes."""
        span = self.layout.spans[f]
        total = self.columns.schur_blocks(self.H)[f].sum(0)
        for vectors, weight in ((self.probes.exact, 1.0), (self.probes.random, 1.0 / max(self.probes.count, 1))):
            for part in portions(vectors.shape[1], MOST_TOGETHER):
                z = vectors[:, part]
                left, right = (
                    self._times_U(multiply_blocks(self.layout.spans, self.outer, M))[0][span.offset : span.stop].reshape(span.K, span.q, -1)
                    for M in (self._solve(z), z)
                )
                total -= weight * np.einsum("las,lbs->ab", left, right)
        return 0.5 * (total + total.T)


SMALLEST_DIVISOR = 1e-8
"""Entries of T's diagonal below this are not divided by."""


def _total(shares: Array) -> Array:
    """The exact part and the mean of the probes; (1 + s, q, q)."""
    return np.asarray(shares[0] + (shares[1:].mean(0) if len(shares) > 1 else 0.0))


class _Adjoint:
    """Sums of d log|S| while probes come in.

    With x of one weight, y = L^-T x and b = C x = Lambda y: x'dS~x is y'dS y less what belongs to dL, which only diagonal blocks of S~ x x'
    enter, as they do in d log|P|.
    """

    def __init__(self, schur: IterativeSchur) -> None:
        self.schur = schur
        spans, s, F = schur.layout.spans, schur.probes.count, schur.F
        self.q = q = schur.coupling.q
        self.own = [np.zeros((1 + s, span.q, span.q)) for span in spans]
        self.first = np.zeros((1 + s, q, q))
        self.U = schur.columns.schur_blocks(schur.H)
        self.seen: dict[tuple[int, int], list[Array]] = {}
        for a, b in lower_entries(q):
            square = F[a][:, None] * F[b][None]
            self.seen[a, b] = schur.columns.products(0.5 * (square + square.swapaxes(0, 1)))
        for f, (T, Li) in enumerate(zip(schur.Ts, schur.inverse_roots, strict=True)):
            self._add_blocks(0, f, Li.swapaxes(1, 2) @ Li, T[0])

    def _add_blocks(self, slot: int, f: int, W: Array, T: Array) -> None:
        """<W, dP> of the levels of one factor: its own T, and what the first factor changes in U."""
        self.own[f][slot] += 2.0 * (self.U[f] @ T @ W).sum(0)
        own = T @ W @ T.T
        for (a, b), seen in self.seen.items():
            part = float(np.vdot(seen[f], own))
            self.first[slot, a, b] += part
            if a != b:
                self.first[slot, b, a] += part

    def add(self, found: Quadrature, s: int, size: float, slot: int) -> None:
        """The share of the column s of a quadrature; slot : 0 of an exact direction, from 1 on those of the probes."""
        schur = self.schur
        spans, F = schur.layout.spans, schur.F
        R, signs = found.weights(s)
        signed = size * signs
        X, UB = (combine([kept[i] for kept in found.basis], s, R) for i in (0, 1))
        Y = multiply_blocks(spans, schur.inverse_roots, X, transposed=True)
        image = multiply_blocks(spans, schur.outer, UB, transposed=True) + multiply_blocks(spans, schur.unit, X)
        EB = np.stack([combine([kept[2][a] for kept in found.basis], s, R) for a in range(self.q)])
        FEB = F[0][..., None] * EB if self.q == 1 else np.einsum("abk,bkr->akr", F, EB)
        self.first[slot] += np.tensordot(FEB * signed, FEB, ((1, 2), (1, 2)))
        for f, (span, Li) in enumerate(zip(spans, schur.inverse_roots, strict=True)):
            part = slice(span.offset, span.stop)
            ub, y, im, x = (M[part].reshape(span.K, span.q, -1) for M in (UB, Y, image, X))
            self.own[f][slot] += 2.0 * np.tensordot(ub * signed, y, ((0, 2), (0, 2)))
            M = np.matmul(x * signed, im.swapaxes(1, 2))
            symmetric = np.tril(M) + np.tril(M, -1).swapaxes(1, 2)
            self._add_blocks(slot, f, -(Li.swapaxes(1, 2) @ symmetric @ Li), schur.Ts[f][0])

    def finish(self) -> TraceDerivatives:
        return TraceDerivatives(self.own, self.first)


def portions(count: int, step: int) -> Iterator[slice]:
    """Slices of `step` that cover 0 to count."""
    for begin in range(0, count, step):
        yield slice(begin, min(begin + step, count))


def factorise_iteratively(
    columns: RemainingColumns,
    coupling: UnpairedOffDiagonal,
    W: Array,
    A: Array,
    V: Array,
    Ts: Sequence[Array],
    probes: Probes,
    derivatives: bool,
) -> IterativeSchur:
    """The Schur complement at one theta.

    W : (q, q, K) L^-1 T' of the first factor's levels; A : (q, q, K) their cross-products; V : (1, m, r) U with [X y]
    derivatives : whether they will be asked for; what they need of the probes is then found on the way
    """
    H = np.einsum("cak,cbk->abk", W, W)
    F = np.eye(len(A))[:, :, None] - np.einsum("abk,bck->ack", A, H)
    roots = []
    for block, T in zip(columns.schur_blocks(H), Ts, strict=True):
        roots.append(np.linalg.cholesky(T[0].T @ block @ T[0] + np.eye(T.shape[-1])))
    return IterativeSchur(columns, coupling, H, F, tuple(Ts), probes, tuple(roots), V, derivatives)
