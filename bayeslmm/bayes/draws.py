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

from bayeslmm.arrays import Array, Codes
from bayeslmm.bayes.coefficients import Integrated
from bayeslmm.bayes.density import Density
from bayeslmm.covariance.triangle import cholesky
from bayeslmm.likelihood.classes import ClassKernel
from bayeslmm.likelihood.criterion import one_thread
from bayeslmm.likelihood.crossproducts import CrossProducts
from bayeslmm.likelihood.kernel import RandomEffectsKernel, RandomEffectsState
from bayeslmm.likelihood.levels_kernel import LevelsState, Solution
from bayeslmm.likelihood.patterns import PatternKernel, scaled_border, scaled_columns
from bayeslmm.likelihood.rest import RestState
from bayeslmm.likelihood.subjects import TermRows

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
        for part in _parts(S, density.batch):
            x, s = density.kernel_points(phi[part])
            kernel = density.kernel
            if isinstance(density.pooled, PatternKernel):
                found = _patterned(density, density.pooled, x, s, rng)
            elif isinstance(density.pooled, ClassKernel):
                classes = density.pooled.state(x)
                found = _independent(density, classes.solution, classes.W, classes.rest, s, rng)
            else:
                state = kernel.evaluate(x, derivatives=False)
                assert isinstance(state, RandomEffectsState)
                found = _independent(density, state.solution, _by_level(state.levels), state.levels.rest, s, rng)
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
    z = rng.standard_normal((t, p, 1))
    if solution.root_inverse is not None:
        noise = (solution.root_inverse.swapaxes(-1, -2) @ z)[..., 0]
    else:
        noise = np.linalg.solve(solution.root.swapaxes(-1, -2), z)[..., 0]
    return np.asarray(solution.alpha + s[:, None] * noise)


# -- independent errors --------------------------------------------------------------------------------------------------------------------


def _by_level(levels: LevelsState) -> Array | None:
    """W of the first factor, (q, q, t, K); None where no factor is eliminated."""
    first = levels.cross.first
    if first is None:
        return None
    return (first.eliminate(levels.Ts[0], derivatives=False) if levels.eliminated is None else levels.eliminated).W


def _independent(density: Density, solution: Solution, W: Array | None, rest: RestState | None, s: Array, rng: Generator) -> JointDraws:
    kernel = density.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    found = density.alpha.integrate(solution, s**2)
    a = draw_alpha(found, s, rng)
    v = np.concatenate([-a, np.ones((len(a), 1))], axis=1)
    drawn = None if rest is None else draw_rest(rest, v, s, rng)
    blocks = [] if W is None else [draw_first(kernel.cross, W, v, drawn, s, rng)]
    if rest is not None and drawn is not None:
        blocks += [drawn[:, span.offset : span.stop].reshape(len(a), span.K, span.q) for span in rest.layout.spans]
    c = density.problem.conditioning
    beta: dict[int, Array] = {}
    for factor, block in zip(kernel.parameters.factors, blocks, strict=True):
        related = block if factor.root is None else np.einsum("kl,tla->tka", factor.root, block)
        for i, own in zip(factor.terms, factor.slices, strict=True):
            beta[i] = related[..., own] @ (c.y_scale * c.maps[i].whole.T)
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
    for batch, kind in zip(kernel.data.rows, patterns.kinds, strict=True):
        rows, Zs, members = patterns.scaled(kind, x), scaled_columns(kernel, batch.rows), kind.members
        codes = [term.codes[batch.rows] for term in kernel.data.terms]
        e = np.einsum("bkr,tr->tbk", scaled_border(kernel, batch.rows), v)
        e -= s[:, None, None] * _by_kind(cholesky(rows.R), rng.standard_normal(e.shape), members)
        for Z, own, code in zip(Zs, prior, codes, strict=True):
            e -= np.einsum("bkq,tbkq->tbk", Z, own[:, code])
        e = _by_kind(np.linalg.inv(rows.V), e, members)
        for Z, score, code in zip(Zs, scores, codes, strict=True):
            member = sp.csr_array((np.ones(code.size), (code.ravel(), np.arange(code.size))), shape=(score.shape[1], code.size))
            for b in range(Z.shape[-1]):
                score[..., b] += (member @ (Z[..., b] * e).reshape(len(x), -1).T).T
    beta = []
    for D, term, own, score, mapped in zip(Ds, kernel.data.terms, prior, scores, density.problem.random.terms, strict=True):
        reached = score if term.relationship is None else np.einsum("kl,tlq->tkq", term.relationship, score)
        beta.append(c.y_scale * (own + reached @ D) @ mapped.map.whole.T)
    return JointDraws(alpha, tuple(beta))


def _by_kind(matrices: Array, vectors: Array, members: list[Codes]) -> Array:
    """M b of every block, (t, B, k); matrices : (t, C, k, k) of each kind, members : its blocks."""
    out = np.empty_like(vectors)
    for c, own in enumerate(members):
        out[:, own] = vectors[:, own] @ matrices[:, c].swapaxes(-1, -2)
    return out


def _drawn_levels(D: Array, term: TermRows, s: Array, rng: Generator) -> Array:
    """beta (t, K, q) of one term from its distribution."""
    free = s[:, None, None] * (rng.standard_normal((len(s), term.K, D.shape[-1])) @ cholesky(D).swapaxes(-1, -2))
    return free if term.relationship is None else np.einsum("kl,tlq->tkq", cholesky(term.relationship), free)
