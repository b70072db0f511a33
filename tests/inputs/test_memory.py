"""Sizes that grow with a product are said before they are asked for: in a process with little memory, a SizeError and no MemoryError."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from bayeslmm._validation import PLACES, free_bytes, require_memory
from bayeslmm.errors import SizeError
from tests.inputs.frames import fit

PROGRAM = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
import numpy as np, pandas as pd
import bayeslmm as blm
from bayeslmm.errors import SizeError

rng = np.random.default_rng(3)
g = np.repeat(np.arange(12), 8)
data = pd.DataFrame({"y": rng.normal(size=96) + rng.normal(size=12)[g], "x": rng.normal(size=96), "g": [f"s{i}" for i in g]})
model = blm.LMM("y ~ x + (1 | g)", data, priors=blm.Priors(alpha="normal"))
fit = model.fit()
many = blm.LMM("y ~ 1 + (1 | g)", pd.DataFrame({"y": rng.normal(size=30100), "g": ["a"] * 30000 + [f"s{i}" for i in range(20)] * 5})).fit()


wide = pd.DataFrame({"y": rng.normal(size=20000), "x": rng.normal(size=20000), "g": [*"ab"] * 10000, "L": np.arange(20000) % 10000})
BARS = ["(0 + C(L) | g)", "(C(L) || g)", "diag(C(L) | g)", "un(C(L) | g, 2)", "id(0 + C(L) | g)", "cs(0 + C(L) | g)"]


def means(m):
    return fit.emmeans("x", at={"x": np.linspace(0, 1, m)})


QUESTIONS = {
    "pairs": lambda: means(10_000).pairs(adjust="none"),
    "holm": lambda: means(10_000).pairs(adjust="holm"),
    "mvt": lambda: means(30_000).contrast("consec"),
    "effects": lambda: means(50_000).contrast("effect"),
    "prior_predictive": lambda: model.prior_predictive(10**9),
    "chains": lambda: model.sample(draws=1, chains=10**9),
    "draws": lambda: model.sample(draws=10**9),
    "calibrate": lambda: model.calibrate(draws=10**9),
    "replications": lambda: model.calibrate(n=10**9),
    "bootstrap": lambda: fit.bootstrap(10**9),
    "power": lambda: fit.power("x", nsim=10**9),
    "check_inference": lambda: fit.check_inference(n=10**9),
    "simulate": lambda: fit.simulate(10**9),
    "marginal_cov": lambda: many.marginal_cov("a"),
    "fixed levels": lambda: blm.LMM("y ~ C(L) + (1 | g)", wide),
    **{bar: lambda bar=bar: blm.LMM(f"y ~ x + {bar}", wide) for bar in BARS},
}
for name, question in QUESTIONS.items():
    try:
        question()
        print(name, "given")
    except SizeError as error:
        assert ("GB" in error.what or "numbers" in error.what) and error.remedy, error
    except BaseException as error:
        print(name, type(error).__name__, error)
assert len(means(100_000).frame) == 100_000
assert len(means(400).pairs(adjust="holm")) == 79_800
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space")
def test_what_does_not_fit_is_refused_by_its_size() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split("\n")[-2:] == ["done", ""], done.stdout + done.stderr
    assert done.stdout == "done\n"


def test_a_size_is_told_with_its_factors() -> None:
    with pytest.raises(SizeError, match=r"12 things would take .* GB, and .* are free") as caught:
        require_memory("draws", 1e15, "12 things", "ask for fewer")
    assert caught.value.where == f"draws: {PLACES['draws']}"
    assert caught.value.remedy == "ask for fewer"
    assert 0 < free_bytes() < 1e15
    require_memory("draws", 1e3, "little", "no matter")


@pytest.mark.parametrize("adjust", ["none", "holm", "tukey", "mvt"])
def test_pairs_are_the_differences_of_all_means(adjust: str) -> None:
    means = fit("y ~ x + visit + (1 | g)").emmeans("visit")
    table, m = means.pairs(adjust=adjust), means.frame["estimate"].to_numpy()
    i, j = np.triu_indices(len(m), 1)
    np.testing.assert_allclose(table["estimate"], m[i] - m[j], rtol=1e-10, atol=1e-12)
    assert table["contrast"].tolist() == [f"V{a + 1} - V{b + 1}" for a, b in zip(i, j, strict=True)]
