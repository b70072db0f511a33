"""ESTIMATE, CONTRAST and LSMEANS: their rows, tested, with ADJUST=."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from bayeslmm._arrays import Array, Mask
from bayeslmm.errors import SpecificationError
from bayeslmm.inference.fixed_effects.tests import FTest, TTests
from bayeslmm.inference.means.multiplicity import critical_values, p_values
from bayeslmm.sas.glm_coding import class_variables, estimable
from bayeslmm.sas.hypotheses import Labels, MeansSetting, coefficient_row, differences, lsmeans_rows, slice_groups
from bayeslmm.sas.language.effects import GLMEffect, glm_effect
from bayeslmm.sas.language.program import CoefficientRow, Coefficients, ContrastStatement, EstimateStatement, LSMeansStatement
from bayeslmm.sas_results.predictions import PredictableFunctions, random_weights
from bayeslmm.sas_results.run import ProgramRun
from bayeslmm.sas_results.tables.fixed_effects import (
    TableColumns,
    bind_columns,
    class_columns,
    effect_test,
    f_row,
    l_matrix,
    limit_columns,
    matrix_columns,
    stack_frames,
    t_columns,
    where_known,
)

NOT_ESTIMABLE = TTests(*(np.full(1, np.nan) for _ in range(5)))


# -- ESTIMATE and CONTRAST -----------------------------------------------------------------------------------------------------------------


def _values(run: ProgramRun, part: Sequence[Coefficients]) -> dict[GLMEffect, tuple[float, ...]]:
    return {glm_effect(c.effect, run.program.class_names): c.values for c in part}


def _last(run: ProgramRun, row: CoefficientRow) -> int | None:
    """The effect that lends its degrees of freedom: the last one listed."""
    return run.layout.position(glm_effect(row.fixed[-1].effect, run.program.class_names)) if row.fixed else None


def excess_coefficients(run: ProgramRun) -> Iterator[str]:
    """What the log says of coefficients beyond the columns of their effect, which are left out."""
    program = run.program
    rows = [(f"ESTIMATE '{e.label}'", e.row) for e in program.estimates]
    rows += [(f"CONTRAST '{c.label}'", row) for c in program.contrasts for row in c.rows]
    for where, row in rows:
        for effect, values in _values(run, row.fixed).items():
            position = run.layout.position(effect)
            assert position is not None
            block = run.layout.blocks[position]
            if (columns := block.stop - block.start) < len(values):
                yield f"{where}: {effect.name} has {columns} columns and {len(values)} coefficients; those beyond are left out"


def estimates_table(run: ProgramRun) -> pd.DataFrame:
    """Label, Estimate, StdErr, DF, tValue, Probt[, Alpha, Lower, Upper]."""
    return stack_frames([_estimate(run, statement) for statement in run.program.estimates])


def _estimate(run: ProgramRun, statement: EstimateStatement) -> pd.DataFrame:
    L = coefficient_row(run.layout, _values(run, statement.row.fixed))[None] / statement.divisor
    tests = _test_row(run, L, statement.row, statement.df, statement.divisor, statement.subject, statement.group)
    columns = t_columns(tests)
    if statement.tail:
        columns["Probt"] = one_sided(tests, statement.tail)
    tail = {"lower": "lower", "upper": "upper"}.get(statement.tail, "")
    more = limit_columns(columns, statement.alpha, tail=tail) if statement.cl else {}
    return bind_columns({"Label": [statement.label]}, columns, more)


def _test_row(
    run: ProgramRun, L: Array, row: CoefficientRow, df: float | None, divisor: float, subject: Sequence[float], group: Sequence[float]
) -> TTests:
    if not estimable(run.space, L).all():
        return NOT_ESTIMABLE
    if not row.random:
        return run.effects(_last(run, row), df).t(run.ours(L))
    weights = random_weights(run, _values(run, row.random), subject, group) / divisor
    return PredictableFunctions(run).tests(run.ours(L), weights[None], df)


def contrasts_table(run: ProgramRun) -> pd.DataFrame:
    """Label, NumDF, DenDF, [ChiSq,] FValue, [ProbChiSq,] ProbF."""
    return stack_frames([_contrast(run, statement) for statement in run.program.contrasts])


def _contrast(run: ProgramRun, statement: ContrastStatement) -> pd.DataFrame:
    L = contrast_rows(run, statement)
    if not estimable(run.space, L).all():
        test = FTest(0, np.nan, np.nan, np.nan)
    elif any(row.random for row in statement.rows):
        weights = np.stack([random_weights(run, _values(run, row.random), statement.subject, statement.group) for row in statement.rows])
        test = PredictableFunctions(run).joint(run.ours(L), weights, statement.df)
    else:
        test = run.effects(_last(run, statement.rows[-1]), statement.df).joint(run.ours(L))
    return pd.DataFrame([{"Label": statement.label} | f_row(test, statement.chisq)])


def contrast_rows(run: ProgramRun, statement: ContrastStatement) -> Array:
    """The rows of a CONTRAST on SAS's columns."""
    return np.stack([coefficient_row(run.layout, _values(run, row.fixed)) for row in statement.rows])


