"""One run of a PROC MIXED program: a model fitted to one set of rows, with SAS's columns laid beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Literal

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.inference.fixed_effects.degrees_of_freedom import ConstantDegrees, Degrees, Satterthwaite
from bayeslmm.inference.fixed_effects.tests import FixedEffects, Inference, InferenceOptions
from bayeslmm.model.fit import Fit
from bayeslmm.model.lmm import LMM
from bayeslmm.sas.language.effects import GLMEffect
from bayeslmm.sas.language.program import MixedProgram
from bayeslmm.sas.translation.glm_coding import (
    GLMLayout,
    RowSpace,
    bridge,
    class_variables,
    covariate_names,
    glm_columns,
    row_space,
    rows_on_our_columns,
)
from bayeslmm.sas.translation.hypotheses import Background
from bayeslmm.sas.translation.result import Translation
from bayeslmm.sas_results.run.covariance_parameters import CovarianceListing, CovParm, tau_of
from bayeslmm.sas_results.run.denominators import DenominatorDF, denominator_df
from bayeslmm.sas_results.run.parms import FixedParameterInference, ParmsSearch, fit_with_parms
from bayeslmm.sas_results.run.random_columns import RandomColumn, sas_random_columns, structure_orders
from bayeslmm.sas_results.run.rows import ProgramRows, class_of, model_columns
from bayeslmm.specification.model_spec import ModelSpec

COUNTING = ("containment", "between-within", "residual")


class ProgramRun:
    """A fit, SAS's columns of X, and the tests that the program asks for.

    layout : X in GLM coding over the rows used; space : its estimable functions; T : (r, p) SAS's nonzero coefficients from ours
    """

    def __init__(self, translation: Translation, rows: ProgramRows, check: Literal["error", "warn"] = "error") -> None:
        self.translation, self.rows = translation, rows
        subjects = bic_subjects(translation, rows)
        self.model = LMM.from_spec(replace(_spec(translation), check=check), rows.frame, counting="sas", subjects=subjects)
        self.search: ParmsSearch = fit_with_parms(self.model, translation, lambda: self.listing)
        self.fit: Fit = self.search.fit
        self.layout: GLMLayout = _layout(translation, rows)
        self.space: RowSpace = row_space(self.layout.X)
        self.T: Array = bridge(self.layout, self.space, self.fit.design.X)

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
        return self.listing.rows(tau_of(self.fit.estimate.x, self.fit.point.sigma2))

    @cached_property
    def model_columns(self) -> tuple[str, ...]:
        """The columns that a row must have to be used."""
        return model_columns(self.translation, self.rows.frame)

    # -- tests ---------------------------------------------------------------------------------------------------------------------------

    @cached_property
    def inference(self) -> Inference:
        """What the library knows about the fit; parameters held by PARMS are known."""
        return FixedParameterInference(self.fit, self.search.free)

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
        """The rows that least-squares means are taken over."""
        names = class_variables(self.layout.effects)
        classes = {name: self.rows.at(name) for name in names}
        weight = self.program.weight
        weights = self.rows.frame[weight].to_numpy(np.float64)[self.rows.used] if weight else None
        return Background(classes, _covariates(self.layout.effects, self.rows), weights)


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
    return n - row_space(_layout(translation, rows).X).rank
