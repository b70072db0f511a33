"""`to_sas`: the PROC MIXED program of a model specification, as values; `statement_text` writes them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from bayeslmm._arrays import Codes
from bayeslmm._types import LikelihoodKind
from bayeslmm.covariance.registry import needs_order
from bayeslmm.data.columns import FACTOR_KINDS, kind_of
from bayeslmm.data.design import Design, ResidualDesign
from bayeslmm.data.frame import read_table, values_text
from bayeslmm.data.variables import FactorVariable
from bayeslmm.errors import SpecificationError
from bayeslmm.formula.expression import read_expression
from bayeslmm.formula.parse import columns_of
from bayeslmm.formula.syntax import BarTerm, Call, Chain, Name, Node, Power, Terms, Value, expression_text
from bayeslmm.formula.tokens import Cursor
from bayeslmm.sas.glm_coding import class_levels, format_level
from bayeslmm.sas.language.covariance_types import POWERS, VC, CovType, sas_type
from bayeslmm.sas.language.effects import INTERCEPT_EFFECT, SASEffect
from bayeslmm.sas.language.program import (
    DDFM,
    ClassVariable,
    MixedProgram,
    ModelStatement,
    Order,
    ProcStatement,
    RandomStatement,
    RepeatedStatement,
)
from bayeslmm.sas.statement_text import program_text
from bayeslmm.sas.translation import WHOLE_DATA
from bayeslmm.specification.model_spec import ModelSpec

_DDFM: dict[str, DDFM] = {
    "satterthwaite": "satterthwaite",
    "kenward-roger": "kenwardroger",
    "kenward-roger-linear": "kenwardroger",
    "between-within": "betwithin",
    "containment": "contain",
    "residual": "residual",
}
_CODES = ("C", "factor")


@dataclass(slots=True)
class _Classes:
    """The class variables as they are found: factors used, grouping columns, visits; and the columns used as covariates."""

    factors: tuple[str, ...]
    names: dict[str, None] = field(default_factory=dict)
    covariates: dict[str, None] = field(default_factory=dict)

    def add(self, names: Iterable[str]) -> None:
        self.names.update(dict.fromkeys(names))

    def use(self, name: str) -> None:
        """A column stands in an effect: as a class if it is a factor, as a covariate otherwise."""
        (self.names if name in self.factors else self.covariates).setdefault(name)

    def statement(self) -> tuple[ClassVariable, ...]:
        """The CLASS statement: the factors in the order given, then what else is needed."""
        first = [name for name in dict.fromkeys(self.factors) if name in self.names]
        return tuple(ClassVariable(name) for name in dict.fromkeys([*first, *self.names]))

    def check(self) -> None:
        """SAS has a variable as a class or as a covariate, throughout the program."""
        if both := next((name for name in self.covariates if name in self.names), None):
            _cannot(f"{both} as a class and as a covariate at once", both, f"make a copy of the column: {both}c")


def program_of_spec(
    spec: ModelSpec,
    factors: Iterable[str] = (),
    *,
    data: str = "",
    method: LikelihoodKind = "REML",
    df: str | None = None,
) -> str:
    """The PROC MIXED program of a model.

    factors : the columns that are factors, in the order of the CLASS statement (grouping columns and visits are known to be)
    data : name of the data set; df : method of the degrees of freedom, as `Fit` names it; None leaves SAS's default
    Raises SpecificationError for what SAS cannot say, or not of a model alone: expressions of columns, offsets, known matrices, priors,
    variance functions other than `ident` and `exp`, products of several structures.

    >>> from bayeslmm.formula import parse_formula
    >>> print(program_of_spec(ModelSpec(parse_formula("y ~ x + (1 + x | id)")), data="a"), end="")
    proc mixed data=a method=reml;
      class id;
      model y = x / solution;
      random intercept x / type=un subject=id;
    run;
    """
    return program_text(mixed_program(spec, factors, data=data, method=method, df=df))


def mixed_program(
    spec: ModelSpec,
    factors: Iterable[str] = (),
    *,
    data: str = "",
    method: LikelihoodKind = "REML",
    df: str | None = None,
) -> MixedProgram:
    """The same as values: what `to_sas` writes."""
    _check(spec, df)
    classes = _Classes(tuple(factors))
    intercept, effects = _effects(spec.formula.terms, classes, "the fixed effects")
    random = tuple(_random(term, classes) for term in spec.formula.random)
    repeated = _repeated_statement(spec, classes)
    classes.check()
    proc = ProcStatement(data=data, method="ml" if method == "ML" else "reml")
    model = ModelStatement(
        response=_response(spec),
        effects=effects,
        noint=not intercept,
        solution=True,
        ddfm=_DDFM[df] if df else "",
        firstorder=df == "kenward-roger-linear",
    )
    return MixedProgram(proc, model, classes.statement(), random, repeated, weight=spec.weights or "")


def _cannot(what: str, where: str = "", remedy: str = "") -> NoReturn:
    raise SpecificationError(f"PROC MIXED cannot say {what}", where, remedy)


def _check(spec: ModelSpec, df: str | None) -> None:
    if spec.offset or spec.formula.offsets:
        _cannot("an offset", ", ".join(filter(None, [spec.offset, *spec.formula.offsets])), "subtract it from the response")
    if spec.relationship:
        _cannot("a known matrix within the program alone", ", ".join(spec.relationship), "SAS reads it from a data set: type=lin(1) ldata=")
    if spec.priors is not None:
        _cannot("these priors", "priors", "leave them out: REML does not use them")
    if df is not None and df not in _DDFM:
        _cannot(f"df={df!r}", "df", f"one of {', '.join(_DDFM)}")


def _response(spec: ModelSpec) -> str:
    response = read_expression(Cursor(spec.formula.response, None))
    if not isinstance(response, Name):
        _cannot(f"the response {spec.formula.response}", spec.formula.text, "make a column of it")
    return response.name


def _effects(terms: Terms, classes: _Classes, where: str) -> tuple[bool, tuple[SASEffect, ...]]:
    """Whether there is an intercept, and the effects, of a right-hand side."""
    found = [SASEffect(tuple(v for atom in term for v in _variables(atom, classes, where))) for term in terms if term]
    return () in terms, tuple(found)


def _variables(atom: str, classes: _Classes, where: str) -> Iterator[str]:
    """The columns of one factor of a term: itself; a power or product of columns within I(); a coded factor."""
    factor = read_expression(Cursor(atom, None))
    if isinstance(factor, Name):
        classes.use(factor.name)
        yield factor.name
    elif isinstance(factor, Call) and factor.function in _CODES and isinstance(factor.arguments[0], Name):
        classes.add([factor.arguments[0].name])
        yield factor.arguments[0].name
    elif isinstance(factor, Call) and factor.function == "I" and len(factor.arguments) == 1:
        yield from _arithmetic(factor.arguments[0], classes, where)
    else:
        _cannot(expression_text(factor), where, "make a column of it")


def _arithmetic(node: Node, classes: _Classes, where: str) -> Iterator[str]:
    if isinstance(node, Name):
        if node.name in classes.factors:
            _cannot(f"arithmetic with the factor {node.name}", where, "make a column of it")
        classes.use(node.name)
        yield node.name
    elif isinstance(node, Power) and isinstance(node.exponent, Value) and node.exponent.text.isdecimal() and node.exponent.text != "0":
        for _ in range(int(node.exponent.text)):
            yield from _arithmetic(node.base, classes, where)
    elif isinstance(node, Chain) and all(operator == "*" for operator, _ in node.rest):
        for operand in (node.first, *(operand for _, operand in node.rest)):
            yield from _arithmetic(operand, classes, where)
    else:
        _cannot(f"I({expression_text(node)})", where, "make a column of it")


def _random(term: BarTerm, classes: _Classes) -> RandomStatement:
    where = f"the random term ({term.text})"
    intercept, effects = _effects(term.terms, classes, where)
    group = () if term.group == (WHOLE_DATA,) else term.group
    classes.add(group)
    subject = SASEffect(group) if group else None
    effects = _indicator_effects(intercept, effects, term, classes)
    single = len(effects) == 1 and not any(v in classes.names for v in effects[0].crossed)
    if single and term.structure in {"us", "diag", "id"} and subject is not None:
        return RandomStatement(effects, VC, subject)
    cov = sas_type(term.structure, term.order)
    if cov is None or cov.spatial or cov.kronecker:
        _cannot(f"the structure {term.structure} of a random term", where, "us, diag, cs, csh, ar1, ar1h, toep, toeph, adh, hf, fa, ...")
    return RandomStatement(effects, cov, subject)


def _indicator_effects(intercept: bool, effects: tuple[SASEffect, ...], term: BarTerm, classes: _Classes) -> tuple[SASEffect, ...]:
    """The effects with SAS's indicator columns: an unstructured (1 + f | g) of a factor f is that of (0 + f | g)."""
    plain = [e for e in effects if e.crossed and all(v in classes.names for v in e.crossed)]
    if len(plain) > 1:
        _cannot(f"the factors {plain[0].text} and {plain[1].text} in one random term", f"({term.text})", "give each a term of its own")
    if not intercept:
        return effects
    if not plain:
        return (INTERCEPT_EFFECT, *effects)
    if term.structure != "us":
        _cannot(f"{term.structure} over an intercept and the factor {plain[0].text}", f"({term.text})", f"write 0 + {plain[0].text}")
    return effects


