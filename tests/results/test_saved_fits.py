"""A saved fit is the fit to the bit, or it is refused."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, FormatError, MismatchError, StoreError


def assert_equal(one: blm.Fit, other: blm.Fit) -> None:
    assert one.fixef.equals(other.fixef)
    assert one.vcov.equals(other.vcov)
    assert np.array_equal(one.theta, other.theta)
    assert one.sigma == other.sigma or (np.isnan(one.sigma) and np.isnan(other.sigma))
    assert one.criterion == other.criterion
    assert one.varcorr.equals(other.varcorr)
    assert np.array_equal(one.fitted(), other.fitted())
    assert dict(one.checks) == dict(other.checks)
    assert np.array_equal(one.rows, other.rows)
    assert one.design.index.equals(other.design.index)
    assert one.model.n_dropped == other.model.n_dropped
    assert [x.tolist() for x, _ in one.path] == [x.tolist() for x, _ in other.path]
    assert str(one.summary(df="asymptotic")) == str(other.summary(df="asymptotic"))


def opened(fit: blm.Fit, folder: Path) -> blm.Fit:
    fit.save(folder / "fit.zip")
    return blm.load(folder / "fit.zip")


def test_a_fit_comes_back_equal_to_the_bit(fit: blm.Fit, tmp_path: Path, sleepstudy: pd.DataFrame) -> None:
    again = opened(fit, tmp_path)
    assert_equal(fit, again)
    assert again.predict(sleepstudy).equals(fit.predict(sleepstudy))


@pytest.mark.parametrize("method", ["REML", "ML", "MAP"])
def test_every_method_of_estimation_is_saved(method: str, tmp_path: Path, sleepstudy: pd.DataFrame) -> None:
    found = blm.LMM("Reaction ~ Days + (Days | Subject)", sleepstudy).fit(method)
    assert_equal(found, opened(found, tmp_path))


def test_what_stands_beside_a_formula_comes_back(crossed: pd.DataFrame, tmp_path: Path) -> None:
    data = crossed.set_index(pd.MultiIndex.from_arrays([crossed["g"], np.arange(len(crossed))], names=["who", None]))
    data["side"] = np.where(np.arange(len(data)) % 3 == 0, "left", "right")
    data.loc[data.index[5], "x"] = np.nan
    levels = sorted(crossed["h"].unique())
    A = pd.DataFrame(np.eye(len(levels)) + 0.2, index=levels, columns=levels)
    offset = np.linspace(0, 1, len(data))
    fit = blm.LMM(
        "y ~ poly(x, 2) + C(side) + (1 | g) + (1 | h)",
        data,
        weights=crossed["w"].to_numpy(),
        offset=offset,
        relationship={"h": A},
        contrasts={"side": "sum"},
    ).fit()
    assert_equal(fit, opened(fit, tmp_path))


def test_structured_errors_come_back(trial: pd.DataFrame, tmp_path: Path) -> None:
    fit = blm.LMM("BCVA_CHG ~ VISITN + BCVA_BL", trial, residual="ar1h(AVISIT | ARMCD / USUBJID)").fit()
    again = opened(fit, tmp_path)
    assert_equal(fit, again)
    assert fit.residual_params.equals(again.residual_params)


@pytest.mark.slow
def test_a_variance_of_the_fitted_value_comes_back_with_the_fitted_values_it_had(sleepstudy: pd.DataFrame, tmp_path: Path) -> None:
    fit = blm.LMM("Reaction ~ Days + (1 | Subject)", sleepstudy, variance="const_power(fitted)").fit()
    assert_equal(fit, opened(fit, tmp_path))


def test_every_kind_of_column_comes_back(tmp_path: Path) -> None:
    n = 48
    rng = np.random.default_rng(0)
    data = pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "whole": pd.array(rng.integers(0, 9, n), dtype="Int64"),
            "flag": rng.integers(0, 2, n).astype(bool),
            "text": np.array(["a", "b"] * (n // 2)),
            "level": pd.Categorical(np.tile([3, 1, 2], n // 3), categories=[3, 2, 1, 9], ordered=True),
            "day": pd.to_datetime("2020-01-01") + pd.to_timedelta(np.repeat(np.arange(8), 6), unit="D"),
        }
    )
    fit = blm.LMM("y ~ whole + flag + text + (1 | day) + (1 | level)", data).fit()
    again = opened(fit, tmp_path)
    assert_equal(fit, again)
    assert again.ranef()["day"].index.equals(fit.ranef()["day"].index)


DAYS = [datetime.date(2020, 1, 1 + i) for i in range(8)]
LABELS: dict[str, Any] = {
    "text": pa.array(list("abcdefgh")),
    "large text": pa.array(list("abcdefgh"), pa.large_string()),
    "dictionary": pa.array(list("abcdefgh")).dictionary_encode(),
    "bytes": pa.array([letter.encode() for letter in "abcdefgh"]),
    "whole": pa.array(range(8), pa.int16()),
    "decimal": pa.array([Decimal(i) for i in range(8)]),
    "day": pa.array(DAYS, pa.date32()),
    "day in milliseconds": pa.array(DAYS, pa.date64()),
    "moment": pa.array([datetime.datetime(2020, 1, 1 + i, 7) for i in range(8)], pa.timestamp("us")),
    "moment in a zone": pa.array([datetime.datetime(2020, 1, 1 + i, 7) for i in range(8)], pa.timestamp("ms", "Europe/Berlin")),
    "time of day": pa.array([datetime.time(i) for i in range(8)], pa.time32("s")),
    "duration": pa.array([datetime.timedelta(i) for i in range(8)], pa.duration("s")),
    "interval": pd.IntervalIndex.from_breaks(range(9)),
    "interval of moments": pd.IntervalIndex.from_breaks(pd.date_range("2020-01-01", periods=9)),
    "classes": pd.cut(np.arange(8.0), 4),
    "period": pd.period_range("2020-01", periods=8, freq="M"),
    "zoned": pd.date_range("2020-01-01", periods=8, tz="US/Eastern"),
    "date": np.array(DAYS, dtype=object),
    "pair": pd.Series([(i, "a") for i in range(8)]).array,
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_type_come_back(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(3)
    labels = LABELS[kind]
    column = pd.Series(pd.array(labels, dtype=pd.ArrowDtype(labels.type))) if isinstance(labels, pa.Array) else pd.Series(labels)
    g = np.repeat(np.arange(8), 6)
    data = pd.DataFrame({"y": rng.normal(size=48) + rng.normal(size=8)[g], "g": column.iloc[g].reset_index(drop=True)})
    fit = blm.LMM("y ~ 1 + (1 | g)", data).fit()
    again = opened(fit, tmp_path)
    assert_equal(fit, again)
    assert again.ranef()["g"].index.tolist() == fit.ranef()["g"].index.tolist()


def test_a_refit_keeps_its_own_response(fit: blm.Fit, tmp_path: Path) -> None:
    other = fit.refit(fit.design.y[::-1])
    assert_equal(other, opened(other, tmp_path))


def test_a_users_function_is_named_and_asked_for(sleepstudy: pd.DataFrame, tmp_path: Path) -> None:
    fit = blm.LMM("Reaction ~ half(Days) + (1 | Subject)", sleepstudy, functions={"half": lambda x: x / 2}).fit()
    fit.save(tmp_path / "fit")
    with pytest.raises(StoreError, match="half"):
        blm.load(tmp_path / "fit")
    assert_equal(fit, blm.load(tmp_path / "fit", functions={"half": lambda x: x / 2}))
    with pytest.raises(MismatchError, match="other columns"):
        blm.load(tmp_path / "fit", functions={"half": lambda x: x / 3})


def test_no_altered_byte_gets_through(fit: blm.Fit, tmp_path: Path) -> None:
    path = tmp_path / "fit"
    fit.save(path)
    whole = path.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 60).astype(int):
        broken = bytearray(whole)
        broken[place] ^= 1
        path.write_bytes(bytes(broken))
        with pytest.raises(StoreError):
            blm.load(path)


def test_a_file_that_was_cut_short_is_refused(fit: blm.Fit, tmp_path: Path) -> None:
    path = tmp_path / "fit"
    fit.save(path)
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match="cut short"):
            blm.load(path)


def resealed(path: Path, change: dict[str, bytes]) -> None:
    """Write the archive again with some members changed and a checksum that agrees: what a careful forger would do."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()} | change
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = b"sha256:" + b"0" * 64
    body = path.read_bytes()[:-64]
    path.write_bytes(body + hashlib.sha256(body).hexdigest().encode())


