"""Covariance parameters in the order, by the names and on the scale of SAS's table, as functions of tau = (x, log sigma)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array, Codes
from bayeslmm.covariance.sas import sas_parameters
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.residual_structure import Grouped, VisitStructure
from bayeslmm.spec.sas.covparms import factored, has_matrix_form, parameters
from bayeslmm.spec.sas.structures import VC
from bayeslmm.spec.sas.translation import CovBlock, Translation

STEP = 1e-6
"""Step of the central differences in tau: the parameters are smooth and cost no evaluation of the criterion."""

_OFF_DIAGONAL = re.compile(r"UN\((\d+),(\d+)\)\Z")
_SIGNED = re.compile(r"(CS|CSH|AR\(1\)|ARH\(1\)|Rho.*|Gamma|TOEPH?\(\d+\)|HF|Corr\(.*|FA\(\d+,\d+\)|SP\(POW\)|SP\(LIN\))\Z")


@dataclass(frozen=True, slots=True)
class CovParm:
    """One row of the table; positive parameters have 0 as their bound, which is what their tests and limits go by."""

    name: str
    subject: str
    group: str
    value: float

    @property
    def positive(self) -> bool:
        """Whether the parameter is a variance, or something else that cannot be below 0."""
        last = self.name.rsplit(" ", 1)[-1]
        if pair := _OFF_DIAGONAL.search(last):
            return pair.group(1) == pair.group(2)
        return not _SIGNED.match(last)


def tau_of(x: Array, sigma2: float) -> Array:
    """tau at x and the conditioned residual variance."""
    return np.append(x, 0.5 * np.log(sigma2))


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """The covariance parameters of a program as functions of tau.

    orders : term -> where SAS's columns of its structure stand among those of the term
    """

    translation: Translation
    problem: Problem
    orders: Mapping[int, Codes]

    def rows(self, tau: Array) -> tuple[CovParm, ...]:
        """The rows of the CovParms table."""
        return tuple(self._rows(tau))

    def values(self, tau: Array) -> Array:
        """Their values alone."""
        return np.array([row.value for row in self._rows(tau)])

    def jacobian(self, tau: Array) -> Array:
        """d values / d tau, (rows, size + 1)."""
        columns = []
        for i in range(len(tau)):
            move = np.zeros(len(tau))
            move[i] = STEP * max(1.0, abs(tau[i]))
            columns.append((self.values(tau + move) - self.values(tau - move)) / (2.0 * move[i]))
        return np.stack(columns, axis=1)

    def _rows(self, tau: Array) -> Iterator[CovParm]:
        problem, blocks = self.problem, self.translation.blocks
        for block in blocks:
            yield from self._random_rows(block, tau) if block.statement == "random" else _repeated_rows(block, problem, tau)
        last = blocks[-1] if blocks else None
        inside = last is not None and last.statement == "repeated" and (factored(last) or last.local or last.type.spatial)
        if self.translation.residual and not inside:
            yield CovParm("Residual", "", "", residual_variance(problem, tau))

    def _random_rows(self, block: CovBlock, tau: Array) -> Iterator[CovParm]:
        (term,) = block.terms
        problem = self.problem
        group = f"{block.group} {block.level}" if block.group else ""
        order = self.orders.get(term)
        if has_matrix_form(block.type) or block.type == VC:
            D = random_covariance(problem, term, tau)
            found = parameters(block, D if order is None else D[np.ix_(order, order)])
        else:
            own = problem.random.terms[term]
            root = own.map.whole / np.sqrt(problem.conditioning.weight_mean)
            sigma = float(np.sqrt(problem.sigma2(float(np.exp(2.0 * tau[-1])))))
            found = sas_parameters(own.covariance, own.covariance.rescale(own.covariance.mapped(tau[own.part], root), sigma), grouped=True)
        yield from (CovParm(name, block.subject, group, value) for name, value in found)


def residual_variance(problem: Problem, tau: Array) -> float:
    """sigma^2 in the units of the data, at weight 1."""
    return problem.sigma2(float(np.exp(2.0 * tau[-1]))) * problem.design.weight_scale


def random_covariance(problem: Problem, term: int, tau: Array) -> Array:
    """D of a random term on the user's columns, (q, q)."""
    scale = problem.sigma2(float(np.exp(2.0 * tau[-1])))
    return np.asarray(scale * problem.relative_covariances(tau[:-1])[term])


def _repeated_rows(block: CovBlock, problem: Problem, tau: Array) -> Iterator[CovParm]:
    sigma2 = residual_variance(problem, tau)
    kernel = problem.structured
    assert kernel is not None
    if block.type == VC:
        design = problem.design.variance[0]
        ratios = np.concatenate([[1.0], kernel.variance.natural(tau[:-1][kernel.variance_part])])
        for label, ratio in zip(design.labels, ratios, strict=True):
            yield CovParm("Residual", block.subject, f"{block.group} {label}", float(sigma2 * ratio**2))
        return
    structure, residual = kernel.structure, problem.design.residual
    assert isinstance(structure, Grouped) and residual is not None
    labels = [""] if residual.group is None else [f"{block.group} {level}" for level in residual.group.levels]
    for label, own in zip(labels, structure.padded(tau[:-1][kernel.residual_part]), strict=True):
        full = structure.covariance.rescale(own, float(np.sqrt(sigma2)))
        plain = isinstance(structure, VisitStructure) and has_matrix_form(block.type) and not block.local
        if plain:
            outcomes = residual.shape[0] if block.type.kronecker else 0
            found = parameters(block, structure.covariance.matrix(full), outcomes)
        else:
            found = sas_parameters(structure.covariance, full, grouped=bool(label))
        for name, value in found:
            yield CovParm(name, "" if name == "Residual" else block.subject, label, value)
