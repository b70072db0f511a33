"""Linear functions of the coefficients, draw by draw: contrasts and marginal means, on the grid and under the names of inference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.arrays import Array
from bayeslmm.inference.emmeans import EMMeans
from bayeslmm.inference.emmeans import emmeans as means_of
from bayeslmm.inference.families import family
from bayeslmm.inference.linear import demand_estimable, linear_functions

if TYPE_CHECKING:
    from bayeslmm.bayes.posterior import Posterior


def described(draws: Array, conf_level: float, against: Array | float = 0.0) -> pd.DataFrame:
    """`estimate, std_error, conf_low, conf_high, probability` of draws (S, m); NaN columns stay NaN."""
    tail = 0.5 - 0.5 * conf_level
    low, high = np.quantile(draws, [tail, 1.0 - tail], axis=0) if draws.shape[1] else (np.zeros(0), np.zeros(0))
    above = np.where(np.isnan(draws).any(0), np.nan, (draws > against).mean(0))
    columns = {"estimate": draws.mean(0), "std_error": draws.std(0, ddof=1), "conf_low": low, "conf_high": high, "probability": above}
    return pd.DataFrame(columns)


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorContrast:
    """frame : one row per function, `term, estimate, std_error, conf_low, conf_high, probability`; draws : (S, m), minus the right side."""

    frame: pd.DataFrame
    draws: Array

    def __repr__(self) -> str:
        return self.frame.to_string(index=False)

    def _repr_html_(self) -> str:
        return self.frame.to_html(index=False)


def posterior_contrast(post: Posterior, L: Any, rhs: Any, conf_level: float) -> PosteriorContrast:
    """Draws of L alpha - rhs; `probability` is that of being above 0."""
    functions = linear_functions(L, post.design.coef_names, rhs)
    rows = demand_estimable(functions, post.design)
    draws = post.draws.alpha @ rows.T - functions.rhs
    table = described(draws, conf_level)
    table.insert(0, "term", list(functions.labels))
    return PosteriorContrast(table, draws)


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorMeans:
    """Marginal means: `frame` with the factor columns, `estimate, std_error, conf_low, conf_high, probability`; draws (S, m)."""

    frame: pd.DataFrame
    draws: Array
    means: EMMeans
    conf_level: float

    def pairs(self, reverse: bool = False) -> pd.DataFrame:
        """All differences of two means, within the levels of `by`."""
        return self.contrast("revpairwise" if reverse else "pairwise")

    def contrast(self, method: Any = "effect", ref: Any = None) -> pd.DataFrame:
        """Contrasts of the means, within the levels of `by`: `contrast`, the `by` columns, and what `frame` says of means."""
        frames = []
        for rows in self.means._groups():
            made = family(method, self.means._labels(rows), ref)
            table = described(self.draws[:, rows] @ made.weights.T, self.conf_level)
            for name in reversed(self.means.by):
                table.insert(0, name, [self.frame[name].iloc[rows[0]]] * len(table))
            table.insert(0, "contrast", list(made.labels))
            frames.append(table)
        return pd.concat(frames, ignore_index=True)

    def plot(self, **options: Any) -> Any:
        """Posterior means with their intervals; along the variable `x` as joined lines. Matplotlib axes."""
        return replace(self.means, frame=self.frame, conf_level=self.conf_level).plot(**options)

    def __repr__(self) -> str:
        return "\n".join([self.frame.to_string(index=False), *self.means.notes])

    def _repr_html_(self) -> str:
        return self.frame.to_html(index=False)


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Mean and covariance of the coefficients where a fit has estimates."""

    post: Posterior
    alpha: Array
    vcov: Array
    method: str = "REML"

    @property
    def design(self) -> Any:
        return self.post.design

    @property
    def problem(self) -> Any:
        return self.post.problem

    @property
    def estimate(self) -> Moments:
        return self

    @property
    def nobs(self) -> int:
        return self.post.design.nobs


def posterior_emmeans(post: Posterior, specs: Any, by: Any, at: Any, weights: str, conf_level: float) -> PosteriorMeans:
    """The rows of a fit's marginal means, applied to every draw."""
    alpha = post.draws.alpha
    stand_in: Any = Moments(post, alpha.mean(0), np.atleast_2d(np.cov(alpha, rowvar=False)))
    made = means_of(stand_in, specs, by, at, weights, df="asymptotic", vcov="asymptotic", conf_level=conf_level)
    draws = alpha @ made.L.T + made.offsets
    table = described(draws, conf_level)
    keys = made.frame[[*made.specs, *made.by]]
    return PosteriorMeans(pd.concat([keys, table.set_index(keys.index)], axis=1), draws, made, conf_level)
