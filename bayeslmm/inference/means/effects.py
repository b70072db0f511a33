"""Means along the variables of a term, differences of levels along another variable, differences within subgroups: tables of figures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm._types import GridWeights
from bayeslmm._validation import require_mapping, require_name, require_names
from bayeslmm.data.design import Design
from bayeslmm.data.expressions import read_atom
from bayeslmm.errors import FormulaError, SpecificationError, show_value
from bayeslmm.inference.means.marginal_means import EMMeans
from bayeslmm.inference.means.reference_grid import GRID_ELEMENTS, check_variable, grid_factors
from bayeslmm.plots.effects import is_ordered

LINE_POINTS = 60
"""Values of a variable of numbers at which a line is computed."""

VISITS = 20
"""Distinct numbers up to which a variable is taken for visits: differences are at each of them."""


type AskMeans = Callable[[Sequence[str], Sequence[str], Mapping[str, Any], GridWeights], Any]
"""Means of variables, within the levels of others, at values, with weights: `emmeans` with everything else settled."""


@dataclass(frozen=True, slots=True, eq=False)
class AlongTable:
    """Estimates along a variable.

    frame : x, lines, parts, `estimate, conf_low, conf_high`; x : along the axis; lines : one each; parts : a panel each
    """

    frame: pd.DataFrame
    x: str
    lines: tuple[str, ...]
    parts: tuple[str, ...]
    notes: tuple[str, ...]

    def label(self, scale: str) -> str:
        """What differences are, on the scale of the model where the table names none."""
        named = str(self.frame.attrs.get("scale", scale))
        return named if self.null else f"difference, {named}"

    @property
    def null(self) -> float:
        """The value of no difference."""
        return float(self.frame.attrs.get("null", 0.0))


def fixed_variables(design: Design) -> tuple[str, ...]:
    """Columns that the fixed effects read, factors first."""
    return (*grid_factors(design), *design.encoding.covariates)


def _in_order(names: Any, argument: str) -> list[str]:
    """One name or several in an order, of which a set or a mapping has none."""
    if not isinstance(names, str) and not isinstance(names, Sequence | pd.Index | pd.Series | np.ndarray):
        raise SpecificationError(f"{argument} is {show_value(names)}", argument, "give a name, or a list of names")
    return require_names(names, argument)


def term_variables(design: Design, term: Any) -> tuple[str, ...]:
    """The columns of a term of the fixed effects, `arm:visit` or `poly(day, 2)`; or columns named one by one.

    Raises SpecificationError for what is none.
    """
    known = fixed_variables(design)
    if not isinstance(term, str):
        return tuple(dict.fromkeys(check_variable(name, known) for name in _in_order(term, "term")))
    if require_name(term, "term") in known:
        return (term,)
    found: list[str] = []
    for part in _factors_of(term.replace("~", ""), ":*|", known):
        found += _columns(part, known)
    return tuple(dict.fromkeys(found))


def _factors_of(term: str, marks: str, known: Sequence[str]) -> list[str]:
    """The factors of a term: what stands between marks that are not within brackets, backticks or the name of a column."""
    odd = sorted((name for name in known if any(mark in name for mark in marks)), key=len, reverse=True)
    parts, depth, quoted, i = [""], 0, False, 0
    while i < len(term):
        whole = next((name for name in odd if term.startswith(name, i)), None) if not parts[-1].strip() else None
        letter = whole or term[i]
        if whole is None:
            quoted ^= letter == "`"
            depth += 0 if quoted else (letter in "([{") - (letter in ")]}")
        if whole is None and letter in marks and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
        i += len(letter)
    return [part.strip() for part in parts]


def _columns(part: str, known: Sequence[str]) -> list[str]:
    """Columns of one factor of a term."""
    try:
        columns = [part] if part in known else [name for name in read_atom(part).columns if name in known]
    except FormulaError:
        columns = []
    return columns or [check_variable(part, known)]


def arrange(design: Design, names: Sequence[str], x: str | None) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The variable along the axis, those with a line for each level, and those with a panel.

    Along the axis: x; else the first of numbers with more than two values, the first with an order, the one with most levels.
    """
    if not names:
        raise SpecificationError("no variable is named", "term", "name a term of the fixed effects")
    if x is not None and require_name(x, "x") not in names:
        raise SpecificationError(f"the term has no variable {x!r}", "x", "use one of " + ", ".join(map(repr, names)))
    levels, covariates = grid_factors(design), design.encoding.covariates
    numbers = [name for name in names if name in covariates and not covariates[name].binary]
    ordered = [name for name in names if name in levels and is_ordered(design, name)]
    widest = max(names, key=lambda name: len(levels.get(name, (0, 1))))
    along = x if x is not None else next(iter([*numbers, *ordered, widest]))
    others = [name for name in names if name != along]
    return along, tuple(others[:1]), tuple(others[1:])


