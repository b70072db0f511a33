"""The report of a fit: model, data, estimates, variances, checks, figures, marginal means, the posterior, and where it all comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import combinations
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm._types import DfMethod, Information, VcovMethod
from bayeslmm._validation import require_name
from bayeslmm.errors import Verdict
from bayeslmm.inference.diagnostics import icc, r2
from bayeslmm.inference.fixed_effects.tests import InferenceOptions, check_options, coefficient_table
from bayeslmm.inference.means.anova import anova
from bayeslmm.inference.means.emmeans import emmeans
from bayeslmm.inference.means.marginal_means import EMMeans
from bayeslmm.plots.intervals import emmeans_axes, forest
from bayeslmm.plots.levels import ranef_axes
from bayeslmm.plots.residuals import fitted_axes, qq_axes, residual_axes
from bayeslmm.reports.comparison import Compared, Sampled, posterior_section, provenance_section
from bayeslmm.reports.page import Page, Section, draw_figure, draw_panels, five_digits
from bayeslmm.results.estimates import DF_TITLES, METHOD_TITLES, Estimates
from bayeslmm.results.predict import with_limits
from bayeslmm.results.render import format_signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LISTED_LEVELS = 8
"""Levels of a factor that are listed."""

DESCRIBED_COLUMNS = 30
"""Columns that are described."""


def data_section(section: Section, fit: Estimates) -> None:
    """Rows, missing values, columns, groups."""
    design = fit.design
    read = f"{design.n_read:,} rows were read, {design.nobs:,} are used"
    section.text(read + (f"; {design.n_dropped:,} are left out." if design.n_dropped else ". None is left out."))
    if design.dropped:
        lost = pd.DataFrame({"column": list(design.dropped), "rows without a value": list(design.dropped.values())})
        lost["share"] = [f"{count / design.n_read:.1%}" for count in design.dropped.values()]
        section.table(lost, "Missing values (or weights of 0)")
        section.text(
            "A row can lack several columns. Leaving rows out is right where what is missing does not depend on the value itself.", "note"
        )
    section.attempt("Columns", lambda: describe_columns(section, fit))
    section.attempt("Groups", lambda: group_counts(section, fit))


def describe_columns(section: Section, fit: Estimates) -> None:
    """One line for each column that the model reads."""
    design = fit.design
    groups = {column for term in design.spec.formula.random for column in term.group}
    groups |= set() if design.residual is None else set(design.residual.subject.name.split(":"))
    groups -= set(design.encoding.covariates)  # numbers that only name groups have no mean
    frame = design.frame.astype({name: "category" for name in design.frame.columns if name in groups})
    rows = [describe_column(str(name), frame[name]) for name in frame.columns[:DESCRIBED_COLUMNS]]
    section.table(pd.DataFrame(rows, columns=["column", "kind", "what it holds"]), "Columns over the rows used")


def describe_column(name: str, values: pd.Series) -> tuple[str, str, str]:
    """Name, kind, range or levels."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        numbers = values.to_numpy(dtype=float, na_value=np.nan)
        text = f"{numbers.min():.5g} to {numbers.max():.5g}, mean {numbers.mean():.4g}, sd {numbers.std(ddof=1):.4g}"
        return name, "numbers", text
    counts = values.value_counts(sort=False)
    counts = counts[counts > 0]
    if len(counts) > LISTED_LEVELS:
        return name, "labels", f"{len(counts):,} levels"
    return name, "labels", ", ".join(f"{level} ({count:,})" for level, count in counts.items())


def group_counts(section: Section, fit: Estimates) -> None:
    """Levels of the grouping factors, and how many rows they have."""
    residual = fit.design.residual
    factors = {term.group.name: term.group for term in fit.design.terms}
    if residual is not None:
        factors.setdefault(residual.subject.name, residual.subject)
    if not factors:
        return
    counts = {name: np.bincount(factor.codes, minlength=factor.size) for name, factor in factors.items()}
    table = {
        "grouping factor": list(counts),
        "levels": [len(count) for count in counts.values()],
        "fewest rows": [int(count.min()) for count in counts.values()],
        "median": [int(np.median(count)) for count in counts.values()],
        "most": [int(count.max()) for count in counts.values()],
    }
    section.table(pd.DataFrame(table), "Rows of each level")
    if residual is not None and residual.visit is not None:
        seen = np.bincount(residual.visit, minlength=len(residual.visit_levels))
        names = [str(level) for level in residual.visit_levels]
        caption = f"Rows at each visit, of {residual.subject.size:,} levels of {residual.subject.name}."
        section.figure(draw_figure(lambda ax: attendance_axes(ax, names, seen, residual.subject.size), 7.0, 2.6), caption)


