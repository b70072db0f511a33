"""The imputation model of a trial: its fit, the law of every subject, and what is imputed under it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes, Generator
from bayeslmm.data.expressions import atom_name
from bayeslmm.data.frame import read_table
from bayeslmm.data.notes import order_by_number, ordered_factor
from bayeslmm.errors import BayesLMMWarning, ConvergenceError, DataError, SpecificationError, show_value, warn_user
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.inference.intervals.resampling import VisitParameters, visit_parameters
from bayeslmm.inference.means.linear_functions import restrict_to_kept
from bayeslmm.results.fitted import as_pandas
from bayeslmm.results.predict import row_labels
from bayeslmm.trials.layout import (
    REFERENCE_BASED,
    Events,
    Flags,
    Layout,
    Strategy,
    TrialColumns,
    check_events,
    label_key,
    means_read,
    own_law,
    read_events,
    read_layout,
    read_strategy,
    strategy_covariance,
    strategy_mean,
    strategy_name,
    with_arm,
)

if TYPE_CHECKING:
    from bayeslmm._types import FitMethod, Frame
    from bayeslmm.data.design import Design


class VisitModel(Protocol):
    """What imputation asks of an `LMM`."""

    @property
    def design(self) -> Design: ...
    @property
    def formula(self) -> str: ...
    @property
    def given_offset(self) -> bool: ...
    @property
    def data(self) -> Frame: ...
    def fit(self, method: FitMethod = "REML") -> Any: ...
    def updated(self, formula: str | None = None, data: Frame | None = None, changes: Mapping[str, object] | None = None) -> VisitModel: ...


@dataclass(frozen=True, slots=True, eq=False)
class Law:
    """What the imputation model says of every subject: columns of the mean, own arm and reference arm, (N, m, p); offset (N, m).

    group, reference_group : (N,) group of parameters of R
    estimable, reference_estimable : (N, m) which means the outcomes of the fit tell
    """

    X: Array
    X_reference: Array
    offset: Array
    group: Codes
    reference_group: Codes
    estimable: Flags
    reference_estimable: Flags


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Subjects whose imputation is the same linear map: what they observed, what is missing, and under what."""

    subjects: Codes
    observed: Codes
    missing: Codes
    strategy: Strategy
    first: int
    group: int
    reference_group: int


@dataclass(frozen=True, eq=False)
class TrialModel:
    """A trial, its events, the fit of its imputation model, and what that says of every subject.

    fitted_subject : (N,) position of each subject among those of the fit, -1 where nothing of it is in the fit
    """

    layout: Layout
    events: Events
    fit: Any
    law: Law
    fitted_subject: Codes

    @cached_property
    def whole(self) -> VisitParameters:
        """The parameters estimated."""
        fit = self.fit
        return visit_parameters(fit.problem, fit.estimate.x[None], np.array([fit.point.sigma2]), fit.point.state.solution.alpha)

    def with_events(self, strategy: Strategy | None, events: Any) -> TrialModel:
        """The trial under other strategies, where they leave the same outcomes out of the fit."""
        layout, before = self.layout, self.events
        if events is None:
            chosen, m = read_strategy(strategy), len(layout.visits)
            found = Events(before.first, tuple(chosen if first < m else "MAR" for first in before.first))
            check_events(layout, found)
        else:
            found = read_events(layout, events, "MAR" if strategy is None else strategy)
        if not np.array_equal(left_out(layout, found), left_out(layout, before)):
            what = "these strategies leave other outcomes out of the imputation model"
            raise SpecificationError(what, "outcomes after an event are in its fit under MAR alone", "impute anew with blm.impute")
        law = _law(layout, found, self.fit)
        _require_estimable(layout, found, law)
        return replace(self, events=found, law=law)

    @property
    def has_law_at_random(self) -> bool:
        """Whether the own means of every subject imputed can be estimated, also where its strategy does not take them."""
        return bool(self.law.estimable[self.layout.imputed.any(axis=1)].all())

    def tasks(self, at_random: bool = False) -> list[Task]:
        """What is to be imputed."""
        layout, law = self.layout, self.law
        found: dict[Any, list[int]] = {}
        for i in np.flatnonzero(layout.imputed.any(axis=1)):
            name: Strategy = "MAR" if at_random else self.events.strategy[i]
            first = -1 if name == "MAR" else int(self.events.first[i])
            groups = int(law.group[i]), int(law.reference_group[i])
            found.setdefault((layout.imputed[i].tobytes(), name, first, groups), []).append(int(i))
        out = []
        for (_, name, first, (group, reference)), members in found.items():
            lost = layout.imputed[members[0]]
            out.append(Task(np.array(members), np.flatnonzero(~lost), np.flatnonzero(lost), name, first, group, reference))
        return out

    def complete(self, parameters: VisitParameters, rng: Generator | None = None, at_random: bool = False) -> Array:
        """Completed outcomes (B, N, m) at B sets of parameters: conditional means, or draws; at_random: MAR whatever the strategies."""
        y, law = self.layout.y, self.law
        out = np.repeat(y[None], parameters.size, axis=0)
        for task in self.tasks(at_random):
            i = task.subjects
            mean = np.tensordot(parameters.alpha, law.X[i], (1, 2)) + law.offset[i]
            reference = np.tensordot(parameters.alpha, law.X_reference[i], (1, 2)) + law.offset[i]
            own, other = parameters.R[:, task.group], parameters.R[:, task.reference_group]
            if callable(task.strategy):
                mean, S = _own_laws(task, mean, own, reference, other)
            else:
                mean = strategy_mean(task.strategy, mean, reference, task.first)
                S = strategy_covariance(task.strategy, own, other, task.first)[:, None]
            out[:, i[:, None], task.missing] = _impute_missing(mean, S, y[i], task, rng)
        return out


