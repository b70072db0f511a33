"""The files of a release: a fit, a fit of structured errors and a posterior of small data, in a folder of its name."""

from __future__ import annotations

import sys
from pathlib import Path

import bayeslmm as blm


def write(folder: Path) -> None:
    folder.mkdir()
    data = blm.load_dataset("sleepstudy")
    model = blm.LMM("Reaction ~ Days + (Days | Subject)", data)
    model.fit().save(folder / "fit.blm")
    blm.LMM("Reaction ~ Days", data, residual="ar1(Days | Subject)").fit().save(folder / "structured.blm")
    model.sample(50, 2, seed=1).save(folder / "posterior.blm")


if __name__ == "__main__":
    write(Path(__file__).parent / sys.argv[1])
