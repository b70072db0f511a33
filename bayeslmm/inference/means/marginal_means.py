"""`EMMeans`: marginal means, and the contrasts, letters, effect sizes and joint tests that they answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, label_text
from bayeslmm._validation import MAX_SIZE, number_below, require_flag, require_level, require_names
from bayeslmm.errors import SpecificationError, show_value
from bayeslmm.estimate.estimate import Fitted
from bayeslmm.inference.fixed_effects.tests import FixedEffects
from bayeslmm.inference.means.hypothesis import Hypothesis, adjustment_note, compact_letters
from bayeslmm.inference.means.multiplicity import (
    ContrastFamily,
    adjustment_name,
    contrast_method,
    critical_values,
    family_tests,
    interaction_family,
    require_pairs,
)
from bayeslmm.inference.variance_components import EstimatedSd, residual_sd, total_sd
from bayeslmm.results.foreign_names import MEANS_ATTRIBUTES, known_arguments
from bayeslmm.results.render import NotedFrame, add_notes
from bayeslmm.results.response_scale import ResponseScale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm._types import (
        Adjustment,
        AxesLike,
        ContrastMethod,
        ContrastName,
        Names,
        Side,
    )


@dataclass(frozen=True, slots=True, eq=False)
class EMMeans:
    """Marginal means (or slopes) of the levels of factors.

    Attributes
    ----------
    frame : DataFrame
        The factor columns, then `estimate, std_error, df, conf_low, conf_high, statistic, p_value`; NaN where not estimable.
    L : ndarray
        (m, p) rows over the coefficients kept; NaN rows are not estimable.
    offsets : ndarray
        (m,) what the offset adds.
    notes : tuple of str
        What a reader should know.
    scale : ResponseScale or None
        Of the response, where the means were taken back to it.
    df_note : str
        Where degrees of freedom come from.
    asked : str
        The family of contrasts that the left side of the formula asked for, as in "trt.vs.ctrl ~ ARMCD".
    """

    frame: pd.DataFrame
    L: Array
    offsets: Array
    specs: tuple[str, ...]
    by: tuple[str, ...]
    effects: FixedEffects
    conf_level: float
    notes: tuple[str, ...]
    fit: Fitted
    scale: ResponseScale | None = None
    df_note: str = ""
    asked: ContrastName | Literal[""] = ""

    @property
    def contrasts(self) -> pd.DataFrame:
        """The contrasts that the left side of the formula asked for; all pairs without one.

        >>> fit.emmeans("pairwise ~ Days", at={"Days": [0, 9]}).contrasts["contrast"].tolist()
        ['0 - 9']
        """
        return self.contrast(self.asked or "pairwise")

    def pairs(
        self,
        adjust: Adjustment | None = None,
        reverse: bool = False,
        *,
        by: Names | None = None,
        side: Side = "two-sided",
        delta: float = 0.0,
        equivalence: float | None = None,
    ) -> pd.DataFrame:
        """All differences of two means, within the levels of `by`; ratios of means that were taken back from a logarithm.

        Parameters
        ----------
        adjust : {"tukey", "holm", "bonferroni", "sidak", "dunnett", "mvt", "fdr", "none"}, optional
            "tukey" (default), "holm", "bonferroni", "sidak", "dunnett", "mvt", "fdr" or "none".
        reverse : bool, default False
            Whether differences are taken the other way round.
        by : str or sequence of str, optional
            Variables within whose levels to compare, in place of those of the means.
        side : {"two-sided", "greater", "less"}, default "two-sided"
            "greater" and "less" are one-sided tests and limits: `side="greater", delta=-margin` is non-inferiority.
        delta : float, default 0
            What is compared with, on the scale of the model.
        equivalence : float, optional
            Two one-sided tests that the difference lies within plus and minus this; limits are those that agree with them.

        Returns
        -------
        DataFrame
            `contrast`, the `by` columns, `estimate, std_error, df, conf_low, conf_high, statistic, p_value`; with `notes`.

        Examples
        --------
        >>> fit.emmeans("Days", at={"Days": [0, 9]}).pairs()["contrast"].tolist()
        ['0 - 9']
        """
        method: ContrastMethod = "revpairwise" if require_flag(reverse, "reverse") else "pairwise"
        return self.contrast(method, adjust, by=by, side=side, delta=delta, equivalence=equivalence)

    def contrast(
        self,
        method: ContrastMethod = "effect",
        adjust: Adjustment | None = None,
        ref: str | float | None = None,
        *,
        by: Names | None = None,
        side: Side = "two-sided",
        delta: float = 0.0,
        equivalence: float | None = None,
        interaction: bool | ContrastName | Sequence[ContrastName] = False,
    ) -> pd.DataFrame:
        """Contrasts of the means, within the levels of `by`; columns and options as in `pairs`.

        Parameters
        ----------
        method : str, Mapping or array_like, default "effect"
            "pairwise", "revpairwise", "trt.vs.ctrl", "poly", "consec", "effect", "identity", {label: weights} or an array.
        adjust : {"tukey", "holm", "bonferroni", "sidak", "dunnett", "mvt", "fdr", "none"}, optional
            What goes with the method by default ("tukey" for pairs, "dunnett" against a control, "mvt" for neighbours).
        ref : str or float, optional
            The control of "trt.vs.ctrl", the first level by default.
        by : str or sequence of str, optional
            Variables within whose levels to compare, in place of those of the means.
        side : {"two-sided", "greater", "less"}, default "two-sided"
            "greater" and "less" are one-sided tests and limits: `side="greater", delta=-margin` is non-inferiority.
        delta : float, default 0
            What is compared with, on the scale of the model.
        equivalence : float, optional
            Two one-sided tests that the difference lies within plus and minus this; limits are those that agree with them.
        interaction : bool, str or sequence of str, default False
            Contrasts of contrasts: "pairwise" takes differences of the differences of every variable, ["poly", "pairwise"] the trends of
            the first between pairs of the second; True takes `method` for each. Not adjusted unless `adjust` is given.

        Returns
        -------
        DataFrame
            One row for each contrast, with `notes`.

        Examples
        --------
        >>> fit.emmeans("Days", at={"Days": [0, 9]}).contrast("revpairwise")["estimate"].round(2).tolist()
        [94.21]
        """
        if by is not None:
            own = self.within(by)
            return own.contrast(method, adjust, ref, side=side, delta=delta, equivalence=equivalence, interaction=interaction)
        hypothesis = Hypothesis.read(side, delta, equivalence)
        frames, notes = [], self.notes
        for rows in self._groups():
            made = self._contrasts(rows, method, ref, interaction)
            name = adjustment_name(adjust) if adjust is not None else made.adjust
            require_pairs(name, made.pairwise)
            name, of_side = hypothesis.adjustment(name)
            frames.append(self._family(rows, made, name, hypothesis))
            notes = (*self.notes, *self._about(made, name, rows, hypothesis), *(of_side if len(made.labels) > 1 else ()))
        table = add_notes(pd.concat(frames, ignore_index=True), (*notes, *((self.df_note,) if self.df_note else ())))
        table.attrs |= comparison_scale(self.scale, made)
        return table

    def within(self, by: Names) -> EMMeans:
        """The same means with other variables kept apart.

        Parameters
        ----------
        by : str or sequence of str
            Variables of the means within whose levels to compare.

        Returns
        -------
        EMMeans
            The same means, grouped so.

        Examples
        --------
        >>> fit.emmeans("Days", at={"Days": [0, 9]}).within("Days").by
        ('Days',)
        """
        names = (*self.specs, *self.by)
        by_names = tuple(dict.fromkeys(require_names(by, "by")))
        for name in by_names:
            if name not in names:
                raise SpecificationError(f"the means have no variable {name!r}", "by", "use one of " + ", ".join(map(repr, names)))
        return replace(self, specs=tuple(name for name in names if name not in by_names), by=by_names)

    def letters(self, alpha: float = 0.05, adjust: Adjustment | None = None, *, by: Names | None = None) -> pd.DataFrame:
        """The means with letters: two that share one do not differ at `alpha`; "a" has the smallest mean.

        Parameters
        ----------
        alpha : float, default 0.05
            Level of the tests.
        adjust : {"tukey", "holm", "bonferroni", "sidak", "dunnett", "mvt", "fdr", "none"}, optional
            "tukey" (default), "holm", "bonferroni", "sidak", "dunnett", "mvt", "fdr" or "none".
        by : str or sequence of str, optional
            Variables within whose levels to compare, in place of those of the means.

        Returns
        -------
        DataFrame
            The means with a column `letters`.

        Examples
        --------
        >>> fit.emmeans("Days", at={"Days": [0, 9]}).letters()["letters"].tolist()
        ['a', 'b']
        """
        if by is not None:
            return self.within(by).letters(alpha, adjust)
        level = require_level(alpha, "alpha")
        letters = np.full(len(self.frame), "", dtype=object)
        shown: tuple[str, ...] = ()
        for rows in self._groups():
            made = contrast_method("pairwise", self._labels(rows))
            name = adjustment_name(adjust) if adjust is not None else made.adjust
            p = self._family(rows, made, name, Hypothesis())["p_value"].to_numpy(float)
            means = self.frame["estimate"].to_numpy(float)[rows]
            letters[rows] = compact_letters(means, made.differences, p < level)
            shown = self._about(made, name, rows, Hypothesis())
        notes = (*self.notes, f"means that share a letter do not differ at the level {level:g}", *shown)
        return add_notes(pd.DataFrame(self.frame).assign(letters=letters), (*notes, *((self.df_note,) if self.df_note else ())))

    def effect_size(
        self, sigma: Literal["residual", "total"] | float = "residual", method: ContrastMethod = "pairwise", *, by: Names | None = None
    ) -> pd.DataFrame:
        """Differences in standard deviations (Cohen's d): `contrast`, the `by` columns, `estimate, std_error, df, conf_low, conf_high`.

        Parameters
        ----------
        sigma : {"residual", "total"} or float, default "residual"
            The sd around one's own group; with the random effects; or a number, taken as known. The standard error has its uncertainty.
        method : str, Mapping or array_like, default "pairwise"
            Family of contrasts, a mapping of label to weights, or an array of a row each.
        by : str or sequence of str, optional
            Variables within whose levels to compare, in place of those of the means.

        Returns
        -------
        DataFrame
            One row for each contrast. `df` are those of the difference itself, where R's `eff_size` hands down those of a mean.

        Examples
        --------
        >>> fit.emmeans("Days", at={"Days": [0, 9]}).effect_size()["estimate"].round(2).tolist()
        [-3.68]
        """
        if by is not None:
            return self.within(by).effect_size(sigma, method)
        sd = self._sd(sigma)
        link = replace(self, scale=None)
        frames = []
        for rows in self._groups():
            table = link._family(rows, contrast_method(method, self._labels(rows)), "none", Hypothesis())
            estimate = table["estimate"] / sd.value
            se = np.sqrt((table["std_error"] / sd.value) ** 2 + estimate**2 * sd.log_variance)
            half = critical_values("none", self.conf_level, table["df"].to_numpy(float), None, 0) * se
            lead = table[["contrast", *self.by]]
            frames.append(lead.assign(estimate=estimate, std_error=se, df=table["df"], conf_low=estimate - half, conf_high=estimate + half))
        kind = f"the {sigma} sd" if isinstance(sigma, str) else "a given sd"
        notes = [note for note in self.notes if "scale of" not in note and "taken back" not in note]
        return add_notes(pd.concat(frames, ignore_index=True), (*notes, f"differences over {kind}, {sd.value:.4g}"))

    def _sd(self, sigma: Any) -> EstimatedSd:
        number = number_below(sigma, MAX_SIZE)
        if number > 0:
            return EstimatedSd(number, 0.0)
        if not isinstance(sigma, str) or sigma not in ("residual", "total"):
            raise SpecificationError(f"sigma is {show_value(sigma)}", "sigma", 'use "residual", "total" or a number above 0')
        return residual_sd(self.fit) if sigma == "residual" else total_sd(self.fit)

    def joint(self) -> pd.DataFrame:
        """F tests that the means are all equal, one row for each level of `by`: `num_df, den_df, statistic, p_value`.

        Returns
        -------
        DataFrame
            One row for each level of `by`.

        Examples
        --------
        >>> fit.emmeans("Days", at={"Days": [0, 9]}).joint()["num_df"].tolist()
        [1]
        """
        rows = []
        for group in self._groups():
            fine = group[np.isfinite(self.L[group]).all(axis=1)]
            L = self.L[fine[1:]] - self.L[fine[:1]]
            test = self.effects.joint(L, self.offsets[fine[:1]] - self.offsets[fine[1:]])
            key = {name: self.frame[name].iloc[group[0]] for name in self.by}
            rows.append(key | {"num_df": test.num_df, "den_df": test.den_df, "statistic": test.statistic, "p_value": test.p_value})
        return pd.DataFrame(rows)

    def plot(self, comparisons: bool = False, adjust: Adjustment = "tukey", x: str | None = None, ax: AxesLike = None) -> list[Axes]:
        """Means with their intervals, a panel for each level of `by`; or joined lines along one of the variables.

        Parameters
        ----------
        comparisons : bool, default False
            Also arrows whose overlap says which pairs do not differ under `adjust`.
        adjust : {"tukey", "holm", "bonferroni", "sidak", "dunnett", "mvt", "fdr", "none"}, default "tukey"
            Adjustment of p values and limits for several comparisons.
        x : str, optional
            The variable that goes along the axis in one panel.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.emmeans("Days", at={"Days": [0, 9]}).plot()
        """
        from bayeslmm.plots.intervals import emmeans_axes

        adjustment_name(adjust)
        return emmeans_axes(self, comparisons, adjust, x, ax)

    def _groups(self) -> list[Any]:
        """Rows of the frame for every combination of the `by` columns."""
        if not self.by:
            return [np.arange(len(self.frame))]
        return [np.asarray(rows) for rows in self.frame.groupby(list(self.by), sort=False, observed=True).indices.values()]

    def _contrasts(self, rows: Any, method: Any, ref: Any, interaction: Any) -> ContrastFamily:
        """The contrasts of the means in these rows, of every variable by itself where their interaction is asked for."""
        if interaction is False:
            return contrast_method(method, self._labels(rows), ref)
        variables = [(name, [label_text(self.frame[name].iloc[i]) for i in rows]) for name in self.specs]
        return interaction_family(interaction, method, variables, ref)

    def _labels(self, rows: Any) -> list[str]:
        return [" ".join(label_text(self.frame[name].iloc[i]) for name in self.specs) or "overall" for i in rows]

    def _family(self, rows: Any, made: ContrastFamily, adjust: str, hypothesis: Hypothesis) -> pd.DataFrame:
        means = int(np.isfinite(self.L[rows]).all(axis=1).sum())
        tests = family_tests(self.effects, made, self.L[rows], self.offsets[rows], self.conf_level, adjust, means, hypothesis)
        table = pd.DataFrame(tests)
        labels = list(made.labels)
        if self.scale is not None and self.scale.base is not None and made.comparisons:
            table = _ratios(table, self.scale)
            labels = [label.replace(" - ", " / ", 1) if made.differences is not None else label for label in labels]
        lead = {"contrast": labels} | {name: [self.frame[name].iloc[rows[0]]] * len(labels) for name in self.by}
        return pd.concat([pd.DataFrame(lead, index=table.index), table], axis=1)

    def _about(self, made: ContrastFamily, adjust: str, rows: Any, hypothesis: Hypothesis) -> tuple[str, ...]:
        """What a reader of contrasts should know."""
        found = list(hypothesis.notes)
        if adjust != "none" and len(made.labels) > 1:
            of = f"{len(rows)} means" if adjust == "tukey" else f"{len(made.labels)} contrasts"
            found.append(f"{adjustment_note(adjust)} for {of}")
        if self.scale is not None:
            if self.scale.base is not None and made.comparisons:
                kind = "odds ratios" if self.scale.odds else "ratios"
                found.append(f"{kind} of {self.scale.inner}; tests are on the scale of {self.scale.name}")
            else:
                found.append(f"contrasts are on the scale of {self.scale.name}")
        return tuple(found)

    def _text(self) -> list[NotedFrame]:
        """The means, and the contrasts that were asked for."""
        frames = [self.frame, self.contrasts] if self.asked else [self.frame]
        return [add_notes(frame, getattr(frame, "notes", self.notes)) for frame in frames]

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self._text()))

    def _repr_html_(self) -> str:
        return "".join(frame._repr_html_() for frame in self._text())


known_arguments(EMMeans, attributes=MEANS_ATTRIBUTES)


def _ratios(table: pd.DataFrame, scale: ResponseScale) -> pd.DataFrame:
    """Differences of logarithms as ratios; tests stay."""
    assert scale.base is not None
    ratio = scale.ratio(table["estimate"].to_numpy(float))
    limits = {name: scale.ratio(table[name].to_numpy(float)) for name in ("conf_low", "conf_high")}
    return table.assign(estimate=ratio, std_error=np.log(scale.base) * ratio * table["std_error"], **limits)


def comparison_scale(scale: ResponseScale | None, made: ContrastFamily) -> dict[str, Any]:
    """Of contrasts: on which scale they are, and the value of no difference there; nothing on the scale of the model."""
    if scale is None:
        return {}
    if scale.base is None or not made.comparisons:
        return {"scale": scale.name, "null": 0.0}
    return {"scale": f"{'odds ratio' if scale.odds else 'ratio'} of {scale.inner}", "null": 1.0}
