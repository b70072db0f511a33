"""One library in a process of its own: reads a request a line on standard input, answers a line of JSON.

usage: python -m benchmarks.worker PEER PROBLEM
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from typing import Any

from benchmarks.memory import peak_over
from benchmarks.peers import PEERS, CannotExpressError, Fit, Outcome
from benchmarks.problems import PROBLEMS, Problem


def timed(fit: Fit, repeat: int) -> dict[str, Any]:
    seconds: list[float] = []
    outcome = Outcome(float("nan"))
    for _ in range(repeat):
        start = time.perf_counter()
        outcome = fit()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "criterion": outcome.criterion, "evaluations": outcome.evaluations}


def answer(request: dict[str, Any], problem: Problem, fit: Fit, frame: Any) -> dict[str, Any]:
    if request["do"] == "fit":
        return timed(fit, request["repeat"])
    if request["do"] == "memory":
        _, peak = peak_over(fit)
        return {"peak": peak}
    # the optimum of a model that only a peer fits, by us
    model = dataclasses.replace(problem, formula=request["formula"], method=request["method"])
    return {"criterion": PEERS["bayeslmm"].prepare(model, frame)().criterion}


def main() -> None:
    peer, problem = PEERS[sys.argv[1]], PROBLEMS[sys.argv[2]]
    # Libraries write notices to standard output: keep the line of answers apart from them.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        frame = problem.frame()
        fit = peer.prepare(problem, frame)
    except (CannotExpressError, ImportError) as error:
        out.write(json.dumps({"error": f"{error}"}) + "\n")
        return
    size = int(frame.memory_usage(deep=True).sum())
    out.write(json.dumps({"ready": True, "version": peer.version(), "frame": size, "rows": len(frame)}) + "\n")
    if len(frame) > 10_000:
        warm = PROBLEMS["sleepstudy"]  # imports and caches are not what is measured
        peer.prepare(warm, warm.frame())()
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line), problem, fit, frame)
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]}
        out.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
