"""Tables of a posterior: summary, tidy rows, variances, random effects, R2, contrasts and marginal means."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm._types import Effects
from bayeslmm._validation import require_count, require_flag, require_level, require_mapping, require_names, require_one_of
from bayeslmm.bayes.posterior import datatree as tree
from bayeslmm.bayes.posterior.data import group_columns, matrix_correlations, matrix_sds, residual_draws
from bayeslmm.bayes.posterior.predict import design_sigma
from bayeslmm.data.frame import text_array
from bayeslmm.errors import SpecificationError, optional, printable_text
from bayeslmm.inference.means.emmeans import emmeans as means_of
from bayeslmm.inference.means.emmeans import emtrends as trends_of
from bayeslmm.inference.means.emmeans import scale_and_sd
from bayeslmm.inference.means.linear_functions import estimable_functions
from bayeslmm.inference.means.marginal_means import EMMeans, comparison_scale
from bayeslmm.inference.tidy import require_parameters
from bayeslmm.likelihood.structured.residual_covariance import innovating_sets, mean_unit_variances, sigma_name, variance_names
from bayeslmm.results.fitted import add_fixed
from bayeslmm.results.foreign_names import POSTERIOR_MEANS_ATTRIBUTES, known_arguments
from bayeslmm.results.random_effects import residual_rows, terms_by_group, told_columns, told_pairs
from bayeslmm.results.render import NotedFrame, add_notes
from bayeslmm.results.response_scale import response_options

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from bayeslmm._types import ArrayLike, AxesLike, ContrastMethod, ContrastName, GridWeights, LinearFunction, Names, ResponseType, Values
    from bayeslmm.bayes.posterior.data import PosteriorData


TIDY_COLUMNS = ["effect", "group", "level", "term", "estimate", "std_error"]


def draw_sds(values: Array, ddof: int = 1) -> Array:
    """Standard deviation of each column of draws; 0 for what is held, whose mean would be a rounding away from it."""
    return np.where(np.ptp(values, axis=0) > 0, values.std(0, ddof=ddof), 0.0)


def equal_tailed_limits(values: Array, conf_level: float) -> tuple[Array, Array]:
    """Equal-tailed limits over the first axis."""
    half = 0.5 * require_level(conf_level)
    low, high = np.quantile(values, [0.5 - half, 0.5 + half], axis=0) if values.size else (np.zeros(0), np.zeros(0))
    return low, high


SUMMARY_WORDS = {
    "filter_vars": ("like", "regex"),
    "ci_kind": ("eti", "hdi"),
    "kind": ("all", "stats", "diagnostics", "all_median", "stats_median", "diagnostics_median", "mc_diagnostics"),
}
"""Option of ArviZ's table -> the words that it may be."""


def summarize_draws(post: PosteriorData, tree: xarray.DataTree, var_names: Names | None, **options: object) -> pd.DataFrame:
    """ArviZ's table of the coefficients and covariance parameters; a correlation once, never a 1.

    options : of `arviz_stats.summary`
    Errors: SpecificationError for what ArviZ would not take.
    """
    names = ["alpha", *post.parameters] if var_names is None else require_names(var_names, "var_names")
    for name, words in SUMMARY_WORDS.items():
        if options.get(name) is not None:
            require_one_of(str(options[name]) if isinstance(options[name], str) else "", words, name)
    if options.get("ci_prob") is not None:
        require_level(options["ci_prob"], "ci_prob")
    require_flag(options.get("skipna", False), "skipna")
    require_mapping(options.get("coords"), "coords", '{"coef": ["x"]}')
    digits = options.get("round_to")
    if isinstance(digits, str):
        require_one_of(digits, ("auto", "none"), "round_to")
    elif digits is not None and not (type(digits) is int and digits == 0):
        require_count(digits, "round_to")
    with np.errstate(invalid="ignore", divide="ignore"):
        try:
            table: pd.DataFrame = optional("arviz_stats").summary(tree, var_names=names, **options)
        except (KeyError, ValueError, TypeError, re.error) as error:
            known = f"variables: {', '.join(map(str, tree.posterior.data_vars))}; dims: {', '.join(map(str, tree.posterior.dims))}"
            raise SpecificationError(f"ArviZ cannot summarize this: {error}", "var_names, coords", known) from None
    _show_held(table, held_values(tree), exact=digits in ("auto", "none"))
    dull = {f"{name}[{a}, {b}]" for name, v in post.parameters.items() if len(v.dims) == 2 for a, b in _upper(v.coords[v.dims[0]])}
    return table.loc[[label not in dull for label in table.index]]


