"""The trial example, end to end: from a table of visits to estimates, predictions, a figure and a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import bayeslmm as blm
from bayeslmm.data import simulate_trial
from bayeslmm.errors import DataError, EmptyDataError
from bayeslmm.report import Report, write_text

FORMULA = "BCVA_CHG ~ VISITN + BCVA_BL + (1 | USUBJID)"
NEEDED = ("BCVA_CHG", "VISITN", "BCVA_BL", "USUBJID")
SHOWN_PATIENTS = 6

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Demo:
    """What the example made: the fit, its tables, and the files written."""

    fit: Any
    estimates: pd.DataFrame
    predictions: pd.DataFrame
    files: tuple[Path, ...]


def read_trial(path: Path | None) -> pd.DataFrame:
    """The bundled trial, or a CSV with the columns of the formula."""
    if path is None:
        return simulate_trial()
    try:
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
    fit = blm.LMM(FORMULA, frame).fit()
    step("tables")
    estimates = fit.tidy("fixed", conf_int=True)
    parameters = fit.tidy("ran_pars")
    predictions = fit.augment()
    step("figure")
    figure = draw(fit, frame.iloc[np.asarray(fit.rows)], predictions)
    step("report")
    out.mkdir(parents=True, exist_ok=True)
    report = Report("Change of visual acuity over visits")
    report.text(source_of(data, frame))
    report.summary(fit)
    report.table("Fixed effects, 95 % intervals", estimates)
    report.table("Random effects", parameters)
    report.figure("Observed changes, the fitted line, and some patients with theirs", figure)
    report.table("Predictions, the first 20 rows", predictions.head(20))
    files = (
        write_text(out / "summary.txt", str(fit.summary())),
        write_text(out / "estimates.csv", estimates.to_csv(index=False)),
        write_text(out / "predictions.csv", predictions.to_csv(index=False)),
        report.save_figure(out / "figure.png"),
        report.save(out / "report.html"),
    )
    return Demo(fit, estimates, predictions, files)


def source_of(data: Path | None, frame: pd.DataFrame) -> str:
    """Where the rows come from, in a sentence."""
    where = "a simulated trial that comes with the package" if data is None else data.name
    return f"{len(frame):,} visits of {frame['USUBJID'].nunique():,} patients, from {where}. Model: {FORMULA}, by REML."


def draw(fit: Any, frame: pd.DataFrame, predictions: pd.DataFrame) -> Figure:
    """Points, the fitted line at the mean baseline with its interval, and the lines of a few patients."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    visit = frame["VISITN"].to_numpy(dtype=float)
    change = frame["BCVA_CHG"].to_numpy(dtype=float)
    jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(visit))
    axes.scatter(visit + jitter, change, s=6, alpha=0.18, color="0.45", linewidths=0, label="observed")
    fitted = predictions["fitted"].to_numpy(dtype=float)
    patients = frame["USUBJID"].unique()
    for order, patient in enumerate(patients[:: -(-len(patients) // SHOWN_PATIENTS)]):
        mine = np.flatnonzero(frame["USUBJID"].to_numpy() == patient)
        mine = mine[np.argsort(visit[mine])]
        axes.plot(visit[mine], fitted[mine], color="tab:orange", linewidth=1, alpha=0.8, label=None if order else "some patients")
    grid = pd.DataFrame({"VISITN": np.linspace(visit.min(), visit.max(), 50), "BCVA_BL": frame["BCVA_BL"].mean()})
    line = fit.predict(grid, level="population", interval="confidence")
    axes.fill_between(grid["VISITN"], line["conf_low"], line["conf_high"], color="tab:blue", alpha=0.25, linewidth=0)
    axes.plot(grid["VISITN"], line["estimate"], color="tab:blue", linewidth=2, label="fitted, mean baseline, 95 % interval")
    axes.axhline(0.0, color="0.7", linewidth=0.8, zorder=0)
    axes.set_xlabel("visit")
    axes.set_ylabel("change of BCVA from baseline (letters)")
    axes.set_xticks(np.unique(visit))
    axes.legend(frameon=False, loc="upper left")
    return figure
