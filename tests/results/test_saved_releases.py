"""What every release saved is opened by this one, and is what it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bayeslmm as blm

RELEASES = sorted(path for path in (Path(__file__).resolve().parents[1] / "saved").iterdir() if (path / "fit.blm").exists())


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_files_of_a_release_before() -> None:
    assert len(RELEASES) >= 2


def test_a_fit_of_a_release_opens(release: Path) -> None:
    fit = blm.load(release / "fit.blm")
    assert isinstance(fit, blm.Fit)
    assert fit.criterion == pytest.approx(1743.6282720, abs=1e-6)
    np.testing.assert_allclose(fit.fixef, [251.40510485, 10.46728596], rtol=1e-8)
    again = fit.model.fit()
    np.testing.assert_allclose(fit.theta, again.theta, rtol=1e-4)
    assert fit.tidy(conf_int=True).shape == again.tidy(conf_int=True).shape


def test_a_structured_fit_of_a_release_opens(release: Path) -> None:
    fit = blm.load(release / "structured.blm")
    assert fit.criterion == pytest.approx(1739.2060185, abs=1e-6)
    assert fit.R.shape == (10, 10)


def test_a_posterior_of_a_release_opens(release: Path) -> None:
    post = blm.load(release / "posterior.blm")
    assert isinstance(post, blm.Posterior)
    assert abs(post.tidy().set_index("term").loc["Days", "estimate"] - 10.467) < 3 * 1.546 / np.sqrt(post.size) * 3
    assert post.emmeans("Days").frame.shape[0] == 1