def _repeated_statement(spec: ModelSpec, classes: _Classes) -> RepeatedStatement | None:
    residual = spec.residual
    if spec.variance:
        plain = all(f.kind in {"ident", "exp"} and not f.group and f.covariate != "fitted" for f in spec.variance)
        if residual is not None or not plain:
            _cannot("this variance function", "variance", "ident(f), exp(x) and products of them without `residual=` are")
        classes.add([f.covariate for f in spec.variance if f.kind == "ident"])
        for factor in spec.variance:
            if factor.kind == "exp":
                classes.use(factor.covariate)
        effects = tuple(SASEffect((f.covariate,)) for f in spec.variance)
        if [f.kind for f in spec.variance] == ["ident"]:
            return RepeatedStatement(group=effects[0])
        return RepeatedStatement(dispersion=effects)
    if residual is None:
        return None
    cov: CovType | None = sas_type(residual.structure, residual.order, residual.visit)
    if cov is None:
        orders = "SAS has ARMA(1,1) and, as AR(1), ar1" if isinstance(residual.order, tuple) else "adh is SAS's ANTE(1)"
        if "@" in residual.structure:
            orders = "SAS has UN@AR(1), UN@CS, UN@UN and, for products of ar1, car1 or sp_pow, SP(POWA)"
        _cannot(f"the residual structure {residual.structure}", residual.text, orders)
    if cov.name == POWERS and (labels := [column for column in residual.visit if column in classes.factors]):
        _cannot(f"steps between the levels of the factor {labels[0]}", residual.text, "make a column of their numbers")
    subject = () if residual.subject == (WHOLE_DATA,) else residual.subject
    visits = () if cov.spatial else residual.visit
    classes.add((*visits, *subject, *residual.group))
    return RepeatedStatement(
        tuple(SASEffect((v,)) for v in visits),
        cov,
        SASEffect(subject) if subject else None,
        SASEffect(residual.group) if residual.group else None,
        residual.nugget,
    )


