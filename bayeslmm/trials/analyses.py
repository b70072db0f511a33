"""Analyses of completed data sets, ANCOVA by visit, MMRM or any function, and what pooling makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Protocol, get_args

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes, Generator, is_counted, numbers_of
from bayeslmm._types import Side
from bayeslmm._validation import require_flag, require_names, require_number, require_one_of
from bayeslmm.errors import BayesLMMError, BayesLMMWarning, DataError, InferenceError, SpecificationError, show_value, warn_user
from bayeslmm.formula.syntax import quote_name
from bayeslmm.inference.intervals.resampling import VisitParameters
from bayeslmm.results.foreign_names import IMPUTATION_ATTRIBUTES, known_arguments
from bayeslmm.results.predict import two_sided_quantile
from bayeslmm.trials.ancova import analyse_repeated, contrasts, solve, visit_design
from bayeslmm.trials.layout import Events, Layout, Strategy, control_arms, label_key, resampled_frame
from bayeslmm.trials.pooling import Pooled, Replication, monte_carlo, pool_bootstrap, pool_bootstrap_mi, pool_jackknife, pool_rubin

Label = tuple[Any, str, Any]


class ImputationModel(Protocol):
    """A fitted imputation model and the trial's events: completes outcomes at any parameters."""

    @property
    def events(self) -> Events: ...
    @property
    def fit(self) -> Any: ...
    @property
    def has_law_at_random(self) -> bool: ...
    def complete(self, parameters: VisitParameters, rng: Generator | None = None, at_random: bool = False) -> Array: ...
    def with_events(self, strategy: Strategy | None, events: Any) -> ImputationModel: ...


