"""Kenward and Roger's improved covariance of the fixed effects (2009), which takes the bias of the covariance parameters in.

With F = (X' V^-1 X)^-1, W the covariance of the parameters and M = sum_ab W_ab V_ab, the improvement of the linear adjustment is

    F_A = F_linear - 1/2 F X' V^-1 (M - PM) V^-1 X F,

PM being the projection of M on the first derivatives V_s in the inner product tr(P A P B), P = V^-1 - V^-1 X F X' V^-1: the bias of the
parameters, -1/4 sum W_sr tr(P M P V_r), is what it comes from. The result does not depend on how the covariance is parameterised; where
V is linear in its parameters it is that of 1997. Kenward and Roger (2009), Computational Statistics & Data Analysis 53, 2583-2595.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bayeslmm._arrays import Array, Codes
from bayeslmm.errors import InferenceError
from bayeslmm.inference.fixed_effects.kenward_roger import KenwardRoger
from bayeslmm.likelihood.identification import covariance_elements, shared_factors
from bayeslmm.likelihood.problem import Problem

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
