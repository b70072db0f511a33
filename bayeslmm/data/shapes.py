"""The covariance of a random term's columns: the structure of the registry, its dimension, and where its columns stand."""

from __future__ import annotations

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.covariance import Covariance, make
from bayeslmm.data.atoms import FactorAtom
from bayeslmm.data.blocks import Block
from bayeslmm.data.structures import is_spatial
from bayeslmm.errors import DesignError
from bayeslmm.formula.model import BarTerm


def term_covariance(bar: BarTerm, block: Block) -> Covariance:
    """The covariance of the columns of `block`.

    Errors: `DesignError` for a term without columns, a spatial structure whose columns have no coordinates, a Kronecker structure whose
    columns are not all pairs of two factors.
    """
    size = len(block.names)
    if not size:
        raise DesignError(f"({bar.text}) has no columns", "", "write (1 | g) for a random intercept")
    if is_spatial(bar.structure):
        return make(bar.structure, size, bar.order, coords=_places(bar, block))
    if "@" in bar.structure:
        return make(bar.structure, size, bar.order, dims=_dims(bar, block))
    return make(bar.structure, size, bar.order)


def _factors(block: Block) -> list[FactorAtom]:
    return [atom for atom in block.atoms.values() if isinstance(atom, FactorAtom)]


def _places(bar: BarTerm, block: Block) -> Array:
    """Coordinates of the columns `0 + f`: the levels of f read as numbers."""
    factors = _factors(block)
    try:
        return np.array([[float(level)] for level in factors[0].levels]) if len(factors[0].levels) == len(block.names) else _refuse(bar)
    except (IndexError, TypeError, ValueError):
        return _refuse(bar)


def _refuse(bar: BarTerm) -> Array:
    what = f"the columns of ({bar.text}) have no coordinates for {bar.structure!r}"
    raise DesignError(what, "", f"write {bar.structure}(0 + C(x) | {bar.name}) with levels of x that are numbers")


def _dims(bar: BarTerm, block: Block) -> tuple[int, int]:
    sizes = [len(atom.levels) for atom in _factors(block)]
    if len(sizes) != 2 or sizes[0] * sizes[1] != len(block.names):
        what = f"the columns of ({bar.text}) are not all pairs of two factors"
        raise DesignError(what, f"{len(block.names)} columns", f"write {bar.structure}(0 + outcome:visit | {bar.name})")
    return sizes[0], sizes[1]
