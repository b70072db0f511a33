"""Every public verb of large fits and posteriors runs in four gigabytes of address space."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 4 * 2**30
CODE = """
import resource, sys, warnings
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
from benchmarks import verbs as benchmark
from benchmarks.verbs import DESIGNS, Session, verbs
benchmark.DRAWS = {draws}
session, lost = Session({letter!r}, {size}), []
for verb in verbs():
    if "Plots" in verb.of or verb.name in {repeated}:
        continue
    answer = session.measure(verb)
    if answer.get("error", "").startswith("MemoryError"):
        lost.append(f"{{verb.of}}.{{verb.name}}: {{answer['error']}}")
print("lost", lost)
"""
DRAWS = 1000
"""Draws of all parameters and effects: 4,000 of 40,000 nested effects alone are more than the limit holds, and are refused by name."""

REPEATED = ("bootstrap", "check_inference", "power", "profile", "report", "kfold", "loo", "loo by g", "influence g")
"""What fits, draws or leaves out again and again takes the memory of one time, and minutes."""


@pytest.mark.slow
@pytest.mark.parametrize("letter", list("ABCDE"))
def test_no_verb_needs_more_than_four_gigabytes(letter: str) -> None:
    code = CODE.format(limit=LIMIT, letter=letter, size=100_000, repeated=REPEATED, draws=DRAWS)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip().endswith("lost []"), (done.stdout + done.stderr)[-2000:]
