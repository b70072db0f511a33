"""Figures of imputations, and the page that says who was imputed, why, under what, and what it does to the estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm

from bayeslmm._arrays import Array
from bayeslmm._io import require_html_place
from bayeslmm._types import Side
from bayeslmm._validation import require_name, require_number, require_one_of
from bayeslmm.plots.style import LIGHT, PALETTE, axes_for, grey, ink, legend_above, level_label, paper, plain_axes, printable_name, ribbon
from bayeslmm.reports.comparison import versions
from bayeslmm.reports.page import HtmlPage, Page, Section, draw_figure
from bayeslmm.results.predict import two_sided_quantile
from bayeslmm.trials.analyses import Analyses, CompletedTrial, analyse, analysis_formula
from bayeslmm.trials.layout import LONG_NAMES

if TYPE_CHECKING:
    from bayeslmm.trials.layout import Layout


# -- figures -------------------------------------------------------------------------------------------------------------------------------


def profiles_figure(layout: Layout, values: Array, counts: Array | None, ax: Axes | None) -> Axes:
    """Mean profiles by arm: subjects observed throughout as a full line, the others observed (dashed) and completed (dotted, open).

    values : (K, N, m) completed outcomes; with `counts` the first are the whole sample, else their mean is drawn
    """
    ax = axes_for(ax, 7.2, 4.6)
    completed = values[0] if counts is not None else values.mean(axis=0)
    m, partly = layout.size[1], layout.imputed.any(axis=1)
    x = np.arange(m)
    for a, arm in enumerate(layout.arms):
        color, own = PALETTE[a % len(PALETTE)], layout.arm == a
        label = printable_name(level_label(arm))
        stayed, left = own & ~partly, own & partly
        if stayed.any():
            ax.plot(
                x, completed[stayed].mean(axis=0), color=color, lw=2.0, marker="o", ms=4, label=f"{label}, complete ({int(stayed.sum())})"
            )
        if not left.any():
            continue
        seen = ~layout.imputed[left]
        observed = np.array([completed[left][seen[:, j], j].mean() if seen[:, j].any() else np.nan for j in x])
        imputed = np.array([completed[left][~seen[:, j], j].mean() if (~seen[:, j]).any() else np.nan for j in x])
        ax.plot(x, observed, color=color, lw=1.4, ls="--", marker="s", ms=4, label=f"{label}, incomplete ({int(left.sum())})")
        ax.plot(x, imputed, color=color, lw=1.4, ls=":", marker="s", ms=5, mfc=paper(), label=f"{label}, imputed")
    ax.set_xticks(x, [printable_name(level_label(v)) for v in layout.visits])
    legend_above(ax)
    return plain_axes(ax, layout.columns.visit, f"mean {layout.columns.outcome}")


def tipping_figure(frame: pd.DataFrame, axes: tuple[str, ...], conf_level: float, ax: Axes | None) -> Axes:
    """The difference along one amount, or p over two."""
    ax = axes_for(ax, 6.6, 4.6)
    groups = list(frame.groupby(["visit", "arm"], observed=True, sort=False))
    limit = 1.0 - conf_level
    if len(axes) == 2:
        return _surface(ax, groups[-1], axes, limit)
    for i, ((visit, arm), own) in enumerate(groups):
        color, x = PALETTE[i % len(PALETTE)], own[axes[0]].to_numpy(float)
        low, high = (_finite(own[name].to_numpy(float), own["estimate"]) for name in ("conf_low", "conf_high"))
        ax.fill_between(x, low, high, color=color, alpha=ribbon(), lw=0)
        ax.plot(x, own["estimate"], color=color, lw=2.0, label=printable_name(f"{arm} at {level_label(visit)}"))
        significant = own["p_value"].to_numpy(float) < limit
        ax.scatter(x[significant], own["estimate"][significant], s=28, color=color, zorder=3)
        ax.scatter(x[~significant], own["estimate"][~significant], s=28, fc=paper(), ec=color, zorder=3)
    # what the points say holds for all curves: behind them in the legend, in the colour of none
    ax.scatter([], [], s=28, color=ink(), label=f"p < {limit:.2g}")
    ax.scatter([], [], s=28, fc=paper(), ec=ink(), label=f"p ≥ {limit:.2g}")
    ax.axhline(0.0, color=grey(), lw=1.0, ls="--")
    legend_above(ax)
    return plain_axes(ax, _amount_of(axes[0]), f"pooled difference, {conf_level:.0%} limits")


def _finite(values: Array, estimate: Any) -> Array:
    """One-sided limits end at the estimate."""
    return np.where(np.isfinite(values), values, np.asarray(estimate, float))


def _amount_of(name: str) -> str:
    return f"added to imputed outcomes of {name.removeprefix('delta_')}"


def _surface(ax: Axes, group: Any, axes: tuple[str, ...], limit: float) -> Axes:
    (visit, arm), own = group
    table = own.pivot(index=axes[1], columns=axes[0], values="p_value")
    x, y, p = table.columns.to_numpy(float), table.index.to_numpy(float), table.to_numpy(float)
    levels = np.unique([0.0, 0.001, 0.01, limit, 0.1, 0.2, 0.5, 1.0])
    filled = ax.contourf(x, y, p, levels=levels, cmap="cividis", norm=BoundaryNorm(levels, 256))
    if (p < limit).any() and (p > limit).any():
        ax.contour(x, y, p, levels=[limit], colors="white", linewidths=2.4)
    figure: Any = ax.get_figure()
    bar = figure.colorbar(filled, ax=ax, label=f"p value; white line: {limit:.2g}")
    bar.ax.tick_params(colors=ink())
    if x.min() <= 0 <= x.max() and y.min() <= 0 <= y.max():
        ax.plot(0.0, 0.0, marker="+", ms=11, mew=2, color="white")
    ax.grid(color=LIGHT, lw=0.3)
    return plain_axes(ax, _amount_of(axes[0]), _amount_of(axes[1]), f"{arm} at {level_label(visit)}")


# -- the page ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EffectOptions:
    """How the effect is estimated and tested: as `Imputations.analyse` and `Analyses.pool` have them."""

    analysis: str | None = None
    covariates: Sequence[str] = ()
    conf_level: float = 0.95
    alternative: Side = "two-sided"
    null: float = 0.0

    def sentence(self) -> str:
        """What is tested."""
        if self.alternative == "two-sided":
            return f"Differences are tested against {self.null:g}, two-sided, with limits of {100 * self.conf_level:.4g} %."
        bound = "lower" if self.alternative == "greater" else "upper"
        shown = "above" if self.alternative == "greater" else "below"
        margin = f": a margin of {abs(self.null):g}" if self.null else ""
        return (
            f"One-sided: that a difference is {shown} {self.null:g} is shown where the {bound} limit of "
            f"{100 * self.conf_level:.4g} % lies {shown} it{margin}."
        )


def imputation_report(imputations: CompletedTrial, path: Any, title: str | None, asked: EffectOptions) -> HtmlPage:
    """The page as HTML; written to `path` where one is given."""
    require_html_place(path)
    layout = imputations.layout
    check_analysis(imputations, asked)
    N, m = layout.size
    cells = int(layout.imputed.sum())
    tiles = [
        ("subjects", str(N)),
        ("subjects with imputed outcomes", str(int(layout.imputed.any(axis=1).sum()))),
        ("outcomes imputed", f"{cells} of {N * m}"),
        ("completed data sets", str(imputations.size)),
    ]
    heading = f"Imputation of {layout.columns.outcome}" if title is None else require_name(title, "title")
    page = Page(heading, _method_text(imputations), tiles)
    add_imputations(page, imputations, asked)
    where = page.section("Where this comes from")
    where.facts([("Seed", "none" if imputations.seed is None else str(imputations.seed)), *versions()])
    if imputations.failed:
        where.text(f"Refits that failed and are left out: {', '.join(imputations.failed)}.", "note")
    return page.finish(path)


def check_analysis(imputations: CompletedTrial, asked: EffectOptions) -> None:
    """Refuse an analysis or a test that cannot be made before a page is begun."""
    two_sided_quantile(asked.conf_level)
    require_one_of(asked.alternative, get_args(Side), "alternative")
    require_number(asked.null, "null")
    if not callable(asked.analysis):
        analysis_formula(imputations.layout, asked.analysis, asked.covariates)
    if asked.analysis is not None or len(asked.covariates):
        _analyse(imputations, asked)  # what a user asked for by name is an error of the call, not a line of the page


def add_imputations(page: Page, imputations: CompletedTrial, asked: EffectOptions) -> None:
    """The sections of imputations: who was imputed and why, means, what it does to the estimate, the model."""
    layout = imputations.layout
    _who_section(page.section("Who was imputed, and why"), imputations)
    own = page.section("Observed and imputed means")
    own.figure(
        draw_figure(lambda ax: profiles_figure(layout, imputations.values, imputations.replication.weights, ax), 8.0, 4.8),
        "Means by arm: subjects observed at every visit (full line); of the others what is observed (dashed) and imputed (dotted, open).",
    )
    effect = page.section("What it does to the estimate")
    effect.attempt("The analysis", lambda: _effect_section(effect, imputations, asked))
    if imputations.trial is not None:
        model = page.section("The imputation model")
        fit = imputations.trial.fit
        model.facts(
            [("Formula", str(fit.formula)), ("Residual structure", str(fit.design.spec.residual.text)), ("Criterion", str(fit.method))]
        )
        model.checks(fit.checks.values())


def _method_text(imputations: CompletedTrial) -> str:
    rules = {
        "single": "one data set, without standard errors",
        "jackknife": "standard errors by the jackknife over subjects",
        "bootstrap": "standard errors by the bootstrap of subjects within arms",
        "rubin": "pooled by Rubin's rules",
        "bootstrap-mi": "variance components between and within bootstrap samples",
    }
    return f"Method: {imputations.method}; {rules[imputations.replication.rule]}."


def _who_section(section: Section, imputations: CompletedTrial) -> None:
    subjects = imputations.subjects
    partly = subjects[subjects["imputed"] > 0]
    if partly.empty:
        section.text("No outcome is missing.")
        return
    keys = ["arm", "strategy", "event"] if imputations.trial is not None else ["arm"]
    counted = partly.assign(event=partly["event"].map(lambda v: "none" if v is None else str(v)))
    table = counted.groupby(keys, observed=True).agg(subjects=("subject", "size"), outcomes=("imputed", "sum")).reset_index()
    section.table(table, "Subjects with imputed outcomes by arm, strategy and first visit affected by an intercurrent event.")
    used = [name for name in dict.fromkeys(partly["strategy"]) if name in LONG_NAMES]
    if used:
        section.facts([(name, LONG_NAMES[name]) for name in used])
    after = int(subjects["observed_after_event"].sum())
    if after:
        section.text(f"{after} outcomes were observed after an event; they are analysed as they are, and what is imputed is given them.")


def _effect_section(section: Section, imputations: CompletedTrial, asked: EffectOptions) -> None:
    if imputations.replication.rule == "single":
        section.text("Point estimates only: nothing was resampled.", "note")
    analyses = _analyse(imputations, asked)
    under_strategies = _under_strategies(imputations)
    pooled = _pool(analyses, asked, information_anchored=under_strategies and analyses.anchored is not None)
    last = pooled["visit"].iloc[-1]
    section.text(asked.sentence())
    _pooled_table(section, pooled[pooled["parameter"] == "difference"], "Differences between arms at each visit")
    _pooled_table(section, pooled[(pooled["parameter"] == "mean") & (pooled["visit"] == last)], "Means of the arms at the last visit")
    random = imputations.at_random() if under_strategies else None
    if random is None:
        return
    plain = _pool(_analyse(random, asked), asked)
    shown = [column for column in ("estimate", "std_error", "p_value", "conf_low", "conf_high") if pooled[column].notna().any()]
    rows = []
    for number in np.flatnonzero((pooled["visit"] == last).to_numpy()):
        rows += [
            {**pooled.iloc[number][["parameter", "arm"]], "missing outcomes": how, **table.iloc[number][shown]}
            for how, table in (("at random", plain), ("under the strategies", pooled))
        ]
        if pooled["parameter"].iloc[number] == "difference":
            before, after = plain["estimate"].iloc[number], pooled["estimate"].iloc[number]
            arm = pooled["arm"].iloc[number]
            section.text(f"{arm} at {last}: {before:.4g} missing at random, {after:.4g} under the strategies, {after - before:+.4g}.")
    section.table(pd.DataFrame(rows), "The last visit with the same imputation model, were everything missing at random.")


def _under_strategies(imputations: CompletedTrial) -> bool:
    """Whether anything is imputed otherwise than missing at random: else the errors anchored at that are the same ones."""
    subjects = imputations.subjects
    return bool((subjects["strategy"][subjects["imputed"] > 0] != "MAR").any())


_ANCHORED = "anchored_"
"""What the columns of information-anchored inference begin with."""


def _pooled_table(section: Section, pooled: pd.DataFrame, caption: str) -> None:
    """Pooled estimates; what the other rule says in a table of its own, since a table with both is wider than the page."""
    other = {name: name.removeprefix(_ANCHORED) for name in pooled.columns if name.startswith(_ANCHORED)}
    silent = ["parameter", *(["mcse"] if not pooled["mcse"].fillna(0.0).any() else [])]  # the caption says it; nothing was drawn at random
    section.table(pooled.drop(columns=[*silent, *other]), f"{caption}.")
    if other:
        anchored = pooled[["visit", "arm", "estimate", *other]].rename(columns=other)
        section.table(anchored, f"{caption}, by information-anchored standard errors.")


def _analyse(imputations: CompletedTrial, asked: EffectOptions) -> Analyses:
    options: dict[str, Any] = {"by": ..., "delta": None, "weights": "counterfactual", "control": None, "residual": None}
    return analyse(imputations, asked.analysis, covariates=asked.covariates, **options)


def _pool(analyses: Analyses, asked: EffectOptions, *, information_anchored: bool = False) -> pd.DataFrame:
    return analyses.pool(asked.conf_level, asked.alternative, null=asked.null, information_anchored=information_anchored)