def attendance_axes(ax: Axes, names: list[str], seen: np.ndarray, subjects: int) -> None:
    """How many subjects have a row at each visit."""
    ax.bar(np.arange(len(names)), seen, color="#0072B2", width=0.7)
    ax.axhline(subjects, color="#222222", linewidth=1)
    ax.set_xticks(
        np.arange(len(names)), labels=[name.replace("$", r"\$") for name in names], rotation=0 if len("".join(names)) < 80 else 90
    )
    ax.set_ylabel("rows")
    ax.spines[["top", "right"]].set_visible(False)


SHOWN_FACTORS = 4
"""Factors, and pairs of factors, that are shown."""

MEANS_LEVELS = 30
"""Levels of a factor up to which its means are shown."""

PAIRED_LEVELS = 6
"""Levels up to which all pairs are shown."""


def means_section(section: Section, fit: Estimates, tests: InferenceOptions) -> None:
    """Means, figure and pairs of every factor; of a factor within another where they interact."""
    levels = {name: len(found) for name, found in fit.design.encoding.levels.items()}
    shown = [name for name, size in levels.items() if size <= MEANS_LEVELS][:SHOWN_FACTORS]
    section.text(
        "What the model expects at each level, other factors weighted equally and covariates at their means. "
        "Pairs are adjusted by Tukey's method.",
        "note",
    )
    for name in shown:
        section.attempt(f"Marginal means of {name}", _one(section, fit, name, levels[name], tests))
    for name, other in [pair for pair in combinations(shown, 2) if _interact(fit, *pair)][:SHOWN_FACTORS]:
        outer, inner = (name, other) if levels[name] >= levels[other] else (other, name)
        section.attempt(f"Marginal means of {inner} by {outer}", _within_budget(section, fit, inner, outer, tests))
    left = [name for name in levels if name not in shown]
    if left:
        section.text(f"Not shown: {', '.join(left)}; see fit.emmeans().", "note")


def _interact(fit: Estimates, name: str, other: str) -> bool:
    """Whether a term of the fixed effects has both factors."""
    atoms = {key: atom.column for key, atom in fit.design.encoding.factors.items()}
    terms = [{atoms.get(part, "") for part in term.split(":")} for term in fit.design.coef_terms]
    return any({name, other} <= term for term in terms)


def _one(section: Section, fit: Estimates, name: str, size: int, tests: InferenceOptions) -> Callable[[], None]:
    def show() -> None:
        means = emmeans(fit, name, **asdict(tests))
        section.add_heading(name)
        section.table(means.frame.drop(columns=["statistic", "p_value"], errors="ignore"))
        _picture(section, means, 1, size, f"Marginal means of {name} with 95% intervals.")
        if 2 <= size <= PAIRED_LEVELS:
            section.table(means.pairs(), "Differences")

    return show


def _within_budget(section: Section, fit: Estimates, inner: str, outer: str, tests: InferenceOptions) -> Callable[[], None]:
    def show() -> None:
        means = emmeans(fit, inner, by=outer, **asdict(tests))
        sizes = {name: len(found) for name, found in fit.design.encoding.levels.items()}
        section.add_heading(f"{inner} by {outer}")
        pairs = means.pairs()
        if sizes[outer] <= 12:
            _picture(section, means, sizes[outer], sizes[inner], f"Marginal means of {inner} at each level of {outer}.")
        section.table(pairs if sizes[inner] <= PAIRED_LEVELS else means.frame.drop(columns=["statistic", "p_value"], errors="ignore"))

    return show


def _picture(section: Section, means: EMMeans, panels: int, levels: int, caption: str) -> None:
    height = 1.1 + 0.3 * levels if panels > 1 else 0.9 + 0.3 * levels
    section.figure(
        draw_panels(lambda axes: _draw_means(means, axes), panels, width=5.2 if panels == 1 else 3.4, height=height, alike=True), caption
    )


