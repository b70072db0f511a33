"""The PROC MIXED program of a model specification, where SAS can say it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from bayeslmm.errors import SpecificationError
from bayeslmm.formula.cursor import Cursor
from bayeslmm.formula.expression import read_expression
from bayeslmm.formula.grammar import read_sum
from bayeslmm.formula.model import BarTerm
from bayeslmm.formula.terms import expand, flat_items, has_intercept
from bayeslmm.formula.text import expression_text
from bayeslmm.formula.tree import Call, Chain, Name, Node, Power, Value
from bayeslmm.spec.model import ModelSpec
from bayeslmm.spec.sas.effects import INTERCEPT, Effect
from bayeslmm.spec.sas.program import DDFM, ClassVariable, MixedProgram, Model, Proc, Random, Repeated
from bayeslmm.spec.sas.structures import VC, CovType, sas_type
from bayeslmm.spec.sas.terms import WHOLE
from bayeslmm.spec.sas.text import program_text

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


def to_sas(
    spec: ModelSpec,
    factors: Iterable[str] = (),
    *,
    data: str = "",
    method: Literal["REML", "ML"] = "REML",
    df: str | None = None,
) -> str:
    """The PROC MIXED program of a model.

    factors : the columns that are factors, in the order of the CLASS statement (grouping columns and visits are known to be)
    data : name of the data set; df : method of the degrees of freedom, as `Fit` names it; None leaves SAS's default
    Raises SpecificationError for what SAS cannot say, or not of a model alone: expressions of columns, offsets, known matrices, priors,
    variance functions other than `ident`, products of several structures.

    >>> from bayeslmm.formula import parse_formula
    >>> print(to_sas(ModelSpec(parse_formula("y ~ x + (1 + x | id)")), data="a"), end="")
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
    method: Literal["REML", "ML"] = "REML",
    df: str | None = None,
) -> MixedProgram:
    """The same as values: what `to_sas` writes."""
    _check(spec, df)
    classes = _Classes(tuple(factors))
    intercept, effects = _effects(spec.formula.fixed, classes, "the fixed effects")
    random = tuple(_random(term, classes) for term in spec.formula.random)
    repeated = _repeated(spec, classes)
    classes.check()
    proc = Proc(data=data, method="ml" if method == "ML" else "reml")
    model = Model(
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


def _effects(text: str, classes: _Classes, where: str) -> tuple[bool, tuple[Effect, ...]]:
    """Whether there is an intercept, and the effects, of a right-hand side."""
    cursor = Cursor(text, None)
    items = flat_items(cursor, read_sum(cursor))
    found = [Effect(tuple(v for atom in term for v in _variables(atom, classes, where))) for term in expand(items).values()]
    return has_intercept(items), tuple(found)


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


def _random(term: BarTerm, classes: _Classes) -> Random:
    where = f"the random term ({term.text})"
    intercept, effects = _effects(term.left, classes, where)
    group = () if term.group == (WHOLE,) else term.group
    classes.add(group)
    subject = Effect(group) if group else None
    effects = _indicator_effects(intercept, effects, term, classes)
    single = len(effects) == 1 and not any(v in classes.names for v in effects[0].crossed)
    if single and term.structure in {"us", "diag", "id"} and subject is not None:
        return Random(effects, VC, subject)
    cov = sas_type(term.structure, term.order)
    if cov is None or cov.spatial or cov.kronecker:
        _cannot(f"the structure {term.structure} of a random term", where, "us, diag, cs, csh, ar1, ar1h, toep, toeph, adh, hf, fa, ...")
    return Random(effects, cov, subject)


def _indicator_effects(intercept: bool, effects: tuple[Effect, ...], term: BarTerm, classes: _Classes) -> tuple[Effect, ...]:
    """The effects with SAS's indicator columns: an unstructured (1 + f | g) of a factor f is that of (0 + f | g)."""
    plain = [e for e in effects if e.crossed and all(v in classes.names for v in e.crossed)]
    if len(plain) > 1:
        _cannot(f"the factors {plain[0].text} and {plain[1].text} in one random term", f"({term.text})", "give each a term of its own")
    if not intercept:
        return effects
    if not plain:
        return (INTERCEPT, *effects)
    if term.structure != "us":
        _cannot(f"{term.structure} over an intercept and the factor {plain[0].text}", f"({term.text})", f"write 0 + {plain[0].text}")
    return effects


def _repeated(spec: ModelSpec, classes: _Classes) -> Repeated | None:
    residual = spec.residual
    if spec.variance:
        factor = spec.variance[0]
        if residual is not None or len(spec.variance) > 1 or factor.kind != "ident" or factor.group:
            _cannot("this variance function", "variance", "ident(f) alone is REPEATED / GROUP=f")
        classes.add([factor.covariate])
        return Repeated(group=Effect((factor.covariate,)))
    if residual is None:
        return None
    spatial = residual.structure.startswith("sp_") or residual.structure == "matern"
    cov: CovType | None = sas_type(residual.structure, residual.order, residual.visit if spatial else ())
    if cov is None:
        _cannot(f"the residual structure {residual.structure}", residual.text, "adh is SAS's ANTE(1)")
    subject = () if residual.subject == (WHOLE,) else residual.subject
    visits = () if spatial else residual.visit
    classes.add((*visits, *subject, *residual.group))
    return Repeated(
        tuple(Effect((v,)) for v in visits),
        cov,
        Effect(subject) if subject else None,
        Effect(residual.group) if residual.group else None,
        residual.nugget,
    )
