"""Which covariance parameters a design identifies: D, R and the variance function together, by the rank of the derivatives of V."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMWarning, IdentifiabilityError

ABE = "proc mixed; class SEQ SUBJ PER TRT; model Y=SEQ PER TRT/ddfm=satterth; random TRT/type={} sub=SUBJ; repeated/grp=TRT sub=SUBJ; run;"


def crossover(sequences: tuple[str, ...], per: int, seed: int) -> pd.DataFrame:
    """A bioequivalence trial: `per` subjects of each sequence of treatments T and R."""
    rng = np.random.default_rng(seed)
    rows = [(f"{s}{i}", s, p, t) for s in sequences for i in range(per) for p, t in enumerate(s)]
    frame = pd.DataFrame(rows, columns=["SUBJ", "SEQ", "PER", "TRT"])
    subject = frame["SUBJ"].astype("category").cat.codes.to_numpy()
    b = rng.normal(size=(len(sequences) * per, 2)) @ np.array([[0.5, 0.4], [0.0, 0.3]])
    frame["Y"] = b[subject, (frame["TRT"] == "T").astype(int)] + rng.normal(size=len(frame)) * 0.3
    return frame


def note(frame: pd.DataFrame, formula: str, **arguments: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLMMWarning)
        fit = blm.LMM(formula, frame, check="warn", **arguments).fit()
    return str(fit.checks["repeated_parameters"].value) if "repeated_parameters" in fit.checks else ""


@pytest.mark.parametrize("structure", ["us", pytest.param("csh", marks=pytest.mark.slow), "diag"])
@pytest.mark.parametrize(
    ("sequences", "lone"),
    [
        (("TRR", "RTR", "RRT"), "T"),
        pytest.param(("RTT", "TRT", "TTR"), "R", marks=pytest.mark.slow),
        (("TRTR", "RTRT"), ""),
        (("TRT", "RTR"), ""),
    ],
)
def test_a_treatment_that_nobody_takes_twice_has_no_variance_of_its_own(structure: str, sequences: tuple[str, ...], lone: str) -> None:
    found = note(crossover(sequences, 8, 1), f"Y ~ TRT + {structure}(0 + TRT | SUBJ)", variance="ident(TRT)")
    assert bool(found) is bool(lone)
    if lone:
        assert f"sd__TRT[{lone}]|SUBJ" in found
        assert "1 of " in found
        if structure == "diag":
            assert f"sd__TRT[{'R' if lone == 'T' else 'T'}]|SUBJ" not in found


def test_the_note_reaches_the_listing_of_a_program_and_the_fixed_part_stays() -> None:
    frame = crossover(("TRR", "RTR", "RRT"), 8, 6)
    found = [blm.proc_mixed(ABE.format(kind), frame) for kind in ("fa0(2)", "csh")]
    assert all(any("cannot be told" in text for text in result.notes) for result in found)
    tests = [result["Tests3"].loc[result["Tests3"]["Effect"] == "TRT"] for result in found]
    assert tests[0]["FValue"].item() == pytest.approx(tests[1]["FValue"].item(), rel=1e-3)


@pytest.mark.parametrize("sequences", [("TR", "RT", "TT", "RR"), pytest.param(("TR", "RT", "TT"), marks=pytest.mark.slow)])
def test_columns_that_a_level_never_has_do_not_count(sequences: tuple[str, ...]) -> None:
    frame = crossover(sequences, 8, 2)
    result = blm.proc_mixed(ABE.format("csh"), frame)
    assert len(result["CovParms"]) == 5
    told = any("cannot be told" in text for text in result.notes)
    assert told is ("RR" not in sequences)


def test_as_many_effects_as_rows_are_refused_still() -> None:
    with pytest.raises(IdentifiabilityError, match="random effects"):
        blm.LMM("Y ~ TRT + (0 + TRT | SUBJ)", crossover(("TR", "RT"), 8, 2)).fit()


@pytest.mark.parametrize(
    ("formula", "arguments", "names"),
    [
        ("y ~ 1", {"residual": "csh(v | g)", "variance": "ident(v)"}, ("sd[b]", "ratio[b]")),
        ("y ~ 1", {"residual": "cs(v | g)", "variance": "ident(v)"}, ()),
        ("y ~ 1 + (1 | g)", {"residual": "cs(v | g)"}, ("sd__Intercept|g", "sd", "rho")),
        ("y ~ 1 + (1 | g)", {"residual": "ar1(v | g)"}, ()),
        ("y ~ 1 + (1 | g)", {"residual": "toep(v | g)"}, ("sd__Intercept|g",)),
        ("y ~ 1 + diag(0 + v | g)", {"variance": "ident(v)"}, ("sd__v[a]|g", "sigma")),
        ("y ~ 1 + (1 | g)", {"variance": "ident(a) * ident(a:b)"}, ("ratio(a)[q]", "ratio(a:b)[q:k]")),
        ("y ~ 1 + (1 | g)", {"variance": "exp(x) * exp(z)"}, ()),
        ("y ~ 1 + (1 | g)", {"variance": "ident(a) * exp(x)"}, ()),
        ("y ~ 1 + us(0 + v | g)", {"variance": "power(x)"}, ()),
    ],
)
def test_parts_that_repeat_one_another_are_named(formula: str, arguments: dict[str, str], names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(4)
    d = pd.DataFrame({"g": np.repeat(np.arange(60), 4), "v": pd.Categorical(np.tile(list("abcd"), 60))})
    d["x"], d["z"] = rng.uniform(0.5, 2.0, 240), rng.uniform(0.5, 2.0, 240)
    d["a"], d["b"] = rng.choice(list("pq"), 240), rng.choice(list("kl"), 240)
    d["y"] = rng.normal(size=60)[d["g"]] + rng.normal(size=(60, 4)).cumsum(1).ravel() + rng.normal(size=240)
    found = note(d, formula, **arguments)
    assert bool(found) is bool(names)
    assert all(name in found for name in names)


@pytest.mark.parametrize("inner", [2000, 300])
def test_whole_levels_of_an_inner_factor_are_looked_at(inner: int) -> None:
    rng = np.random.default_rng(0)
    c = np.repeat(np.arange(inner), 5)
    s = rng.integers(0, 20, inner)[c]
    d = pd.DataFrame({"c": c, "s": s, "t": list("abcde") * inner})
    d["y"] = rng.normal(size=inner)[c] + rng.normal(size=(20, 5))[s, np.tile(range(5), inner)] + rng.normal(size=5 * inner)
    assert note(d, "y ~ t + (t | s) + (1 | c)") == ""
    assert "cannot be told" in note(d, "y ~ t + (0 + t | s) + (1 | s)")


@pytest.mark.parametrize(
    ("formula", "arguments", "missing"),
    [
        ("y ~ x + (x | g)", {"residual": "cs(t | g)"}, 1),
        ("y ~ x + (x | g)", {"residual": "ar1(t | g)"}, 0),
        ("y ~ x + (x | g) + (0 + a | g)", {}, 1),
        ("y ~ x + (a * x | g)", {"variance": "ident(a)"}, 0),
    ],
)
def test_where_a_slope_s_covariate_starts_and_its_unit_do_not_count(formula: str, arguments: dict[str, str], missing: int) -> None:
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(14), 7)
    frame = pd.DataFrame({"g": g, "t": np.tile(np.arange(7), 14), "a": rng.choice(["p", "q"], len(g))})
    frame["x"] = np.round(256 * rng.normal(size=len(g))) / 256
    frame["y"] = frame["x"] * (1 + 0.7 * rng.normal(size=14)[g]) + rng.normal(size=14)[g] + rng.normal(size=len(g))
    moves = [(0.0, 1.0), (2.0**10, 1.0), (2.0**20, 1.0), (2.0**30, 1.0), (0.0, 2.0**36), (2.0**30, 2.0**-36)]
    found = [note(frame.assign(x=(frame["x"] + start) * unit), formula, **arguments) for start, unit in moves]
    assert found == [found[0]] * len(moves)
    assert (f"{missing} of " in found[0]) if missing else not found[0]
