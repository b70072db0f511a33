"""Small data with known structure, the same at every run."""

from __future__ import annotations

import numpy as np
import pandas as pd


def split_plot(seed: int = 7) -> pd.DataFrame:
    """6 blocks, 3 varieties on whole plots, 4 treatments on their parts: balanced."""
    rng = np.random.default_rng(seed)
    block, variety, nitrogen = (a.ravel() for a in np.indices((6, 3, 4)))
    y = 80 + 5 * rng.normal(size=6)[block] + 4 * rng.normal(size=(6, 3))[block, variety] + 2 * nitrogen + variety + 3 * rng.normal(size=72)
    return pd.DataFrame(
        {"y": y, "block": block.astype(str), "variety": np.array(list("GMV"))[variety], "nitrogen": np.array(list("abcd"))[nitrogen]}
    )


def blocks(seed: int = 11, groups: int = 8) -> pd.DataFrame:
    """A randomised block design: every treatment once in each block."""
    rng = np.random.default_rng(seed)
    block, treatment = (a.ravel() for a in np.indices((groups, 4)))
    y = 10 + 3 * rng.normal(size=groups)[block] + treatment + rng.normal(size=4 * groups)
    return pd.DataFrame({"y": y, "block": block.astype(str), "treatment": np.array(list("ABCD"))[treatment]})


def unbalanced(seed: int = 3, rows: int = 150, groups: int = 14) -> pd.DataFrame:
    """Two factors, a covariate far from 0, groups of different sizes."""
    rng = np.random.default_rng(seed)
    g = rng.integers(0, groups, rows)
    frame = pd.DataFrame(
        {
            "a": rng.choice(list("xyz"), rows, p=[0.5, 0.3, 0.2]),
            "b": rng.choice(["p", "q"], rows),
            "x": rng.normal(size=rows) + 20,
            "w": rng.uniform(0.5, 2, rows),
            "g": g.astype(str),
        }
    )
    slope = 0.6 * rng.normal(size=groups)[g] * (frame["x"] - 20)
    frame["y"] = rng.normal(size=rows) + rng.normal(size=groups)[g] + slope + 0.5 * frame["x"] + (frame["a"] == "y")
    return frame
