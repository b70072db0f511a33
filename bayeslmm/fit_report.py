"""The report of a fit: summary, tables and checks on one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from bayeslmm.report import Report
from bayeslmm.spec.atomic import as_path


def fit_report(fit: Any, path: str | Path | None = None, *, title: str | None = None, df: str = "satterthwaite") -> str:
    """The page as text; written to `path` where one is given."""
    page = Report(title or fit.formula)
    page.heading("Summary")
    page.sections.append(f'<div class="scroll">{fit.summary(df)._repr_html_()}</div>')
    page.table("Fixed effects", fit.tidy(conf_int=True, df=df).drop(columns=["effect", "group", "level"]))
    page.table("Variances and correlations", fit.varcorr)
    checks = [(check.name, check.verdict, str(check.value), str(check.limit), check.remedy) for check in fit.checks.values()]
    page.table("Checks", pd.DataFrame(checks, columns=["check", "verdict", "value", "limit", "remedy"]))
    if path is not None:
        page.save(as_path(path))
    return page.html()