class CompletedTrial(Protocol):
    """Completed data sets of one trial: what `Imputations` is to its analyses."""

    @property
    def layout(self) -> Layout: ...
    @property
    def values(self) -> Array: ...
    @property
    def replication(self) -> Replication: ...
    @property
    def trial(self) -> ImputationModel | None: ...
    @property
    def parameters(self) -> VisitParameters | None: ...
    @property
    def failed(self) -> tuple[str, ...]: ...
    @property
    def method(self) -> str: ...
    @property
    def seed(self) -> Any: ...
    @property
    def size(self) -> int: ...
    @property
    def subjects(self) -> pd.DataFrame: ...
    def data(self, k: int) -> pd.DataFrame: ...
    def at_random(self) -> CompletedTrial | None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Estimates and standard errors (K, cells, q), degrees of freedom (K, q), and what the q are: visit, parameter, arm."""

    labels: tuple[Label, ...]
    estimate: Array
    std_error: Array
    df: Array


@dataclass(frozen=True, slots=True, eq=False)
class Analyses:
    """The analyses of K completed data sets: estimates, standard errors and degrees of freedom (K, q).

    Examples take `analyses = imp.analyse("change ~ arm + base")`.

    Attributes
    ----------
    anchored : ndarray or None
        Estimates of the same analysis, missing at random, with the difference between strategy and MAR held at that of the whole sample;
        where resampling could make them.
    """

    imputations: CompletedTrial
    labels: tuple[Label, ...]
    estimate: Array
    std_error: Array
    df: Array
    anchored: Array | None = None

    @property
    def frame(self) -> pd.DataFrame:
        """One row per data set and parameter.

        >>> len(analyses.frame) == analyses.imputations.size * len(analyses.labels)
        True
        """
        K, q = self.estimate.shape
        table = _label_frame(list(self.labels) * K)
        table.insert(0, "imputation", np.repeat(np.arange(K), q))
        return table.assign(estimate=self.estimate.ravel(), std_error=self.std_error.ravel(), df=self.df.ravel())

    def pool(
        self,
        conf_level: float = 0.95,
        alternative: Side = "two-sided",
        *,
        df: str = "barnard-rubin",
        interval: str = "percentile",
        information_anchored: bool = False,
        null: float = 0.0,
    ) -> pd.DataFrame:
        """Pooled estimates: `visit, parameter, arm, estimate, std_error, df, statistic, p_value, conf_low, conf_high, mcse`.

        Parameters
        ----------
        conf_level : float, default 0.95
            Level of the confidence limits.
        alternative : {"two-sided", "less", "greater"}, default "two-sided"
            "two-sided", "less" or "greater"; one-sided limits bound the quantity on the side of the alternative: "greater" from below.
        df : str, default "barnard-rubin"
            Of Rubin's rules: "barnard-rubin", or "rubin" for those of 1987.
        interval : str, default "percentile"
            Of the bootstrap: "percentile" or "normal".
        information_anchored : bool, default False
            Adds standard error and limits that keep the share of information lost at that under missing at random, beside the
            frequentist ones of the resampling.
        null : float, default 0.0
            Value of differences under the hypothesis, with `alternative` that of a trial of non-inferiority: a margin of 2 points where
            more is better is `null=-2, alternative="greater"`. Means are tested against 0.

        Returns
        -------
        DataFrame
            One row for each coefficient.

        Notes
        -----
        `mcse` is the Monte Carlo standard error of the estimate; 0 where nothing is random.

        Examples
        --------
        >>> pooled = analyses.pool()
        >>> pooled["parameter"].unique().tolist()
        ['difference', 'mean']
        >>> bool((analyses.pool(alternative="less", null=5.0)["p_value"] <= analyses.pool(alternative="less")["p_value"]).all())
        True
        """
        require_one_of(alternative, get_args(Side), "alternative")
        two_sided_quantile(conf_level)
        require_flag(information_anchored, "information_anchored")
        rule = self.imputations.replication.rule
        if rule == "single":
            what = "one data set of conditional means has no standard error: estimates alone are given"
            warn_user(BayesLMMWarning(what, "pool", 'impute with resampling="jackknife" or "bootstrap"'))
        nulls = _nulls(self.labels, null)
        table = pooled_table(self.labels, self._pool_estimate(self.estimate, df, interval), conf_level, alternative, nulls)
        if not information_anchored:
            return table
        if self.anchored is None:
            what = "information-anchored standard errors beside the frequentist ones need resampled conditional means, also under MAR"
            raise InferenceError(what, f"rule {rule}", 'impute with method="conditional-mean"; Rubin\'s rules are anchored already')
        own = self._pool_estimate(self.anchored, df, interval)
        low, high = own.limits(conf_level, alternative)
        p = own.p_value(alternative, nulls)
        return table.assign(anchored_std_error=own.std_error, anchored_p_value=p, anchored_conf_low=low, anchored_conf_high=high)

    def monte_carlo_errors(
        self, conf_level: float = 0.95, alternative: Side = "two-sided", *, df: str = "barnard-rubin", null: float = 0.0
    ) -> pd.DataFrame:
        """Monte Carlo standard errors of what Rubin's rules give, by the jackknife over the imputations.

        Parameters
        ----------
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        alternative : {"two-sided", "less", "greater"}, default "two-sided"
            "two-sided", "less" or "greater".
        df : str, default "barnard-rubin"
            Degrees of freedom of Rubin's rules: "barnard-rubin" or "rubin".
        null : float, default 0.0
            Value of differences under the hypothesis, as in `pool`.

        Returns
        -------
        DataFrame
            One row for each coefficient.

        Examples
        --------
        >>> a, b = imp.data(0), imp.data(0).assign(change=imp.data(0)["change"] + 1)
        >>> given = blm.imputations([a, b, a], outcome="change", visit="week", subject="id", treatment="arm")
        >>> given.analyse("change ~ arm + base").monte_carlo_errors().columns.tolist()[3:]
        ['estimate', 'std_error', 'conf_low', 'conf_high', 'p_value']
        """
        require_one_of(alternative, get_args(Side), "alternative")
        two_sided_quantile(conf_level)
        if self.imputations.replication.rule != "rubin":
            raise InferenceError("Monte Carlo errors are those of random imputations", "monte_carlo_errors", 'impute with method="bayes"')
        if len(self.estimate) < 3:
            raise InferenceError("the jackknife over imputations needs three or more", "monte_carlo_errors", "impute more often")
        found = monte_carlo(self.estimate, self.std_error, self.df[0], df, conf_level, alternative, _nulls(self.labels, null))
        return _label_frame(list(self.labels)).assign(**found)

    def _pool_estimate(self, estimate: Array, df: str, interval: str) -> Pooled:
        return pooled_by_rule(self.imputations, Cells(self.labels, estimate, self.std_error, self.df), df, interval)

    def __repr__(self) -> str:
        return f"Analyses({len(self.labels)} parameters of {len(self.estimate)} data sets)"


known_arguments(Analyses, attributes=IMPUTATION_ATTRIBUTES)


def pooled_by_rule(imputations: CompletedTrial, cells: Cells, df: str = "barnard-rubin", interval: str = "percentile") -> Pooled:
    """Pool estimates (K, ...) as the data sets ask for."""
    replication, estimate = imputations.replication, cells.estimate
    require_one_of(df, ("barnard-rubin", "rubin"), "df")
    require_one_of(interval, ("percentile", "normal"), "interval")
    if replication.rule == "jackknife":
        return pool_jackknife(estimate)
    if replication.rule == "bootstrap":
        return pool_bootstrap(estimate, interval)
    if replication.rule == "bootstrap-mi":
        return pool_bootstrap_mi(estimate, replication.D)
    if replication.rule == "rubin":
        return pool_rubin(estimate, cells.std_error, cells.df[0], df)
    nothing = np.full(estimate.shape[1:], np.nan)
    return Pooled(estimate[0], nothing, nothing, np.zeros(estimate.shape[1:]))


def _label_frame(labels: Sequence[Label]) -> pd.DataFrame:
    return pd.DataFrame({name: [label[i] for label in labels] for i, name in enumerate(("visit", "parameter", "arm"))})


def _nulls(labels: Sequence[Label], null: Any) -> Array:
    """(q,) values under the hypothesis: of differences, and of what a function reports, the one given; of means 0."""
    value = require_number(null, "null")
    return np.array([0.0 if label[1] == "mean" and label[2] is not None else value for label in labels])


def pooled_table(labels: Sequence[Label], pooled: Pooled, level: float, alternative: Side, null: Array | float) -> pd.DataFrame:
    """Pooled estimates of one shape (q,) as a table, tested against null."""
    low, high = pooled.limits(level, alternative)
    return _label_frame(labels).assign(
        estimate=pooled.estimate,
        std_error=pooled.std_error,
        df=pooled.df,
        statistic=pooled.statistic(null),
        p_value=pooled.p_value(alternative, null),
        conf_low=low,
        conf_high=high,
        mcse=pooled.mcse,
    )


# -- analysing -----------------------------------------------------------------------------------------------------------------------------


def analyse(
    imputations: CompletedTrial,
    analysis: str | Callable[[pd.DataFrame], Any] | None,
    *,
    by: str | EllipsisType | None,
    covariates: Sequence[str],
    delta: Any,
    weights: str,
    control: Any,
    residual: str | None,
) -> Analyses:
    """`Imputations.analyse`."""
    layout = imputations.layout
    shift = np.zeros(layout.size) if delta is None else read_delta(layout, delta)
    if callable(analysis):
        return _by_function(imputations, analysis, layout.columns.visit if isinstance(by, EllipsisType) else by, shift)
    formula = analysis_formula(layout, analysis, covariates)
    compared = control_arms(layout, control)
    if residual is not None:
        counts, moved = imputations.replication.weights, imputations.values + shift
        labels, tests = analyse_repeated(layout, moved, counts, formula, residual, compared)
        return Analyses(imputations, tuple(labels), tests.estimate, tests.std_error, tests.df)
    if not isinstance(by, EllipsisType) and not (isinstance(by, str) and by == layout.columns.visit):
        raise SpecificationError(
            f"by is {show_value(by)}", "by", f"a formula is fitted at each {layout.columns.visit}; give a function, or residual="
        )
    amounts, every = np.ones((1, 1)), np.arange(layout.size[1])
    cells = ancova_cells(imputations, imputations.values, formula, every, shift[None], amounts, weights, compared)
    anchored = None
    base = anchored_values(imputations)
    if base is not None:
        anchored = ancova_cells(imputations, base, formula, every, shift[None], amounts, weights, compared).estimate[:, 0]
    return Analyses(imputations, cells.labels, cells.estimate[:, 0], cells.std_error[:, 0], cells.df, anchored)


def analysis_formula(layout: Layout, analysis: str | None, covariates: Sequence[str]) -> str:
    """The formula of an analysis: given, or the arm and covariates."""
    if isinstance(covariates, str):
        raise SpecificationError(f"covariates is {covariates!r}", "covariates", f"give a list: [{covariates!r}]")
    covariates = require_names(covariates, "covariates") if not isinstance(covariates, Sequence) or len(covariates) else ()
    outcome = quote_name(layout.columns.outcome)
    if analysis is None:
        columns = [quote_name(one) if one in layout.frame else one for one in (layout.columns.treatment, *covariates)]
        return f"{outcome} ~ {' + '.join(columns)}"
    if not isinstance(analysis, str):
        raise SpecificationError(f"the analysis is a {type(analysis).__name__}", "analysis", "give a formula or a function")
    if covariates:
        raise SpecificationError("covariates are given beside a formula", "covariates", "put them into the formula")
    return analysis if "~" in analysis else f"{outcome} ~ {analysis}"


def anchored_values(imputations: CompletedTrial) -> Array | None:
    """Conditional means at random plus the whole sample's difference between strategy and MAR."""
    trial, parameters = imputations.trial, imputations.parameters
    if trial is None or parameters is None or imputations.replication.rule not in ("jackknife", "bootstrap") or not trial.has_law_at_random:
        return None
    at_random = trial.complete(parameters, at_random=True)
    return np.asarray(at_random + (imputations.values[0] - at_random[0]))


