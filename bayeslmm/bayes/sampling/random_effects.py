"""Exact draws of alpha and of every random effect, given draws of the covariance parameters.

Independent errors: alpha from its normal distribution, the remaining factors from theirs given alpha, the first factor level by level given
both; the factor that the kernel has made for the density is all that is needed, and draws run along its leading axis.
Structured errors: `beta + D Z'V^-1 (y - X alpha - Z beta - e)` for beta, e drawn from D and R, which is exact for any D and R.

Given alpha and theta, `beta = beta* + D Z'V^-1 (y - X alpha - Z beta* - e*)` is an exact draw when beta*, e* come from D and R. After the
first factor is eliminated, what must be solved is S v = c with S = Lambda'U Lambda + I for the remaining columns, for each draw its own
Lambda; one factor at the mode preconditions all of them, so a handful of products with sparse cross-products takes the place of a
factorisation for every draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

from bayeslmm._arrays import Array, Codes, Generator
from bayeslmm.bayes.log_posterior.density import BATCH_ELEMENTS, Density, MarginalCoefficients
from bayeslmm.bayes.sampling.mode import PosteriorMode
from bayeslmm.covariance.linalg import cholesky
from bayeslmm.errors import SamplingError
from bayeslmm.likelihood.kernel import Solution
from bayeslmm.likelihood.random_effects.blocked import BlockedCholesky
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts
from bayeslmm.likelihood.random_effects.iterative import IterativeSchur, factorise_iteratively, portions
from bayeslmm.likelihood.random_effects.kernel import PooledLevelsKernel, RandomEffectsKernel, RandomEffectsState
from bayeslmm.likelihood.random_effects.off_diagonal import UnpairedOffDiagonal
from bayeslmm.likelihood.random_effects.schur import SchurComplement
from bayeslmm.likelihood.structured.kernel import TermColumns
from bayeslmm.likelihood.structured.pooled import PooledSubjectsKernel, multiply_by_kind, scaled_columns, scaled_Xy
from bayeslmm.likelihood.threads import one_thread


@dataclass(frozen=True, slots=True, eq=False)
class JointDraws:
    """alpha (S, p) of the columns kept, and beta of every term (S, K, q), on the user's columns."""

    alpha: Array
    beta: tuple[Array, ...]


def joint_draws(density: Density, phi: Array, rng: Generator) -> JointDraws:
    """One exact draw of (alpha, beta) for every phi (S, d)."""
    problem = density.problem
    terms = problem.design.terms
    S, p = len(phi), problem.criterion.p
    alpha = np.empty((S, p))
    beta = tuple(np.empty((S, len(term.group.levels), len(term.columns))) for term in terms)
    if problem.is_iterative:
        x, s = density.kernel_points(phi)
        drawn = draw_alpha(density.integrate(density.solve(x), s**2, phi), s, rng)
        c = problem.standardization
        return JointDraws(c.alpha0 + c.y_scale * drawn @ c.back.T, draw_beta_by_cg(density, None, phi, drawn, rng))
    with one_thread(problem.criterion.width):
        for part in portions(S, density.batch):
            x, s = density.kernel_points(phi[part])
            kernel = density.kernel
            if isinstance(density.pooled, PooledSubjectsKernel):
                found = _draw_by_pattern(density, density.pooled, x, s, phi[part], rng)
            elif isinstance(density.pooled, PooledLevelsKernel):
                classes = density.pooled.state(x)
                found = _independent(density, classes.solution, classes.W, classes.rest, s, phi[part], rng)
            else:
                state = kernel.evaluate(x, derivatives=False)
                assert isinstance(state, RandomEffectsState)
                found = _independent(density, state.solution, _by_level(state.levels), state.levels.rest, s, phi[part], rng)
            alpha[part] = found.alpha
            for whole, own in zip(beta, found.beta, strict=True):
                whole[part] = own
    return JointDraws(alpha, beta)