def row_coefficients(run: ProgramRun) -> Iterator[pd.DataFrame]:
    """What the E options of ESTIMATE, CONTRAST and LSMEANS ask for."""
    for statement in run.program.estimates:
        if statement.e:
            L = coefficient_row(run.layout, _values(run, statement.row.fixed)) / statement.divisor
            yield l_matrix(run, statement.label, L)
    for contrast in run.program.contrasts:
        if contrast.e:
            yield l_matrix(run, contrast.label, contrast_rows(run, contrast))
    for means in lsmeans_families(run):
        if means.statement.e:
            yield l_matrix(run, f"{means.effect.name} Least Squares Means", means.L)


# -- least-squares means -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class LSMeansFamily:
    """The least-squares means of one effect of one statement.

    labels : (m) one text for each class of the effect; L : (m, P) on SAS's columns; fine : (m,) which can be estimated
    """

    statement: LSMeansStatement
    effect: GLMEffect
    position: int
    labels: tuple[Labels, ...]
    L: Array
    fine: Mask

    def class_values(self, i: int) -> dict[str, str]:
        return dict(zip(self.effect.classes, self.labels[i], strict=True))


def lsmeans_families(run: ProgramRun) -> Iterator[LSMeansFamily]:
    """The effects of all LSMEANS statements."""
    for statement in run.program.lsmeans:
        yield from means_of(run, statement)


def means_of(run: ProgramRun, statement: LSMeansStatement) -> Iterator[LSMeansFamily]:
    """The effects of one statement."""
    setting = MeansSetting(dict(statement.at), statement.at_means or bool(statement.at), statement.om, statement.bylevel)
    for named in statement.effects:
        effect = glm_effect(named, run.program.class_names)
        position = run.layout.position(effect)
        assert position is not None
        labels, L = lsmeans_rows(run.layout, effect, run.background, setting)
        yield LSMeansFamily(statement, effect, position, labels, L, estimable(run.space, L))


def _names(run: ProgramRun) -> list[str]:
    """Class variables of all LSMEANS effects, in the order of CLASS."""
    used = set(class_variables([glm_effect(e, run.program.class_names) for s in run.program.lsmeans for e in s.effects]))
    return [name for name in run.program.class_names if name in used]


def row_tests(run: ProgramRun, family: LSMeansFamily, L: Array, fine: Mask, rhs: float | Array = 0.0) -> TTests:
    """Tests of rows on SAS's columns to be `rhs`; NaN where they are not estimable."""
    found = run.effects(family.position, family.statement.df).t(run.ours(L), rhs)
    return where_known(fine, found)


def least_squares_means(run: ProgramRun) -> pd.DataFrame:
    """Effect, classes, [covariates,] Estimate, StdErr, DF, tValue, Probt[, Alpha, Lower, Upper][, Cov1, ...]."""
    return stack_frames([_means(run, family) for family in lsmeans_families(run)])