def ancova_cells(
    imputations: CompletedTrial, values: Array, formula: str, visits: Codes, shifts: Array, amounts: Array, weights: str, control: Codes
) -> Cells:
    """ANCOVA at some visits of values (K, N, m) plus amounts (cells, g) times shifts (g, N, m)."""
    layout, counts = imputations.layout, imputations.replication.weights
    wanted = contrasts(layout, control)
    C = np.stack([row for _, _, row in wanted])
    labels, estimates, errors, dfs = [], [], [], []
    for visit in visits:
        design = visit_design(layout, formula, int(visit), values[0, :, visit], counts, weights)
        L = np.einsum("qa,asp->sqp", C, design.means)
        solved = solve(design.X, values[:, :, visit], shifts[:, :, visit], counts)
        estimate, std_error = solved.functions(L, amounts)
        estimates.append(estimate)
        errors.append(std_error)
        dfs.append(np.repeat(solved.df[:, None], len(wanted), axis=1))
        labels += [(layout.visits[visit], kind, layout.arms[arm]) for kind, arm, _ in wanted]
    whole = Cells(tuple(labels), np.concatenate(estimates, axis=-1), np.concatenate(errors, axis=-1), np.concatenate(dfs, axis=-1))
    return _without_lost(whole)


def _without_lost(cells: Cells) -> Cells:
    lost = ~np.isfinite(cells.estimate).all(axis=(1, 2))
    if lost.any():
        what = f"the analysis of {int(lost.sum())} of {len(lost)} data sets failed: a sample has lost a level of a factor"
        raise InferenceError(
            what, f"data sets {', '.join(map(str, np.flatnonzero(lost)[:5]))}", "merge rare levels, or leave the factor out"
        )
    return cells


