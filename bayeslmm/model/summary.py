"""The summary of a fit as values; its text, its HTML and its form in a terminal are made from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from bayeslmm.results import foreign_names
from bayeslmm.results.estimates import DF_TITLES, METHOD_TITLES
from bayeslmm.results.fitted import residuals
from bayeslmm.results.foreign_names import no_attribute
from bayeslmm.results.random_effects import VarCorrRow, varcorr_rows
from bayeslmm.results.render import TextTable, align_digits, describe_checks, format_p, format_signed, html_of, renderable, text_of

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm._types import DfMethod, Information, VcovMethod
    from bayeslmm.results.estimates import Estimates


WIDTH = 6
"""Characters of a short name: what a correlation and its neighbour need anyway."""

_LEVEL = re.compile(r"^(?P<factor>.+?)\[(?:[A-Z]\.)?(?P<level>.*)\]$")
_DIGITS = re.compile(r"^(?P<head>.*?)(?P<digits>\d*)$")


def abbreviate(names: Sequence[str], width: int = WIDTH) -> list[str] | None:
    """Short names, one for each; None where two would be the same.

    >>> abbreviate(["Intercept", "Days", "ARMCD[T.TRT]", "ARMCD[T.TRT]:VISITN"])
    ['(Intr)', 'Days', 'ARMTRT', 'AT:VIS']
    """
    found = [_short_name(name, width) for name in names]
    return found if len(set(found)) == len(found) else None


def _short_name(name: str, width: int) -> str:
    if name == "Intercept":
        return "(Intr)"
    if len(name) <= width:
        return name
    parts = name.split(":")
    if len(parts) > (width + 1) // 2:
        return name[:width]
    left, out = width - (len(parts) - 1), list[str]()
    for i, part in enumerate(parts):
        room = left // (len(parts) - i)
        out.append(_short_part(part, room))
        left -= len(out[-1])
    return ":".join(out)


def _short_part(part: str, room: int) -> str:
    """A column, or a factor and its level: the level tells more, so it gets half the room or more."""
    found = _LEVEL.match(part)
    if found is None:
        return _shorten(part, room)
    level = _shorten(found["level"], min(len(found["level"]), (room + 1) // 2))
    return _shorten(found["factor"], room - len(level)) + level


def _shorten(text: str, room: int) -> str:
    """Small vowels go first, then small letters, both from the end; then what is too long, but for a number at the end."""
    for letters in ("aeiou", "abcdefghijklmnopqrstuvwxyz"):
        for i in range(len(text) - 1, 0, -1):
            if len(text) <= room:
                return text
            if text[i] in letters:
                text = text[:i] + text[i + 1 :]
    if len(text) <= room:
        return text
    found = _DIGITS.match(text)
    digits = found["digits"] if found else ""
    return text[: room - len(digits)] + digits if 0 < len(digits) < room else text[:room]


CORRELATIONS = 8
"""Coefficients up to which their correlations are shown."""

LISTED_PARAMETERS = 24
"""Parameters of the errors up to which all are listed."""

PRINTED_VISITS = 30
"""Visits up to which standard deviations and correlations stand in for parameters that are more than that."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A printable summary: `str()`, `print`, rich and notebooks each have their form.

    Attributes
    ----------
    facts : tuple of tuple of str, str
        Pairs (name, text).
    tables : tuple of TextTable
        Titled tables.
    notes : tuple of str
        Lines at the end.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[TextTable, ...]
    notes: tuple[str, ...]

    if not TYPE_CHECKING:  # a type checker knows every name that there is

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(type(self), name, foreign_names.SUMMARY_ATTRIBUTES)

    def __str__(self) -> str:
        return text_of(self.title, self.facts, self.tables, self.notes)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_of(self.title, self.facts, self.tables, self.notes)

    def __rich__(self) -> object:
        return renderable(self.title, self.facts, self.tables, self.notes)


