"""Marginal means of the factors of the fixed effects, with their pairs; where two factors interact, of one within the other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import TYPE_CHECKING

from bayeslmm.plots.means import emmeans_axes
from bayeslmm.reports.page import Section
from bayeslmm.reports.pictures import panelled

if TYPE_CHECKING:
    from bayeslmm.inference.emmeans import EMMeans
    from bayeslmm.results.fit import Fit

FACTORS = 4
"""Factors, and pairs of factors, that are shown."""

LEVELS = 30
"""Levels of a factor up to which its means are shown."""

PAIRED = 6
"""Levels up to which all pairs are shown."""


def means_section(section: Section, fit: Fit, df: str) -> None:
    """Means, figure and pairs of every factor; of a factor within another where they interact."""
    levels = {name: len(found) for name, found in fit.design.encoding.levels.items()}
    shown = [name for name, size in levels.items() if size <= LEVELS][:FACTORS]
    section.text(
        "What the model expects at each level, other factors weighted equally and covariates at their means. "
        "Pairs are adjusted by Tukey's method.",
        "note",
    )
    for name in shown:
        section.attempt(f"Marginal means of {name}", _one(section, fit, name, levels[name], df))
    for name, other in [pair for pair in combinations(shown, 2) if _interact(fit, *pair)][:FACTORS]:
        outer, inner = (name, other) if levels[name] >= levels[other] else (other, name)
        section.attempt(f"Marginal means of {inner} by {outer}", _within(section, fit, inner, outer, df))
    left = [name for name in levels if name not in shown]
    if left:
        section.text(f"Not shown: {', '.join(left)}; see fit.emmeans().", "note")


def _interact(fit: Fit, name: str, other: str) -> bool:
    """Whether a term of the fixed effects has both factors."""
    atoms = {key: atom.column for key, atom in fit.design.encoding.factors.items()}
    terms = [{atoms.get(part, "") for part in term.split(":")} for term in fit.design.coef_terms]
    return any({name, other} <= term for term in terms)


def _one(section: Section, fit: Fit, name: str, size: int, df: str) -> Callable[[], None]:
    def show() -> None:
        means = fit.emmeans(name, df=df)
        section.heading(name)
        section.table(means.frame.drop(columns=["statistic", "p_value"], errors="ignore"))
        _picture(section, means, 1, size, f"Marginal means of {name} with 95% intervals.")
        if 2 <= size <= PAIRED:
            section.table(means.pairs(), "Differences")

    return show


def _within(section: Section, fit: Fit, inner: str, outer: str, df: str) -> Callable[[], None]:
    def show() -> None:
        means = fit.emmeans(inner, by=outer, df=df)
        sizes = {name: len(found) for name, found in fit.design.encoding.levels.items()}
        section.heading(f"{inner} by {outer}")
        pairs = means.pairs()
        if sizes[outer] <= 12:
            _picture(section, means, sizes[outer], sizes[inner], f"Marginal means of {inner} at each level of {outer}.")
        section.table(pairs if sizes[inner] <= PAIRED else means.frame.drop(columns=["statistic", "p_value"], errors="ignore"))

    return show


def _picture(section: Section, means: EMMeans, panels: int, levels: int, caption: str) -> None:
    height = 1.1 + 0.3 * levels if panels > 1 else 0.9 + 0.3 * levels
    section.figure(
        panelled(lambda axes: _drawn(means, axes), panels, width=5.2 if panels == 1 else 3.4, height=height, alike=True), caption
    )


def _drawn(means: EMMeans, axes: object) -> None:
    emmeans_axes(means, ax=axes)
