"""Laws of prediction, of files and of seeds over random designs: the same rows, the same bits, the same draws (laws 13 to 15)."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

import bayeslmm as blm
from bayeslmm.errors import BayesLMMWarning
from bayeslmm.formula.parse import formula_text, parse_formula
from tests.generated import examples

FIXED = ("1", "x", "x * f", "poly(x, 2)", "0 + f", "scale(x) + f", "log(w) + C(f, sum)", "I(x**2) + x:f")
RANDOM = ("(1 | g)", "(x | g)", "(x || g)", "(1 | g) + (1 | h)", "(0 + f | g)", "cs(0 + f | g)", "(1 | g:h)", "")
ERRORS = (None, "cs(visit | g:h)", "ar1(visit | g:h)")


@st.composite
def models(draw: st.DrawFn, errors: tuple[str | None, ...] = (None,)) -> blm.LMM:
    """A model over random rows: two grouping factors, two covariates, a factor, a visit, in any order of rows."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups, per = draw(st.integers(6, 12)), draw(st.integers(8, 12))
    n = groups * per
    data = pd.DataFrame(
        {
            "g": np.repeat([f"g{i}" for i in range(groups)], per),
            "h": np.tile([f"h{i}" for i in range(4)], n)[:n],
            "x": rng.normal(size=n),
            "w": rng.uniform(0.5, 2.0, n),
            "f": rng.choice(["a", "b"], n),
        }
    )
    data["visit"] = data.groupby(["g", "h"]).cumcount()
    level = dict(zip(data["g"].unique(), rng.normal(size=groups), strict=True))
    data["y"] = 1 + data["x"] + data["g"].map(level) + rng.normal(size=n)
    data = data.sample(frac=1.0, random_state=draw(st.integers(0, 99)))
    formula = f"y ~ {draw(st.sampled_from(FIXED))}" + "".join(f" + {t}" for t in [draw(st.sampled_from(RANDOM))] if t)
    residual = draw(st.sampled_from(errors))
    weights = draw(st.sampled_from([None, "w"]))
    return blm.LMM(formula, data, residual=residual, weights=weights, check="warn")


def fitted(model: blm.LMM) -> blm.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLMMWarning)
        return model.fit()


@given(models(), st.randoms(use_true_random=False))
@examples(20)
def test_any_rows_of_the_data_are_predicted_as_they_were_fitted(model: blm.LMM, random: Any) -> None:
    fit, data = fitted(model), model.design.frame
    size = 1e-9 * (1 + np.abs(fit.fitted()).max())
    rows = random.choices(range(len(data)), k=random.randint(1, 2 * len(data)))
    for level in ("conditional", "population"):
        own = fit.fitted(level).to_numpy()
        np.testing.assert_allclose(fit.predict(level=level)["estimate"], own, rtol=0, atol=size)
        some = fit.predict(data.iloc[rows].assign(unused="z", another=1), level=level)
        np.testing.assert_allclose(some["estimate"], own[rows], rtol=0, atol=size)
        assert some.index.equals(data.index[rows])


@given(models(ERRORS), st.randoms(use_true_random=False))
@examples(20)
def test_intervals_of_a_row_do_not_depend_on_the_rows_beside_it(model: blm.LMM, random: Any) -> None:
    fit, data = fitted(model), model.design.frame
    row = random.randrange(len(data))
    for interval in ("confidence", "prediction"):
        alone = fit.predict(data.iloc[[row]], interval=interval).to_numpy()
        among = fit.predict(data, interval=interval).to_numpy()[[row]]
        np.testing.assert_allclose(alone, among, rtol=1e-7, atol=1e-9)


@given(models())
@examples(20)
def test_levels_that_no_row_has_change_no_prediction(model: blm.LMM) -> None:
    fit, data = fitted(model), model.design.frame
    wide = data.copy()
    for name in {"f", "g", "h"} & set(data.columns):
        wide[name] = pd.Categorical(data[name], ["never", *sorted(data[name].unique(), reverse=True)])
    pd.testing.assert_frame_equal(fit.predict(wide), fit.predict(data))


@given(models(ERRORS))
@examples(15)
def test_a_saved_fit_opens_equal_to_the_bit(model: blm.LMM) -> None:
    fit = fitted(model)
    with tempfile.TemporaryDirectory() as folder:
        fit.save(Path(folder) / "fit")
        again = blm.load(Path(folder) / "fit")
    assert again.criterion == fit.criterion
    assert again.fixef.equals(fit.fixef)
    assert again.vcov.equals(fit.vcov)
    assert again.theta.tolist() == fit.theta.tolist()
    assert again.fitted().tolist() == fit.fitted().tolist()
    assert again.simulate(1, seed=1).equals(fit.simulate(1, seed=1))
    assert dict(again.checks) == dict(fit.checks)


@given(models(ERRORS))
@examples(25)
def test_a_spec_and_a_formula_are_read_back_from_their_texts(model: blm.LMM) -> None:
    formula = model.spec.formula
    again = parse_formula(formula_text(formula))
    assert (again.response, again.fixed, again.random, again.offsets) == (formula.response, formula.fixed, formula.random, formula.offsets)
    with tempfile.TemporaryDirectory() as folder:
        model.write(Path(folder) / "model.toml")
        assert blm.read_model(Path(folder) / "model.toml", model.design.frame).spec == model.spec


@given(models(ERRORS), st.integers(0, 2**32 - 1))
@examples(15)
def test_a_seed_gives_the_same_draws_however_many_are_asked_for(model: blm.LMM, seed: int) -> None:
    fit = fitted(model)
    three = fit.simulate(3, seed=seed)
    assert three.equals(fit.simulate(3, seed=seed))
    assert three.iloc[:, :2].equals(fit.simulate(2, seed=seed))
    assert not three["sim_1"].equals(three["sim_2"])


def test_a_seed_gives_the_same_bootstrap() -> None:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": np.repeat(list("abcdefgh"), 5), "x": rng.normal(size=40)})
    data["y"] = data["x"] + np.repeat(rng.normal(size=8), 5) + rng.normal(size=40)
    fit = blm.LMM("y ~ x + (1 | g)", data).fit()
    one, other = (fit.confint("bootstrap", n=8, seed=3) for _ in range(2))
    assert one.equals(other)
    assert not one.equals(fit.confint("bootstrap", n=8, seed=4))
