"""What a fresh process pays: the import and the first fit, beside the imports that every such library needs (medians, interleaved).

usage: python -m benchmarks.startup [ROUNDS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

FIRST_FIT = """
import pandas as pd, bayeslmm as blm
data = pd.DataFrame({"y": [1.0, 2.0, 3.5, 2.0, 4.0, 5.5, 0.5, 2.5, 3.0, 1.5, 2.0, 4.5], "x": [0, 1, 2] * 4, "g": list("aaabbbcccddd")})
blm.LMM("y ~ x + (1 | g)", data).fit()
"""
PROGRAMS = {
    "python alone": "pass",
    "import numpy": "import numpy",
    "import bayeslmm": "import bayeslmm",
    "import pandas, formulaic, scipy.sparse, scipy.linalg": "import pandas, formulaic, scipy.sparse, scipy.linalg",
    "first fit, imports included": FIRST_FIT,
}


def seconds(program: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - start


def measure(rounds: int) -> dict[str, float]:
    """Seconds of each program in a process of its own, the start of Python included."""
    taken: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for program in PROGRAMS.values():  # compiled files and the disk cache
        seconds(program)
    for _ in range(rounds):
        for name, program in PROGRAMS.items():
            taken[name].append(seconds(program))
    return {name: statistics.median(values) for name, values in taken.items()}


def section(taken: dict[str, float]) -> str:
    """The measurements as a table of Markdown."""
    lines = [f"| {name} | {value * 1e3:.0f} ms |\n" for name, value in taken.items()]
    return "\n## A fresh process\n\n| program | time |\n|---|---:|\n" + "".join(lines)


if __name__ == "__main__":
    print(section(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 7)))
