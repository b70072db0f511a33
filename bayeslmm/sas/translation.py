"""The translation of a PROC MIXED program: a model specification, and what to compute of its fit.

The run takes these steps, each from values that stand here or in the modules beside this one.

1. Rows: `rows_where` of `program.where` and of `program.proc.data_where`; one run per group of `program.by`. The columns of
   `derived` are added to the frame: a constant, the indicator of a level (GROUP= of RANDOM), a combination of columns as one.
2. Classes: `class_levels(variable, values, program.proc.order)` for each of `program.classes`, over all rows read; the frame's columns
   become ordered categories in that order, and the coding "sas" makes the last level the reference.
3. Fit: `LMM(spec)`, `fit(translation.method)`, with `translation.parms` as starting or held values.
4. Coding: `layout = glm_columns(translation.effects, ...)`, `space = row_space(layout.X)`, `T = bridge(layout, space, model.X)`. Every
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
| SolutionF | Effect, classes, Estimate, StdErr, DF, tValue, Probt, [Alpha, Lower, Upper] | `sas_solution` |
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

from dataclasses import dataclass
from typing import Literal

from bayeslmm.sas.language.covariance_types import CovType
from bayeslmm.sas.language.effects import GLMEffect
from bayeslmm.sas.language.program import MixedProgram
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
    local : REPEATED with LOCAL
    """

    statement: Literal["random", "repeated"]
    type: CovType
    effects: tuple[str, ...] = ()
    subject: str = ""
    group: str = ""
    level: str = ""
    terms: tuple[int, ...] = ()
    local: bool = False


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
    method: Literal["REML", "ML"]
    df: str
    vcov: str
    information: Literal["observed", "expected"]
    blocks: tuple[CovBlock, ...]
    residual: bool
    random: tuple[RandomEffect, ...]
    subject: ColumnNames
    within: ColumnNames
    contiguous: ColumnNames
    tables: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def effect_names(self) -> tuple[str, ...]:
        """The fixed effects as SAS prints them."""
        return tuple(e.name for e in self.effects)
