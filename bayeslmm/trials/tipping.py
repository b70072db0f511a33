"""Delta adjustment: amounts added to imputed outcomes, and the amount at which the conclusion of a trial tips."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes, numbers_of
from bayeslmm._types import Side
from bayeslmm._validation import require_flag, require_number, require_one_of
from bayeslmm.errors import DataError, InferenceError, SpecificationError, printable_text, show_value
from bayeslmm.results.foreign_names import IMPUTATION_ATTRIBUTES, known_arguments
from bayeslmm.results.predict import two_sided_quantile
from bayeslmm.results.render import html_of_frame
from bayeslmm.trials.analyses import Cells, CompletedTrial, analysis_formula, ancova_cells, pooled_by_rule, pooled_table
from bayeslmm.trials.layout import Layout, control_arms, label_key
from bayeslmm.trials.pooling import Pooled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MOST = 100_000
"""Points of a grid."""


def delta_frame(
    imputations: CompletedTrial, delta: Any, lag: Sequence[float] | None, *, missing_only: bool, after_event: bool
) -> pd.DataFrame:
    """`Imputations.delta`."""
    layout = imputations.layout
    for name, value in (("missing_only", missing_only), ("after_event", after_event)):
        require_flag(value, name)
    values = _by_arm(imputations, delta, after_event, missing_only) if isinstance(delta, Mapping) else None
    if values is not None and lag is not None:
        raise SpecificationError("lag goes with one amount per visit", "lag", "leave it out: amounts by arm do not accumulate")
    if values is None:
        values = _accumulate(imputations, delta, lag, missing_only=missing_only)
    subject, visit = layout.order
    c = layout.columns
    return layout.frame[[c.subject, c.visit]].assign(delta=values[subject, visit])


def _first(imputations: CompletedTrial) -> Codes:
    N, m = imputations.layout.size
    return np.full(N, m) if imputations.trial is None else imputations.trial.events.first


def _by_arm(imputations: CompletedTrial, delta: Mapping[Any, float], after_event: bool, missing_only: bool) -> Array:
    layout = imputations.layout
    amounts = np.zeros(len(layout.arms))
    known = {label_key(arm): i for i, arm in enumerate(layout.arms)}
    for arm, amount in delta.items():
        if label_key(arm) not in known:
            raise SpecificationError(f"delta names arm {arm!r}", f"arms: {', '.join(map(str, layout.arms))}", "use the arms of the data")
        amounts[known[label_key(arm)]] = _amount(amount)
    return np.asarray(amounts[layout.arm][:, None] * _adjusted_cells(imputations, after_event, missing_only))


def _adjusted_cells(imputations: CompletedTrial, after_event: bool, missing_only: bool = True) -> Array:
    """(N, m) 1 where an amount is added."""
    layout = imputations.layout
    after = np.arange(layout.size[1]) >= _first(imputations)[:, None]
    cells = layout.imputed & after if after_event else layout.imputed
    return np.asarray(cells if missing_only else cells | after, float)


def _accumulate(imputations: CompletedTrial, delta: Any, lag: Any, *, missing_only: bool) -> Array:
    layout = imputations.layout
    N, m = layout.size
    amounts, weights = _per_visit(delta, m, "delta"), _per_visit([1.0] + [0.0] * (m - 1) if lag is None else lag, m, "lag")
    out = np.zeros((N, m))
    for i, first in enumerate(_first(imputations)):
        if first < m:
            out[i, first:] = np.cumsum(weights[: m - first] * amounts[first:])
    return np.where(layout.imputed, out, 0.0) if missing_only else out


def _per_visit(values: Any, m: int, name: str) -> Array:
    try:
        out = numbers_of(values, name)
    except SpecificationError:
        raise SpecificationError(f"{name} is not numbers", name, "give one number per visit, or a mapping from arms to numbers") from None
    if out.shape != (m,):
        raise DataError(f"{name} has shape {out.shape}, and there are {m} visits", name, "give one number per visit")
    if not np.isfinite(out).all():
        raise DataError(f"{name} has values that are not finite", name, "give numbers")
    return out


def _amount(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise SpecificationError(f"the amount {value!r} is no number", "delta", "give one number per arm") from None
    if not np.isfinite(number):
        raise SpecificationError(f"the amount is {number}", "delta", "give a finite number")
    return number


@dataclass(frozen=True, slots=True, eq=False)
class Tipping:
    """Pooled differences over a grid of amounts added to imputed outcomes.

    Examples take `table = imp.tipping(range(6), "change ~ arm + base")`.

    Attributes
    ----------
    frame : DataFrame
        `delta_<arm>` for each arm of the grid, then `visit, arm, estimate, std_error, df, statistic, p_value, conf_low, conf_high`.
    """

    frame: pd.DataFrame
    axes: tuple[str, ...]
    conf_level: float

    @property
    def points(self) -> pd.DataFrame:
        """Where the conclusion changes along the first amount: `visit, arm`, the other amount, and the amount between the points of the
        grid at which p is 1 - conf_level (p linear between them).

        >>> table.points.columns.tolist()
        ['visit', 'arm', 'delta_drug', 'from_significant']
        """
        name, others = self.axes[0], list(self.axes[1:])
        limit, rows = 1.0 - self.conf_level, []
        for keys, own in self.frame.groupby(["visit", "arm", *others], observed=True, sort=False):
            x, p = own[name].to_numpy(float), own["p_value"].to_numpy(float)
            for a in np.flatnonzero((p[:-1] < limit) != (p[1:] < limit)):
                at = x[a] + (limit - p[a]) / (p[a + 1] - p[a]) * (x[a + 1] - x[a])
                rows.append((*keys, at, bool(p[a] < limit)))
        return pd.DataFrame(rows, columns=["visit", "arm", *others, name, "from_significant"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """One amount: the difference and its limits along it; two: the p value over both, with the border of significance.

        Parameters
        ----------
        ax : Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = table.plot()
        """
        from bayeslmm.trials.report import tipping_figure

        return tipping_figure(self.frame, self.axes, self.conf_level, ax)

    def _repr_html_(self) -> str:
        return html_of_frame("Tipping point", self.frame)

    def __repr__(self) -> str:
        return printable_text(f"Tipping({len(self.frame)} points over {', '.join(self.axes)})\n{self.frame.to_string(max_rows=20)}")


known_arguments(Tipping, attributes=IMPUTATION_ATTRIBUTES)


def tip_deltas(
    imputations: CompletedTrial,
    grid: Any,
    analysis: str | None,
    *,
    covariates: Sequence[str],
    visit: Any,
    arms: Sequence[Any] | None,
    after_event: bool,
    weights: str,
    control: Any,
    conf_level: float,
    alternative: Side,
    null: float,
) -> Tipping:
    """`Imputations.tipping`."""
    layout = imputations.layout
    require_one_of(alternative, get_args(Side), "alternative")
    two_sided_quantile(conf_level)
    require_flag(after_event, "after_event")
    null = require_number(null, "null")
    if imputations.replication.rule == "single":
        what = "one data set of conditional means has no p value to tip"
        raise InferenceError(what, "tipping", 'impute with resampling="jackknife"')
    compared = control_arms(layout, control)
    groups, numbers = _grid(layout, grid, arms, compared)
    formula = analysis_formula(layout, analysis, covariates)
    touched = _adjusted_cells(imputations, after_event)
    shifts = np.stack([np.isin(layout.arm, group)[:, None] * touched for group in groups])
    amounts = np.array(list(product(*numbers)))
    visits = _visits(layout, visit)
    names = tuple("delta_" + "_".join(str(layout.arms[a]) for a in group) for group in groups)
    cells = ancova_cells(imputations, imputations.values, formula, visits, shifts, amounts, weights, compared)
    chosen = [i for i, label in enumerate(cells.labels) if label[1] == "difference"]
    part = Cells(tuple(cells.labels[i] for i in chosen), cells.estimate[..., chosen], cells.std_error[..., chosen], cells.df[:, chosen])
    pooled = pooled_by_rule(imputations, part)
    frame = pooled_table(list(part.labels) * len(amounts), _flat(pooled), conf_level, alternative, null)
    frame = frame.drop(columns=["parameter", "mcse"])
    for i, name in reversed(list(enumerate(names))):
        frame.insert(0, name, np.repeat(amounts[:, i], len(chosen)))
    return Tipping(frame, names, conf_level)


def _flat(pooled: Pooled) -> Pooled:
    draws = None if pooled.draws is None else pooled.draws.reshape(len(pooled.draws), -1)
    df = np.broadcast_to(pooled.df, pooled.estimate.shape)
    return Pooled(pooled.estimate.ravel(), pooled.std_error.ravel(), df.ravel(), pooled.mcse.ravel(), draws)


def _grid(layout: Layout, grid: Any, arms: Sequence[Any] | None, control: Codes) -> tuple[list[Codes], list[Array]]:
    """Arms that share an amount, and the amounts in order, each once."""
    known = {label_key(arm): i for i, arm in enumerate(layout.arms)}

    def codes(labels: Any) -> Codes:
        if not isinstance(labels, Collection):
            raise SpecificationError(f"arms is {show_value(labels)}", "arms", "give a list of arms of the data")
        labels = [labels] if isinstance(labels, str) else list(labels)
        unknown = [label for label in labels if label_key(label) not in known]
        if unknown:
            what = f"the grid names arm {unknown[0]!r}"
            raise SpecificationError(what, f"arms: {', '.join(map(str, layout.arms))}", "use the arms of the data")
        return np.array([known[label_key(label)] for label in labels], np.int64)

    if isinstance(grid, Mapping):
        if not 1 <= len(grid) <= 2 or arms is not None:
            what = "a grid of amounts by arm takes one or two arms" if arms is None else "arms go with a grid of numbers"
            raise SpecificationError(what, "grid", "give {arm: amounts} for one or two arms")
        groups, numbers = [codes([arm]) for arm in grid], [_amounts(values) for values in grid.values()]
    else:
        treated = [layout.arms[a] for a in range(len(layout.arms)) if control[a] != a]
        groups, numbers = [codes(treated if arms is None else arms)], [_amounts(grid)]
    if int(np.prod([len(n) for n in numbers])) > MOST:
        raise SpecificationError(f"the grid has more than {MOST} points", "grid", "give fewer amounts")
    return groups, numbers


def _amounts(values: Any) -> Array:
    out = np.atleast_1d(numbers_of(values, "the grid", labelled=True))
    if out.ndim != 1 or not len(out) or not np.isfinite(out).all():
        raise SpecificationError("a grid is a list of finite numbers", "grid", "give numbers, such as range(-5, 6)")
    return np.unique(out)


def _visits(layout: Layout, visit: Any) -> Codes:
    if visit is None:
        return np.array([layout.size[1] - 1])
    wanted = [visit] if isinstance(visit, str) or not isinstance(visit, Sequence) else list(visit)
    known = {label_key(label): j for j, label in enumerate(layout.visits)}
    if not wanted:
        raise SpecificationError("no visit is named", "visit", f"visits: {', '.join(map(str, layout.visits))}")
    unknown = [label for label in wanted if label_key(label) not in known]
    if unknown:
        raise SpecificationError(
            f"there is no visit {show_value(unknown[0])}", f"visits: {', '.join(map(str, layout.visits))}", "use one of them"
        )
    return np.array([known[label_key(label)] for label in wanted])