def held_values(tree: xarray.DataTree) -> dict[str, float]:
    """Label in ArviZ's table -> value, of everything that is the same in all draws."""
    draws, sample = tree["posterior"].dataset, ["chain", "draw"]
    low, high = draws.min(sample, skipna=False), draws.max(sample, skipna=False)
    names = [name for name in draws.data_vars if bool((low[name] == high[name]).any())]
    if not names:
        return {}
    limits = optional("xarray").concat([low[names], high[names]], dim="limit")
    frame: pd.DataFrame = optional("arviz_base").dataset_to_dataframe(limits, sample_dims=["limit"])
    return {str(label): float(a) for label, (a, b) in zip(frame.columns, frame.to_numpy().T, strict=True) if a == b}


def _show_held(table: pd.DataFrame, held: Mapping[str, float], exact: bool) -> None:
    """Write what is held into ArviZ's table, its spread 0: ArviZ takes the digits of a mean from its error, so that none are left at 0.

    exact : whether the digits are not those that the user asked for
    """
    # what ArviZ prints in place of the numbers, where its digits are automatic
    printed: dict[str, dict[str, str]] = getattr(table, "_fmt_map", None) or {}
    for label in table.index.intersection(list(held)):
        for column in table.columns:
            if column in ("mean", "median") or column.endswith(("_lb", "_ub")):
                value: float = held[label] if exact else table.loc[label, column]
            elif column in ("sd", "mad") or (column.startswith("mcse_") and not pd.isna(table.loc[label, column])):
                value = 0.0
            else:
                continue
            table.loc[label, column] = value
            if column in printed:
                printed[column][label] = f"{value:.10g}"


def _upper(labels: list[str]) -> Iterator[tuple[str, str]]:
    for i, a in enumerate(labels):
        for b in labels[: i + 1]:
            yield a, b


# -- tidy ----------------------------------------------------------------------------------------------------------------------------------


def tidy_draws(post: PosteriorData, effects: str, conf_level: float | None, innovation: bool = False) -> pd.DataFrame:
    """Means, sds and limits, one row per parameter; the standard deviations of innovations below the covariance parameters if asked for."""
    require_one_of(effects, get_args(Effects), "effects")
    require_parameters(innovation, effects)
    rows: list[tuple[str, str | None, Any, str, Array]] = []
    if effects in ("fixed", "all"):
        rows += [("fixed", None, None, name, post.draws.alpha[:, j]) for j, name in enumerate(post.coef_names)]
    if effects in ("ran_pars", "all"):
        rows += [("ran_pars", group, None, name, values) for group, name, values in parameter_draws(post)]
    if innovation:
        rows += [("ran_pars", "Residual", None, name, values) for name, values in innovation_draws(post)]
    if effects in ("ran_vals", "all"):
        rows += _value_rows(post)
    table = pd.DataFrame([row[:4] for row in rows], columns=TIDY_COLUMNS[:4])
    values = np.stack([row[4] for row in rows], axis=1) if rows else np.zeros((post.draws.size, 0))
    table["estimate"], table["std_error"] = values.mean(0), draw_sds(values)
    if conf_level is not None:
        table["conf_low"], table["conf_high"] = equal_tailed_limits(values, conf_level)
    return table


