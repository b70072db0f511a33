"""The rows that a PROC MIXED program reads: WHERE, classes as ordered factors, derived columns, BY groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, Mask
from bayeslmm.data.columns import TRANSPORT_ZERO, kind_of, require_labels, series_numbers
from bayeslmm.data.frame import read_table
from bayeslmm.errors import DataError, EmptyDataError, SpecificationError
from bayeslmm.sas.glm_coding import ClassLevels, class_levels, format_level
from bayeslmm.sas.language.program import ByVariable, ClassVariable, DataSetOptions, MixedProgram
from bayeslmm.sas.language.where import columns_in, rows_where
from bayeslmm.sas.translation import Derived, RandomEffect, Translation


@dataclass(frozen=True, slots=True, eq=False)
class ProgramRows:
    """The rows read by one run.

    frame : classes as ordered categories of formatted levels, covariates as numbers, derived columns
    data : the same rows and columns as they were given
    classes : the CLASS variables over these rows, and derived classes
    used : rows without a missing value in the variables of the model
    subjects : (n,) number of the subject of every row, -1 where it is missing; None where all rows are one subject
    """

    frame: pd.DataFrame
    data: pd.DataFrame
    classes: Mapping[str, ClassLevels]
    used: Mask
    subjects: Codes | None

    def at(self, name: str, among: Mask | None = None) -> ClassLevels:
        """A class over the rows used, or over those named."""
        found = self.classes[name]
        return ClassLevels(name, found.levels, found.codes[self.used if among is None else among])

    @property
    def subject_count(self) -> int:
        """Subjects among all rows read; 1 where the program has none."""
        return 1 if self.subjects is None else int(self.subjects.max(initial=-1)) + 1


def whole_frame_of(data: Any) -> pd.DataFrame:
    """All columns of any frame."""
    names = read_table(data, ()).names
    return read_table(data, names).frame.reset_index(drop=True)


def without_transport_zeros(frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The frame with the zeros of SAS transport files as 0, and the columns that had some."""
    found = [name for name in frame.columns if frame[name].dtype.kind == "f" and bool((frame[name].abs() == TRANSPORT_ZERO).any())]
    zeros = {name: frame[name].where(frame[name].abs() != TRANSPORT_ZERO, 0.0) for name in found}
    return frame.assign(**zeros) if found else frame, tuple(map(str, found))


def kept_columns(frame: pd.DataFrame, keep: Sequence[str], drop: Sequence[str]) -> pd.DataFrame:
    """The columns that KEEP= names, in the order of the frame, without those that DROP= names; in any case."""
    lower = [str(name).lower() for name in frame.columns]
    for option, names in (("KEEP=", keep), ("DROP=", drop)):
        _check_columns(option, names, frame)
    wanted, unwanted = {name.lower() for name in keep} or set(lower), {name.lower() for name in drop}
    return frame.loc[:, [name in wanted and name not in unwanted for name in lower]]


def _check_columns(option: str, names: Iterable[str], frame: pd.DataFrame) -> None:
    known = {str(name).lower() for name in frame.columns}
    if stranger := next((name for name in names if name.lower() not in known), None):
        columns = ", ".join(map(str, frame.columns[:20]))
        raise SpecificationError(f"{option} names {stranger}, which is no column", option, f"its columns are {columns}")


def select_columns(frame: pd.DataFrame, options: DataSetOptions) -> pd.DataFrame:
    """The columns of KEEP= and DROP=, under the names of RENAME=."""
    if options == DataSetOptions(where=options.where, first=options.first, last=options.last):
        return frame
    kept = kept_columns(frame, options.keep, options.drop)
    new = {old.lower(): name for old, name in options.rename}
    _check_columns("RENAME=", [old for old, _ in options.rename], kept)
    names = [new.get(str(name).lower(), name) for name in kept.columns]
    if twice := next((name for name in new.values() if names.count(name) > 1), None):
        raise SpecificationError(f"RENAME= makes a second column {twice}", "RENAME=", "give it a name that no other column has")
    return kept.set_axis(names, axis=1)


def select_rows(frame: pd.DataFrame, program: MixedProgram) -> pd.DataFrame:
    """The rows of WHERE statements and WHERE= data set options; of these, those of FIRSTOBS= and OBS=."""
    options = program.proc.data_options
    keep = np.ones(len(frame), dtype=np.bool_)
    for condition in (options.where, program.where):
        if condition is not None:
            keep &= rows_where(condition, {name: _plain(frame[name]) for name in columns_in(condition)})
    if not keep.any():
        what = "the data have no rows" if frame.empty else "no row satisfies the WHERE condition"
        raise EmptyDataError(what, f"{len(frame)} rows read", "compare its values with those of the data; case counts")
    found = frame[keep].iloc[options.first - 1 : options.last].reset_index(drop=True)
    if found.empty:
        last = "" if options.last is None else f" OBS={options.last}"
        raise EmptyDataError(f"FIRSTOBS={options.first}{last} leaves no row", f"{keep.sum()} rows", "OBS= is the number of the last row")
    return found


