"""Cross-products summed over partitions, and the problem that they make.

A pass more is read where a level of a factor of the fixed effects, or of the left side of a bar, first shows itself after the first
partition with rows: its column must be known before columns can be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, FrozenMapping, freeze, freeze_codes
from bayeslmm.data import notes as checks
from bayeslmm.data.build import Assembly, ColumnReader, EncodedColumns, check_response_varies, require_rank
from bayeslmm.data.design import Design, Encoding, MomentRows, OwnFrame
from bayeslmm.data.expressions import UserFunctions
from bayeslmm.data.grouping import group_coder
from bayeslmm.data.identifiability import find_lost
from bayeslmm.data.model_matrix import DesignBlock, atoms_of
from bayeslmm.data.rows import ColumnPlan, no_data_error, no_rows_error, plan_columns, scale_weights
from bayeslmm.data.variables import FactorVariable, NumericVariable, StatefulVariable, Training
from bayeslmm.errors import Check, DataError, FormulaError, PredictionError
from bayeslmm.likelihood.problem import Problem, problem_from_patterns, problem_from_sums
from bayeslmm.likelihood.random_effects.cross_products import Factor, factors_of
from bayeslmm.likelihood.standardize import Standardization, find_standardization
from bayeslmm.likelihood.threads import one_thread
from bayeslmm.partitions.design import GIVEN_OFFSET, AbsentRows, RowSummary, SummedRows, VisitPatterns, drop_row_arrays
from bayeslmm.partitions.first_pass import FirstPass, PartRows, encode_part, in_partition, read_parts, rows_design
from bayeslmm.partitions.identification import SummedTerms
from bayeslmm.partitions.moments import CoincidingFactors, ColumnMoments, SpanningRows, SumsByLevel
from bayeslmm.partitions.partitions import Partitions, process_pool, require_importable
from bayeslmm.partitions.subjects import Hashes, SubjectCoder, SubjectSums, hash_labels, patterns_of_parts
from bayeslmm.specification.model_spec import ModelSpec


def sum_partitions(
    spec: ModelSpec,
    partitions: Partitions,
    *,
    relationship: Mapping[str, Any] | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> SummedRows:
    """The rows of a model, read in parts and added up.

    Criterion, estimates and everything that follows from cross-products are those of the rows in memory, whatever their order and however
    they are divided. Memory is that of one partition, of the levels, and of the pairs of levels that occur.

    spec : of a model that does not need every row
    Errors: those of `build_design`, with the number of the partition; FormulaError for terms that learn from all rows at once.

    >>> from bayeslmm.formula import parse_formula
    >>> rows = [{"y": [1.0, 2.5, 2.0], "x": [0, 1, 2], "g": ["a"] * 3}, {"y": [4.0, 3.0, 5.5], "x": [0, 1, 2], "g": ["b"] * 3}]
    >>> sum_partitions(ModelSpec(parse_formula("y ~ x + (1 | g)")), Partitions(rows)).survey.kept
    6
    """
    learning = Learning.of(spec, relationship, functions, structured=True)
    check_no_learning(spec, learning.asked)
    if partitions.workers is not None and partitions.workers > 1:
        require_importable(learning.functions)
    asked = learning.asked
    with one_thread(), process_pool(partitions.workers) as pool:
        scale = 1.0
        early: EncodedColumns | None = None
        begun = partitions.first(partial(_first_rows, learning), asked.columns)
        if begun is not None:
            first, scale = begun
            with suppress(DataError):  # rows to come may show that a column is fine
                early = learning.learnt(first, all_groups=False)
        task = partial(_look, learning, None if early is None else early.encoding, scale)
        looked = partitions.reduce(task, _merge_looks, asked.columns, pool)
        if looked is None or begun is None:
            raise (
                no_data_error("the partitions")
                if looked is None or not looked[0].dropped
                else no_rows_error(looked[0].dropped, looked[0].read)
            )
        survey, moments = looked
        learnt = learning.learnt(survey)
        if moments is None or early is None or _columns(early) != _columns(learnt):
            moments = partitions.reduce(partial(_measure, spec, asked, learnt.encoding, scale), ColumnMoments.merge, asked.columns, pool)
            assert moments is not None
        design, standardization = template_of(learning, survey, learnt, moments, scale)
        coder = None if spec.residual is None else SubjectCoder.of(spec.residual, survey.roster())
        add = partial(_add_up, asked, design, standardization, factors_of(design), scale, coder)
        total = partitions.reduce(add, partial(_merge_sums, design, standardization), asked.columns, pool)
        assert total is not None
        sums, coinciding, spanning, subjects = total
        patterns = None
        if subjects is not None:
            subjects = subjects.close(design)
            scattered = subjects.scattered_hashes()
            if len(scattered):
                raise _scattered_error(scattered, spec, asked, partitions)
            patterns = patterns_of_parts(subjects, design)
    return SummedRows(survey, moments, scale, sums, coinciding, spanning, patterns=patterns)


def problem_of_sums(
    spec: ModelSpec,
    rows: SummedRows,
    *,
    relationship: Mapping[str, Any] | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> Problem:
    """The problem of rows that were added up; its design is without rows."""
    learning = Learning.of(spec, relationship, functions, rows.states)
    survey, moments = rows.survey, rows.moments
    with one_thread():
        if rows.made is None:
            learnt = learning.learnt(survey)
            design, standardization = template_of(learning, survey, learnt, moments, rows.scale)
        else:
            learnt, design, standardization = rows.made
        shown = None if rows.patterns is None else rows.patterns.some_subjects(len(rows.patterns.residual.visit_levels) + 1)
        sums, held = SummedTerms.of(design.terms, rows.sums.sums, standardization), spec.sigma is not None
        alike, count = rows.coinciding.alike, sums.count_effects
        problems = checks.identification_problems(design.terms, shown, survey.kept, design.X, alike, count, held)
        problems += find_lost(design.terms, len(design.kept), sums.is_inside)
        own = () if rows.patterns is None else rows.patterns.notes
        notes = _notes(design, learnt, survey, problems, own) if rows.notes is None else rows.notes
        known: dict[str, Any] = {"notes": notes, "unidentified": problems if spec.check == "error" else ()}
        known |= {} if spec.weights is not None else {"weights": None}
        known |= {} if spec.offset is not None or spec.formula.offsets else {"offset": None}
        if spec.offset == GIVEN_OFFSET:  # new data have it beside them, as the rows had
            known["encoding"] = replace(design.encoding, offset_column=None)
        known |= {} if rows.patterns is None else {"residual": rows.patterns.residual}
        rowless = drop_row_arrays(design, _summary(design, rows), known)
        object.__setattr__(rowless, "summed", rows)
        if rows.patterns is not None:
            patterns, row_batches = rows.patterns, cast(Any, AbsentRows("codes"))
            return problem_from_patterns(rowless, standardization, survey.kept, patterns.batches, row_batches, patterns.start)
        return problem_from_sums(rowless, standardization, rows.sums.sums.finish(), rows.sums.sums)


# -- what rows teach ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Learning:
    """How a model learns its columns and levels from rows."""

    spec: ModelSpec
    asked: ColumnPlan
    relationship: Mapping[str, Any]
    functions: UserFunctions
    states: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        relationship: Mapping[str, Any] | None,
        functions: Mapping[str, Callable[..., Any]] | None,
        states: Mapping[str, Mapping[str, Any]] | None = None,
        structured: bool = False,
    ) -> Learning:
        """states : what stateful atoms have been taught already; structured : whether columns of subjects and visits are to be read"""
        row_columns = tuple(name for name in (spec.weights, spec.offset) if name is not None)
        asked = plan_columns(spec.formula, spec.residual if structured else None, (), row_columns)
        return cls(spec, asked, dict(relationship or {}), dict(functions or {}), dict(states or {}))

    def learnt(self, survey: FirstPass, *, all_groups: bool = True) -> EncodedColumns:
        """What the rows shown so far teach. all_groups : whether every level has been shown, as a known relationship needs"""
        source = survey.roster()
        rows = freeze_codes(np.arange(len(source)))
        training = Training(dict(self.spec.contrasts), self.functions, states=self.states)
        spec = self.spec if all_groups else replace(self.spec, relationship=())
        known = dict(self.relationship) if all_groups else {}
        return Assembly(spec, self.asked, ColumnReader(source, rows, {}, None, None), training, False, known).learnt()


def sum_design(
    design: Design,
    spec: ModelSpec,
    row_values: Mapping[str, Array],
    *,
    relationship: Mapping[str, Any] | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> SummedRows:
    """The rows of a design in memory, added up.

    spec : the design's, weights and offset as the columns `GIVEN_WEIGHTS` and `GIVEN_OFFSET` where they are `beside` it as arrays
    Errors: SpecificationError for structured errors beside random effects, weights or a variance function.
    """
    frame = design.frame.assign(**row_values)
    states = states_of(design.encoding)
    learning = Learning.of(spec, relationship, functions, states)
    asked = learning.asked
    with one_thread():
        survey = FirstPass.of(spec, asked)
        (part,) = read_parts(1, [frame], spec, asked)
        survey.add(part)
        scale, learnt, moments = design.weight_scale, learning.learnt(survey), ColumnMoments()
        moments.add(encode_part(part, learnt.encoding, scale), learnt.encoding.fixed_block, part.source)
        template, standardization = template_of(learning, survey, learnt, moments, scale)
        structured = design.residual is not None or bool(design.variance)
        patterns = VisitPatterns.of(design, standardization) if structured else None
        sums, coinciding, spanning, _ = _add_up(asked, template, standardization, factors_of(template), scale, None, 1, [frame])
    survey.read, survey.dropped = design.n_read, dict(design.dropped)
    survey.forget(asked.response.columns)
    return SummedRows(survey, moments, scale, sums, coinciding, spanning, states, design.notes, patterns)


def states_of(encoding: Encoding) -> dict[str, Mapping[str, Any]]:
    """What the stateful atoms of a model remember, by name."""
    blocks = (encoding.fixed_block, *(coder.block for coder in encoding.random_coders))
    atoms = [atom for block in blocks for atom in block.atoms.values()]
    return {a.atom.name: a.state.state for a in (*atoms, encoding.response_atom, *encoding.offsets) if isinstance(a, StatefulVariable)}


def _first_rows(learning: Learning, number: int, frames: Iterable[Any]) -> tuple[FirstPass, float] | None:
    """What the first frame with rows shows, and what its weights are divided by."""
    spec, asked = learning.spec, learning.asked
    for part in read_parts(number, frames, spec, asked):
        if len(part):
            survey = FirstPass.of(spec, asked)
            survey.add(part)
            return survey, scale_weights(part.weights)[1]
    return None


# -- what is made of a partition -----------------------------------------------------------------------------------------------------------

type Look = tuple[FirstPass, ColumnMoments | None]
"""What was seen, and the moments where all columns were known."""


def _look(learning: Learning, early: Encoding | None, scale: float, number: int, frames: Iterable[Any]) -> Look:
    survey, moments = FirstPass.of(learning.spec, learning.asked), None if early is None else ColumnMoments()
    unproven = bool(learning.functions)
    for part in read_parts(number, frames, learning.spec, learning.asked):
        survey.add(part)
        if moments is None or early is None or not len(part):
            continue
        with in_partition(number):
            try:
                moments.add(encode_part(part, early, scale), early.fixed_block, part.source)
                if unproven and len(part) > 1:
                    _check_row_by_row(early, part, learning.functions)
                    unproven = False
            except PredictionError:
                # a level that the first rows did not have: its column is measured in a pass of its own
                moments = None
    return survey, moments


def _merge_looks(one: Look, later: Look) -> Look:
    moments = None if one[1] is None or later[1] is None else one[1].merge(later[1])
    return one[0].merge(later[0]), moments


def _measure(spec: ModelSpec, asked: ColumnPlan, encoding: Encoding, scale: float, number: int, frames: Iterable[Any]) -> ColumnMoments:
    moments = ColumnMoments()
    for part in read_parts(number, frames, spec, asked):
        if len(part):
            with in_partition(number):
                moments.add(encode_part(part, encoding, scale), encoding.fixed_block, part.source)
    return moments


type Sums = tuple[SumsByLevel, CoincidingFactors, SpanningRows, SubjectSums | None]
"""The last where errors are structured."""


def _add_up(
    asked: ColumnPlan,
    design: Design,
    standardization: Standardization,
    factors: tuple[Factor, ...],
    scale: float,
    coder: SubjectCoder | None,
    number: int,
    frames: Iterable[Any],
) -> Sums:
    total: SumsByLevel | None = None
    subjects = None if coder is None else SubjectSums(coder)
    coinciding, spanning = CoincidingFactors(), SpanningRows(design.encoding.fixed_block.columns)
    for part in read_parts(number, frames, design.spec, asked):
        with in_partition(number):
            if not len(part):
                if coder is not None and subjects is not None and part.read:  # rows left out keep their places among those of their subject
                    subjects = subjects.merge(SubjectSums.of(coder, design, part.source, np.zeros((0, 0)), number), design)
                continue
            rows = rows_design(design, part, encode_part(part, design.encoding, scale))
            if coder is not None and subjects is not None:
                Xy = standardization.Xy(rows, slice(0, len(part)))
                subjects = subjects.merge(SubjectSums.of(coder, design, part.source, Xy, number), design)
        found = SumsByLevel.of(factors, rows, standardization)
        total = found if total is None else total.merge(found, standardization)
        coinciding.add(rows)
        spanning.add(standardization.rows(rows.X), partial(part.frame, columns=spanning.columns))
    return SumsByLevel.of_nothing(factors, design, standardization) if total is None else total, coinciding, spanning, subjects


def _merge_sums(design: Design, standardization: Standardization, one: Sums, later: Sums) -> Sums:
    subjects = None if one[3] is None or later[3] is None else one[3].merge(later[3], design)
    return one[0].merge(later[0], standardization), one[1].merge(later[1]), one[2].merge(later[2]), subjects


def _scattered_error(scattered: Hashes, spec: ModelSpec, asked: ColumnPlan, partitions: Partitions) -> DataError:
    """The error for subjects whose rows stand apart. scattered : their hashes"""
    assert spec.residual is not None
    found = partitions.reduce(partial(_find_subject, scattered[0], spec, asked), lambda one, later: one + later, asked.columns) or []
    parts, more = [number for number, _ in found], f"; and {len(scattered) - 1:,} more such subjects" if len(scattered) > 1 else ""
    remedy = f"sort the rows by {', '.join(spec.residual.subject)}, or put all rows of a subject into one partition"
    return DataError(
        f"the rows of subject {found[0][1]!r} are not together: other subjects stand between them",
        f"partitions {', '.join(map(str, dict.fromkeys(parts)))}" + more,
        remedy + " (rows= reads more of a file at once)",
    )


def _find_subject(own: Any, spec: ModelSpec, asked: ColumnPlan, number: int, frames: Iterable[Any]) -> list[tuple[int, Any]]:
    """The partition and the label of a subject, if it is there. own : its hash"""
    assert spec.residual is not None
    found: list[tuple[int, Any]] = []
    for part in read_parts(number, frames, spec, asked):
        labels = group_coder(part.source, spec.residual.subject).factor.levels.tolist() if len(part) else []
        found += [(number, labels[i]) for i in np.flatnonzero(hash_labels(labels) == own).tolist()]
    return found


# -- what the first pass amounts to ------------------------------------------------------------------------------------------------------


def _columns(learnt: EncodedColumns) -> list[Any]:
    """What decides the columns: names, levels and codings of every block."""
    blocks = [learnt.encoding.fixed_block, *(coder.block for coder in learnt.encoding.random_coders)]
    levels = [[atom.levels for atom in block.atoms.values() if isinstance(atom, FactorVariable)] for block in blocks]
    return [[block.names for block in blocks], levels]


def check_no_learning(spec: ModelSpec, asked: ColumnPlan) -> None:
    """Refuse terms that learn from all rows: they would learn something else in each partition."""
    formula = spec.formula
    atoms = [atom for terms in (formula.terms, *(term.terms for term in formula.random)) for atom in atoms_of(terms).values()]
    for atom in (*atoms, asked.response, *asked.offsets):
        if atom.kind == "stateful":
            raise FormulaError(
                f"{atom.name!r} learns from all rows at once, which are read in parts",
                spec.formula.text,
                "write powers and logarithms, I(x ** 2), or compute the columns beforehand",
            )


def _check_row_by_row(encoding: Encoding, part: PartRows, functions: UserFunctions) -> None:
    """Refuse functions of the user's whose values depend on other rows."""
    half = replace(part, source=_first_half(part), weights=None)
    whole, some = encode_part(part, encoding), encode_part(half, encoding)
    if not (np.array_equal(whole.X[: len(half)], some.X) and np.array_equal(whole.y[: len(half)], some.y)):
        raise FormulaError(
            "a function of the formula depends on other rows, which are read in parts",
            ", ".join(functions),
            "give functions that take each row by itself",
        )


