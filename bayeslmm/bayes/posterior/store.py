"""The file of a posterior: the model's arguments, the rows it used, and every draw to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bayeslmm.bayes.posterior.data import PosteriorData
from bayeslmm.errors import MismatchError
from bayeslmm.results.store import Arrays, stored_model, to_json, weighting_fitted_values, write_archive

DENSITY_AGREEMENT = 1e-8
"""Largest difference, relative to its size, between a stored log density and the one evaluated on opening."""


def save_posterior(post: PosteriorData, path: Path) -> None:
    """Write a posterior to exactly this path. Errors: StoreError."""
    arrays: Arrays = {}
    content = stored_model(post.model, arrays)
    held = weighting_fitted_values(post.problem)
    if held is not None:
        arrays["fitted"] = held
    content["posterior"] = {
        "chains": post.chains,
        "method": post.method,
        "checks": to_json(list(post.checks.values())),
        "evidence": None if post.evidence is None else float(post.evidence),
        "interrupted": post.interrupted,
        "terms": len(post.draws.beta),
    }
    arrays |= {"draws/phi": post.draws.phi, "draws/alpha": post.draws.alpha, "draws/log_density": post.draws.log_density}
    arrays |= {f"draws/beta/{i}": beta for i, beta in enumerate(post.draws.beta)}
    arrays |= {f"statistics/{name}": np.asarray(values) for name, values in post.statistics.items()}
    write_archive(path, content, arrays)


def require_same_density(post: PosteriorData, path: str) -> None:
    stored, value = float(post.draws.log_density[0]), float(post.density.values(post.draws.phi[:1])[0])
    if not abs(value - stored) <= DENSITY_AGREEMENT * max(1.0, abs(stored)):
        raise MismatchError(
            f"the log density of the saved posterior is {stored:.6f}; evaluated again it is {value:.6f}", path, "sample again"
        )
