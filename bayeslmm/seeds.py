"""Seeds: what a user gives, made into a source of random numbers or refused."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from bayeslmm.errors import SpecificationError


def seeded(seed: Any) -> np.random.SeedSequence:
    """The source of random numbers of a seed: None for a fresh one, a whole number of 0 or more, or several of them.

    Errors: SpecificationError for what is no seed.

    >>> seeded(1).entropy
    1
    """
    if isinstance(seed, np.random.SeedSequence):
        return seed
    several = (isinstance(seed, np.ndarray) and seed.ndim == 1) or (isinstance(seed, Sequence) and not isinstance(seed, str | bytes))
    if seed is not None and not all(map(_whole, seed if several else (seed,))):
        raise SpecificationError(f"seed is {seed!r:.40}", "seed", "give a whole number, 0 or more, or None")
    return np.random.SeedSequence(seed)


def generator(seed: Any) -> np.random.Generator:
    """Random numbers from a seed, as `seeded` takes it.

    >>> generator(1).integers(10) == generator(1).integers(10)
    True
    """
    return np.random.default_rng(seeded(seed))


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0