def _first_half(part: PartRows) -> Any:
    rows = np.arange(part.read) if part.source.rows is None else part.source.rows
    return replace(part.source, rows=rows[: len(rows) // 2], _kept={})


MOST_RANGES = 2.0**28
"""Ranges from 0 beyond which sums of products of a covariate do not tell these from products without it."""


def _refuse_far_products(fixed: DesignBlock, survey: FirstPass) -> None:
    """Refuse products of covariates that start so far from 0 that sums of them hold no digits of the covariate."""
    multiplied = {part.atom for scope in fixed.scopes if len(scope) > 1 for part in scope}
    numeric = (atom for key in sorted(multiplied) if isinstance(atom := fixed.atoms[key], NumericVariable))
    for name in (atom.name for atom in numeric if atom.name in survey.ranges):
        own = survey.covariate(name)
        if abs(own.mean) > MOST_RANGES * (own.high - own.low) > 0.0:
            what = f"{name!r} starts {abs(own.mean) / (own.high - own.low):.0e} of its ranges from 0, too far for sums of its products"
            remedy = f"subtract a number near {own.mean:.6g} from it in the data; or read the rows at once"
            raise DataError(what, f"column {name!r}", remedy)


def template_of(
    learning: Learning, survey: FirstPass, learnt: EncodedColumns, moments: ColumnMoments, scale: float
) -> tuple[Design, Standardization]:
    """A design of a few rows that stand for all: their means, squares and products are those of all rows; and its change of columns."""
    width = len(learnt.fixed.names)
    columns = moments.columns.rows()
    everything, y = columns[:, :width], columns[:, width] - columns[:, width + 1 :].sum(axis=1)
    check_response_varies(learning.asked.response.name, moments.low, moments.high, survey.kept)
    _refuse_far_products(learnt.fixed, survey)
    found = require_rank(learnt.fixed, everything, survey.kept)
    kept, names = found.kept, learnt.fixed.names
    terms = tuple(
        replace(term, Z=freeze(block.rows()), moves=None, group=replace(term.group, codes=freeze_codes(np.zeros(0, np.int64))))
        for term, block in zip(learnt.terms, moments.blocks, strict=True)
    )
    covariates = {name: survey.covariate(name) for name in learnt.encoding.covariates if name in survey.ranges}
    design = Design(
        spec=learning.spec,
        y=freeze(y.copy()),
        X=freeze(everything[:, list(kept)]),
        coef_names=names,
        kept=kept,
        aliased=tuple(name for i, name in enumerate(names) if i not in kept),
        coef_terms=learnt.fixed.terms,
        weights=None,
        offset=None,
        terms=terms,
        residual=None,
        variance=(),
        rows=freeze_codes(np.arange(len(y))),
        n_read=survey.read,
        n_dropped=survey.read - survey.kept,
        dropped=FrozenMapping(survey.dropped),
        index=pd.RangeIndex(len(y)),
        own_frame=OwnFrame(pd.DataFrame(), learning.asked.columns),
        notes=tuple(checks.design_notes(found, names, terms, learning.spec.residual is not None)),
        encoding=replace(learnt.encoding, covariates=FrozenMapping(covariates)),
        weight_scale=scale,
    )
    return design, standardization_of(design, survey, scale)


def _summary(design: Design, rows: SummedRows) -> RowSummary:
    survey, moments = rows.survey, rows.moments
    plain, blocks = moments.unweighted
    columns, width = plain.rows(), len(design.coef_names)
    everything, y, offset = columns[:, :width], columns[:, width], columns[:, width + 1 :]
    assert rows.spanning.frame is not None
    inverse = 1.0 if design.spec.weights is None else survey.inverse_weights * rows.scale / survey.kept
    return RowSummary(
        nobs=survey.kept,
        response_size=(moments.largest, float(np.std(y)), moments.left),
        moments=MomentRows(everything, everything[:, list(design.kept)], y, offset[:, 0] if offset.shape[1] else None),
        Zs=tuple(block.rows() for block in blocks),
        spanning=rows.spanning.frame,
        cells=survey.cells,
        variable_means={key: total / survey.kept for key, total in moments.sums.items()},
        column_means={name: survey.covariate(name).mean for name in survey.ranges},
        mean_inverse_weight=inverse,
    )


def standardization_of(design: Design, survey: FirstPass, scale: float) -> Standardization:
    """The change of columns that the rows which stand for all ask for, with what only the weights of all rows know."""
    found = find_standardization(design)
    if design.spec.weights is None:
        return found
    mean = survey.weights / survey.kept / scale
    return replace(found, weight_mean=mean, logdet_weights=survey.log_weights - survey.kept * float(np.log(mean * scale)))


def _notes(design: Design, learnt: EncodedColumns, survey: FirstPass, problems: Any, visits: tuple[Check, ...]) -> tuple[Check, ...]:
    source = survey.roster()
    coded = [atom.column for atom in learnt.fixed.atoms.values() if isinstance(atom, FactorVariable)]
    blocks = (coder.block for coder in learnt.encoding.random_coders)
    there = [name for name in survey.asked.factors if name not in survey.counted]
    natural = [name for name in survey.asked.natural if name in source.table.names and source.is_factor(name)]
    about = checks.column_notes(source, (*there, *coded, *natural), learnt.fixed, blocks)
    # the rows kept show every level, not every number
    notes = [*(note for note in about if note.name != "few_integer_values"), *design.notes, *visits]
    return tuple(notes if design.spec.check == "error" else [*notes, *checks.identification_check(problems)])