def _own_laws(task: Task, mean: Array, own: Array, reference: Array, other: Array) -> tuple[Array, Array]:
    """Laws by a user's function, subject by subject: (B, n, m) and (B, n, m, m)."""
    assert callable(task.strategy)
    B, n, m = mean.shape
    means, covariances = np.empty((B, n, m)), np.empty((B, n, m, m))
    for b in range(B):
        for i in range(n):
            law = (mean[b, i], own[b], reference[b, i], other[b])
            means[b, i], covariances[b, i] = own_law(task.strategy, law, task.first)
    return means, covariances


def _impute_missing(mean: Array, S: Array, y: Array, task: Task, rng: Generator | None) -> Array:
    """Missing outcomes (B, n, missing) given the observed ones; S (B, 1 or n, m, m)."""
    o, u = task.observed, task.missing
    found, left = mean[..., u], S[..., u[:, None], u]
    if len(o):
        A = np.linalg.solve(S[..., o[:, None], o], S[..., o[:, None], u]).swapaxes(-1, -2)
        found = found + (A @ (y[:, o] - mean[..., o])[..., None])[..., 0]
        left = left - A @ S[..., o[:, None], u]
    if rng is None:
        return found
    root = np.linalg.cholesky(0.5 * (left + left.swapaxes(-1, -2)))
    return np.asarray(found + (root @ rng.standard_normal(found.shape)[..., None])[..., 0])


