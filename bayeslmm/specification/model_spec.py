"""`ModelSpec`: a checked specification; `ModelArguments`: the arguments of `LMM` as given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast, get_args

import numpy as np
import pandas as pd

from bayeslmm._arrays import label_text, numbers_of
from bayeslmm._types import CheckMode, Missing
from bayeslmm._validation import MAX_SIZE, number_below, require_function, require_mapping
from bayeslmm.errors import SpecificationError, escape_control, show_value
from bayeslmm.formula.parse import columns_of, parse_formula, parse_residual, parse_variance, variance_text
from bayeslmm.formula.syntax import CONTRASTS, Formula, ResidualTerm, VarianceFactor
from bayeslmm.specification.priors import Priors


@dataclass(frozen=True, slots=True)
class ContrastMatrix:
    """A contrast matrix with labels: coefficients are named by its columns, rows are found by the levels.

    levels : labels of the rows as text; empty where the rows stand in the order of the levels
    names : of the columns; rows : the matrix
    """

    levels: tuple[str, ...]
    names: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]


ContrastSpec = str | tuple[str, str | float] | tuple[tuple[float, ...], ...] | ContrastMatrix


def plain_coding(coding: ContrastSpec) -> Any:
    """A coding in texts, lists and numbers, as files hold it."""
    if isinstance(coding, str):
        return coding
    if isinstance(coding, ContrastMatrix):
        return {"levels": list(coding.levels), "names": list(coding.names), "rows": [list(row) for row in coding.rows]}
    return [list(part) if isinstance(part, tuple) else part for part in coding]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model without its data.

    formula : the parsed formula
    residual : covariance structure of the errors; None is independent errors
    variance : factors of the variance function, multiplied
    weights, offset : names of columns (arrays are carried beside the spec)
    contrasts : pairs (factor, coding); a coding is a name or a matrix as rows
    relationship : names of the grouping factors with a known matrix (the matrices are carried beside the spec)
    priors : None is the defaults
    sigma : the residual sd where it is known, times 1/sqrt(weights); None estimates it
    missing : "drop" or "raise"
    check : "error" or "warn"
    """

    formula: Formula
    residual: ResidualTerm | None = None
    variance: tuple[VarianceFactor, ...] = ()
    weights: str | None = None
    offset: str | None = None
    contrasts: tuple[tuple[str, ContrastSpec], ...] = ()
    relationship: tuple[str, ...] = ()
    priors: Priors | None = None
    sigma: float | None = None
    missing: Missing = "drop"
    check: CheckMode = "error"

    @property
    def title(self) -> str:
        """The formula and whatever makes another model of it: `y ~ t, residual ar1(t | g), variance ident(Sex)`."""
        options = {
            "residual": None if self.residual is None else self.residual.text,
            "variance": variance_text(self.variance) if self.variance else None,
            "weights": self.weights,
            "offset": self.offset,
            "relationship": ", ".join(self.relationship) or None,
            "sigma": None if self.sigma is None else f"{self.sigma:g}",
        }
        parts = [self.formula.text, *(f"{name} {value}" for name, value in options.items() if value is not None)]
        return escape_control(", ".join(parts))

    def __post_init__(self) -> None:
        # Two specs that say the same are equal, in whatever order it was said.
        if self.contrasts != ():
            object.__setattr__(self, "contrasts", tuple(sorted(self.contrasts, key=lambda pair: pair[0])))
        if self.relationship != ():
            object.__setattr__(self, "relationship", tuple(sorted(set(self.relationship))))


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
    sigma: float | None = None,
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
    for value, argument, example, kinds in (
        (residual, "residual", "us(visit | subject)", (str, ResidualTerm)),
        (variance, "variance", "ident(group)", (str, tuple)),
    ):
        if value is not None and not isinstance(value, kinds):
            raise SpecificationError(f"{argument} is a text, not {type(value).__name__}", argument, f'write it as "{example}"')
    if isinstance(variance, tuple) and not all(isinstance(factor, VarianceFactor) for factor in variance):
        raise SpecificationError(f"variance is {show_value(variance)}", "variance", 'write it as "ident(group)"')
    errors = parse_residual(residual) if isinstance(residual, str) else residual
    factors = parse_variance(variance) if isinstance(variance, str) else tuple(variance or ())
    _require_no_response(parsed, errors, factors)
    return ModelSpec(
        formula=parsed,
        residual=errors,
        variance=factors,
        weights=_column(weights, "weights"),
        offset=_column(offset, "offset"),
        contrasts=_contrasts(contrasts, parsed),
        relationship=_relationship(relationship, parsed) if relationship else (),
        priors=_priors(priors),
        sigma=_held_sigma(sigma, errors),
        missing=cast(Missing, _one_of(missing, get_args(Missing), "missing")),
        check=cast(CheckMode, _one_of(check, get_args(CheckMode), "check")),
    )