def draw_alpha(found: MarginalCoefficients, s: Array, rng: Generator) -> Array:
    """Conditioned alpha (t, p) from its normal distribution."""
    solution = found.solution
    t, p = solution.alpha.shape
    if p == 0:
        return solution.alpha
    z = rng.standard_normal((t, p, 1))
    if solution.root_inverse is not None:
        noise = (solution.root_inverse.swapaxes(-1, -2) @ z)[..., 0]
    else:
        noise = np.array([lapack.dtrtrs(root.T, own[:, 0])[0] for root, own in zip(solution.root, z, strict=True)])
    return np.asarray(solution.alpha + s[:, None] * noise)


# -- independent errors --------------------------------------------------------------------------------------------------------------------


def _by_level(levels: BlockedCholesky) -> Array | None:
    """W of the first factor, (q, q, t, K); None where no factor is eliminated."""
    first = levels.cross.first
    if first is None:
        return None
    return (first.eliminate(levels.Ts[0], derivatives=False) if levels.eliminated is None else levels.eliminated).W


def _independent(
    density: Density,
    solution: Solution,
    W: Array | None,
    rest: SchurComplement | IterativeSchur | None,
    s: Array,
    phi: Array,
    rng: Generator,
) -> JointDraws:
    kernel = density.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    found = density.integrate(solution, s**2, phi)
    a = draw_alpha(found, s, rng)
    v = np.concatenate([-a, np.ones((len(a), 1))], axis=1)
    drawn = None if rest is None else draw_remaining(rest, v, s, rng)
    blocks = [] if W is None else [draw_first(kernel.cross, W, v, drawn, s, rng)]
    if rest is not None and drawn is not None:
        blocks += [drawn[:, span.offset : span.stop].reshape(len(a), span.K, span.q) for span in rest.layout.spans]
    c = density.problem.standardization
    return JointDraws(c.alpha0 + c.y_scale * a @ c.back.T, _by_term(density, kernel, blocks))


def _by_term(density: Density, kernel: RandomEffectsKernel, blocks: list[Array]) -> tuple[Array, ...]:
    """Effects of every factor on standardized columns, (t, K, q), as those of every term on the user's."""
    c, beta = density.problem.standardization, dict[int, Array]()
    for factor, block in zip(kernel.parameters.factors, blocks, strict=True):
        related = block if factor.root is None else np.einsum("kl,tla->tka", factor.root, block)
        for i, own in zip(factor.terms, factor.slices, strict=True):
            beta[i] = related[..., own] @ (c.y_scale * c.maps[i].whole.T)
    return tuple(beta[i] for i in range(len(beta)))


def draw_remaining(rest: SchurComplement | IterativeSchur, v: Array, s: Array, rng: Generator) -> Array:
    """The remaining factors given alpha, (t, m): N(Q U v, s^2 Q)."""
    mean = np.einsum("tmr,tr->tm", rest.QV, v)
    out = np.empty_like(mean)
    for batch, block in zip(rest.layout.batches, rest.blocks, strict=True):
        root = cholesky(block.Q)
        noise = (root @ rng.standard_normal((*block.Q.shape[:3], 1)))[..., 0]
        out[:, batch.index] = mean[:, batch.index] + s[:, None, None] * noise
    return np.asarray(out)


def draw_first(cross: CrossProducts, W: Array, v: Array, rest: Array | None, s: Array, rng: Generator) -> Array:
    """The first factor given alpha and the rest, (t, K, q): N(H (C v - E beta_rest), s^2 H) with H = W'W."""
    assert cross.first is not None
    C = cross.first.C
    q, t, K = len(W), len(v), C.shape[2]
    right = np.matmul(v[None], C)
    if rest is not None:
        assert cross.coupling is not None
        right = right - cross.coupling.times(rest[..., None])[:, :, 0]
    out = np.zeros((q, t, K))
    for b in range(q):
        inner = s[:, None] * rng.standard_normal((t, K))
        for c in range(q):
            inner += W[b, c] * right[c]
        for a in range(q):
            out[a] += W[b, a] * inner
    return out.transpose(1, 2, 0)


# -- structured errors ---------------------------------------------------------------------------------------------------------------------