def read_imputation_model(
    model: Any, treatment: str, reference: Mapping[Any, Any] | None, events: Any, strategy: Strategy, criterion: str
) -> TrialModel:
    """Read the trial of a model, and fit the imputation model.

    Errors: `SpecificationError` for models that are none of visits, `DataError` for what the data lack.
    """
    if not hasattr(model, "design") or not hasattr(model, "data"):
        remedy = 'give an LMM of the visits, with residual="us(VISIT | PATIENT)"'
        raise SpecificationError(f"model is {show_value(model)}", "model", "give fit.model" if hasattr(model, "model") else remedy)
    design = model.design
    residual = design.residual
    if residual is None or not residual.spec.subject or len(residual.spec.visit) != 1 or len(residual.spec.subject) != 1:
        what = "the imputation model has no residual structure over the visits of its subjects"
        raise SpecificationError(what, f"model {model.formula}", 'write residual="us(VISIT | PATIENT)", with one column each')
    if design.terms or design.variance or design.weights is not None:
        what = "random effects, variance functions and weights have no place in an imputation model"
        raise SpecificationError(what, f"model {model.formula}", "leave the covariance of the visits to the residual structure")
    if model.given_offset:
        raise SpecificationError("the offset was given as an array", "offset", "give it as a column, which rows without outcome have too")
    columns = TrialColumns(atom_name(design.spec.formula.response), residual.spec.subject[0], residual.spec.visit[0], treatment)
    data = model.data
    frame = read_table(data, ()).frame
    if columns.outcome not in frame.columns:
        what = f"the outcome {columns.outcome!r} is an expression"
        raise SpecificationError(what, f"model {model.formula}", "make it a column of the data: imputed values are on its scale")
    if "imputed" in design.encoding.fixed_block.columns:
        what = "the formula reads column 'imputed', which says in completed data what was imputed"
        raise SpecificationError(what, f"model {model.formula}", "rename the column")
    layout = _read(frame, columns, reference, residual)
    events = None if events is None else as_pandas(events)
    better = _order_of_time(layout) if events is not None and len(events) else ()
    if better:
        visits = pd.Categorical(frame[columns.visit], better, ordered=True)
        model = model.updated(None, frame.assign(**{columns.visit: visits}), {})
        layout = _read(model.data, columns, reference, model.design.residual)
    found = read_events(layout, events, strategy)
    _require_arms(layout)
    fit = _fit_at_random(model, layout, found, criterion)
    labels = {label_key(label): i for i, label in enumerate(fit.design.residual.subject.levels)}
    place = np.array([labels.get(label_key(label), -1) for label in layout.subjects])
    law = _law(layout, found, fit)
    _require_estimable(layout, found, law)
    return TrialModel(layout, found, fit, law, place)


def _read(frame: pd.DataFrame, columns: TrialColumns, reference: Mapping[Any, Any] | None, residual: Any) -> Layout:
    if residual.visit is not None:
        return read_layout(frame, columns, reference, residual.visit_levels)
    return read_layout(frame, columns, reference, [int(v) if v.is_integer() else v for v in np.unique(residual.coords).tolist()])


def _order_of_time(layout: Layout) -> tuple[str, ...]:
    """Visits in the order of their numbers where their factor has that of text, with a warning; empty where they stand in order.

    A factor made of text without saying more has week 12 before week 2, and an event affects the visits after it.

    Errors: `DataError` for text without an order.
    """
    name, visits = layout.columns.visit, layout.visits
    column, better = layout.frame[name], order_by_number(visits)
    where, remedy = f"visits: {', '.join(map(str, visits))}", f"data[{name!r}] = {ordered_factor(name, better)}"
    if len(visits) > 1 and not isinstance(column.dtype, pd.CategoricalDtype) and not pd.api.types.is_numeric_dtype(column.dtype):
        what = f"an event says which visits it affects, and column {name!r} is text without an order"
        raise DataError(what, where, f"give an ordered factor: {remedy}")
    if better:
        what = f"an event affects the visits after it, and those of {name!r} stand in the order of text: their numbers order them here"
        warn_user(BayesLMMWarning(what, where, f"say so yourself: {remedy}"))
    return better


def _require_arms(layout: Layout) -> None:
    for code, arm in enumerate(layout.arms):
        own = ~layout.imputed[layout.arm == code]
        if not own.any():
            what = f"no outcome is observed in arm {arm!r}"
            raise DataError(what, "its means cannot be estimated", "drop the arm")


def left_out(layout: Layout, events: Events) -> Flags:
    """(N, m) outcomes that the imputation model is not fitted to: those after events that are not missing at random."""
    lost = events.affected_visits(len(layout.visits)) & ~layout.imputed
    return np.asarray(lost & np.array([name != "MAR" for name in events.strategy])[:, None])


def _fit_at_random(model: Any, layout: Layout, events: Events, criterion: str) -> Any:
    """The fit without outcomes after events that are not missing at random."""
    lost = left_out(layout, events)
    if lost.any():
        y = np.where(lost, np.nan, layout.y)
        subject, visit = layout.order
        model = model.updated(None, layout.frame.assign(**{layout.columns.outcome: y[subject, visit]}), {})
    fit = require_finished(model.fit(criterion))
    if not fit.converged:
        what = "the imputation model did not converge"
        raise ConvergenceError(what, f"fit of {model.formula}", "use a structure with fewer parameters", fit)
    return fit