def summarise(fit: Estimates, df: DfMethod, vcov: VcovMethod | None, information: Information) -> Summary:
    """The blocks of lme4's summary, the covariance of structured errors, and the checks that did not pass."""
    from bayeslmm.inference.fixed_effects.tests import check_options
    from bayeslmm.inference.tidy import fixed_columns

    kind = "Linear mixed model" if fit.design.terms else "Linear model"
    tests = fixed_columns(fit, df, vcov, information)
    tables = [_criteria(fit), *([_scaled_residuals(fit)] if fit.design.in_memory else [])]
    if fit.design.terms or fit.design.residual is None:
        tables.append(_random_effects(fit))
    tables += _errors(fit)
    heading = DF_TITLES[check_options(df, vcov, information).df] + (f", covariance {vcov}" if vcov not in (None, "asymptotic") else "")
    if tests["term"]:
        tables.append(_fixed_effects(tests, heading))
    if 1 < len(fit.design.kept) <= CORRELATIONS:
        tables.append(_correlations(fit))
    return Summary(f"{kind} fit by {METHOD_TITLES[fit.method]}", _facts(fit), tuple(tables), tuple(describe_checks(fit.checks.values())))


def _facts(fit: Estimates) -> tuple[tuple[str, str], ...]:
    design = fit.design
    facts = [("Formula", fit.formula)]
    if design.residual is not None:
        facts.append(("Errors", design.residual.spec.text))
    if design.variance:
        facts.append(("Variance", " * ".join(f"{v.kind}({v.spec.covariate})" for v in design.variance)))
    if design.spec.weights is not None:
        facts.append(("Weights", design.spec.weights))
    groups = ", ".join(f"{name} {size}" for name, size in design.groups.items())
    lost = ", ".join(f"{name} {count}" for name, count in design.dropped.items())
    rows = f"{design.nobs}" + (f" ({design.n_dropped} of {design.n_read} dropped: {lost})" if design.n_dropped else "")
    facts.append(("Rows", rows + (f"; groups: {groups}" if groups else "")))
    return tuple(facts)


def _criteria(fit: Estimates) -> TextTable:
    name = "-2 log REML" if fit.restricted else "-2 log lik" if fit.method == "ML" else "-2 log post"
    names = (name, "log lik", "AIC", "BIC", "df resid")
    values = (fit.criterion, fit.loglik, fit.aic, fit.bic)
    row = (*(f"{value:.1f}" for value in values), str(fit.nobs - fit.df_model))
    return TextTable("", names, (row,))


def _scaled_residuals(fit: Estimates) -> TextTable:
    values = np.quantile(residuals(fit, "pearson"), [0.0, 0.25, 0.5, 0.75, 1.0])
    return TextTable("Scaled residuals", ("Min", "1Q", "Median", "3Q", "Max"), (tuple(f"{value:.4f}" for value in values),))


def _random_effects(fit: Estimates) -> TextTable:
    found = list(varcorr_rows(fit.design.terms, fit.covariances))
    rows = []
    variances = [e.variance for e in found if e.second is None]
    sigma2 = fit.sigma**2
    shown = dict(zip([*variances, sigma2], align_digits([*variances, sigma2]), strict=True))
    terms = [entry for entry in found if entry.second is None]
    correlations = [_correlations_of(entry, found) for entry in terms]
    columns = max([1, *map(len, correlations)])
    names = ("Group", "Name", "Variance", "Std.Dev.", "Corr", *[""] * (columns - 1))
    seen = ""
    for entry, own in zip(terms, correlations, strict=True):
        label = entry.group if entry.group != seen else ""
        rows.append((label, entry.first, shown[entry.variance], align_digits([entry.sd])[0], *own, *[""] * (columns - len(own))))
        seen = entry.group
    if fit.design.residual is None and np.isfinite(sigma2):
        rows.append(("Residual", "", shown[sigma2], align_digits([fit.sigma])[0], *[""] * columns))
    return TextTable("Random effects" if found else "Errors", names, tuple(rows), labels=2)


def _correlations_of(entry: VarCorrRow, found: list[VarCorrRow]) -> list[str]:
    return [format_signed(e.corr) for e in found if e.group == entry.group and e.second == entry.first]