def _held_sigma(sigma: float | None, errors: ResidualTerm | None) -> float | None:
    """A residual sd that is known."""
    if sigma is None:
        return None
    number = number_below(sigma, MAX_SIZE)
    if not number > 0.0:
        raise SpecificationError(f"sigma is {show_value(sigma)}", "sigma", "give the residual sd, a number above 0")
    if errors is not None:
        raise SpecificationError("sigma cannot be held under a residual structure", "sigma, residual", "leave one of them out")
    return number


def _require_no_response(formula: Formula, residual: ResidualTerm | None, variance: tuple[VarianceFactor, ...]) -> None:
    used = [("residual", columns_of(residual))] if residual is not None else []
    used += [("variance", columns_of(factor)) for factor in variance]
    responses = columns_of(formula.response) if used else ()
    for place, columns in used:
        for name in columns:
            if name in responses:
                raise SpecificationError(f"{name!r} is the response and stands in {place} too", f"{place}: {name}", "name another column")


def _column(name: Any, argument: str) -> str | None:
    if name is None or (isinstance(name, str) and name):
        return name
    raise SpecificationError(f"{argument} of a spec is the name of a column", f"{argument}: {type(name).__name__}", "name the column")


def _one_of(word: Any, allowed: Sequence[str], argument: str) -> str:
    if isinstance(word, str) and word in allowed:
        return word
    raise SpecificationError(f"{argument}={show_value(word)} does not exist", argument, "use " + " or ".join(map(repr, allowed)))


def _priors(priors: Any) -> Priors | None:
    if priors is None or isinstance(priors, Priors):
        return priors
    if isinstance(priors, Mapping):
        return Priors(**priors)
    raise SpecificationError("priors cannot be read", f"priors: {type(priors).__name__}", "pass Priors(...)")


def _contrasts(contrasts: Mapping[str, Any] | None, formula: Formula) -> tuple[tuple[str, ContrastSpec], ...]:
    codings, known = require_mapping(contrasts, "contrasts", '{"ARMCD": "sum"}'), columns_of(formula)
    for factor in codings:
        if factor not in known:
            raise SpecificationError(
                f"contrasts for {factor!r}, which the formula does not have", "contrasts", "use one of " + ", ".join(known)
            )
    return tuple((factor, _contrast(factor, coding)) for factor, coding in codings.items())


def _contrast(factor: str, contrast: Any) -> ContrastSpec:
    where = f"contrasts[{factor!r}]"
    if isinstance(contrast, str):
        word = _one_of(contrast.lower().rpartition("::")[2].removeprefix("contr."), CONTRASTS, where)
        return "diff" if word == "sdif" else word
    if isinstance(contrast, ContrastMatrix | Mapping):
        return _labelled_contrasts(factor, contrast if isinstance(contrast, Mapping) else plain_coding(contrast), where)
    if isinstance(contrast, tuple | list) and len(contrast) == 2 and isinstance(contrast[0], str):
        if contrast[0].lower() != "treatment" or not isinstance(contrast[1], str | int | float):
            raise SpecificationError(f"{tuple(contrast)!r} is no coding", where, 'name a coding, or ("treatment", the reference level)')
        return "treatment", contrast[1]
    if isinstance(contrast, pd.DataFrame) and not (_is_counted(contrast.index) and _is_counted(contrast.columns)):
        levels = [] if _is_counted(contrast.index) else contrast.index.tolist()
        names = [i + 1 for i in range(contrast.shape[1])] if _is_counted(contrast.columns) else contrast.columns.tolist()
        return _labelled_contrasts(factor, {"levels": levels, "names": names, "rows": contrast.to_numpy().tolist()}, where)
    rows = (
        contrast.tolist() if hasattr(contrast, "tolist") else np.asarray(contrast).tolist() if hasattr(contrast, "__array__") else contrast
    )
    return _matrix(factor, rows, where)


def _is_counted(labels: pd.Index[Any]) -> bool:
    """Whether the labels are the positions."""
    return labels.tolist() == list(range(len(labels)))


def _labelled_contrasts(factor: str, weights: Mapping[str, Any], where: str) -> ContrastMatrix:
    absent = sorted({"levels", "names", "rows"} - set(weights))
    if absent:
        raise SpecificationError(f"the contrasts of {factor!r} lack {', '.join(absent)}", where, "give a labelled frame")
    rows = _matrix(factor, weights["rows"], where)
    levels, names = tuple(map(label_text, weights["levels"])), tuple(map(label_text, weights["names"]))
    for labels, count, what in ((levels, len(rows), "row"), (names, len(rows[0]), "column")):
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise SpecificationError(f"the contrasts of {factor!r} have two {what}s called {twice!r}", where, f"label each {what} once")
        if labels and len(labels) != count:
            what_is_wrong = f"the contrasts of {factor!r} have {len(labels)} labels for {count} {what}s"
            raise SpecificationError(what_is_wrong, where, f"label each {what} once")
    return ContrastMatrix(levels, names, rows)


