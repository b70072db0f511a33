"""Types of public signatures: the words that options take, and the objects that users give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike as ArrayLike
from numpy.typing import NDArray

# -- words -------------------------------------------------------------------------------------------------------------------------------

FitMethod = Literal["REML", "ML", "MAP"]
"""How a model is estimated."""

LikelihoodKind = Literal["REML", "ML"]
"""A likelihood: restricted, or full."""

DfName = Literal["satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within", "containment", "residual", "asymptotic"]
"""Degrees of freedom of tests of fixed effects."""

DfMethod = Literal[DfName, "kr", "KR", "bw"]
"""The same, with "kr" short for Kenward-Roger and "bw" for between-within."""

VcovName = Literal["asymptotic", "kenward-roger", "kenward-roger-linear", "CR0", "CR1", "CR2", "CR3"]
"""Covariance of the fixed effects."""

VcovMethod = Literal[VcovName, "empirical", "empirical-bias-reduced", "empirical-jackknife"]
"""The same, with mmrm's names of CR0, CR2 and CR3."""

Information = Literal["expected", "observed"]
"""Which information of the covariance parameters Kenward-Roger uses."""

Effects = Literal["fixed", "ran_pars", "ran_vals", "all"]
"""Which rows a tidy table has."""

ConfMethod = Literal["wald", "profile", "bootstrap"]
"""How confidence limits are found."""

Level = Literal["conditional", "population"]
"""Given the random effects, or of the population."""

ResidualKind = Literal["response", "pearson", "normalized", "marginal"]
"""Which residuals."""

IntervalKind = Literal["confidence", "prediction"]
"""An interval of the mean, or of a new observation."""

NewLevels = Literal["error", "population"]
"""What a prediction does about levels that the fit does not know."""

PosteriorNewLevels = Literal["error", "population", "sample"]
"""The same of a posterior, which can draw the effects of a new level."""

AnovaType = Literal[1, 2, 3, "I", "II", "III"]
"""Type of the hypotheses about terms."""

BootstrapKind = Literal["parametric", "case"]
"""Simulated responses, or resampled groups."""

BootstrapInterval = Literal["percentile", "basic", "bca"]
"""How limits are made of replicates."""

GridWeights = Literal["equal", "proportional", "outer", "cells", "flat"]
"""Weights of what a marginal mean averages over."""

Adjustment = Literal["none", "tukey", "dunnett", "mvt", "holm", "bonferroni", "sidak", "fdr"]
"""Adjustments for several contrasts."""

ResponseAdjustment = Literal["bh", "holm", "bonferroni", "none"]
"""Adjustments of the p values of one term over many fits."""

InfluenceValues = Literal["estimates", "dfbetas"]
"""What is shown of the coefficients without a level."""

Missing = Literal["drop", "raise"]
"""What is done about rows with missing values."""

CountingRule = Literal["lme4", "mmrm", "sas"]
"""By whose rule parameters and observations are counted for AIC and BIC."""

CheckMode = Literal["error", "warn"]
"""What is done about a design that cannot identify its parameters."""

SamplingMethod = Literal["auto", "collapsed", "hierarchical", "importance", "nuts"]
"""How a posterior is sampled."""

PredictiveKind = Literal["density", "stat", "intervals"]
"""What is shown of responses drawn from a posterior."""

Sampler = Literal["auto", "nutpie", "pymc"]
"""Which program samples the hierarchical model."""

GraphForm = Literal["marginal", "hierarchical"]
"""Random effects integrated out, or each a variable."""

LeaveOut = Literal["observation", "group"]
"""What leave-one-out leaves out."""

Ranking = Literal["aic", "bic", "loo", "logo", "evidence"]
"""By what models are ranked."""

SummaryKind = Literal["all", "stats", "diagnostics"]
"""Which columns ArviZ's summary has."""

ContrastName = Literal["pairwise", "revpairwise", "trt.vs.ctrl", "poly", "consec", "effect", "identity"]
"""Families of contrasts of marginal means."""

RanefPlot = Literal["caterpillar", "qq", "pairs"]
"""Random effects with intervals, against normal quantiles, or every two columns."""

ResponseType = Literal["link", "response"]
"""The response as the model has it, or taken back from its transformation."""

TableFormat = Literal["html", "latex", "docx", "rtf", "markdown"]
"""The language of a table for a paper."""

Side = Literal["two-sided", "greater", "less"]
"""Which way a test looks."""

# -- objects -----------------------------------------------------------------------------------------------------------------------------


class ArrowStream(Protocol):
    """A data frame of another library: polars, pyarrow, DuckDB, cuDF, ..."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


Frame = pd.DataFrame | Mapping[str, Any] | ArrowStream
"""Data: a pandas, polars or pyarrow frame, or a mapping of columns."""

Parts = Sequence[Frame] | Callable[[], Iterable[Frame]] | str | Path | Sequence[str | Path] | ArrowStream
"""Data in parts: frames, a function that returns an iterator of them, CSV or parquet files, or a Dask data frame."""

RowValues = str | ArrayLike
"""One number per row: the name of a column, an array or a Series."""

Coding = str | ArrayLike | pd.DataFrame | Sequence[str]
"""The contrasts of a factor: the name of a coding, or a matrix of levels by columns."""

Seed = int | Sequence[int]
"""A seed: a whole number of 0 or more, or several."""

Functions = Mapping[str, Callable[..., Any]]
"""A user's functions for the formula, by name."""

Names = str | Sequence[str]
"""A name, or several."""

Values = float | str | bool | Sequence[Any] | NDArray[np.generic]
"""A value, or several, of a variable."""

LinearFunction = str | ArrayLike | Mapping[str, Any] | Sequence[Any] | pd.DataFrame
"""Rows of L: weights in the order of the coefficients or by name, or equations as text."""

ContrastMethod = ContrastName | Mapping[str, ArrayLike] | ArrayLike
"""A family of contrasts, or weights of the means: by label, or one row each."""

PredictiveStatistic = Literal["mean", "median", "sd", "min", "max"] | Callable[[NDArray[np.float64]], float]
"""A number said of responses: by name, or a function of an array."""

VarianceScale = Literal["variance", "sd"]
"""Variances and covariances, or standard deviations and correlations."""

VarianceFunctionOf = Callable[[Mapping[str, float]], float]
"""A function of the variances of a fit, given by name."""

StatisticValues = ArrayLike | Mapping[str, float]
"""What a bootstrap statistic gives: numbers, by name or in order."""

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    AxesLike = Axes | Sequence[Axes] | NDArray[np.object_] | None
    """Where a figure goes: Matplotlib axes, several where it has several panels, or None for a new figure."""
