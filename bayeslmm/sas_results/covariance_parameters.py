"""SAS's covariance parameters: names, order and scale of the CovParms table, as functions of tau = (x, log sigma).

PROC MIXED prints its own parameters: UN(2,1) is a covariance, CS a covariance, AR(1) a correlation, TOEP(2) a covariance, TOEPH(1) a
correlation, HF the lambda of Huynh and Feldt. A homogeneous structure of REPEATED without GROUP= and LOCAL hands its variance to the
row Residual ("factored"); anywhere else the variance is a row of its own, Variance. All of them are smooth functions of the matrix, so
that their standard errors follow by differentiating along the parameters of the fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.base import Covariance
from bayeslmm.covariance.factor_analytic import FactorAnalytic, trapezoid
from bayeslmm.covariance.products import Kronecker
from bayeslmm.covariance.registry import structure
from bayeslmm.covariance.scaled import Homogeneous
from bayeslmm.covariance.unstructured import Banded
from bayeslmm.errors import SpecificationError
from bayeslmm.estimate.error_boundary import vanishing_labels
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_covariance import parameter_units
from bayeslmm.likelihood.structured.residual_structure import GroupedStructure, VisitStructure
from bayeslmm.sas.language.covariance_types import VC, CovType
from bayeslmm.sas.translation import CovBlock, Translation

Parameters = tuple[tuple[str, float], ...]


def has_residual_scale(block: CovBlock) -> bool:
    """Whether the variance of the structure is printed as Residual."""
    return block.statement == "repeated" and not block.group and not block.local and block.type.name in _HOMOGENEOUS


def _has_own_scale(block: CovBlock) -> bool:
    """Whether the rows of REPEATED end with the row Residual."""
    return has_residual_scale(block) or block.local or block.type.spatial or bool(block.dispersion)


def has_matrix_form(cov: CovType) -> bool:
    """Whether the parameters can be read off a covariance matrix: spatial and factor-analytic ones cannot."""
    return cov.kronecker or cov.name in _READERS or cov.name in _HOMOGENEOUS


def block_parameters(block: CovBlock, sigma: Array, outcomes: int = 0) -> Parameters:
    """Names and values of the CovParms rows of one block, the Residual row of a factored structure last.

    sigma : (t, t) covariance of the block; for TYPE=VC (1, 1), one per effect
    outcomes : number of levels of the first effect of a product of structures
    Raises SpecificationError for structures that have no matrix form.

    >>> block_parameters(CovBlock("repeated", CovType("AR(1)")), np.array([[4.0, 2.0], [2.0, 4.0]]))
    (('AR(1)', 0.5), ('Residual', 4.0))
    """
    cov = block.type
    if cov.kronecker:
        return _kronecker(block, sigma, outcomes)
    if cov.name == "VC":
        return ((block.effects[0] if block.effects else "Residual", float(sigma[0, 0])),)
    if cov.name in _HOMOGENEOUS:
        variance, rest = _HOMOGENEOUS[cov.name](sigma, cov.order)
        return (*rest, ("Residual", variance)) if has_residual_scale(block) else (("Variance", variance), *rest)
    if cov.name not in _READERS:
        raise SpecificationError(f"the parameters of TYPE={cov.text} do not follow from a covariance matrix", remedy="use those of the fit")
    return _READERS[cov.name](sigma, cov.order)


def _correlation(sigma: Array, i: int, j: int) -> float:
    return float(sigma[i, j] / np.sqrt(sigma[i, i] * sigma[j, j]))


def _bands(t: int, order: int | None) -> int:
    return t if order is None else min(order, t)


def _variances(sigma: Array) -> Parameters:
    return tuple((f"Var({i + 1})", float(v)) for i, v in enumerate(np.diag(sigma)))


def _un(sigma: Array, order: int | None) -> Parameters:
    t, q = len(sigma), _bands(len(sigma), order)
    return tuple((f"UN({i + 1},{j + 1})", float(sigma[i, j])) for i in range(t) for j in range(max(0, i - q + 1), i + 1))


def _unr(sigma: Array, order: int | None) -> Parameters:
    t, q = len(sigma), _bands(len(sigma), order)
    pairs = ((i, j) for i in range(t) for j in range(max(0, i - q + 1), i))
    return (*_variances(sigma), *((f"Corr({i + 1},{j + 1})", _correlation(sigma, i, j)) for i, j in pairs))


def _first_correlation(name: str) -> Callable[[Array, int | None], Parameters]:
    return lambda sigma, _order: (*_variances(sigma), *(((name, _correlation(sigma, 1, 0)),) if len(sigma) > 1 else ()))


def _ante(sigma: Array, _order: int | None) -> Parameters:
    return (*_variances(sigma), *((f"Rho({k})", _correlation(sigma, k, k - 1)) for k in range(1, len(sigma))))


def _toeph(sigma: Array, order: int | None) -> Parameters:
    return (*_variances(sigma), *((f"TOEPH({k})", _correlation(sigma, k, 0)) for k in range(1, _bands(len(sigma), order))))


def _hf(sigma: Array, _order: int | None) -> Parameters:
    if len(sigma) == 1:
        return _variances(sigma)
    return (*_variances(sigma), ("HF", float((sigma[0, 0] + sigma[1, 1]) / 2 - sigma[1, 0])))


def _fa0(sigma: Array, order: int | None) -> Parameters:
    """The loadings of FA0(q), the first q columns of the Cholesky factor."""
    L = np.zeros_like(sigma)
    rest, rounding = sigma.copy(), 8.0 * len(sigma) * np.finfo(float).eps
    for k in range(_bands(len(sigma), order)):
        if rest[k, k] > rounding * sigma[k, k]:
            L[k:, k] = rest[k:, k] / np.sqrt(rest[k, k])
            rest = rest - np.outer(L[:, k], L[:, k])
    t, q = len(sigma), _bands(len(sigma), order)
    return tuple((f"FA({i + 1},{j + 1})", float(L[i, j])) for i in range(t) for j in range(min(i + 1, q)))


_READERS: Mapping[str, Callable[[Array, int | None], Parameters]] = {
    "UN": _un,
    "UNR": _unr,
    "CSH": _first_correlation("CSH"),
    "ARH(1)": _first_correlation("ARH(1)"),
    "ANTE(1)": _ante,
    "TOEPH": _toeph,
    "HF": _hf,
    "FA0": _fa0,
}


def _cs(sigma: Array, _order: int | None) -> tuple[float, Parameters]:
    shared = float(sigma[1, 0]) if len(sigma) > 1 else 0.0
    return float(sigma[0, 0]) - shared, (("CS", shared),)


def _ar1(sigma: Array, _order: int | None) -> tuple[float, Parameters]:
    return float(sigma[0, 0]), (("AR(1)", _correlation(sigma, 1, 0) if len(sigma) > 1 else 0.0),)


def _arma(sigma: Array, _order: int | None) -> tuple[float, Parameters]:
    gamma = _correlation(sigma, 1, 0) if len(sigma) > 1 else 0.0
    rho = float(sigma[2, 0] / sigma[1, 0]) if len(sigma) > 2 and gamma != 0 else 0.0
    return float(sigma[0, 0]), (("Rho", rho), ("Gamma", gamma))


def _toep(sigma: Array, order: int | None) -> tuple[float, Parameters]:
    return float(sigma[0, 0]), tuple((f"TOEP({k + 1})", float(sigma[k, 0])) for k in range(1, _bands(len(sigma), order)))


# The variance, then what is printed of the rest.
_HOMOGENEOUS: Mapping[str, Callable[[Array, int | None], tuple[float, Parameters]]] = {
    "CS": _cs,
    "AR(1)": _ar1,
    "ARMA(1,1)": _arma,
    "TOEP": _toep,
}


def _kronecker(block: CovBlock, sigma: Array, outcomes: int) -> Parameters:
    """UN over the outcomes, with the first visit; then the second structure, its first variance being 1."""
    visits = len(sigma) // outcomes
    first = sigma[::visits, ::visits]
    second = sigma[:visits, :visits] / sigma[0, 0]
    inner = CovType(block.type.name.partition("@")[2])
    correlation = _correlation(second, 1, 0) if visits > 1 else 0.0
    rest = _un(second, None) if inner.name == "UN" else ((inner.name, correlation),)
    names = [*block.effects, "", ""]
    return (*_label_rows(names[0], _un(first, None)), *_label_rows(names[1], rest))


def _label_rows(effect: str, rows: Sequence[tuple[str, float]]) -> Parameters:
    """The first row of each structure carries the name of its effect."""
    return tuple((f"{effect} {name}".strip() if i == 0 else name, value) for i, (name, value) in enumerate(rows))


ParameterList = tuple[tuple[str, float], ...]


def sas_parameters(covariance: Covariance, x: Array, *, grouped: bool = False) -> ParameterList:
    """Names and estimates of the CovParms table, without subject and group.

    x : (size,) of the whole matrix (R itself, not R / sigma^2). grouped : with GROUP= the residual variance is called Variance and leads.
    """
    if isinstance(covariance, Kronecker):
        outer, inner = x[: covariance.outer.size], np.append(1.0, x[covariance.outer.size :])
        between = sas_parameters(covariance.outer, outer)
        return between + tuple(row for row in sas_parameters(covariance.inner, inner) if row[0] not in ("Residual", "UN(1,1)"))
    if isinstance(covariance, Banded):
        return _un_names(covariance, x)
    if isinstance(covariance, Homogeneous):
        return _homogeneous(covariance, x, grouped)
    if isinstance(covariance, FactorAnalytic):
        return _factor_analytic(covariance, x)
    if structure(covariance.name).sas_row:
        values, q = covariance.components(x), covariance.q
        return (*_number_rows("Var({})", values[:q]), *_number_rows(structure(covariance.name).sas_row, values[q:]))
    return tuple(zip(covariance.component_names, covariance.components(x).tolist(), strict=True))


def _number_rows(pattern: str, values: Array) -> ParameterList:
    return tuple((pattern.format(k + 1), float(value)) for k, value in enumerate(values))


def _un_names(covariance: Banded, x: Array) -> ParameterList:
    """UN(i,j), row by row."""
    sigma, bands = covariance.matrix(x), covariance.order
    cells = [(row, col) for row in range(covariance.q) for col in range(max(0, row + 1 - bands), row + 1)]
    return tuple((f"UN({row + 1},{col + 1})", float(sigma[row, col])) for row, col in cells)


def _factor_analytic(covariance: FactorAnalytic, x: Array) -> ParameterList:
    """The variances of the rows' own, Var(1), ..., or for FA1 their common one, Variance; then the loadings, row by row."""
    rows, cols = trapezoid(covariance.q, covariance.order)
    values = covariance.components(x)
    loadings, own = values[: rows.size], values[rows.size :]
    named = [(f"FA({rows[k] + 1},{cols[k] + 1})", float(loadings[k])) for k in np.lexsort((cols, rows))]
    return (*((("Variance", float(own[0])),) if covariance.common else _number_rows("Var({})", own)), *named)


