"""Random effects as variables of a graph: centred where the data say more about an effect than its distribution does, else not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor import TensorVariable

from bayeslmm.arrays import Array
from bayeslmm.bayes.density import Density
from bayeslmm.bayes.graph_matrices import Matrix
from bayeslmm.likelihood.criterion import Point
from bayeslmm.likelihood.prediction import conditional_covariances
from bayeslmm.likelihood.problem import Problem
from bayeslmm.results.variances import by_group

HALF = 0.5
"""A term is centred when its effects keep less than this share of their variance once the data are seen."""


def centred_terms(target: Density, phi: Array) -> list[bool]:
    """Whether each term is better sampled centred, judged at parameters near the mode."""
    problem = target.problem
    if not problem.design.terms:
        return []
    x, s = target.kernel_points(phi[None])
    state = problem.criterion.kernel.evaluate(x, derivatives=True)
    point = Point(x[0], 0.0, np.zeros(0), None, float(s[0]) ** 2, state)
    left = conditional_covariances(problem, point)
    found = []
    for block, own in zip(target.layout.terms, left, strict=True):
        D = np.diagonal(block.covariance(phi[None])[0])
        kept = np.diagonal(own, axis1=1, axis2=2).mean(0) / np.where(D > 0, D, np.inf)
        found.append(bool(np.all(D > 0) and kept.mean() < HALF))
    return found


def random_effects(problem: Problem, terms: Sequence[Matrix], centred: Sequence[bool]) -> list[TensorVariable]:
    """Z beta (n,) of every grouping factor; the effects are `beta_<group>` (levels, terms)."""
    design, found = problem.design, []
    for group, members in by_group(design.terms).items():
        dims, alone = (group, f"{group}_term"), len(members) == 1
        parts = []
        for i in members:
            name = f"beta_{group}" if alone else f"beta_{group}[{members.index(i) + 1}]"
            parts.append(_effects(problem, i, terms[i], name, centred[i], dims if alone else None))
        beta = parts[0] if alone else pm.Deterministic(f"beta_{group}", pt.concatenate(parts, axis=1), dims=dims)
        first = design.terms[members[0]]
        Z = pm.Data(f"Z_{group}", np.concatenate([design.terms[i].Z for i in members], axis=1), dims=("obs", dims[1]))
        codes = pm.Data(f"index_{group}", first.group.codes, dims=("obs",))
        found.append(pt.sum(Z * beta[codes], axis=1))
    return found


def _effects(problem: Problem, i: int, term: Matrix, name: str, centred: bool, dims: tuple[str, str] | None) -> TensorVariable:
    design, q = problem.design.terms[i], term.covariance.q
    shape = (design.group.size, q)
    named = {"shape": shape} if dims is None else {"dims": dims}
    A = design.relationship
    if centred and A is None:
        if q == 1:
            return pm.Normal(name, 0.0, term.T[0, 0], **named)
        return pm.MvNormal(name, np.zeros(q), chol=term.T, **named)
    z = pm.Normal(f"{name} (standard)", 0.0, 1.0, **named)
    own = z if A is None else pt.as_tensor_variable(np.linalg.cholesky(A)) @ z
    return pm.Deterministic(name, own @ term.T.mT, dims=dims)
