"""RANDOM and REPEATED in our formula language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bayeslmm.errors import SpecificationError
from bayeslmm.formula.syntax import quote_name
from bayeslmm.sas.language.covariance_types import VC, our_name
from bayeslmm.sas.language.effects import GLMEffect, SASEffect, glm_effect
from bayeslmm.sas.language.options import is_whole_data
from bayeslmm.sas.language.program import RandomStatement, RepeatedStatement
from bayeslmm.sas.translation import CovBlock, Derived, RandomEffect

WHOLE_DATA = "all rows"


def product_text(variables: Sequence[str]) -> str:
    """Continuous variables multiplied: a power stands in I()."""
    powers = [(v, variables.count(v)) for v in dict.fromkeys(variables)]
    return ":".join(quote_name(v) if k == 1 else f"I({quote_name(v)}**{k})" for v, k in powers)


def effect_formula(effect: GLMEffect) -> str:
    """An effect in our formula language: `x:a:b`; "1" is the intercept.

    >>> effect_formula(GLMEffect(("x", "x"), ("a",)))
    'I(x**2):a'
    """
    parts = [product_text(effect.continuous)] * bool(effect.continuous) + [quote_name(c) for c in effect.classes]
    return ":".join(parts) or "1"


def effect_columns(effect: SASEffect | None, classes: Sequence[str]) -> tuple[str, ...]:
    """The columns whose combinations are the levels of a SUBJECT= or GROUP= effect, the nesting ones first."""
    if effect is None:
        return ()
    ordered = glm_effect(effect, tuple(classes) + tuple(v for v in effect.variables if v not in classes))
    return ordered.classes


@dataclass(slots=True)
class RandomPart:
    """What the RANDOM statements come to, as it is put together."""

    classes: tuple[str, ...]
    levels: Mapping[str, Sequence[str]]
    texts: list[str] = field(default_factory=list)
    blocks: list[CovBlock] = field(default_factory=list)
    effects: list[RandomEffect] = field(default_factory=list)
    derived: dict[Derived, None] = field(default_factory=dict)

    def add(self, statement: RandomStatement) -> None:
        """Add the terms of one statement."""
        if statement.type.spatial or statement.type.kronecker:
            raise SpecificationError(
                f"TYPE={statement.type.text} is not supported in RANDOM", statement.spot, "it is in REPEATED / type= subject="
            )
        effects = [glm_effect(e, self.classes) for e in statement.effects]
        for indicator in self._indicators(statement):
            if statement.type == VC:
                for effect in effects:
                    self._add_component(statement, effect, indicator)
            else:
                self._add_joint(statement, effects, indicator)

    def _indicators(self, statement: RandomStatement) -> list[Derived | None]:
        """The indicators of the levels of GROUP=, which the columns are multiplied by; [None] without it."""
        if statement.group is None:
            return [None]
        columns = effect_columns(statement.group, self.classes)
        if len(columns) != 1:
            what = f"GROUP={statement.group.text} in RANDOM has several variables"
            raise SpecificationError(what, statement.spot, "make one column of them")
        if columns[0] not in self.levels:
            what = f"GROUP={columns[0]} in RANDOM needs the levels of {columns[0]}"
            raise SpecificationError(what, statement.spot, f"translate(program, levels={{{columns[0]!r}: [...]}})")
        found = [Derived(f"{columns[0]}={level}", columns, level) for level in self.levels[columns[0]]]
        self.derived.update(dict.fromkeys(found))
        return list(found)

    def _add_component(self, statement: RandomStatement, effect: GLMEffect, indicator: Derived | None) -> None:
        """TYPE=VC: one variance for all levels of the effect within all subjects."""
        subject = effect_columns(statement.subject, self.classes)
        group = tuple(dict.fromkeys(subject + effect.classes))
        if not group:
            raise SpecificationError(
                f"the random effect {effect.name} has a single realisation: its variance is not estimable",
                statement.spot,
                f"random {effect.name.lower()} / subject=id;",
            )
        left = _left([GLMEffect(effect.continuous)], indicator)
        self._append(statement, [effect], f"({left} | {_joined(group)})", indicator)

    def _add_joint(self, statement: RandomStatement, effects: Sequence[GLMEffect], indicator: Derived | None) -> None:
        """A structure over all columns of the statement, within each subject."""
        _check_joint(statement, effects)
        group = effect_columns(statement.subject, self.classes)
        if not group:
            self.derived[Derived(WHOLE_DATA)] = None
        structure, order = our_name(statement.type)
        inside = f"{_left(effects, indicator)} | {_joined(group or (WHOLE_DATA,))}"
        tail = f", {order}" if order is not None else ""
        self._append(statement, effects, f"({inside})" if structure == "us" else f"{structure}({inside}{tail})", indicator)

    def _append(self, statement: RandomStatement, effects: Sequence[GLMEffect], text: str, indicator: Derived | None) -> None:
        term = len(self.texts)
        self.texts.append(text)
        subject = "" if is_whole_data(statement.subject) or statement.subject is None else statement.subject.text
        self.blocks.append(
            CovBlock(
                "random",
                statement.type,
                tuple(e.name for e in effects),
                subject,
                statement.group.text if statement.group else "",
                (indicator.level or "") if indicator else "",
                (term,),
            )
        )
        columns = effect_columns(statement.subject, self.classes)
        group = effect_columns(statement.group, self.classes)
        self.effects += [RandomEffect(e, columns, group, term) for e in effects]


def _left(effects: Sequence[GLMEffect], indicator: Derived | None) -> str:
    """The columns before the bar; with an indicator every column is multiplied by it."""
    if indicator is None:
        terms = [effect_formula(e) for e in effects if e != GLMEffect()]
        return " + ".join(["1" if GLMEffect() in effects else "0", *terms])
    name = quote_name(indicator.name)
    return " + ".join(["0", *(name if e == GLMEffect() else f"{name}:{effect_formula(e)}" for e in effects)])


def _check_joint(statement: RandomStatement, effects: Sequence[GLMEffect]) -> None:
    """Two class effects over the same covariate (the intercept among them) have linearly dependent columns: no joint structure of ours."""
    for i, one in enumerate(effects):
        for other in effects[i + 1 :]:
            if sorted(one.continuous) == sorted(other.continuous):
                raise SpecificationError(
                    f"TYPE={statement.type.text} over {one.name} and {other.name} together: their columns are linearly dependent",
                    statement.spot,
                    "leave one out, or give them RANDOM statements of their own",
                )


def repeated_formula(statement: RepeatedStatement, classes: Sequence[str]) -> tuple[str, tuple[Derived, ...]]:
    """REPEATED as our `residual=`, `ar1(visit | arm / id)`, and the columns it needs; "" for independent errors (TYPE=VC).

    Several columns become one where our syntax has room for one: a visit of two classes; a subject that has the group among its columns.
    """
    if statement.type == VC:
        return "", ()
    structure, order = our_name(statement.type)
    group = effect_columns(statement.group, classes)
    subject = effect_columns(statement.subject, classes)
    derived: list[Derived] = []
    if not subject:
        derived.append(Derived(WHOLE_DATA))
        subject = (WHOLE_DATA,)
    elif statement.subject is not None and set(group) & set(subject):
        derived.append(Derived(statement.subject.text, subject))
        subject = (statement.subject.text,)
    visits = []
    for effect in statement.effects if not statement.type.spatial else ():
        columns = effect_columns(effect, classes)
        if len(columns) > 1:
            derived.append(Derived(effect.text, columns))
        visits.append(quote_name(columns[0] if len(columns) == 1 else effect.text))
    before = ", ".join([*visits, *map(quote_name, statement.type.coordinates)]) or "1"
    behind = f"{_joined(group)} / {_joined(subject)}" if group else _joined(subject)
    tail = f", {order}" if order is not None else ""
    return f"{structure}({before} | {behind}{tail}){' + local' if statement.local else ''}", tuple(derived)


def _joined(columns: Sequence[str]) -> str:
    return ":".join(map(quote_name, columns))


def check_repeated(statement: RepeatedStatement, classes: Sequence[str]) -> None:
    """What SAS or we cannot do with a REPEATED statement."""
    wanted = (0, 1) if statement.type.spatial else (2,) if statement.type.kronecker else (0, 1)
    if len(statement.effects) not in wanted:
        what = "two effects, the outcome and the visit" if statement.type.kronecker else "at most one effect"
        raise SpecificationError(f"REPEATED with TYPE={statement.type.text} takes {what}", statement.spot, "repeated visit / subject=id;")
    for effect in statement.effects:
        if loose := [v for v in effect.variables if v not in classes]:
            raise SpecificationError(
                f"the REPEATED effect {effect.text} has the variable {loose[0]}, which is not a class",
                statement.spot,
                f"add it to CLASS; if it is a covariate of MODEL too, make a copy of the column: {loose[0]}c",
            )
    if statement.local and statement.type == VC:
        raise SpecificationError("LOCAL adds a variance to TYPE=VC, which is one", statement.spot, "leave LOCAL out, or give another TYPE=")