def _draw_by_pattern(density: Density, patterns: PooledSubjectsKernel, x: Array, s: Array, phi: Array, rng: Generator) -> JointDraws:
    """All draws at once."""
    c, kernel = density.problem.standardization, patterns.kernel
    a = draw_alpha(density.integrate(patterns.solve(x), s**2, phi), s, rng)
    alpha = c.alpha0 + c.y_scale * a @ c.back.T
    if not kernel.random.terms:
        return JointDraws(alpha, ())
    v = np.concatenate([-a, np.ones((len(a), 1))], axis=1)
    Ds = [term.covariance.matrix(x[:, term.part]) for term in kernel.random.terms]
    prior = [_draw_levels(D, term, s, rng) for D, term in zip(Ds, kernel.data.terms, strict=True)]
    scores = [np.zeros_like(own) for own in prior]
    for Zs, codes, e in _invert_errors(patterns, x, s, v, prior, rng):
        for Z, score, code in zip(Zs, scores, codes, strict=True):
            member = sp.csr_array((np.ones(code.size), (code.ravel(), np.arange(code.size))), shape=(score.shape[1], code.size))
            for b in range(Z.shape[-1]):
                score[..., b] += (member @ (Z[..., b] * e).reshape(len(x), -1).T).T
    beta = []
    for D, term, own, score, mapped in zip(Ds, kernel.data.terms, prior, scores, density.problem.random.terms, strict=True):
        reached = score if term.relationship is None else np.einsum("kl,tlq->tkq", term.relationship, score)
        beta.append(c.y_scale * (own + reached @ D) @ mapped.map.whole.T)
    return JointDraws(alpha, tuple(beta))


def _invert_errors(
    patterns: PooledSubjectsKernel, x: Array, s: Array, v: Array, prior: list[Array], rng: Generator
) -> Iterator[tuple[list[Array], list[Codes], Array]]:
    """Of every batch of blocks: Z and codes of every term, and V^-1 (y - X alpha - e*) (t, B, k), e* drawn errors and effects."""
    kernel, low = patterns.kernel, patterns.low_rank
    laid_out = []
    for batch, kind in zip(kernel.data.rows, patterns.kinds, strict=True):
        Zs, codes = scaled_columns(kernel, batch.rows), [term.codes[batch.rows] for term in kernel.data.terms]
        e = np.einsum("bkr,tr->tbk", scaled_Xy(kernel, batch.rows), v)
        z, sds = s[:, None, None] * rng.standard_normal(e.shape), np.ones(1)
        rows = patterns.factorize_kind(kind, x) if low is None else None
        if rows is not None:
            z = multiply_by_kind(cholesky(rows.R), z[..., None], kind.kind)[..., 0]
        else:
            sds = np.exp(kernel.variance.log_multipliers(x[:, kernel.variance_part], batch.rows))
        e -= sds * z
        for Z, own, code in zip(Zs, prior, codes, strict=True):
            e -= np.einsum("bkq,tbkq->tbk", Z, own[:, code])
        if rows is not None:
            yield Zs, codes, multiply_by_kind(np.linalg.inv(rows.V), e[..., None], kind.kind)[..., 0]
        else:
            laid_out.append((Zs, codes, e / sds, sds))
    if low is not None:
        inverted = low.apply_inverses(x, [e for _, _, e, _ in laid_out])
        yield from ((Zs, codes, e / sds) for (Zs, codes, _, sds), e in zip(laid_out, inverted, strict=True))


def _draw_levels(D: Array, term: TermColumns, s: Array, rng: Generator) -> Array:
    """beta (t, K, q) of one term from its distribution."""
    free = s[:, None, None] * (rng.standard_normal((len(s), term.K, D.shape[-1])) @ cholesky(D).swapaxes(-1, -2))
    return free if term.relationship is None else np.einsum("kl,tlq->tkq", cholesky(term.relationship), free)


SYSTEMS_AT_ONCE = 64
"""Draws solved side by side."""

CG_TOLERANCE = 1e-9
CG_STEPS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Preconditioner:
    """S^-1 at the mode (m, m), and the cross-products of the remaining columns (m, m)."""

    inverse: Array
    U0: Array


def preconditioner(density: Density, kernel: RandomEffectsKernel, mode: PosteriorMode) -> Preconditioner:
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
    roots = [T[:, None] for T in state.levels.Ts][int(cross.first is not None) :]
    Li = [np.linalg.inv(root[0, 0]) for root in roots]
    # Q = Lambda S^-1 Lambda'
    left = _lambda_rows(inverse[None].swapaxes(-1, -2), Li, cross)[0]
    return Preconditioner(_lambda_rows(left.swapaxes(-1, -2)[None], Li, cross)[0], U0)