def values_between(design: Design, name: str) -> tuple[float, ...]:
    """Three values of a covariate, for a line each: its mean and a standard deviation to either side, within its range."""
    covariate = design.encoding.covariates[name]
    if covariate.binary:
        return tuple(dict.fromkeys((covariate.low, covariate.high)))
    sd = float(design.spanning_frame[name].to_numpy(float).std())
    ends = max(covariate.low, covariate.mean - sd), min(covariate.high, covariate.mean + sd)
    return tuple(dict.fromkeys(float(f"{value:.4g}") for value in (ends[0], covariate.mean, ends[1])))


def range_values(design: Design, name: str, taken: Mapping[str, Any]) -> Array:
    """Values over the range of a covariate: as many as the grid of all levels has room for.

    taken : the values of other variables
    """
    covariate = design.encoding.covariates[name]
    others = [len(found) for other, found in grid_factors(design).items() if other not in taken]
    others += [2 for other, c in design.encoding.covariates.items() if c.binary and other not in taken and other != name]
    rows = float(np.prod([*others, *map(len, taken.values())], dtype=float)) * max(1, len(design.coef_names))
    return np.linspace(covariate.low, covariate.high, int(np.clip(GRID_ELEMENTS // max(rows, 1.0), 2, LINE_POINTS)))


def _estimable(ask: AskMeans, names: Sequence[str], by: Sequence[str], at: Mapping[str, Any], weights: GridWeights) -> Any:
    """The means; over the cells that the data have, by their frequencies, where none is estimable over all."""
    found = ask(names, by, at, weights)
    if weights == "equal" and found.frame["estimate"].isna().all():
        return ask(names, by, at, "proportional")
    return found


def effect_table(
    design: Design, ask: AskMeans, names: Sequence[str], x: str | None, at: Mapping[str, Any] | None, weights: GridWeights
) -> AlongTable:
    """Means over the levels and ranges of variables, averaged over the rest as marginal means are."""
    along, lines, parts = arrange(design, names, x)
    values_at = require_mapping(at, "at", '{"x": [0, 1]}')
    for name in (*lines, *parts):
        if name in design.encoding.covariates:
            values_at.setdefault(name, values_between(design, name))
    covariates = design.encoding.covariates
    if along in covariates and not covariates[along].binary and along not in values_at:
        taken = {name: np.atleast_1d(np.asarray(values, dtype=object)) for name, values in values_at.items()}
        values_at[along] = range_values(design, along, taken)
    found = _estimable(ask, (along, *lines, *parts), (), values_at, weights)
    return AlongTable(found.frame, along, lines, parts, (*shown_notes(found), *held_notes(design, (along, *lines, *parts), values_at)))


def line_table(design: Design, ask: AskMeans, x: str, by: str | None, at: Mapping[str, Any] | None, weights: GridWeights) -> AlongTable:
    """The line of the population along x, one for each level of a variable of the fixed effects; without x where they do not read it."""
    known, covariates = fixed_variables(design), design.encoding.covariates
    values_at = require_mapping(at, "at", '{"x": [0, 1]}')
    names = [name for name in dict.fromkeys((x, by)) if name is not None and name in known]
    if by in covariates and by not in values_at:
        values_at[by] = np.unique(design.frame[by].to_numpy(float))
    if x in covariates and x not in values_at:
        taken = {name: np.atleast_1d(np.asarray(values, dtype=object)) for name, values in values_at.items()}
        values_at[x] = range_values(design, x, taken)
    found = _estimable(ask, names, (), values_at, weights)
    lines = tuple(name for name in names if name != x)
    return AlongTable(found.frame, x, lines, (), (*shown_notes(found), *held_notes(design, names, values_at)))


def interaction_p_value(means: EMMeans) -> float:
    """p value of the F test that differences between means are the same within every level of `by`; NaN where they cannot be had."""
    groups = means._groups()
    gaps = [means.L[rows[1:]] - means.L[rows[:1]] for rows in groups]
    alike = [gap for gap in gaps if len(gap) == len(gaps[0])]
    rows = np.concatenate([gap - alike[0] for gap in alike[1:]]) if len(alike) > 1 else np.zeros((0, means.L.shape[1]))
    rows = rows[np.isfinite(rows).all(axis=1)]
    return float(means.effects.joint(rows).p_value) if len(rows) else np.nan


def difference_table(
    design: Design,
    ask: AskMeans,
    differ: Callable[[Any], pd.DataFrame],
    specs: Any,
    by: Any,
    at: Mapping[str, Any] | None,
    weights: GridWeights,
) -> AlongTable:
    """Differences between the levels of `specs` along `by`, a line for each; of two variables that interact where none is named.

    differ : the differences of means
    """
    wanted, along = _difference_variables(design, specs, by)
    values_at = require_mapping(at, "at", '{"x": [0, 1]}')
    for name in along:
        if name in design.encoding.covariates and name not in values_at:
            values_at[name] = _visit_values(design, name) if name == along[0] else values_between(design, name)
    for name in wanted:
        if name in design.encoding.covariates:
            values_at.setdefault(name, values_between(design, name))
    found = _estimable(ask, wanted, along, values_at, weights)
    table = _require_contrasts(differ(found))
    x = along[0] if along else "contrast"
    lines = ("contrast",) if along else ()
    met = {name for names in interactions(design) if set(names) & set(wanted) for name in names}
    notes = (*_frame_notes(table), *held_notes(design, (*wanted, *along), values_at, met))
    return AlongTable(table, x, lines, tuple(along[1:]), notes)


def _require_contrasts(table: pd.DataFrame) -> pd.DataFrame:
    """The table, unless no contrast was asked for."""
    if not len(table):
        raise SpecificationError("no contrast is asked for", "method", 'use "trt.vs.ctrl", "pairwise", or a mapping of label to weights')
    return table


def _visit_values(design: Design, name: str) -> Array:
    """The values of a covariate where they are few, as days of visits are; else its range."""
    places = np.unique(design.spanning_frame[name].to_numpy(float))
    return places if design.in_memory and len(places) <= VISITS else range_values(design, name, {})


def _difference_variables(design: Design, specs: Any, by: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    known = fixed_variables(design)
    along = () if by is None else tuple(check_variable(name, known) for name in _in_order(by, "by"))
    if specs is not None:
        wanted = tuple(check_variable(name, known) for name in _in_order(specs, "specs"))
        return tuple(name for name in wanted if name not in along), along
    pairs = interactions(design)
    residual = design.spec.residual
    visits = set(() if residual is None else residual.visit)
    for pair in pairs:
        ordered = [name for name in pair if name in visits] or [name for name in pair if is_ordered(design, name)]
        time = along[0] if along and along[0] in pair else next(iter(ordered), None)
        others = [name for name in pair if name != time and name in grid_factors(design)]
        if time is not None and others and (not along or time in along):
            return (others[0],), along or (time,)
    raise SpecificationError(
        "no factor interacts with a variable that has an order", "specs, by", 'name them: differences("arm", by="visit")'
    )


def interactions(design: Design) -> list[tuple[str, ...]]:
    """The variables of every term of the fixed effects that has several."""
    known = fixed_variables(design)
    found = []
    for term in dict.fromkeys(design.coef_terms):
        parts = [name for part in _factors_of(term, ":", known) for name in _variables_of(part, known)]
        if len(set(parts)) > 1:
            found.append(tuple(dict.fromkeys(parts)))
    return found


def _variables_of(part: str, known: Sequence[str]) -> list[str]:
    try:
        return [part] if part in known else [name for name in read_atom(part).columns if name in known]
    except FormulaError:
        return []


def subgroup_table(
    design: Design,
    ask: AskMeans,
    differ: Callable[[Any], pd.DataFrame],
    interaction: Callable[[Any], float],
    treatment: Any,
    factors: Any,
    at: Mapping[str, Any] | None,
    weights: GridWeights,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Differences between treatments, of all and within the levels of each factor that the model lets them differ between.

    differ : differences of means; interaction : p value of the test that they are the same within all levels

    Raises SpecificationError for a factor that does not interact with the treatment: its differences are alike by assumption.
    """
    levels = grid_factors(design)
    name = check_variable(require_name(treatment, "treatment"), fixed_variables(design))
    if name not in levels:
        raise SpecificationError(f"{name!r} is a covariate", "treatment", "name a factor, whose levels are compared")
    partners = dict.fromkeys(part for term in interactions(design) if name in term for part in term if part != name)
    if factors is None:
        chosen = [part for part in partners if part in levels and not is_ordered(design, part)]
    else:
        chosen = [check_variable(each, tuple(levels)) for each in require_names(factors, "factors")]
    for each in chosen:
        if each not in partners:
            what = f"the model has no interaction of {name} and {each}: their differences are alike by assumption"
            raise SpecificationError(what, "factors", f'fit.update(formula=". ~ . + {name}:{each}") lets them differ')
    if not chosen:
        raise SpecificationError(f"no factor interacts with {name}", "factors", f'fit.update(formula=". ~ . + {name}:factor") adds one')
    values_at = require_mapping(at, "at", '{"x": [0, 1]}')
    overall = _estimable(ask, (name,), (), values_at, weights)
    parts = [_require_contrasts(differ(overall)).assign(subgroup="", level="all", n=_group_count(design, None), p_value=np.nan)]
    for each in chosen:
        means = _estimable(ask, (name,), (each,), values_at, weights)
        table = differ(means)
        counts = _group_count(design, each)
        numbers = [np.nan if counts is None else counts.get(str(level), 0.0) for level in table[each]]
        parts.append(table.assign(subgroup=each, level=table[each].astype(str), n=numbers, p_value=interaction(means)))
    columns = ["subgroup", "level", "contrast", "estimate", "conf_low", "conf_high", "n", "p_value"]
    table = pd.concat([pd.DataFrame(part).reindex(columns=columns) for part in parts], ignore_index=True)
    return table, _frame_notes(parts[0])


def _group_count(design: Design, factor: str | None) -> Any:
    """How many levels of the top grouping factor, or rows without one, there are in all and at each level of a factor."""
    if not design.in_memory:
        return np.nan if factor is None else None
    if design.residual is not None:
        codes = design.residual.subject.codes
    elif design.terms:
        codes = max((term.group for term in design.terms), key=lambda group: group.size).codes
    else:
        codes = np.arange(design.nobs)
    if factor is None:
        return float(len(np.unique(codes)))
    frame = pd.DataFrame({"group": codes, "level": design.frame[factor].astype(str).to_numpy()})
    return frame.groupby("level")["group"].nunique().astype(float).to_dict()


def _frame_notes(frame: pd.DataFrame) -> tuple[str, ...]:
    """Notes of a table that a figure repeats: what is averaged over, on which scale, adjusted how."""
    return tuple(note for note in getattr(frame, "notes", ()) if not note.startswith("degrees of freedom"))


def shown_notes(means: Any) -> tuple[str, ...]:
    """The same of means."""
    return _frame_notes(means.frame)


def held_notes(design: Design, names: Sequence[str], at: Mapping[str, Any], among: Collection[str] | None = None) -> tuple[str, ...]:
    """Covariates that are held at one value, and at which. among : those of consequence, all without"""
    told_of = [name for name in fixed_variables(design) if name not in names and (among is None or name in among)]
    averaged = [name for name, covariate in design.encoding.covariates.items() if not covariate.binary]
    held = [name for name in told_of if name not in at and name in averaged]
    single = [f"{name} = {at[name]}" for name in told_of if name in at and np.ndim(at[name]) == 0]
    notes = (f"{', '.join(held)} at the mean" if len(held) == 1 else f"{', '.join(held)} at their means",) if held else ()
    return (*notes, *single)
