"""The sizes that default priors are scaled by: sd(y), sd(x), rms(z), as given by the data and by nothing else."""

from __future__ import annotations

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.data.design import Design, RandomTerm

WIDE = 2.5
"""Default scales are this many times the size of the data."""


def sd_y(design: Design) -> float:
    """sd(y), divisor n - 1, over the rows used; offset and weights left aside."""
    return float(np.std(design.y, ddof=1)) if design.nobs > 1 else 1.0


def mad_y(design: Design) -> float:
    """1.4826 times the median absolute deviation of y."""
    return float(1.4826 * np.median(np.abs(design.y - np.median(design.y))))


def rms(term: RandomTerm) -> Array:
    """sqrt(mean z^2) of every column of a term, (q,)."""
    size = np.sqrt(np.mean(term.Z**2, axis=0))
    return np.where(size > 0, size, 1.0)


def rms_rows(term: RandomTerm) -> float:
    """sqrt of the mean squared length of a term's rows: 1 for indicators of levels. For structures with one variance."""
    size = float(np.sqrt(np.mean(np.sum(term.Z**2, axis=1))))
    return size if size > 0 else 1.0


def sd_x(design: Design) -> Array:
    """sd(x) of the columns kept, (p,); the size of the column where it does not vary."""
    spread = np.std(design.X, axis=0, ddof=1) if design.nobs > 1 else np.ones(design.X.shape[1])
    size = np.sqrt(np.mean(design.X**2, axis=0))
    return np.where(spread > 1e-12 * np.maximum(size, 1e-300), spread, np.where(size > 0, size, 1.0))