def told(path: Path) -> dict[str, object]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("fit.json"))


def test_a_newer_format_is_refused(fit: blm.Fit, tmp_path: Path) -> None:
    fit.save(tmp_path / "fit")
    resealed(tmp_path / "fit", {"fit.json": json.dumps(told(tmp_path / "fit") | {"version": 99}).encode()})
    with pytest.raises(MismatchError, match="version 99"):
        blm.load(tmp_path / "fit")


def test_an_estimate_that_is_no_optimum_of_its_data_is_refused(fit: blm.Fit, tmp_path: Path) -> None:
    fit.save(tmp_path / "fit")
    content = told(tmp_path / "fit")
    content["content"]["estimate"]["criterion"] += 0.01
    resealed(tmp_path / "fit", {"fit.json": json.dumps(content).encode()})
    with pytest.raises(MismatchError, match="evaluated again"):
        blm.load(tmp_path / "fit")


def test_a_header_that_asks_for_a_terabyte_is_refused_before_it_is_given(fit: blm.Fit, tmp_path: Path) -> None:
    fit.save(tmp_path / "fit")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (137438953472,), }".ljust(117) + b"\n"
    resealed(tmp_path / "fit", {"0.npy": b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"12345678"})
    with pytest.raises(FormatError, match="137438953472"):
        blm.load(tmp_path / "fit")


