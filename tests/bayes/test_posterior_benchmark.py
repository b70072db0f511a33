"""The benchmark of posteriors: its lines, its table, its limit of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.posterior import Result, append, latest, page, read, run
from benchmarks.posterior_worker import formula, judged, least_ess


def line(sampler: str, when: int, part: str, **more: Any) -> dict[str, Any]:
    return {"set": "sleepstudy", "sampler": sampler, "machine": "Machine.", "when": when, "part": part, **more}


def measured(sampler: str, when: int, cold: float, warm: tuple[float, ...]) -> list[dict[str, Any]]:
    first = line(sampler, when, "cold", seconds=cold, ess=400.0, divergences=0, versions={"numpy": "2"})
    return [first, *(line(sampler, when, "warm", seconds=seconds, ess=400.0, divergences=2) for seconds in warm)]


def test_the_last_run_of_a_pair_counts_and_rates_are_medians(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append(path, measured("collapsed", 1, 9.0, (9.0,)))
    append(path, measured("bambi pymc", 1, 40.0, (8.0,)))
    append(path, measured("collapsed", 2, 4.0, (0.1, 0.2, 7.0)))
    found = latest(read(path))
    ours = Result(found["sleepstudy", "collapsed"])
    assert (ours.cold_rate, ours.warm_rate) == (100.0, 2000.0)
    text = page(read(path))
    assert "| collapsed | 4.0 | 100 |  | 0.2 | 400 | 2e+03 |  | 2 |" in text
    assert "| bambi pymc | 40.0 | 10 | 10 | 8 | 400 | 50 | 40 | 2 |" in text
    assert "Bambi: `Reaction ~ Days + (Days || Subject)`" in text


def test_what_was_not_reached_is_said() -> None:
    never = page([*measured("collapsed", 1, 4.0, (0.1,)), line("bambi pymc", 1, "end", why="> 150 s")])
    assert "| bambi pymc | > 150 s |  |  |  |  |  |  |  |" in never
    half = page([*measured("collapsed", 1, 4.0, (0.1,)), *measured("bambi pymc", 1, 40.0, ()), line("bambi pymc", 1, "end", why="> 150 s")])
    assert "| bambi pymc | 40.0 | 10 | 10 | > 150 s |  |  |  | 0 |" in half


def test_a_process_is_ended_at_its_limit() -> None:
    found = run("Dyestuff", "collapsed", 0.05)
    assert [(one["part"], one["why"]) for one in found] == [("end", "> 0 s")]


def test_a_failure_is_told_by_its_last_line() -> None:
    found = run("nothing", "collapsed", 60.0)
    assert found[-1]["part"] == "end"
    assert "nothing" in found[-1]["why"]


def test_every_kind_of_scalar_is_judged() -> None:
    rng = np.random.default_rng(1)
    free = rng.standard_normal((4, 500, 2, 2))
    draws = {
        "alpha": free[..., 0],
        "corr_g": free @ free.swapaxes(-1, -2),
        "beta_g": rng.standard_normal((4, 500, 40, 2)),
        "lp": free,
    }
    found = judged(draws)
    assert {name: values.shape[2:] for name, values in found.items()} == {"alpha": (2,), "corr_g": (1,), "beta_g": (6, 2)}
    slow = np.repeat(rng.standard_normal((4, 50)), 10, axis=1)
    assert least_ess({"alpha": slow}) < 400 < 1500 < least_ess({"alpha": draws["alpha"]})
    assert formula("sleepstudy", "collapsed") == "Reaction ~ Days + (Days | Subject)"
