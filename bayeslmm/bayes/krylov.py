"""Exact draws of beta for large crossed designs: a draw from the prior, pulled to the data by conjugate gradients.

Given alpha and theta, `beta = beta* + D Z'V^-1 (y - X alpha - Z beta* - e*)` is an exact draw when beta*, e* come from D and R. After the
first factor is eliminated, what must be solved is S v = c with S = Lambda'U Lambda + I for the remaining columns, for each draw its own
Lambda; one factor at the mode preconditions all of them, so a handful of products with sparse cross-products takes the place of a
factorisation for every draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.bayes.density import Density
from bayeslmm.bayes.mode import Mode
from bayeslmm.errors import SamplingError
from bayeslmm.likelihood.criterion import one_thread
from bayeslmm.likelihood.crossproducts import CrossProducts
from bayeslmm.likelihood.kernel import RandomEffectsKernel

Generator = np.random.Generator

BLOCK = 64
"""Draws solved side by side."""

PRECISION = 1e-9
STEPS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Preconditioner:
    """S^-1 at the mode (m, m), and the cross-products of the remaining columns (m, m)."""

    inverse: Array
    U0: Array


def preconditioner(density: Density, kernel: RandomEffectsKernel, mode: Mode) -> Preconditioner:
    """One dense factor of what remains after the first factor."""
    cross, rest = kernel.cross, kernel.cross.rest
    assert rest is not None and cross.U0 is not None
    x, _ = density.kernel_points(mode.phi[None])
    state = kernel.evaluate(x, derivatives=False)
    assert state.levels.rest is not None
    U0, inverse = np.zeros((rest.m, rest.m)), np.zeros((rest.m, rest.m))
    for batch, block in zip(rest.batches, state.levels.rest.blocks, strict=True):
        B, s = batch.index.shape
        lower = np.tril(cross.U0[batch.begin : batch.begin + batch.size].reshape(B, s, s))
        full = lower + np.tril(lower, -1).swapaxes(-1, -2)
        for b in range(B):
            own = np.ix_(batch.index[b], batch.index[b])
            U0[own] = full[b]
            inverse[own] = block.Q[0, b]
    roots = _rest_roots(cross, [T[:, None] for T in state.levels.Ts])
    Li = [np.linalg.inv(root[0, 0]) for root in roots]
    # Q = Lambda S^-1 Lambda'
    left = _by_level(inverse[None].swapaxes(-1, -2), Li, cross)[0]
    return Preconditioner(_by_level(left.swapaxes(-1, -2)[None], Li, cross)[0], U0)


def _rest_roots(cross: CrossProducts, Ts: list[Array]) -> list[Array]:
    return Ts[int(cross.first is not None) :]


def _by_level(M: Array, roots: list[Array], cross: CrossProducts) -> Array:
    """Lambda applied to the last axis: rows M (.., m) -> M (I x T')."""
    assert cross.rest is not None
    out = np.empty_like(M)
    for span, root in zip(cross.rest.spans, roots, strict=True):
        block = M[..., span.offset : span.stop].reshape(*M.shape[:-1], span.K, span.q)
        out[..., span.offset : span.stop] = (block @ root.T).reshape(*M.shape[:-1], -1)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """S of some draws: products with it, and with Lambda and its transpose; vectors are (t, m)."""

    cross: CrossProducts
    W: Array | None
    Ts: tuple[Array, ...]
    U0: Array

    def scaled(self, v: Array, *, transposed: bool = False) -> Array:
        """Lambda v, or Lambda' v."""
        assert self.cross.rest is not None
        out = np.empty_like(v)
        for span, T in zip(self.cross.rest.spans, self.Ts, strict=True):
            block = v[:, span.offset : span.stop].reshape(len(v), span.K, span.q)
            out[:, span.offset : span.stop] = (block @ (T if transposed else T.swapaxes(-1, -2))).reshape(len(v), -1)
        return out

    def through(self, c: Array) -> Array:
        """H_k c_k, (q, t, K)."""
        assert self.W is not None
        return np.asarray(np.einsum("catk,ctk->atk", self.W, np.einsum("abtk,btk->atk", self.W, c)))

    def reduced(self, u: Array) -> Array:
        """U u = (U0 - E'HE) u."""
        out = u @ self.U0
        if self.cross.coupling is not None and self.W is not None:
            inner = self.through(self.cross.coupling.times(u[..., None])[:, :, 0])
            out -= self.cross.coupling.transpose_times(inner[:, :, None])[..., 0]
        return np.asarray(out)

    def times(self, v: Array) -> Array:
        """S v."""
        return v + self.scaled(self.reduced(self.scaled(v)), transposed=True)

    def solve(self, c: Array, before: Array) -> Array:
        """S^-1 c by conjugate gradients, all draws at once; before : (m, m) an approximate inverse."""
        v = c @ before
        r = c - self.times(v)
        z = r @ before
        p, rz = z, np.sum(r * z, axis=1)
        size = np.sqrt(np.sum(c * (c @ before), axis=1))
        for _ in range(STEPS):
            if np.all(np.sqrt(np.maximum(rz, 0.0)) <= PRECISION * size):
                return v
            Sp = self.times(p)
            step = rz / np.maximum(np.sum(p * Sp, axis=1), 1e-300)
            v, r = v + step[:, None] * p, r - step[:, None] * Sp
            z = r @ before
            now = np.sum(r * z, axis=1)
            p, rz = z + (now / np.maximum(rz, 1e-300))[:, None] * p, now
        raise SamplingError(
            "conjugate gradients did not converge for the random effects", remedy='use method="nuts" or fewer crossed levels'
        )


def krylov_beta(density: Density, mode: Mode, phi: Array, alpha: Array, rng: Generator) -> tuple[Array, ...]:
    """beta of every term (S, K, q), user's columns, given covariance parameters (S, d) and conditioned alpha (S, p)."""
    kernel = density.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    terms = density.problem.design.terms
    out = tuple(np.empty((len(phi), term.group.size, term.Z.shape[1])) for term in terms)
    with one_thread(density.problem.criterion.width):
        before = preconditioner(density, kernel, mode)
        noise = _Noise(density, kernel)
        for begin in range(0, len(phi), BLOCK):
            part = slice(begin, min(begin + BLOCK, len(phi)))
            found = _block(density, kernel, before, noise, phi[part], alpha[part], rng)
            for whole, own in zip(out, found, strict=True):
                whole[part] = own
    return out


class _Noise:
    """Z'W e for errors e drawn with variance 1/w: the first factor (q, K) and the remaining columns (m,)."""

    def __init__(self, density: Density, kernel: RandomEffectsKernel) -> None:
        design, c = density.problem.design, density.problem.conditioning
        weights = c.weights(design, slice(0, design.nobs))
        root = 1.0 if weights is None else np.sqrt(weights)[:, None]
        self.kernel, self.n = kernel, design.nobs
        self.codes = [design.terms[f.terms[0]].group.codes for f in kernel.parameters.factors]
        parts = [[c.maps[i].apply(design.terms[i].Z) for i in f.terms] for f in kernel.parameters.factors]
        self.Z = [np.hstack(own) * root for own in parts]

    def draw(self, t: int, rng: Generator) -> list[Array]:
        """(t, K, q) of every factor, before L of a relationship matrix."""
        out = [np.empty((t, f.K, f.q)) for f in self.kernel.parameters.factors]
        for i in range(t):
            e = rng.standard_normal(self.n)
            for values, code, Z, factor in zip(out, self.codes, self.Z, self.kernel.parameters.factors, strict=True):
                for a in range(factor.q):
                    values[i, :, a] = np.bincount(code, Z[:, a] * e, factor.K)
        for number, factor in enumerate(self.kernel.parameters.factors):
            if factor.root is not None:
                out[number] = np.einsum("kl,tka->tla", factor.root, out[number])
        return out


def _block(
    density: Density, kernel: RandomEffectsKernel, before: Preconditioner, noise: _Noise, phi: Array, alpha: Array, rng: Generator
) -> list[Array]:
    cross, c, t = kernel.cross, density.problem.conditioning, len(phi)
    assert cross.rest is not None and cross.V0 is not None
    x, s = density.kernel_points(phi)
    Ts = kernel.parameters.blocks(x)
    skip = int(cross.first is not None)
    W = None if cross.first is None else cross.first.eliminate(Ts[0], derivatives=False).W
    system = System(cross, W, tuple(Ts[skip:]), before.U0)
    v = np.concatenate([-alpha, np.ones((t, 1))], axis=1)
    # in units of sigma: prior draws of the effects, noise of the errors
    free = [rng.standard_normal((t, f.K, f.q)) @ T.swapaxes(-1, -2) for f, T in zip(cross.factors, Ts, strict=True)]
    ze = noise.draw(t, rng)
    rest_prior = np.concatenate([own.reshape(t, -1) for own in free[skip:]], axis=1)
    c_rest = (v @ cross.V0.T) / s[:, None] - np.concatenate([own.reshape(t, -1) for own in ze[skip:]], axis=1) - rest_prior @ before.U0
    found: list[Array] = []
    if cross.first is not None and cross.coupling is not None:
        first = free[0].transpose(2, 0, 1)
        c_first = np.matmul(v[None], cross.first.C) / s[:, None] - ze[0].transpose(2, 0, 1)
        c_first -= np.einsum("abk,btk->atk", cross.first.A, first) + cross.coupling.times(rest_prior[..., None])[:, :, 0]
        c_rest -= cross.coupling.transpose_times(first[:, :, None])[..., 0]
        reduced = c_rest - cross.coupling.transpose_times(system.through(c_first)[:, :, None])[..., 0]
        u = system.scaled(system.solve(system.scaled(reduced, transposed=True), before.inverse))
        b = first + system.through(c_first - cross.coupling.times(u[..., None])[:, :, 0])
        found.append(s[:, None, None] * b.transpose(1, 2, 0))
    else:
        u = system.scaled(system.solve(system.scaled(c_rest, transposed=True), before.inverse))
    whole = s[:, None] * (rest_prior + u)
    found += [whole[:, span.offset : span.stop].reshape(t, span.K, span.q) for span in cross.rest.spans]
    beta: dict[int, Array] = {}
    for factor, block in zip(cross.factors, found, strict=True):
        related = block if factor.root is None else np.einsum("kl,tla->tka", factor.root, block)
        for i, own in zip(factor.terms, factor.slices, strict=True):
            beta[i] = c.y_scale * related[..., own] @ c.maps[i].whole.T
    return [beta[i] for i in range(len(beta))]
