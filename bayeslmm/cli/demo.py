"""The trial example, end to end: from a table of visits to estimates, predictions, a figure and a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

import bayeslmm as blm
from bayeslmm._io import make_folder, require_regular, write_atomically
from bayeslmm.data.frame import csv_names
from bayeslmm.datasets import simulate_trial
from bayeslmm.errors import DataError, EmptyDataError
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.model.fit import Fit
from bayeslmm.reports.fit import fit_page
from bayeslmm.reports.page import draw_figure, save_picture

FORMULA = "BCVA_CHG ~ VISITN + BCVA_BL + (1 | USUBJID)"
NEEDED = ("BCVA_CHG", "VISITN", "BCVA_BL", "USUBJID")
SHOWN_ROWS = 20

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Demo:
    """What the example made: the fit, its tables, and the files written."""

    fit: Fit
    estimates: pd.DataFrame
    predictions: pd.DataFrame
    files: tuple[Path, ...]


def read_trial(path: Path | None) -> pd.DataFrame:
    """The bundled trial, or a CSV with the columns of the formula."""
    if path is None:
        return simulate_trial()
    require_regular(path)
    try:
        csv_names(path)
        data = pd.read_csv(path)
    except FileNotFoundError as error:
        raise DataError("there is no such file", str(path), "name a CSV with the columns " + ", ".join(NEEDED)) from error
    except pd.errors.EmptyDataError as error:
        raise EmptyDataError("the file is empty", str(path), "name a CSV with rows") from error
    except (OSError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise DataError(f"the file cannot be read as CSV: {error}", str(path), "save it as comma-separated UTF-8 text") from error
    absent = [name for name in NEEDED if name not in data.columns]
    if absent:
        raise DataError(f"the file has no column {', '.join(absent)}", str(path), "the example needs " + ", ".join(NEEDED))
    return data


def run_demo(data: Path | None, out: Path, step: Step = lambda _: None) -> Demo:
    """Fit the example and write estimates, predictions, a figure and a report to `out`; `step` is told what is under way."""
    step("reading the trial")
    frame = read_trial(data)
    step(f"fitting {FORMULA} by REML")
    fit = require_finished(blm.LMM(FORMULA, frame).fit())
    make_folder(out)
    step("tables")
    estimates = fit.tidy("fixed", conf_int=True)
    predictions = fit.augment()
    step("figure")
    lines = draw_figure(lambda ax: lines_over_visits(fit, ax), 8.0, 4.8)
    step("report")
    page = fit_page(fit, title="Change of visual acuity over visits")
    page.lead = f"{source_of(data, frame)} {page.lead}"
    first = page.section("Visits", place=0)
    first.figure(lines, "Observed changes, what the model expects at the mean baseline with its 95% band, and the lines of some patients.")
    rows = page.section("Predictions", place=len(page.sections) - 1)
    rows.text(f"The first {SHOWN_ROWS} of {len(predictions):,} rows; all of them are in predictions.csv.", "note")
    rows.table(predictions.head(SHOWN_ROWS))
    files = (
        write_text(out / "summary.txt", str(fit.summary())),
        write_text(out / "estimates.csv", estimates.to_csv(index=False)),
        write_text(out / "predictions.csv", predictions.to_csv(index=False)),
        save_picture(lines, out / "figure.png"),
        page.save(out / "report.html"),
    )
    return Demo(fit, estimates, predictions, files)


def source_of(data: Path | None, frame: pd.DataFrame) -> str:
    """Where the rows come from, in a sentence."""
    where = "a simulated trial that comes with the package" if data is None else data.name
    return f"{len(frame):,} visits of {frame['USUBJID'].nunique():,} patients, from {where}."


def lines_over_visits(fit: Fit, ax: Axes) -> None:
    """Points, the fitted line at the mean baseline with its band, and the lines of some patients."""
    fit.plot.lines("VISITN", by="USUBJID", ax=ax)
    ax.axhline(0.0, color="0.7", linewidth=0.8, zorder=0)
    ax.set_xlabel("visit")
    ax.set_ylabel("change of BCVA from baseline (letters)")
    ax.set_xticks(np.unique(fit.design.frame["VISITN"].to_numpy(float)))


def write_text(path: Path, text: str) -> Path:
    """Write a text whole or not at all."""
    write_atomically(path, text.encode("utf-8"))
    return path