def read_delta(layout: Layout, delta: Any) -> Array:
    """Amounts (N, m) of a delta frame, or of one number per row of the data."""
    rows = layout.rows.size
    if isinstance(delta, pd.DataFrame):
        c = layout.columns
        lacking = [name for name in (c.subject, c.visit, "delta") if name not in delta.columns]
        if lacking:
            raise DataError(
                f"the delta frame has no column {lacking[0]!r}", "delta", "give what `imputations.delta` makes: subject, visit, delta"
            )
        who = {label_key(label): i for i, label in enumerate(layout.subjects)}
        when = {label_key(label): j for j, label in enumerate(layout.visits)}
        out, seen = np.zeros(layout.size), np.zeros(layout.size, bool)
        for subject, visit, amount in zip(delta[c.subject], delta[c.visit], delta["delta"], strict=True):
            i, j = who.get(label_key(subject), -1), when.get(label_key(visit), -1)
            if i < 0 or j < 0 or seen[i, j]:
                what = f"the delta frame has subject {subject!r} at visit {visit!r} " + (
                    "twice" if i >= 0 <= j else "and the data have not"
                )
                raise DataError(what, "delta", "give one row per subject and visit of the data")
            out[i, j], seen[i, j] = amount, True
        values = out
    else:
        try:
            flat = numbers_of(delta, "delta")
        except SpecificationError:
            raise DataError(f"delta is a {type(delta).__name__}", "delta", "give what `imputations.delta` makes") from None
        if flat.shape != (rows,):
            what = f"delta has shape {flat.shape}, and the data {rows} rows"
            raise DataError(what, "delta", "give one number per row of the data, or what `imputations.delta` makes")
        values = flat[layout.rows]
    if not np.isfinite(values).all():
        raise DataError("delta has values that are missing or infinite", "delta", "give numbers; 0 leaves an outcome as it is")
    return values


# -- functions of the user -----------------------------------------------------------------------------------------------------------------


