"""The figure of the README: `python -m docs.tools.figure` writes docs/assets/figure.png."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import bayeslmm as blm

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.55"
PATIENTS = 8
OUT = Path(__file__).resolve().parents[1] / "assets" / "figure.png"


def trial(axes: Any) -> None:
    """Patients with their fitted lines, the line of the population, the interval of a new patient."""
    data = blm.load_dataset("trial")
    fit = blm.LMM("BCVA_CHG ~ VISITN + BCVA_BL + (1 | USUBJID)", data).fit()
    grid = pd.DataFrame({"VISITN": np.linspace(1, 10, 50), "BCVA_BL": data["BCVA_BL"].mean(), "USUBJID": "a new patient"})
    new = fit.predict(grid, interval="prediction", new_levels="population")
    axes.fill_between(grid["VISITN"], new["conf_low"], new["conf_high"], color=BLUE, alpha=0.12, linewidth=0, label="a new patient, 95%")
    fitted = fit.augment()
    patients = fitted["USUBJID"].unique()
    for order, patient in enumerate(patients[:: len(patients) // PATIENTS][:PATIENTS]):
        rows = fitted[fitted["USUBJID"] == patient]
        axes.plot(rows["VISITN"], rows["BCVA_CHG"], "o", ms=2.5, color=GREY, alpha=0.8, label=None if order else "some patients")
        axes.plot(rows["VISITN"], rows["fitted"], color=GREY, lw=0.8, alpha=0.8)
    line = fit.predict(grid, level="population")
    axes.plot(grid["VISITN"], line["estimate"], color=BLUE, lw=2, label="population")
    axes.set(xlabel="visit", ylabel="change of visual acuity (letters)", xticks=range(1, 11))
    axes.set_title("8,671 visits of 1,000 patients, REML", loc="left", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def posterior(axes: Any) -> None:
    """One parameter where it matters: REML's estimate and Wald interval on the posterior of the same model."""
    model = blm.LMM("Reaction ~ Days + (Days | Subject)", blm.load_dataset("sleepstudy"))
    fit, post = model.fit(), model.sample(seed=1)
    draws = post.tree.posterior["sd_Subject"].sel(Subject_term="Days").to_numpy().ravel()
    axes.hist(draws, bins=60, range=(0, 14), density=True, color=ORANGE, alpha=0.35, label="posterior")
    low, high = np.quantile(draws, [0.025, 0.975])
    axes.plot([low, high], [0.012, 0.012], color=ORANGE, lw=3, solid_capstyle="butt", label="its 95% interval")
    found = fit.D["Subject"].loc["Days", "Days"] ** 0.5
    axes.axvline(found, color=BLUE, lw=2, label="REML")
    axes.set(xlabel="sd of the subjects' slopes (ms / day)", yticks=[], xlim=(0, 14))
    axes.set_title("sleepstudy: one model, estimated and sampled", loc="left", fontsize=9)
    axes.legend(frameon=False, fontsize=8)


def main() -> None:
    mpl.use("Agg")
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    trial(left)
    posterior(right)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    right.spines["left"].set_visible(False)
    figure.savefig(OUT, dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