def _plain(series: pd.Series[Any]) -> NDArray[Any]:
    """Numbers as float64 with NaN, dates and datetimes as datetime64, anything else as objects."""
    if kind_of(series) in ("number", "boolean"):
        return np.asarray(series_numbers(series, str(series.name)).values)
    if kind_of(series) == "time":
        return _times(series)
    return np.asarray(series.astype(object).where(series.notna(), None).to_numpy(), dtype=object)


def _times(series: pd.Series[Any]) -> NDArray[Any]:
    """Dates and datetimes as datetime64 without a time zone; durations and times of day in seconds."""
    plain = series.dt.to_timestamp() if isinstance(series.dtype, pd.PeriodDtype) else series
    if plain.dtype == object and pd.api.types.infer_dtype(plain, skipna=True) == "time":
        plain = pd.to_timedelta(plain.astype("str").where(plain.notna(), None))
    elif plain.dtype.kind not in "mM":
        plain = pd.to_datetime(plain.astype(object))
    if isinstance(plain.dtype, pd.DatetimeTZDtype):
        plain = plain.dt.tz_localize(None)
    return np.asarray(plain.dt.total_seconds() if plain.dtype.kind == "m" else plain.to_numpy())


def by_groups(frame: pd.DataFrame, by: Sequence[ByVariable]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Values of the BY variables and the rows that have them, sorted; a missing value is a group, before all others."""
    if not by:
        yield {}, frame
        return
    names = [variable.name for variable in by]
    if any(variable.unsorted for variable in by):
        yield from _runs(frame, names)
        return
    codes = np.stack([_ranks(frame[variable.name], descending=variable.descending) for variable in by])
    combinations, group = np.unique(codes, axis=1, return_inverse=True)
    for k in range(combinations.shape[1]):
        rows = frame[group.ravel() == k].reset_index(drop=True)
        yield {name: rows[name].iloc[0] for name in names}, rows


def _runs(frame: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """NOTSORTED: rows of the same values that stand together, in their order."""
    codes = np.stack([_ranks(frame[name], descending=False) for name in names])
    starts = np.r_[0, np.flatnonzero((codes[:, 1:] != codes[:, :-1]).any(axis=0)) + 1, len(frame)]
    if np.unique(codes[:, starts[:-1]], axis=1).shape[1] < len(starts) - 1:
        what, remedy = "rows of a BY group do not stand together", "leave NOTSORTED out: groups are then formed by their values"
        raise DataError(what, f"BY {' '.join(names)} NOTSORTED", remedy)
    for start, end in pairwise(starts.tolist()):
        rows = frame.iloc[start:end].reset_index(drop=True)
        yield {name: rows[name].iloc[0] for name in names}, rows


def _ranks(series: pd.Series[Any], *, descending: bool) -> Codes:
    levels = class_levels(ClassVariable(str(series.name)), series.tolist())
    ranks = np.asarray(levels.codes)
    return np.where(ranks < 0, len(levels.levels), len(levels.levels) - 1 - ranks) if descending else ranks


def prepare_rows(data: pd.DataFrame, translation: Translation) -> ProgramRows:
    """Classes, covariates and derived columns of the rows of one run.

    Raises DataError for a text covariate that CLASS does not name, and for a subject outside CLASS whose rows do not stand together.
    """
    program = translation.program
    classes = {variable.name: _class(data, variable, translation) for variable in program.classes}
    frame = data.copy()
    for name, found in classes.items():
        frame[name] = categories(found)
    for name in _covariates(translation):
        frame[name] = _numeric(data, name, as_class=name != program.model.response)
    _check_contiguous(data, translation.contiguous)
    for derived in translation.derived:
        frame[derived.name] = _derive_column(derived, data, classes)
    used = np.asarray(frame[list(model_columns(translation, frame))].notna().all(axis=1), dtype=np.bool_)
    if program.weight:
        # a weight that is missing or not above 0 leaves its row out
        weight = np.asarray(_numeric(data, program.weight, as_class=False))
        frame[program.weight] = np.where(weight > 0, weight, 0.0)
        used = used & (weight > 0)
    if not used.any():
        raise EmptyDataError("no row has a value of every variable of the model", f"{len(frame)} rows read", "see which column is empty")
    return ProgramRows(frame, data, classes, used, _subjects(data, translation.subject, classes))


def categories(found: ClassLevels) -> Any:
    """A class as ordered categories."""
    dtype = pd.CategoricalDtype(list(found.levels), ordered=True)
    return pd.Categorical.from_codes(found.codes.tolist(), dtype=dtype)


def _class(data: pd.DataFrame, variable: ClassVariable, translation: Translation) -> ClassLevels:
    series = data[variable.name]
    require_labels(series, variable.name)
    known = series.cat.categories.tolist() if isinstance(series.dtype, pd.CategoricalDtype) and series.cat.ordered else []
    return class_levels(variable, series.astype(object).tolist(), translation.program.proc.order, known)


def _covariates(translation: Translation) -> list[str]:
    program = translation.program
    effects = [*translation.effects, *(r.effect for r in translation.random)]
    names = [program.model.response, *(name for effect in effects for name in effect.continuous)]
    if program.repeated is not None:
        names += program.repeated.type.coordinates
        names += [e.text for e in program.repeated.dispersion if e.text not in program.class_names]
    return list(dict.fromkeys(names))


def _numeric(data: pd.DataFrame, name: str, *, as_class: bool) -> Array:
    """A column of numbers; as_class : whether it could be a class instead, which a response and a weight cannot."""
    kind = kind_of(data[name])
    if kind in ("text", "factor"):
        shown = ", ".join(map(str, list(dict.fromkeys(data[name].dropna().astype(str)))[:4]))
        remedy = (
            f"add {name} to the CLASS statement" if as_class else f"give it as numbers: data[{name!r}] = pandas.to_numeric(data[{name!r}])"
        )
        raise DataError(f"{name} is text where PROC MIXED needs numbers", f"values {shown}", remedy)
    return np.array(series_numbers(data[name], name).values)


def _check_contiguous(data: pd.DataFrame, names: Sequence[str]) -> None:
    for name in names:
        labels = np.array([format_level(v) for v in data[name].astype(object)], dtype=object)
        starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
        first = labels[starts]
        if len(set(first.tolist())) < len(first):
            again = next(label for k, label in enumerate(first) if label in first[:k])
            raise DataError(
                f"{name} in SUBJECT= is not in CLASS, and the rows of {name} {again} do not stand together",
                f"column {name}",
                f"add {name} to CLASS, or sort the data by {name}: SAS would make a new subject wherever the value changes",
            )


def _derive_column(derived: Derived, data: pd.DataFrame, classes: Mapping[str, ClassLevels]) -> Any:
    if not derived.of:
        return np.ones(len(data), dtype=np.int64)
    parts = [_levels(data, name, classes) for name in derived.of]
    if derived.level is not None:
        codes = parts[0].codes
        indicator = (codes == parts[0].levels.index(derived.level)).astype(np.float64)
        return np.where(codes < 0, np.nan, indicator)
    return categories(combine_classes(derived.name, parts))


def combine_classes(name: str, parts: Sequence[ClassLevels]) -> ClassLevels:
    """The combinations of some classes that occur, as one class; the first varies slowest."""
    codes = np.stack([part.codes for part in parts])
    present = (codes >= 0).all(axis=0)
    found, inverse = np.unique(codes[:, present], axis=1, return_inverse=True)
    out = np.full(codes.shape[1], -1, dtype=np.int64)
    out[present] = inverse.ravel()
    labels = [" ".join(part.levels[k] for part, k in zip(parts, column, strict=True)) for column in found.T]
    return ClassLevels(name, tuple(labels), out)


def _levels(data: pd.DataFrame, name: str, classes: Mapping[str, ClassLevels]) -> ClassLevels:
    return classes[name] if name in classes else class_levels(ClassVariable(name), data[name].astype(object).tolist())


def class_of(rows: ProgramRows, names: Sequence[str]) -> ClassLevels:
    """The combinations of some columns as one class, over all rows read."""
    parts = [_levels(rows.data, name, rows.classes) for name in names]
    return parts[0] if len(parts) == 1 else combine_classes("*".join(names), parts)


def model_columns(translation: Translation, frame: pd.DataFrame) -> tuple[str, ...]:
    """The columns of the model, of which a row that is used misses none."""
    program = translation.program
    effects = [*program.model.effects, *(e for r in program.random for e in r.all_effects)]
    names = [program.model.response, *([program.weight] if program.weight else [])]
    if program.repeated is not None:
        effects += program.repeated.all_effects
        names += program.repeated.type.coordinates
    names += [name for effect in effects for name in effect.variables]
    return tuple(dict.fromkeys(name for name in names if name in frame.columns))


def _subjects(data: pd.DataFrame, names: Sequence[str], classes: Mapping[str, ClassLevels]) -> Codes | None:
    if not names:
        return None
    parts = [_levels(data, name, classes) for name in names]
    return np.asarray((parts[0] if len(parts) == 1 else combine_classes("", parts)).codes)


@dataclass(frozen=True, slots=True, eq=False)
class CellCounts:
    """Columns of Z: one for each level, with a value in the rows of the level.

    codes : (n,) levels; values : (n,)
    """

    codes: Codes
    values: Array


def random_cells(rows: ProgramRows, random: RandomEffect) -> CellCounts:
    """The columns of a random effect over the rows used: a level of its classes within each subject."""
    names = tuple(dict.fromkeys((*random.subject, *random.effect.classes)))
    n = int(rows.used.sum())
    codes = class_of(rows, names).codes[rows.used] if names else np.zeros(n, dtype=np.int64)
    return CellCounts(np.asarray(codes), _product(rows, random.effect.continuous))


def _product(rows: ProgramRows, names: Sequence[str]) -> Array:
    out = np.ones(int(rows.used.sum()))
    for name in names:
        out = out * rows.frame[name].to_numpy(np.float64)[rows.used]
    return out