SAS_REMEDY = "SAS reads columns of its data set: make a column, and name it"


def to_sas(
    design: Design,
    read: Any,
    arrays: Collection[str] = (),
    *,
    data: str = "",
    method: LikelihoodKind = "REML",
    df: str | None = None,
) -> str:
    """The PROC MIXED program that fits the same model.

    read : the data with the rows that the model leaves out, whose levels SAS knows; arrays : which of weights and offset are arrays
    data : name of the data set; df : method of the degrees of freedom, as `Fit` names it; None leaves SAS's default
    Raises SpecificationError for what SAS cannot say.

    >>> print(model.to_sas(data="sleepstudy"), end="")
    proc mixed data=sleepstudy method=reml;
      class Subject;
      model Reaction = Days / solution;
      random intercept Days / type=un subject=Subject;
    run;
    """
    if "weights" in arrays:
        raise SpecificationError("weights given as an array are not in the data", "weights", SAS_REMEDY)
    if "offset" in arrays:
        raise SpecificationError("PROC MIXED cannot say an offset", "offset", "subtract it from the response")
    program = mixed_program(design.spec, _factors(design), data=data, method=method, df=df)
    return program_text(replace(program, proc=replace(program.proc, order=_order(design, read))))


@dataclass(frozen=True, slots=True)
class _Ordered:
    """A class whose order is part of the model.

    levels : those that rows have, as they are ordered here; places : where they stand, with a place for what no row has
    steps : whether the covariance counts the places between two levels, or only which comes after which
    """

    column: str
    structure: str
    levels: tuple[Any, ...]
    places: Codes
    steps: bool


