"""A PROC MIXED program as frozen values: one dataclass for each statement, a field for each option.

`spot` is where the statement stands (line, column, text), for the errors that only the translation can raise; it does not count
when two programs are compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bayeslmm.sas.language.covariance_types import VC, CovType
from bayeslmm.sas.language.effects import SASEffect
from bayeslmm.sas.language.where import Condition

_ODS_PAIR = re.compile(r"(\w+)\s*(?:\([^)]*\)\s*)?=\s*(\w+(?:\s*\.\s*\w+)?)")

Order = Literal["formatted", "internal", "data", "freq"]
Tail = Literal["", "lower", "upper"]
Method = Literal["reml", "ml", "type1", "type2", "type3", "mivque0"]
DDFM = Literal["contain", "betwithin", "residual", "satterthwaite", "kenwardroger", "kenwardroger2"]
Diff = Literal["all", "control", "controll", "controlu"]
Adjust = Literal["none", "bonferroni", "dunnett", "scheffe", "sidak", "simulate", "smm", "tukey"]


@dataclass(frozen=True, slots=True)
class DataSetOptions:
    """What stands in brackets behind the name of a data set, in the order in which SAS applies it.

    keep, drop : columns, by their old names; rename : (old, new); where : a condition on the new names
    first, last : FIRSTOBS= and OBS=, which count the rows that satisfy the conditions; None for all
    """

    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    where: Condition | None = None
    first: int = 1
    last: int | None = None


@dataclass(frozen=True, slots=True)
class ProcStatement:
    """PROC MIXED and its options.

    data : name of the data set, "" when none is given; data_options : of DATA=name(...)
    noclprint : None, or the number of levels from which the values of a class are not listed (0: the table is left out)
    criterion : CONVH=, CONVF= or CONVG= and its value
    scoring : SCORING=k: the first k iterations, and the reported covariance matrix, use the expected information
    """

    data: str = ""
    data_options: DataSetOptions = DataSetOptions()
    method: Method = "reml"
    empirical: bool = False
    covtest: bool = False
    cl: Literal["", "default", "wald"] = ""
    alpha: float = 0.05
    noclprint: int | None = None
    noinfo: bool = False
    noitprint: bool = False
    itdetails: bool = False
    ic: bool = False
    asycov: bool = False
    asycorr: bool = False
    ratio: bool = False
    noprofile: bool = False
    nobound: bool = False
    mmeq: bool = False
    mmeqsol: bool = False
    dfbw: bool = False
    order: Order = "formatted"
    maxiter: int | None = None
    maxfunc: int | None = None
    criterion: tuple[str, float] | None = None
    scoring: int | None = None
    namelen: int | None = None
    plots: bool = False
    spot: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ClassVariable:
    """A variable of the CLASS statement; its reference level is the last one unless REF= says "first" or names a value.

    descending : the levels in the reverse of their order
    """

    name: str
    reference: Literal["last", "first", "value"] = "last"
    value: str = ""
    descending: bool = False


@dataclass(frozen=True, slots=True)
class InfluenceRequest:
    """INFLUENCE(EFFECT= SIZE= SELECT= KEEP= ITER= ESTIMATES): the rows of a level, or every so many of the rows, are left out together.

    select : numbers of the rows, or of the levels of EFFECT=, that are looked at, () for all; keep : how many are shown, the most
    influential first; None for all of them as they come, and for 50 of SIZE=
    iter : above 0 the covariance parameters are estimated again; estimates : the table has all estimates without the rows
    """

    effect: SASEffect | None = None
    size: int = 1
    select: tuple[int, ...] = ()
    keep: int | None = None
    iter: float = 0.0
    estimates: bool = False


@dataclass(frozen=True, slots=True)
class ModelStatement:
    """MODEL response = effects / options.

    ddfm : "" when the program does not say; firstorder : DDFM=KR(FIRSTORDER)
    ddf : degrees of freedom given effect by effect, None for a `.`
    outp, outpm : names of the data sets of predictions, with the columns that their KEEP= and DROP= name
    """

    response: str
    effects: tuple[SASEffect, ...] = ()
    noint: bool = False
    solution: bool = False
    ddfm: DDFM | Literal[""] = ""
    firstorder: bool = False
    ddf: tuple[float | None, ...] = ()
    htype: tuple[int, ...] = (3,)
    e: tuple[int, ...] = ()
    lcomponents: bool = False
    intercept: bool = False
    notest: bool = False
    chisq: bool = False
    cl: bool = False
    alpha: float = 0.05
    alphap: float = 0.05
    covb: bool = False
    covbi: bool = False
    corrb: bool = False
    outp: str = ""
    outpm: str = ""
    outp_keep: tuple[str, ...] = ()
    outp_drop: tuple[str, ...] = ()
    outpm_keep: tuple[str, ...] = ()
    outpm_drop: tuple[str, ...] = ()
    residual: bool = False
    vciry: bool = False
    influence: InfluenceRequest | None = None
    spot: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class RandomStatement:
    """RANDOM effects / options; an `SASEffect` of no variable is the intercept.

    displays : ODS tables of G and V asked for: "G", "GCorr", "InvG", "CholG", "InvCholG", "V", "VCorr", "InvV", "CholV", "InvCholV"
    v_blocks : numbers of the subjects whose V is shown
    gdata, ldata : data sets of G and of the matrices of TYPE=LIN(q); ratios : G is relative to the residual variance
    nofullz : levels that do not occur get no column, which here they never do
    """

    effects: tuple[SASEffect, ...]
    type: CovType = VC
    subject: SASEffect | None = None
    group: SASEffect | None = None
    solution: bool = False
    cl: bool = False
    alpha: float = 0.05
    displays: tuple[str, ...] = ()
    v_blocks: tuple[int, ...] = (1,)
    gdata: str = ""
    ldata: str = ""
    ratios: bool = False
    nofullz: bool = field(default=False, compare=False)
    spot: str = field(default="", compare=False)

    @property
    def all_effects(self) -> tuple[SASEffect, ...]:
        """Every effect that it names, those of SUBJECT= and GROUP= too."""
        return tuple(e for e in (*self.effects, self.subject, self.group) if e is not None)


@dataclass(frozen=True, slots=True)
class RepeatedStatement:
    """REPEATED effects / options: no effect (the order of the rows), one, or two for a product of structures.

    displays : ODS tables of R asked for: "R", "RCorr", "InvR", "CholR", "InvCholR"; blocks : numbers of the subjects shown
    local : a variance sigma^2 I is added to the structure
    dispersion : effects U of LOCAL=EXP(), R = sigma^2 diag(exp(U delta))
    """

    effects: tuple[SASEffect, ...] = ()
    type: CovType = VC
    subject: SASEffect | None = None
    group: SASEffect | None = None
    local: bool = False
    dispersion: tuple[SASEffect, ...] = ()
    displays: tuple[str, ...] = ()
    blocks: tuple[int, ...] = (1,)
    spot: str = field(default="", compare=False)

    @property
    def all_effects(self) -> tuple[SASEffect, ...]:
        """Every effect that it names: those of the rows, of LOCAL=EXP(), SUBJECT= and GROUP=."""
        return tuple(e for e in (*self.effects, *self.dispersion, self.subject, self.group) if e is not None)


@dataclass(frozen=True, slots=True)
class LSMeansStatement:
    """LSMEANS effects / options.

    diff : None or which differences; controls : formatted levels of the control, one for each class variable of the effect
    adjdfe : degrees of freedom of adjusted p values and limits: those of the effect ("source") or of each row
    at : covariate values; at_means : AT MEANS (products of covariates at the product of their means)
    slice : effects within whose levels the others are tested
    """

    effects: tuple[SASEffect, ...]
    diff: Diff | None = None
    controls: tuple[str, ...] = ()
    adjust: Adjust = "none"
    adjdfe: Literal["source", "row"] = "source"
    cl: bool = False
    alpha: float = 0.05
    at: tuple[tuple[str, float], ...] = ()
    at_means: bool = False
    bylevel: bool = False
    om: bool = False
    e: bool = False
    df: float | None = None
    slice: tuple[SASEffect, ...] = ()
    cov: bool = False
    corr: bool = False
    spot: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class LevelCoefficient:
    """`[value, 1 2]`: the coefficient of the mean at these levels, counted from 1 in the order of the effect's classes."""

    value: float
    levels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LSMEstimateRow:
    """One row of LSMESTIMATE: a coefficient for each mean in order, or by level; divided by the divisor."""

    label: str
    values: tuple[float, ...] = ()
    levels: tuple[LevelCoefficient, ...] = ()
    divisor: float = 1.0


