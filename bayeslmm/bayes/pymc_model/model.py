"""`to_pymc`: a model as an ordinary `pm.Model` with named dims and coords, by the same priors and the same kernel as everything else.

marginal : alpha and the covariance parameters are variables, the random effects are integrated out by the kernel
hierarchical : every random effect is a variable
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor import TensorVariable

from bayeslmm._arrays import Array
from bayeslmm._validation import require_one_of
from bayeslmm.bayes.log_posterior.conditional import conditional_likelihood, error_likelihood
from bayeslmm.bayes.log_posterior.density import Density, density
from bayeslmm.bayes.log_posterior.transforms import GeneralTransform
from bayeslmm.bayes.posterior.data import group_columns, tree_names
from bayeslmm.bayes.pymc_model.covariance import GraphMatrix, MatrixNames, covariance_matrix, report_correlations, sd_vector
from bayeslmm.bayes.pymc_model.distributions import ArrayAndJacobian, ValueAndGradient, coefficients, positive_variable, real_variable
from bayeslmm.bayes.sampling.mode import mode_start
from bayeslmm.covariance.scaled import Homogeneous
from bayeslmm.data.design import Design
from bayeslmm.errors import MismatchError
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.prediction import conditional_covariances
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.likelihood.structured.residual_covariance import ErrorDraws
from bayeslmm.results.random_effects import terms_by_group

CENTRED_SHARE = 0.5
"""A term is centred when its effects keep less than this share of their variance once the data are seen."""


def choose_centred(target: Density, phi: Array) -> list[bool]:
    """Whether each term is better sampled centred, judged at parameters near the mode."""
    problem = target.problem
    if not problem.design.terms:
        return []
    x, s = target.kernel_points(phi[None])
    state = problem.criterion.kernel.evaluate(x, derivatives=True)
    point = CriterionPoint(x[0], 0.0, np.zeros(0), None, float(s[0]) ** 2, state)
    left = conditional_covariances(problem, point)
    found = []
    for block, own in zip(target.layout.terms, left, strict=True):
        D = np.diagonal(block.covariance(phi[None])[0])
        kept = np.diagonal(own, axis1=1, axis2=2).mean(0) / np.where(D > 0, D, np.inf)
        found.append(bool(np.all(D > 0) and kept.mean() < CENTRED_SHARE))
    return found


def random_effects_graph(
    problem: Problem, X: TensorVariable, terms: Sequence[GraphMatrix], centred: Sequence[bool]
) -> list[TensorVariable]:
    """Z beta (n,) of every grouping factor; the effects are `beta_<group>` (levels, terms)."""
    design, found = problem.design, []
    called = tree_names(problem).groups
    for factor, members in terms_by_group(design.terms).items():
        group = called[factor]
        dims, alone = (group, f"{group}_term"), len(members) == 1
        parts = []
        for i in members:
            name = f"beta_{group}" if alone else f"beta_{group}[{members.index(i) + 1}]"
            parts.append(_effects(problem, i, terms[i], name, centred[i], dims if alone else None))
        beta = parts[0] if alone else pm.Deterministic(f"beta_{group}", pt.concatenate(parts, axis=1), dims=dims)
        first = design.terms[members[0]]
        Z = pm.Data(f"Z_{group}", np.concatenate([design.terms[i].Z for i in members], axis=1), dims=("obs", dims[1]))
        codes = pm.Data(f"index_{group}", first.group.codes, dims=("obs",))
        found.append(pt.sum(_join_columns(Z, X, design, members, group) * beta[codes], axis=1))
    return found


def _join_columns(Z: TensorVariable, X: TensorVariable, design: Design, members: Sequence[int], group: str) -> TensorVariable:
    """Z, which is refused where its columns that are columns of X are no longer those: new rows of one are new rows of the other."""
    columns = np.concatenate([design.terms[i].Z for i in members], axis=1)
    shared = [(a, j) for a in range(columns.shape[1]) for j in range(design.X.shape[1]) if np.array_equal(columns[:, a], design.X[:, j])]
    shared = [(a, j) for a, j in shared if not np.all(design.X[:, j] == design.X[:1, j])]
    if not shared:
        return Z
    own, fixed = (list(places) for places in zip(*shared, strict=True))
    refusal = CheckAndRaise(GraphDataError, f"X and Z_{group} have columns in common that were set apart: give both to pm.set_data")
    return refusal(Z, pt.all(pt.eq(Z[:, own], X[:, fixed])))


class GraphDataError(MismatchError):
    """Data of a graph that do not belong together; PyTensor raises it with one text."""

    def __init__(self, what: str) -> None:
        super().__init__(what, "pm.set_data", 'pm.set_data({"X": ..., "Z_<group>": ...}) with columns of the same rows')


def _effects(problem: Problem, i: int, term: GraphMatrix, name: str, centred: bool, dims: tuple[str, str] | None) -> TensorVariable:
    design, q = problem.design.terms[i], term.covariance.q
    shape = (design.group.size, q)
    named = {"shape": shape} if dims is None else {"dims": dims}
    A = design.relationship
    if centred and A is None:
        if q == 1:
            return pm.Normal(name, 0.0, term.T[0, 0], **named)
        return pm.MvNormal(name, np.zeros(q), chol=term.T, **named)
    z = pm.Normal(f"{name} (standard)", 0.0, 1.0, **named)
    own = z if A is None else pt.as_tensor_variable(np.linalg.cholesky(A)) @ z
    return pm.Deterministic(name, own @ term.T.mT, dims=dims)


GRAPH_FORMS = ("marginal", "hierarchical")


def to_pymc(model: Any, form: str = "marginal") -> pm.Model:
    """The `pm.Model` of a model.

    Raises SpecificationError for another form, PriorError for names that the model does not have.

    >>> sorted(variable.name for variable in to_pymc(model).free_RVs)
    ['alpha', 'corr_Subject', 'sd_Subject', 'sigma']
    """
    require_one_of(form, GRAPH_FORMS, "form")
    target = density(model.problem, model.spec.priors)
    builder = GraphBuilder(target, mode_start(target))
    with pm.Model(coords=graph_coordinates(target)) as graph:
        return builder.marginal(graph) if form == "marginal" else builder.hierarchical(graph)


def graph_coordinates(target: Density) -> dict[str, list[Any]]:
    """The dims of a graph and their labels."""
    design = target.problem.design
    coords: dict[str, list[Any]] = {"coef": [design.coef_names[i] for i in design.kept], "obs": list(range(design.nobs))}
    called = tree_names(target.problem).groups
    for group, names in group_columns(target).items():
        coords[f"{called[group]}_term"] = coords[f"{called[group]}_term_bis"] = names
    for term in design.terms:
        coords[called[term.group.name]] = [str(level) for level in term.group.levels]
    if target.layout.sets and target.layout.sets[0].own.by_visit:
        coords["visit"] = coords["visit_bis"] = list(target.layout.sets[0].own.labels)
    return coords


def response_variable(problem: Problem, taken: list[str]) -> str:
    """The variable of the response is named after it."""
    name = tree_names(problem).response
    return f"{name} (response)" if name in taken else name


@dataclass(frozen=True, slots=True, eq=False)
class GraphBuilder:
    """Puts the variables of a model into the graph on the context stack; `begin` is phi near the mode."""

    target: Density
    begin: Array

    @property
    def problem(self) -> Problem:
        return self.target.problem

    # -- parameters -----------------------------------------------------------------------------------------------------------------------

    def alpha(self) -> TensorVariable:
        """alpha, moved on standardized axes."""
        return coefficients("alpha", self.target.alpha, ("coef",))

    def terms(self) -> list[GraphMatrix]:
        """D of every term, in the order of the formula."""
        design, found = self.problem.design, {}
        called = tree_names(self.problem).groups
        for factor, members in terms_by_group(design.terms).items():
            group, columns = called[factor], group_columns(self.target)[factor]
            dim = f"{group}_term"
            sds = self._group_sds(group, members, columns)
            for i in members:
                block = self.target.layout.terms[i]
                alone = len(members) == 1
                corr = f"corr_{group}" if alone else f"corr_{group}[{members.index(i) + 1}]"
                names = MatrixNames(f"sd_{group}", corr, dim, f" | {group}", design.terms[i].columns)
                found[i] = covariance_matrix(block.axes, block.term.covariance, sds[i], names, self.begin[block.part])
            own = [found[i] for i in members]
            known = [name for name in pm.modelcontext(None).named_vars if name in (f"sd_{group}", f"corr_{group}")]
            if f"sd_{group}" not in known:
                pm.Deterministic(f"sd_{group}", pt.concatenate([m.sds for m in own]), dims=(dim,))
            if any(m.correlated for m in own) and f"corr_{group}" not in known:
                report_correlations(f"corr_{group}", own, dim)
        return [found[i] for i in range(len(design.terms))]

    def _group_sds(self, group: str, members: list[int], columns: list[str]) -> dict[int, TensorVariable | None]:
        """The sds of every term of a group: one vector where each column has its own, else term by term."""
        blocks = {i: self.target.layout.terms[i] for i in members}
        axes = {i: block.axes for i, block in blocks.items()}
        priors = {i: [row.prior for row in self.target.priors.terms[i].sds] for i in members}
        found: dict[int, TensorVariable | None] = {}
        if all(len(priors[i]) == blocks[i].term.covariance.q for i in members) and not any(
            isinstance(a, GeneralTransform) for a in axes.values()
        ):
            flat = [prior for i in members for prior in priors[i]]
            whole = sd_vector(f"sd_{group}", flat, f"{group}_term", columns)
            at = 0
            for i in members:
                found[i] = whole[at : at + len(priors[i])]
                at += len(priors[i])
            return found
        for i in members:
            name = f"sd_{group}[{members.index(i) + 1}]" if len(members) > 1 else f"sd_{group}[all]"
            if isinstance(axes[i], GeneralTransform):
                found[i] = None
            elif len(priors[i]) == 1:
                found[i] = positive_variable(name, priors[i])[None]
            else:
                parts = zip(self.problem.design.terms[i].columns, priors[i], strict=True)
                found[i] = pt.stack([positive_variable(f"sd_{group}[{label}]", [prior]) for label, prior in parts])
        return found

    def residual(self) -> tuple[TensorVariable, TensorVariable | None]:
        """The parameters behind the random terms in the order of the kernel, and sigma where R has no scale of its own."""
        parts: list[TensorVariable] = []
        for block, own in zip(self.target.layout.sets, self.target.priors.residual, strict=True):
            suffix, labels = block.own.suffix, block.own.labels
            names = MatrixNames(f"sd_residual{suffix}", f"corr_residual{suffix}", "visit", suffix, labels)
            priors = [row.prior for row in own.sds]
            sds: TensorVariable | None = None
            if isinstance(block.covariance, Homogeneous):
                sds = positive_variable(f"sd{suffix}" if suffix else "sigma", priors)[None]
            elif not isinstance(block.axes, GeneralTransform):
                sds = sd_vector(names.sd, priors, "visit", labels)
            parts.append(covariance_matrix(block.axes, block.covariance, sds, names, self.begin[block.part]).x)
        kernel = self.problem.structured
        if kernel is not None and kernel.variance.size:
            parts.append(self._variance())
        if self.target.layout.sigma is None:
            return pt.concatenate(parts), None
        assert self.target.priors.sigma is not None
        sigma = positive_variable("sigma", [self.target.priors.sigma.prior])
        return pt.concatenate([*parts, pt.log(sigma)[None]]), sigma

    def _variance(self) -> TensorVariable:
        """The free parameters of the variance function, their natural values variables by name."""
        kernel, block = self.problem.structured, self.target.layout.variance
        assert kernel is not None
        assert block is not None
        found = []
        for name, prior, log_axis in zip(kernel.variance.names, block.priors, block.positive, strict=True):
            found.append(pt.log(positive_variable(name, [prior])) if log_axis else real_variable(name, prior))
        return pt.stack(found)

    # -- the two forms --------------------------------------------------------------------------------------------------------------------

    def marginal(self, graph: pm.Model) -> pm.Model:
        """y given alpha and the covariance parameters, beta integrated out."""
        alpha = self.alpha()
        terms = self.terms()
        error_parameters, _ = self.residual()
        own = pt.concatenate([*(term.x for term in terms), error_parameters])
        function = MarginalFunction(self.problem)
        node = ValueAndGradient(function, (function.size, self.problem.criterion.p))
        draw = ResponseDraw(self.problem)
        name = response_variable(self.problem, list(graph.named_vars))
        design = self.problem.design
        mean = pt.as_tensor_variable(design.X) @ alpha + (0.0 if design.offset is None else design.offset)
        pm.CustomDist(
            name,
            own,
            alpha,
            mean,
            logp=lambda value, own, alpha, mean: node(own, alpha, value)[0],
            random=draw,
            signature="(k),(p),(n)->(n)",
            observed=self.problem.design.y,
            dims=("obs",),
        )
        return graph

    def hierarchical(self, graph: pm.Model) -> pm.Model:
        """y given alpha and every beta."""
        design = self.problem.design
        X = pm.Data("X", design.X, dims=("obs", "coef"))
        mu = X @ self.alpha()
        terms = self.terms()
        if design.offset is not None:
            mu = mu + pm.Data("offset", design.offset, dims=("obs",))
        mu = mu + sum(random_effects_graph(self.problem, X, terms, choose_centred(self.target, self.begin)))
        error_parameters, sigma = self.residual()
        name = response_variable(self.problem, list(graph.named_vars))
        if design.residual is None:
            assert sigma is not None
            pm.Normal(name, mu, self._row_sds(sigma, error_parameters), observed=design.y, dims=("obs",))
            return graph
        errors = error_likelihood(self.problem)
        node = ValueAndGradient(errors.at, (errors.layout.size, design.nobs))
        pm.CustomDist(
            name,
            mu,
            error_parameters,
            logp=lambda value, mu, error_parameters: node(error_parameters, value - mu)[0],
            random=ErrorDraw(self.problem),
            signature="(n),(k)->(n)",
            observed=design.y,
            dims=("obs",),
        )
        return graph

    def _row_sds(self, sigma: TensorVariable, error_parameters: TensorVariable) -> TensorVariable:
        """The residual sd of every row of independent errors."""
        design, kernel = self.problem.design, self.problem.structured
        sd = sigma
        if design.weights is not None:
            sd = sigma / pt.sqrt(pm.Data("weights", design.weights * design.weight_scale, dims=("obs",)))
        if kernel is None or not kernel.variance.size:
            return sd
        node = ArrayAndJacobian(kernel.variance.log_multiplier, kernel.variance.size, (design.nobs,))
        return sd * pt.exp(node(error_parameters[: kernel.variance.size])[0])


class MarginalFunction:
    """log p(y | alpha, covariance parameters) for any y: cross-products are made anew only when y is another."""

    def __init__(self, problem: Problem) -> None:
        self.likelihood = conditional_likelihood(problem)
        self.size = self.likelihood.size

    def __call__(self, own: Array, alpha: Array, y: Array) -> tuple[float, Array, Array]:
        design = self.likelihood.problem.design
        if y is not design.y and not np.array_equal(y, design.y):
            self.likelihood = conditional_likelihood(build_problem(replace(design, y=np.array(y, float))))
        return self.likelihood.at(own, alpha)


@dataclass(frozen=True, slots=True, eq=False)
class ErrorDraw:
    """Responses around a given mean with errors drawn from R."""

    problem: Problem

    def __call__(self, mu: Array, error_parameters: Array, rng: np.random.Generator | None = None, size: Any = None) -> Array:
        generator = np.random.default_rng() if rng is None else rng
        k = self.problem.random.size
        own = np.concatenate([np.zeros(k), error_parameters])
        x, sigma = kernel_errors(self.problem, own)
        count = int(np.prod(size)) if size is not None and len(size) else 1
        errors = ErrorDraws.at(self.problem, x)
        found = np.stack([mu + errors.draw(sigma, generator) for _ in range(count)])
        return found.reshape((*size, len(mu))) if size is not None and len(size) else found[0]


@dataclass(frozen=True, slots=True, eq=False)
class ResponseDraw:
    """Responses drawn at given parameters with new random effects."""

    problem: Problem

    def __call__(self, own: Array, alpha: Array, mean: Array, rng: np.random.Generator | None = None, size: Any = None) -> Array:
        generator = np.random.default_rng() if rng is None else rng
        design, k = self.problem.design, self.problem.random.size
        for term, parameters in zip(design.terms, self.problem.random.terms, strict=True):
            T = parameters.covariance.factor(own[parameters.part])
            beta = generator.standard_normal((term.group.size, len(T))) @ T.T
            if term.relationship is not None:
                beta = np.linalg.cholesky(term.relationship) @ beta
            mean = mean + term.effects(beta)
        return ErrorDraw(self.problem)(mean, own[k:], generator, size)


def kernel_errors(problem: Problem, own: Array) -> tuple[Array, float]:
    """x of the kernel and sigma, for drawing errors."""
    layout = conditional_likelihood(problem).layout
    k, rest = problem.random.size, own[problem.random.size :]
    x = np.zeros(problem.size)
    if layout.sigma is not None:
        x[k:] = rest[:-1]
        return x, float(np.exp(rest[-1])) / float(np.sqrt(problem.design.weight_scale))
    degrees = np.concatenate([block.covariance.degrees for block in layout.sets])
    full, lead = rest[: len(degrees)], float(rest[0])
    x[k:] = np.concatenate([(full / lead**degrees)[1:], rest[len(degrees) :]])
    return x, lead / float(np.sqrt(problem.design.weight_scale))
