"""`to_bambi`: the equivalent Bambi model of what Bambi can express, with the same priors.

Bambi is given the columns of the design under the names that coefficients have, so that coding, functions and contrasts are the same by
construction.
"""

from __future__ import annotations

from typing import Any

import bambi as bmb
import numpy as np
import pandas as pd

from bayeslmm.bayes.log_posterior.density import density
from bayeslmm.bayes.log_posterior.priors import ModelPriors, improper_priors
from bayeslmm.bayes.posterior.data import plain_name, plain_response
from bayeslmm.data.design import Design, RandomTerm
from bayeslmm.errors import SpecificationError
from bayeslmm.specification.prior_families import FAMILIES, Prior


def to_bambi(model: Any) -> bmb.Model:
    """The `bambi.Model` of a model with independent random effects and independent errors.

    Raises SpecificationError that names what Bambi cannot express: correlated random effects, structures, weights, relationship matrices.

    >>> blm.LMM("Reaction ~ Days + (Days || Subject)", sleepstudy).to_bambi().formula
    Formula('Reaction ~ 1 + Days + (1|Subject) + (0 + Days|Subject)')
    """
    design: Design = model.design
    _require_expressible(design)
    priors = density(model.problem, model.spec.priors).priors
    require_proper_scales(priors)
    columns: dict[str, Any] = {}
    response = _column(columns, plain_response(design), design.y)
    parts, own = _fixed_part(design, priors, columns)
    for term, sds in zip(design.terms, priors.terms, strict=True):
        group = _column(columns, term.group.name, np.array([str(level) for level in term.group.levels], object)[term.group.codes])
        for j, name in enumerate(term.columns):
            constant = bool(np.all(term.Z[:, j] == 1.0))
            left = "1" if constant else _column(columns, name, term.Z[:, j])
            parts.append(f"({left}|{group})" if constant else f"(0 + {left}|{group})")
            own[f"{left.strip('`')}|{group.strip('`')}"] = bmb.Prior("Normal", mu=0.0, sigma=_prior(sds.sds[j].prior))
    if design.offset is not None:
        parts.append(f"offset({_column(columns, 'offset', design.offset)})")
    assert priors.sigma is not None
    own["sigma"] = _prior(priors.sigma.prior)
    formula = f"{response} ~ {' + '.join(parts)}"
    return bmb.Model(
        formula, pd.DataFrame(columns), priors=own, center_predictors=any(row.centred for row in priors.alpha), auto_scale=False
    )


def _fixed_part(design: Design, priors: ModelPriors, columns: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The terms of the fixed part, and their priors."""
    parts, own = ["0"], {}
    for j, i in enumerate(design.kept):
        name, prior = design.coef_names[i], _prior(priors.alpha[j].prior)
        if np.all(design.X[:, j] == 1.0):
            parts[0], own["Intercept"] = "1", prior
        else:
            quoted = _column(columns, name, design.X[:, j])
            parts.append(quoted)
            own[quoted.strip("`")] = prior
    return parts, own


OWN_NAMES = ("Intercept", "mu", "sigma")
"""Variables and parameters of Bambi's own models."""


def _column(columns: dict[str, Any], name: str, values: Any) -> str:
    """Keep a column under a name that Bambi can give a variable, and give the name as a formula takes it."""
    # Bambi parts "effect|group" at the bar, and a name ends at its backtick
    name = plain_name(name).translate({ord("|"): ";", ord("`"): "'"})
    known = columns.get(name)
    if name in OWN_NAMES or (known is not None and not np.array_equal(np.asarray(known), np.asarray(values))):
        return _column(columns, f"{name} (2)", values)
    columns[name] = values
    return name if name.isidentifier() and not name.startswith("_") else f"`{name}`"


def _prior(prior: Prior) -> bmb.Prior | float:
    if prior.family == "fixed":
        return prior.parameters[0]
    if prior.family == "flat":
        return bmb.Prior("Flat", auto_scale=False)
    name, parameters = FAMILIES[prior.family].graph
    own = dict(zip(parameters, prior.parameters, strict=False)) | ({"lower": 0.0} if prior.family == "truncated_normal" else {})
    if not name:
        raise SpecificationError(f"Bambi has no {prior.family} prior", prior.family, "use to_pymc(), or model.sample()")
    return bmb.Prior(name, auto_scale=False, **own)


def _require_expressible(design: Design) -> None:
    for what, where in _list_unsupported(design):
        raise SpecificationError(f"Bambi has no {what}", where, "use to_pymc(), or model.sample()")


def _list_unsupported(design: Design) -> list[tuple[str, str]]:
    """What Bambi cannot express, and where it is."""
    found = []
    if design.residual is not None:
        found.append(("residual covariance structures", design.residual.spec.text))
    if design.variance:
        found.append(("variance functions of this kind", ", ".join(factor.kind for factor in design.variance)))
    if design.weights is not None:
        found.append(("weights of the residual variance (its weights multiply log likelihoods)", "weights"))
    for term in design.terms:
        found += _unsupported_term(term)
    return found


def _unsupported_term(term: RandomTerm) -> list[tuple[str, str]]:
    found = []
    if term.relationship is not None:
        found.append(("relationship matrices", term.group.name))
    if term.Z.shape[1] > 1 and term.covariance.name == "us":
        text = f"({term.spec.text})"
        found.append(("correlated random effects; it would fit them as independent ones, (x || g)", text))
    elif term.Z.shape[1] > 1 and term.covariance.name != "diag":
        found.append((f"structure {term.covariance.name} of random effects", term.spec.text))
    return found


def require_proper_scales(priors: ModelPriors) -> None:
    """Raise SpecificationError for priors of scales that Bambi cannot hold: those that do not integrate."""
    loose = [row.label for row in improper_priors(priors) if row.kind != "alpha"]
    if loose:
        raise SpecificationError("Bambi has no improper priors of standard deviations", ", ".join(loose), "give proper priors")
    held = [row.label for row in priors.rows() if row.kind == "sd" and row.prior.family == "fixed"]
    if held:
        raise SpecificationError("Bambi has no standard deviations that are held", ", ".join(held), "use to_pymc(), or model.sample()")
