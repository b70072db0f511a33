"""What the tables and the log say of a run: convergence, bounds, excess coefficients, transport zeros, R in the order of the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.data.columns import TRANSPORT_ZERO
from bayeslmm.errors import DataError
from tests.sas_results.sets import data


def growth() -> pd.DataFrame:
    return data("nlme", "Orthodont").assign(agec=lambda d: d["age"])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_singular_g_is_called_so_under_every_structure(seed: int) -> None:
    """Two random effects that move together: their correlation is 1 under each of these parametrisations."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"id": np.repeat(np.arange(25), 8), "t": np.tile(["a", "b"], 100)})
    u = rng.normal(size=25)[frame["id"]]
    frame["y"] = np.where(frame["t"] == "a", 1.5 * u, 0.5 * u) + 0.8 * rng.normal(size=200)
    program = "proc mixed covtest; class id t; model y = t; random t / type={} sub=id; run;"
    status = {kind: blm.proc_mixed(program.format(kind), frame) for kind in ("csh", "un", "fa0(2)", "unr")}
    criteria = [result.fit.criterion for result in status.values()]
    assert np.ptp(criteria) < 1e-3
    flags = {kind: int(result["ConvergenceStatus"]["pdG"].iloc[0]) for kind, result in status.items()}
    assert len(set(flags.values())) == 1, flags
    for result in status.values():
        if not result["ConvergenceStatus"]["pdG"].iloc[0]:
            assert "final G matrix" in result["ConvergenceStatus"]["Reason"].iloc[0]
        table = result["CovParms"].set_index("CovParm")
        bound = [name for name in table.index if name.startswith(("Corr", "CSH")) and abs(table.loc[name, "Estimate"]) > 1 - 1e-7]
        assert table.loc[bound, "StdErr"].isna().all()


def test_a_well_determined_fit_is_positive_definite_in_both() -> None:
    table = blm.proc_mixed("proc mixed; class Subject; model distance = age; random int age / type=un sub=Subject; run;", growth())
    assert table["ConvergenceStatus"].iloc[0].tolist() == ["Convergence criteria met.", 0, 1, 1]


def test_r_is_in_the_order_of_the_rows() -> None:
    frame = growth()
    shuffled = frame.sample(frac=1, random_state=3).reset_index(drop=True)
    program = "proc mixed; class Subject agec; model distance = age; repeated agec / type=un sub=Subject r; run;"
    sorted_r, r = (blm.proc_mixed(program, rows)["R"].filter(like="Col").to_numpy() for rows in (frame, shuffled))
    first = blm.proc_mixed(program, frame).runs[0].translation  # the subject shown is the first of the levels
    assert first.within == ("Subject",)
    subject = sorted(frame["Subject"].astype(str))[0]
    ages = shuffled.loc[shuffled["Subject"].astype(str) == subject, "age"].to_numpy()
    order = np.argsort(np.argsort(ages))
    assert not (order == np.arange(4)).all()
    np.testing.assert_allclose(r, sorted_r[np.ix_(order, order)], rtol=1e-4)


def test_coefficients_beyond_the_columns_are_said_to_be_left_out() -> None:
    program = "proc mixed; class Sex Subject; model distance = Sex age; random int / sub=Subject; estimate 'd' Sex 1 -1{}; run;"
    plain, excess = (blm.proc_mixed(program.format(more), growth()) for more in ("", " 0 5"))
    assert excess["Estimates"].equals(plain["Estimates"])
    assert any("Sex has 2 columns and 4 coefficients" in note for note in excess.notes)
    assert not plain.notes


def test_zeros_of_transport_files_are_zeros() -> None:
    frame = growth().assign(trt=lambda d: np.where(d["Sex"] == "Male", TRANSPORT_ZERO, 1.0))
    program = "proc mixed; class trt Subject; model distance = trt age; random int / sub=Subject; lsmeans trt; {} run;"
    result = blm.proc_mixed(program.format(""), frame)
    assert result["LSMeans"]["trt"].tolist() == ["0", "1"]
    assert any("transport" in note and "trt" in note for note in result.notes)
    assert blm.proc_mixed("proc mixed; where trt = 0; model distance = age; run;", frame)["NObs"]["N"].iloc[0] == 64
    assert not blm.proc_mixed(program.format(""), frame.assign(trt=frame["trt"].round())).notes


def test_between_within_without_a_subject_is_the_residual() -> None:
    for text in ("model distance = Sex age / ddfm=bw;", "model distance = Sex age; repeated / group=Sex;"):
        result = blm.proc_mixed(f"proc mixed; class Sex; {text} run;", growth())
        assert "Between-Within" in result["ModelInfo"]["Value"].tolist()
        assert result["Tests3"]["DenDF"].tolist() == [105.0, 105.0]


def test_a_text_response_is_told_to_become_numbers() -> None:
    with pytest.raises(DataError) as caught:
        blm.proc_mixed("proc mixed; model y = age; run;", growth().assign(y="tall"))
    assert "pandas.to_numeric" in caught.value.remedy and "CLASS" not in caught.value.remedy


def test_a_table_that_ods_output_asks_for_in_vain_is_named() -> None:
    program = "proc mixed; class Sex; model distance = Sex; ods output {}; run;"
    result = blm.proc_mixed(program.format("Zork=z Tests3=tests"), growth())
    assert [note for note in result.notes if "Zork" in note] == ["ODS OUTPUT asks for table Zork, which the program does not print"]
    assert not blm.proc_mixed(program.format("Tests3=tests"), growth()).notes