def _homogeneous(covariance: Homogeneous, x: Array, grouped: bool) -> ParameterList:
    values = covariance.natural(x)
    variance, rest = float(values[0] ** 2), values[1:]
    if covariance.nugget:
        # the part that is shared, its parameters, and what LOCAL adds
        share = float(rest[-1])
        return (("Variance", (1.0 - share) * variance), *_shape(covariance, rest[:-1], variance), ("Residual", share * variance))
    if covariance.name == "cs" and rest.size:
        variance, rest = variance * (1.0 - float(rest[0])), variance * rest
    shape = _shape(covariance, rest, variance)
    return (("Variance", variance), *shape) if grouped else (*shape, ("Residual", variance))


def _shape(covariance: Homogeneous, rest: Array, variance: float) -> ParameterList:
    if covariance.name == "cs":
        return _number_rows("CS", rest)
    if covariance.name == "arma":
        return (("Rho", float(rest[0])), ("Gamma", float(rest[1])))
    if covariance.name == "toep":
        return tuple((f"TOEP({lag + 2})", float(r) * variance) for lag, r in enumerate(rest))
    if covariance.name == "sp_lin":
        return _number_rows("SP(LIN)", 1.0 / rest)
    if covariance.name == "matern":
        return tuple((f"SP(MATERN){suffix}", float(r)) for suffix, r in zip((" Range", " Smoothness"), rest, strict=False))
    if not rest.size:
        return ()
    row = structure(covariance.name).sas_row if "@" not in covariance.name else "SP(POWA) {}"
    if not row:
        raise SpecificationError(f"PROC MIXED has no structure '{covariance.name}'", remedy="use the names of `residual_params`")
    return _number_rows(row, rest)


