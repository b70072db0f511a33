"""The report of a comparison, the section of a posterior, and where a report comes from."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from bayeslmm._io import require_html_place
from bayeslmm._validation import require_name
from bayeslmm.errors import BayesLMMError, Check
from bayeslmm.formula.parse import variance_text
from bayeslmm.plots.intervals import comparison_axes
from bayeslmm.reports.page import HtmlPage, Page, Section, draw_figure

if TYPE_CHECKING:
    from bayeslmm.results.estimates import Estimates


class Sampled(Protocol):
    """What a report says about a posterior: how it was draw_figure, and whether the draws can be trusted."""

    @property
    def method(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def elapsed(self) -> float: ...
    @property
    def checks(self) -> Mapping[str, Check]: ...


class Compared(Protocol):
    """A comparison of sources: one row per parameter and source, and its forest."""

    @property
    def frame(self) -> pd.DataFrame: ...
    @property
    def conf_level(self) -> float: ...


LISTED_PACKAGES = ("bayeslmm", "numpy", "scipy", "pandas", "formulaic")
SAMPLING_PACKAGES = ("pymc", "arviz", "nutpie")


def provenance_section(section: Section, fit: Estimates, posterior: Sampled | None, seed: int | None) -> None:
    """What a second person needs to see the same numbers."""
    section.code(call_text(fit))
    steps = len(fit.path)
    facts = [
        ("Criterion", f"{fit.criterion!r}"),
        ("Largest derivative of it", f"{float(np.abs(fit.estimate.gradient).max(initial=0.0)):.2g}"),
        (
            "Search",
            f"{'converged' if fit.converged else 'not converged'} after {steps} evaluations"
            + (f", {fit.elapsed:.2g} s" if math.isfinite(fit.elapsed) else ""),
        ),
        ("Rows", f"{fit.nobs:,} of {fit.design.n_read:,}; fingerprint {fingerprint(fit)}"),
    ]
    if posterior is not None:
        facts.append(("Seed of the draws", "none: other draws will differ" if seed is None else str(seed)))
    if fit.model.counting != "lme4":
        facts.append(("AIC and BIC", f"counted as {'SAS' if fit.model.counting == 'sas' else fit.model.counting} counts them"))
    section.facts([*facts, *versions(sampling=posterior is not None)])


def call_text(fit: Estimates) -> str:
    """The call that makes the fit, but for its data and for arrays."""
    spec = fit.design.spec
    arguments: dict[str, Any] = {
        "residual": None if spec.residual is None else spec.residual.text,
        "variance": variance_text(spec.variance) if spec.variance else None,
        "weights": spec.weights,
        "offset": spec.offset,
        "contrasts": dict(spec.contrasts) or None,
    }
    options = "".join(f", {name}={value!r}" for name, value in arguments.items() if value is not None)
    method = "" if fit.method == "REML" else repr(fit.method)
    return f"blm.LMM({fit.formula!r}, data{options}).fit({method})"


def fingerprint(fit: Estimates) -> str:
    """The beginning of a digest of response, X and levels of the rows used: equal where a second person has the same rows."""
    digest = hashlib.sha256()
    try:
        for array in (fit.design.y, fit.design.X, *(term.group.codes for term in fit.design.terms)):
            digest.update(np.ascontiguousarray(array).tobytes())
    except BayesLMMError:
        return "none, the rows were read in parts"
    return digest.hexdigest()[:16]


def versions(*, sampling: bool = False) -> list[tuple[str, str]]:
    """Date, Python and packages."""
    names = LISTED_PACKAGES + (SAMPLING_PACKAGES if sampling else ())
    text = ", ".join(f"{name} {found}" for name in names if (found := _version(name)))
    return [
        ("Date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("Versions", text),
        ("Machine", f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"),
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def posterior_section(section: Section, posterior: Sampled, compared: Compared) -> None:
    """Estimates and posterior parameter by parameter, and whether the draws can be trusted."""
    section.facts(
        [
            ("Sampler", posterior.method),
            ("Draws", f"{posterior.size:,}"),
            ("Seconds", f"{posterior.elapsed:.1f}" if math.isfinite(posterior.elapsed) else "not known"),
        ]
    )
    comparison_section(section, compared)
    section.add_heading("Checks of the draws")
    section.checks(posterior.checks.values())


def comparison_section(section: Section, compared: Compared) -> None:
    """Table and forest of a comparison."""
    frame = compared.frame
    table = frame.drop(columns=["effect", *(name for name in ("gap", "pull") if frame[name].isna().all())])
    section.table(table[["term", "group", "source", *(name for name in table.columns if name not in ("term", "group", "source"))]])
    section.text(
        "gap: distance from the posterior mean in posterior standard deviations. "
        "pull: how far the priors of the variances draw the posterior mean, in the same unit.",
        "note",
    )
    parameters = len(frame.drop_duplicates(["effect", "group", "term"]))
    height = 1.2 + 0.45 * parameters * max(1.0, frame["source"].nunique() / 3)
    section.figure(
        draw_figure(lambda ax: comparison_axes(compared.frame, ax), 7.5, min(height, 40.0)),
        "Each parameter on its own scale, around the posterior mean.",
    )


def comparison_report(compared: Compared, path: str | Path | None = None, *, title: str | None = None) -> HtmlPage:
    """The report of a comparison as HTML; written to `path` where one is given.

    >>> "gap" in blm.compare(fit, post).report()
    True
    """
    require_html_place(path)
    sources = list(dict.fromkeys(compared.frame["source"]))
    heading = "Comparison of " + ", ".join(sources) if title is None else require_name(title, "title")
    page = Page(heading, f"One model, {len(sources)} ways; intervals of {compared.conf_level:.0%}.")
    comparison_section(page.section("Parameter by parameter"), compared)
    page.section("Where this comes from").facts(versions())
    return page.finish(path)