def parameter_draws(post: PosteriorData) -> Iterator[tuple[str, str, Array]]:
    """Group, name and draws (S,) of every covariance parameter, called as in the tidy table of a fit."""
    phi, terms = post.draws.phi, post.design.terms
    for group, members in terms_by_group(terms).items():
        for i in members:
            D = post.density.layout.terms[i].covariance(phi)
            sd, names = matrix_sds(D), terms[i].columns
            for j in told_columns(terms[i]):
                yield group, f"sd__{names[j]}", sd[:, j]
            pairs = told_pairs(terms[i])
            C = matrix_correlations(D) if pairs else D
            for a, b in pairs:
                yield group, f"cor__{names[a]}.{names[b]}", C[:, a, b]
    layout = post.density.layout
    if not layout.sets:
        yield "Residual", sigma_name(post.problem), post.parameters["sigma"].values
    for block in layout.sets:
        yield from (("Residual", name, values) for name, values in residual_draws(block, phi).items())
    yield from (("Residual", name, post.parameters[name].values) for name in variance_names(post.problem))


def innovation_draws(post: PosteriorData) -> Iterator[tuple[str, Array]]:
    """Name and draws (S,) of the standard deviation of the innovations of every parameter set of R."""
    for g, own in innovating_sets(post.problem):
        block = post.density.layout.sets[g]
        values = own.innovation_sd(own.covariance.natural(block.axes.values(post.draws.phi[:, block.part])))
        assert values is not None
        yield own.innovation_name, values


def _value_rows(post: PosteriorData) -> list[tuple[str, str | None, Any, str, Array]]:
    rows: list[tuple[str, str | None, Any, str, Array]] = []
    for group, _, variable in tree.random_effect_variables(post):
        columns = variable.coords[variable.dims[1]]
        for k, level in enumerate(variable.coords[variable.dims[0]]):
            rows += [("ran_vals", group, level, column, variable.values[:, k, j]) for j, column in enumerate(columns)]
    return rows


# -- frames of a fit's shape ---------------------------------------------------------------------------------------------------------------


def mean_varcorr(post: PosteriorData) -> pd.DataFrame:
    """`group, term1, term2, variance, sd, corr` as posterior means, the residual last."""
    rows: list[tuple[str, str | None, str | None, float, float, float]] = []
    phi, terms = post.draws.phi, post.design.terms
    for group, members in terms_by_group(terms).items():
        for i in members:
            D, names = post.density.layout.terms[i].covariance(phi), terms[i].columns
            sd, C = matrix_sds(D), matrix_correlations(D)
            columns = told_columns(terms[i])
            rows += [(group, names[j], None, float(D[:, j, j].mean()), float(sd[:, j].mean()), np.nan) for j in columns]
            for a, b in told_pairs(terms[i]):
                rows.append((group, names[a], names[b], float(D[:, a, b].mean()), np.nan, float(C[:, a, b].mean())))
    for own in residual_rows(post.problem, post.kernel_points[0], post.parameters["sigma"].values):
        rows.append((own.group, own.first or None, own.second, own.variance, own.sd, own.corr))
    frame = pd.DataFrame(rows, columns=["group", "term1", "term2", "variance", "sd", "corr"])
    frame["term2"] = text_array(frame["term2"].tolist())
    return frame


def mean_ranef(post: PosteriorData) -> dict[str, pd.DataFrame]:
    """Grouping factor -> frame of means, levels x columns of all its terms."""
    return {group: means for group, (means, _) in ranef_with_sds(post).items()}


def ranef_with_sds(post: PosteriorData) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Grouping factor -> frames of means and of standard matrix_sds."""
    found: dict[str, tuple[pd.DataFrame, pd.DataFrame]] = {}
    columns = group_columns(post.density)
    for group, _, variable in tree.random_effect_variables(post):
        index = pd.Index(list(variable.coords[variable.dims[0]]), name=group, tupleize_cols=False)
        means, sds = variable.values.mean(0), variable.values.std(0, ddof=1)
        found[group] = (pd.DataFrame(means, index, columns[group]), pd.DataFrame(sds, index, columns[group]))
    return found


def mean_fixef(post: PosteriorData) -> pd.Series[float]:
    """Means by name, NaN where aliased."""
    values = np.full(len(post.design.coef_names), np.nan)
    values[list(post.design.kept)] = post.draws.alpha.mean(0)
    return pd.Series(values, index=list(post.design.coef_names), name="estimate")


def variance_draws(post: PosteriorData) -> tuple[Array, Array, Array]:
    """var(X alpha), mean z'Dz and the mean error variance of every draw, (S,) each."""
    spread = np.atleast_2d(np.cov(post.design.moments.X, rowvar=False, bias=True))
    fixed = np.einsum("sp,pq,sq->s", post.draws.alpha, spread, post.draws.alpha) if post.draws.alpha.shape[1] else np.zeros(post.size)
    random = np.zeros(post.draws.size)
    for block, term in zip(post.density.layout.terms, post.design.terms, strict=True):
        rows = term.moment_rows
        second = rows.T @ rows / len(rows)
        random += np.einsum("sab,ab->s", block.covariance(post.draws.phi), second)
    if post.problem.structured is None:
        return fixed, random, design_sigma(post) ** 2 * post.design.mean_inverse_weight
    return fixed, random, design_sigma(post) ** 2 * mean_unit_variances(post.problem, post.kernel_points[0])