def _means(run: ProgramRun, family: LSMeansFamily) -> pd.DataFrame:
    statement, m = family.statement, len(family.labels)
    columns = t_columns(row_tests(run, family, family.L, family.fine))
    head: TableColumns = {"Effect": [family.effect.name] * m} | class_columns(_names(run), [family.class_values(i) for i in range(m)])
    head |= {name: [value] * m for name, value in statement.at}
    more = limit_columns(columns, statement.alpha) if statement.cl else {}
    own = run.ours(family.L)
    matrix = np.where(np.outer(family.fine, family.fine), run.base.covariance(own), np.nan)
    if statement.cov:
        more |= {name.replace("Col", "Cov"): values for name, values in matrix_columns(matrix).items()}
    if statement.corr:
        root = np.sqrt(np.diagonal(matrix))
        more |= {name.replace("Col", "Corr"): values for name, values in matrix_columns(matrix / np.outer(root, root)).items()}
    return bind_columns(head, columns, more)


def mean_differences(run: ProgramRun) -> pd.DataFrame:
    """Effect, classes, _classes, Estimate, StdErr, DF, tValue, Probt[, Adjustment, Adjp][, Alpha, Lower, Upper[, AdjLower, AdjUpper]]."""
    return stack_frames([_differences(run, family) for family in lsmeans_families(run) if family.statement.diff])


def _differences(run: ProgramRun, family: LSMeansFamily) -> pd.DataFrame:
    statement, diff = family.statement, family.statement.diff
    assert diff is not None
    pairs = differences(family.labels, None if diff == "all" else statement.controls)
    if not pairs:
        raise SpecificationError(f"LSMEANS: {family.effect.name} has one mean, which has no difference", statement.spot, "leave DIFF out")
    L = np.stack([family.L[i] - family.L[j] for i, j in pairs])
    tests = row_tests(run, family, L, estimable(run.space, L))
    columns = t_columns(tests)
    tail = {"controll": "lower", "controlu": "upper"}.get(diff, "")
    if tail:
        columns["Probt"] = one_sided(tests, tail)
    head = {"Effect": [family.effect.name] * len(pairs)}
    left, right = ([family.class_values(pair[side]) for pair in pairs] for side in (0, 1))
    more: TableColumns = {}
    if statement.adjust != "none":
        check_adjustment(statement.adjust, diff)
        df = adjustment_df(run, family, tests)
        found = adjust_family(statement.adjust, tests, df, correlation_of(run, L), len(family.labels), statement.alpha, tail)
        more |= {"Adjustment": [found.name] * len(pairs), "Adjp": found.p}
    if statement.cl:
        more |= limit_columns(columns, statement.alpha, tail=tail)
        if statement.adjust != "none":
            more |= {"AdjLower": tests.estimate - found.lower, "AdjUpper": tests.estimate + found.upper}
    return bind_columns(head, class_columns(_names(run), left), class_columns(_names(run), right, "_"), columns, more)


def adjustment_df(run: ProgramRun, family: LSMeansFamily, tests: TTests) -> Array:
    """Degrees of freedom of adjusted p values and limits: the effect's denominator in the table of Type 3 tests; ADJDFE=ROW the row's."""
    df = family.statement.df
    if family.statement.adjdfe == "row" or df is not None:
        return tests.df
    source = effect_test(run, family.position, 3).den_df
    return tests.df if np.isnan(source) else np.full(len(tests.df), source)


def correlation_of(run: ProgramRun, L: Array) -> Array:
    own = run.ours(L)
    matrix = run.base.covariance(own)
    root = np.sqrt(np.maximum(np.diagonal(matrix), 1e-300))
    return np.asarray(matrix / np.outer(root, root))


def slice_tests(run: ProgramRun) -> pd.DataFrame:
    """Effect, classes, NumDF, DenDF, FValue, ProbF: within each level of the slice, all means tested equal."""
    rows: list[TableColumns] = []
    for family in lsmeans_families(run):
        for effect in family.statement.slice:
            by = glm_effect(effect, run.program.class_names)
            for label, members in slice_groups(family.effect, family.labels, by):
                rows.append(_slice(run, family, dict(zip(by.classes, label, strict=True)), members))
    return pd.DataFrame(rows)


