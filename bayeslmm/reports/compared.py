"""A posterior beside estimates, and a comparison as a report of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bayeslmm import bayes
from bayeslmm.errors import SpecificationError
from bayeslmm.reports.page import Page, Section
from bayeslmm.reports.pictures import drawn
from bayeslmm.reports.provenance import versions

if TYPE_CHECKING:
    from bayeslmm.results.fit import Fit


def posterior_section(section: Section, fit: Fit, posterior: Any) -> None:
    """Estimates and posterior parameter by parameter, and whether the draws can be trusted."""
    if not isinstance(posterior, bayes.Posterior):
        raise SpecificationError(f"posterior is a {type(posterior).__name__}", "posterior", "give what model.sample() returned")
    section.facts(
        [("Sampler", str(posterior.method)), ("Draws", f"{posterior.draws.alpha.shape[0]:,}"), ("Seconds", f"{posterior.elapsed:.1f}")]
    )
    comparison(section, bayes.compare(fit, posterior))
    section.heading("Checks of the draws")
    section.checks(posterior.checks.values())


def comparison(section: Section, compared: Any) -> None:
    """Table and forest of a comparison."""
    frame: pd.DataFrame = compared.frame
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
        drawn(lambda ax: compared.plot(ax), 7.5, min(height, 40.0)), "Each parameter on its own scale, around the posterior mean."
    )


def comparison_report(compared: Any, path: str | Path | None = None, *, title: str | None = None) -> str:
    """The report of a comparison as HTML; written to `path` where one is given.

    >>> "gap" in blm.compare(fit, post).report()
    True
    """
    sources = list(dict.fromkeys(compared.frame["source"]))
    page = Page(title or "Comparison of " + ", ".join(sources), f"One model, {len(sources)} ways; intervals of {compared.conf_level:.0%}.")
    comparison(page.section("Parameter by parameter"), compared)
    page.section("Where this comes from").facts(versions())
    if path is not None:
        page.save(path)
    return page.html()
