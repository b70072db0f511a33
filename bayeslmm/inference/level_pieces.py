"""The pieces of Kenward and Roger for random effects with independent errors.

A component moves D alone: V_a = Z S_a Z' with S_a = I x E_a on the columns of one factor, so that P_a = G' S_a G, Q_ab = G' S_a M S_b G and
tr(V^-1 V_a V^-1 V_b) = tr(M S_a M S_b), in the space of levels. The errors come through Euler's identity, W^-1 = V0 - Z D Z'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.covariance import Covariance
from bayeslmm.covariance.protocol import Derivatives
from bayeslmm.inference.level_space import Direction, level_space
from bayeslmm.inference.pieces import CovariancePieces, covariance_pieces
from bayeslmm.likelihood.criterion import one_thread
from bayeslmm.likelihood.kernel import RandomEffectsState
from bayeslmm.likelihood.parameters import RandomParameters
from bayeslmm.likelihood.problem import Problem


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


def components(parameters: RandomParameters, x: Array) -> Components:
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


@covariance_pieces.register
def _(state: RandomEffectsState, problem: Problem, x: Array) -> CovariancePieces:
    with one_thread(problem.criterion.width):
        return assemble(state, components(problem.random, x), problem.criterion.n)


def assemble(state: RandomEffectsState, parts: Components, n: int) -> CovariancePieces:
    """The pieces of all components, sigma^2 last: W^-1 = V0 - Z D Z'."""
    space = level_space(state.levels)
    p = state.levels.cross.p
    border = state.solution.border[0][:p, :p]
    k, w = parts.count, parts.weights
    P, Q, traces = space.P(parts.directions), space.Q_pairs(parts.directions), space.traces(parts.directions)
    single = _single_traces(state, parts.directions)
    P_D, Q_D, t_D = np.einsum("a,axy->xy", w, P), np.einsum("b,abxy->axy", w, Q), traces @ w
    Q_DD, t_DD, s_D = np.einsum("a,axy->xy", w, Q_D), float(w @ t_D), float(w @ single)
    P_all, Q_all, t_all = np.empty((k + 1, p, p)), np.empty((k + 1, k + 1, p, p)), np.empty((k + 1, k + 1))
    P_all[:k], P_all[k] = P[:k], border - P_D
    Q_all[:k, :k] = Q[:k, :k]
    Q_all[:k, k] = P[:k] - Q_D[:k]
    Q_all[k, :k] = Q_all[:k, k].swapaxes(-1, -2)
    Q_all[k, k] = border - 2.0 * P_D + Q_DD
    t_all[:k, :k] = traces[:k, :k]
    t_all[:k, k] = t_all[k, :k] = single[:k] - t_D[:k]
    t_all[k, k] = n - 2.0 * s_D + t_DD
    second = None
    if parts.curved:
        second = np.zeros((k + 1, k + 1, p, p))
        for (a, b, _), value in zip(parts.curved, space.P([d for _, _, d in parts.curved]), strict=True):
            second[a, b] = value
    return CovariancePieces(P_all, Q_all, t_all, parts.jacobian, second)


def _single_traces(state: RandomEffectsState, directions: Sequence[Direction]) -> Array:
    """tr(V0^-1 V_a) = tr(M S_a)."""
    information = state.levels.information(False) if directions else []
    return np.array([float(np.sum(information[d.factor][0] * d.E)) for d in directions])