@dataclass(frozen=True, slots=True)
class LSMEstimateStatement:
    """LSMESTIMATE effect row, row, ... / options; means : the effect and what LSMEANS has options for.

    joint : an F test of all rows; tail : "lower" or "upper" for one-sided tests; testvalue : what the rows are tested to be
    """

    means: LSMeansStatement
    rows: tuple[LSMEstimateRow, ...]
    joint: bool = False
    chisq: bool = False
    tail: Tail = ""
    testvalue: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class SliceStatement:
    """SLICE effect / options: within each level of `by` the means of the effect, tested equal (not with nof) and compared."""

    means: LSMeansStatement
    by: tuple[SASEffect, ...] = ()
    nof: bool = False
    means_shown: bool = False


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The numbers written after an effect in ESTIMATE or CONTRAST, in the order of the effect's columns."""

    effect: SASEffect
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CoefficientRow:
    """One row of an ESTIMATE or CONTRAST: its fixed part and, after a bar, its random part."""

    fixed: tuple[Coefficients, ...]
    random: tuple[Coefficients, ...] = ()


@dataclass(frozen=True, slots=True)
class EstimateStatement:
    """ESTIMATE 'label' row / options; tail is "lower" or "upper" for a one-sided test."""

    label: str
    row: CoefficientRow
    divisor: float = 1.0
    cl: bool = False
    alpha: float = 0.05
    df: float | None = None
    e: bool = False
    tail: Tail = ""
    subject: tuple[float, ...] = ()
    group: tuple[float, ...] = ()
    spot: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ContrastStatement:
    """CONTRAST 'label' row, row, ... / options."""

    label: str
    rows: tuple[CoefficientRow, ...]
    chisq: bool = False
    df: float | None = None
    e: bool = False
    subject: tuple[float, ...] = ()
    group: tuple[float, ...] = ()
    spot: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ParmsStatement:
    """PARMS (values) ... / options: candidates for each covariance parameter, in the order of the CovParms table.

    hold : numbers of the parameters (from 1) held at their value; noiter : all are
    noprofile : the residual variance is the one given, and not the best one beside the others
    """

    values: tuple[tuple[float, ...], ...]
    hold: tuple[int, ...] = ()
    noiter: bool = False
    noprofile: bool = False
    spot: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ByVariable:
    """A variable of the BY statement; unsorted : NOTSORTED, groups in the order of the rows."""

    name: str
    descending: bool = False
    unsorted: bool = False


