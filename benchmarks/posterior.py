"""Effective draws a second: the collapsed posterior against the hierarchical graph and Bambi's model, by nutpie and by PyMC.

usage: python -m benchmarks.posterior [--set NAME ...] [--sampler NAME ...] [--limit 120] [--budget 25] [--again]
       [--lines benchmarks/posterior.jsonl] [--out benchmarks/POSTERIOR.md]

Every pair of set and sampler runs in a process of its own, ended with its children at the limit (seconds). What it measured until then is
appended to the file of lines at once, so nothing is lost when a run is stopped, and the next call goes on with the pairs that are missing;
`--again` measures all of them anew. No pair is begun once the budget (minutes) is spent. The table is written from all lines there are.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.posterior_worker import SAMPLERS, SETS, formula
from benchmarks.report import machine

HERE = Path(__file__).resolve().parent
Line = dict[str, Any]

FIRST = ("collapsed", "collapsed, tree", "bambi pymc", "hierarchical nutpie", "bambi nutpie", "hierarchical pymc")
"""Samplers in the order in which they are run over all sets: what the budget leaves out is of the last ones."""

HEADER = """# Posteriors

Effective draws a second, 4 chains of 1000 draws after 1000 of warm-up (importance sampling has none), the same data and the same priors:
the smallest bulk or tail effective sample size over alpha, sds, correlations, sigma and six random effects of every grouping factor, over
the seconds.

- *cold*: a process of its own from its start: imports, data, compilation, first run.
- *warm*: later runs in the same process, sampling alone; the median where a run is short.
- *collapsed*: random effects and alpha integrated out, then drawn exactly; one thread, its draws as arrays by name. *collapsed, tree*: with
  the ArviZ tree of them, pointwise log likelihoods included, whose first one waits for the import of xarray.
- *hierarchical*: our graph with every random effect a variable. *bambi*: `model.to_bambi()`, Bambi's own graph; it has no correlation
  of random effects and fits them as independent. Both run their chains on all cores.
- *ratio*: how many times more effective draws a second the collapsed posterior gives.
- A process that is not done within its limit was ended: ">" and the limit.

To make it again: `make posteriors`, or `python -m benchmarks.posterior --again`; without `--again` what is missing is measured.