def _by_function(imputations: CompletedTrial, function: Callable[[pd.DataFrame], Any], by: str | None, shift: Array) -> Analyses:
    layout = imputations.layout
    if by is not None and by not in layout.frame.columns:
        raise SpecificationError(f"by is {by!r}, which is no column", "by", f"columns: {', '.join(map(str, layout.frame.columns))}")
    added, name = shift[layout.order], layout.columns.outcome
    labels: list[tuple[Label, ...]] = []
    rows = []
    for k in range(imputations.size):
        frame = imputations.data(k)
        if shift.any():
            whole = layout.complete_frame(imputations.values[k])
            frame = frame.assign(**{name: frame[name].to_numpy() + _align_amounts(imputations, k, added, whole)})
        parts = [(None, frame)] if by is None else list(frame.groupby(by, observed=True, sort=True))
        found = [one for level, part in parts for one in _read_result(_call_analysis(function, part, k), level)]
        labels.append(tuple(label for label, _ in found))
        rows.append([values for _, values in found])
        if labels[-1] != labels[0]:
            what = f"the function gave other parameters for data set {k} than for the first"
            raise SpecificationError(what, ", ".join(str(label[1]) for label in labels[-1]), "return the same names each time")
    values = np.array(rows, float)
    _require_numbers(values, labels[0], with_errors=imputations.replication.rule == "rubin")
    return Analyses(imputations, labels[0], values[..., 0], values[..., 1], values[..., 2])


def _call_analysis(function: Callable[[pd.DataFrame], Any], frame: pd.DataFrame, k: int) -> Any:
    try:
        return function(frame)
    except BayesLMMError:
        raise
    except Exception as error:
        what = f"the function failed on data set {k}: {type(error).__name__}: {error}"
        raise SpecificationError(what, "analysis", "mend it: it is called with a completed frame of the data") from error


def _require_numbers(values: Array, labels: Sequence[Label], *, with_errors: bool) -> None:
    """Refuse results (K, q, 3) that cannot be pooled: estimates that are none, and where standard errors are pooled, those."""
    estimate, std_error, df = np.moveaxis(values, -1, 0)
    refused = [(~np.isfinite(estimate), "an estimate that is missing or infinite", "return a number for every data set")]
    if with_errors:
        remedy = 'return (estimate, std_error); or impute with method="conditional-mean", whose rules need no standard errors'
        refused.append((~(np.isfinite(std_error) & (std_error >= 0)), "no standard error of 0 or more", remedy))
        refused.append((~(df > 0), "degrees of freedom that are not above 0", "return (estimate, std_error, df)"))
    for wrong, what, remedy in refused:
        if wrong.any():
            k, q = (int(i) for i in np.argwhere(wrong)[0])
            raise SpecificationError(f"the function gave {what}", f"{labels[q][1]} of data set {k}", remedy)


def _align_amounts(imputations: CompletedTrial, k: int, added: Array, whole: pd.DataFrame) -> Array:
    """The amounts of the rows of data set k."""
    weights = imputations.replication.weights
    frame = whole.assign(**{imputations.layout.columns.outcome: added})
    moved = frame if weights is None else resampled_frame(imputations.layout, frame, weights[k])
    return moved[imputations.layout.columns.outcome].to_numpy(float)


def _read_result(result: Any, level: Any) -> list[tuple[Label, tuple[float, float, float]]]:
    """What a function returned: estimate, standard error and degrees of freedom by name."""
    remedy = 'return {"name": (estimate, std_error)} or a frame with columns parameter, estimate, std_error, perhaps df, arm, visit'
    if isinstance(result, pd.DataFrame):
        if "estimate" not in result.columns:
            raise SpecificationError("the function returned a frame without estimate", "analysis", remedy)
        out = []
        for number, row in enumerate(result.to_dict("records")):
            label = (row.get("visit", level), str(row.get("parameter", row.get("term", number))), row.get("arm"))
            out.append((label, (float(row["estimate"]), float(row.get("std_error", np.nan)), float(row.get("df", np.inf)))))
        return out
    if not isinstance(result, Mapping) or not result:
        raise SpecificationError(f"the function returned {type(result).__name__}", "analysis", remedy)
    return [((level, str(name), None), _triple(values, remedy)) for name, values in result.items()]


def _triple(values: Any, remedy: str) -> tuple[float, float, float]:
    if isinstance(values, Mapping) or (isinstance(values, pd.Series) and not is_counted(values.index)):
        values = dict(values)
        if not {"estimate", "est"} & set(values):
            raise SpecificationError(f"the function returned {', '.join(map(str, values)):.60}, and no estimate", "analysis", remedy)
        values = [values.get("estimate", values.get("est")), values.get("std_error", values.get("se", np.nan)), values.get("df", np.inf)]
    try:
        numbers = [float(v) for v in np.atleast_1d(numbers_of(values, "analysis"))]
    except SpecificationError:
        raise SpecificationError("the function returned values that are not numbers", "analysis", remedy) from None
    if not 1 <= len(numbers) <= 3:
        raise SpecificationError(f"the function returned {len(numbers)} numbers for one parameter", "analysis", remedy)
    return (numbers[0], numbers[1] if len(numbers) > 1 else np.nan, numbers[2] if len(numbers) > 2 else np.inf)
