"""A fit as other packages take models: marginaleffects by its model protocol, maketables by its attributes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm._types import VcovMethod
from bayeslmm.errors import DependencyError
from bayeslmm.formula.parse import columns_of
from bayeslmm.inference.diagnostics import r2
from bayeslmm.inference.fixed_effects.tests import coefficient_table, covariance
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.predict import with_limits


def to_marginaleffects(fit: Estimates) -> Any:
    """A model of the package marginaleffects, for `predictions`, `comparisons` and `slopes` of the population.

    Its `vcov=` takes every covariance of `fit.covariance`, as in `predictions(adapter, vcov="CR2")`; intervals use normal quantiles.
    Raises DependencyError where the package is not installed.

    >>> from marginaleffects import avg_slopes
    >>> effects = avg_slopes(fit.to_marginaleffects(), variables="Days")
    """
    try:
        protocol, polars = import_module("marginaleffects.classes"), import_module("polars")
    except ImportError as error:
        raise DependencyError("the package marginaleffects is not installed", str(error), "pip install marginaleffects") from error
    return _adapter(protocol, polars)(fit)


def _adapter(protocol: Any, polars: Any) -> Any:
    class BayesLMMModel(protocol.ModelAbstract):  # type: ignore[misc]
        """A fit behind the protocol of marginaleffects."""

        def __init__(self, fit: Estimates) -> None:
            self._fit = fit
            frame = model_frame(fit)
            vault = protocol.ModelVault(
                coef=np.array(fit.fixef_kept),
                coefnames=np.array([fit.design.coef_names[k] for k in fit.design.kept]),
                # a callable stands for a formula that is not to be read again
                formula=self._matrices,
                modeldata=_with_types(frame, polars),
                package="bayeslmm",
                vcov=np.array(fit.vcov_kept),
                variable_names=[
                    str(fit.design.spec.formula.response),
                    *(c for c in columns_of(fit.design.spec.formula) if c in frame.columns),
                ],
            )
            super().__init__(fit, vault)

        def _matrices(self, newdata: Any) -> tuple[None, Array]:
            return None, rows_for(self._fit, newdata.to_pandas())

        def get_exog(self, newdata: Any) -> Array:
            return self._matrices(newdata)[1]

        def get_vcov(self, vcov: VcovMethod | bool | None = True) -> Array | None:
            if vcov is False or vcov is None:
                return None
            kept = list(self._fit.design.kept)
            return np.asarray(covariance(self._fit, "asymptotic" if vcov is True else vcov).to_numpy()[np.ix_(kept, kept)])

        def get_predict(self, params: Array, newdata: Any) -> Any:
            rows = newdata if isinstance(newdata, np.ndarray) else self.get_exog(newdata)
            estimate = rows[:, :-1] @ np.asarray(params) + rows[:, -1]
            return polars.DataFrame({"rowid": np.arange(len(rows), dtype=np.int32), "estimate": estimate})

    return BayesLMMModel


def rows_for(fit: Estimates, newdata: pd.DataFrame) -> Array:
    """X of the columns kept and, last, the offset, (n, p + 1)."""
    X = fit.design.encoding.encode_fixed(newdata)[0][:, list(fit.design.kept)]
    offset = fit.design.encoding.offset(newdata)
    return np.column_stack([X, np.zeros(len(X)) if offset is None else offset])


def model_frame(fit: Estimates) -> pd.DataFrame:
    """The data of the fit, text columns as ordered levels."""
    frame = fit.design.frame.reset_index(drop=True)
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name]) and not isinstance(frame[name].dtype, pd.CategoricalDtype):
            frame[name] = pd.Categorical(frame[name].astype(str))
    return frame


def _with_types(frame: pd.DataFrame, polars: Any) -> Any:
    """As polars, factors as enumerations: the package refuses text."""
    columns = {}
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            levels = [str(level) for level in frame[name].cat.categories]
            columns[str(name)] = polars.Series(frame[name].astype(str).tolist(), dtype=polars.Enum(levels))
        else:
            columns[str(name)] = polars.Series(frame[name].to_numpy())
    return polars.DataFrame(columns)


# -- maketables ------------------------------------------------------------------------------------------------------------------------

STATISTICS: dict[str, Callable[[Estimates], float | str]] = {
    "N": lambda fit: fit.nobs,
    "aic": lambda fit: fit.aic,
    "bic": lambda fit: fit.bic,
    "loglik": lambda fit: fit.loglik,
    "criterion": lambda fit: fit.criterion,
    "sigma": lambda fit: fit.sigma,
    "groups": lambda fit: ", ".join(f"{name} {size}" for name, size in fit.design.groups.items()),
    "r2_marginal": lambda fit: float(r2(fit)["marginal"].iloc[0]),
    "r2_conditional": lambda fit: float(r2(fit)["conditional"].iloc[0]),
}

LABELS = {
    "N": "Observations",
    "aic": "AIC",
    "bic": "BIC",
    "loglik": "Log likelihood",
    "criterion": "Criterion",
    "sigma": "Residual sd",
    "groups": "Groups",
    "r2_marginal": "R² marginal",
    "r2_conditional": "R² conditional",
}


def maketables_coefficients(fit: Estimates) -> pd.DataFrame:
    """`b, se, t, p` and 95% limits by coefficient, degrees of freedom by Satterthwaite."""
    table = with_limits(coefficient_table(fit), 0.95).set_index("term")
    names = {"estimate": "b", "std_error": "se", "statistic": "t", "p_value": "p", "conf_low": "ci95l", "conf_high": "ci95u"}
    out = table[list(names)].rename(columns=names)
    out.index.name = "Coefficient"
    return out


def maketables_statistic(fit: Estimates, key: str) -> float | str | None:
    """A statistic by its key, None for one that a mixed model does not have."""
    found = STATISTICS.get(key)
    return None if found is None else found(fit)