def _matrix(factor: str, rows: Any, where: str) -> tuple[tuple[float, ...], ...]:
    try:
        values = numbers_of(rows, where)
    except SpecificationError:
        values = np.zeros(0)
    if values.ndim != 2 or not values.size:
        raise SpecificationError(
            f"the contrasts of {factor!r} are no matrix", where, "give a row of numbers per level, or a name: " + ", ".join(CONTRASTS)
        )
    if not np.isfinite(values).all():
        raise SpecificationError(f"the contrasts of {factor!r} are not finite", where, "give finite numbers")
    return tuple(map(tuple, values.tolist()))


def _relationship(names: Iterable[str], formula: Formula) -> tuple[str, ...]:
    groups = tuple(dict.fromkeys(term.name for term in formula.random))
    names = tuple(names)
    for name in names:
        if name not in groups:
            remedy = "use one of " + ", ".join(groups) if groups else "add a random term, such as (1 | animal)"
            raise SpecificationError(
                f"a relationship matrix for {name!r}, which is no grouping factor of the formula", "relationship", remedy
            )
    return names


@dataclass(frozen=True, slots=True, eq=False)
class ModelArguments:
    """The arguments of `LMM` but for the data."""

    formula: str
    residual: str | None = None
    variance: str | None = None
    weights: Any = None
    offset: Any = None
    contrasts: Mapping[str, Any] | None = None
    relationship: Mapping[str, Any] | None = None
    priors: Priors | None = None
    missing: str = "drop"
    check: str = "error"
    functions: Mapping[str, Any] | None = None
    sigma: float | None = None

    @classmethod
    def of_spec(cls, spec: ModelSpec, **arrays: Any) -> ModelArguments:
        """The arguments that lead to a spec; `arrays` are the arrays, matrices and functions that a spec only names."""
        arguments = cls(
            spec.formula.text,
            None if spec.residual is None else spec.residual.text,
            variance_text(spec.variance) if spec.variance else None,
            spec.weights,
            spec.offset,
            dict(spec.contrasts),
            None,
            spec.priors,
            spec.missing,
            spec.check,
            sigma=spec.sigma,
        )
        return replace(arguments, **{name: value for name, value in arrays.items() if value is not None})

    def spec(self) -> ModelSpec:
        """The arguments, read and checked against each other."""
        return make_spec(
            self.formula,
            residual=self.residual,
            variance=self.variance,
            weights=self.weights if isinstance(self.weights, str) else None,
            offset=self.offset if isinstance(self.offset, str) else None,
            contrasts=self.contrasts,
            relationship=tuple(require_mapping(self.relationship, "relationship", "{group: frame}")),
            priors=self.priors,
            missing=self.missing,
            check=self.check,
            functions=tuple(require_mapping(self.functions, "functions", "{name: function}")),
            sigma=self.sigma,
        )

    def arrays(self) -> dict[str, Any]:
        """What stands beside the spec, as keywords of `build_design`."""
        functions = require_mapping(self.functions, "functions", "{name: function}")
        return self.by_row() | {
            "relationship": require_mapping(self.relationship, "relationship", "{group: frame}") or None,
            "functions": {name: require_function(function, f"functions[{name!r:.40}]") for name, function in functions.items()} or None,
        }

    def _plain_arguments(self) -> dict[str, Any]:
        """The arguments by name, without arrays over the rows."""
        arguments = {field.name: getattr(self, field.name) for field in fields(self)}
        return arguments | {name: None for name, value in self.by_row().items() if value is not None}

    def by_row(self) -> dict[str, Any]:
        """What may be an array over the rows in place of the name of a column, where it is one."""
        values = {"weights": self.weights, "offset": self.offset}
        return {name: None if isinstance(value, str) else value for name, value in values.items()}

    def change(self, formula: str, changes: dict[str, Any]) -> ModelArguments:
        """With another formula and other arguments. Errors: SpecificationError for an argument that `LMM` does not have."""
        known = sorted({field.name for field in fields(self)} - {"formula"})
        for name in changes:
            if name not in known:
                raise SpecificationError(f"LMM has no argument {name!r}", "update", "use one of " + ", ".join(known))
        return replace(self, formula=formula, **changes)

    def stored(self) -> dict[str, Any]:
        """Plain values for a file; what is no plain value stands beside them."""
        priors = None if self.priors is None else self.priors.as_dict()
        plain = self._plain_arguments() | {"priors": priors, "functions": sorted(self.functions or ())}
        del plain["relationship"]
        return plain