def _slice(run: ProgramRun, family: LSMeansFamily, label: Mapping[str, str], members: Sequence[int]) -> TableColumns:
    head: TableColumns = {"Effect": family.effect.name} | {name: label.get(name, "") for name in _names(run)}
    return head | f_row(slice_test(run, family, members), chisq=False)


def slice_test(run: ProgramRun, family: LSMeansFamily, members: Sequence[int]) -> FTest:
    """The F test that some means of a family are equal."""
    first, *others = members
    L = np.stack([family.L[i] - family.L[first] for i in others]) if others else np.zeros((0, family.L.shape[1]))
    fine = L[estimable(run.space, L)] if len(L) else L
    return run.effects(family.position, family.statement.df).joint(run.ours(fine)) if len(fine) else FTest(0, np.nan, np.nan, np.nan)


EQUAL = 1e-6
"""Relative spread of standard errors below which a comparison is Tukey's own and not Kramer's."""

NODES = np.linspace(-1.0, 1.0, 2001)
"""Of the integral over the logarithm of the residual sd, whose density vanishes on both sides: the trapezoidal rule is exact there."""

TAIL = 80.0
"""What lies further out than a density of exp(-80) is nothing."""

_NAMES = {"dunnett": "Dunnett-Hsu", "smm": "SMM", "simulate": "Simulated"}


@dataclass(frozen=True, slots=True, eq=False)
class Adjusted:
    """name : as the column Adjustment says it; p : (r,); lower, upper : (r,) half widths of simultaneous limits, inf on a free side."""

    name: str
    p: Array
    lower: Array
    upper: Array


def adjust_family(method: str, tests: TTests, df: Array, correlation: Array, means: int, alpha: float, tail: str = "") -> Adjusted:
    """Adjust a family of comparisons.

    df : (r,) of the adjustment: those of the effect in the table of Type 3 tests, or with ADJDFE=ROW each row's own
    correlation : (r, r) of the estimates; means : how many means they compare
    tail : "lower" or "upper" for one-sided comparisons
    """
    df = np.where(np.isfinite(tests.statistic), df, np.nan)
    if method == "scheffe":
        p, width = _scheffe(tests, df, correlation, alpha)
    elif tail:
        p, width = _one_sided(method, tests, df, correlation, alpha, -1.0 if tail == "lower" else 1.0)
    elif method == "smm":
        m = int(np.isfinite(df).sum())
        p = _each(df, lambda i: modulus_sf(abs(float(tests.statistic[i])), float(df[i]), m))
        width = _each(df, lambda i: modulus_isf(alpha, float(df[i]), m))
    else:
        ours = "mvt" if method == "simulate" else method
        p = p_values(ours, tests.statistic, df, correlation, means)
        width = critical_values(ours, 1.0 - alpha, df, correlation, means)
    half = width * tests.std_error
    free = np.where(np.isfinite(half), np.inf, np.nan)
    return Adjusted(_name(method, tests), p, free if tail == "lower" else half, free if tail == "upper" else half)


def check_adjustment(method: str, diff: str) -> None:
    """Raise where a method is not for this family: "all" differences, or those from a control."""
    if method == "tukey" and diff != "all":
        raise SpecificationError("ADJUST=TUKEY is for all differences", f"DIFF={diff.upper()}", "adjust=dunnett compares with a control")
    if method == "dunnett" and diff == "all":
        raise SpecificationError("ADJUST=DUNNETT compares with a control", "DIFF", "diff=control, or adjust=tukey for all differences")


def one_sided(tests: TTests, tail: str) -> Array:
    """p values of one-sided tests, not adjusted."""
    return np.asarray(special.stdtr(tests.df, tests.statistic if tail == "lower" else -tests.statistic))