def _law(layout: Layout, events: Events, fit: Any) -> Law:
    design, frame, name = fit.design, layout.frame, layout.columns.treatment
    reads_arm = name in design.encoding.fixed_block.columns
    used = [s for s, first in zip(events.strategy, events.first, strict=True) if first < len(layout.visits)]
    if not reads_arm and any(callable(s) or s in REFERENCE_BASED for s in used):
        what = f"the fixed effects do not read the arm {name!r}, so that no reference differs from any arm"
        remedy = f"put {name} into the formula, with the visit: {name} * {layout.columns.visit}"
        raise SpecificationError(what, f"model {fit.formula}", remedy)
    other = np.where(layout.reference >= 0, layout.reference, np.arange(len(layout.arms)))[layout.arm]
    moved = frame.assign(**{name: with_arm(frame[name], layout.arms, other[layout.order[0]])})
    X, offset, group, estimable = _encode_means(layout, fit, frame)
    X_reference, _, reference_group, reference_estimable = _encode_means(layout, fit, moved)
    return Law(X, X_reference, offset, group, reference_group, estimable, reference_estimable)


def _encode_means(layout: Layout, fit: Any, frame: pd.DataFrame) -> tuple[Array, Array, Codes, Flags]:
    """Columns of the mean (N, m, p), offset (N, m), group of parameters (N,), and which means are estimable (N, m)."""
    design, rows = fit.design, layout.rows
    every = design.encoding.encode_fixed(frame)[0]
    whole, estimable = restrict_to_kept(every, design, fit.problem.standardization)
    offset = design.encoding.offset(frame)
    lost = np.isnan(whole).any(axis=1) | (False if offset is None else np.isnan(offset))
    if lost.any():
        which = [c for c in design.encoding.fixed_block.columns if frame[c].isna().any()]
        what = f"covariates are missing in {int(lost.sum())} rows: {', '.join(which) or 'offset'}"
        shown = ", ".join(map(str, np.flatnonzero(lost)[:5]))
        raise DataError(what, f"rows {shown}", "an outcome is imputed from its covariates: fill them in, or drop these subjects")
    group = np.zeros(len(rows), np.int64)
    if design.residual.group is not None:
        names = design.residual.spec.group
        known = {label: i for i, label in enumerate(design.residual.group.levels)}
        labels = row_labels(read_table(frame, names), names, len(frame))
        unknown = sorted({str(label) for label in labels if label not in known})
        if unknown:
            what = f"the covariance of {', '.join(unknown)} cannot be estimated: no outcome of it is in the fit"
            raise DataError(what, ", ".join(names), "use one covariance for all arms")
        group = np.array([known[label] for label in labels])[rows[:, 0]]
    return whole[rows], np.zeros(rows.shape) if offset is None else offset[rows], group, estimable[rows]


def _require_estimable(layout: Layout, events: Events, law: Law) -> None:
    """Refuse strategies that take a mean which the outcomes of the fit do not tell: of an arm at a visit where nothing of it is left."""
    m = len(layout.visits)
    if law.estimable.all() and law.reference_estimable.all():
        return
    for i in np.flatnonzero(layout.imputed.any(axis=1)):
        name, first = events.strategy[i], int(events.first[i])
        for part, known, arm in zip(
            means_read(name, first, m),
            (law.estimable[i], law.reference_estimable[i]),
            (layout.arm[i], layout.reference[layout.arm[i]]),
            strict=True,
        ):
            lost = np.flatnonzero(~known[part])
            if len(lost):
                visit = layout.visits[part.start + int(lost[0])]
                what = f"the mean of arm {layout.arms[arm]!r} at visit {visit!r} cannot be estimated"
                where = f"strategy {strategy_name(name)} of subject {layout.subjects[i]!r}; no outcome of the fit tells it"
                raise DataError(
                    what, where, "drop the visit, leave the interaction out of the formula, or use a strategy without this mean"
                )
