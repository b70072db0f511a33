"""A trial as subjects by visits: outcomes, arms, intercurrent events, and the strategy of each with the law that it gives.

With t the first visit affected, mu and S the law of the subject's own arm, mu_ref and S_ref that of the reference arm:

    MAR   mu, S: as if nothing had happened
    JR    mu before t, mu_ref from t on (jump to reference)
    CR    mu_ref throughout (copy reference)
    CIR   mu before t, then mu[t-1] plus the increments of mu_ref (copy increments in reference)
    LMCF  mu before t, then mu[t-1] (last mean carried forward)

JR and CIR keep the subject's own covariance before t and the reference's regression of later visits on earlier ones: with
B = R21 R11^-1, S21 = B S11 and S22 = R22 - B (R11 - S11) B'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, is_covariance, numbers_of
from bayeslmm._validation import require_name, spell
from bayeslmm.errors import DataError, SpecificationError, show_value, spell_out
from bayeslmm.results.fitted import as_pandas

Flags = NDArray[np.bool_]
SHOWN = 5


@dataclass(frozen=True, slots=True)
class TrialColumns:
    """Names of the columns that a trial is read from."""

    outcome: str
    subject: str
    visit: str
    treatment: str


@dataclass(frozen=True, eq=False)
class Layout:
    """N subjects by m visits.

    frame : the data as given, one row per subject and visit; rows : (N, m) position of each cell in it
    y : (N, m) outcomes, NaN where missing; imputed : (N, m) cells that are missing in the data
    arm : (N,) code among `arms`; reference : (arms,) code of each arm's reference
    """

    frame: pd.DataFrame
    columns: TrialColumns
    subjects: tuple[Any, ...]
    visits: tuple[Any, ...]
    arms: tuple[Any, ...]
    rows: Codes
    y: Array
    imputed: Flags
    arm: Codes
    reference: Codes

    @property
    def size(self) -> tuple[int, int]:
        """N and m."""
        return len(self.subjects), len(self.visits)

    @cached_property
    def order(self) -> tuple[Codes, Codes]:
        """Subject and visit of every row of the frame."""
        n = self.rows.size
        subject, visit = np.empty(n, np.int64), np.empty(n, np.int64)
        N, m = self.size
        subject[self.rows.ravel()] = np.repeat(np.arange(N), m)
        visit[self.rows.ravel()] = np.tile(np.arange(m), N)
        return subject, visit

    def complete_frame(self, y: Array) -> pd.DataFrame:
        """The data with outcomes y (N, m) and a column `imputed`."""
        subject, visit = self.order
        frame = self.frame.copy()
        frame[self.columns.outcome] = y[subject, visit]
        frame["imputed"] = self.imputed[subject, visit]
        return frame


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Intercurrent events: first : (N,) first visit affected, m where there is none; strategy : of every subject."""

    first: Codes
    strategy: tuple[Strategy, ...]

    def affected_visits(self, m: int) -> Flags:
        """(N, m) visits on and after the event."""
        return np.asarray(np.arange(m) >= self.first[:, None])


def read_layout(data: Any, columns: TrialColumns, reference: Mapping[Any, Any] | None, visits: Sequence[Any] | None = None) -> Layout:
    """Read a trial.

    visits : the visits in order, where something else than the column knows it
    Errors: `DataError` for absent columns, duplicated or absent rows, subjects without arm or in two; `SpecificationError` for references.
    """
    frame = as_pandas(data)
    for role, name in (
        ("outcome", columns.outcome),
        ("subject", columns.subject),
        ("visit", columns.visit),
        ("treatment", columns.treatment),
    ):
        if require_name(name, role) not in frame.columns:
            raise DataError(f"the data have no column {name!r}", role, f"columns: {', '.join(map(str, frame.columns[:20]))}")
        if role != "outcome" and frame[name].isna().any():
            lost = np.flatnonzero(frame[name].isna())
            what = "subjects without arm" if role == "treatment" else f"rows without {role}"
            raise DataError(
                f"{what}: column {name!r} is missing", f"rows {_list_labels(lost.tolist())}", "fill it in, or drop these subjects"
            )
    if "imputed" in frame.columns and columns.outcome != "imputed":
        frame = frame.drop(columns="imputed")
    subjects, subject = ordered_labels(frame[columns.subject])
    levels, visit = ordered_labels(frame[columns.visit])
    if visits is not None:
        levels, visit = _ordered_as(levels, visit, visits)
    arms, arm_of_row = ordered_labels(frame[columns.treatment])
    rows = _cells(subject, visit, subjects, levels)
    arm = arm_of_row[rows[:, 0]]
    moved = (arm_of_row[rows] != arm[:, None]).any(axis=1)
    if moved.any():
        who = [subjects[i] for i in np.flatnonzero(moved)]
        raise DataError(f"{int(moved.sum())} subjects are in two arms", f"subjects {_list_labels(who)}", "give each subject one arm")
    y = _numbers(frame[columns.outcome], columns.outcome)[rows]
    return Layout(frame, columns, subjects, levels, arms, rows, y, np.isnan(y), arm, _references(arms, reference))


