"""Is there a posterior? Priors that are improper are refused where the likelihood does not make up for them."""

from __future__ import annotations

from bayeslmm.bayes.priors import ModelPriors, ParameterPrior
from bayeslmm.errors import PriorError
from bayeslmm.estimate.prior_density import proper
from bayeslmm.likelihood.problem import Problem

REMEDY = 'give it a proper prior, such as ("half_t", 3, scale), or leave it to the default'


def improper(priors: ModelPriors) -> list[ParameterPrior]:
    """The priors that do not integrate to 1, alpha included."""
    return [row for row in priors.rows() if row.kind != "corr" and not proper(row.prior)]


def demand_proper_posterior(problem: Problem, priors: ModelPriors) -> None:
    """Raise PriorError with the reason where the posterior would not integrate."""
    design, p = problem.design, problem.criterion.p
    if design.nobs <= p and any(row.prior.family == "flat" for row in priors.alpha):
        raise _refuse(
            priors.alpha[0], f"there are {design.nobs} rows for {p} coefficients under a flat prior", 'use Priors(alpha="normal")'
        )
    for term, own in zip(design.terms, priors.terms, strict=True):
        levels, needed = term.group.size, term.Z.shape[1] + 2
        for row in own.sds:
            if row.prior.family == "gamma" and not proper(row.prior):
                raise _refuse(row, "its density grows without limit: it keeps a mode off the boundary and is meant for fit('MAP')", REMEDY)
            if row.prior.family == "flat" and levels < needed:
                raise _refuse(row, f"{levels} levels of {term.group.name} do not bound an sd under a flat prior ({needed} would)", REMEDY)
            if row.prior.family == "flat" and design.unidentified:
                raise _refuse(row, design.unidentified[0].what, REMEDY)
        _demand_shapes(own.shapes)
    scales = [row for own in priors.residual for row in own.sds]
    scales += [] if priors.sigma is None else [priors.sigma]
    for row in scales:
        if not proper(row.prior) and (row.prior.family == "gamma" or design.nobs - p < 2 or design.unidentified):
            raise _refuse(row, "the rows left over do not bound the residual sd", REMEDY)
    for own in priors.residual:
        _demand_shapes(own.shapes)
    _demand_shapes(priors.variance)


def _demand_shapes(rows: tuple[ParameterPrior, ...]) -> None:
    for row in rows:
        if not proper(row.prior):
            raise _refuse(row, "the likelihood does not bound it", "give it a proper prior")


def _refuse(row: ParameterPrior, reason: str, remedy: str) -> PriorError:
    return PriorError(f"the posterior of {row.label} under a {row.prior.family} prior is improper: {reason}", row.label, remedy)


def demand_evidence(priors: ModelPriors) -> None:
    """Raise PriorError unless every prior is proper."""
    loose = improper(priors)
    if loose:
        names = ", ".join(row.label for row in loose[:6])
        remedy = 'use proper priors: Priors(alpha="normal") and the defaults for the rest'
        raise PriorError(f"the evidence needs proper priors; improper: {names}", names, remedy)
