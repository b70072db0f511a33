"""One run of a PROC MIXED program: a model fitted to one set of rows, with SAS's columns and the degrees of freedom that SAS counts.

CONTAIN: the smallest contribution to the rank of [X Z], Z effect by effect, among the random effects that contain the fixed effect by
their names; n - rank [X Z] where none does. BETWITHIN: an effect that does not change within subjects has
subjects - rank of all that do not, any other n - subjects - rank of those that do; where several combinations of classes change within
subjects, what their interactions with the subject contribute. With REPEATED / TYPE=UN and no RANDOM all have the former.
(SAS/STAT User's Guide, The MIXED Procedure, MODEL statement.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from bayeslmm._arrays import Array, Codes
from bayeslmm._types import CheckMode
from bayeslmm.errors import SizeError, SpecificationError
from bayeslmm.estimate.error_boundary import vanishing_labels
from bayeslmm.inference.fixed_effects.degrees_of_freedom import ConstantDegrees, Degrees, Satterthwaite, is_nested, varies_within
from bayeslmm.inference.fixed_effects.tests import FixedEffects, Inference, InferenceOptions
from bayeslmm.model.fit import Fit
from bayeslmm.model.lmm import LMM
from bayeslmm.sas.glm_coding import (
    GLMLayout,
    RowSpace,
    bridge,
    class_variables,
    covariate_names,
    glm_columns,
    row_space,
    rows_on_our_columns,
)
from bayeslmm.sas.hypotheses import Background
from bayeslmm.sas.language.covariance_types import VC
from bayeslmm.sas.language.effects import GLMEffect
from bayeslmm.sas.language.program import MixedProgram
from bayeslmm.sas.translation import RandomEffect, Translation
from bayeslmm.sas_results.covariance_parameters import CovarianceListing, CovParm, tau_of
from bayeslmm.sas_results.mean_squares import components_point, require_components, without_bounds
from bayeslmm.sas_results.parms import FixedParameterInference, ParmsSearch, fit_at_values, fit_with_parms
from bayeslmm.sas_results.random_columns import RandomColumn, known_matrices, sas_random_columns, structure_orders
from bayeslmm.sas_results.rows import CellCounts, ProgramRows, class_of, model_columns, random_cells
from bayeslmm.sas_results.variance_components import ComponentsInference, ComponentsPoint
from bayeslmm.specification.model_spec import ModelSpec

MAX_BLOCK_ENTRIES = 50_000_000
"""Entries of the largest dense block: 0.4 GB."""

SINGULAR_DIRECTION = 1e-9
"""A direction shorter than this, relative to its column, is not there."""


def sequential_ranks(X: Array, effects: Sequence[CellCounts]) -> tuple[int, ...]:
    """The rank of X, of [X Z_1], of [X Z_1 Z_2], ...

    X : (n, p) of full column rank
    Raises SizeError where crossed effects have too many levels together.
    """
    return (X.shape[1], *(total_rank(X, effects[: k + 1]) for k in range(len(effects))))


def total_rank(X: Array, effects: Sequence[CellCounts]) -> int:
    """The rank of [X Z]: that of Z by blocks, and that of what Z leaves of X."""
    if not effects:
        return int(X.shape[1])
    total, left = 0, np.array(X / np.maximum(np.sqrt((X**2).sum(axis=0)), 1e-300))
    if all(_same_levels(effects[0].codes, effect.codes) for effect in effects[1:]):
        total = _by_level(effects, left)
        return total + _rank_of_rest(left)
    for rows in _blocks(effects, len(X)):
        Z = _dense(effects, rows)
        U, s, _ = np.linalg.svd(Z / np.maximum(np.sqrt((Z**2).sum(axis=0)), 1e-300), full_matrices=False)
        Q = U[:, s > SINGULAR_DIRECTION * max(1.0, s.max(initial=0.0))]
        total += int(Q.shape[1])
        left[rows] -= Q @ (Q.T @ left[rows])
    return total + _rank_of_rest(left)


def _rank_of_rest(left: Array) -> int:
    """The rank of columns that had length 1 before the projection."""
    found = np.linalg.svd(np.linalg.qr(left, mode="r"), compute_uv=False) if left.size else np.zeros(0)
    return int((found > SINGULAR_DIRECTION * np.sqrt(max(1, left.shape[1]))).sum())


def _same_levels(one: Codes, other: Codes) -> bool:
    """Whether two codings of the rows are the same but for their numbers."""
    return is_nested(one, other) and is_nested(other, one)


def _by_level(effects: Sequence[CellCounts], left: Array) -> int:
    """The rank of Z whose effects share their levels, each taken off `left` in place: Gram-Schmidt in all levels at once."""
    codes, total = effects[0].codes, 0
    K = int(codes.max(initial=-1)) + 1
    bases: list[Array] = []

    def sums(values: Array) -> Array:
        return np.bincount(codes, values, K)

    for effect in effects:
        column = effect.values / np.maximum(np.sqrt(sums(effect.values**2)), 1e-300)[codes]
        for _ in range(2):
            for basis in bases:
                column = column - basis * sums(basis * column)[codes]
        length = np.sqrt(sums(column**2))
        kept = length > SINGULAR_DIRECTION
        total += int(kept.sum())
        bases.append(np.where(kept, 1.0 / np.where(kept, length, 1.0), 0.0)[codes] * column)
    for basis in bases:
        for j in range(left.shape[1]):
            left[:, j] -= basis * sums(basis * left[:, j])[codes]
    return total


def _blocks(effects: Sequence[CellCounts], n: int) -> list[Codes]:
    """Rows that are linked by levels that they share."""
    begin, rows, columns = n, [], []
    for effect in effects:
        rows.append(np.arange(n))
        columns.append(begin + effect.codes)
        begin += int(effect.codes.max(initial=-1)) + 1
    graph = sp.coo_array((np.ones(n * len(effects)), (np.concatenate(rows), np.concatenate(columns))), shape=(begin, begin))
    _, label = connected_components(graph, directed=False)
    order = np.argsort(label[:n], kind="stable")
    cuts = np.flatnonzero(np.diff(label[:n][order])) + 1
    return [np.asarray(part) for part in np.split(order, cuts)]


def _dense(effects: Sequence[CellCounts], rows: Codes) -> Array:
    parts = []
    for effect in effects:
        levels, local = np.unique(effect.codes[rows], return_inverse=True)
        if len(rows) * len(levels) > MAX_BLOCK_ENTRIES:
            raise SizeError(
                f"the containment method needs the rank of {len(levels)} columns of Z over {len(rows)} rows",
                "DDFM=CONTAIN",
                "name another method: ddfm=satterthwaite, ddfm=bw or ddfm=residual",
            )
        Z = np.zeros((len(rows), len(levels)))
        Z[np.arange(len(rows)), local.ravel()] = effect.values[rows]
        parts.append(Z)
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class DenominatorDF:
    """effects : degrees of freedom of each effect of the layout, the intercept among them; rest : those of the residual."""

    effects: Array
    rest: float


def denominator_df(translation: Translation, rows: ProgramRows, layout: GLMLayout, space: RowSpace) -> DenominatorDF:
    """What the program's counting method gives; the residual's for the methods that do not count."""
    X = np.ascontiguousarray(layout.near[:, space.kept])
    if translation.df == "containment":
        return _containment(translation, rows, layout, X)
    if translation.df == "between-within":
        return _between_within(translation, rows, layout, space)
    rest = float(len(X) - space.rank)
    return DenominatorDF(np.full(len(layout.effects), rest), rest)


# -- containment -------------------------------------------------------------------------------------------------------------------------


def _containment(translation: Translation, rows: ProgramRows, layout: GLMLayout, X: Array) -> DenominatorDF:
    # GROUP= makes several terms of one random effect
    random = list({(effect.effect, effect.subject): effect for effect in translation.random}.values())
    found = sequential_ranks(X, [random_cells(rows, effect) for effect in random])
    share = np.diff(found)
    rest = float(len(X) - found[-1])
    values = []
    for effect in layout.effects:
        mine = [int(share[k]) for k, other in enumerate(random) if _contains(other, effect)]
        values.append(float(min(mine)) if mine else rest)
    return DenominatorDF(np.array(values), rest)


def _contains(random: RandomEffect, fixed: GLMEffect) -> bool:
    classes = {*random.effect.classes, *random.subject}
    return sorted(random.effect.continuous) == sorted(fixed.continuous) and classes >= set(fixed.classes)


# -- between and within ------------------------------------------------------------------------------------------------------------------


def _between_within(translation: Translation, rows: ProgramRows, layout: GLMLayout, space: RowSpace) -> DenominatorDF:
    if not translation.within:
        # without a subject every row is one
        rest = float(len(layout.X) - space.rank)
        return DenominatorDF(np.full(len(layout.effects), rest), rest)
    subject = np.asarray(class_of(rows, translation.within).codes[rows.used])
    n, subjects = len(layout.X), len(np.unique(subject))
    changing = varies_within(layout.X, subject)
    within = np.array([bool(changing[block].any()) for block in layout.blocks], dtype=np.bool_)
    kept = np.isin(np.arange(len(layout.columns)), space.kept)
    outer = [j for k, block in enumerate(layout.blocks) if not within[k] for j in range(block.start, block.stop) if kept[j]]
    between = float(subjects - len(outer))
    inner = float(n - subjects - (space.rank - len(outer)))
    if _is_unstructured(translation):
        return DenominatorDF(np.full(len(layout.effects), between), inner)
    values = np.where(within, inner, between)
    shared = _interactions(rows, layout, space, subject, within)
    for k, value in shared.items():
        values[k] = value
    return DenominatorDF(values, inner)


def _is_unstructured(translation: Translation) -> bool:
    repeated = translation.program.repeated
    return not translation.random and repeated is not None and repeated.type.name == "UN" and repeated.type != VC


def _interactions(rows: ProgramRows, layout: GLMLayout, space: RowSpace, subject: Codes, within: NDArray[np.bool_]) -> dict[int, float]:
    """Effect -> what the interaction of the subject with its classes contributes, where several sets of classes change within subjects."""
    own: dict[int, tuple[str, ...]] = {}
    for k, effect in enumerate(layout.effects):
        if within[k] and not effect.continuous:
            own[k] = tuple(name for name in effect.classes if varies_within(rows.at(name).codes[:, None].astype(float), subject)[0])
    sets = sorted(dict.fromkeys(own.values()), key=len)
    if len(sets) < 2:
        return {}
    X = np.ascontiguousarray(layout.near[:, space.kept])
    ones = np.ones(len(X))
    effects, share, before = [CellCounts(subject, ones)], {}, total_rank(X, [CellCounts(subject, ones)])
    for names in sets:
        codes = subject
        for name in names:
            level = rows.at(name).codes
            codes = codes * (int(level.max()) + 1) + level
        effects.append(CellCounts(np.unique(codes, return_inverse=True)[1].astype(np.int64), ones))
        now = total_rank(X, effects)
        share[names], before = float(now - before), now
    return {k: share[names] for k, names in own.items() if share[names] > 0}


COUNTING = ("containment", "between-within", "residual")


class ProgramRun:
    """A fit, SAS's columns of X, and the tests that the program asks for.

    layout : X in GLM coding over the rows used; space : its estimable functions; T : (r, p) SAS's nonzero coefficients from ours
    """

    def __init__(
        self,
        translation: Translation,
        rows: ProgramRows,
        check: CheckMode = "error",
        data_sets: Mapping[str, pd.DataFrame] | None = None,
    ) -> None:
        self.translation, self.rows, self.check, self.data_sets = translation, rows, check, data_sets
        if without_bounds(translation):
            require_components(translation)
        subjects = bic_subjects(translation, rows)
        matrices = known_matrices(translation, rows, data_sets or {})
        spec = replace(_spec(translation), check=check, relationship=tuple(matrices))
        self.model = LMM.from_spec(spec, rows.frame, counting="sas", subjects=subjects, relationship=matrices or None)
        self.search: ParmsSearch = fit_with_parms(self.model, translation, lambda: self.listing)
        self.fit: Fit = self.search.fit
        self._require_exponents()
        self.components: ComponentsPoint | None = self._components()
        self.layout: GLMLayout = _layout(translation, rows)
        self.space: RowSpace = row_space(self.layout)
        self.T: Array = bridge(self.layout, self.space, self.fit.design.X)

    def _require_exponents(self) -> None:
        """A level without errors has a variance of 0, but no logarithm of it."""
        repeated = self.program.repeated
        if repeated is None or not repeated.dispersion:
            return
        if gone := vanishing_labels(self.fit.problem, self.fit.estimate.x):
            what = f"LOCAL=EXP(): the residual variance of {', '.join(gone)} goes to 0, where its exponent has no bound"
            raise SpecificationError(what, repeated.spot, "repeated / group= has variances that may be 0; or join levels")

    def _components(self) -> ComponentsPoint | None:
        """The covariance of METHOD= or NOBOUND; where all variances are above 0, the fit has it too."""
        values = self.listing.values(tau_of(self.fit.estimate.x, self.fit.point.sigma2))
        point = components_point(self.translation, self.rows, self.fit, values)
        if point is not None and (point.t > 0.0).all():
            self.fit = fit_at_values(self.model, self.listing, self.fit.estimate, point.t)
        elif point is not None:
            require_no_random_part(self.translation)
        return point

    def without(self, gone: Codes) -> ProgramRun:
        """The program run again on all rows but some of those used. gone : their positions among the rows used"""
        used = self.rows.used.copy()
        used[self.fit.design.rows[gone]] = False
        frame = self.rows.frame.copy()
        frame.loc[~used, self.program.model.response] = np.nan
        return ProgramRun(self.translation, replace(self.rows, frame=frame, used=used), self.check, self.data_sets)

    @property
    def criterion(self) -> float:
        """-2 (restricted) log likelihood."""
        return self.fit.criterion if self.components is None else self.components.value

    @property
    def program(self) -> MixedProgram:
        """The program as parsed."""
        return self.translation.program

    @cached_property
    def random(self) -> tuple[RandomColumn, ...]:
        """The columns of Z as SAS orders them."""
        return sas_random_columns(self.translation, self.rows, self.model.design)

    @cached_property
    def listing(self) -> CovarianceListing:
        """The covariance parameters."""
        return CovarianceListing(self.translation, self.model.problem, structure_orders(self.translation, self.rows, self.model.design))

    @cached_property
    def parameter_rows(self) -> tuple[CovParm, ...]:
        """The covariance parameters at the optimum."""
        rows = self.listing.rows(tau_of(self.fit.estimate.x, self.fit.point.sigma2))
        if self.components is None:
            return tuple(replace(row, value=0.0) if row.vanished and row.of_scale else row for row in rows)
        return tuple(replace(row, value=float(value)) for row, value in zip(rows, self.components.t, strict=True))

    @cached_property
    def model_columns(self) -> tuple[str, ...]:
        """The columns that a row must have to be used."""
        return model_columns(self.translation, self.rows.frame)

    # -- tests ---------------------------------------------------------------------------------------------------------------------------

    @cached_property
    def inference(self) -> Inference:
        """What the library knows about the fit; parameters held by PARMS are known."""
        if self.components is not None:
            searched = self.program.proc.method in {"reml", "ml"} and self.translation.information == "observed"
            return ComponentsInference(self.fit, self.components, searched)
        return FixedParameterInference(self.fit, self.search.free, self.program.model.ddfm == "kenwardroger2")

    @cached_property
    def counted(self) -> DenominatorDF:
        """Degrees of freedom by counting."""
        return denominator_df(self.translation, self.rows, self.layout, self.space)

    @cached_property
    def base(self) -> FixedEffects:
        """alpha with the covariance that the program asks for, and degrees of freedom where they depend on the contrast."""
        t = self.translation
        choice = InferenceOptions(t.df, t.vcov, t.information)
        degrees: Degrees
        if t.df in COUNTING:
            degrees = ConstantDegrees(self.counted.rest)
        elif t.df == "satterthwaite":
            # EMPIRICAL changes the covariance, not the degrees of freedom
            degrees = Satterthwaite(self.inference.curvature)
        else:
            degrees = self.inference.degrees(choice)
        return self.inference.of(self.inference.covariance(choice), degrees, choice.vcov == choice.df)

    def effects(self, position: int | None, df: float | None = None) -> FixedEffects:
        """The fixed effects as tested for one effect of the layout.

        df : given by a DF= option; DDF= of MODEL comes before what a method says
        """
        if df is None and position is not None:
            df = self._given.get(position)
        if df is None and self.translation.df in COUNTING:
            df = self.counted.rest if position is None else float(self.counted.effects[position])
        return self.base if df is None else replace(self.base, degrees=ConstantDegrees(df))

    @cached_property
    def _given(self) -> Mapping[int, float]:
        """DDF= of MODEL: position in the layout -> degrees of freedom."""
        first = int(self.translation.intercept)
        return {first + k: value for k, value in enumerate(self.program.model.ddf) if value is not None}

    def ours(self, L: Array) -> Array:
        """Rows on SAS's columns taken to our coefficients."""
        return rows_on_our_columns(self.space, self.T, np.atleast_2d(L))

    @cached_property
    def background(self) -> Background:
        """The rows that least-squares means are taken over: all but the response known, and in cells that X has columns for."""
        rows, effects, weight = self.rows, self.layout.effects, self.program.weight
        names = [name for name in self.model_columns if name != self.program.model.response]
        known = np.array(rows.frame[names].notna().all(axis=1), dtype=np.bool_)
        if weight:
            known &= rows.frame[weight].to_numpy(np.float64) > 0
        for effect, block in zip(effects, self.layout.blocks, strict=True):
            if effect.classes:
                cells = {column.codes for column in self.layout.columns[block]}
                here = zip(*(rows.classes[name].codes.tolist() for name in effect.classes), strict=True)
                known &= np.array([cell in cells for cell in here], dtype=np.bool_)
        weights = rows.frame[weight].to_numpy(np.float64)[known] if weight else None
        classes = {name: rows.at(name, known) for name in class_variables(effects)}
        return Background(classes, {name: rows.frame[name].to_numpy(np.float64)[known] for name in covariate_names(effects)}, weights)


