"""A kernel of Jupyter that is interrupted in a cell: the cell ends, and those after it find everything as before."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

BEGIN = """
import numpy as np, bayeslmm as blm, matplotlib.pyplot as plt
from threadpoolctl import threadpool_info
model = blm.LMM("Reaction ~ Days + (Days | Subject)", blm.load_dataset("sleepstudy"))
fit = model.fit()
def state():
    return np.geterr(), [one["num_threads"] for one in threadpool_info()], plt.get_fignums()
model.fit().anova(), fit.plot.residuals(), plt.close("all")
before = state()
"""

CELLS = {
    "profile": "while True: fit.confint('profile')",
    "bootstrap": "found = fit.bootstrap(10**6, seed=1)",
    "sample": "while not (found := model.sample(draws=2000, seed=1)).interrupted: pass",
    "influence": "while True: fit.influence('Subject')",
    "figures": "while True: fit.plot(); plt.close('all')",
}

AFTER = """
assert state() == before, (state(), before)
assert model.fit().criterion == fit.criterion
print("marked" if "found" in globals() and found.interrupted else "unmarked")
"""


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_interrupted(name: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in (BEGIN, CELLS[name], AFTER)])
    client = nbclient.NotebookClient(notebook, timeout=40, kernel_name="python3", allow_errors=True)

    def press(cell: Any, cell_index: int) -> None:
        if cell_index == 1:
            threading.Timer(1.5, lambda: client.km.provisioner.process.send_signal(signal.SIGINT)).start()

    client.on_cell_execute = press
    client.execute()
    begun, broken, after = notebook.cells
    assert not [one for one in begun.outputs if one.output_type == "error"], begun.outputs
    errors = [one.ename for one in broken.outputs if one.output_type == "error"]
    told = [one.text for one in after.outputs if one.output_type == "stream" and one.name == "stdout"]
    assert (errors, told) in ((["KeyboardInterrupt"], ["unmarked\n"]), ([], ["marked\n"])), after.outputs
