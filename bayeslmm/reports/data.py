"""What the model was given: rows read and lost, the columns it reads, the sizes of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.reports.page import Section
from bayeslmm.reports.pictures import drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.results.fit import Fit

LEVELS = 8
"""Levels of a factor that are listed."""

COLUMNS = 30
"""Columns that are described."""


def data_section(section: Section, fit: Fit) -> None:
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
    section.attempt("Columns", lambda: columns(section, fit))
    section.attempt("Groups", lambda: groups(section, fit))


def columns(section: Section, fit: Fit) -> None:
    """One line for each column that the model reads."""
    frame = fit.design.frame
    rows = [described_column(str(name), frame[name]) for name in frame.columns[:COLUMNS]]
    section.table(pd.DataFrame(rows, columns=["column", "kind", "what it holds"]), "Columns over the rows used")


def described_column(name: str, values: pd.Series) -> tuple[str, str, str]:
    """Name, kind, range or levels."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        numbers = values.to_numpy(dtype=float, na_value=np.nan)
        told = f"{numbers.min():.5g} to {numbers.max():.5g}, mean {numbers.mean():.4g}, sd {numbers.std(ddof=1):.4g}"
        return name, "numbers", told
    counts = values.value_counts(sort=False)
    counts = counts[counts > 0]
    if len(counts) > LEVELS:
        return name, "labels", f"{len(counts):,} levels"
    return name, "labels", ", ".join(f"{level} ({count:,})" for level, count in counts.items())


def groups(section: Section, fit: Fit) -> None:
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
        section.figure(drawn(lambda ax: attendance(ax, names, seen, residual.subject.size), 7.0, 2.6), caption)


def attendance(ax: Axes, names: list[str], seen: np.ndarray, subjects: int) -> None:
    """How many subjects have a row at each visit."""
    ax.bar(np.arange(len(names)), seen, color="#0072B2", width=0.7)
    ax.axhline(subjects, color="#222222", linewidth=1)
    ax.set_xticks(
        np.arange(len(names)), labels=[name.replace("$", r"\$") for name in names], rotation=0 if len("".join(names)) < 80 else 90
    )
    ax.set_ylabel("rows")
    ax.spines[["top", "right"]].set_visible(False)
