"""Models from spec files, from mmrm's formula, one for each group of rows, and a fit at assumed parameters."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm._types import LikelihoodKind
from bayeslmm._validation import require_mapping, require_one_of
from bayeslmm.data.columns import require_labels
from bayeslmm.data.frame import csv_names
from bayeslmm.datasets import load_dataset
from bayeslmm.errors import DataError, DesignError, SpecificationError, show_value
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.formula import parse_formula
from bayeslmm.model.fit import AssumedFit, Fit
from bayeslmm.model.fit_batches import attempt_fit, warn_of_failures
from bayeslmm.model.lmm import LMM
from bayeslmm.model.many_fits import ManyFits
from bayeslmm.results.fitted import as_pandas
from bayeslmm.results.foreign_names import answers_keywords
from bayeslmm.results.render import progress_bar
from bayeslmm.specification.model_spec import ModelArguments
from bayeslmm.specification.priors import Priors
from bayeslmm.specification.spec_file import SpecFile
from bayeslmm.specification.toml import mmrm_spec, read_spec
from bayeslmm.study_design.assumed import Matrix, Numbers, estimates_of, read_errors

if TYPE_CHECKING:
    from bayeslmm._types import CheckMode, Coding, Frame, Functions, Missing, RowValues


@answers_keywords
def read_model(path: str | Path, data: Frame | None = None, relationship: Mapping[str, pd.DataFrame] | None = None) -> LMM:
    """The model of a spec file (TOML).

    Parameters
    ----------
    path : str or Path
        Spec file (TOML).
    data : DataFrame or Mapping, optional
        A frame, in place of the data that the file names; needed where it names none.
    relationship : Mapping of str to DataFrame, optional
        Grouping factor -> labelled frame, in place of the files that it names.

    Returns
    -------
    LMM
        The model.

    Raises
    ------
    SpecificationError
        With file and key path.

    Examples
    --------
    >>> model.write("sleepstudy.toml"); blm.read_model("sleepstudy.toml", sleepstudy).nobs
    180
    """
    file = read_spec(path)
    frame = _with_factors(_data(file) if data is None else data, file)
    frames = require_mapping(relationship, "relationship", "{group: frame}")
    matrices = {group: frames[group] if group in frames else _matrix(file, group) for group in file.spec.relationship}
    model = LMM.from_spec(file.spec, frame, counting=file.dialect, relationship=matrices or None)
    model.file = file if data is None else replace(file, data=None)
    return model


def _data(file: SpecFile) -> pd.DataFrame:
    source = file.data
    if source is not None and source.name is not None:
        return load_dataset(source.name)
    if source is not None and source.file is not None:
        return _table(file.read_data(), source.file, f"{file.path}, data.file")
    raise SpecificationError("the file names no data", str(file.path or "spec"), "give read_model(path, data=...)")


def _table(content: bytes, name: str, where: str) -> pd.DataFrame:
    separator = "\t" if name.lower().endswith((".tsv", ".tab")) else ","
    try:
        csv_names(io.BytesIO(content), separator)
        return pd.read_csv(io.BytesIO(content), sep=separator)
    except UnicodeDecodeError:
        raise SpecificationError(f"{name!r} is not text in UTF-8", where, "save it as CSV in UTF-8") from None
    except DataError as error:
        raise SpecificationError(f"{name!r}: {error.what}", f"{where}: {error.where}", error.remedy) from None
    except ValueError as error:
        raise SpecificationError(f"{name!r} is no table: {error}", where, "give a CSV file with a line of names") from None


def _matrix(file: SpecFile, group: str) -> pd.DataFrame:
    name = dict(file.relationship_files).get(group, "")
    frame = _table(file.read_relationship(group), name, f"{file.path}, model.relationship.{group}")
    matrix = frame.set_index(frame.columns[0])
    return matrix.set_axis(matrix.index, axis=1) if [str(label) for label in matrix.index] == list(matrix.columns) else matrix


def _with_factors(data: Any, file: SpecFile) -> Any:
    """The data with the columns of the table `[factors]` as categories."""
    if not file.factors:
        return data
    frame = as_pandas(data)
    columns = {}
    for column, levels in file.factors:
        if column not in frame.columns:
            raise SpecificationError(f"the data have no column {column!r}", f"{file.path}, factors.{column}", "name a column of the data")
        columns[column] = _factor(frame[column], levels, f"{file.path}, factors.{column}")
    return frame.assign(**columns)


def _factor(values: pd.Series[Any], levels: Sequence[Any] | None, where: str) -> Any:
    if levels is None:
        return values if isinstance(values.dtype, pd.CategoricalDtype) else values.astype("category")
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.dtype.categories.dtype)
    lost = values[values.notna() & ~values.isin(list(levels))]
    if len(lost):
        shown = ", ".join(repr(label) for label in lost.unique()[:8])
        raise SpecificationError(f"the data have levels that the file does not list: {shown}", where, "list every level")
    return pd.Categorical(values, categories=list(levels))


@answers_keywords
def mmrm(
    formula: str,
    data: Frame,
    *,
    weights: RowValues | None = None,
    contrasts: Mapping[str, Coding] | None = None,
    priors: Priors | None = None,
    missing: Missing = "drop",
    check: CheckMode = "error",
    functions: Functions | None = None,
) -> LMM:
    """A model for repeated measures in mmrm's formula: fixed effects and one covariance structure of the errors.

    The other arguments are those of `LMM`. `aic` and `bic` of its fits count as mmrm does: covariance parameters only under REML, subjects
    in `bic`.

    Parameters
    ----------
    formula : str
        mmrm's formula: fixed effects and one structure, `"y ~ arm * visit + us(visit | id)"`.
    data : DataFrame or Mapping
        Data, in any frame with named columns.
    weights : str or array_like, optional
        Column, array or Series of prior weights; the residual variance is sigma^2 / w, and 0 leaves a row out.
    contrasts : Mapping of str to str or array_like, optional
        Factor -> "treatment", "sum", "helmert", "poly", a pair of coding and reference level, or a matrix.
    priors : Priors, optional
        Priors of the parameters, for MAP estimates and posteriors.
    missing : {"drop", "raise"}, default "drop"
        "drop" leaves rows with missing values out, "raise" refuses them.
    check : {"error", "warn"}, default "error"
        "error" refuses a design that cannot identify its parameters; "warn" goes on.
    functions : Mapping of str to callable, optional
        The user's own functions of the formula, by name.

    Returns
    -------
    LMM
        The model.

    Examples
    --------
    >>> trial = blm.load_dataset("trial")
    >>> blm.mmrm("BCVA_CHG ~ BCVA_BL + ARMCD * AVISIT + cs(AVISIT | USUBJID)", trial).spec.residual.text
    'cs(AVISIT | USUBJID)'
    """
    column = weights if isinstance(weights, str) else None
    options = {"weights": column, "contrasts": contrasts, "priors": priors, "missing": missing, "check": check}
    spec = mmrm_spec(formula, functions=frozenset(require_mapping(functions, "functions", "{name: function}")), **options)
    return LMM.from_spec(spec, data, counting="mmrm", weights=None if column else weights, functions=functions)


@answers_keywords
def fit_by(
    formula: str,
    data: Frame,
    *,
    by: str | Sequence[str],
    method: LikelihoodKind = "REML",
    residual: str | None = None,
    variance: str | None = None,
    weights: str | None = None,
    offset: str | None = None,
    contrasts: Mapping[str, Coding] | None = None,
    relationship: Mapping[str, pd.DataFrame] | None = None,
    priors: Priors | None = None,
    missing: Missing = "drop",
    check: CheckMode = "error",
    functions: Functions | None = None,
    sigma: float | None = None,
    progress: bool | None = None,
) -> ManyFits:
    """Fit one formula to each group of rows.

    Parameters
    ----------
    formula : str
        As in `LMM`.
    data : DataFrame or Mapping
        Any frame; a group whose column of `by` is missing is left out.
    by : str or sequence of str
        One or several columns: one fit for each combination of their values that occurs.
    method : {"REML", "ML"}, default "REML"
        "REML" or "ML".
    residual : str, optional
        As in `LMM`.
    variance : str, optional
        As in `LMM`.
    weights : str, optional
        Names of columns.
    offset : str, optional
        Names of columns.
    contrasts : Mapping of str to str or array_like, optional
        As in `LMM`.
    relationship : Mapping of str to DataFrame, optional
        As in `LMM`.
    priors : Priors, optional
        As in `LMM`.
    missing : {"drop", "raise"}, default "drop"
        As in `LMM`.
    check : {"error", "warn"}, default "error"
        As in `LMM`.
    functions : Mapping of str to callable, optional
        As in `LMM`.
    sigma : float, optional
        As in `LMM`.
    progress : bool, optional
        Whether to show a bar; by default where there is a terminal.

    Returns
    -------
    ManyFits
        The columns of `by` lead its tables. A group that cannot be fitted is counted and named in `failed`; the others stay.

    Raises
    ------
    SpecificationError, DataError
        For columns that there are not, and where no group can be fitted.

    Examples
    --------
    >>> fits = blm.fit_by("distance ~ age + (1 | Subject)", blm.load_dataset("nlme/Orthodont"), by="Sex")
    >>> fits.tidy()[["Sex", "term"]].to_numpy().tolist()
    [['Male', 'Intercept'], ['Male', 'age'], ['Female', 'Intercept'], ['Female', 'age']]
    """
    require_one_of(method, get_args(LikelihoodKind), "method")
    frame = as_pandas(data)
    columns = [by] if isinstance(by, str) else list(by) if isinstance(by, Sequence) else [by]
    absent = [column for column in columns if not isinstance(column, str) or column not in frame.columns]
    if not columns or absent:
        what = f"there is no column {show_value(absent[0])}" if absent else "no column is named"
        remedy = "use columns of the data: " + ", ".join(map(repr, list(frame.columns)[:8]))
        if any(isinstance(column, str) and column in frame.index.names for column in absent):
            remedy = "make the levels of the index columns: data.reset_index()"
        raise SpecificationError(what, "by=", remedy)
    for name, value in (("weights", weights), ("offset", offset)):
        if value is not None and not isinstance(value, str):
            raise SpecificationError(f"{name} is not the name of a column", f"{name}=", "put it into the data, and name its column")
    arguments = ModelArguments(
        formula, residual, variance, weights, offset, contrasts, relationship, priors, missing, check, functions, sigma
    )
    for column in columns:
        require_labels(frame[column], column)
    groups = frame.groupby(columns, sort=True, observed=True, dropna=True).indices
    fits: dict[int, Fit] = {}
    failures: dict[int, str] = {}
    with progress_bar("groups", len(groups), progress) as advance:
        for i, rows in enumerate(groups.values()):
            fitted = attempt_fit(partial(_fit_rows, arguments, frame.take(np.asarray(rows)), method))
            if isinstance(fitted, str):
                failures[i] = fitted
            else:
                fits[i] = fitted
            advance(1)
    if not fits:
        what = f"none of {len(groups)} groups can be fitted"
        raise DataError(
            what, f"by={by!r}; the first: {next(iter(failures.values()), 'there are no groups')}", "look at one group by itself"
        )
    warn_of_failures(failures, len(groups), "groups")
    labels = [name if isinstance(name, tuple) else (name,) for name in groups]
    return ManyFits(pd.DataFrame(labels, columns=columns), method, (), fits, failures, fits.__getitem__)


def _fit_rows(arguments: ModelArguments, frame: pd.DataFrame, method: LikelihoodKind) -> Fit:
    return require_finished(LMM.of(arguments, frame).fit(method))


@answers_keywords
def assume(
    formula: str,
    skeleton: Frame,
    *,
    alpha: Numbers,
    sd: Numbers | Mapping[str, Numbers] | None = None,
    corr: float | Array | Mapping[str, float | Array] | None = None,
    sigma: float | None = None,
    residual: str | None = None,
    R: Matrix | Mapping[str, Matrix] | None = None,
    method: LikelihoodKind = "REML",
) -> Fit:
    """A fit at assumed parameters, with no outcome.

    Parameters
    ----------
    formula : str
        As of `LMM`; the outcome need not be in the skeleton.
    skeleton : DataFrame or Mapping
        One row per planned observation: groups, visits, covariates.
    alpha : float, sequence or Mapping
        Coefficients in their order, or by name.
    sd : float, sequence or Mapping or Mapping of str to float, sequence or Mapping, optional
        Standard deviations of the random effects: numbers of the only term, or grouping factor -> numbers; "id/t" is that of column t.
    corr : float or ndarray or Mapping of str to float or ndarray, optional
        Their correlations: one number, a matrix, or grouping factor -> these; 0 where not given.
    sigma : float, optional
        Residual standard deviation.
    residual : str, optional
        Structure of the errors over visits.
    R : ndarray or sequence of sequence of float or DataFrame or Mapping of str to one of these, optional
        Covariance matrix of the errors over visits; where the structure differs by group, one matrix for all or group -> its own.
    method : {"REML", "ML"}, default "REML"
        What simulated data will be fitted by.

    Returns
    -------
    Fit
        With `predict`, `marginal_cov`, `simulate`, `power` and all that needs no outcome.

    Examples
    --------
    >>> plan = blm.assume("y ~ x + (1 | g)", {"x": [0, 1] * 6, "g": list("aabbccddeeff")}, alpha=[0, 1], sd=1, sigma=1)
    >>> round(plan.power("x", method="analytic").frame["power"].item(), 3)
    0.291
    """
    require_one_of(method, get_args(LikelihoodKind), "method")
    frame = as_pandas(skeleton).copy()
    outcome = parse_formula(formula).response
    if len(frame) < 2:
        raise DesignError(f"the skeleton has {len(frame)} rows", "skeleton", "give one row per planned observation")
    # numbers that no column of the design reproduces, replaced by a response with the assumed estimates
    frame[outcome] = np.random.default_rng(0).standard_normal(len(frame))
    model = LMM(formula, frame, residual=residual)
    found = estimates_of(model, alpha, sd, corr, read_errors(model.problem, sigma, R), method)
    return AssumedFit(found.model, found.problem, found.estimate, 0.0)