"""


def run(name: str, sampler: str, limit: float, remark: str = "") -> list[Line]:
    """What a process measured until its end or the limit, line by line; its last line tells why it ended early."""
    command = [sys.executable, "-m", "benchmarks.posterior_worker", name, sampler, repr(time.time())]
    numbers = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE.parent,
        env=os.environ | numbers,
        start_new_session=True,
    )
    try:
        said, complaint = process.communicate(timeout=limit)
        failed = "" if process.returncode == 0 else (complaint.strip().splitlines() or ["no reason given"])[-1][:100]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        failed = f"> {limit:.0f} s"
    found: list[Line] = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    if failed:
        found.append({"part": "end", "why": failed})
    where = f"{machine(1)} {remark}".strip()
    return [{"set": name, "sampler": sampler, "machine": where, "when": round(time.time()), **line} for line in found]


def read(path: Path) -> list[Line]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def append(path: Path, lines: list[Line]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def latest(lines: list[Line]) -> dict[tuple[str, str], list[Line]]:
    """The lines of the last run of every pair."""
    last = {(line["set"], line["sampler"]): line["when"] for line in lines}
    found: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        pair = (line["set"], line["sampler"])
        if line["when"] == last[pair]:
            found.setdefault(pair, []).append(line)
    return found


class Result:
    """The lines of a pair put together; rates are NaN where nothing was measured."""

    def __init__(self, lines: list[Line]) -> None:
        by_part = {part: [line for line in lines if line["part"] == part] for part in ("cold", "warm", "end")}
        self.cold, self.warm = by_part["cold"], by_part["warm"]
        self.why = by_part["end"][-1]["why"] if by_part["end"] else ""
        self.cold_rate = self.cold[0]["ess"] / self.cold[0]["seconds"] if self.cold else float("nan")
        self.warm_rate = median(line["ess"] / line["seconds"] for line in self.warm) if self.warm else float("nan")

    def cells(self, ours: Result | None) -> list[str]:
        """Cold: seconds, rate, ratio; warm: seconds, effective draws, rate, ratio; divergences."""
        cold = [f"{self.cold[0]['seconds']:.1f}", f"{self.cold_rate:.3g}"] if self.cold else [self.why, ""]
        warm = [self.why if self.cold else "", "", ""]
        if self.warm:
            seconds, ess = median(line["seconds"] for line in self.warm), median(line["ess"] for line in self.warm)
            warm = [f"{seconds:.3g}", f"{ess:.0f}", f"{self.warm_rate:.3g}"]
        own = self.warm or self.cold
        divergences = f"{median(line['divergences'] for line in own):.0f}" if own else ""
        return [*cold, ratio(ours, self, "cold_rate"), *warm, ratio(ours, self, "warm_rate"), divergences]


def ratio(ours: Result | None, other: Result, which: str) -> str:
    if ours is None or ours is other:
        return ""
    value = getattr(ours, which) / getattr(other, which)
    return "" if value != value else f"{value:.3g}"


def table(name: str, found: dict[str, Result]) -> str:
    """Markdown of one set."""
    head = "| sampler | cold s | ESS/s | ratio | warm s | ESS | ESS/s | ratio | divergences |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    rows = [f"| {sampler} | " + " | ".join(result.cells(found.get("collapsed"))) + " |" for sampler, result in found.items()]
    other = formula(name, "bambi")
    differs = "" if other == SETS[name][1] else f"; Bambi: `{other}`"
    return "\n".join([f"## {name}", "", f"`{SETS[name][1]}`{differs}", "", head, *rows, ""])


def page(lines: list[Line]) -> str:
    """The whole page from all lines."""
    pairs, parts = latest(lines), [HEADER]
    machines = {line["machine"] for own in pairs.values() for line in own}
    packages: dict[str, str] = {}
    for own in pairs.values():
        for line in own:
            packages |= line.get("versions", {})
    parts += ["\n".join(sorted(machines)), "\n", ", ".join(f"{name} {number}" for name, number in packages.items()), ".\n\n"]
    for name in SETS:
        found = {sampler: Result(pairs[name, sampler]) for sampler in SAMPLERS if (name, sampler) in pairs}
        if found:
            parts.append(table(name, found) + "\n")
    return "".join(parts).rstrip() + "\n"


def main() -> None:
    """Measure what is asked for and missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", choices=list(SETS), dest="sets")
    parser.add_argument("--sampler", action="append", choices=SAMPLERS, dest="samplers")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of one process")
    parser.add_argument("--budget", type=float, default=25.0, help="minutes after which no process is begun")
    parser.add_argument("--again", action="store_true", help="measure anew what was measured")
    parser.add_argument("--lines", type=Path, default=HERE / "posterior.jsonl")
    parser.add_argument("--out", type=Path, default=HERE / "POSTERIOR.md")
    parser.add_argument("--remark", default="", help="what else ran meanwhile, kept with the lines that are measured")
    asked = parser.parse_args()
    begin, known = time.monotonic(), set() if asked.again else set(latest(read(asked.lines)))
    wanted = [(name, sampler) for sampler in asked.samplers or FIRST for name in asked.sets or SETS]
    for name, sampler in wanted:
        if (name, sampler) in known:
            continue
        if time.monotonic() - begin > 60.0 * asked.budget:
            print(f"{name}, {sampler}: left for the next call", flush=True)
            continue
        lines = run(name, sampler, asked.limit, asked.remark)
        append(asked.lines, lines)
        asked.out.write_text(page(read(asked.lines)), encoding="utf-8")
        print(f"{name}, {sampler}:", " | ".join(Result(lines).cells(None)), f"({time.monotonic() - begin:.0f} s so far)", flush=True)
    asked.out.write_text(page(read(asked.lines)), encoding="utf-8")


if __name__ == "__main__":
    main()
