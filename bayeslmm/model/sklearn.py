"""`LMMRegressor`: a linear mixed model as scikit-learn takes estimators; the one module that imports scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, get_args, overload

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, numbers_of
from bayeslmm._validation import require_one_of
from bayeslmm.data.expressions import read_atom
from bayeslmm.errors import DataError, DependencyError, PredictionError, SpecificationError
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.formula.parse import parse_formula
from bayeslmm.model.lmm import LMM
from bayeslmm.results.fitted import as_pandas
from bayeslmm.results.foreign_names import ESTIMATOR_ATTRIBUTES, no_attribute, public_verbs

if TYPE_CHECKING:
    import polars as pl

    from bayeslmm._types import ArrayLike, CheckMode, Coding, FitMethod, Frame, Functions, IntervalKind, Level, Missing, NewLevels
    from bayeslmm.model.fit import Fit
    from bayeslmm.specification.priors import Priors


try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.exceptions import NotFittedError
except ImportError:
    raise DependencyError("LMMRegressor needs the package scikit-learn", "", "pip install 'bayeslmm[sklearn]'") from None

Output = Literal["numpy", "pandas", "polars"]


class UnfittedError(PredictionError, NotFittedError):  # type: ignore[misc]
    """An estimator that was asked before it was fitted; scikit-learn's own error too."""


class LMMRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A linear mixed model that scikit-learn can clone, search over, put into a pipeline and cross-validate.

    The other arguments are those of `LMM`.

    X is a frame with named columns, pandas or polars, the grouping columns among them: folds that must not share a group are made by
    `GroupKFold` with `groups=X["Subject"]`. After `fit`, `fit_` is the `Fit` with all its tables.

    Parameters
    ----------
    formula : str, default "y ~ 1"
        As of `LMM`; its left side is the name under which `y` goes in: `"Reaction ~ Days + (Days | Subject)"`.
    method : {"REML", "ML", "MAP"}, default "REML"
        "REML", "ML" or "MAP".
    level : {"conditional", "population"}, default "conditional"
        Predictions "conditional" on the random effects, or of the "population".
    new_levels : {"error", "population"}, default "population"
        "population" gives levels that were not fitted their expected effect, 0, as grouped cross-validation needs; or "error".
    residual : str, optional
        Structure of R in mmrm's syntax, `"us(AVISIT | USUBJID)"`; None is independent errors.
    variance : str, optional
        Variance function of the errors, `"ident(Sex) * power(age)"`.
    contrasts : Mapping of str to str or array_like, optional
        Factor -> "treatment", "sum", "helmert", "poly", a pair of coding and reference level, or a matrix.
    relationship : Mapping of str to DataFrame, optional
        Grouping factor -> labelled frame of the known covariance of its levels.
    priors : Priors, optional
        Priors of the parameters, for MAP estimates and posteriors.
    missing : {"drop", "raise"}, default "drop"
        "drop" leaves rows with missing values out, "raise" refuses them.
    check : {"error", "warn"}, default "error"
        "error" refuses a design that cannot identify its parameters; "warn" goes on.
    functions : Mapping of str to callable, optional
        The user's own functions of the formula, by name.

    Raises
    ------
    SpecificationError
        Where the left side is an expression (transform y, or wrap the estimator in TransformedTargetRegressor).
    DataError
        For X without names, and what `LMM` raises.

    Examples
    --------
    >>> regressor = blm.LMMRegressor("Reaction ~ Days + (Days | Subject)").fit(sleepstudy[["Days", "Subject"]], sleepstudy["Reaction"])
    >>> round(regressor.score(sleepstudy, sleepstudy["Reaction"]), 3)
    0.826
    """

    if not TYPE_CHECKING:  # scikit-learn asks its estimators what they have: only names that people type are answered

        def __getattr__(self, name: str) -> NoReturn:
            if name in ESTIMATOR_ATTRIBUTES:
                raise no_attribute(type(self), name, ESTIMATOR_ATTRIBUTES)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __init__(
        self,
        formula: str = "y ~ 1",
        *,
        method: FitMethod = "REML",
        level: Level = "conditional",
        new_levels: NewLevels = "population",
        residual: str | None = None,
        variance: str | None = None,
        contrasts: Mapping[str, Coding] | None = None,
        relationship: Mapping[str, pd.DataFrame] | None = None,
        priors: Priors | None = None,
        missing: Missing = "drop",
        check: CheckMode = "error",
        functions: Functions | None = None,
    ) -> None:
        # scikit-learn clones by these names: each is kept as it was given
        self.formula = formula
        self.method = method
        self.level = level
        self.new_levels = new_levels
        self.residual = residual
        self.variance = variance
        self.contrasts = contrasts
        self.relationship = relationship
        self.priors = priors
        self.missing = missing
        self.check = check
        self.functions = functions

    def fit(self, X: Frame, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None) -> Self:
        """Estimate the model.

        Parameters
        ----------
        X : DataFrame or Mapping
            Frame of n rows.
        y : array_like, optional
            (n,) response, or None where X has the column that the left side names.
        sample_weight : array_like, optional
            (n,) prior weights.

        Returns
        -------
        LMMRegressor
            The estimator itself.

        Examples
        --------
        >>> blm.LMMRegressor("Reaction ~ Days + (1 | Subject)").fit(sleepstudy).fit_.df_model
        4
        """
        frame = _frame_with_names(X)
        name = response_name(self.formula, frozenset(self.functions or ()))
        if y is not None:
            frame = frame.assign(**{name: _column(y, len(frame))})
        elif name not in frame:
            raise DataError(f"there is no y, and X has no column {name!r}", f"formula {self.formula}", "give fit(X, y)")
        model = LMM(
            self.formula,
            frame,
            residual=self.residual,
            variance=self.variance,
            # by position, as everywhere in scikit-learn: a step of a pipeline may have taken the labels of X away
            weights=None if sample_weight is None else numbers_of(sample_weight, "sample_weight", labelled=True),
            contrasts=self.contrasts,
            relationship=self.relationship,
            priors=self.priors,
            missing=self.missing,
            check=self.check,
            functions=self.functions,
        )
        self.fit_: Fit = require_finished(model.fit(self.method))
        self.feature_names_in_ = np.array([column for column in frame.columns if column != name], dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        return self

    @overload
    def predict(
        self, X: Frame, *, interval: IntervalKind | None = None, conf_level: float = 0.95, output: Literal["numpy"] = "numpy"
    ) -> Array: ...
    @overload
    def predict(
        self, X: Frame, *, interval: IntervalKind | None = None, conf_level: float = 0.95, output: Literal["pandas"]
    ) -> pd.DataFrame: ...
    @overload
    def predict(
        self, X: Frame, *, interval: IntervalKind | None = None, conf_level: float = 0.95, output: Literal["polars"]
    ) -> pl.DataFrame: ...
    def predict(
        self, X: Frame, *, interval: IntervalKind | None = None, conf_level: float = 0.95, output: Output = "numpy"
    ) -> Array | pd.DataFrame | pl.DataFrame:
        """Predictions row for row with X; NaN where X has missing values.

        Parameters
        ----------
        X : DataFrame or Mapping
            Frame of n rows.
        interval : {"confidence", "prediction"}, optional
            None, "confidence" or "prediction", which adds `std_error, conf_low, conf_high` to the columns.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        output : {"numpy", "pandas", "polars"}, default "numpy"
            "numpy" gives (n,), or (n, 4) with an interval; "pandas" and "polars" a frame with `estimate` first.

        Returns
        -------
        ndarray or DataFrame or pl.DataFrame
            One value or row for each row of X.

        Examples
        --------
        >>> regressor.predict({"Days": [10], "Subject": ["308"]}).round(2).tolist()
        [450.33]
        """
        require_one_of(output, get_args(Output), "output")
        if not hasattr(self, "fit_"):
            raise UnfittedError("this LMMRegressor has not been fitted", "predict", "call fit(X, y) first")
        table = self.fit_.predict(_frame_with_names(X), self.level, interval, conf_level, self.new_levels)
        if output == "numpy":
            values: Array = table.to_numpy(float)
            return values if interval else values[:, 0]
        return table if output == "pandas" else _polars(table)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "fit_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        return tags


public_verbs(LMMRegressor)


def response_name(formula: str, functions: frozenset[str] = frozenset()) -> str:
    """The column that the left side of a formula names; SpecificationError where it is an expression.

    >>> response_name("Reaction ~ Days + (1 | Subject)")
    'Reaction'
    """
    atom = read_atom(parse_formula(formula, functions).response.strip())
    if atom.kind != "column":
        raise SpecificationError(
            f"the left side {atom.name!r} is an expression, and y goes in under a name",
            formula,
            "name it, y ~ ..., and transform y: sklearn.compose.TransformedTargetRegressor does both ways",
        )
    return atom.name


def _frame_with_names(X: Any) -> pd.DataFrame:
    if isinstance(X, np.ndarray | list | tuple):
        raise DataError(f"X is a {type(X).__name__}, which has no column names", "X", "give a pandas or polars frame")
    return as_pandas(X)


def _column(y: Any, rows: int) -> Any:
    try:
        values = y.to_numpy() if hasattr(y, "to_numpy") else np.asarray(y)
    except ValueError as error:
        raise DataError("y is no column of numbers", "y", "give one number per row of X") from error
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (rows,):
        raise DataError(f"y has shape {values.shape}, X {rows} rows", "y", "give one number per row of X")
    return values


def _polars(table: pd.DataFrame) -> pl.DataFrame:
    try:
        polars = import_module("polars")
    except ImportError:
        raise DependencyError("a polars frame needs the package polars", "output", "pip install polars") from None
    frame: pl.DataFrame = polars.DataFrame({str(name): table[name].to_numpy() for name in table.columns})
    return frame
