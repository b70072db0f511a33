"""Models, fits and posteriors are data: they can be pickled, copied and written, and equal ones are equal files."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, MismatchError
from bayeslmm.results import archive, store


def rows() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"g": np.repeat([f"g{i}" for i in range(12)], 5), "t": np.tile(np.arange(5), 12)})
    frame["arm"] = np.where(frame["g"].str[-1].isin(list("02468")), "a", "b")
    frame["w"] = rng.uniform(0.5, 2.0, len(frame))
    level = rng.normal(size=12)[frame["g"].str[1:].astype(int)]
    return frame.assign(y=1.0 + 0.5 * frame["t"] + level + rng.normal(size=len(frame)))


MODELS: dict[str, Callable[[pd.DataFrame], blm.LMM]] = {
    "slope": lambda d: blm.LMM("y ~ t * arm + (t | g)", d),
    "no random terms": lambda d: blm.LMM("y ~ poly(t, 2) + arm", d, weights="w", contrasts={"arm": ("treatment", "b")}),
    "unstructured": lambda d: blm.LMM("y ~ arm + t", d, residual="us(t | g)"),
    "serial by arm": lambda d: blm.LMM("y ~ t", d, residual="ar1(t | arm / g)", variance="ident(arm)"),
    "weights as an array": lambda d: blm.LMM("log1p(t) ~ y + (1 | g)", d, weights=d["w"].to_numpy()),
    "relationship": lambda d: blm.LMM("y ~ t + (1 | g)", d, relationship={"g": _related(d)}),
    "mmrm": lambda d: blm.mmrm("y ~ arm + cs(t | g)", d),
}


def _related(d: pd.DataFrame) -> pd.DataFrame:
    names = sorted(d["g"].unique())
    return pd.DataFrame(0.2 + 0.8 * np.eye(len(names)), index=names, columns=names)


WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),  # noqa: S301
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_models_and_fits_travel(name: str, way: str) -> None:
    model = MODELS[name](rows())
    fit = model.fit()
    fit.predict(rows().iloc[:3])
    again: blm.LMM = WAYS[way](model)
    assert again.fit().criterion == fit.criterion
    other: blm.Fit = WAYS[way](fit)
    assert other.fixef.equals(fit.fixef)
    assert other.tidy().equals(fit.tidy())
    assert other.predict(rows().iloc[:3]).equals(fit.predict(rows().iloc[:3]))
    assert dict(other.checks) == dict(fit.checks)


@pytest.mark.parametrize("way", WAYS)
def test_posteriors_profiles_and_bootstraps_travel(way: str) -> None:
    model = blm.LMM("y ~ t + (1 | g)", rows())
    fit, post = model.fit(), model.sample(draws=50, seed=1)
    assert WAYS[way](post).tidy().equals(post.tidy())
    profile, boot = fit.profile(terms=["t"]), fit.bootstrap(8, seed=1)
    assert WAYS[way](profile).confint().equals(profile.confint())
    assert WAYS[way](boot).confint(0.8).equals(boot.confint(0.8))


@pytest.mark.parametrize("make", ["many", "by"])
def test_many_fits_travel(make: str) -> None:
    """Fits that were made side by side are fitted one by one where they are asked for, also behind a pickle."""
    data = rows()
    if make == "by":
        many = blm.fit_by("y ~ t + (1 | g)", pd.concat([data.assign(part="a"), data.assign(part="b")]), by="part")
    else:
        Y = np.random.default_rng(1).normal(size=(len(data), 3))
        Y[2, 2] = np.nan
        many = blm.LMM("y ~ t + (1 | g)", data).fit_many(Y)
    copied = pickle.loads(pickle.dumps(many))  # noqa: S301
    assert copied.tidy().equals(many.tidy())
    assert [copied.fit(name).criterion for name in copied.names] == [many.fit(name).criterion for name in many.names]


def test_equal_fits_are_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        blm.LMM("y ~ t + (1 | g)", rows()).fit().save(tmp_path / name)
        blm.LMM("y ~ t + (1 | g)", rows()).sample(draws=50, seed=1).save(tmp_path / f"{name} post")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one post").read_bytes() == (tmp_path / "two post").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="modes are those of POSIX")
def test_a_new_file_has_the_mode_of_the_umask_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    fit = blm.LMM("y ~ t", rows()).fit()
    path = tmp_path / "fit"
    old = os.umask(0o027)
    try:
        fit.save(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o4664)
    fit.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o664

    link = tmp_path / "link"
    link.symlink_to(path)
    fit.save(link)
    assert link.is_symlink()
    assert blm.load(link).criterion == fit.criterion


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs a group that is not the user's own")
def test_a_file_that_a_group_shares_stays_theirs(tmp_path: Path) -> None:
    path = tmp_path / "fit"
    path.write_bytes(b"old")
    os.chown(path, -1, 4321)
    blm.LMM("y ~ t", rows()).fit().save(path)
    assert path.stat().st_gid == 4321


@pytest.mark.skipif(sys.platform == "win32", reason="locks are those of POSIX")
def test_what_a_killed_save_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from bayeslmm import _io
os.replace = lambda *_: os._exit(9)
_io.write_atomically(Path(sys.argv[1]), b"half")
"""
    path = tmp_path / "model.fit"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    (tmp_path / ".model.fit.notes").write_text("of the user")
    assert len(list(tmp_path.iterdir())) == 2
    blm.LMM("y ~ t", rows()).fit().save(path)
    assert sorted(found.name for found in tmp_path.iterdir()) == [".model.fit.notes", "model.fit"]


CHANGES: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "criterion": lambda content, arrays: content["estimate"].update(criterion=archive.to_json(float("inf"))),
    "sigma": lambda content, arrays: content["estimate"].update(sigma=1.5 * content["estimate"]["sigma"]),
    "alpha": lambda content, arrays: arrays.update({"estimate/alpha": arrays["estimate/alpha"] + 1e-3}),
    "vcov": lambda content, arrays: arrays.update({"estimate/vcov": 0.5 * arrays["estimate/vcov"]}),
    "shape": lambda content, arrays: arrays.update({"estimate/alpha": arrays["estimate/alpha"][:1]}),
    "theta": lambda content, arrays: arrays.update({"estimate/theta": arrays["estimate/theta"] * 1.01}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_estimate_that_does_not_follow_from_the_rows_is_refused(what: str, tmp_path: Path) -> None:
    fit = blm.LMM("y ~ t + (1 | g)", rows()).fit()
    content, arrays = store.stored_fit(fit)
    CHANGES[what](content, arrays)
    archive.write_archive(tmp_path / "forged", content, arrays)
    with pytest.raises(BayesLMMError) as caught:
        blm.load(tmp_path / "forged")
    assert caught.value.remedy
    assert isinstance(caught.value, MismatchError) or what == "shape"
