"""`ManyFits`: one model fitted to many responses, or to many groups of rows, and the tables of all of them in one frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from bayeslmm._arrays import Array, Codes
from bayeslmm._types import ResponseAdjustment
from bayeslmm._validation import require_flag, require_level, require_one_of
from bayeslmm.errors import SpecificationError, show_value
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.inference.fixed_effects.tests import check_options, fixed_effects
from bayeslmm.inference.many_responses import ResponseFits, ResponseProblem, fit_responses, satterthwaite_rows
from bayeslmm.inference.means.linear_functions import estimable_functions
from bayeslmm.inference.means.multiplicity import adjust_p_values
from bayeslmm.model.fit import Fit
from bayeslmm.results.foreign_names import MANY_ATTRIBUTES, known_arguments
from bayeslmm.results.random_effects import residual_rows, varcorr_frame, varcorr_rows

if TYPE_CHECKING:
    from bayeslmm._types import ArrayLike, DfMethod, LikelihoodKind, LinearFunction
    from bayeslmm.data.design import Design
    from bayeslmm.likelihood.problem import Problem


TESTS = ("estimate", "std_error", "df", "statistic", "p_value")


class BatchModel(Protocol):
    """What is asked of a model that is fitted to many responses."""

    @property
    def design(self) -> Design: ...
    @property
    def problem(self) -> Problem: ...
    def with_design(self, design: Design) -> BatchModel: ...
    def with_response(self, y: ArrayLike) -> BatchModel: ...
    def fit(self, method: LikelihoodKind = "REML") -> Fit: ...


@dataclass(frozen=True, slots=True, eq=False)
class ResponseBatch:
    """Responses with the same rows, fitted side by side.

    members : (B,) positions among all responses; Y : (n, B) on those rows; problem parts are in `responses` and `fits`
    """

    model: BatchModel
    members: Codes
    Y: Array
    responses: ResponseProblem
    fits: ResponseFits
    restricted: bool

    @classmethod
    def of(cls, model: BatchModel, members: Codes, Y: Array, restricted: bool, advance: Callable[[int], None]) -> ResponseBatch | None:
        """Fit responses Y (n, B) side by side; those that the fixed effects reproduce exactly, or that do not settle, are left out."""
        responses = ResponseProblem.of(model.problem, Y)
        good = ~responses.exact
        if not good.all():
            responses, members, Y = responses.some(np.flatnonzero(good)), members[good], Y[:, good]
        if not len(members):
            return None
        found = cls(model, members, Y, responses, fit_responses(responses, restricted, advance), restricted)._keep_converged()
        return found if len(found.members) else None

    def _keep_converged(self) -> ResponseBatch:
        """The same without the responses whose search did not end at an optimum."""
        kept = self.fits.settled
        if kept.all():
            return self
        fits = ResponseFits(*(getattr(self.fits, field.name)[kept] for field in fields(ResponseFits)))
        return replace(self, members=self.members[kept], Y=self.Y[:, kept], fits=fits, responses=self.responses.some(np.flatnonzero(kept)))

    def tests(self, L: Array | None, rhs: Array | float, df: DfMethod) -> dict[str, Array]:
        """t tests of the coefficients, or of the rows of L (r, p), each (B, r)."""
        c = self.model.problem.standardization
        rows = np.eye(len(self.model.design.kept)) if L is None else L
        own = c.functions(rows)
        scale = self.fits.sigma**2 / c.weight_mean
        error = np.sqrt(scale[:, None] * np.einsum("rx,bxy,ry->br", own, self.fits.C, own, optimize=True))
        estimate = self.fits.alpha @ rows.T - rhs
        if check_options(df).df == "satterthwaite":
            degrees = satterthwaite_rows(self.responses, self.fits, own, self.restricted)
        else:
            # counted from the design: the same for every response
            fit = require_finished(self.model.with_response(self.Y[:, 0]).fit("REML" if self.restricted else "ML"))
            effects = fixed_effects(fit, df, None, "expected")
            counted = effects.coefficients().df if L is None else effects.denominators(L)
            degrees = np.broadcast_to(counted, estimate.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = estimate / error
        return dict(zip(TESTS, (estimate, error, degrees, statistic, _two_sided(statistic, degrees)), strict=True))

    def varcorr(self, b: int) -> pd.DataFrame:
        design, sigma = self.model.design, float(self.fits.sigma[b])
        matrices = [sigma**2 * relative for relative in self.model.problem.relative_covariances(self.fits.x[b])]
        own = np.array([sigma * np.sqrt(design.weight_scale)])
        return varcorr_frame([*varcorr_rows(design.terms, matrices), *residual_rows(self.model.problem, self.fits.x[b][None], own)])

    def glance(self) -> pd.DataFrame:
        design, value = self.model.design, self.fits.value
        parameters = len(design.kept) + self.model.problem.size + 1
        n = design.nobs
        return pd.DataFrame(
            {
                "nobs": n,
                "sigma": self.fits.sigma * np.sqrt(design.weight_scale),
                "loglik": -0.5 * value,
                "aic": value + 2.0 * parameters,
                "bic": value + np.log(n) * parameters,
                "criterion": value,
                "df_residual": n - parameters,
            }
        )


def _two_sided(statistic: Array, df: Array) -> Array:
    """Two-sided p values of t statistics; infinite df are the normal distribution."""
    with np.errstate(invalid="ignore"):
        finite = 2.0 * special.stdtr(np.where(np.isfinite(df), df, 1.0), -np.abs(statistic))
    return np.asarray(np.where(np.isfinite(df), finite, np.where(np.isnan(df), np.nan, 2.0 * special.ndtr(-np.abs(statistic)))))


def _quantile(df: Array, conf_level: float) -> Array:
    p = 0.5 + 0.5 * conf_level
    finite = special.stdtrit(np.where(np.isfinite(df), df, 1.0), p)
    return np.asarray(np.where(np.isfinite(df), finite, np.where(np.isnan(df), np.nan, special.ndtri(p))))


class ManyFits:
    """Fits of one formula to many responses (`LMM.fit_many`) or to many groups of rows (`fit_by`).

    Every table is long: the columns that tell the fits apart (`response`, or those of `by`) lead the columns of `Fit`'s table. What cannot
    be fitted has no rows there and stands in `failed` with its reason.

    >>> many = model.fit_many(pd.DataFrame({"a": model.y, "b": model.y[::-1]}))
    >>> len(many), many.tidy()["response"].tolist()
    (2, ['a', 'a', 'b', 'b'])
    """

    def __init__(
        self,
        keys: pd.DataFrame,
        method: LikelihoodKind,
        batches: Sequence[ResponseBatch],
        fits: Mapping[int, Fit],
        failures: Mapping[int, str],
        sources: Callable[[int], Fit],
    ) -> None:
        self._keys, self.method = keys, method
        self._batches, self._fits, self._failures, self._source = tuple(batches), dict(fits), dict(failures), sources

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        failed = f", {len(self._failures)} failed" if self._failures else ""
        return f"ManyFits({self.method}: {len(self)} fits{failed})"

    # -- one of them ---------------------------------------------------------------------------------------------------------------------

    @cached_property
    def _positions(self) -> dict[Any, int]:
        single = self._keys.shape[1] == 1
        rows = self._keys.itertuples(index=False, name=None)
        return {row[0] if single else row: i for i, row in enumerate(rows)}

    @property
    def names(self) -> list[Any]:
        """What tells the fits apart, in order: names of responses, or levels of `by` (tuples where there are several columns).

        >>> many.names
        ['a', 'b']
        """
        return list(self._positions)

    def fit(self, name: object) -> Fit:
        """One of them as a `Fit`.

        Parameters
        ----------
        name : object
            A response, or a level of `by` (a tuple where `by` has several columns).

        Returns
        -------
        Fit
            The fit, with all its tables.

        Raises
        ------
        SpecificationError
            For a name that there is not, or whose fit failed.

        Examples
        --------
        >>> many.fit("a").criterion == fit.criterion
        True
        """
        if not isinstance(name, str | int | float | tuple) or name not in self._positions:
            near = ", ".join(map(repr, self.names[:5]))
            raise SpecificationError(
                f"there is no fit called {show_value(name)}", "fit(name)", f"use one of {near}{', ...' if len(self) > 5 else ''}"
            )
        position = self._positions[name]
        if position in self._failures:
            raise SpecificationError(f"{name!r} could not be fitted", self._failures[position], "see `failed`")
        return self._fits[position] if position in self._fits else self._source(position)

    # -- tables --------------------------------------------------------------------------------------------------------------------------

    def tidy(
        self, df: DfMethod = "satterthwaite", conf_int: bool = False, conf_level: float = 0.95, adjust: ResponseAdjustment = "bh"
    ) -> pd.DataFrame:
        """t tests of the fixed effects of every fit.

        Parameters
        ----------
        df : str, default "satterthwaite"
            Degrees of freedom, as in `Fit.tidy`; Kenward-Roger's are found fit by fit.
        conf_int : bool, default False
            Whether to give confidence limits, and at which level.
        conf_level : float, default 0.95
            Whether to give confidence limits, and at which level.
        adjust : {"bh", "holm", "bonferroni", "none"}, default "bh"
            How `adjusted_p` is made of the p values of one term over all fits: "bh" (Benjamini and Hochberg), "holm", "bonferroni", "none".

        Returns
        -------
        DataFrame
            The names, then the columns of `Fit.tidy`, then `adjusted_p`.

        Examples
        --------
        >>> many.tidy(df="asymptotic").columns.tolist()[:5]
        ['response', 'effect', 'group', 'level', 'term']
        """
        require_one_of(adjust, get_args(ResponseAdjustment), "adjust")
        require_level(conf_level)
        require_flag(conf_int, "conf_int")
        check_options(df)
        frames = []
        for batch in self._batches:
            design = batch.model.design
            frames.append(self._long(batch, design.coef_names, list(design.kept), self._batch_tests(batch, None, 0.0, df)))
        for i, fit in self._fits.items():
            table = fit.tidy(df=df)
            frames.append(table.assign(_fit=i, _row=np.arange(len(table)))[["_fit", "_row", "term", *TESTS]])
        found = self._in_order(frames)
        for place, column in enumerate(("effect", "group", "level")):
            found.insert(place, column, "fixed" if column == "effect" else None)
        return self._finish(found, conf_int, conf_level, adjust)

    def contrast(
        self,
        L: LinearFunction,
        rhs: ArrayLike = 0.0,
        df: DfMethod = "satterthwaite",
        conf_int: bool = False,
        conf_level: float = 0.95,
        adjust: ResponseAdjustment = "bh",
    ) -> pd.DataFrame:
        """Tests of linear functions of the coefficients of every fit, as `Fit.contrast` makes them.

        Parameters
        ----------
        L : array_like, Mapping, str or sequence of str
            As in `Fit.contrast`: an equation, a mapping of coefficients, an array, or several of these.
        rhs : array_like, default 0.0
            As in `Fit.contrast`: an equation, a mapping of coefficients, an array, or several of these.
        df : str, default "satterthwaite"
            As in `tidy`.
        conf_int : bool, default False
            As in `tidy`.
        conf_level : float, default 0.95
            As in `tidy`.
        adjust : {"bh", "holm", "bonferroni", "none"}, default "bh"
            As in `tidy`.

        Returns
        -------
        DataFrame
            One row for each fit and function.

        Examples
        --------
        >>> many.contrast("Days = 10")["term"].tolist()
        ['Days = 10', 'Days = 10']
        """
        require_one_of(adjust, get_args(ResponseAdjustment), "adjust")
        require_level(conf_level)
        require_flag(conf_int, "conf_int")
        check_options(df)
        frames = []
        for batch in self._batches:
            functions = estimable_functions(L, batch.model.design, batch.model.problem.standardization, rhs)
            tests = self._batch_tests(batch, functions.L, functions.rhs, df)
            frames.append(self._long(batch, functions.labels, list(range(len(functions.L))), tests))
        for i, fit in self._fits.items():
            table = fit.contrast(L, rhs, df=df).frame
            frames.append(table.assign(_fit=i, _row=np.arange(len(table)))[["_fit", "_row", "term", *TESTS]])
        return self._finish(self._in_order(frames), conf_int, conf_level, adjust)

    def _batch_tests(self, batch: ResponseBatch, L: Array | None, rhs: Array | float, df: DfMethod) -> dict[str, Array]:
        if not check_options(df).df.startswith("kenward"):
            return batch.tests(L, rhs, df)
        effects = [fixed_effects(self._source(int(i)), df, None, "expected") for i in batch.members]
        found = [one.coefficients() if L is None else one.t(L, rhs) for one in effects]
        rows = [(one.estimate - rhs, one.std_error, one.df, one.statistic, one.p_value) for one in found]
        return dict(zip(TESTS, (np.array(column) for column in zip(*rows, strict=True)), strict=True))

    def _long(self, batch: ResponseBatch, terms: Sequence[str], kept: list[int], tests: Mapping[str, Array]) -> pd.DataFrame:
        B, r = len(batch.members), len(terms)
        names = np.tile(np.array(terms, object), B)
        columns: dict[str, Any] = {
            "_fit": np.repeat(batch.members, r),
            "_row": np.tile(np.arange(r), B),
            "term": names,
        }
        for name, values in tests.items():
            whole = np.full((B, r), np.nan)
            whole[:, kept] = values
            columns[name] = whole.ravel()
        return pd.DataFrame(columns)

    def _in_order(self, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """Parts put together in the order of the fits, `_fit` kept."""
        if not frames:
            return pd.DataFrame({"_fit": np.zeros(0, np.int64), "term": [], **{name: np.zeros(0) for name in TESTS}})
        found = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
        return found.sort_values(["_fit", "_row"], kind="stable", ignore_index=True).drop(columns="_row")

    def _finish(self, found: pd.DataFrame, conf_int: bool, conf_level: float, adjust: str) -> pd.DataFrame:
        if conf_int:
            half = _quantile(found["df"].to_numpy(float), conf_level) * found["std_error"]
            found["conf_low"], found["conf_high"] = found["estimate"] - half, found["estimate"] + half
        p = found["p_value"].to_numpy(float)
        adjusted = np.full(len(p), np.nan)
        for rows in found.groupby("term", sort=False).indices.values():
            members = rows[np.isfinite(p[rows])]
            adjusted[members] = adjust_p_values(adjust, p[members])
        found["adjusted_p"] = adjusted
        return self._add_keys(found)

    def _add_keys(self, found: pd.DataFrame) -> pd.DataFrame:
        """The frame led by the names of the fits that its column `_fit` counts."""
        names = self._keys.iloc[found.pop("_fit").to_numpy(np.int64)].reset_index(drop=True)
        return pd.concat([names, found], axis=1)

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variances and correlations of every fit, as `Fit.varcorr` has them.

        >>> many.varcorr.columns.tolist()
        ['response', 'group', 'term1', 'term2', 'variance', 'sd', 'corr']
        """
        tables = {int(i): batch.varcorr(b) for batch in self._batches for b, i in enumerate(batch.members)}
        tables |= {i: fit.varcorr for i, fit in self._fits.items()}
        return self._stack(tables)

    def glance(self) -> pd.DataFrame:
        """One row for each fit, as `Fit.glance` has it.

        Returns
        -------
        DataFrame
            One row for each fit.

        Examples
        --------
        >>> many.glance()["nobs"].tolist()
        [180, 180]
        """
        tables: dict[int, pd.DataFrame] = {}
        for batch in self._batches:
            whole = batch.glance()
            tables |= {int(i): whole.iloc[b : b + 1] for b, i in enumerate(batch.members)} if len(self._batches) > 1 or self._fits else {}
            if not tables:
                return self._add_keys(whole.assign(_fit=batch.members))
        return self._stack(tables | {i: fit.glance() for i, fit in self._fits.items()})

    def _stack(self, tables: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
        order = sorted(tables)
        if not order:
            return self._keys.iloc[:0].copy()
        found = pd.concat([tables[i] for i in order], ignore_index=True)
        return self._add_keys(found.assign(_fit=np.repeat(order, [len(tables[i]) for i in order])))

    # -- how it went ---------------------------------------------------------------------------------------------------------------------

    @cached_property
    def _verdicts(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        converged, singular = np.zeros(len(self), bool), np.zeros(len(self), bool)
        for batch in self._batches:
            converged[batch.members], singular[batch.members] = batch.fits.settled, batch.fits.singular
        for i, fit in self._fits.items():
            converged[i], singular[i] = fit.converged, fit.singular
        return converged, singular

    @property
    def converged(self) -> pd.Series[bool]:
        """Whether each search ended at an optimum; False for what could not be fitted.

        >>> many.converged.all().item()
        True
        """
        return pd.Series(self._verdicts[0], index=self._index, name="converged")

    @property
    def singular(self) -> pd.Series[bool]:
        """Whether a variance of each fit is 0 or a correlation 1 in size.

        >>> many.singular["a"].item()
        False
        """
        return pd.Series(self._verdicts[1], index=self._index, name="singular")

    @property
    def _index(self) -> pd.Index[Any]:
        keys = self._keys
        return pd.Index(keys.iloc[:, 0], name=keys.columns[0]) if keys.shape[1] == 1 else pd.MultiIndex.from_frame(keys)

    @property
    def failed(self) -> pd.DataFrame:
        """What could not be fitted, with the reason.

        >>> len(many.failed)
        0
        """
        order = sorted(self._failures)
        return self._keys.iloc[order].assign(reason=[self._failures[i] for i in order]).reset_index(drop=True)

    @property
    def checks(self) -> pd.DataFrame:
        """One row for each fit: `converged, singular, failed` (the reason, empty where it was fitted).

        >>> many.checks["failed"].tolist()
        ['', '']
        """
        converged, singular = self._verdicts
        reasons = [self._failures.get(i, "") for i in range(len(self))]
        return self._keys.assign(converged=converged, singular=singular, failed=reasons)


known_arguments(ManyFits, attributes=MANY_ATTRIBUTES)