def read_events(layout: Layout, events: Any, default: Strategy) -> Events:
    """The first visit affected and the strategy of each subject; subjects without a row have no event and are MAR.

    Errors: `DataError` for two events of a subject, unknown subjects and visits; `SpecificationError` for unknown strategies.
    """
    N, m = layout.size
    first, strategy = np.full(N, m), list[Strategy](["MAR"] * N)
    default = read_strategy(default)
    if events is None:
        if default != "MAR":
            what = "a strategy without intercurrent events would change nothing"
            raise SpecificationError(what, f"strategy={default!r}, events=None", "give events: a frame of subject and first visit affected")
        return Events(first, tuple(strategy))
    frame, c = as_pandas(events), layout.columns
    for name in (c.subject, c.visit):
        if name not in frame.columns:
            raise DataError(f"the events have no column {name!r}", "events", "give one row per event: subject, first visit affected")
    for name in frame.columns:
        if name not in (c.subject, c.visit, "strategy") and _means_strategy(frame[name], name):
            raise DataError(f"column {name!r} of the events reads as strategies", "events", 'call it "strategy", or leave it out')
    who = {label_key(label): i for i, label in enumerate(layout.subjects)}
    when = {label_key(label): j for j, label in enumerate(layout.visits)}
    own = frame["strategy"].tolist() if "strategy" in frame.columns else [None] * len(frame)
    for subject, visit, event in zip(frame[c.subject], frame[c.visit], own, strict=True):
        chosen = default if _absent(event) else read_strategy(event)
        if label_key(subject) not in who:
            raise DataError(f"the events name subject {subject!r}, which the data do not have", "events", "drop the row, or mend the label")
        i = who[label_key(subject)]
        if _absent(visit):
            what = f"subject {subject!r} has a strategy but no visit of an event"
            raise DataError(what, "events", "give the first visit affected, or leave the row out: such a subject is MAR")
        if label_key(visit) not in when:
            where = f"visits: {', '.join(map(str, layout.visits))}"
            raise DataError(f"the event of subject {subject!r} is at visit {visit!r}, which does not exist", where, "use one of the visits")
        if first[i] < m:
            raise DataError(f"subject {subject!r} has two events", "events", "keep one row per subject: the first visit affected")
        first[i], strategy[i] = when[label_key(visit)], chosen
    found = Events(first, tuple(strategy))
    check_events(layout, found)
    return found


def _means_strategy(column: pd.Series[Any], name: Any) -> bool:
    """Whether a column that would not be read has the name of the strategies or their words."""
    if isinstance(name, str) and spell(name) in ("strategy", "strategies"):
        return True
    labels = [label for label in column.tolist() if not _absent(label)]
    return bool(labels) and all(isinstance(label, str) and spell(label) in STRATEGY_WORDS for label in labels)


def read_strategy(strategy: Any) -> Strategy:
    """The strategy, also by its long name or the name that other packages have for it.

    Errors: `SpecificationError` for what is none, with the nearest word.

    >>> read_strategy("J2R"), read_strategy("copy increments in reference")
    ('JR', 'CIR')
    """
    if callable(strategy):
        own: StrategyFunction = strategy
        return own
    word = spell(strategy) if isinstance(strategy, str) else ""
    if word in STRATEGY_WORDS:
        return STRATEGY_WORDS[word]
    near = get_close_matches(word, STRATEGY_WORDS, n=1)
    meant = f"did you mean {STRATEGY_WORDS[near[0]]!r}? " if near else ""
    known = ", ".join(f"{name!r} ({long})" for name, long in LONG_NAMES.items())
    raise SpecificationError(f"{show_value(strategy)} is no strategy", "strategy", f"{meant}use one of {known}, or a function")