def _lambda_rows(M: Array, roots: list[Array], cross: CrossProducts) -> Array:
    """Lambda applied to the last axis: rows M (.., m) -> M (I x T')."""
    assert cross.rest is not None
    out = np.empty_like(M)
    for span, root in zip(cross.rest.spans, roots, strict=True):
        block = M[..., span.offset : span.stop].reshape(*M.shape[:-1], span.K, span.q)
        out[..., span.offset : span.stop] = (block @ root.T).reshape(*M.shape[:-1], -1)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class ConjugateGradientSampler:
    """S of some draws: products with it, and with Lambda and its transpose; vectors are (t, m)."""

    cross: CrossProducts
    W: Array | None
    Ts: tuple[Array, ...]
    U0: Array | None

    def apply_factor(self, v: Array, *, transposed: bool = False) -> Array:
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

    def multiply_products(self, u: Array) -> Array:
        """U0 u, the cross-products of the remaining columns themselves."""
        if self.U0 is not None:
            return np.asarray(u @ self.U0)
        assert self.cross.remaining is not None
        return np.ascontiguousarray(self.cross.remaining.times(np.ascontiguousarray(u.T)).T)

    def multiply_schur(self, u: Array) -> Array:
        """U u = (U0 - E'HE) u."""
        out = self.multiply_products(u)
        if self.cross.coupling is not None and self.W is not None:
            inner = self.through(self.cross.coupling.times(u[..., None])[:, :, 0])
            out -= self.cross.coupling.transpose_times(inner[:, :, None])[..., 0]
        return np.asarray(out)

    def times(self, v: Array) -> Array:
        """S v."""
        return v + self.apply_factor(self.multiply_schur(self.apply_factor(v)), transposed=True)

    def solve_reduced(self, c: Array, before: Preconditioner | None) -> Array:
        """Q c = Lambda S^-1 Lambda' c; before : None where each draw has a preconditioner of its own."""
        if before is not None:
            return self.apply_factor(self.solve(self.apply_factor(c, transposed=True), before.inverse))
        cross = self.cross
        assert cross.remaining is not None and cross.probes is not None and cross.first is not None and self.W is not None
        assert isinstance(cross.coupling, UnpairedOffDiagonal)
        out = np.empty_like(c)
        for i, right in enumerate(c):
            Ts = [T[i : i + 1] for T in self.Ts]
            V = np.zeros((1, len(right), 0))
            schur = factorise_iteratively(
                cross.remaining, cross.coupling, self.W[:, :, i], cross.first.A, V, Ts, cross.probes, derivatives=False
            )
            out[i] = schur.apply_Q(right[None, :, None])[0, :, 0]
        return out

    def solve(self, c: Array, before: Array) -> Array:
        """S^-1 c by conjugate gradients, all draws at once; before : (m, m) an approximate inverse."""
        v = c @ before
        r = c - self.times(v)
        z = r @ before
        p, rz = z, np.sum(r * z, axis=1)
        size = np.sqrt(np.sum(c * (c @ before), axis=1))
        for _ in range(CG_STEPS):
            if np.all(np.sqrt(np.maximum(rz, 0.0)) <= CG_TOLERANCE * size):
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