def test_an_array_of_objects_is_never_opened(fit: blm.Fit, tmp_path: Path) -> None:
    fit.save(tmp_path / "fit")
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    resealed(tmp_path / "fit", {"0.npy": b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\x80\x05N."})
    with pytest.raises(FormatError):
        blm.load(tmp_path / "fit")


def test_a_part_that_is_missing_is_an_error_of_ours(fit: blm.Fit, tmp_path: Path) -> None:
    for part in ("said", "frame", "estimate", "rows", "index"):
        fit.save(tmp_path / "fit")
        content = told(tmp_path / "fit")
        del content["content"][part]
        resealed(tmp_path / "fit", {"fit.json": json.dumps(content).encode()})
        with pytest.raises(FormatError, match=part):
            blm.load(tmp_path / "fit")


def test_the_file_is_exactly_where_it_was_asked_for(fit: blm.Fit, tmp_path: Path) -> None:
    fit.save(tmp_path / "my fit")
    assert os.listdir(tmp_path) == ["my fit"]


def test_a_save_that_fails_leaves_the_old_file_whole(fit: blm.Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fit"
    fit.save(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space") as caught:
        fit.save(path)
    assert "bytes" in caught.value.where
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["fit"]


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        blm.load(tmp_path / "nothing")
    with pytest.raises(StoreError):
        blm.load(tmp_path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(FormatError):
        blm.load(tmp_path / "text")


def deep(depth: int) -> str:
    return '{"tuple": [' * depth + "1" + "]}" * depth


@pytest.mark.parametrize(
    "said",
    [
        deep(100_000),
        '{"decimal": "nonsense"}',
        '{"float": "x"}',
        '{"time": "never"}',
        '{"mapping": [[[], 1]]}',
        '{"check": [1]}',
        '{"tuple": 3}',
    ],
    ids=["deep", "decimal", "float", "time", "unhashable", "check", "number"],
)
@pytest.mark.parametrize("place", ["said", "notes", "rows", "coefficients", "estimate"])
def test_a_value_that_is_none_is_refused(fit: blm.Fit, tmp_path: Path, said: str, place: str) -> None:
    path = tmp_path / "fit"
    fit.save(path)
    content = told(path)
    content["content"][place] = "HERE"
    resealed(path, {"fit.json": json.dumps(content).replace('"HERE"', said).encode()})
    with pytest.raises((FormatError, MismatchError)):
        blm.load(path)


@pytest.mark.parametrize(
    "header", [b"{", b"'''", b"{'descr': (((", b"\xff" * 20, b"{'descr': '<f8', 'fortran_order': False, 'shape': (10**9,), }", b"0" * 60]
)
def test_a_header_that_is_none_is_refused(fit: blm.Fit, tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "fit"
    fit.save(path)
    resealed(path, {"0.npy": b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header})
    with pytest.raises(FormatError):
        blm.load(path)


def forge_array(path: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change one array of a saved file and seal it again."""
    place = told(path)["arrays"][name]  # type: ignore[index]
    with zipfile.ZipFile(path) as archive:
        values = np.load(io.BytesIO(archive.read(place)))
    stored = io.BytesIO()
    np.save(stored, change(values))
    resealed(path, {place: stored.getvalue()})


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("name", ["estimate/x", "estimate/theta", "estimate/alpha", "estimate/vcov", "path/x", "path/value"])
def test_a_forged_posterior_mode_is_refused(name: str, rows: bool, tmp_path: Path, sleepstudy: pd.DataFrame) -> None:
    path = tmp_path / "fit"
    blm.LMM("Reaction ~ Days + (Days | Subject)", sleepstudy).fit("MAP").save(path, rows=rows)
    forge_array(path, name, lambda values: values * 1.001)
    with pytest.raises((FormatError, MismatchError)):
        blm.load(path)


@pytest.mark.parametrize("said", ["criterion", "sigma"])
def test_a_forged_number_of_a_posterior_mode_is_refused(said: str, tmp_path: Path, sleepstudy: pd.DataFrame) -> None:
    path = tmp_path / "fit"
    blm.LMM("Reaction ~ Days + (Days | Subject)", sleepstudy).fit("MAP").save(path)
    for value in (1.001, 0.0, -1.0, float("inf")):
        content = told(path)
        content["content"]["estimate"][said] *= value
        resealed(path, {"fit.json": json.dumps(content).encode()})
        with pytest.raises((FormatError, MismatchError)):
            blm.load(path)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A saved posterior."""
    path = tmp_path_factory.mktemp("drawn") / "post"
    blm.LMM("Reaction ~ Days + (Days | Subject)", blm.load_dataset("sleepstudy")).sample(draws=25, seed=1).save(path)
    return path.read_bytes()


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "fewer": lambda values: values[:-1],
    "another shape": lambda values: values[..., None],
    "missing": lambda values: values + np.where(np.arange(len(values)) == 70, np.nan, 0.0).reshape(-1, *[1] * (values.ndim - 1)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["draws/phi", "draws/alpha", "draws/beta/0", "draws/log_density"])
def test_draws_of_another_shape_are_refused(name: str, change: str, drawn: bytes, tmp_path: Path) -> None:
    (tmp_path / "post").write_bytes(drawn)
    forge_array(tmp_path / "post", name, CHANGES[change])
    with pytest.raises(FormatError):
        blm.load(tmp_path / "post")


@pytest.mark.parametrize("place", [0, 50, -1])
def test_draws_that_the_rows_do_not_give_are_refused(place: int, drawn: bytes, tmp_path: Path) -> None:
    (tmp_path / "post").write_bytes(drawn)

    def moved(values: np.ndarray) -> np.ndarray:
        values[place:] += 0.01
        return values

    forge_array(tmp_path / "post", "draws/phi", moved)
    with pytest.raises(MismatchError, match="evaluated again"):
        blm.load(tmp_path / "post")


def test_draws_of_a_variance_function_in_older_files_are_in_units_of_its_covariate(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"x": 100.0 * rng.gamma(2.0, size=60)})
    frame["y"] = rng.normal(size=60) * np.exp(0.003 * frame["x"])
    path, post = tmp_path / "post", blm.LMM("y ~ 1", frame, variance="exp(x)").sample(draws=25, seed=1)
    post.save(path)
    block = post.density.layout.variance
    assert block is not None
    assert block.units[0] != 1.0
    content = told(path)
    del content["content"]["posterior"]["variance_units"]
    resealed(path, {"fit.json": json.dumps(content).encode()})

    def on_its_axis(phi: np.ndarray) -> np.ndarray:
        phi[:, block.part] *= block.units
        return phi

    forge_array(path, "draws/phi", on_its_axis)
    forge_array(path, "draws/log_density", lambda values: values - block.log_volume)
    np.testing.assert_array_equal(blm.load(path).tree.posterior["expon"], post.tree.posterior["expon"])


ADDED_UP: dict[str, Callable[[pd.DataFrame], blm.Fit]] = {
    "slopes": lambda d: blm.LMM("Reaction ~ Days + (Days | Subject)", d).fit(),
    "crossed, weights": lambda d: blm.LMM("Reaction ~ Days * f + (1 | Subject) + (1 | k)", d, weights="w").fit("ML"),
    "visits by group": lambda d: blm.LMM("Reaction ~ Days", d, residual="cs(Days | f / Subject)").fit(),
    "posterior mode": lambda d: blm.LMM("Reaction ~ Days + (Days | Subject)", d, priors=blm.Priors(alpha="normal")).fit("MAP"),
}


def forged_arrays(values: np.ndarray) -> dict[str, np.ndarray]:
    """What an array of a file may be made to hold."""
    middle = np.zeros(values.shape, bool)
    middle.reshape(-1)[values.size // 2 :][:1] = True
    found = {"two axes more": values[None, None], "complex": values.astype(complex), "text": np.full(values.shape, "x")}
    if values.ndim:
        found |= {"short": values[:-1], "long": np.concatenate([values, values[-1:]]), "none": values[:0]}
    if values.dtype.kind == "f":
        return found | {name: np.where(middle, value, values) for name, value in (("nan", np.nan), ("inf", np.inf))}
    ends = {name: np.where(middle, value, values) for name, value in (("last", np.iinfo(values.dtype).max), ("first", -2))}
    return found | {"floats": values.astype(float)} | ends


@pytest.mark.parametrize("name", ADDED_UP)
def test_whatever_an_array_is_made_to_hold_is_refused_or_says_nothing(name: str, sleepstudy: pd.DataFrame, tmp_path: Path) -> None:
    data = sleepstudy.assign(
        f=np.where(sleepstudy["Subject"].astype(int) % 2 == 0, "even", "odd"), k=np.arange(180) % 7, w=1.0 + np.arange(180) % 3
    )
    fit, path = ADDED_UP[name](data), tmp_path / "fit.zip"
    fit.save(path, rows=False)
    whole, expected = path.read_bytes(), blm.load(path).tidy("all")
    for member in told(path)["arrays"]:  # type: ignore[attr-defined]
        path.write_bytes(whole)
        held = np.load(io.BytesIO(zipfile.ZipFile(path).read(told(path)["arrays"][member])))  # type: ignore[index]
        for how, values in forged_arrays(held).items():
            path.write_bytes(whole)
            forge_array(path, member, lambda _, values=values: values)
            try:
                found = blm.load(path).tidy("all")
            except BayesLMMError:
                continue
            pd.testing.assert_frame_equal(found, expected, obj=f"{member} {how}", rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("member", ["method", "sigma", "criterion", "converged", "interrupted", "singular", "checks"])
@pytest.mark.parametrize("value", [None, "x", [], {}, [[], []], {"tuple": ["x"]}, True], ids=str)
def test_an_estimate_of_another_type_is_refused(fit: blm.Fit, tmp_path: Path, member: str, value: Any) -> None:
    path = tmp_path / "fit.zip"
    fit.save(path)
    header = told(path)
    estimate = header["content"]["estimate"]  # type: ignore[index]
    if isinstance(value, bool) and isinstance(estimate[member], bool):
        return
    estimate[member] = value
    resealed(path, {"fit.json": json.dumps(header).encode()})
    with pytest.raises(StoreError):
        blm.load(path)
