"""Models whose rows were added up: read in parts, or by the engine that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from bayeslmm._validation import require_count
from bayeslmm.errors import SpecificationError
from bayeslmm.formula.update import update_formula
from bayeslmm.model.lmm import LMM
from bayeslmm.partitions.design import GIVEN_OFFSET, SummedRows
from bayeslmm.partitions.kept_rows import gather_rows, needs_every_row
from bayeslmm.partitions.partitions import Partitions, is_dask
from bayeslmm.partitions.sums import problem_of_sums, sum_partitions
from bayeslmm.partitions.table import EngineTable
from bayeslmm.partitions.table_sums import sum_table
from bayeslmm.results.foreign_names import answers_keywords, public_verbs
from bayeslmm.specification.model_spec import ModelArguments
from bayeslmm.specification.priors import Priors

if TYPE_CHECKING:
    from bayeslmm._types import ArrowStream, CheckMode, Coding, CountingRule, Frame, Functions, Missing, Parts


class PartitionedLMM(LMM):
    """A linear mixed model whose rows were read in parts and added up; made by `from_partitions` and `from_table`.

    What follows from the sums is all there: `fit`, `sample`, `criterion`, and of a fit its estimates, tests, means, intervals,
    `ranef`, `predict(newdata)`, `save`. What needs the rows themselves (`residuals`, `simulate`, `refit`, robust covariances, ...) raises
    InferenceError; where the likelihood itself needs every row, the columns of the model are kept, and everything is there.
    """

    source: Partitions | EngineTable | None

    @property
    def given_offset(self) -> bool:
        """Whether an offset was given as an array."""
        return bool(self.arguments.offset == GIVEN_OFFSET)

    def updated(self, formula: str | None = None, data: Frame | None = None, changes: Mapping[str, object] | None = None) -> LMM:
        """The model with another formula, data or arguments; other data are a frame, or partitions again.

        Parameters
        ----------
        formula : str, optional
            New formula, in which a dot stands for what was there.
        data : DataFrame or Mapping, optional
            A frame, or partitions again.
        changes : Mapping of str to object, optional
            Arguments of `LMM` to put in place of the model's, by name.

        Returns
        -------
        LMM
            The model.

        Examples
        --------
        >>> parts = [sleepstudy[:90], sleepstudy[90:]]
        >>> blm.from_partitions("Reaction ~ Days + (1 | Subject)", parts).updated("Reaction ~ 1 + (1 | Subject)", parts).formula
        'Reaction ~ 1 + (1 | Subject)'
        """
        text = self.arguments.formula if formula is None else update_formula(self.spec.formula, formula)
        arguments = self.arguments.change(text, dict(changes or {}))
        source = self.source if data is None else data
        if source is None:
            what = "the rows of the model are not kept in its file"
            raise SpecificationError(what, "update", "give data=, a frame or partitions")
        if isinstance(source, Partitions | EngineTable):
            return _read_partitions(arguments, source)
        whole = isinstance(source, Mapping) or hasattr(source, "columns") or hasattr(source, "column_names")
        return LMM.of(arguments, source) if whole and not is_dask(source) else _read_partitions(arguments, Partitions(source))


public_verbs(PartitionedLMM)


def _read_partitions(arguments: ModelArguments, partitions: Partitions | EngineTable) -> PartitionedLMM:
    """Read the partitions and add them up, or have the engine of a table do so; or keep what cannot be added up."""
    for name, value in (("weights", arguments.weights), ("offset", arguments.offset)):
        if value is not None and not isinstance(value, str):
            raise SpecificationError(f"{name} are given as an array", name, f"put them into the partitions and give {name}='column'")
    arrays, spec, source = arguments.arrays(), arguments.spec(), partitions
    if isinstance(source, EngineTable) and (spec.residual is not None or spec.variance):
        source = source.in_parts(spec)
    if needs_every_row(spec):
        assert isinstance(source, Partitions)
        model = PartitionedLMM.__new__(PartitionedLMM)
        model._start(arguments, gather_rows(spec, source), "lme4", None)
        model.source = partitions
        return model
    if isinstance(source, EngineTable):
        rows = sum_table(spec, source, relationship=arrays["relationship"])
    else:
        rows = sum_partitions(spec, source, relationship=arrays["relationship"], functions=arrays["functions"])
    return model_of_sums(arguments, rows, partitions)


def model_of_sums(
    arguments: ModelArguments,
    rows: SummedRows,
    source: Partitions | EngineTable | None,
    counting: CountingRule = "lme4",
    subjects: int | None = None,
) -> PartitionedLMM:
    """The model of rows that were added up. source : where they came from, to be read again; None for those of a file"""
    model = PartitionedLMM.__new__(PartitionedLMM)
    model.arguments, model.counting, model.subjects, model._data, model.file = arguments, counting, subjects, source, None
    model.source = source
    arrays = arguments.arrays()
    model.problem = problem_of_sums(arguments.spec(), rows, relationship=arrays["relationship"], functions=arrays["functions"])
    model.design = model.problem.design
    return model


@answers_keywords
def from_partitions(
    formula: str,
    partitions: Parts,
    *,
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
    rows: int | None = None,
    workers: int | None = None,
) -> PartitionedLMM:
    """A model on rows that do not fit in memory: they are read in parts, twice, and added up into the same cross-products.

    The other arguments are those of `LMM`. A fit equals that of the rows in memory, however they are divided and in whatever order.

    A year of daily files, 10^8 rows:

        files = sorted(Path("visits").glob("*.parquet"))
        fit = blm.from_partitions("y ~ x + arm + (1 + x | patient)", files).fit()
        fit.summary()

    Frames that a function makes, or a database hands out in chunks:

        def chunks():
            return pd.read_sql(query, connection, chunksize=200_000)

        fit = blm.from_partitions("y ~ x + (1 | patient)", chunks).fit()

    A trial of ten million patients is a table of patterns of visits:

        fit = blm.from_partitions("y ~ arm * visit", files, residual="us(visit | patient)").fit()

    Parameters
    ----------
    formula : str
        lme4's syntax, `"y ~ x + (x | g)"`.
    partitions : sequence, callable or path
        A list of frames; a function without arguments that returns an iterator of frames; the path, or a list of paths, of CSV or parquet
        files; a Dask data frame.
    residual : str, optional
        Covariance of the errors within a subject, `"us(visit | subject)"`: subjects are added up by their pattern of visits. The rows of
        a subject stand in one partition, or the rows are sorted by subject. Beside random effects or weights, and over coordinates, the
        likelihood needs every row: the columns of the model are kept in memory.
    variance : str, optional
        Variance function of the errors, `"ident(Sex) * power(age)"`; the columns of the model are kept in memory.
    weights : str, optional
        Column of prior weights.
    offset : str, optional
        Column added to the linear predictor.
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
    sigma : float, optional
        The residual sd where it is known and not estimated.
    rows : int, optional
        Rows of a file that are read at once.
    workers : int, optional
        Processes that share a list of frames or files, at most four for each core; the sums do not depend on their number. A Dask data
        frame is added up by the scheduler that Dask uses at the call (threads, processes, the workers of a `distributed.Client`), and only
        sums come back.

    Returns
    -------
    PartitionedLMM
        A model without rows in memory: everything that needs none. With them where its likelihood needs every row.

    Raises
    ------
    SpecificationError
        For partitions that can be read only once.
    DataError
        For a subject whose rows stand apart, between those of others, in several partitions.
    FormulaError
        For terms that learn from all rows at once (`poly`, `bs`, `scale`, ...), and what `LMM` raises, with the number of the partition.

    Examples
    --------
    >>> parts = [sleepstudy.iloc[:100], sleepstudy.iloc[100:]]
    >>> fit = blm.from_partitions("Reaction ~ Days + (Days | Subject)", parts).fit()
    >>> round(fit.criterion, 4), fit.nobs
    (1743.6283, 180)
    """
    options = (weights, offset, contrasts, relationship, priors, missing, check, functions, sigma)
    arguments = ModelArguments(formula, residual, variance, *options)
    source = Partitions(partitions, workers=workers) if rows is None else Partitions(partitions, require_count(rows, "rows"), workers)
    return _read_partitions(arguments, source)


@answers_keywords
def from_table(
    formula: str,
    table: ArrowStream,
    *,
    residual: str | None = None,
    variance: str | None = None,
    weights: str | None = None,
    offset: str | None = None,
    contrasts: Mapping[str, Coding] | None = None,
    relationship: Mapping[str, pd.DataFrame] | None = None,
    priors: Priors | None = None,
    missing: Missing = "drop",
    check: CheckMode = "error",
    sigma: float | None = None,
) -> PartitionedLMM:
    """A model on a table that DuckDB holds, or finds in files: its SQL adds the rows up, and only sums come back.

    The other arguments are those of `LMM`. Beside the sums, one row for each level of a factor and each combination of levels of a bar is
    read, and a few hundred more. The fit equals that of the rows in memory.

    Parameters
    ----------
    formula : str
        lme4's syntax, `"y ~ x + (x | g)"`.
    table : DuckDBPyRelation or ibis.Table
        A relation of DuckDB, such as `duckdb.read_parquet("visits/*.parquet")` or `connection.sql("SELECT ...")`; or an expression of Ibis
        on DuckDB.
    residual : str, optional
        Covariance of the errors within a subject, `"us(visit | subject)"`: the engine hands the rows out in parts, sorted by subject, which
        are added up as `from_partitions` does.
    variance : str, optional
        Variance function of the errors, `"ident(Sex) * power(age)"`; the columns of the model are kept in memory.
    weights : str, optional
        Column of prior weights.
    offset : str, optional
        Column added to the linear predictor.
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
    sigma : float, optional
        The residual sd where it is known and not estimated.

    Returns
    -------
    PartitionedLMM
        A model without rows in memory: everything that needs none. With them where its likelihood needs every row.

    Raises
    ------
    SpecificationError
        For anything but a relation of DuckDB or an Ibis table on DuckDB.
    FormulaError
        For what SQL cannot say: terms that learn from all rows at once (`poly`, `bs`, `scale`, ...) and functions of one's own.

    Examples
    --------
    >>> import duckdb
    >>> fit = blm.from_table("Reaction ~ Days + (Days | Subject)", duckdb.from_df(sleepstudy)).fit()
    >>> round(fit.criterion, 4), fit.nobs
    (1743.6283, 180)
    """
    arguments = ModelArguments(formula, residual, variance, weights, offset, contrasts, relationship, priors, missing, check, None, sigma)
    return _read_partitions(arguments, EngineTable.of(table))
