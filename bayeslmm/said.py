"""What a user said about a model: the arguments of `LMM`, as a value that can be changed, stored and turned into a spec."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bayeslmm.errors import SpecificationError
from bayeslmm.formula import parse_formula, parse_residual, parse_variance, variance_text
from bayeslmm.results.rows import demand_one_of
from bayeslmm.spec import ModelSpec, Priors

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """The arguments of `LMM` but for the data."""

    formula: str
    residual: str | None
    variance: str | None
    weights: Any
    offset: Any
    contrasts: dict[str, Any]
    relationship: dict[str, Any]
    priors: Priors | None
    missing: str
    check: str
    functions: dict[str, Any]

    @classmethod
    def of_spec(cls, spec: ModelSpec, weights: Any, offset: Any, relationship: dict[str, Any], functions: dict[str, Any]) -> Said:
        """The arguments that lead to a spec."""
        return cls(
            spec.formula.text,
            None if spec.residual is None else spec.residual.text,
            variance_text(spec.variance) if spec.variance else None,
            spec.weights if weights is None else weights,
            spec.offset if offset is None else offset,
            dict(spec.contrasts),
            relationship,
            spec.priors,
            spec.missing,
            spec.check,
            functions,
        )

    def changed(self, formula: str, changes: dict[str, Any]) -> Said:
        """With another formula and other arguments."""
        known = {field.name for field in fields(self)} - {"formula"}
        for name in changes:
            if name not in known:
                raise SpecificationError(f"LMM has no argument {name!r}", "update", "use one of " + ", ".join(sorted(known)))
        for name in ("contrasts", "relationship", "functions"):
            if name in changes:
                changes[name] = dict(changes[name] or {})
        return replace(self, formula=formula, **changes)

    def arguments(self) -> dict[str, Any]:
        """As keywords of `LMM`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def spec_of(said: Said) -> ModelSpec:
    """The arguments, read and checked."""
    if not isinstance(said.formula, str):
        raise SpecificationError(f"the formula is a {type(said.formula).__name__}", "formula", 'give text, such as "y ~ x + (1 | g)"')
    if said.priors is not None and not isinstance(said.priors, Priors):
        raise SpecificationError(f"priors is a {type(said.priors).__name__}", "priors", "give blm.Priors(...)")
    demand_one_of(said.missing, ("drop", "raise"), "missing")
    demand_one_of(said.check, ("error", "warn"), "check")
    return ModelSpec(
        formula=parse_formula(said.formula, frozenset(said.functions)),
        residual=None if said.residual is None else parse_residual(said.residual),
        variance=() if said.variance is None else parse_variance(said.variance),
        weights=said.weights if isinstance(said.weights, str) else None,
        offset=said.offset if isinstance(said.offset, str) else None,
        contrasts=tuple((name, _coding(name, coding)) for name, coding in said.contrasts.items()),
        relationship=tuple(said.relationship),
        priors=said.priors,
        missing=cast(Any, said.missing),
        check=cast(Any, said.check),
    )


def _coding(name: str, coding: Any) -> str | tuple[tuple[float, ...], ...]:
    """A coding as the spec holds it: a name, or the rows of a matrix."""
    if isinstance(coding, str):
        return coding
    try:
        matrix = np.atleast_2d(np.asarray(coding, float))
    except (TypeError, ValueError):
        matrix = np.full((1, 1, 1), np.nan)
    if matrix.ndim != 2 or not np.all(np.isfinite(matrix)):
        raise SpecificationError(
            f"the contrasts of {name!r} are not a matrix of numbers",
            "contrasts",
            'give "treatment", "sum", "helmert", "poly" or a matrix of one row per level',
        )
    return tuple(tuple(float(v) for v in row) for row in matrix)
