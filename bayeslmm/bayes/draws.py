"""Exact draws of alpha and of every random effect, given draws of the covariance parameters.

Independent errors: alpha from its normal distribution, the remaining factors from theirs given alpha, the first factor level by level given
both; the factor that the kernel has made for the density is all that is needed, and draws run along its leading axis.
Structured errors: `beta + D Z'V^-1 (y - X alpha - Z beta - e)` for beta, e drawn from D and R, which is exact for any D and R.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bayeslmm.arrays import Array
from bayeslmm.bayes.coefficients import Integrated
from bayeslmm.bayes.density import Density
from bayeslmm.covariance.triangle import cholesky
from bayeslmm.likelihood.criterion import one_thread
from bayeslmm.likelihood.kernel import RandomEffectsState
from bayeslmm.likelihood.levels_kernel import LevelsState
from bayeslmm.likelihood.patterns import PatternKernel
from bayeslmm.likelihood.rest import RestState
from bayeslmm.likelihood.subjects import RowsState, SubjectsKernel, SubjectsState, TermRows

Generator = np.random.Generator


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
    beta = tuple(np.empty((S, len(term.group.levels), term.Z.shape[1])) for term in terms)
    with one_thread(problem.criterion.width):
        for part in _parts(S, density.value_batch if isinstance(density.pooled, PatternKernel) else density.batch):
            x, s = density.kernel_points(phi[part])
            kernel = density.kernel
            if isinstance(density.pooled, PatternKernel):
                found = _patterned(density, density.pooled, x, s, rng)
            elif isinstance(kernel, SubjectsKernel):
                found = _structured(density, kernel, x, s, rng)
            else:
                state = kernel.evaluate(x, derivatives=False)
                assert isinstance(state, RandomEffectsState)
                found = _independent(density, state, s, rng)
            alpha[part] = found.alpha
            for whole, own in zip(beta, found.beta, strict=True):
                whole[part] = own
    return JointDraws(alpha, beta)


def _parts(n: int, step: int) -> Iterator[slice]:
    for begin in range(0, n, step):
        yield slice(begin, min(begin + step, n))


def draw_alpha(found: Integrated, s: Array, rng: Generator) -> Array:
    """Conditioned alpha (t, p) from its normal distribution."""
    solution = found.solution
    t, p = solution.alpha.shape
    if p == 0:
        return solution.alpha
    noise = np.linalg.solve(solution.root.swapaxes(-1, -2), rng.standard_normal((t, p, 1)))[..., 0]
    return np.asarray(solution.alpha + s[:, None] * noise)


# -- independent errors --------------------------------------------------------------------------------------------------------------------


def _independent(density: Density, state: RandomEffectsState, s: Array, rng: Generator) -> JointDraws:
    problem = density.problem
    found = density.alpha.integrate(state.solution, s**2)
    a = draw_alpha(found, s, rng)
    v = np.concatenate([-a, np.ones((len(a), 1))], axis=1)
    levels = state.levels
    rest = None if levels.rest is None else draw_rest(levels.rest, v, s, rng)
    blocks = []
    if levels.first is not None:
        blocks.append(draw_first(levels, v, rest, s, rng))
    if levels.rest is not None and rest is not None:
        blocks += [rest[:, span.offset : span.stop].reshape(len(a), span.K, span.q) for span in levels.rest.layout.spans]
    c = problem.conditioning
    beta: dict[int, Array] = {}
    for factor, block in zip(state.parameters.factors, blocks, strict=True):
        related = block if factor.root is None else np.einsum("kl,tla->tka", factor.root, block)
        for i, own in zip(factor.terms, factor.slices, strict=True):
            beta[i] = c.y_scale * related[..., own] @ c.maps[i].whole.T
    return JointDraws(c.alpha0 + c.y_scale * a @ c.back.T, tuple(beta[i] for i in range(len(beta))))


def draw_rest(rest: RestState, v: Array, s: Array, rng: Generator) -> Array:
    """The remaining factors given alpha, (t, m): N(Q U v, s^2 Q)."""
    mean = np.einsum("tmr,tr->tm", rest.QV, v)
    out = np.empty_like(mean)
    for batch, block in zip(rest.layout.batches, rest.blocks, strict=True):
        root = cholesky(block.Q)
        noise = (root @ rng.standard_normal((*block.Q.shape[:3], 1)))[..., 0]
        out[:, batch.index] = mean[:, batch.index] + s[:, None, None] * noise
    return np.asarray(out)


def draw_first(levels: LevelsState, v: Array, rest: Array | None, s: Array, rng: Generator) -> Array:
    """The first factor given alpha and the rest, (t, K, q): N(H (C v - E beta_rest), s^2 H) with H = W'W."""
    assert levels.first is not None and levels.cross.first is not None
    W, C = levels.first.W, levels.cross.first.C
    q, t, K = len(W), len(v), C.shape[2]
    right = np.matmul(v[None], C)
    if rest is not None:
        assert levels.cross.coupling is not None
        right = right - levels.cross.coupling.times(rest[..., None])[:, :, 0]
    out = np.zeros((t, K, q))
    for b in range(q):
        inner = s[:, None] * rng.standard_normal((t, K))
        for c in range(q):
            inner += W[b, c] * right[c]
        for a in range(q):
            out[:, :, a] += W[b, a] * inner
    return out


# -- structured errors ---------------------------------------------------------------------------------------------------------------------