def _draw_means(means: EMMeans, axes: object) -> None:
    emmeans_axes(means, ax=axes)


MATRIX_VISITS = 12
"""Visits up to which a covariance matrix of the errors is shown."""

CATERPILLAR_PANELS = 6
"""Columns of random effects that get a caterpillar."""

FOREST_COEFFICIENTS = 40
"""Fixed effects up to which their forest is drawn."""


def fit_page(
    fit: Estimates,
    *,
    title: str | None = None,
    df: DfMethod = "satterthwaite",
    vcov: VcovMethod | None = None,
    information: Information = "expected",
    posterior: Sampled | None = None,
    comparison: Compared | None = None,
    seed: int | None = None,
    more: Callable[[Page], object] | None = None,
) -> Page:
    """The report of a fit as a page, to which more can be added. What a model does not have, or cannot be had of it, it says in a line.

    df, vcov, information : of the tests, as everywhere; posterior, comparison : of the same model, and of it with the fit
    seed : that the draws of the posterior were made with; more : adds sections before the last
    """
    tests = check_options(df, vcov, information)
    if title is not None:
        require_name(title, "title")
    kind = "Linear mixed model" if fit.design.terms or fit.design.residual is not None else "Linear model"
    lead = f"{kind} fitted by {METHOD_TITLES[fit.method]}" + (f": {fit.formula}" if title else "") + ". " + verdict(fit)
    page = Page(fit.formula if title is None else title, lead, tiles(fit))
    model_section(page.section("Model"), fit)
    data_section(page.section("Data and missing values"), fit)
    fixed_section(page.section("Fixed effects"), fit, tests)
    variance_section(page.section("Variances and correlations"), fit)
    checks_section(page.section("Checks"), fit)
    diagnostics_section(page.section("Diagnostics"), fit)
    if fit.design.encoding.factors:
        means_section(page.section("Marginal means"), fit, tests)
    if posterior is not None and comparison is not None:
        posterior_section(page.section("Posterior beside the estimates"), posterior, comparison)
    if more is not None:
        more(page)
    provenance_section(page.section("Where this comes from"), fit, posterior, seed)
    return page


def verdict(fit: Estimates) -> str:
    """What the checks say, in a sentence."""
    counts = {name: sum(check.verdict == name for check in fit.checks.values()) for name in get_args(Verdict)}
    counted = [f"{count} {name}" for name, count in counts.items() if count]
    if not counts["failed"] and not counts["noted"]:
        return "All checks passed."
    return "Checks: " + ", ".join(counted) + "."


def tiles(fit: Estimates) -> list[tuple[str, str]]:
    """The numbers that one looks for first."""
    found = [("rows", f"{fit.nobs:,}")]
    found += [(f"levels of {name}", f"{size:,}") for name, size in list(fit.design.groups.items())[:3]]
    found += [("-2 log REML" if fit.restricted else "-2 log likelihood", f"{fit.criterion:,.1f}"), ("AIC", f"{fit.aic:,.1f}")]
    return [*found, ("residual sd", five_digits(fit.sigma))] if np.isfinite(fit.sigma) else found


def model_section(section: Section, fit: Estimates) -> None:
    """What was fitted: formula, structures, method, sizes."""
    design, spec = fit.design, fit.design.spec
    section.code(fit.formula)
    facts = [
        ("Response", spec.formula.response),
        ("Fixed effects", f"{len(design.coef_names)}, of the terms {', '.join(dict.fromkeys(design.coef_terms))}"),
    ]
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


def _tests_text(options: InferenceOptions) -> str:
    covariance = "" if options.vcov == check_options(options.df).vcov else f", covariance of the fixed effects {options.vcov}"
    return f"{DF_TITLES[options.df]}{covariance}" + (", observed information" if options.information == "observed" else "")


