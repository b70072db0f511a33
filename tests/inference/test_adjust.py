"""Families of tests against tables and against each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from bayeslmm.inference.means.multiplicity import (
    MultivariateT,
    RadiusTail,
    contrast_method,
    critical_values,
    p_values,
)
from bayeslmm.inference.means.studentized_range import studentized_range_quantile, studentized_range_sf

EQUAL = np.full((3, 3), 0.5) + 0.5 * np.eye(3)


@pytest.mark.parametrize(("groups", "df", "value"), [(2, 10, 2.57), (3, 20, 2.54), (4, 30, 2.58), (9, 60, 2.77)])
def test_the_table_of_dunnett(groups: int, df: float, value: float) -> None:
    """Two-sided 5 percent points for equal groups (Dunnett 1964)."""
    R = np.full((groups, groups), 0.5) + 0.5 * np.eye(groups)
    assert critical_values("dunnett", 0.95, np.full(groups, df), R, 0)[0] == pytest.approx(value, abs=0.006)


@pytest.mark.parametrize("df", [5.0, 30.0, np.inf])
def test_all_pairs_of_equal_means_are_tukeys(df: float) -> None:
    """The correlation of all pairs is singular: rank 3 of 6."""
    W = contrast_method("pairwise", list("abcd")).of(np.eye(4))
    t = np.array([0.3, 1.0, 2.0, 2.5, 3.0, 4.0])
    ours, theirs = (p_values(name, t, np.full(6, df), W @ W.T / 2, 4) for name in ("mvt", "tukey"))
    np.testing.assert_allclose(ours, theirs, rtol=3e-3)


@pytest.mark.parametrize(("q", "k", "df"), [(3.0, 3, 5.0), (4.5, 9, 20.0), (5.2, 20, 7.3), (1.0, 4, 3.0)])
def test_the_studentized_range_is_scipys(q: float, k: int, df: float) -> None:
    assert studentized_range_sf(np.array([q]), k, np.array([df]))[0] == pytest.approx(stats.studentized_range.sf(q, k, df), rel=1e-9)
    assert studentized_range_quantile(0.95, k, np.array([df]))[0] == pytest.approx(stats.studentized_range.ppf(0.95, k, df), rel=1e-6)


def test_one_test_needs_no_adjustment() -> None:
    t, df = np.array([2.1]), np.array([12.0])
    for method in ("tukey", "dunnett", "mvt", "holm", "bonferroni", "sidak", "fdr"):
        np.testing.assert_allclose(p_values(method, t, df, np.eye(1), 2), 2 * stats.t.sf(2.1, 12), rtol=1e-6)
        np.testing.assert_allclose(critical_values(method, 0.95, df, np.eye(1), 2), stats.t.ppf(0.975, 12), rtol=1e-5)


@pytest.mark.parametrize("df", [1.0, 8.5, 400.0, np.inf])
@pytest.mark.parametrize("rank", [1, 4, 60])
def test_the_table_of_a_radius_is_its_tail(rank: int, df: float) -> None:
    x = np.concatenate([[0.0, 1e-9, np.inf], np.exp(np.random.default_rng(rank).uniform(-8.0, 14.0, 500))])
    exact = stats.chi2.sf(x**2, rank) if np.isinf(df) else stats.f.sf(x**2 / rank, rank, df)
    np.testing.assert_allclose(RadiusTail.of(rank, df).sf(x), exact, rtol=1e-6, atol=1e-250)


@pytest.mark.parametrize("two_sided", [True, False])
def test_a_large_family_is_each_of_its_tests(two_sided: bool) -> None:
    W = contrast_method("pairwise", [str(i) for i in range(19)]).of(np.eye(19))
    law = MultivariateT.of(W @ W.T / 2, 17.0, two_sided)
    t = np.random.default_rng(1).standard_normal(len(W)) * 3
    t = np.abs(t) if two_sided else t
    chosen = [0, 50, int(np.argmax(t)), int(np.argmin(t))]
    np.testing.assert_allclose(law.outside_many(t)[chosen], [law.outside(t[i]) for i in chosen], rtol=1e-4)


def test_independent_normal_statistics_multiply() -> None:
    law = MultivariateT.of(np.eye(4), np.inf)
    for t in (1.0, 2.5, 5.0):
        assert law.outside(t) == pytest.approx(-np.expm1(4 * np.log1p(-2 * stats.norm.sf(t))), rel=5e-3)


def test_quantile_and_probability_are_inverse() -> None:
    law = MultivariateT.of(EQUAL, 17.0)
    assert law.outside(law.quantile(0.9, 3)) == pytest.approx(0.1, abs=1e-7)


def test_holm_and_false_discovery_rate() -> None:
    """By hand: p = .01, .02, .04 gives .03, .04, .04 and .03, .03, .04."""
    t = stats.norm.isf(np.array([0.01, 0.02, 0.04]) / 2)
    df = np.full(3, np.inf)
    np.testing.assert_allclose(p_values("holm", t, df, EQUAL, 3), [0.03, 0.04, 0.04], rtol=1e-8)
    np.testing.assert_allclose(p_values("fdr", t, df, EQUAL, 3), [0.03, 0.03, 0.04], rtol=1e-8)


def test_what_is_not_estimable_is_no_member_of_the_family() -> None:
    t = np.array([2.0, np.nan, 3.0])
    found = p_values("bonferroni", t, np.full(3, 20.0), EQUAL, 3)
    assert np.isnan(found[1])
    assert found[0] == pytest.approx(2 * 2 * stats.t.sf(2.0, 20))


@pytest.mark.parametrize("means", [3, 8])
def test_tails_of_next_to_no_degrees_of_freedom_are_told_in_silence(means: int) -> None:
    df = np.array([1e-3, 0.01, 0.1, 1.0, 10.0])
    with np.errstate(all="raise", under="ignore"):
        tails = studentized_range_sf(np.full(5, 3.0), means, df)
    assert ((tails > 0.0) & (tails < 1.0)).all()
    assert (np.diff(tails) < 0.0).all()
    # by parts: E P(df s^2 > df R^2 / 9) over the law of the range R
    for one, tail in zip(df, tails, strict=True):
        r = np.linspace(0.0, 12.0, 40_001)
        law = 1.0 - studentized_range_sf(r, means, np.full(len(r), np.inf))
        below = special.gammaincc(0.5 * one, 0.5 * one * (0.5 * (r[1:] + r[:-1]) / 3.0) ** 2) @ np.diff(law)
        assert tail == pytest.approx(1.0 - below, abs=1e-7)