def check_events(layout: Layout, events: Events) -> None:
    """Refuse strategies that a subject's event or arm does not allow."""
    for i in np.flatnonzero(events.first < len(layout.visits)):
        name, subject, arm = events.strategy[i], layout.subjects[i], layout.arms[layout.arm[i]]
        if (callable(name) or name in REFERENCE_BASED) and layout.reference[layout.arm[i]] < 0:
            what = f"strategy {name!r} of subject {subject!r} needs a reference for arm {arm!r}"
            raise SpecificationError(what, "reference", f"give reference={{{arm!r}: ...}}")
        if name == "LMCF" and events.first[i] == 0:
            what = f"LMCF carries the last mean forward, and subject {subject!r} has the event at the first visit"
            raise SpecificationError(what, "events", "use another strategy for this subject, such as 'CIR' or 'JR'")


def _references(arms: tuple[Any, ...], reference: Mapping[Any, Any] | None) -> Codes:
    out = np.full(len(arms), -1)
    if reference is None:
        return out
    if not isinstance(reference, Mapping):
        what = f"reference is a {type(reference).__name__}"
        raise SpecificationError(what, "reference", "give a mapping from each arm to its reference, such as {'DRUG': 'PLACEBO'}")
    code = {label_key(arm): i for i, arm in enumerate(arms)}
    for arm, other in reference.items():
        for label in (arm, other):
            if label_key(label) not in code:
                raise SpecificationError(f"reference names arm {label!r}", f"arms: {', '.join(map(str, arms))}", "use the arms of the data")
        out[code[label_key(arm)]] = code[label_key(other)]
    for other in reference.values():
        if out[code[label_key(other)]] < 0:
            out[code[label_key(other)]] = code[label_key(other)]
    lacking = [arms[i] for i in np.flatnonzero(out < 0)]
    if lacking:
        what = f"reference lacks arm {', '.join(map(repr, lacking))}"
        raise SpecificationError(what, "reference", f"add {lacking[0]!r}: the arm that it is compared with")
    return out


def control_arms(layout: Layout, control: Any) -> Codes:
    """(arms,) the arm that each is compared with."""
    if control is None:
        first = np.zeros(len(layout.arms), np.int64)
        return np.where(layout.reference >= 0, layout.reference, first) if (layout.reference >= 0).any() else first
    known = {label_key(arm): i for i, arm in enumerate(layout.arms)}
    if label_key(control) not in known:
        raise SpecificationError(
            f"{show_value(control)} is no arm", f"arms: {', '.join(map(str, layout.arms))}", "give one of the arms as control"
        )
    return np.full(len(layout.arms), known[label_key(control)])


def with_arm(column: pd.Series[Any], arms: tuple[Any, ...], codes: Codes) -> Any:
    """The column of the arms with other arms, of the same type."""
    labels = pd.Series(arms, dtype=object).to_numpy()[codes]
    if isinstance(column.dtype, pd.CategoricalDtype):
        return pd.Categorical(labels, categories=column.cat.categories, ordered=column.cat.ordered)
    return pd.Series(labels, index=column.index).astype(column.dtype)