def r2_draws(post: PosteriorData, conf_level: float) -> pd.DataFrame:
    """Nakagawa and Johnson's shares, draw by draw: var(X alpha) and mean z'Dz against them and the mean error variance."""
    fixed, random, error = variance_draws(post)
    total = fixed + random + error
    return _share_table(np.stack([(fixed + random) / total, fixed / total], axis=1), conf_level, ["conditional", "marginal"])


def _share_table(shares: Array, conf_level: float, names: list[str]) -> pd.DataFrame:
    low, high = equal_tailed_limits(shares, conf_level)
    columns = {"estimate": shares.mean(0), "std_error": shares.std(0, ddof=1), "conf_low": low, "conf_high": high}
    return pd.DataFrame(columns, index=names)


def describe_draws(draws: Array, conf_level: float, against: Array | float = 0.0) -> pd.DataFrame:
    """`estimate, std_error, conf_low, conf_high, probability` of draws (S, m); NaN columns stay NaN."""
    low, high = equal_tailed_limits(draws, conf_level)
    above = np.where(np.isnan(draws).any(0), np.nan, (draws > against).mean(0))
    columns = {"estimate": draws.mean(0), "std_error": draws.std(0, ddof=1), "conf_low": low, "conf_high": high, "probability": above}
    return pd.DataFrame(columns)


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorContrast:
    """Attributes
    ----------
    frame : DataFrame
        One row per function, `term, estimate, std_error, conf_low, conf_high, probability`.
    draws : ndarray
        (S, m), minus the right side.
    """

    frame: pd.DataFrame
    draws: Array

    def __repr__(self) -> str:
        return printable_text(self.frame.to_string(index=False))

    def _repr_html_(self) -> str:
        return printable_text(self.frame.to_html(index=False))


known_arguments(PosteriorContrast)