KNOWN_G = "GDATA"

SAS_TAU_STEP = 1e-6
"""Step of the central differences in tau: the parameters are smooth and cost no evaluation of the criterion."""

_DIAGONAL_LOADING = re.compile(r"FA\((\d+),\1\)\Z")
_OFF_DIAGONAL = re.compile(r"UN\((\d+),(\d+)\)\Z")
_CORRELATION = re.compile(r"(CSH|AR\(1\)|ARH\(1\)|TOEPH\(\d+\)|Corr\(.*|Rho.*)\Z")
_SIGNED = re.compile(r"(CS|CSH|AR\(1\)|ARH\(1\)|Rho.*|Gamma|TOEPH?\(\d+\)|HF|Corr\(.*|FA\(\d+,\d+\)|SP\(POWA?\)( \d+)?|SP\(LIN\))\Z")
_SCALE_FREE = re.compile(r"(Gamma|SP\(.*|Range|Smoothness|Scale)\Z")


@dataclass(frozen=True, slots=True)
class CovParm:
    """One row of the table; positive parameters have 0 as their bound, which is what their tests and limits go by.

    vanished : whether it belongs to a group whose errors are 0
    exponent : whether it is a coefficient of the log of the variance, LOCAL=EXP()
    """

    name: str
    subject: str
    group: str
    value: float
    vanished: bool = False
    exponent: bool = False

    @property
    def correlation(self) -> bool:
        """Whether the parameter is a correlation, whose bounds are -1 and 1."""
        return not self.exponent and bool(_CORRELATION.match(self.name.rsplit(" ", 1)[-1]))

    @property
    def known(self) -> bool:
        """Whether it is the 1 that a matrix of GDATA= is multiplied by, which is no parameter."""
        return self.name == KNOWN_G

    @property
    def of_scale(self) -> bool:
        """Whether the parameter is a variance, a covariance or a loading: 0 where there are no errors."""
        return not self.exponent and not self.correlation and not _SCALE_FREE.match(self.name.rsplit(" ", 1)[-1])

    @property
    def ends_at_zero(self) -> bool:
        """Whether 0 is an end of its range: of what cannot be negative, and of a loading whose sign means nothing."""
        return self.positive or bool(_DIAGONAL_LOADING.match(self.name.rsplit(" ", 1)[-1]))

    @property
    def positive(self) -> bool:
        """Whether the parameter is a variance, or something else that cannot be below 0."""
        last = self.name.rsplit(" ", 1)[-1]
        if pair := _OFF_DIAGONAL.search(last):
            return pair.group(1) == pair.group(2)
        return not self.exponent and not _SIGNED.match(last)


