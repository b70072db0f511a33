"""A small simulation-based calibration: parameters drawn from the prior lie anywhere among the draws of their posterior."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.calibration import Calibration, smallest_tail, tail_probability
from bayeslmm.bayes.log_posterior.density import density
from bayeslmm.bayes.sampling.prior_predictive import draw_from_prior
from tests.bayes import calibration_page
from tests.bayes.designs import grouped

PRIORS = blm.Priors(
    alpha={"Intercept": ("normal", 0.0, 2.0), "x": ("normal", 0.0, 1.0)}, sd=("half_t", 3, 1.0), sigma=("half_t", 3, 1.0), corr=("lkj", 2)
)
DRAWS = 100


def ranks(replications: int, formula: str) -> dict[str, np.ndarray]:
    data = grouped(groups=6, each=5)
    base = blm.LMM(formula, data, priors=PRIORS)
    truth, errors = draw_from_prior(base, replications, 11)
    y = truth.draws.alpha @ base.X.T + errors
    for term, beta in zip(base.design.terms, truth.draws.beta, strict=True):
        y = y + np.einsum("snq,nq->sn", beta[:, term.group.codes], term.Z)
    found: dict[str, list[int]] = {}
    target = density(base.problem, PRIORS)
    for i in range(replications):
        post = blm.LMM(formula, data.assign(y=y[i]), priors=PRIORS).sample(draws=DRAWS, chains=1, seed=i)
        pairs = [(f"phi{j}", post.draws.phi[:, j], truth.draws.phi[i, j]) for j in range(target.size)]
        pairs += [(f"alpha{j}", post.draws.alpha[:, j], truth.draws.alpha[i, j]) for j in range(2)]
        pairs.append(("beta", post.draws.beta[0][:, 0, 0], truth.draws.beta[0][i, 0, 0]))
        for name, draws, value in pairs:
            found.setdefault(name, []).append(int((draws < value).sum()))
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("replications", [pytest.param(100, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.sbc)])
def test_ranks_are_uniform(replications: int) -> None:
    found = ranks(replications, "y ~ x + (x | g)")
    for name, values in found.items():
        # a false alarm in one of a thousand runs
        assert tail_probability(smallest_tail(values, DRAWS), len(values), DRAWS) > 1e-3 / len(found), name


def test_the_page_of_the_suite_is_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = {name: np.random.default_rng(1).integers(0, 100, 50) for name in ("log likelihood", "expon|Residual")}
    found, made = Calibration(pd.DataFrame(ranks), 99, 0, 1.0), []
    monkeypatch.setattr(calibration_page, "PAGE", tmp_path / "calibration.md")
    monkeypatch.setattr(calibration_page, "run_piece", lambda *piece: made.append(piece) or found)
    place = tmp_path / "pieces"
    assert not calibration_page.write_page(place, seconds=0.0, processes=1)
    assert made == []
    calibration_page.keep_piece(place, float("inf"), calibration_page.PIECES[3])
    assert calibration_page.write_page(place, seconds=600.0, processes=1)
    assert sorted(made) == sorted(calibration_page.PIECES)  # each of them once
    text = (tmp_path / "calibration.md").read_text("utf-8")
    assert all(name.replace("|", "\\|") in text for _, name in calibration_page.PIECES)
    assert list(place.iterdir()) == []
