"""From what a user types to a checked `ModelSpec`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from bayeslmm.errors import SpecificationError
from bayeslmm.formula import Formula, ResidualTerm, VarianceFactor, columns_of, parse_formula, parse_residual, parse_variance
from bayeslmm.spec.model import Checking, Contrast, Missing, ModelSpec
from bayeslmm.spec.priors import Priors

CODINGS = ("treatment", "sum", "helmert", "poly", "diff", "sas")
MISSING = ("drop", "raise")
CHECKING = ("error", "warn")


def make_spec(
    formula: str | Formula,
    *,
    residual: str | ResidualTerm | None = None,
    variance: str | tuple[VarianceFactor, ...] | None = None,
    weights: str | None = None,
    offset: str | None = None,
    contrasts: Mapping[str, Any] | None = None,
    relationship: Iterable[str] | None = None,
    priors: Priors | Mapping[str, Any] | None = None,
    missing: str = "drop",
    check: str = "error",
    functions: Iterable[str] = frozenset(),
) -> ModelSpec:
    """The spec of a model from the arguments of `LMM`; texts are parsed, names and options checked against each other.

    contrasts : factor -> name of a coding, or a matrix with a row per level
    relationship : names of the grouping factors with a known matrix
    functions : names of the user's own functions
    Errors: FormulaError for a text that cannot be read, SpecificationError for an option that does not exist or does not fit.

    >>> make_spec("y ~ x + (1 | g)", contrasts={"x": "sum"}).contrasts
    (('x', 'sum'),)
    """
    parsed = formula if isinstance(formula, Formula) else parse_formula(formula, functions)
    for given, argument, example, kinds in (
        (residual, "residual", "us(visit | subject)", (str, ResidualTerm)),
        (variance, "variance", "ident(group)", (str, tuple)),
    ):
        if given is not None and not isinstance(given, kinds):
            raise SpecificationError(f"{argument} is a text, not {type(given).__name__}", argument, f'write it as "{example}"')
    errors = parse_residual(residual) if isinstance(residual, str) else residual
    factors = parse_variance(variance) if isinstance(variance, str) else tuple(variance or ())
    _demand_no_response(parsed, errors, factors)
    return ModelSpec(
        formula=parsed,
        residual=errors,
        variance=factors,
        weights=_column(weights, "weights"),
        offset=_column(offset, "offset"),
        contrasts=_contrasts(contrasts, parsed) if contrasts else (),
        relationship=_relationship(relationship, parsed) if relationship else (),
        priors=_priors(priors),
        missing=cast(Missing, _one_of(missing, MISSING, "missing")),
        check=cast(Checking, _one_of(check, CHECKING, "check")),
    )


def _demand_no_response(formula: Formula, residual: ResidualTerm | None, variance: tuple[VarianceFactor, ...]) -> None:
    used = [("residual", columns_of(residual))] if residual is not None else []
    used += [("variance", columns_of(factor)) for factor in variance]
    responses = columns_of(formula.response) if used else ()
    for place, columns in used:
        for name in columns:
            if name in responses:
                raise SpecificationError(f"{name!r} is the response and stands in {place} too", f"{place}: {name}", "name another column")


def _column(given: Any, argument: str) -> str | None:
    if given is None or (isinstance(given, str) and given):
        return given
    raise SpecificationError(f"{argument} of a spec is the name of a column", f"{argument}: {type(given).__name__}", "name the column")


def _one_of(given: Any, allowed: Sequence[str], argument: str) -> str:
    if isinstance(given, str) and given in allowed:
        return given
    raise SpecificationError(f"{argument}={given!r:.40} does not exist", argument, "use " + " or ".join(map(repr, allowed)))


def _priors(given: Any) -> Priors | None:
    if given is None or isinstance(given, Priors):
        return given
    if isinstance(given, Mapping):
        return Priors(**given)
    raise SpecificationError("priors cannot be read", f"priors: {type(given).__name__}", "pass Priors(...)")


def _contrasts(given: Mapping[str, Any], formula: Formula) -> tuple[tuple[str, Contrast], ...]:
    if not isinstance(given, Mapping):
        raise SpecificationError("contrasts is not a mapping", f"contrasts: {type(given).__name__}", 'write {"ARMCD": "sum"}')
    known = columns_of(formula)
    for factor in given:
        if factor not in known:
            raise SpecificationError(
                f"contrasts for {factor!r}, which the formula does not have", "contrasts", "use one of " + ", ".join(known)
            )
    return tuple((factor, _contrast(factor, given[factor])) for factor in given)


def _contrast(factor: str, given: Any) -> Contrast:
    where = f"contrasts[{factor!r}]"
    if isinstance(given, str):
        return _one_of(given.lower(), CODINGS, where)
    labels: Any = getattr(given, "index", None)
    if hasattr(labels, "tolist") and labels.tolist() != list(range(len(given))):
        what = f"the contrasts of {factor!r} have row labels, which are not matched to levels"
        raise SpecificationError(what, where, "order the rows as the levels, and give .to_numpy()")
    rows = given.to_numpy().tolist() if hasattr(given, "to_numpy") else given.tolist() if hasattr(given, "tolist") else given
    try:
        matrix = tuple(tuple(float(value) for value in row) for row in rows)
    except (TypeError, ValueError):
        matrix = ()
    if not matrix or not matrix[0] or any(len(row) != len(matrix[0]) for row in matrix):
        raise SpecificationError(
            f"the contrasts of {factor!r} are no matrix", where, "give a row of numbers per level, or a name: " + ", ".join(CODINGS)
        )
    if not all(math.isfinite(value) for row in matrix for value in row):
        raise SpecificationError(f"the contrasts of {factor!r} are not finite", where, "give finite numbers")
    return matrix


def _relationship(given: Iterable[str], formula: Formula) -> tuple[str, ...]:
    groups = tuple(dict.fromkeys(term.name for term in formula.random))
    names = tuple(given)
    for name in names:
        if name not in groups:
            remedy = "use one of " + ", ".join(groups) if groups else "add a random term, such as (1 | animal)"
            raise SpecificationError(
                f"a relationship matrix for {name!r}, which is no grouping factor of the formula", "relationship", remedy
            )
    return names
