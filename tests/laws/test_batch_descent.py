"""Many searches side by side end where each ends alone: at its own minimum, whatever its neighbours do."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm._arrays import Array, Codes
from bayeslmm.estimate.batch_descent import BatchValues, DescentRule, descend_together
from bayeslmm.inference.intervals.batch_structured import RULE

RULES = (DescentRule(), RULE)


class Bowls:
    """B functions f(x) = (x - c)' A (x - c) / 2 + sum (x - c)^4, infinite outside a ball around the start of each."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.B, self.size = int(rng.integers(2, 9)), int(rng.integers(1, 6))
        roots = rng.normal(size=(self.B, self.size, self.size))
        self.A = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(self.size)
        self.c = rng.normal(size=(self.B, self.size))
        self.start = self.c + rng.normal(size=(self.B, self.size))
        self.wall = 4.0 + 2.0 * np.linalg.norm(self.start - self.c, axis=1)
        self.level = 10.0 ** rng.uniform(-3, 3, self.B)

    def at(self, which: Codes, x: Array) -> BatchValues:
        d = x - self.c[which]
        slope = np.einsum("bij,bj->bi", self.A[which], d)
        value = 0.5 * np.einsum("bi,bi->b", d, slope) + (d**4).sum(1) + self.level[which]
        inside = np.linalg.norm(d, axis=1) < self.wall[which]
        return BatchValues(np.where(inside, value, np.inf), slope + 4.0 * d**3)

    @property
    def inverse(self) -> Array:
        return np.tile(np.eye(self.size), (self.B, 1, 1))


@pytest.mark.parametrize("rule", RULES, ids=("relative", "exact"))
@pytest.mark.parametrize("seed", range(20))
def test_searches_end_at_their_minima(seed: int, rule: DescentRule) -> None:
    bowls = Bowls(seed)
    ends = descend_together(bowls.at, bowls.start, bowls.inverse, rule)
    excess = ends.point.value - bowls.level
    assert np.all(excess <= 1e-6 * np.maximum(1.0, bowls.level))
    np.testing.assert_array_equal(ends.point.value, bowls.at(np.arange(bowls.B), ends.x).value)


@pytest.mark.parametrize("rule", RULES, ids=("relative", "exact"))
@pytest.mark.parametrize("seed", range(20))
def test_neighbours_do_not_count(seed: int, rule: DescentRule) -> None:
    bowls = Bowls(seed)
    together = descend_together(bowls.at, bowls.start, bowls.inverse, rule)
    for b in range(bowls.B):
        alone = descend_together(
            lambda rows, x, b=b: bowls.at(np.full(len(rows), b), x), bowls.start[b : b + 1], bowls.inverse[b : b + 1], rule
        )
        np.testing.assert_allclose(together.x[b], alone.x[0], rtol=1e-12, atol=1e-12)
        assert together.done[b] == alone.done[0]


def test_what_is_hopeless_stays_at_its_start() -> None:
    bowls = Bowls(3)
    hopeless = np.arange(bowls.B) % 2 == 0
    ends = descend_together(bowls.at, bowls.start, bowls.inverse, DescentRule(), lambda point: hopeless)
    np.testing.assert_array_equal(ends.x[hopeless], bowls.start[hopeless])
    assert not ends.done[hopeless].any()
    assert np.all(np.linalg.norm(ends.x[~hopeless] - bowls.c[~hopeless], axis=1) < 1e-3)


def test_an_evaluation_that_fails_shortens_the_steps() -> None:
    bowls, calls = Bowls(5), []

    def at(rows: Codes, x: Array) -> BatchValues:
        calls.append(x.copy())
        if len(calls) == 2:
            raise np.linalg.LinAlgError
        return bowls.at(rows, x)

    ends = descend_together(at, bowls.start, bowls.inverse, DescentRule(longest=1e9))
    np.testing.assert_allclose(calls[2] - bowls.start, 0.5 * (calls[1] - bowls.start))
    assert np.all(ends.point.value - bowls.level <= 1e-6 * np.maximum(1.0, bowls.level))
