"""With the covariance parameters fixed, draws of alpha and beta follow their closed-form normal distribution."""

from __future__ import annotations

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm._arrays import Array
from bayeslmm.bayes.log_posterior.density import Density, density
from bayeslmm.bayes.sampling.random_effects import joint_draws
from tests.bayes.designs import MODELS, dense_covariance, model, somewhere

S = 20_000


def closed_form(target: Density, phi: Array, prior_precision: Array) -> tuple[Array, Array]:
    """Mean and covariance of (alpha, beta of all terms) given y, by Gaussian conditioning with V as a dense matrix."""
    design = target.problem.design
    V, X = dense_covariance(target, phi), design.X
    blocks, covers = [], []
    for block, term in zip(target.layout.terms, design.terms, strict=True):
        K, q = term.group.size, term.Z.shape[1]
        Z = np.zeros((design.nobs, K, q))
        Z[np.arange(design.nobs), term.group.codes] = term.Z
        known = np.eye(K) if term.relationship is None else term.relationship
        blocks.append(Z.reshape(design.nobs, K * q))
        covers.append(np.kron(known, block.covariance(phi[None])[0]))
    W = np.linalg.inv(V)
    y = design.y - (0.0 if design.offset is None else design.offset)
    A = np.linalg.inv(X.T @ W @ X + np.diag(prior_precision))
    alpha = A @ (X.T @ W @ y)
    if not blocks:
        return alpha, A
    Z = np.hstack(blocks)
    D = np.zeros((Z.shape[1], Z.shape[1]))
    at = 0
    for cover in covers:
        D[at : at + len(cover), at : at + len(cover)] = cover
        at += len(cover)
    G = D @ Z.T @ W
    mean = np.concatenate([alpha, G @ (y - X @ alpha)])
    across = -A @ X.T @ G.T
    return mean, np.block([[A, across], [across.T, D - G @ Z @ D + G @ X @ A @ X.T @ G.T]])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("alpha", ["flat", "normal"])
def test_draws_follow_the_closed_form(name: str, alpha: str) -> None:
    said = {"Intercept": ("normal", 0.0, 0.5), "x": ("normal", 0.0, 0.5)} if alpha == "normal" else alpha
    target = density(model(name).problem, blm.Priors(alpha=said))
    phi = somewhere(target)
    count = S if target.problem.structured is None else 3000
    found = joint_draws(target, np.tile(phi, (count, 1)), np.random.default_rng(3))
    drawn = np.hstack([found.alpha, *(beta.reshape(count, -1) for beta in found.beta)])
    mean, cover = closed_form(target, phi, np.full(2, 4.0 if alpha == "normal" else 0.0))
    sd = np.sqrt(np.diagonal(cover))
    # 5 standard errors of a mean, and of a correlation, over some dozens of numbers
    assert np.abs((drawn.mean(0) - mean) / sd).max() < 5.0 / np.sqrt(count)
    assert np.abs((np.cov(drawn, rowvar=False) - cover) / np.outer(sd, sd)).max() < 7.0 / np.sqrt(count)


def test_each_draw_has_its_own_covariance_parameters() -> None:
    """Draws at two points, mixed, are those of each."""
    target = density(model("crossed").problem, None)
    first, second = somewhere(target, 1), somewhere(target, 2, spread=1.0)
    phi = np.concatenate([np.tile(first, (4000, 1)), np.tile(second, (4000, 1))])
    found = joint_draws(target, phi, np.random.default_rng(0))
    for part, at in ((slice(0, 4000), first), (slice(4000, 8000), second)):
        mean, cover = closed_form(target, at, np.zeros(2))
        assert np.abs((found.alpha[part].mean(0) - mean[:2]) / np.sqrt(np.diagonal(cover)[:2])).max() < 5.0 / np.sqrt(4000)