def tau_of(x: Array, sigma2: float) -> Array:
    """tau at x and the standardized residual variance."""
    return np.append(x, 0.5 * np.log(sigma2))


@dataclass(frozen=True, slots=True, eq=False)
class CovarianceListing:
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
        columns, units = [], np.append(parameter_units(self.problem, tau[:-1]), 1.0)
        for i in range(len(tau)):
            move = np.zeros(len(tau))
            move[i] = SAS_TAU_STEP * max(units[i], abs(tau[i]))
            columns.append((self.values(tau + move) - self.values(tau - move)) / (2.0 * move[i]))
        return np.stack(columns, axis=1)

    def units(self, tau: Array) -> Array:
        """(rows,) what each parameter is measured in: how much it moves with tau where the search starts, at the scale of `tau`."""
        moves = np.linalg.norm(self.jacobian(np.append(self.problem.start, tau[-1])), axis=1)
        return np.where(moves > 0.0, moves, 1.0)

    def _rows(self, tau: Array) -> Iterator[CovParm]:
        problem, blocks = self.problem, self.translation.blocks
        for block in blocks:
            yield from self._random_rows(block, tau) if block.statement == "random" else _repeated_rows(block, problem, tau)
        last = blocks[-1] if blocks else None
        inside = last is not None and last.statement == "repeated" and _has_own_scale(last)
        if self.translation.residual and not inside:
            yield CovParm("Residual", "", "", residual_variance(problem, tau))

    def residual(self, tau: Array) -> float:
        """The row Residual, which is the last one where the program has it; else sigma^2."""
        blocks = self.translation.blocks
        last = list(_repeated_rows(blocks[-1], self.problem, tau))[-1] if blocks and blocks[-1].statement == "repeated" else None
        return last.value if last is not None and last.name == "Residual" and not last.group else residual_variance(self.problem, tau)

    def _random_rows(self, block: CovBlock, tau: Array) -> Iterator[CovParm]:
        (term,) = block.terms
        problem = self.problem
        group = f"{block.group} {block.level}" if block.group else ""
        order = self.orders.get(term)
        if block.type.known:
            value = float(random_covariance(problem, term, tau)[0, 0])
            unit = self.residual(tau) if block.type.name == "GDATA RATIOS" else 1.0
            found: Parameters = ((f"LIN({block.type.order})" if block.type.name == "LIN" else KNOWN_G, value / unit),)
        elif has_matrix_form(block.type) or block.type == VC:
            D = random_covariance(problem, term, tau)
            found = block_parameters(block, D if order is None else D[np.ix_(order, order)])
        else:
            own = problem.random.terms[term]
            root = own.map.whole / np.sqrt(problem.standardization.weight_mean)
            sigma = float(np.sqrt(problem.sigma2(float(np.exp(2.0 * tau[-1])))))
            found = sas_parameters(
                own.covariance, own.covariance.rescale(own.covariance.map_rows(tau[own.part], root), sigma), grouped=True
            )
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
    gone = vanishing_labels(problem, tau[:-1])
    if block.dispersion:
        yield from _dispersion_rows(problem, sigma2, kernel.variance.natural(tau[:-1][kernel.variance_part]))
        return
    if block.type == VC:
        design = problem.design.variance[0]
        ratios = np.concatenate([[1.0], kernel.variance.natural(tau[:-1][kernel.variance_part])])
        for label, ratio in zip(design.labels, ratios, strict=True):
            yield CovParm("Residual", block.subject, f"{block.group} {label}", float(sigma2 * ratio**2), label in gone)
        return
    structure, residual = kernel.structure, problem.design.residual
    assert isinstance(structure, GroupedStructure) and residual is not None
    levels = [""] if residual.group is None else [str(level) for level in residual.group.levels]
    for level, own in zip(levels, structure.split_groups(tau[:-1][kernel.residual_part]), strict=True):
        full = structure.covariance.rescale(own, float(np.sqrt(sigma2)))
        plain = isinstance(structure, VisitStructure) and has_matrix_form(block.type) and not block.local
        if plain:
            outcomes = residual.shape[0] if block.type.kronecker else 0
            found = block_parameters(block, structure.covariance.matrix(full), outcomes)
        else:
            found = sas_parameters(structure.covariance, full, grouped=residual.group is not None)
        group = "" if residual.group is None else f"{block.group} {level}"
        for name, value in found:
            yield CovParm(name, "" if name == "Residual" else block.subject, group, value, residual.group is not None and level in gone)


def _dispersion_rows(problem: Problem, sigma2: float, natural: Array) -> Iterator[CovParm]:
    """delta and sigma^2 of R = sigma^2 diag(exp(U delta)): a class has columns of 1 and, for its last level, -1.

    sigma2 : where exponents are 0 and classes at the first of our levels; natural : exponents and ratios of standard deviations
    """
    begin = 0
    for factor in problem.design.variance:
        count = max(len(factor.labels) - 1, 0) if factor.kind == "ident" else 1
        own = natural[begin : begin + count]
        begin += count
        if factor.kind == "exp":
            yield CovParm(f"EXP {factor.spec.covariate}", "", "", 2.0 * float(own[0]), exponent=True)
            continue
        logs = 2.0 * np.log(np.concatenate([[1.0], own]))
        sigma2 *= float(np.exp(logs.mean()))
        for label, delta in zip(factor.labels[:-1], logs - logs.mean(), strict=False):
            yield CovParm(f"EXP {factor.spec.covariate} {label}", "", "", float(delta), exponent=True)
    yield CovParm("Residual", "", "", sigma2)
