"""Residuals on a scale that needs no theory: where each observation stands among responses simulated from the fit (as DHARMa).

Under a right model they are uniform, whatever the model. Simulations draw new random effects and new errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.arrays import Array
from bayeslmm.errors import InferenceError
from bayeslmm.inference import doors
from bayeslmm.results.fit import Fit
from bayeslmm.seeds import seeded


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedResiduals:
    """values : (nobs,) in (0, 1); fitted : (nobs,) population means; simulations : (nobs, n) responses; observed : (nobs,)."""

    values: Array
    fitted: Array
    simulations: Array
    observed: Array

    def tests(self) -> pd.DataFrame:
        """`test, statistic, p_value`: uniformity (Kolmogorov-Smirnov), dispersion (variance about the mean against that of simulations),
        outliers (observations beyond all simulations).

        Observations of one group are dependent; p values are a guide, not a verdict.

        >>> simulated_residuals(fit, seed=1).tests()["test"].tolist()
        ['uniformity', 'dispersion', 'outliers']
        """
        ks = stats.kstest(self.values, "uniform")
        center = self.simulations.mean(axis=1)
        own, drawn = np.var(self.observed - center), np.var(self.simulations - center[:, None], axis=0)
        share = float(np.mean(drawn >= own))
        n = self.simulations.shape[1]
        outside = int(np.sum((self.observed < self.simulations.min(axis=1)) | (self.observed > self.simulations.max(axis=1))))
        outliers = stats.binomtest(outside, len(self.observed), 2.0 / (n + 1))
        return pd.DataFrame(
            {
                "test": ["uniformity", "dispersion", "outliers"],
                "statistic": [float(ks.statistic), float(own / drawn.mean()), float(outside)],
                "p_value": [float(ks.pvalue), min(1.0, 2.0 * min(share, 1.0 - share) + 1.0 / n), float(outliers.pvalue)],
            }
        )

    def plot(self, **options: Any) -> Any:
        """Uniform quantiles, and values against fitted ranks; see `bayeslmm.plots.simulated_axes`."""
        return doors.plot("simulated_axes", self, **options)


def simulated_residuals(fit: Fit, n: int = 250, seed: int | None = None) -> SimulatedResiduals:
    """Rank every observation among n simulated ones; ties and gaps between ranks are filled at random.

    >>> simulated_residuals(fit, seed=1).values.shape
    (180,)
    """
    if isinstance(n, bool) or int(n) != n or n < 20:
        raise InferenceError(f"{n!r} simulations are too few to rank among", "n", "give 100 or more")
    simulations = fit.simulate(int(n), seed=seed).to_numpy()
    observed = fit.design.y
    below, upto = (simulations < observed[:, None]).sum(axis=1), (simulations <= observed[:, None]).sum(axis=1)
    jitter = np.random.default_rng(seeded(seed).spawn(int(n) + 1)[-1]).uniform(size=len(observed))
    values = (below + jitter * (upto - below + 1)) / (n + 1)
    return SimulatedResiduals(values, fit.fitted(level="population"), simulations, observed)
