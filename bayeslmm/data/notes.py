"""Notes about a design, and the reasons why the likelihood alone would not identify its parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations, permutations
from typing import Any

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.registry import (
    absorbs_constant,
    absorbs_identity,
    fits_series,
    goes_through,
    is_one_variance,
    is_unstructured,
    needs_order,
)
from bayeslmm.data.columns import TRANSPORT_ZERO, Columns, are_codes
from bayeslmm.data.design import RandomTerm, ResidualDesign
from bayeslmm.data.frame import skeleton
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.data.identifiability import CONDITION_LIMIT, GIVE_PRIORS, Rank, column_rank, lag_without_pairs, outcomes_apart
from bayeslmm.data.model_matrix import DesignBlock
from bayeslmm.data.variables import FactorVariable, NumericVariable
from bayeslmm.errors import Check, IdentifiabilityError

_MANY_VISITS = 100
_FEW_VALUES = 6
_FEW_LABELS = 50
_FEW_WITHIN = 5  # labels that are counted anew in each group, as casks in batches, are few; items that all subjects see are many

# ----------------------------------------------------------------------------------------------------------------- notes


def column_notes(source: Columns, factors: Iterable[str], fixed: DesignBlock, random: Iterable[DesignBlock] = ()) -> list[Check]:
    """Notes about single columns: unused levels, near twins, empty labels, integers that may be labels, text that may be numbers."""
    unused, twins, empty = {}, {}, []
    atoms = [atom for block in (fixed, *random) for atom in block.atoms.values()]
    bare = dict.fromkeys(atom.column for atom in atoms if isinstance(atom, FactorVariable) and atom.name == atom.column)
    codes = tuple(name for name in bare if _holds_codes(source, name))
    for name in dict.fromkeys(factors):
        column = source.read_factor(name)
        if column.kind == "factor" and (absent := source.absent(name)) is not None:
            unused[name] = tuple(column.levels[absent])
        near = near_twins(column.levels.tolist())
        if near:
            twins[name] = near
        if column.missing is not None and "" in column.levels.tolist():
            empty.append(name)
    integers = {
        atom.name: count
        for atom in fixed.atoms.values()
        if isinstance(atom, NumericVariable)
        and source.read_numbers(atom.name).integer
        and (count := _few_values(source.numbers(atom.name)))
    }
    tiny = tuple(name for name in dict.fromkeys((*fixed.columns, *factors)) if _has_transport_zeros(source, name))
    notes = (
        ("unused_levels", unused, None, "levels that no row has are left out"),
        (
            "near_twin_levels",
            twins,
            None,
            "these labels differ only in case, blanks or look-alike letters: clean them if they are one level",
        ),
        (
            "empty_labels",
            tuple(empty),
            None,
            "the empty text is a level of its own beside missing labels: make it missing if it means that",
        ),
        ("numbers_as_text", codes, None, "text is a factor, also where it reads as numbers: pandas.to_numeric makes a covariate of it"),
        (
            "transport_zeros",
            tiny,
            None,
            "zeros of SAS transport files as pandas reads them: data = data.replace(2.0**-260, 0.0)",
        ),
        ("few_integer_values", integers, _FEW_VALUES, "integers are numbers: write C(x) if they are labels"),
    )
    return [Check(name, "noted", value, limit, remedy) for name, value, limit, remedy in notes if value]


def _has_transport_zeros(source: Columns, name: str) -> bool:
    """Whether a column of floats has the number that a reader of transport files makes of 0."""
    values = source.table.series(name).to_numpy() if source.kind(name) == "number" else None
    if values is None or values.dtype.kind != "f":
        return False
    return bool((values == TRANSPORT_ZERO).any())


def _holds_codes(source: Columns, name: str) -> bool:
    column = source.read_factor(name)
    return column.kind == "text" and are_codes(column.levels)


def near_twins(levels: Sequence[Any]) -> tuple[tuple[str, ...], ...]:
    """Groups of labels that differ only in case, in blanks at their ends, or in characters that print alike."""
    if not levels or not isinstance(levels[0], str):
        return ()
    texts = [str(level) for level in levels]
    plain = "".join(texts).isascii()
    folded = [text.strip().casefold() if plain else skeleton(text).strip().casefold() for text in texts]
    if len(set(folded)) == len(texts):
        return ()
    groups: dict[str, list[str]] = {}
    for key, text in zip(folded, texts, strict=True):
        groups.setdefault(key, []).append(text)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _few_values(values: Array) -> int:
    """The number of distinct values if it is 3 to 6, else 0; 0/1 is the same as a number and as a factor."""
    if len(set(values[:32].tolist())) > _FEW_VALUES or _distinct(values[:1000]) > _FEW_VALUES:
        return 0
    count = _distinct(values)
    return count if 2 < count <= _FEW_VALUES else 0


def _distinct(values: Array) -> int:
    ordered = np.sort(values)
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + 1


_NUMBERED = re.compile(r"(\D*)(\d+(?:\.\d+)?)(.*)", re.DOTALL)


def order_by_number(levels: Sequence[Any]) -> tuple[str, ...]:
    """Labels that stand as text is sorted, in the order of their numbers instead; empty where that is no other order.

    >>> order_by_number(["base", "w12", "w2", "w4"])
    ('base', 'w2', 'w4', 'w12')
    """
    if not all(isinstance(level, str) for level in levels):
        return ()
    texts = [str(level) for level in levels]
    if texts not in (sorted(texts), sorted(texts, key=str.casefold)):
        return ()
    alike: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for place, text in enumerate(texts):
        found = _NUMBERED.fullmatch(text)
        if found is not None:
            alike.setdefault((found[1].casefold(), found[3].casefold()), []).append((float(found[2]), place))
    out = list(texts)
    for members in alike.values():
        for place, (_, source) in zip(sorted(place for _, place in members), sorted(members), strict=True):
            out[place] = texts[source]
    return () if out == texts else tuple(out)


def ordered_factor(column: str, levels: Sequence[str]) -> str:
    """What makes a column of text an ordered factor, with its levels where they are known."""
    return f"pandas.Categorical(data[{column!r}], categories={list(levels) if levels else '[...]'}, ordered=True)"


def order_note(columns: Mapping[str, Sequence[Any]], matters: bool) -> list[Check]:
    """A note about columns of visits, with their levels in order, whose labels stand as text is sorted and not by their numbers.

    matters : whether the model depends on the order
    """
    moved = {column: better for column, levels in columns.items() if (better := order_by_number(levels))}
    if not moved:
        return []
    column, better = next(iter(moved.items()))
    value = {name: tuple(columns[name]) for name in moved}
    remedy = f"this order is followed; if the numbers tell the right one, data[{column!r}] = {ordered_factor(column, better)}"
    return [Check("visit_order" if matters else "visit_labels", "noted", value, remedy=remedy)]


def residual_order_note(residual: ResidualDesign) -> list[Check]:
    """`order_note` about the visits of the errors."""
    if len(residual.axes) != len(residual.spec.visit):
        return []
    visits = list(zip(residual.spec.visit, residual.axes, strict=True))
    # in a product the steps are those of the last factor
    return order_note(dict(visits[-1:] if "@" in residual.name else visits), needs_order(residual.name))


def design_notes(found: Rank, names: tuple[str, ...], terms: tuple[RandomTerm, ...], structured: bool) -> list[Check]:
    """Notes about the design as a whole: aliased columns, condition, factors of two levels, no random term, labels used again.

    structured : whether the errors have a structure
    """
    notes = []
    if len(found.kept) < len(names):
        aliased = tuple(name for i, name in enumerate(names) if i not in set(found.kept))
        notes.append(Check("aliased_columns", "noted", aliased, remedy="they depend on earlier columns; their coefficients are NaN"))
    notes.append(_condition_check(found.condition))
    groups = {term.group.name: term.group for term in terms}
    pairs = {name: group.size for name, group in groups.items() if group.size == 2}
    if pairs:
        notes.append(Check("few_levels", "noted", pairs, 3, "a variance estimated from two levels is weakly known"))
    if not terms and not structured:
        notes.append(Check("no_random_term", "noted", 0, 1, "the model is a linear model: add a term such as (1 | g)"))
    reused = [(a.name, b.name) for a, b in permutations(groups.values(), 2) if _labels_reused(a, b.codes, b.size, b.size, _FEW_WITHIN)]
    if reused:
        notes.append(_reused_note(reused))
    return notes


def _condition_check(value: float) -> Check:
    if value <= CONDITION_LIMIT:
        return Check("condition_number", "passed", value, CONDITION_LIMIT)
    remedy = "columns of X are nearly dependent, so that their coefficients are weakly known: drop or combine some"
    return Check("condition_number", "noted", value, CONDITION_LIMIT, remedy)


def _reused_note(reused: list[tuple[str, str]]) -> Check:
    inner, outer = reused[0]
    remedy = f"the same few labels of {inner} occur in most levels of {outer}: write (1 | {outer}/{inner}) if they are counted anew in each"
    return Check("labels_in_several_groups", "noted", tuple(reused), remedy=remedy)


def nesting_note(source: Columns, terms: tuple[RandomTerm, ...], used: Sequence[str]) -> list[Check]:
    """A note where every label of a lone grouping factor occurs in most levels of a factor that the model leaves out."""
    groups = {term.group.name: term.group for term in terms if len(term.group.columns) == 1 and term.group.size <= _FEW_LABELS}
    if not groups:
        return []
    if source.table.frame.shape[1] == len(used):
        return []
    reused = []
    for column, dtype in source.table.dtypes():
        if column in used or not hasattr(dtype, "categories"):
            continue
        outer = source.read_factor(column)
        if outer.missing is None and len(outer.levels) <= 10 * _FEW_LABELS:
            codes, size, absent = source.codes(column).astype(np.int64), len(outer.levels), source.absent(column)
            present = size if absent is None else size - int(absent.sum())
            reused += [(group.name, column) for group in groups.values() if _labels_reused(group, codes, size, present, _FEW_LABELS)]
    return [_reused_note(reused)] if reused else []


def _labels_reused(inner: GroupingFactor, outer_codes: Codes, outer_size: int, present: int, most: int) -> bool:
    """Whether the factor has few levels, fewer than the other, and each of them occurs in at least half of the other's.

    present : how many levels of the other occur; most : how many levels are few
    """
    if not 2 <= inner.size <= min(most, outer_size - 1) or len(inner.columns) > 1 or inner.size * outer_size > 50 * len(outer_codes):
        return False
    if 2 * len(outer_codes) < inner.size * present:
        return False  # too few rows for so many pairs
    pairs = np.bincount(inner.codes * outer_size + outer_codes, minlength=inner.size * outer_size).reshape(inner.size, outer_size) > 0
    return bool(2 * pairs.sum(axis=1).min() >= present)


# -------------------------------------------------------------------------------------------------------- identification


def identification_problems(
    terms: tuple[RandomTerm, ...],
    residual: ResidualDesign | None,
    rows: int,
    X: Array,
    alike: Callable[[GroupingFactor, GroupingFactor], bool] | None = None,
    count_effects: Callable[[int], int] | None = None,
    held: bool = False,
) -> tuple[IdentifiabilityError, ...]:
    """The reasons why REML or ML would not identify the covariance parameters; empty where there are none.

    held : whether the residual sd is known
    alike : whether two factors of as many levels divide the rows alike, where the factors have no rows to tell it from
    count_effects : how many effects of a term, by its number, have a row, where the terms have none to tell it from
    """
    found: list[IdentifiabilityError] = []
    for number, term in enumerate(terms):
        count = partial(_count_effects, term) if count_effects is None else partial(count_effects, number)
        found += _of_term(term, residual, rows, X, count, held)
    found += _confounding_notes(terms, alike or _same_partition)
    if residual is not None:
        found += _of_residual(residual, terms)
    return tuple(found)


def _count_effects(term: RandomTerm) -> int:
    """The effects of a term that have a row: a column that is 0 in all rows of a level has none there."""
    return sum(len(np.unique(term.group.codes[column != 0.0])) for column in term.Z.T)


def _of_term(
    term: RandomTerm, residual: ResidualDesign | None, rows: int, X: Array, count_effects: Callable[[], int], held: bool
) -> list[IdentifiabilityError]:
    group, q, name = term.group, len(term.columns), f"({term.spec.text})"
    if group.size == 1 and not (q > 1 and fits_series(term.spec.structure, term.spec.order)):
        what = f"grouping factor {group.name!r} has one level, {group.levels[0]!r}: the sd of {name} cannot be estimated"
        return [IdentifiabilityError(what, f"{rows} rows", f"drop the term; or {GIVE_PRIORS}")]
    free_errors = residual is None and term.relationship is None and not held
    effects = group.size * q
    if rows <= effects and free_errors and q > 1:
        effects = count_effects()
    if rows <= effects and free_errors and absorbs_identity(term.spec.structure, term.spec.order, q):
        if group.size == rows:
            what = f"every level of {group.name!r} has one row: its sd and the residual sd cannot be told apart"
        else:
            what = f"{name} has as many random effects as there are rows, or more: they cannot be told from the residuals"
        where = f"{rows} rows, {group.size} levels x {q} columns = {effects} random effects"
        return [IdentifiabilityError(what, where, f"simplify the term; or {GIVE_PRIORS}")]
    empty = [first == 0.0 and not column.any() for first, column in zip(term.Z[0].tolist(), term.Z.T, strict=True)]
    if q > 1 and any(empty) and not goes_through(term.spec.structure):
        zero = ", ".join(column for column, none in zip(term.columns, empty, strict=True) if none)
        what = f"columns of {name} are 0 in every row: {zero}"
        return [IdentifiabilityError(what, "", f"remove levels that no row has, or leave the columns out; or {GIVE_PRIORS}")]
    if term.Z is not X and q > 1 and not _independent(term.near_Z[:, np.logical_not(empty)]):
        what = f"the columns of {name} are linearly dependent: {', '.join(term.columns)}"
        return [IdentifiabilityError(what, "", f"leave one out; or {GIVE_PRIORS}")]
    if q == 1 and empty[0]:
        return [IdentifiabilityError(f"the column {term.columns[0]!r} of {name} is 0 in every row", "", "drop the term")]
    return []


def _independent(Z: Array) -> bool:
    return len(column_rank(Z, intercept=bool((Z[:, 0] == 1.0).all())).kept) == int(Z.shape[1])


def _confounding_notes(
    terms: tuple[RandomTerm, ...], alike: Callable[[GroupingFactor, GroupingFactor], bool]
) -> list[IdentifiabilityError]:
    """Two grouping factors with different names that divide the rows alike, under a common column."""
    found = []
    for a, b in combinations(terms, 2):
        same_size = a.group is not b.group and a.group.size == b.group.size and a.group.size > 1
        if same_size and set(a.columns) & set(b.columns) and a.relationship is None and b.relationship is None and alike(a.group, b.group):
            what = f"grouping factors {a.group.name!r} and {b.group.name!r} divide the rows alike: their variances cannot be told apart"
            found.append(IdentifiabilityError(what, f"({a.spec.text}) and ({b.spec.text})", f"drop one of the terms; or {GIVE_PRIORS}"))
    return found


def _same_partition(a: GroupingFactor, b: GroupingFactor) -> bool:
    partner = np.zeros(a.size, dtype=np.int64)
    partner[a.codes] = b.codes
    return bool((partner[a.codes] == b.codes).all())


def _of_residual(residual: ResidualDesign, terms: tuple[RandomTerm, ...]) -> list[IdentifiabilityError]:
    found: list[IdentifiabilityError] = []
    name, text = residual.name, residual.spec.text
    if residual.visit is not None and len(residual.visit_levels) == 1 and is_one_variance(name):
        return []
    if residual.subject.size == 1 and name != "id" and not fits_series(name, residual.order):
        what = f"{text!r} has a parameter for each visit or lag, or one that the mean contains, and the rows are one series"
        remedy = f"name the subjects, {name}(visit | subject), or use ar1, car1, arma, toep of few bands or a spatial structure"
        found.append(IdentifiabilityError(what, f"{len(residual.subject.codes)} rows, one subject", f"{remedy}; or {GIVE_PRIORS}"))
    elif name not in ("id", "diag") and residual.subject.size == len(residual.subject.codes):
        found.append(
            IdentifiabilityError(
                f"no subject of {text!r} has two rows: no covariance can be estimated", "", f"use diag or no structure; or {GIVE_PRIORS}"
            )
        )
    elif residual.visit is not None and is_unstructured(name, residual.order):
        found += _of_unstructured(residual, residual.visit)
    else:
        remedy = f"use a structure with fewer parameters; or {GIVE_PRIORS}"
        found += lag_without_pairs(residual, remedy) + outcomes_apart(residual, remedy)
    if absorbs_constant(name, residual.order):
        for term in terms:
            if (
                term.columns == ("Intercept",)
                and term.group.size == residual.subject.size
                and _same_partition(term.group, residual.subject)
            ):
                what = f"({term.spec.text}) cannot be told from {text!r}, which has a common covariance of its own"
                found.append(IdentifiabilityError(what, "", f"drop the random intercept; or {GIVE_PRIORS}"))
    return found


def _of_unstructured(residual: ResidualDesign, visit: Codes) -> list[IdentifiabilityError]:
    visits = len(residual.visit_levels)
    if visits > _MANY_VISITS:
        what = f"{visits} visits unstructured have {visits * (visits + 1) // 2} parameters"
        return [IdentifiabilityError(what, residual.spec.text, 'use a structure such as ar1h, toeph or cs; check="warn" goes on')]
    groups = np.zeros(len(residual.subject.codes), dtype=np.int64) if residual.group is None else residual.group.codes
    for at in range(1 if residual.group is None else residual.group.size):
        rows = groups == at
        subjects = len(np.unique(residual.subject.codes[rows]))
        if subjects <= visits and rows.sum() == subjects * visits:
            what = f"{subjects} subjects cannot tell an unstructured covariance of {visits} visits: it would be singular"
            return [IdentifiabilityError(what, residual.spec.text, f"use a structure with fewer parameters; or {GIVE_PRIORS}")]
        pair = _pair_never_together(residual.subject.codes[rows], visit[rows], residual.subject.size, visits)
        if pair is not None:
            a, b = (residual.visit_levels[i] for i in pair)
            within = "" if residual.group is None else f" in {residual.group.name} {residual.group.levels[at]!r}"
            what = f"no subject{within} has both visits {a!r} and {b!r}: their covariance has no data"
            return [IdentifiabilityError(what, residual.spec.text, f"use a structure with fewer parameters; or {GIVE_PRIORS}")]
    return []


def _pair_never_together(subject: Codes, visit: Codes, subjects: int, visits: int) -> tuple[int, int] | None:
    """The first pair of visits that no subject has, counted over pieces of subjects so that memory stays small."""
    together = np.zeros((visits, visits))
    order = np.argsort(subject, kind="stable")
    subject, visit = subject[order], visit[order]
    step = max(1, 4_000_000 // max(visits, 1))
    for low in range(0, subjects, step):
        part = slice(*np.searchsorted(subject, [low, low + step]))
        seen = np.zeros((min(step, subjects - low), visits))
        seen[subject[part] - low, visit[part]] = 1.0
        together += seen.T @ seen
    absent = np.argwhere(np.tril(together == 0, -1))
    return (int(absent[0][1]), int(absent[0][0])) if len(absent) else None


def identification_check(problems: Sequence[IdentifiabilityError]) -> list[Check]:
    """The reasons as one failed check, for `check="warn"`."""
    if not problems:
        return []
    what = "; ".join(problem.what for problem in problems)
    return [Check("identifiability", "failed", what, remedy=problems[0].remedy)]
