"""`model.priors`: the priors in use, as a table and as curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.arrays import Array
from bayeslmm.bayes.doors import plot
from bayeslmm.bayes.priors import ModelPriors, ParameterPrior, resolve
from bayeslmm.estimate.prior_density import log_density, proper
from bayeslmm.spec.families import Prior

POINTS = 200


def resolved_priors(model: Any) -> ResolvedPriors:
    """The priors of a model, those not said scaled from the data."""
    return ResolvedPriors(resolve(model.problem, model.spec.priors))


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedPriors:
    """Priors in use.

    frame : one row per parameter, `parameter, group, term, prior, proper, source`
    """

    priors: ModelPriors

    @property
    def frame(self) -> pd.DataFrame:
        """One row per parameter."""
        rows = [(r.kind, r.group, r.term, described(r.prior), r.kind == "corr" or proper(r.prior), r.source) for r in self.priors.rows()]
        return pd.DataFrame(rows, columns=["parameter", "group", "term", "prior", "proper", "source"])

    def curves(self, points: int = POINTS) -> pd.DataFrame:
        """Densities for a figure: `label, value, density`; improper priors are left out."""
        frames = [pd.DataFrame({"label": row.label, "value": v, "density": d}) for row, v, d in self._curves(points)]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["label", "value", "density"])

    def _curves(self, points: int) -> Iterator[tuple[ParameterPrior, Array, Array]]:
        for row in self.priors.rows():
            prior = Prior("uniform", (-1.0, 1.0)) if row.kind == "corr" and row.prior.family != "lkj" else row.prior
            if prior.family == "lkj":
                v = np.linspace(-1.0, 1.0, points)
                # the marginal of one correlation of a 2 x 2 matrix
                d = (1.0 - v**2) ** (prior.parameters[0] - 1.0)
                yield row, v, d / (d.mean() * 2.0)
            elif proper(prior):
                v = np.linspace(*_range(prior), points)
                yield row, v, np.exp(log_density(prior, v))

    def plot(self, ax: Any = None) -> Any:
        """The density of every proper prior, a panel each: Matplotlib axes; `curves` has the numbers.

        >>> axes = model.priors.plot()
        """
        return plot("priors_axes", self, ax=ax)

    def __repr__(self) -> str:
        return self.frame.to_string(index=False)

    def _repr_html_(self) -> str:
        return str(self.frame.to_html(index=False))


def _range(prior: Prior) -> tuple[float, float]:
    """Where nearly all of a density lies."""
    last = prior.parameters[-1]
    if prior.family == "uniform":
        return prior.parameters[0], prior.parameters[1]
    if prior.family == "normal":
        return prior.parameters[0] - 4.0 * last, prior.parameters[0] + 4.0 * last
    if prior.family == "exponential":
        return 0.0, 5.0 / last
    if prior.family == "gamma":
        return 1e-9, (prior.parameters[0] + 4.0 * np.sqrt(prior.parameters[0])) / last
    if prior.family == "inverse_gamma":
        return 1e-9 * last, 5.0 * last / max(prior.parameters[0], 0.5)
    return 0.0, 4.0 * last


def described(prior: Prior) -> str:
    """`half_t(3, 0, 141)`: families with a location of 0 show it, as books do."""
    numbers = [f"{value:.4g}" for value in prior.parameters]
    if prior.family.startswith("half"):
        numbers.insert(len(numbers) - 1, "0")
    return f"{prior.family}({', '.join(numbers)})" if numbers else prior.family
