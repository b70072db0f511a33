"""Whole fits, data frame to estimates, warm: medians of interleaved rounds, ratios against every library present.

usage: python -m benchmarks.run [--small] [--problem NAME ...] [--peer NAME ...] [--rounds 5] [--out benchmarks/RESULTS.md]
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.problems import PROBLEMS, SMALL, Problem
from benchmarks.process import HERE, TookTooLongError, Worker
from benchmarks.report import machine, write

ENOUGH_SECONDS = 60.0  # of one library on one problem: a slow one gets fewer rounds, never fewer than one
ROUND_SECONDS = 0.5  # of repeated small fits within a round


@dataclass(slots=True)
class Measured:
    """What one library did on one problem."""

    peer: str
    version: str = ""
    seconds: list[float] = field(default_factory=list)
    criterion: float = float("nan")
    best: float = float("nan")
    evaluations: int | None = None
    peak: int | None = None
    frame: int = 0
    rows: int = 0
    failed: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def command(peer: str, problem: Problem, folder: Path) -> list[str]:
    if peer != "lme4":
        return [sys.executable, "-m", "benchmarks.worker", peer, problem.name]
    table = folder / f"{problem.name}.csv"
    if not table.exists():
        problem.frame().to_csv(table, index=False)
    return ["Rscript", str(HERE / "worker.R"), str(table), problem.formula, problem.method, ",".join(problem.factors)]


def peers_present(asked: list[str]) -> list[str]:
    """Those asked for that are here, ours first."""
    r = shutil.which("Rscript")
    if r and subprocess.run([r, "-e", "library(lme4)"], capture_output=True, check=False).returncode == 0:
        names = [*PEERS, "lme4"]
    else:
        names = list(PEERS)
    return [name for name in names if not asked or name in asked]


def measure(problem: Problem, peers: list[str], options: argparse.Namespace, folder: Path) -> list[Measured]:
    """Start all, then round by round each in turn, so that what else the machine does falls on all alike."""
    results = {peer: Measured(peer) for peer in peers}
    workers: dict[str, Worker] = {}
    for peer, result in results.items():
        worker = Worker(command(peer, problem, folder), limit=options.limit, threads=options.threads)
        hello = attempt(worker.read, result)
        if hello:
            workers[peer] = worker
            result.version, result.frame, result.rows = hello["version"], hello["frame"], hello["rows"]
    for peer, worker in list(workers.items()):  # the first fit is warm-up, and tells how many fit in a round
        first = attempt(lambda worker=worker: worker.ask(do="fit", repeat=1), results[peer])
        if not first:
            del workers[peer]
            continue
        note(results[peer], first)
    for _ in range(options.rounds):
        for peer, worker in workers.items():
            one_round(worker, results[peer])
    for peer, worker in workers.items():
        memory = attempt(lambda worker=worker: worker.ask(do="memory"), results[peer])
        results[peer].peak = memory.get("peak") if memory else None
    find_optima(problem, results, workers)
    for worker in workers.values():
        worker.close()
    return list(results.values())


def one_round(worker: Worker, result: Measured) -> None:
    if result.failed or (result.seconds and sum(result.seconds) > ENOUGH_SECONDS):
        return
    typical = result.median
    repeat = max(1, min(50, int(ROUND_SECONDS / max(typical, 1e-4))))
    answer = attempt(lambda: worker.ask(do="fit", repeat=repeat), result)
    if answer:
        note(result, answer)


def note(result: Measured, answer: dict[str, Any]) -> None:
    result.seconds += answer["seconds"]
    result.criterion, result.evaluations = answer["criterion"], answer["evaluations"]


def attempt(call: Any, result: Measured) -> dict[str, Any] | None:
    """The answer, or None with the reason noted."""
    try:
        answer: dict[str, Any] = call()
    except TookTooLongError as late:
        result.failed = str(late)
        return None
    if "error" in answer:
        result.failed = answer["error"]
        return None
    return answer


def find_optima(problem: Problem, results: dict[str, Measured], workers: dict[str, Worker]) -> None:
    """The best criterion known of the model that each library really fitted."""
    fitted = {peer: PEERS[peer].model(problem) if peer in PEERS else (problem.formula, problem.method) for peer in results}
    for peer, result in results.items():
        same = [other.criterion for name, other in results.items() if fitted[name] == fitted[peer] and other.criterion == other.criterion]
        formula, method = fitted[peer]
        if "bayeslmm" in workers and fitted[peer] != fitted["bayeslmm"]:
            ours = attempt(lambda f=formula, m=method: workers["bayeslmm"].ask(do="criterion", formula=f, method=m), Measured("bayeslmm"))
            same += [ours["criterion"]] if ours else []
        result.best = min(same, default=float("nan"))


def also(part: str) -> str:
    """The section that another part of the benchmark prints; in a process of its own, as the fits are."""
    done = subprocess.run([sys.executable, "-m", part], capture_output=True, text=True, check=False, cwd=HERE.parent)
    return done.stdout if done.returncode == 0 else f"\n{part} failed: {done.stderr.splitlines()[-1] if done.stderr else done.returncode}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="the small sets alone")
    parser.add_argument("--problem", action="append", choices=list(PROBLEMS), default=[])
    parser.add_argument("--peer", action="append", choices=[*PEERS, "lme4"], default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one answer of one library")
    parser.add_argument("--threads", type=int, default=1, help="of BLAS, OpenMP and Rayon")
    parser.add_argument("--out", type=Path, default=None, help="where to write the table as Markdown")
    parser.add_argument("--remark", default="", help="what else ran meanwhile, for the table")
    options = parser.parse_args()
    names = options.problem or (SMALL if options.small else list(PROBLEMS))
    peers = peers_present(options.peer)
    tables = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in names:
            print(f"{name}: {PROBLEMS[name].formula}", flush=True)
            tables[name] = measure(PROBLEMS[name], peers, options, folder)
            for result in tables[name]:
                shown = result.failed or f"{result.median * 1e3:12.2f} ms  criterion {result.criterion:.6f}"
                print(f"  {result.peer:<12} {shown}", flush=True)
    text = write(tables, f"{machine(options.threads)} {options.remark}".strip(), rounds=options.rounds)
    if not options.peer and not options.problem:
        text += "".join(also(part) for part in ("benchmarks.rows", "benchmarks.startup"))
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
