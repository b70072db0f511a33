"""`from_partitions`: a model on rows that do not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bayeslmm.errors import SpecificationError
from bayeslmm.model import LMM
from bayeslmm.results.update import updated_formula
from bayeslmm.said import Said
from bayeslmm.scale import Partitions, sum_partitions

if TYPE_CHECKING:
    from bayeslmm.spec import Priors


class PartitionedLMM(LMM):
    """A linear mixed model whose rows were read in parts and added up; made by `from_partitions`.

    What follows from the sums is all there: `fit`, `criterion`, `gradient`, and of a fit its estimates, covariances, tests, `ranef`,
    `predict(newdata)`. What needs the rows themselves (`residuals`, `simulate`, `refit`, robust covariances, ...) raises InferenceError.
    """

    @classmethod
    def reading(cls, said: Said, partitions: Partitions) -> PartitionedLMM:
        """Read the partitions and add them up."""
        model = cls.__new__(cls)
        model.said, model.counting, model.subjects, model._data, model.file = said, "lme4", None, partitions, None
        for name, given in (("weights", said.weights), ("offset", said.offset)):
            if given is not None and not isinstance(given, str):
                raise SpecificationError(f"{name} are given as an array", name, f"put them into the partitions and give {name}='column'")
        beside = said.arrays()
        model.problem = sum_partitions(said.spec(), partitions, relationship=beside["relationship"], functions=beside["functions"])
        model.design = model.problem.design
        return model

    def updated(self, formula: str | None = None, data: Any = None, changes: Mapping[str, Any] | None = None) -> LMM:
        """The model with another formula, data or arguments; other data are a frame, or partitions again."""
        text = self.said.formula if formula is None else updated_formula(self.spec.formula, formula)
        said = self.said.changed(text, dict(changes or {}))
        if data is None or isinstance(data, Partitions):
            return PartitionedLMM.reading(said, self._data if data is None else data)
        return LMM.of(said, data)


def from_partitions(
    formula: str,
    partitions: Any,
    *,
    weights: str | None = None,
    offset: str | None = None,
    contrasts: Mapping[str, Any] | None = None,
    relationship: Mapping[str, Any] | None = None,
    priors: Priors | None = None,
    missing: str = "drop",
    check: str = "error",
    functions: Mapping[str, Callable[..., Any]] | None = None,
    rows: int | None = None,
) -> PartitionedLMM:
    """A model on rows that do not fit in memory: they are read in parts, twice, and added up into the same cross-products.

    partitions : a list of frames; a function without arguments that returns an iterator of frames; the path, or a list of paths, of CSV
        or parquet files; a Dask data frame
    weights, offset : columns; rows : of a file that are read at once
    The other arguments are those of `LMM`. A fit equals that of the rows in memory, however they are divided and in whatever order.

    A year of daily files, 10^8 rows:

        files = sorted(Path("visits").glob("*.parquet"))
        fit = blm.from_partitions("y ~ x + arm + (1 + x | patient)", files).fit()
        fit.summary()

    Frames that a function makes, or a database hands out in chunks:

        def chunks():
            return pd.read_sql(query, connection, chunksize=200_000)

        fit = blm.from_partitions("y ~ x + (1 | patient)", chunks).fit()

    Raises SpecificationError for structured errors and for partitions that can be read only once, FormulaError for terms that learn from
    all rows at once (`poly`, `bs`, `scale`, ...), and what `LMM` raises, with the number of the partition.

    >>> parts = [sleepstudy.iloc[:100], sleepstudy.iloc[100:]]
    >>> fit = blm.from_partitions("Reaction ~ Days + (Days | Subject)", parts).fit()
    >>> round(fit.criterion, 4), fit.nobs
    (1743.6283, 180)
    """
    said = Said(formula, None, None, weights, offset, contrasts, relationship, priors, missing, check, functions)
    source = Partitions(partitions) if rows is None else Partitions(partitions, rows)
    return PartitionedLMM.reading(said, source)


__all__ = ["PartitionedLMM", "from_partitions"]