def _order(design: Design, read: Any) -> Order:
    """The ORDER= under which SAS sorts the levels as the model does.

    Raises SpecificationError where there is none: SAS sorts numbers by value and texts by their letters, or takes the order of the rows,
    and knows no level that does not occur.
    """
    names = tuple(name for name in design.frame.columns if isinstance(name, str))
    frame = read_table(read, names).frame
    ordered = [*_ordered_visits(design), *_ordered_effects(design, frame)]
    if not ordered:
        return "formatted"
    orders: tuple[Order, ...] = ("formatted", "data")
    for order in orders:
        if all(_as_in_sas(found, frame, order) for found in ordered):
            return order
    failed = next(found for found in ordered if not _as_in_sas(found, frame, "formatted"))
    sas = _sas_levels(frame, failed.column, "formatted")
    if kind_of(frame[failed.column]) == "number":
        remedy = f"SAS counts levels: car1({failed.column} | ...) counts the distance, here and there"
    else:
        codes = f"data[{failed.column!r}].cat.remove_unused_categories().cat.codes"
        remedy = f"let a numeric column be the visit, such as {codes}, or sort the rows; drop categories that no row has"
    _cannot(
        f"the order of the levels of {failed.column}, which matters to {failed.structure}",
        f"here {values_text([format_level(v) for v in failed.levels])}; SAS would sort the levels that occur as {values_text(sas)}",
        remedy,
    )


def _sas_levels(frame: pd.DataFrame, column: str, order: Order) -> tuple[str, ...]:
    return class_levels(ClassVariable(column), frame[column].astype(object).tolist(), order).levels


def _as_in_sas(found: _Ordered, frame: pd.DataFrame, order: Order) -> bool:
    sas = _sas_levels(frame, found.column, order)
    ranks = np.array([sas.index(format_level(level)) for level in found.levels])
    steps, theirs = np.diff(found.places), np.diff(ranks)
    return bool((theirs == steps).all() if found.steps else (theirs > 0).all())


def _ordered_visits(design: Design) -> Iterator[_Ordered]:
    residual = design.residual
    if residual is None or residual.visit is None or not residual.spec.visit:
        return
    for k, (column, structure) in enumerate(zip(residual.spec.visit, _structures(residual), strict=True)):
        if needs_order(structure):
            levels = _levels_of(residual, k)
            # of a product of structures every visit has its place
            absent = residual.missing_visits if len(residual.spec.visit) == 1 else ()
            used = [i for i in range(len(levels)) if i not in absent]
            own = residual.places[k] if residual.places else residual.positions
            places = np.asarray(own or range(len(levels)), dtype=np.int64)
            yield _Ordered(column, structure, tuple(levels[i] for i in used), places[used], structure not in ("ad", "adh"))


def _structures(residual: ResidualDesign) -> list[str]:
    """The structure over each visit column."""
    parts = residual.name.split("@")
    return parts if len(parts) == len(residual.spec.visit) else [residual.name] * len(residual.spec.visit)


def _levels_of(residual: ResidualDesign, k: int) -> list[Any]:
    """The levels of one of the visit columns, in order."""
    if len(residual.spec.visit) == 1:
        return list(residual.visit_levels)
    return list(dict.fromkeys(str(level).split(":")[k] for level in residual.visit_levels))


def _ordered_effects(design: Design, frame: pd.DataFrame) -> Iterator[_Ordered]:
    for term, coder in zip(design.terms, design.encoding.random_coders, strict=True):
        structure = term.spec.structure
        factors = [atom for atom in coder.block.atoms.values() if isinstance(atom, FactorVariable)]
        if needs_order(structure) and factors:
            (atom,) = factors
            there = {format_level(value) for value in frame[atom.column].dropna().astype(object)}
            used = [i for i, level in enumerate(atom.levels) if format_level(level) in there]
            yield _Ordered(atom.column, structure, tuple(atom.levels[i] for i in used), np.array(used), structure not in ("ad", "adh"))


def _factors(design: Design) -> tuple[str, ...]:
    """The columns that are factors, in the order of the formula."""
    levels = design.encoding.levels
    named = [name for name in columns_of(design.spec.formula) if name in levels]
    frame = design.frame
    texts = [str(name) for name in frame.columns if name not in named and name != WHOLE_DATA and kind_of(frame[name]) in FACTOR_KINDS]
    return (*named, *texts)