def draw_beta_given_alpha(density: Density, mode: PosteriorMode, phi: Array, alpha: Array, rng: Generator) -> tuple[Array, ...]:
    """beta of every term (S, K, q), user's columns, given covariance parameters (S, d) and standardized alpha (S, p)."""
    kernel = density.kernel
    if not density.problem.design.terms:
        return ()
    assert isinstance(kernel, RandomEffectsKernel)
    cross = kernel.cross
    if cross.rest is not None or cross.first is None:
        before = None if cross.remaining is not None else preconditioner(density, kernel, mode)
        return draw_beta_by_cg(density, before, phi, alpha, rng)
    terms = density.problem.design.terms
    out = tuple(np.empty((len(phi), term.group.size, len(term.columns))) for term in terms)
    with one_thread(density.problem.criterion.width):
        for part in portions(len(phi), max(1, BATCH_ELEMENTS // (cross.first.K * cross.first.q**2))):
            x, s = density.kernel_points(phi[part])
            if isinstance(density.pooled, PooledLevelsKernel):
                W = density.pooled.whiten(x)
            else:
                W = cross.first.eliminate(kernel.parameters.blocks(x)[0], derivatives=False).W
            v = np.concatenate([-alpha[part], np.ones((len(x), 1))], axis=1)
            drawn = _by_term(density, kernel, [draw_first(cross, W, v, None, s, rng)])
            for whole, own in zip(out, drawn, strict=True):
                whole[part] = own
    return out


def draw_beta_by_cg(density: Density, before: Preconditioner | None, phi: Array, alpha: Array, rng: Generator) -> tuple[Array, ...]:
    """beta of every term (S, K, q), user's columns, given covariance parameters (S, d) and standardized alpha (S, p).

    before : None where the kernel solves iteratively, with a preconditioner at each phi
    """
    kernel = density.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    terms = density.problem.design.terms
    out = tuple(np.empty((len(phi), term.group.size, len(term.columns))) for term in terms)
    with one_thread(density.problem.criterion.width):
        noise = _Noise(density, kernel)
        for begin in range(0, len(phi), SYSTEMS_AT_ONCE):
            part = slice(begin, min(begin + SYSTEMS_AT_ONCE, len(phi)))
            found = _block(density, kernel, before, noise, phi[part], alpha[part], rng)
            for whole, own in zip(out, found, strict=True):
                whole[part] = own
    return out


class _Noise:
    """Z'W e for errors e drawn with variance 1/w: the first factor (q, K) and the remaining columns (m,)."""

    def __init__(self, density: Density, kernel: RandomEffectsKernel) -> None:
        design, c = density.problem.design, density.problem.standardization
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
    density: Density,
    kernel: RandomEffectsKernel,
    before: Preconditioner | None,
    noise: _Noise,
    phi: Array,
    alpha: Array,
    rng: Generator,
) -> tuple[Array, ...]:
    cross, t = kernel.cross, len(phi)
    assert cross.rest is not None and cross.V0 is not None
    x, s = density.kernel_points(phi)
    Ts = kernel.parameters.blocks(x)
    skip = int(cross.first is not None)
    W = None if cross.first is None else cross.first.eliminate(Ts[0], derivatives=False).W
    system = ConjugateGradientSampler(cross, W, tuple(Ts[skip:]), None if before is None else before.U0)
    v = np.concatenate([-alpha, np.ones((t, 1))], axis=1)
    # in units of sigma: prior draws of the effects, noise of the errors
    free = [rng.standard_normal((t, f.K, f.q)) @ T.swapaxes(-1, -2) for f, T in zip(cross.factors, Ts, strict=True)]
    ze = noise.draw(t, rng)
    rest_prior = np.concatenate([own.reshape(t, -1) for own in free[skip:]], axis=1)
    c_rest = (
        (v @ cross.V0.T) / s[:, None]
        - np.concatenate([own.reshape(t, -1) for own in ze[skip:]], axis=1)
        - system.multiply_products(rest_prior)
    )
    found: list[Array] = []
    if cross.first is not None and cross.coupling is not None:
        first = free[0].transpose(2, 0, 1)
        c_first = np.matmul(v[None], cross.first.C) / s[:, None] - ze[0].transpose(2, 0, 1)
        c_first -= np.einsum("abk,btk->atk", cross.first.A, first) + cross.coupling.times(rest_prior[..., None])[:, :, 0]
        c_rest -= cross.coupling.transpose_times(first[:, :, None])[..., 0]
        reduced = c_rest - cross.coupling.transpose_times(system.through(c_first)[:, :, None])[..., 0]
        u = system.solve_reduced(reduced, before)
        b = first + system.through(c_first - cross.coupling.times(u[..., None])[:, :, 0])
        found.append(s[:, None, None] * b.transpose(1, 2, 0))
    else:
        u = system.solve_reduced(c_rest, before)
    whole = s[:, None] * (rest_prior + u)
    found += [whole[:, span.offset : span.stop].reshape(t, span.K, span.q) for span in cross.rest.spans]
    return _by_term(density, kernel, found)
