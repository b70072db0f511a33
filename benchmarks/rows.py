"""Time of one evaluation of the criterion against the number of rows: the rows are read once, then it must be flat.

usage: python -m benchmarks.rows [ROUNDS]
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np

import bayeslmm as blm
from benchmarks.problems import subjects

ROWS = (20_000, 200_000, 2_000_000)
LEVELS = 1_000
FORMULA = "y ~ x + (x | g)"
THETA = np.array([0.9, 0.1, 0.4])


def measure(rounds: int) -> dict[int, float]:
    """Seconds of one evaluation with 1,000 subjects, by the number of rows."""
    models = {rows: blm.LMM(FORMULA, subjects(rows, LEVELS)()) for rows in ROWS}
    taken: dict[int, list[float]] = {rows: [] for rows in ROWS}
    for model in models.values():
        model.criterion(THETA, "REML")
    for _ in range(rounds):
        for rows, model in models.items():
            start = time.perf_counter()
            for _ in range(20):
                model.criterion(THETA, "REML")
            taken[rows].append((time.perf_counter() - start) / 20)
    return {rows: statistics.median(values) for rows, values in taken.items()}


def section(taken: dict[int, float]) -> str:
    """The measurements as a table of Markdown."""
    lines = [f"| {rows:,} | {value * 1e6:.0f} us |\n" for rows, value in taken.items()]
    head = f"\n## One evaluation of the criterion by rows\n\n`{FORMULA}`, {LEVELS:,} subjects\n\n| rows | time |\n|---:|---:|\n"
    return head + "".join(lines)


if __name__ == "__main__":
    print(section(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 7)))