def posterior_contrast(post: PosteriorData, L: LinearFunction, rhs: ArrayLike, conf_level: float) -> PosteriorContrast:
    """Draws of L alpha - rhs; `probability` is that of being above 0."""
    functions = estimable_functions(L, post.design, post.problem.standardization, rhs)
    draws = post.draws.alpha @ functions.L.T - functions.rhs
    table = describe_draws(draws, conf_level)
    table.insert(0, "term", list(functions.labels))
    return PosteriorContrast(table, draws)


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorMeans:
    """Marginal means: `frame` with the factor columns, `estimate, std_error, conf_low, conf_high, probability`; draws (S, m)."""

    frame: pd.DataFrame
    draws: Array
    means: EMMeans
    conf_level: float

    @property
    def contrasts(self) -> pd.DataFrame:
        """The contrasts that the left side of the formula asked for, as in "trt.vs.ctrl ~ ARMCD"; all pairs without one.

        >>> post.emmeans("pairwise ~ Days", at={"Days": [0, 9]}).contrasts["contrast"].tolist()
        ['0 - 9']
        """
        return self.contrast(self.means.asked or "pairwise")

    def pairs(self, reverse: bool = False, *, by: Names | None = None) -> pd.DataFrame:
        """All differences of two means, within the levels of `by`.

        Parameters
        ----------
        reverse : bool, default False
            Whether differences are taken the other way round.
        by : str or sequence of str, optional
            Variables within whose levels to compare, in place of those of the means.

        Returns
        -------
        DataFrame
            One row for each pair.

        Examples
        --------
        >>> len(post.emmeans("Days", at={"Days": [0, 9]}).pairs())
        1
        """
        return self.contrast("revpairwise" if require_flag(reverse, "reverse") else "pairwise", by=by)

    def contrast(
        self,
        method: ContrastMethod = "effect",
        ref: str | float | None = None,
        *,
        by: Names | None = None,
        interaction: bool | ContrastName | Sequence[ContrastName] = False,
    ) -> pd.DataFrame:
        """Contrasts of the means, within the levels of `by`: `contrast`, the `by` columns, and what `frame` says of means.

        Means that were taken back from a logarithm have ratios, whose `probability` is that of being above 1.

        Parameters
        ----------
        method : str, Mapping or array_like, default "effect"
            Family of contrasts, a mapping of label to weights, or an array of a row each.
        ref : str or float, optional
            The reference of "trt.vs.ctrl": a mean's label or its place, from 0.
        by : str or sequence of str, optional
            Variables within whose levels to compare, in place of those of the means.
        interaction : bool, str or sequence of str, default False
            Contrasts of contrasts: "pairwise" takes differences of the differences of every variable, ["poly", "pairwise"] the trends of
            the first between pairs of the second; True takes `method` for each.

        Returns
        -------
        DataFrame
            One row for each contrast, with `notes`.

        Examples
        --------
        >>> len(post.emmeans("Days", at={"Days": [0, 5, 9]}).contrast("pairwise"))
        3
        """
        if by is not None:
            return replace(self, means=self.means.within(by)).contrast(method, ref, interaction=interaction)
        frames, scale, notes = [], self.means.scale, self.means.notes
        for rows in self.means._groups():
            made = self.means._contrasts(rows, method, ref, interaction)
            draws, labels, none = made.of(self.draws[:, rows].T).T, list(made.labels), 0.0
            if scale is not None and scale.base is not None and made.comparisons:
                draws, none = scale.ratio(draws), 1.0
                labels = [label.replace(" - ", " / ", 1) if made.differences is not None else label for label in labels]
                about = f"{'odds ratios' if scale.odds else 'ratios'} of {scale.inner}"
            else:
                about = "" if scale is None else f"contrasts are on the scale of {scale.name}"
            table = describe_draws(draws, self.conf_level, none)
            for name in reversed(self.means.by):
                table.insert(0, name, [self.frame[name].iloc[rows[0]]] * len(table))
            table.insert(0, "contrast", labels)
            frames.append(table)
            notes = (*self.means.notes, about) if about else self.means.notes
        joined = add_notes(pd.concat(frames, ignore_index=True), notes)
        joined.attrs |= comparison_scale(scale, made)
        return joined

    def plot(self, x: str | None = None, ax: AxesLike = None) -> list[Axes]:
        """Posterior means with their intervals; along the variable `x` as joined lines. Matplotlib axes.

        Parameters
        ----------
        x : str, optional
            Variable along the horizontal axis.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> (axes,) = post.emmeans("Days", at={"Days": [0, 9]}).plot()
        """
        return replace(self.means, frame=self.frame, conf_level=self.conf_level, df_note="").plot(x=x, ax=ax)

    def _text(self) -> list[NotedFrame]:
        """The means, and the contrasts that were asked for."""
        frames = [self.frame, self.contrasts] if self.means.asked else [self.frame]
        return [add_notes(frame, getattr(frame, "notes", self.means.notes)) for frame in frames]

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self._text()))

    def _repr_html_(self) -> str:
        return "".join(frame._repr_html_() for frame in self._text())


known_arguments(PosteriorMeans, attributes=POSTERIOR_MEANS_ATTRIBUTES)


def larger_at_first(asked: PosteriorMeans, method: ContrastMethod, ref: str | float | None) -> float:
    """Probability that a difference is larger within the first of two groups than within the second; NaN for more of either."""
    means = asked.means
    found = [means._contrasts(rows, method, ref, False).of(asked.draws[:, rows].T) for rows in means._groups()]
    if len(found) != 2 or any(len(values) != 1 for values in found):
        return float("nan")
    return float(np.mean(found[0] > found[1]))


