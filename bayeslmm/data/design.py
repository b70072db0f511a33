"""The design of a model: what is left of a data frame once a formula has read it.

Rows are those kept (no missing value, weight above 0), in the order of the data. Every array is read-only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayeslmm.arrays import Array, Codes
from bayeslmm.errors import Check, IdentifiabilityError

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.covariance import Covariance
    from bayeslmm.data.encoding import Encoding
    from bayeslmm.formula import BarTerm, ResidualTerm, VarianceFactor
    from bayeslmm.spec import ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class GroupingFactor:
    """A grouping factor as integer codes.

    name : the columns joined by ":", as in `batch:cask`
    levels : (K,) labels that occur, in the order of the categories or sorted; `A:1` for an interaction, first factor slowest
    codes : (n,) int64, 0..K-1; every level occurs
    columns : the columns whose interaction the factor is
    """

    name: str
    levels: NDArray[np.object_]
    codes: Codes
    columns: tuple[str, ...]

    @property
    def size(self) -> int:
        """K, the number of levels."""
        return len(self.levels)


@dataclass(frozen=True, slots=True, eq=False)
class RandomTerm:
    """One random-effects term: its grouping factor, its columns, and the shape of their covariance.

    Z : (n, q) float64, columns of the left side of the bar, one row per observation
    columns : q names, written as coefficients are
    relationship : (K, K) known matrix among the levels, in the order of `group.levels`; None is the identity
    """

    group: GroupingFactor
    Z: Array
    columns: tuple[str, ...]
    spec: BarTerm
    covariance: Covariance
    relationship: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ResidualDesign:
    """Where each row stands in the residual covariance: its subject, its visit or its place, its group of parameters.

    visit : (n,) index into `visit_levels`, or None for a spatial structure
    visit_levels : labels of the visits in order (1, 2, ... where the visit is the order of the rows)
    coords : (n, d) coordinates of a spatial structure; (n, 1) values of a numeric visit; else None
    group : the factor by whose levels the parameters differ, constant within subject; None for one set
    name, order : the structure and its order, as in toep(3)
    nugget : an independent part beside a spatial structure
    missing_visits : positions in `visit_levels` of visits that no kept row has (kept where dropping them would change spacing)
    positions : where dropping a visit would change the spacing, but it has an sd of its own that no row bears on: the places of
        `visit_levels` among all visits; else empty
    shape : number of levels of each visit column; their product is the number of visits of a Kronecker structure such as us@ar1
    """

    spec: ResidualTerm
    subject: GroupingFactor
    visit: Codes | None
    visit_levels: tuple[Any, ...]
    coords: Array | None
    group: GroupingFactor | None
    name: str
    order: int | None = None
    nugget: bool = False
    missing_visits: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class VarianceDesign:
    """One factor of the variance function.

    covariate : (n,) values, or None for `fitted` and for `ident`
    strata : (n,) codes into `labels`: the parameters differ by stratum; None for one set. `ident` always has strata
    labels : labels of the strata; the first is the reference
    """

    spec: VarianceFactor
    kind: str
    covariate: Array | None
    strata: Codes | None
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class OwnFrame:
    """A copy of the data over the rows kept; `columns` are those that the model reads, picked when they are asked for."""

    copy: pd.DataFrame
    columns: tuple[str, ...]

    def picked(self) -> pd.DataFrame:
        """The columns of the model, a frame of its own."""
        return self.copy.copy() if self.copy.shape[1] == len(self.columns) else self.copy[list(self.columns)]


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """y, X, the random terms and the residual design of a model over the rows kept.

    y : (n,) response, offset not subtracted
    X : (n, p) full column rank: columns `kept` of all the coefficients
    coef_names : all coefficients in the order of the formula; `aliased` are those dropped
    coef_terms : the term of the formula that each coefficient belongs to ("Intercept", "ARMCD", "ARMCD:AVISIT", ...)
    weights : (n,) > 0, scaled by a power of two to near 1 where their size is extreme; None for equal weights of 1
    weight_scale : weights as given = weights * weight_scale
    offset : (n,) sum of all offsets, or None
    rows : (n,) positions kept, in the data as read
    dropped : column (or "weights") -> rows that it cost
    own_frame : copy of the data over the rows kept; `frame` is its columns that the model reads
    notes : what is worth knowing; verdict "failed" only under `check="warn"`
    unidentified : why REML or ML would not be identified (empty: it is); priors make it fine, see `demand_identified`
    """

    spec: ModelSpec
    y: Array
    X: Array
    coef_names: tuple[str, ...]
    kept: tuple[int, ...]
    aliased: tuple[str, ...]
    coef_terms: tuple[str, ...]
    weights: Array | None
    offset: Array | None
    terms: tuple[RandomTerm, ...]
    residual: ResidualDesign | None
    variance: tuple[VarianceDesign, ...]
    rows: Codes
    n_read: int
    n_dropped: int
    dropped: Mapping[str, int]
    index: pd.Index[Any]
    own_frame: OwnFrame
    notes: tuple[Check, ...]
    encoding: Encoding
    weight_scale: float = 1.0
    unidentified: tuple[IdentifiabilityError, ...] = field(default=())

    @property
    def nobs(self) -> int:
        """n, the number of rows kept."""
        return len(self.y)

    @property
    def in_memory(self) -> bool:
        """Whether the rows are at hand; a design of rows that were added up in parts has none."""
        return True

    @property
    def response_size(self) -> tuple[float, float, float]:
        """Largest absolute value and standard deviation of the response, largest absolute value of what the offset leaves of it."""
        largest, moved = float(np.abs(self.y).max()), self.y - self.y.sum() / len(self.y)
        spread = math.sqrt(float(moved @ moved) / len(self.y))
        return largest, spread, largest if self.offset is None else float(np.abs(self.y - self.offset).max())

    @property
    def frame(self) -> pd.DataFrame:
        """The columns that the model reads, over the rows kept: a copy."""
        return self.own_frame.picked()

    @property
    def groups(self) -> dict[str, int]:
        """Grouping factor -> number of levels."""
        return {term.group.name: term.group.size for term in self.terms}

    def demand_identified(self) -> None:
        """Raise the first reason why the likelihood alone does not identify the parameters; what `fit("REML")` and `fit("ML")` call."""
        if self.unidentified:
            raise self.unidentified[0]
