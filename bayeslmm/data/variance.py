"""The covariates and strata of a variance function."""

from __future__ import annotations

from bayeslmm.arrays import Codes, frozen
from bayeslmm.data.design import GroupingFactor, VarianceDesign
from bayeslmm.data.grouping import group_coder
from bayeslmm.data.source import Columns
from bayeslmm.data.wording import rows_text
from bayeslmm.errors import DataError
from bayeslmm.formula.model import VarianceFactor


def variance_design(factor: VarianceFactor, source: Columns, rows: Codes) -> VarianceDesign:
    """One factor of the variance function over the rows kept.

    Errors: `DataError` where the covariate of a power is 0, which would make the variance 0.
    """
    strata = _strata(factor, source)
    covariate = None
    if factor.kind != "ident" and factor.covariate != "fitted":
        covariate = source.numbers(factor.covariate)
        zero = covariate == 0
        if factor.kind == "power" and zero.any():
            raise DataError(
                f"column {factor.covariate!r} is 0, and a power of 0 leaves no variance",
                rows_text(rows[zero]),
                f"use const_power({factor.covariate}), or shift the column",
            )
    return VarianceDesign(
        spec=factor,
        kind=factor.kind,
        covariate=None if covariate is None else frozen(covariate.copy()),
        strata=None if strata is None else strata.codes,
        labels=() if strata is None else tuple(map(str, strata.levels)),
    )


def _strata(factor: VarianceFactor, source: Columns) -> GroupingFactor | None:
    columns = ((factor.covariate,) if factor.kind == "ident" else ()) + factor.group
    return group_coder(source, columns).factor if columns else None