def _patterned(density: Density, patterns: PatternKernel, x: Array, s: Array, rng: Generator) -> JointDraws:
    """All draws at once."""
    c, kernel = density.problem.conditioning, patterns.kernel
    a = draw_alpha(density.alpha.integrate(patterns.solve(x), s**2), s, rng)
    alpha = c.alpha0 + c.y_scale * a @ c.back.T
    if not kernel.random.terms:
        return JointDraws(alpha, ())
    v = np.concatenate([-a, np.ones((len(a), 1))], axis=1)
    Ds = [term.covariance.matrix(x[:, term.part]) for term in kernel.random.terms]
    prior = [_drawn_levels(D, term, s, rng) for D, term in zip(Ds, kernel.data.terms, strict=True)]
    scores = [np.zeros_like(own) for own in prior]
    for batch in kernel.data.rows:
        rows = patterns.scaled(batch, x)
        codes = [term.codes[batch.rows] for term in kernel.data.terms]
        e = np.einsum("bkr,tr->tbk", rows.U, v)
        e -= s[:, None, None] * (cholesky(rows.R) @ rng.standard_normal((*e.shape, 1)))[..., 0]
        for Z, own, code in zip(rows.Z, prior, codes, strict=True):
            e -= np.einsum("bkq,tbkq->tbk", Z, own[:, code])
        e = np.linalg.solve(rows.V, e[..., None])[..., 0]
        for Z, score, code in zip(rows.Z, scores, codes, strict=True):
            member = sp.csr_array((np.ones(code.size), (code.ravel(), np.arange(code.size))), shape=(score.shape[1], code.size))
            for b in range(Z.shape[-1]):
                score[..., b] += (member @ (Z[..., b] * e).reshape(len(x), -1).T).T
    beta = []
    for D, term, own, score, mapped in zip(Ds, kernel.data.terms, prior, scores, density.problem.random.terms, strict=True):
        reached = score if term.relationship is None else np.einsum("kl,tlq->tkq", term.relationship, score)
        beta.append(c.y_scale * (own + reached @ D) @ mapped.map.whole.T)
    return JointDraws(alpha, tuple(beta))


def _drawn_levels(D: Array, term: TermRows, s: Array, rng: Generator) -> Array:
    """beta (t, K, q) of one term from its distribution."""
    free = s[:, None, None] * (rng.standard_normal((len(s), term.K, D.shape[-1])) @ cholesky(D).swapaxes(-1, -2))
    return free if term.relationship is None else np.einsum("kl,tlq->tkq", cholesky(term.relationship), free)


def _structured(density: Density, kernel: SubjectsKernel, x: Array, s: Array, rng: Generator) -> JointDraws:
    c, terms = density.problem.conditioning, density.problem.random.terms
    alpha, betas = [], []
    roots = [None if term.relationship is None else cholesky(term.relationship) for term in kernel.data.terms]
    for row, sigma in zip(x, s, strict=True):
        state = kernel.evaluate(row[None], derivatives=False)
        assert isinstance(state, SubjectsState)
        a = draw_alpha(density.alpha.integrate(state.solution, np.array([sigma**2])), np.array([sigma]), rng)[0]
        alpha.append(c.alpha0 + c.y_scale * c.back @ a)
        if terms:
            betas.append(_perturbed(state, a, float(sigma), roots, rng))
    beta = tuple(c.y_scale * np.stack([b[i] for b in betas]) @ term.map.whole.T for i, term in enumerate(terms))
    return JointDraws(np.stack(alpha), beta)


def _perturbed(state: SubjectsState, a: Array, sigma: float, roots: list[Array | None], rng: Generator) -> list[Array]:
    """beta of every term, (K, q) on conditioned columns, given alpha."""
    kernel, v = state.kernel, np.append(-a, 1.0)
    Ds = [term.covariance.matrix(state.x[term.part]) for term in kernel.random.terms]
    prior = []
    for D, term, root in zip(Ds, kernel.data.terms, roots, strict=True):
        free = sigma * rng.standard_normal((term.K, len(D))) @ cholesky(D).T
        prior.append(free if root is None else root @ free)
    scores = [np.zeros((term.K, len(D))) for D, term in zip(Ds, kernel.data.terms, strict=True)]
    for rows in state.row_states:
        e = (rows.inverse @ (rows.U @ v - _drawn_rows(rows, kernel, prior, sigma, rng))[..., None])[..., 0]
        for i, term in enumerate(kernel.data.terms):
            codes = term.codes[rows.batch.rows].ravel()
            for b in range(scores[i].shape[1]):
                scores[i][:, b] += np.bincount(codes, (rows.Z[i][..., b] * e).ravel(), term.K)
    out = []
    for D, term, own, score in zip(Ds, kernel.data.terms, prior, scores, strict=True):
        reached = score if term.relationship is None else term.relationship @ score
        out.append(own + reached @ D)
    return out


def _drawn_rows(rows: RowsState, kernel: SubjectsKernel, prior: list[Array], sigma: float, rng: Generator) -> Array:
    """Z beta + e drawn from D and R, (B, k) in scaled rows."""
    out = sigma * (cholesky(rows.R) @ rng.standard_normal((*rows.R.shape[:2], 1)))[..., 0]
    for Z, term, beta in zip(rows.Z, kernel.data.terms, prior, strict=True):
        out = out + np.einsum("bkq,bkq->bk", Z, beta[term.codes[rows.batch.rows]])
    return out
