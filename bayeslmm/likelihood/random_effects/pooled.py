"""Many thetas at once when levels are alike: levels with the same Z'WZ share H, so their cross-products are added up once.

    sum_k C_k' H_k C_k = sum over classes of H_c : G_c,   G_c = sum of C_k C_k' over the levels of the class

which is one matrix product over all thetas, its cost free of the number of levels. Subjects seen at the same visits are one class: a
balanced design has a single one. What crosses the first factor is pooled likewise. Values and what draws of random effects need;
derivatives go through the kernel itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bayeslmm._arrays import Array, Codes
from bayeslmm.likelihood.kernel import Solution, solve_Xy, stack_solutions
from bayeslmm.likelihood.parameters import RandomParameters
from bayeslmm.likelihood.random_effects.blocked import evaluate_blocked
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.likelihood.random_effects.level_blocks import factor_unrolled, is_large
from bayeslmm.likelihood.random_effects.off_diagonal import DenseOffDiagonal, OffDiagonalBlock, lower_entries
from bayeslmm.likelihood.random_effects.schur import SchurComplement, factorise
from bayeslmm.likelihood.tuning import TUNING

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
    """

    parameters: RandomParameters
    cross: CrossProducts
    classes: Codes
    A: Array
    count: Array
    Xy: Array
    U: Array | None
    V: Array | None

    def solve(self, x: Array) -> Solution:
        """The profile in alpha at x (t, size)."""
        if self.cross.rest is None and any(is_large(T) for T in self.parameters.blocks(x)[0]):
            return stack_solutions([evaluate_blocked(self.cross, self.parameters.blocks(row[None]), False).solution for row in x])
        return self._solve(x)[0]

    def state(self, x: Array) -> PooledLevelsState:
        """What draws of the random effects at x (t, size) need."""
        solution, W, rest = self._solve(x)
        q = len(W)
        own = np.array([[np.broadcast_to(W[a][b], (len(x), len(self.count))) for b in range(q)] for a in range(q)])
        return PooledLevelsState(solution, own if len(self.count) == 1 else own[..., self.classes], rest)

    def _solve(self, x: Array) -> tuple[Solution, list[list[Array]], SchurComplement | None]:
        Ts = self.parameters.blocks(x)
        t, q, r = len(x), len(self.A), self.cross.p + 1
        det, W = factor_unrolled(self.A, Ts[0])
        logdet = np.log(det) @ self.count
        H = {(a, b): sum(W[c][a] * W[c][b] for c in range(q)) for a, b in lower_entries(q)}
        flat = np.concatenate([np.asarray(H[entry]) for entry in lower_entries(q)], axis=1)
        Xy = self.cross.Xy - (flat @ self.Xy).reshape(t, r, r)
        if self.cross.rest is None or self.U is None or self.V is None:
            return solve_Xy(logdet, Xy), W, None
        assert self.cross.U0 is not None and self.cross.V0 is not None
        square = np.concatenate([np.asarray(H[max(a, b), min(a, b)]) for a in range(q) for b in range(q)], axis=1)
        V = self.cross.V0 - (square @ self.V).reshape(t, -1, r)
        rest = factorise(self.cross.rest, self.cross.U0 - flat @ self.U, V, Ts[1:])
        return solve_Xy(logdet + rest.logdet, Xy - rest.Xy), W, rest


def pool_levels(kernel: RandomEffectsKernel) -> PooledLevelsKernel | None:
    """A kernel's classes; None where pooled cross-products would be larger than levels are worth."""
    cross, first = kernel.cross, kernel.cross.first
    if first is None or first.C.ndim != 3 or first.q > TUNING.unrolled_columns or (cross.rest is not None and cross.coupling is None):
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
    if cross.coupling is not None:
        U = _pooled_products(cross.coupling, pool, classes)
        V = _pooled_with_Xy(cross.coupling, first.C, classes, C)
    return PooledLevelsKernel(kernel.parameters, cross, classes, A, count, _pooled_Xy(first.C, classes, C), U, V)


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


def _pooled_products(coupling: OffDiagonalBlock, pool: sp.csr_array, classes: Codes) -> Array:
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


def _pooled_with_Xy(coupling: OffDiagonalBlock, C: Array, classes: Codes, count: int) -> Array:
    """sum over the levels of a class of E_a' C_b, (q q count, m r)."""
    columns: Sequence[Array | sp.csr_array] = list(coupling.E) if isinstance(coupling, DenseOffDiagonal) else list(coupling.columns)
    out = []
    for E in columns:
        for b in range(len(columns)):
            out += [np.asarray(E[np.flatnonzero(classes == c)].T @ C[b][:, classes == c].T).ravel() for c in range(count)]
    return np.array(out)