def _name(method: str, tests: TTests) -> str:
    if method == "tukey":
        se = tests.std_error[np.isfinite(tests.std_error)]
        return "Tukey" if len(se) == 0 or np.ptp(se) <= EQUAL * se.max() else "Tukey-Kramer"
    return _NAMES.get(method) or method.capitalize()


def _scheffe(tests: TTests, df: Array, correlation: Array, alpha: float) -> tuple[Array, Array]:
    member = np.isfinite(df)
    values = np.linalg.eigvalsh(correlation[np.ix_(member, member)])
    q = max(int((values > 1e-8 * values.max(initial=0.0)).sum()), 1)
    return np.asarray(special.fdtrc(q, df, tests.statistic**2 / q)), np.asarray(np.sqrt(q * special.fdtri(q, df, 1.0 - alpha)))


def _one_sided(method: str, tests: TTests, df: Array, correlation: Array, alpha: float, sign: float) -> tuple[Array, Array]:
    """p values and critical values of comparisons to one side of the control; sign : -1 below it, 1 above."""
    statistic, member = sign * tests.statistic, np.isfinite(df)
    m = int(member.sum())
    plain = np.asarray(special.stdtr(df, -statistic))
    if method == "bonferroni":
        return np.minimum(1.0, m * plain), np.asarray(-special.stdtrit(df, alpha / max(m, 1)))
    if method == "sidak":
        level = -np.expm1(np.log1p(-alpha) / max(m, 1))
        return np.asarray(-np.expm1(m * np.log1p(-plain))), np.asarray(-special.stdtrit(df, level))
    bounds = np.asarray(-special.stdtrit(df, alpha)), np.asarray(-special.stdtrit(df, alpha / max(m, 1)))
    if m < 2:
        return plain, bounds[0]
    if method == "smm":
        p = _each(df, lambda i: modulus_sf(float(statistic[i]), float(df[i]), m, sides=1))
        return p, _each(df, lambda i: modulus_isf(alpha, float(df[i]), m, sides=1))
    from scipy import stats

    law: Any = stats.multivariate_t(  # type: ignore[call-overload]
        np.zeros(m), correlation[np.ix_(member, member)], df=float(df[member].mean()), allow_singular=True
    )

    def above(t: float) -> float:
        """P(max T > t)"""
        return 1.0 - float(law.cdf(np.full(m, t), random_state=1))

    p = _each(df, lambda i: max(above(float(statistic[i])), float(plain[i])))
    critical = _root(above, alpha, float(bounds[0][member].min()), float(bounds[1][member].max()))
    return p, np.where(member, critical, np.nan)


def _each(df: Array, value: Callable[[int], float]) -> Array:
    return np.array([value(i) if np.isfinite(df[i]) else np.nan for i in range(len(df))])


def modulus_sf(t: float, df: float, m: int, sides: int = 2) -> float:
    """P(max |T_i| > t), or with one side of T_i, of m independent normals over one chi: the studentized maximum modulus."""
    span = max(TAIL / df, np.sqrt(TAIL / df))
    z = NODES * span
    log_density = df * (z - 0.5 * np.expm1(2.0 * z))
    weights = np.exp(log_density - log_density.max())
    inside = special.ndtr(-t * np.exp(z)) * sides
    return float(weights @ -np.expm1(m * np.log1p(-np.minimum(inside, 1.0))) / weights.sum())


def modulus_isf(alpha: float, df: float, m: int, sides: int = 2) -> float:
    """The point that the studentized maximum modulus exceeds with this probability."""
    low, high = -float(special.stdtrit(df, alpha / sides)), -float(special.stdtrit(df, alpha / (sides * m)))
    return _root(lambda t: modulus_sf(t, df, m, sides), alpha, float(low), float(high))


def _root(above: Callable[[float], float], alpha: float, low: float, high: float) -> float:
    """Between a plain critical value and Bonferroni's, a little widened against rounding."""
    from scipy import optimize

    return float(optimize.brentq(lambda t: above(t) - alpha, low - 0.01, high + 0.01, xtol=1e-10))
