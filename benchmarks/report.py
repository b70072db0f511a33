"""The measurements as Markdown: one table a problem, the machine, and how to make them again."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.problems import PROBLEMS

if TYPE_CHECKING:
    from benchmarks.run import Measured

HEADER = """# Benchmark

Whole fits, from a data frame in memory to the estimates, warm. Each library runs in a process of its own and all take turns,
round by round, so that whatever else the machine does falls on all alike; the figures are medians over {rounds} rounds.

- *ratio*: the time of a library over ours.
- *above optimum*: its criterion (-2 log likelihood, in its REML form) minus the best known of the model it fitted.
- *evaluations*: of the criterion, where the library tells them (iterations in lme-python and gpboost). Ours begin at one scoring step in
  the covariances, or at moments of the levels, which are in the time and not in the count; in balanced data that step is the estimate.
- *peak*: how far resident memory rose during one fit; in brackets, as a multiple of the data frame (not told for small frames,
  where it is noise).
- gpboost fits by maximum likelihood only and leaves out the correlation of intercept and slope.

To make it again: `make bench`, or `python -m benchmarks.run --out benchmarks/RESULTS.md`; `--small` for the small sets alone,
`--problem` and `--peer` for some. lme4 takes part where `Rscript` has it.

"""


def machine(threads: int) -> str:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    python = platform.python_version()
    return f"Machine: {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {python}; {threads} thread(s) for BLAS."


def write(tables: Mapping[str, Sequence[Measured]], where: str, *, rounds: int) -> str:
    parts = [HEADER.format(rounds=rounds), where, "\n"]
    for name, results in tables.items():
        problem = PROBLEMS[name]
        rows = max((result.rows for result in results), default=0)
        parts.append(f"\n## {name}\n\n`{problem.formula}`, {problem.method}, {rows:,} rows\n\n")
        parts.append("| library | version | time | ratio | above optimum | evaluations | peak |\n|---|---|---:|---:|---:|---:|---:|\n")
        ours = next((result for result in results if result.peer == "bayeslmm" and result.seconds), None)
        parts += [row(result, ours) for result in results]
    return "".join(parts)


def row(result: Measured, ours: Measured | None) -> str:
    if not result.seconds:
        return f"| {result.peer} | {result.version} | {result.failed} | | | | |\n"
    ratio = f"{result.median / ours.median:.3g}" if ours else ""
    above = result.criterion - result.best
    evaluations = "" if result.evaluations is None else str(result.evaluations)
    peak = "" if result.peak is None or result.rows < 10_000 else f"{result.peak / 1e6:.0f} MB ({result.peak / result.frame:.1f})"
    return f"| {result.peer} | {result.version} | {duration(result.median)} | {ratio} | {above:.1e} | {evaluations} | {peak} |\n"


def duration(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
