"""Newton's method with the columns of unstructured terms in the order of their pivots.

Where the first pivot of T is small and the rows below it are not, as in `T = [[0, 0], [a, b]]`, the entries of a row may be turned into
one another without a change of Sigma = T T': the criterion is level along a circle, and no quadratic model follows that. With the largest
pivots first (a pivoted Cholesky factorisation) what is small stands last and nothing turns. T is the same, its rows are exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import lapack

from bayeslmm.arrays import Array
from bayeslmm.estimate.newton import Outcome, minimise
from bayeslmm.likelihood.criterion import Point
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.turned import Turned, turned

SHARE = 0.3
"""Share of the largest variance left, given the columns before, below which a pivot stands too early."""

NOTHING = 1e-3
"""Relative variance, on conditioned columns, that is not worth an order."""

TURNS = 6
"""How often an order is chosen anew."""


def minimised(problem: Problem, restricted: bool, start: Array, tolerance: float) -> Outcome[Point]:
    """The optimum found from a start; everything in the outcome is on the axes of the problem."""
    own = [i for i, term in enumerate(problem.random.terms) if term.covariance.invariance == "any" and term.covariance.q > 1]
    path: tuple[tuple[Array, float], ...] = ()
    moved, x = problem, start
    for left in range(TURNS, -1, -1):
        if left and disordered(moved, own, x):
            moved, x = _ordered(problem, own, plain(moved, x))
        outcome = _searched(moved, problem, restricted, x, tolerance, own if left else ())
        path += outcome.path if moved is problem else tuple((plain(moved, at), value) for at, value in outcome.path)
        x = outcome.point.x
        if not outcome.left:
            break
    point = outcome.point if moved is problem else problem.criterion.bare(plain(moved, x), restricted)
    return Outcome(point, outcome.converged, outcome.predicted, path, outcome.interrupted)


def _searched(moved: Problem, problem: Problem, restricted: bool, x: Array, tolerance: float, own: Sequence[int]) -> Outcome[Point]:
    """One search on the axes of `moved`, which ends where they are no longer in order."""

    def evaluate(x: Array) -> Point:
        return moved.criterion.bare(x, restricted)

    def leaving(x: Array) -> bool:
        return disordered(moved, own, x)

    return minimise(evaluate, evaluate(x), tolerance, escaping=problem.escaping, leaving=leaving if own else None)


def _triangle(problem: Problem, i: int, x: Array) -> Array:
    """The triangular T of an unstructured term on the axes of the problem."""
    term = problem.random.terms[i]
    covariance = term.covariance.inner if isinstance(term.covariance, Turned) else term.covariance
    return covariance.factor(x[term.part])


def disordered(problem: Problem, own: Sequence[int], x: Array) -> bool:
    """Whether a pivot of one of these terms is small beside what is left behind it."""
    for i in own:
        term = problem.random.terms[i]
        if term.covariance.q == 2:
            # asked at every point of a search: the three entries of T are x itself
            pivot, row, last = x[term.part].tolist()
            below = row * row + last * last
            if below > NOTHING and pivot * pivot < SHARE * below:
                return True
        elif _early(_triangle(problem, i, x)):
            return True
    return False


def _early(T: Array) -> bool:
    squares = T * T
    left = squares[:, ::-1].cumsum(axis=1)[:, ::-1].max(axis=0)
    return bool(((squares.diagonal() < SHARE * left) & (left > NOTHING)).any())


def _ordered(problem: Problem, own: Sequence[int], x: Array) -> tuple[Problem, Array]:
    """The problem with its largest pivots first at x, and x there."""
    moved, found = problem, x.copy()
    for i in own:
        T = _triangle(problem, i, x)
        if not _early(T):
            continue
        order = lapack.dpstrf(T @ T.T, lower=1)[1] - 1
        moved = turned(moved, i, np.eye(len(T))[:, order])
        term = moved.random.terms[i]
        assert isinstance(term.covariance, Turned)
        found[term.part] = term.covariance.onto(x[term.part])
    return moved, found


def plain(problem: Problem, x: Array) -> Array:
    """x on axes that are not turned."""
    found = x.copy()
    for term in problem.random.terms:
        if isinstance(term.covariance, Turned):
            found[term.part] = term.covariance.plain(x[term.part])
    return found