@dataclass(frozen=True, slots=True)
class MixedProgram:
    """A whole PROC MIXED step.

    titles, footnotes : printed with the listing; ods : the ODS statements, of which OUTPUT gives tables another name
    notes : what was left out of the program; they do not count when two programs are compared
    """

    proc: ProcStatement
    model: ModelStatement
    classes: tuple[ClassVariable, ...] = ()
    random: tuple[RandomStatement, ...] = ()
    repeated: RepeatedStatement | None = None
    lsmeans: tuple[LSMeansStatement, ...] = ()
    estimates: tuple[EstimateStatement, ...] = ()
    contrasts: tuple[ContrastStatement, ...] = ()
    lsmestimates: tuple[LSMEstimateStatement, ...] = ()
    slices: tuple[SliceStatement, ...] = ()
    parms: ParmsStatement | None = None
    weight: str = ""
    where: Condition | None = None
    by: tuple[ByVariable, ...] = ()
    id: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    footnotes: tuple[str, ...] = ()
    ods: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def ods_names(self) -> Mapping[str, str]:
        """Names that ODS OUTPUT gives to tables, in lower case: its name -> the table's."""
        pairs = [pair for text in self.ods if text.lower().startswith("output") for pair in _ODS_PAIR.findall(text)]
        return {name.lower().rpartition(".")[2].strip(): table for table, name in pairs}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The variables of the CLASS statement, in its order."""
        return tuple(c.name for c in self.classes)