def resampled_frame(layout: Layout, frame: pd.DataFrame, weights: Array) -> pd.DataFrame:
    """Rows of the subjects of a sample; further copies of a subject are told apart by a number behind its label."""
    counts = np.asarray(weights, np.int64)[layout.order[0]]
    if counts.max() <= 1:
        return frame[counts > 0]
    parts = []
    for copy in range(1, int(counts.max()) + 1):
        part = frame[counts >= copy]
        if copy > 1:
            name = layout.columns.subject
            part = part.assign(**{name: [f"{label} ({copy})" for label in part[name]]})
        else:
            part = part.astype({layout.columns.subject: object})
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def ordered_labels(column: pd.Series[Any]) -> tuple[tuple[Any, ...], Codes]:
    """Labels in order (categories where there are some, those that occur) and the code of each row."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes = np.asarray(column.cat.codes, np.int64)
        seen = np.unique(codes)
        return tuple(column.cat.categories[i] for i in seen), np.searchsorted(seen, codes)
    values = np.empty(len(column), object)
    values[:] = _plain(column)
    try:
        labels, codes = np.unique(values, return_inverse=True)
    except TypeError:
        where = f"column {column.name!r}"
        raise DataError("labels of different kinds cannot be put in order", where, "make them all text or all numbers") from None
    return tuple(labels.tolist()), codes.astype(np.int64).ravel()


def _ordered_as(levels: tuple[Any, ...], codes: Codes, wanted: Sequence[Any]) -> tuple[tuple[Any, ...], Codes]:
    place = {label_key(label): i for i, label in enumerate(wanted)}
    lost = [label for label in levels if label_key(label) not in place]
    if lost:
        what = f"no outcome is observed at visit {', '.join(map(str, lost))}"
        raise DataError(what, "the law of its outcomes cannot be estimated", "drop the visit")
    order = np.argsort([place[label_key(label)] for label in levels])
    rank = np.empty(len(levels), np.int64)
    rank[order] = np.arange(len(levels))
    return tuple(levels[i] for i in order), rank[codes]


def _cells(subject: Codes, visit: Codes, subjects: tuple[Any, ...], visits: tuple[Any, ...]) -> Codes:
    N, m = len(subjects), len(visits)
    count = np.bincount(subject * m + visit, minlength=N * m).reshape(N, m)
    if (count > 1).any():
        i, j = np.argwhere(count > 1)[0]
        what = f"{int((count > 1).sum())} cells have several rows"
        raise DataError(what, f"the first: subject {subjects[i]!r}, visit {visits[j]!r}", "keep one row per subject and visit")
    if (count == 0).any():
        i, j = np.argwhere(count == 0)[0]
        what = f"{int((count == 0).sum())} cells have no row"
        raise DataError(
            what,
            f"the first: subject {subjects[i]!r}, visit {visits[j]!r}",
            "add rows with the outcome missing and the covariates filled in",
        )
    rows = np.empty((N, m), np.int64)
    rows[subject, visit] = np.arange(N * m)
    return rows


def _numbers(column: pd.Series[Any], name: str) -> Array:
    try:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise DataError(f"the outcome {name!r} is not numbers", f"dtype {column.dtype}", "make it numbers: pd.to_numeric") from None
    if np.isinf(values).any():
        raise DataError(f"the outcome {name!r} is infinite", f"rows {_list_labels(np.flatnonzero(np.isinf(values)).tolist())}", "mend it")
    return np.asarray(values)


def _plain(column: pd.Series[Any]) -> list[Any]:
    """Labels, whole numbers as integers."""
    return [_whole(label) for label in column.tolist()]


def _whole(label: Any) -> Any:
    return int(label) if isinstance(label, float) and label.is_integer() else label


def label_key(label: Any) -> str:
    """What a label of a subject, visit or arm is known by, in whatever column or argument it stands: 1, 1.0 and "1" are one.

    >>> label_key(1.0), label_key("w1")
    ('1', 'w1')
    """
    return spell_out(_whole(label))


def strategy_name(strategy: Strategy) -> str:
    """How a strategy is spoken of: its word, or the name of the function."""
    return str(getattr(strategy, "__name__", strategy))


def _absent(value: Any) -> bool:
    return value is None or (not callable(value) and bool(pd.isna(value)))


def _list_labels(labels: Sequence[Any]) -> str:
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return ", ".join(map(str, labels[:SHOWN])) + more


StrategyName = Literal["MAR", "JR", "CR", "CIR", "LMCF"]
StrategyFunction = Callable[[Array, Array, Array, Array, int], tuple[Array, Array]]
Strategy = StrategyName | StrategyFunction

REFERENCE_BASED = frozenset({"JR", "CR", "CIR"})
"""Strategies that need to know the reference arm."""

LONG_NAMES: dict[StrategyName, str] = {
    "MAR": "missing at random",
    "JR": "jump to reference",
    "CR": "copy reference",
    "CIR": "copy increments in reference",
    "LMCF": "last mean carried forward",
}
"""Every strategy and what it stands for."""

STRATEGY_WORDS: dict[str, StrategyName] = {
    **{spell(word): name for name, long in LONG_NAMES.items() for word in (name, long)},
    **dict.fromkeys(("j2r", "jtr", "jump2reference", "jump-2-reference", "jump-to-ref"), "JR"),
    **dict.fromkeys(("copy-increment-in-reference", "copy-increments-from-reference", "copy-increment-from-reference"), "CIR"),
    **dict.fromkeys(("copy-increments-to-reference", "copy-increments-reference", "copy-increment-reference"), "CIR"),
}
"""Strategy by every word for it: ours, what it stands for, and the words of mimix, RefBasedMI and SAS's macros, as `spell` makes them."""


