"""Where a report comes from: versions, date, seed, the criterion to the last digit, a fingerprint of the rows."""

from __future__ import annotations

import hashlib
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.errors import BayesLMMError
from bayeslmm.formula import variance_text
from bayeslmm.reports.page import Section

if TYPE_CHECKING:
    from bayeslmm.results.fit import Fit

PACKAGES = ("bayeslmm", "numpy", "scipy", "pandas", "formulaic")
SAMPLING = ("pymc", "arviz", "nutpie")


def provenance_section(section: Section, fit: Fit, posterior: Any, seed: int | None) -> None:
    """What a second person needs to see the same numbers."""
    section.code(call(fit))
    steps = len(fit.path)
    facts = [
        ("Criterion", f"{fit.criterion!r}"),
        ("Largest derivative of it", f"{float(np.abs(fit.estimate.gradient).max(initial=0.0)):.2g}"),
        ("Search", f"{'converged' if fit.converged else 'not converged'} after {steps} evaluations, {fit.elapsed:.2g} s"),
        ("Rows", f"{fit.nobs:,} of {fit.design.n_read:,}; fingerprint {fingerprint(fit)}"),
    ]
    if posterior is not None:
        facts.append(("Seed of the draws", "none: other draws will differ" if seed is None else str(seed)))
    if fit.model.counting != "lme4":
        facts.append(("AIC and BIC", f"counted as {'SAS' if fit.model.counting == 'sas' else fit.model.counting} counts them"))
    section.facts([*facts, *versions(sampling=posterior is not None)])


def call(fit: Fit) -> str:
    """The call that makes the fit, but for its data and for arrays."""
    spec = fit.design.spec
    said: dict[str, Any] = {
        "residual": None if spec.residual is None else spec.residual.text,
        "variance": variance_text(spec.variance) if spec.variance else None,
        "weights": spec.weights,
        "offset": spec.offset,
        "contrasts": dict(spec.contrasts) or None,
    }
    options = "".join(f", {name}={value!r}" for name, value in said.items() if value is not None)
    method = "" if fit.method == "REML" else repr(fit.method)
    return f"blm.LMM({fit.formula!r}, data{options}).fit({method})"


def fingerprint(fit: Fit) -> str:
    """The beginning of a digest of response, X and levels of the rows used: equal where a second person has the same rows."""
    digest = hashlib.sha256()
    try:
        for array in (fit.design.y, fit.design.X, *(term.group.codes for term in fit.design.terms)):
            digest.update(np.ascontiguousarray(array).tobytes())
    except BayesLMMError:
        return "none, the rows were read in parts"
    return digest.hexdigest()[:16]


def versions(*, sampling: bool = False) -> list[tuple[str, str]]:
    """Date, Python and packages."""
    names = PACKAGES + (SAMPLING if sampling else ())
    told = ", ".join(f"{name} {found}" for name in names if (found := _version(name)))
    return [
        ("Date", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("Versions", told),
        ("Machine", f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"),
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
