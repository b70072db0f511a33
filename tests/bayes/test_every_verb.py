"""Every public verb of a fit, a posterior and their comparison works with every kernel and structure, and agrees with the definition."""

from __future__ import annotations

import pickle
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.loo import conditional_densities
from bayeslmm.errors import BayesLMMError
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel
from tests.bayes import designs, every_verb

TABLES = {"Fit": every_verb.FIT, "Posterior": every_verb.POSTERIOR, "Comparison": every_verb.COMPARISON}


@lru_cache(maxsize=2)
def sources(name: str, names: every_verb.Names = every_verb.PLAIN) -> tuple[Any, Any, Any]:
    """The fit, the posterior and the comparison of a model; parameters of a name come one after the other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = every_verb.MODELS[name](names)
        fit, post = model.fit(), model.sample(draws=100, chains=2, seed=1)
        return fit, post, blm.compare(fit, post)


def source(name: str, kind: str, names: every_verb.Names = every_verb.PLAIN) -> Any:
    return dict(zip(TABLES, sources(name, names), strict=True))[kind]


def may_refuse(name: str, verb: str) -> bool:
    """Whether a refusal is an answer: where there is nothing to be said."""
    bare = name == "no random effects"
    if (name, verb) == ("weights and offset", "standardized"):
        return True
    return verb in every_verb.REFUSED or ((bare or "errors" in name or name == "pooled subjects") and verb in every_verb.NO_RANDOM_EFFECTS)


def verbs(name: str, kind: str, long: bool, where: Path) -> None:
    own, found = source(name, kind), 0
    for verb, called in every_verb.members(own):
        if (verb in every_verb.LONG) == long:
            answer = every_verb.ask(own, verb, called, TABLES[kind], where)
            assert not isinstance(answer, BayesLMMError) or may_refuse(name, verb), f"{kind}.{verb}: {answer}"
            found += 1
    assert found > 0 or long


@pytest.mark.parametrize("kind", list(TABLES))
@pytest.mark.parametrize("name", list(every_verb.MODELS))
def test_every_verb_works_on_every_model(name: str, kind: str, tmp_path: Path) -> None:
    verbs(name, kind, long=False, where=tmp_path)
    # what verbs found and keep is data too
    own = source(name, kind)
    assert type(pickle.loads(pickle.dumps(own))) is type(own)  # noqa: S301


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(TABLES))
@pytest.mark.parametrize("name", list(every_verb.MODELS))
def test_every_long_verb_and_variation_works_on_every_model(name: str, kind: str, tmp_path: Path) -> None:
    verbs(name, kind, long=True, where=tmp_path)
    own = source(name, kind)
    for variation, how in every_verb.VARIATIONS[kind]:
        given = every_verb.answer(lambda how=how: how(own, every_verb.PLAIN))
        assert not isinstance(given, BayesLMMError) or (given.what and given.remedy), variation


def answers(name: str, kind: str, names: every_verb.Names, where: Path, *, whole: bool) -> dict[str, Any]:
    """What every verb says, and every variation, or the quick verbs alone."""
    own = source(name, kind, names)
    asked = [(verb, called) for verb, called in every_verb.members(own) if whole or verb not in every_verb.LONG]
    found = {verb: every_verb.ask(own, verb, called, TABLES[kind], where, names) for verb, called in asked}
    others = every_verb.VARIATIONS[kind] if whole else []
    return found | {variation: every_verb.answer(lambda how=how: how(own, names)) for variation, how in others}


ODD = list(every_verb.NAMES)[1:]
CASES = [(name, ODD[k % len(ODD)]) for k, name in enumerate(every_verb.MODELS)]
"""Every model with one set of odd names."""


@pytest.mark.parametrize(
    ("name", "called", "kind", "whole"),
    [
        ("one factor", "of trees", "Posterior", False),
        *(pytest.param(*case, kind, True, marks=pytest.mark.slow) for case in CASES for kind in TABLES),
    ],
)
def test_names_decide_nothing_in_any_verb(name: str, called: str, kind: str, tmp_path: Path, *, whole: bool) -> None:
    """Columns called as the variables and dims of trees are, with blanks and marks: the numbers of plain names."""
    plain, own = (answers(name, kind, every_verb.NAMES[names], tmp_path, whole=whole) for names in ("plain", called))
    for verb, expected in plain.items():
        found = own[verb]
        assert isinstance(found, BayesLMMError) == isinstance(expected, BayesLMMError), f"{kind}.{verb}: {found!r}"
        np.testing.assert_allclose(every_verb.numbers(found), every_verb.numbers(expected), rtol=1e-6, atol=1e-9, err_msg=f"{kind}.{verb}")


def test_every_verb_works_or_says_why_not_on_sums_over_parts(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = every_verb.partitioned().fit()
    for verb, called in every_verb.members(fit):
        answer = every_verb.ask(fit, verb, called, every_verb.FIT, tmp_path)
        assert not isinstance(answer, BayesLMMError) or (answer.what and answer.remedy), verb


def test_the_models_reach_every_kernel() -> None:
    kernels = [make().problem.criterion.kernel for make in every_verb.MODELS.values()]
    random = [k for k in kernels if isinstance(k, RandomEffectsKernel) and k.cross.factors]
    assert {k.dense is None for k in random} == {True, False}
    assert {(k.cross.first is None, k.cross.rest is None) for k in random} == {(True, False), (False, True), (False, False)}
    structured = [k for k in kernels if isinstance(k, BlockDiagonalKernel)]
    assert {bool(k.data.pooled) for k in structured} == {True, False}


# -- against the definition ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(every_verb.MODELS))
def test_estimates_modes_and_left_out_rows_are_those_of_the_definition(name: str) -> None:
    """By V, formed: alpha, its covariance, the criterion, the random effects, the fitted values, and each row given all others."""
    fit, post, _ = sources(name)
    design, density = fit.design, post.density
    phi = density.phi_of(fit.point.x, float(np.sqrt(fit.point.sigma2)))
    V = designs.dense_covariance(density, phi)
    y = design.y - (0.0 if design.offset is None else design.offset)
    X, n, p = design.X, design.nobs, design.X.shape[1]
    W = np.linalg.inv(V)
    Q = np.linalg.inv(X.T @ W @ X)
    P = W - W @ X @ Q @ X.T @ W
    alpha = Q @ X.T @ W @ y
    np.testing.assert_allclose(fit.fixef, alpha, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(fit.vcov, Q, rtol=1e-6, atol=1e-10)
    criterion = np.linalg.slogdet(V)[1] - np.linalg.slogdet(Q)[1] + y @ P @ y + (n - p) * np.log(2.0 * np.pi)
    assert fit.criterion == pytest.approx(criterion, rel=1e-9)
    smooth = X @ alpha
    for block, term, modes in zip(density.layout.terms, design.terms, fit.modes, strict=True):
        known = np.eye(term.group.size) if term.relationship is None else term.relationship
        D = block.covariance(phi[None])[0]
        scores = np.zeros((term.group.size, term.Z.shape[1]))
        np.add.at(scores, term.group.codes, term.Z * (P @ y)[:, None])
        beta = known @ scores @ D
        np.testing.assert_allclose(modes, beta, rtol=1e-5, atol=1e-7)
        smooth = smooth + np.einsum("nq,nq->n", term.Z, beta[term.group.codes])
    offset = 0.0 if design.offset is None else design.offset
    np.testing.assert_allclose(np.asarray(fit.fitted()), smooth + offset, rtol=1e-6, atol=1e-7)
    precision = np.diagonal(P)
    found = conditional_densities(post, phi[None])[0]
    np.testing.assert_allclose(found, 0.5 * np.log(precision / (2.0 * np.pi)) - 0.5 * (P @ y) ** 2 / precision, atol=1e-6)