def means_read(strategy: Strategy, first: int, m: int) -> tuple[slice, slice]:
    """The visits whose own mean, and whose reference's mean, a strategy takes; m : number of visits.

    >>> means_read("JR", 2, 4), means_read("CIR", 2, 4)
    ((slice(0, 2, None), slice(2, 4, None)), (slice(0, 2, None), slice(1, 4, None)))
    """
    if strategy == "MAR":
        return slice(0, m), slice(0, 0)
    if strategy == "CR":
        return slice(0, 0), slice(0, m)
    if strategy == "LMCF":
        return slice(0, first), slice(0, 0)
    if callable(strategy):
        return slice(0, m), slice(0, m)
    return slice(0, first), slice(max(first - 1, 0) if strategy == "CIR" else first, m)


def strategy_mean(name: str, mean: Array, reference: Array, first: int) -> Array:
    """The mean over the visits (..., m) under a strategy, from the subject's own mean and the reference's.

    first : position of the first visit affected

    >>> strategy_mean("CIR", np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.5, 0.7]), 2).round(1).tolist()
    [1.0, 2.0, 2.2]
    """
    if name == "MAR":
        return mean
    if name == "CR":
        return reference
    before, after = mean[..., :first], reference[..., first:]
    if name == "CIR" and first:
        after = after + mean[..., first - 1 : first] - reference[..., first - 1 : first]
    elif name == "LMCF":
        after = np.broadcast_to(mean[..., first - 1 : first], after.shape)
    return np.concatenate([before, after], axis=-1)


def strategy_covariance(name: str, own: Array, reference: Array, first: int) -> Array:
    """The covariance over the visits (..., m, m) under a strategy.

    >>> strategy_covariance("JR", np.eye(2), 4.0 * np.eye(2), 1).tolist()
    [[1.0, 0.0], [0.0, 4.0]]
    """
    if name in ("MAR", "LMCF"):
        return own
    if name == "CR" or first == 0:
        return reference
    S11, R11 = own[..., :first, :first], reference[..., :first, :first]
    B = np.linalg.solve(R11, reference[..., :first, first:]).swapaxes(-1, -2)
    S21 = B @ S11
    S22 = reference[..., first:, first:] - B @ (R11 - S11) @ B.swapaxes(-1, -2)
    return np.concatenate([np.concatenate([S11, S21.swapaxes(-1, -2)], axis=-1), np.concatenate([S21, S22], axis=-1)], axis=-2)


def own_law(strategy: StrategyFunction, law: tuple[Array, Array, Array, Array], first: int) -> tuple[Array, Array]:
    """What a user's strategy makes of one subject's law (mean, covariance, reference mean, reference covariance), checked.

    Errors: `SpecificationError` where it does not return a mean and a covariance of the visits.
    """
    name, m = getattr(strategy, "__name__", "strategy"), len(law[0])
    own_mean, own_covariance, other_mean, other_covariance = (part.copy() for part in law)
    try:
        found: Any = strategy(own_mean, own_covariance, other_mean, other_covariance, first)
    except Exception as error:
        what = f"the strategy {name} failed: {type(error).__name__}: {error}"
        raise SpecificationError(
            what, "strategy", "it is called with (mean, covariance, reference_mean, reference_covariance, first)"
        ) from error
    remedy = "return (mean, covariance): the mean of every visit, and their covariance matrix"
    if not (isinstance(found, tuple) and len(found) == 2):
        raise SpecificationError(f"the strategy {name} returned {type(found).__name__}", "strategy", remedy)
    try:
        mean, covariance = (numbers_of(part, name) for part in found)
    except SpecificationError:
        raise SpecificationError(f"the strategy {name} did not return numbers", "strategy", remedy) from None
    if mean.shape != (m,) or covariance.shape != (m, m):
        where = f"mean of shape {mean.shape}, covariance of shape {covariance.shape}, {m} visits"
        raise SpecificationError(f"the strategy {name} returned the wrong shapes", where, remedy)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise SpecificationError(f"the strategy {name} returned values that are not finite", "strategy", remedy)
    if not is_covariance(covariance):
        raise SpecificationError(f"the strategy {name} returned a matrix that is no covariance", "strategy", remedy)
    return mean, 0.5 * (covariance + covariance.T)
