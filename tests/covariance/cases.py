"""One or more members of every registered structure, over several dimensions: what the laws run over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.covariance.base import Covariance
from bayeslmm.covariance.registry import STRUCTURES, make, structure

# x at which an exotic structure is certainly positive definite: near its start instead of anywhere
LOCAL = {"hf", "ar1@hf", "lin", "toep(2)", "toep(3)", "toeph(2)", "toeph(3)"}


@dataclass(frozen=True)
class Case:
    """A structure of a dimension, with its number of parameters as the manuals count it."""

    label: str
    build: Callable[[], Covariance]
    count: int

    @property
    def local(self) -> bool:
        return self.label.split("/")[0] in LOCAL

    def draw(self, rng: np.random.Generator, covariance: Covariance) -> Array:
        """A random x: anywhere, or near the start for structures that can be indefinite."""
        if self.local:
            return covariance.start() + 0.08 * rng.uniform(-1, 1, covariance.size)
        if covariance.spatial:
            return covariance.start() + rng.uniform(-1.0, 0.4, covariance.size)
        return rng.normal(size=covariance.size)


def places(q: int, dimension: int = 2) -> Array:
    """Irregular places."""
    return np.random.default_rng(q).uniform(0, 3.0, (q, dimension))


def kinship(q: int) -> Array:
    """A positive definite known matrix."""
    root = np.random.default_rng(10 + q).normal(size=(q, q))
    return root @ root.T / q + 0.2 * np.eye(q)


def count(name: str, t: int, q: int) -> int:
    """Parameters as PROC MIXED counts them, dimension t and order q."""
    band = q * (2 * t - q + 1) // 2
    counts = {"us": t * (t + 1) // 2, "un": band, "diag": t, "id": 1, "csh": t + 1, "ar1h": t + 1, "ad": t, "adh": 2 * t - 1}
    counts |= {"toep": q, "toeph": t + q - 1, "arma": 3, "hf": t + 1, "fa": band + t, "fa0": band, "fa1": band + 1, "known": 1}
    return counts.get(name, 3 if name == "matern" else 2)


def cases() -> Iterator[Case]:
    """Every structure in several dimensions and orders, and products of them."""
    for name, row in STRUCTURES.items():
        if row.takes == "matrices":
            yield from _matrices(name)
        else:
            for q in (2, 3, 5):
                yield from _of_dimension(name, q)
    yield from _products()


def _of_dimension(name: str, q: int) -> Iterator[Case]:
    row = STRUCTURES[name]
    if q < row.minimum:
        return
    if row.takes == "places":
        line = 1 if name == "sp_lin" else 2
        yield Case(f"{name}/{q}", lambda: make(name, q, coords=places(q, line)), count(name, q, 0))
        yield Case(f"{name}+nugget/{q}", lambda: make(name, q, coords=places(q, line), nugget=True), count(name, q, 0) + 1)
        if name == "matern":
            yield Case(f"matern nu=1.5/{q}", lambda: make(name, q, coords=places(q), nu=1.5), 2)
        return
    if row.takes != "order":
        yield Case(f"{name}/{q}", lambda: make(name, q), count(name, q, q))
        for orders in ((1, 0), (0, 1), (2, 0), (0, 2), (2, 2)) if row.takes == "orders" else ():
            if sum(orders) < q:
                yield Case(f"{name}{orders}/{q}", lambda orders=orders: make(name, q, orders), 1 + sum(orders))  # type: ignore[misc]
        return
    full = q if name.startswith(("toep", "un")) else 1
    yield Case(f"{name}/{q}", lambda: make(name, q), count(name, q, full))
    for order in (2, 3):
        if order < q:
            yield Case(f"{name}({order})/{q}", lambda order=order: make(name, q, order), count(name, q, order))  # type: ignore[misc]


PRODUCTS = (
    ("us@ar1", 4), ("us@cs", 4), ("us@us", 8), ("ar1@ar1", 3), ("ar1@id", 2), ("id@toep", 3), ("ar1h@ar1", 4), ("ar1@csh", 5),
    ("sp_exp@ar1", 3), ("car1@car1", 3), ("matern@ad", 5), ("fa@ar1", 5), ("diag@us", 7), ("ar1@hf", 5), ("us@ar1@cs", 5), ("ar1@us@ad", 8),
)  # fmt: skip
"""Products and the number of their parameters over 2 x 3 (x 2) rows."""


def _products() -> Iterator[Case]:
    for name, size in PRODUCTS:
        dims = (2, 3, 2)[: name.count("@") + 1]
        yield Case(f"{name}/{dims}", lambda name=name, dims=dims: make(name, int(np.prod(dims)), dims=dims), size)  # type: ignore[misc]
        if structure(name).homogeneous:
            nugget = lambda name=name, dims=dims: make(name, int(np.prod(dims)), dims=dims, nugget=True)  # noqa: E731
            yield Case(f"{name}+nugget/{dims}", nugget, size + 1)  # type: ignore[misc]


def _matrices(name: str) -> Iterator[Case]:
    for q in (2, 4):
        if name == "known":
            yield Case(f"known/{q}", lambda q=q: make("known", q, matrices=[kinship(q)]), 1)  # type: ignore[misc]
        else:
            swap = np.eye(q)[::-1] - np.diag(np.diag(np.eye(q)[::-1]))
            given = [np.eye(q), kinship(q), 0.5 * (swap + swap.T)]
            yield Case(f"lin/{q}", lambda q=q, given=given: make("lin", q, matrices=given), 3)  # type: ignore[misc]


CASES = tuple(cases())