def _errors(fit: Estimates) -> list[TextTable]:
    """Parameters and covariances by visit. Of many parameters over many visits standard deviations and correlations say the same."""
    tables = []
    params = fit.error_parameters
    R = fit.R
    visits = list(R.items() if isinstance(R, dict) else [] if R is None else [("", R)])
    compact = len(params) > LISTED_PARAMETERS and 0 < max((len(frame) for _, frame in visits), default=0) <= PRINTED_VISITS
    if params and not compact:
        rows = tuple((name, align_digits([value])[0]) for name, value in params[:LISTED_PARAMETERS])
        more = ((f"and {len(params) - LISTED_PARAMETERS} more: fit.residual_params", ""),) if len(params) > LISTED_PARAMETERS else ()
        tables.append(TextTable("Parameters of the errors", ("Name", "Estimate"), (*rows, *more), labels=1))
    for level, frame in visits:
        where = f", {level}" if level else ""
        if len(frame) <= CORRELATIONS:
            cells = tuple((str(label), *align_digits(row)) for label, row in zip(frame.index, frame.to_numpy(float), strict=True))
            tables.append(TextTable(f"Covariance of the errors{where}", ("", *map(str, frame.columns)), cells))
        elif compact:
            tables.append(_sds_and_correlations(frame, where))
    return tables


def _sds_and_correlations(frame: pd.DataFrame, where: str) -> TextTable:
    """A covariance as lme4 prints those of random effects: standard deviations, and correlations with the rows above."""
    sds = np.sqrt(np.diagonal(frame.to_numpy(float)))
    with np.errstate(invalid="ignore", divide="ignore"):
        corr = frame.to_numpy(float) / np.outer(sds, sds)
    rows = tuple(
        (f"[{i + 1}] {label}", sd, *(format_signed(corr[i, j], 2) for j in range(i)), *[""] * (len(sds) - 1 - i))
        for i, (label, sd) in enumerate(zip(frame.index, align_digits(sds.tolist()), strict=True))
    )
    heads = ("", "Std.Dev.", *(f"[{j + 1}]" for j in range(len(sds) - 1)))
    return TextTable(f"Standard deviations and correlations of the errors{where}", heads, rows)


def _fixed_effects(tests: dict[str, Any], heading: str) -> TextTable:
    z = bool(np.isinf(tests["df"]).any())
    names = ("", "Estimate", "Std.Error", *(() if z else ("df",)), "z" if z else "t", "p")
    rows = []
    numbers = (tests[column].tolist() for column in ("estimate", "std_error", "df", "statistic", "p_value"))
    for name, estimate, error, df, statistic, p in zip(tests["term"], *numbers, strict=True):
        own = align_digits([estimate, error])
        rows.append((name, *own, *(() if z else (_df_text(df),)), format_signed(statistic, 2), format_p(p)))
    return TextTable(f"Fixed effects ({heading})", names, tuple(rows))


def _df_text(df: float) -> str:
    return "NaN" if np.isnan(df) else f"{df:.1f}" if df < 1e5 else f"{df:.3g}"


def _correlations(fit: Estimates) -> TextTable:
    kept = [fit.design.coef_names[i] for i in fit.design.kept]
    sds = np.sqrt(np.diagonal(fit.vcov_kept))
    with np.errstate(invalid="ignore", divide="ignore"):
        corr = fit.vcov_kept / np.outer(sds, sds)
    short = abbreviate(kept)
    # names that are the same when short are told apart by numbers
    heads = [f"[{i + 1}]" for i in range(len(kept))] if short is None else short
    labels = [f"{head} {name}" for head, name in zip(heads, kept, strict=True)] if short is None else kept
    cells = [[format_signed(corr[i, j], 2) for j in range(i)] + [""] * (len(kept) - 1 - i) for i in range(len(kept))]
    first = 1 if short is not None else 0
    rows = tuple((labels[i], *cells[i]) for i in range(first, len(kept)))
    return TextTable("Correlation of the fixed effects", ("", *heads[:-1]), rows)