@dataclass(frozen=True, slots=True, eq=False)
class StandardizedMoments:
    """alpha (1, p) and information_inverse (1, p, p): what a solution of the mixed model equations has, at sigma2 = 1."""

    alpha: Array
    information_inverse: Array
    sigma2: float = 1.0

    @property
    def state(self) -> StandardizedMoments:
        return self

    @property
    def solution(self) -> StandardizedMoments:
        return self

    @classmethod
    def of(cls, post: PosteriorData) -> StandardizedMoments:
        """Mean and covariance of the draws."""
        c = post.problem.standardization
        draws = c.coefficients((post.draws.alpha - c.alpha0) / c.y_scale)
        return cls(draws.mean(axis=0)[None], np.atleast_2d(np.cov(draws, rowvar=False))[None])


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorMoments:
    """Mean and covariance of the coefficients where a fit has estimates.

    moments : those of standardized coefficients, where a fit has the point of its optimum
    """

    post: PosteriorData
    moments: StandardizedMoments
    method: str = "REML"

    @property
    def design(self) -> Any:
        return self.post.design

    @property
    def problem(self) -> Any:
        return self.post.problem

    @property
    def estimate(self) -> PosteriorMoments:
        return self

    @property
    def point(self) -> StandardizedMoments:
        return self.moments

    @property
    def nobs(self) -> int:
        return self.post.design.nobs


def icc_draws(post: PosteriorData, conf_level: float) -> pd.DataFrame:
    """Intraclass correlations, draw by draw: rows `adjusted` (of what the fixed part leaves), `unadjusted` (of the whole variance)."""
    fixed, random, error = variance_draws(post)
    shares = np.stack([random / (random + error), random / (fixed + random + error)], axis=1)
    return _share_table(shares, conf_level, ["adjusted", "unadjusted"])


def coefficient_draws(post: PosteriorData) -> dict[str, pd.DataFrame]:
    """Posterior means of the coefficients of every level: fixed effects plus random effects."""
    fixed = mean_fixef(post)
    return {group: add_fixed(effects, fixed) for group, effects in mean_ranef(post).items()}


def posterior_emtrends(
    post: PosteriorData,
    var: str,
    specs: Names | None,
    by: Names | None,
    at: Mapping[str, Values] | None,
    weights: GridWeights,
    conf_level: float,
) -> PosteriorMeans:
    """The rows of a fit's slopes, applied to every draw."""
    made = trends_of(_moments_of(post), var, specs, by, at, weights, df="asymptotic", vcov="asymptotic", conf_level=conf_level)
    return _means_of_draws(post, made, conf_level)


def posterior_emmeans(
    post: PosteriorData,
    specs: Names,
    by: Names | None,
    at: Mapping[str, Values] | None,
    weights: GridWeights,
    conf_level: float,
    type: ResponseType = "link",  # noqa: A002
    bias_adjust: bool | float = False,
) -> PosteriorMeans:
    """The rows of a fit's marginal means, applied to every draw."""
    moments = _moments_of(post)
    if response_options(post.design, type, bias_adjust)[1] is None:
        _, random, error = variance_draws(post)
        bias_adjust = float(np.sqrt((random + error).mean()))
    made = means_of(moments, specs, by, at, weights, "asymptotic", "asymptotic", conf_level=conf_level, type=type, bias_adjust=bias_adjust)
    return _means_of_draws(post, made, conf_level, scale_and_sd(moments, type, bias_adjust)[1])


def _moments_of(post: PosteriorData) -> Any:
    return PosteriorMoments(post, StandardizedMoments.of(post))


def _means_of_draws(post: PosteriorData, made: EMMeans, conf_level: float, sd: float = 0.0) -> PosteriorMeans:
    draws = post.draws.alpha @ made.L.T + made.offsets
    table = describe_draws(draws if made.scale is None else made.scale.moments(draws, sd)[0], conf_level)
    keys = pd.DataFrame(made.frame[[*made.specs, *made.by]])
    return PosteriorMeans(add_notes(pd.concat([keys, table.set_index(keys.index)], axis=1), made.notes), draws, made, conf_level)