def fixed_section(section: Section, fit: Estimates, options: InferenceOptions) -> None:
    """Estimates with intervals, their forest, tests of whole terms."""

    def estimates() -> None:
        table = with_limits(coefficient_table(fit, **asdict(options)), 0.95)
        section.table(table)
        section.text(f"Intervals of 95%; {_tests_text(options)}.", "note")
        own = table[(table["term"] != "Intercept") & np.isfinite(table["estimate"])].set_index("term")
        if 0 < len(own) <= FOREST_COEFFICIENTS:
            height = 0.9 + 0.3 * len(own)
            section.figure(
                draw_figure(lambda ax: forest(ax, own, "estimate with 95% interval"), 7.0, height),
                "Fixed effects with 95% intervals; the line is 0.",
            )

    def tests() -> None:
        section.add_heading("Tests of terms")
        section.table(anova(fit, **asdict(options)).drop(columns="sum_sq"))

    if not fit.design.coef_names:
        section.text("The model has no fixed effects.")
        return
    section.attempt("Estimates", estimates)
    if fit.design.encoding.factors:
        section.attempt("Tests of terms", tests)


def variance_section(section: Section, fit: Estimates) -> None:
    """D, R, what the variances are shares of."""
    table = fit.varcorr.dropna(subset="variance")
    if len(table):
        section.table(table.drop(columns=[name for name in ("term2", "corr") if table[name].isna().all()]))

    def shares() -> None:
        explained = r2(fit)
        found = {
            "R², fixed and random effects": explained["conditional"],
            "R², fixed effects": explained["marginal"],
            "Intraclass correlation, adjusted": icc(fit)["adjusted"],
        }
        section.facts([(name, format_signed(float(value.iloc[0]), 3)) for name, value in found.items()])

    if fit.design.terms and fit.design.residual is None and not fit.design.variance:
        section.attempt("Shares of variance", shares)
    errors_tables(section, fit)


def errors_tables(section: Section, fit: Estimates) -> None:
    """Parameters and covariance of structured errors; of an unstructured one the matrix says it all."""
    R, params = fit.R, fit.residual_params
    matrices = R if isinstance(R, dict) else {} if R is None else {"": R}
    free = sum(len(frame) * (len(frame) + 1) // 2 for frame in matrices.values())
    if len(params) and (len(params) != free or any(len(frame) > MATRIX_VISITS for frame in matrices.values())):
        section.table(params.rename_axis("name").reset_index(), "Parameters of the errors")
    for level, frame in matrices.items():
        if len(frame) > MATRIX_VISITS:
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


def checks_section(section: Section, fit: Estimates) -> None:
    """Verdicts with what to do about them."""
    section.checks(fit.checks.values())
    section.text("Passed: as it should be. Noted: worth knowing. Failed: do not trust the numbers before a look.", "note")


def diagnostics_section(section: Section, fit: Estimates) -> None:
    """Residuals, quantiles, agreement, random effects."""
    section.attempt("Figures of the rows", lambda: row_figures(section, fit))
    for group in fit.design.groups:
        section.attempt(f"Random effects of {group}", _caterpillar(section, fit, group))


def row_figures(section: Section, fit: Estimates) -> None:
    """Residuals against fitted values and quantiles, observed against fitted values."""
    about_spread = "Residuals against fitted values: no trend, and a spread that does not change, is what the model assumes."
    about_tails = "Residuals against normal quantiles: points outside the band are larger, or smaller, than normal errors would be."
    section.pair(
        (draw_figure(lambda ax: residual_axes(fit, ax=ax)), about_spread), (draw_figure(lambda ax: qq_axes(fit, ax=ax)), about_tails)
    )
    alone = (draw_figure(lambda ax: fitted_axes(fit, "population", ax)), "Observed against what the fixed effects alone say.")
    if fit.design.terms:
        both = (draw_figure(lambda ax: fitted_axes(fit, ax=ax)), "Observed against fitted values, which include the random effects.")
        section.pair(both, alone)
    else:
        section.pair(alone)


def _caterpillar(section: Section, fit: Estimates, group: str) -> Callable[[], None]:
    def draw() -> None:
        columns = sum(len(term.columns) for term in fit.design.terms if term.group.name == group)
        if columns > CATERPILLAR_PANELS:
            section.text(f"{group} has {columns} random effects per level: see fit.plot.ranef({group!r}).", "note")
            return
        size = fit.design.groups[group]
        height = float(np.clip(0.17 * size + 1.0, 2.4, 8.0)) if size <= 60 else 4.2
        caption = f"Random effects of {group} with 95% intervals, in order of size; away from 0 in colour."
        section.figure(draw_panels(lambda axes: ranef_axes(fit, group, ax=axes), columns, height=height), caption)

    return draw