def require_no_random_part(translation: Translation) -> None:
    """Refuse predictions, which a variance below 0 does not have."""
    program = translation.program
    wrong = "OUTP=" if program.model.outp else "RANDOM / SOLUTION" if any(r.solution for r in program.random) else ""
    wrong = wrong or next((f"RANDOM / {name.upper()}" for r in program.random for name in r.displays), "")
    rows = [*(e.row for e in program.estimates), *(row for c in program.contrasts for row in c.rows)]
    wrong = wrong or ("ESTIMATE | random effects" if any(row.random for row in rows) else "")
    if wrong:
        raise SpecificationError(f"{wrong} is not there where a variance is not above 0", program.proc.spot, "method=reml without NOBOUND")


def _spec(translation: Translation) -> ModelSpec:
    """The model with the last level of each class as its reference."""
    return replace(translation.spec, contrasts=tuple((name, "sas") for name in class_variables(translation.effects)))


def _layout(translation: Translation, rows: ProgramRows) -> GLMLayout:
    classes = {name: rows.at(name) for name in class_variables(translation.effects)}
    n = int(rows.used.sum())
    return glm_columns(translation.effects, classes, _covariates(translation.effects, rows), n, intercept=translation.intercept)


def _covariates(effects: tuple[GLMEffect, ...], rows: ProgramRows) -> dict[str, Array]:
    return {name: rows.frame[name].to_numpy(np.float64)[rows.used] for name in covariate_names(effects)}


def bic_subjects(translation: Translation, rows: ProgramRows) -> int:
    """What the logarithm in BIC is of: subjects read; else levels of the first random effect; else rows (REML: less the rank of X)."""
    if rows.subjects is not None:
        return rows.subject_count
    n = int(rows.used.sum())
    for random in translation.random:
        names = tuple(dict.fromkeys((*random.subject, *random.effect.classes)))
        if names:
            return len(np.unique(class_of(rows, names).codes[rows.used]))
    if translation.method == "ML":
        return n
    return n - row_space(_layout(translation, rows)).rank
