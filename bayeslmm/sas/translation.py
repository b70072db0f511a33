"""The translation of a PROC MIXED program: a model specification, and what to compute of its fit.

The run takes these steps, each from values that stand here or in the modules beside this one.

1. Rows: `rows_where` of `program.where` and of `program.proc.data_options.where`; one run per group of `program.by`. The columns of
   `derived` are added to the frame: a constant, the indicator of a level (GROUP= of RANDOM), a combination of columns as one.
2. Classes: `class_levels(variable, values, program.proc.order)` for each of `program.classes`, over all rows read; the frame's columns
   become ordered categories in that order, and the coding "sas" makes the last level the reference.
3. Fit: `LMM(spec)`, `fit(translation.method)`, with `translation.parms` as starting or held values.
4. Coding: `layout = glm_columns(translation.effects, ...)`, `space = row_space(layout)`, `T = bridge(layout, space, model.X)`. Every
   row of coefficients L on SAS's columns is tested as `our_rows(space, T, L)` where `estimable(space, L)`, and is Non-est elsewhere.
5. Tables, under their ODS names, for each name in `translation.tables`:

| table | columns | of |
|---|---|---|
| ModelInfo | Descr, Value | the program |
| ClassLevels | Class, Levels, Values | the classes |
| Dimensions | Descr, Value | covariance parameters, columns in X, columns in Z, subjects, longest subject |
| NObs | Label, N | rows read, used, not used |
| IterHistory | Iteration, Evaluations, M2ResLogLike or M2LogLike, Criterion | the trace of the optimiser |
| ConvergenceStatus | Reason, Status, pdG, pdH | the checks |
| CovParms | CovParm, Subject, Group, [Ratio,] Estimate, [StdErr, ZValue, ProbZ,] [Alpha, Lower, Upper] | `blocks`, through `covparms` |
| AsyCov, AsyCorr | Row, CovParm, CovP1, ... | the same, their covariance or correlation |
| FitStatistics | Descr, Value | -2 (res) log likelihood, AIC, AICC, BIC |
| InfoCrit | Neg2LogLike, Parms, AIC, AICC, HQIC, BIC, CAIC | the same, IC option |
| LRT | DF, ChiSq, ProbChiSq | against independent errors with one variance |
| SolutionF | Effect, classes, Estimate, StdErr, DF, tValue, Probt, [Alpha, Lower, Upper] | SAS's coefficients, 0 in dropped columns |
| CovB, CorrB, InvCovB | Row, Effect, classes, Col1, ... | the covariance of SAS's coefficients |
| SolutionR | Effect, classes, Subject, Estimate, StdErrPred, DF, tValue, Probt, [Alpha, Lower, Upper] | the conditional modes |
| Tests1, Tests2, Tests3 | Effect, NumDF, DenDF, FValue, ProbF, [ChiSq, ProbChiSq] | `hypothesis(layout, space, k, type)` |
| Coef | LMatrix, Effect, classes, Row1, ... | the E options: the rows themselves |
| Estimates | Label, Estimate, StdErr, DF, tValue, Probt, [Alpha, Lower, Upper] | `program.estimates`, `coefficient_row` |
| Contrasts | Label, NumDF, DenDF, FValue, ProbF, [ChiSq, ProbChiSq] | `program.contrasts`, `coefficient_row` |
| LSMeans | Effect, classes, [covariates at,] Estimate, StdErr, DF, tValue, Probt, [Alpha, Lower, Upper,] [Cov1, ...] | `lsmeans_rows` |
| Diffs | Effect, classes, _classes, Estimate, StdErr, DF, tValue, Probt, [Adjustment, Adjp,] [Alpha, Lower, Upper] | `differences` |
| Slices | Effect, classes, NumDF, DenDF, FValue, ProbF | `slice_groups` |
| R, RCorr, InvR, CholR, InvCholR | Index, Row, Col1, ... | `program.repeated.blocks` |
| G, GCorr, InvG, CholG, InvCholG | Row, Effect, classes, Subject, Col1, ... | `program.random` |
| V, VCorr, InvV, CholV, InvCholV | Index, Row, Col1, ... | `program.random[i].v_blocks` |
| ParmSearch | CovP1, ..., Variance, ResLogLike, M2ResLogLike | `program.parms` |
| OUTP=, OUTPM= names | the data, Pred, StdErrPred, DF, Alpha, Lower, Upper, Resid | `predict`; RESIDUAL adds StudentResid, PearsonResid |
| the same, VCIRY | and ScaledDep, ScaledResid | by the Cholesky factor of V |

AIC counts the covariance parameters (ML: and the rank of X); BIC takes the logarithm of the number of subjects, which are the levels
of `subject` among all rows read; where all rows are one subject, of the number of levels of the first random effect, and where there is
no random effect, of n - p (ML: n).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bayeslmm._types import Information, LikelihoodKind
from bayeslmm.errors import SpecificationError
from bayeslmm.formula.syntax import quote_name
from bayeslmm.sas.language.covariance_types import VC, CovType, our_name
from bayeslmm.sas.language.effects import GLMEffect, SASEffect, glm_effect
from bayeslmm.sas.language.options import is_whole_data
from bayeslmm.sas.language.program import MixedProgram, RandomStatement, RepeatedStatement
from bayeslmm.specification.model_spec import ModelSpec

ColumnNames = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Derived:
    """A column that the frame needs besides its own.

    of and level : 1 where the one column `of` has the formatted level, else 0
    of alone : the combinations of these columns as a class of its own, its levels sorted by those of the first column, then the second
    neither : 1 everywhere
    """

    name: str
    of: ColumnNames = ()
    level: str | None = None


@dataclass(frozen=True, slots=True)
class CovBlock:
    """Rows of the CovParms table that belong together.

    statement : "random" or "repeated"
    type : the SAS structure, which names the parameters
    effects : names of the effects; TYPE=VC has one block, and one parameter named after it, for each effect
    subject, group : what the table prints there; level : the formatted level of GROUP=
    terms : which of `spec.formula.random` it is; () for REPEATED
    local : REPEATED with LOCAL; dispersion : the effects of LOCAL=EXP()
    data_set : of the known matrix of the levels of the column `levels`
    """

    statement: Literal["random", "repeated"]
    type: CovType
    effects: tuple[str, ...] = ()
    subject: str = ""
    group: str = ""
    level: str = ""
    terms: tuple[int, ...] = ()
    local: bool = False
    data_set: str = ""
    levels: str = ""
    dispersion: ColumnNames = ()


@dataclass(frozen=True, slots=True)
class RandomEffect:
    """One effect of a RANDOM statement: what SolutionR, Columns in Z and containment degrees of freedom are about.

    effect : without the subject; subject : columns of SUBJECT=, () when all rows are one subject; term : which of `spec.formula.random`
    """

    effect: GLMEffect
    subject: ColumnNames
    group: ColumnNames
    term: int


@dataclass(frozen=True, slots=True)
class Translation:
    """A program in our terms.

    program : as parsed, names spelled as the data spell them
    spec : the model; class variables stand in it by name, as factors
    derived : columns to add to the frame
    effects : the fixed effects in GLM order of variables, without the intercept; intercept : whether there is one
    method : "REML" or "ML"
    df, vcov, information : of the tests, as the methods of `Fit` name them; information is the observed one, or with SCORING= the expected
    blocks : the covariance parameters in the order of the CovParms table, a residual variance last where `residual` says so
    random : the random effects in order
    subject : columns of the subjects by which the data fall apart; () when all rows are one subject
    within : columns of the subject of between-within degrees of freedom
    contiguous : columns in SUBJECT= that CLASS does not name: SAS starts a new subject wherever their value changes
    tables : ODS names to print, in order
    notes : what was translated to something slightly else, for the listing
    """

    program: MixedProgram
    spec: ModelSpec
    derived: tuple[Derived, ...]
    effects: tuple[GLMEffect, ...]
    intercept: bool
    method: LikelihoodKind
    df: str
    vcov: str
    information: Information
    blocks: tuple[CovBlock, ...]
    residual: bool
    random: tuple[RandomEffect, ...]
    subject: ColumnNames
    within: ColumnNames
    contiguous: ColumnNames
    tables: tuple[str, ...]
    notes: tuple[str, ...]


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
    gdata: str = ""
    ratios: bool = False

    def add(self, statement: RandomStatement) -> None:
        """Add the terms of one statement."""
        if statement.type.spatial or statement.type.kronecker:
            raise SpecificationError(
                f"TYPE={statement.type.text} is not supported in RANDOM", statement.spot, "it is in REPEATED / type= subject="
            )
        effects = [glm_effect(e, self.classes) for e in statement.effects]
        if self.gdata or statement.type.name == "LIN":
            self._add_known(statement, effects)
            return
        if statement.ldata:
            raise SpecificationError("LDATA= goes with TYPE=LIN(q)", statement.spot, f"type=lin(1) ldata={statement.ldata}")
        for indicator in self._indicators(statement):
            if statement.type == VC:
                for effect in effects:
                    self._add_component(statement, effect, indicator)
            else:
                self._add_joint(statement, effects, indicator)

    def _add_known(self, statement: RandomStatement, effects: Sequence[GLMEffect]) -> None:
        """One variance for each known matrix among the levels of a class effect; G whole has a variance of 1 for each effect."""
        kind = ("GDATA RATIOS" if self.ratios else "GDATA") if self.gdata else "LIN"
        word, source = ("GDATA=", self.gdata) if self.gdata else (f"TYPE={statement.type.text}", statement.ldata)
        subject = effect_columns(statement.subject, self.classes)
        if self.gdata and subject and effects == [GLMEffect()]:
            effects, subject = [GLMEffect((), subject)], ()
        if subject or statement.group is not None or any(e.continuous or not e.classes for e in effects):
            what = f"{word} is read for effects of CLASS variables alone"
            raise SpecificationError(what, statement.spot, "leave SUBJECT= and GROUP= out: random animal / type=lin(1) ldata=a")
        if not source:
            raise SpecificationError(f"{word} needs LDATA=", statement.spot, "name the data set of its matrices: ldata=a")
        if kind == "LIN" and len(effects) > 1:
            raise SpecificationError(f"{word} over several effects is not supported", statement.spot, "a RANDOM statement for each")
        for effect in effects:
            for k in range(1, (statement.type.order or 1) + 1 if kind == "LIN" else 2):
                name = f"{effect.name} of {source} {k}"
                self.derived[Derived(name, effect.classes)] = None
                own = CovBlock("random", CovType(kind, k), (effect.name,), "", "", "", (len(self.texts),), False, source, name)
                self.blocks.append(own)
                self.effects.append(RandomEffect(effect, (), (), len(self.texts)))
                self.texts.append(f"(1 | {quote_name(name)})")

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
        left = _left_side([GLMEffect(effect.continuous)], indicator)
        self._append(statement, [effect], f"({left} | {_join_names(group)})", indicator)

    def _add_joint(self, statement: RandomStatement, effects: Sequence[GLMEffect], indicator: Derived | None) -> None:
        """A structure over all columns of the statement, within each subject."""
        _check_joint(statement, effects)
        group = effect_columns(statement.subject, self.classes)
        if not group:
            self.derived[Derived(WHOLE_DATA)] = None
        structure, order = our_name(statement.type)
        inside = f"{_left_side(effects, indicator)} | {_join_names(group or (WHOLE_DATA,))}"
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


def _left_side(effects: Sequence[GLMEffect], indicator: Derived | None) -> str:
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
    subjects = f"{_join_names(group)} / {_join_names(subject)}" if group else _join_names(subject)
    tail = f", {order}" if order is not None else ""
    return f"{structure}({before} | {subjects}{tail}){' + local' if statement.local else ''}", tuple(derived)


def _join_names(columns: Sequence[str]) -> str:
    return ":".join(map(quote_name, columns))


def check_repeated(statement: RepeatedStatement, classes: Sequence[str]) -> None:
    """What SAS or we cannot do with a REPEATED statement."""
    if statement.type.known:
        what = f"TYPE={statement.type.text} is read in RANDOM alone"
        raise SpecificationError(what, statement.spot, "random animal / type=lin(1) ldata=a")
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
    if statement.dispersion:
        _check_dispersion(statement)


def _check_dispersion(statement: RepeatedStatement) -> None:
    what, remedy = "", "TYPE=VC without GROUP=, the class among the effects of LOCAL=EXP()"
    if statement.type != VC:
        what = f"LOCAL=EXP() added to TYPE={statement.type.text} is not supported"
    elif statement.group is not None:
        what = "LOCAL=EXP() with GROUP= is not supported"
    elif joint := next((e for e in statement.dispersion if len(e.variables) > 1), None):
        what = f"the interaction {joint.text} in LOCAL=EXP() is not supported"
        remedy = "make one column of its variables, and name it: a class of their combinations, or a product of numbers"
    elif any(e.text == "fitted" for e in statement.dispersion):
        what, remedy = "LOCAL=EXP() takes no column called fitted, which stands for the fitted value here", "rename the column"
    if what:
        raise SpecificationError(what, statement.spot, remedy)
