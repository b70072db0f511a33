"""The report of a fit: model, data, estimates, variances, checks, figures, marginal means, the posterior, and where it all comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.arrays import Array
from bayeslmm.plots.intervals import forest
from bayeslmm.reports.cells import number
from bayeslmm.reports.compared import posterior_section
from bayeslmm.reports.data import data_section
from bayeslmm.reports.means import means_section
from bayeslmm.reports.page import Page, Section
from bayeslmm.reports.pictures import drawn, panelled
from bayeslmm.reports.provenance import provenance_section
from bayeslmm.results.layout import signed
from bayeslmm.results.summary import DF_NAMES, TITLES

if TYPE_CHECKING:
    from bayeslmm.results.fit import Fit

MATRIX = 12
"""Visits up to which a covariance matrix of the errors is shown."""

PANELS = 6
"""Columns of random effects that get a caterpillar."""

FORESTED = 40
"""Fixed effects up to which their forest is drawn."""


def fit_report(
    fit: Fit,
    path: str | Path | None = None,
    *,
    title: str | None = None,
    df: str = "satterthwaite",
    posterior: Any = None,
    seed: int | None = None,
) -> str:
    """The report as HTML; written to `path` where one is given.

    df : degrees of freedom of the tests; posterior : of the same model, to stand beside the estimates; seed : that its draws were made with

    Raises StoreError where the file cannot be written. What a model does not have, or cannot be had of it, the report says in a line.

    >>> "Fixed effects" in fit.report()
    True
    """
    page = fit_page(fit, title=title, df=df, posterior=posterior, seed=seed)
    if path is not None:
        page.save(path)
    return page.html()


def fit_page(fit: Fit, *, title: str | None = None, df: str = "satterthwaite", posterior: Any = None, seed: int | None = None) -> Page:
    """The report of a fit as a page, to which more can be added."""
    kind = "Linear mixed model" if fit.design.terms or fit.design.residual is not None else "Linear model"
    lead = f"{kind} fitted by {TITLES[fit.method]}" + (f": {fit.formula}" if title else "") + ". " + verdict(fit)
    page = Page(title or fit.formula, lead, tiles(fit))
    model_section(page.section("Model"), fit)
    data_section(page.section("Data and missing values"), fit)
    fixed_section(page.section("Fixed effects"), fit, df)
    variance_section(page.section("Variances and correlations"), fit)
    checks_section(page.section("Checks"), fit)
    diagnostics_section(page.section("Diagnostics"), fit)
    if fit.design.encoding.factors:
        means_section(page.section("Marginal means"), fit, df)
    if posterior is not None:
        posterior_section(page.section("Posterior beside the estimates"), fit, posterior)
    provenance_section(page.section("Where this comes from"), fit, posterior, seed)
    return page


def verdict(fit: Fit) -> str:
    """What the checks say, in a sentence."""
    counts = {name: sum(check.verdict == name for check in fit.checks.values()) for name in ("failed", "noted", "passed")}
    told = [f"{count} {name}" for name, count in counts.items() if count]
    if not counts["failed"] and not counts["noted"]:
        return "All checks passed."
    return "Checks: " + ", ".join(told) + "."


def tiles(fit: Fit) -> list[tuple[str, str]]:
    """The numbers that one looks for first."""
    found = [("rows", f"{fit.nobs:,}")]
    found += [(f"levels of {name}", f"{size:,}") for name, size in list(fit.design.groups.items())[:3]]
    found += [("-2 log REML" if fit.restricted else "-2 log likelihood", f"{fit.criterion:,.1f}"), ("AIC", f"{fit.aic:,.1f}")]
    return [*found, ("residual sd", number(fit.sigma))] if np.isfinite(fit.sigma) else found


def model_section(section: Section, fit: Fit) -> None:
    """What was fitted: formula, structures, method, sizes."""
    design, spec = fit.design, fit.design.spec
    section.code(fit.formula)
    facts = [("Response", spec.formula.response), ("Fixed effects", f"{len(design.coef_names)}, of the terms {', '.join(_terms(fit))}")]
    for term in design.terms:
        known = ", with a known relationship" if term.relationship is not None else ""
        facts.append((f"Random effects ({term.spec.text})", f"{len(term.columns)} for each of {term.group.size:,} levels{known}"))
    facts.append(("Errors", spec.residual.text if spec.residual is not None else "independent"))
    if design.variance:
        facts.append(("Variance function", " * ".join(f"{v.kind}({v.spec.covariate})" for v in design.variance)))
    facts += [("Weights", spec.weights)] if spec.weights is not None else []
    facts += [("Aliased", ", ".join(design.aliased) + ": they depend on earlier columns")] if design.aliased else []
    facts.append(
        ("Parameters", f"{fit.df_model}: {len(design.kept)} fixed effects, {fit.df_model - len(design.kept)} variances and correlations")
    )
    criteria = {"-2 log REML" if fit.restricted else "-2 log likelihood": fit.criterion, "AIC": fit.aic, "AICc": fit.aicc, "BIC": fit.bic}
    section.facts([*facts, *((name, f"{value:,.3f}") for name, value in criteria.items())])


def _terms(fit: Fit) -> list[str]:
    return list(dict.fromkeys(fit.design.coef_terms))


def fixed_section(section: Section, fit: Fit, df: str) -> None:
    """Estimates with intervals, their forest, tests of whole terms."""

    def estimates() -> None:
        table = fit.tidy(conf_int=True, df=df).drop(columns=["effect", "group", "level"])
        section.table(table)
        section.text(f"Intervals of 95%; {DF_NAMES.get(df, df)}.", "note")
        own = table[(table["term"] != "Intercept") & np.isfinite(table["estimate"])].set_index("term")
        if 0 < len(own) <= FORESTED:
            height = 0.9 + 0.3 * len(own)
            section.figure(
                drawn(lambda ax: forest(ax, own, "estimate with 95% interval"), 7.0, height),
                "Fixed effects with 95% intervals; the line is 0.",
            )

    def tests() -> None:
        section.heading("Tests of terms")
        section.table(fit.anova(df=df).drop(columns="sum_sq"))

    if not fit.design.coef_names:
        section.text("The model has no fixed effects.")
        return
    section.attempt("Estimates", estimates)
    if fit.design.encoding.factors:
        section.attempt("Tests of terms", tests)


def variance_section(section: Section, fit: Fit) -> None:
    """D, R, what the variances are shares of."""
    table = fit.varcorr.dropna(subset="variance")
    if len(table):
        section.table(table.drop(columns=[name for name in ("term2", "corr") if table[name].isna().all()]))

    def shares() -> None:
        r2, icc = fit.r2(), fit.icc()
        found = {
            "R², fixed and random effects": r2["conditional"],
            "R², fixed effects": r2["marginal"],
            "Intraclass correlation, adjusted": icc["adjusted"],
        }
        section.facts([(name, signed(float(value.iloc[0]), 3)) for name, value in found.items()])

    if fit.design.terms and fit.design.residual is None and not fit.design.variance:
        section.attempt("Shares of variance", shares)
    errors_tables(section, fit)


def errors_tables(section: Section, fit: Fit) -> None:
    """Parameters and covariance of structured errors; of an unstructured one the matrix says it all."""
    R, params = fit.R, fit.residual_params
    matrices = R if isinstance(R, dict) else {} if R is None else {"": R}
    free = sum(len(frame) * (len(frame) + 1) // 2 for frame in matrices.values())
    if len(params) and (len(params) != free or any(len(frame) > MATRIX for frame in matrices.values())):
        section.table(params.rename_axis("name").reset_index(), "Parameters of the errors")
    for level, frame in matrices.items():
        if len(frame) > MATRIX:
            section.text(f"The covariance of the errors is {len(frame)} x {len(frame)}: see fit.R.", "note")
            continue
        sds = np.sqrt(np.diagonal(frame))
        of_level = f", {level}" if level != "" else ""
        section.table(_matrix(frame, frame.to_numpy(float)), "Covariance of the errors" + of_level)
        section.table(_matrix(frame, frame.to_numpy(float) / np.outer(sds, sds)), "Correlation of the errors" + of_level)


def _matrix(frame: pd.DataFrame, values: Array) -> pd.DataFrame:
    """The lower triangle of a matrix with its labels."""
    table = pd.DataFrame(np.where(np.tril(np.ones_like(values)) > 0, values, np.nan), columns=[str(name) for name in frame.columns])
    table.insert(0, "", [str(name) for name in frame.index])
    return table


def checks_section(section: Section, fit: Fit) -> None:
    """Verdicts with what to do about them."""
    section.checks(fit.checks.values())
    section.text("Passed: as it should be. Noted: worth knowing. Failed: do not trust the numbers before a look.", "note")


def diagnostics_section(section: Section, fit: Fit) -> None:
    """Residuals, quantiles, agreement, random effects."""
    section.attempt("Figures of the rows", lambda: row_figures(section, fit))
    for group in fit.design.groups:
        section.attempt(f"Random effects of {group}", _caterpillar(section, fit, group))


def row_figures(section: Section, fit: Fit) -> None:
    """Residuals against fitted values and quantiles, observed against fitted values."""
    plot = fit.plot
    about_spread = "Residuals against fitted values: no trend, and a spread that does not change, is what the model assumes."
    about_tails = "Residuals against normal quantiles: points outside the band are larger, or smaller, than normal errors would be."
    section.pair((drawn(lambda ax: plot.residuals(ax=ax)), about_spread), (drawn(lambda ax: plot.qq(ax=ax)), about_tails))
    alone = (drawn(lambda ax: plot.fitted(level="population", ax=ax)), "Observed against what the fixed effects alone say.")
    if fit.design.terms:
        both = (drawn(lambda ax: plot.fitted(ax=ax)), "Observed against fitted values, which include the random effects.")
        section.pair(both, alone)
    else:
        section.pair(alone)


def _caterpillar(section: Section, fit: Fit, group: str) -> Callable[[], None]:
    def draw() -> None:
        columns = sum(len(term.columns) for term in fit.design.terms if term.group.name == group)
        if columns > PANELS:
            section.text(f"{group} has {columns} random effects per level: see fit.plot.ranef({group!r}).", "note")
            return
        size = fit.design.groups[group]
        height = float(np.clip(0.17 * size + 1.0, 2.4, 8.0)) if size <= 60 else 4.2
        caption = f"Random effects of {group} with 95% intervals, in order of size; away from 0 in colour."
        section.figure(panelled(lambda axes: fit.plot.ranef(group, ax=axes), columns, height=height), caption)

    return draw
