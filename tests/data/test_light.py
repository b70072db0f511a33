"""Plain columns cost no import and no memory that they do not need."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd

from tests.data.designs import build

PROGRAM = """
import sys
from tests.data.designs import build, days
build("y ~ x * arm + log(day + 1) + (x | g) + (1 | g:h)", days()).encoding.encode_fixed(days())
print([name for name in ("formulaic", "narwhals", "polars", "pymc", "matplotlib") if name in sys.modules])
"""


def test_pandas_columns_and_expressions_import_neither_formulaic_nor_narwhals() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_memory_beside_the_frame_stays_a_few_times_its_size() -> None:
    rows = 200_000
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"y": rng.normal(size=rows), "x": rng.normal(size=rows), "g": rng.integers(0, 20_000, rows)})
    size = int(data.memory_usage().sum())
    build("y ~ x + (x | g)", data)
    tracemalloc.start()
    design = build("y ~ x + (x | g)", data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert design.groups == {"g": 20_000}
    assert design.terms[0].Z is design.X
    assert peak < 4 * size
