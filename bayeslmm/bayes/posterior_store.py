"""What a saved posterior holds: the model as it was said, the rows it used, and every draw to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.arrays import readonly
from bayeslmm.errors import MismatchError
from bayeslmm.results.container import write_container
from bayeslmm.results.frames import Arrays
from bayeslmm.results.plain import told, untold
from bayeslmm.results.store import held_fitted, stored_model

if TYPE_CHECKING:
    from bayeslmm.bayes.posterior import Draws, Posterior

AGREES = 1e-8
"""Largest difference, relative to its size, between a stored log density and the one evaluated on opening."""


def save(post: Posterior, path: Path) -> None:
    """Write a posterior to exactly this path. Errors: StoreError."""
    arrays: Arrays = {}
    content = stored_model(post.model, arrays)
    held = held_fitted(post.problem)
    if held is not None:
        arrays["fitted"] = held
    content["posterior"] = {
        "chains": post.chains,
        "method": post.method,
        "checks": told(list(post.checks.values())),
        "elapsed": post.elapsed,
        "evidence": None if post.evidence is None else float(post.evidence),
        "interrupted": post.interrupted,
        "terms": len(post.draws.beta),
    }
    arrays |= {"draws/phi": post.draws.phi, "draws/alpha": post.draws.alpha, "draws/log_density": post.draws.log_density}
    arrays |= {f"draws/beta/{i}": beta for i, beta in enumerate(post.draws.beta)}
    arrays |= {f"statistics/{name}": np.asarray(values) for name, values in post.statistics.items()}
    write_container(path, content, arrays)


def demand_same_density(post: Posterior, path: str) -> None:
    """Raise MismatchError unless the density at the first draw is the stored one."""
    if not post.draws.size:
        return
    stored, value = float(post.draws.log_density[0]), float(post.density.values(post.draws.phi[:1])[0])
    if not abs(value - stored) <= AGREES * max(1.0, abs(stored)):
        raise MismatchError(f"the log density of the saved posterior is {stored:.6f}; evaluated again it is {value:.6f}", path, "sample again")


def opened_values(content: dict[str, Any]) -> dict[str, Any]:
    """The plain values of a saved posterior."""
    values = dict(content["posterior"])
    values["checks"] = {check.name: check for check in untold(values["checks"])}
    return values


def opened_arrays(arrays: Arrays, terms: int) -> tuple[Any, ...]:
    """phi, alpha, beta and log density of a saved posterior."""
    beta = tuple(readonly(arrays[f"draws/beta/{i}"]) for i in range(terms))
    return readonly(arrays["draws/phi"]), readonly(arrays["draws/alpha"]), beta, readonly(arrays["draws/log_density"])
