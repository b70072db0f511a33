"""Whole fits of large designs: two crossed factors beyond a dense block.

python -m benchmarks.scale [NAME ...] [--write]    every design in a process of its own, so that its peak of memory is its own
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import bayeslmm as blm
from bayeslmm.estimate.checks import monte_carlo_shares
from benchmarks.report import machine

PAGE = Path(__file__).with_name("SCALE.md")


@dataclass(frozen=True)
class CrossedDesign:
    """Rows, levels of two crossed factors, how skewed their popularity is, and how many communities their levels form."""

    rows: int
    first: int
    second: int
    skewed: bool = False
    communities: int = 1

    @property
    def title(self) -> str:
        kind = ", skewed as ratings are" if self.skewed else ""
        kind += f", {self.communities} communities" if self.communities > 1 else ""
        return f"{self.rows:,} rows, {self.first:,} x {self.second:,}{kind}"


DESIGNS = {
    "million": CrossedDesign(1_000_000, 50_000, 5_000),
    "ten-million": CrossedDesign(10_000_000, 100_000, 20_000),
    "ratings": CrossedDesign(25_000_000, 162_000, 59_000, skewed=True),
    "tenth": CrossedDesign(2_500_000, 16_200, 5_900, skewed=True, communities=20),
    "communities": CrossedDesign(25_000_000, 162_000, 59_000, skewed=True, communities=20),
}

OUTSIDE = 0.2
"""Share of the rows that leave their community."""


def simulate(design: CrossedDesign, seed: int = 0) -> pd.DataFrame:
    """Ratings of films by users: standard deviations 0.45, 0.5 and 0.9."""
    rng = np.random.default_rng(seed)
    n, K, L, c = design.rows, design.first, design.second, design.communities
    popular = (rng.pareto(2.0, K) + 0.3, rng.pareto(1.0, L) + 0.02) if design.skewed else (np.ones(K), np.ones(L))
    user = rng.choice(K, n, p=popular[0] / popular[0].sum()).astype(np.int32)
    film = rng.choice(L, n, p=popular[1] / popular[1].sum()).astype(np.int32)
    if c > 1:
        # a film of the user's own community in the place of most others: films of one community are those alike modulo their number
        own = rng.random(n) > OUTSIDE
        film[own] = np.minimum(film[own] - film[own] % c + user[own] % c, L - 1)
    y = 3.5 + 0.45 * rng.normal(size=K)[user] + 0.5 * rng.normal(size=L)[film] + 0.9 * rng.normal(size=n)
    return pd.DataFrame({"rating": y, "user": user, "film": film})


@dataclass(frozen=True)
class Measured:
    """Seconds of the whole fit from the frame, by the clock and of the processor; what came before the search; memory in GB; errors."""

    seconds: float
    processor: float
    before: float
    evaluations: int
    memory: float
    frame: float
    probes: int
    criterion_error: float
    largest_share: float
    sds: tuple[float, ...]


def measure(design: CrossedDesign) -> Measured:
    """Fit a design once."""
    data = simulate(design)
    frame = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    begin, work = time.perf_counter(), time.process_time()
    model = blm.LMM("rating ~ 1 + (1 | user) + (1 | film)", data)
    assert model.problem.size == 2
    before = time.perf_counter() - begin
    fit = model.fit()
    seconds, processor = time.perf_counter() - begin, time.process_time() - work
    shares = monte_carlo_shares(fit.problem, fit.point)
    error = (0, 0.0, 0.0) if shares is None else (shares[0].probes, shares[0].criterion, max(shares[1:]))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    sds = tuple(float(v) for v in fit.sigma * np.append(fit.theta, 1.0))
    return Measured(seconds, processor, before, len(fit.path), memory, frame, *error, sds)


HEADER = """# Large designs

`rating ~ 1 + (1 | user) + (1 | film)`, REML, whole fits from a frame in memory, simulated with standard deviations 0.45, 0.5 and 0.9.
Memory is the peak of the process, the frame included. The error is that of the criterion, the share the largest Monte Carlo error of any
estimate in its standard error. To make it again: `make bench-scale`.

{machine} Other work shared it while this was measured: seconds by the clock are upper bounds.

| design | seconds | of the processor | before the search | evaluations | memory (GB) | probes | error | share | sds |
|---|---|---|---|---|---|---|---|---|---|
{rows}

The third design is of the size of MovieLens 25M, whose model has a dense block of more than 20 GB in MixedModels.jl (Bates, Alday and
Kokandakar 2025, arXiv 2505.11674).
"""


def page(found: dict[str, Measured]) -> str:
    """SCALE.md."""
    return HEADER.format(machine=machine(1), rows="\n".join(row(DESIGNS[name], own) for name, own in found.items()))


def row(design: CrossedDesign, own: Measured) -> str:
    """A line of the table."""
    cells = (
        design.title,
        f"{own.seconds:.1f}",
        f"{own.processor:.1f}",
        f"{own.before:.1f}",
        str(own.evaluations),
        f"{own.memory:.2f}",
        str(own.probes),
        f"{own.criterion_error:.2g}",
        f"{100 * own.largest_share:.2g} %",
        ", ".join(f"{v:.4f}" for v in own.sds),
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--write", action="store_true", help="write SCALE.md")
    parser.add_argument("--here", action="store_true", help="measure in this process and print JSON")
    options = parser.parse_args()
    names = options.names or list(DESIGNS)
    if options.here:
        print(json.dumps(asdict(measure(DESIGNS[names[0]]))))
        return
    found = {}
    for name in names:
        command = [sys.executable, "-m", "benchmarks.scale", name, "--here"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        own = json.loads(done.stdout.splitlines()[-1])
        found[name] = Measured(**own | {"sds": tuple(own["sds"])})
        print(DESIGNS[name].title, found[name], flush=True)
    if options.write:
        PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
