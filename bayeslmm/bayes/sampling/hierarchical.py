"""Sampling the hierarchical graph, every random effect a variable, by nutpie or by PyMC's own NUTS: the same posterior, the slow way."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, get_args

import numpy as np

from bayeslmm._arrays import Array, Codes, seed_sequence, unspent
from bayeslmm._types import Sampler
from bayeslmm._validation import require_one_of
from bayeslmm.bayes.log_posterior.density import Density, density
from bayeslmm.bayes.log_posterior.priors import require_proper_posterior
from bayeslmm.bayes.log_posterior.transforms import GeneralTransform, ScaledTransform, UnstructuredTransform
from bayeslmm.bayes.posterior.data import PosteriorDraws, tree_names
from bayeslmm.bayes.posterior.posterior import Posterior
from bayeslmm.bayes.sampling.nuts import bfmi, ess, r_hat
from bayeslmm.covariance.linalg import cholesky
from bayeslmm.covariance.scaled import Homogeneous
from bayeslmm.covariance.unstructured import band_positions
from bayeslmm.errors import Check, DependencyError, optional, optional_packages
from bayeslmm.results.random_effects import terms_by_group

HIERARCHICAL_WARM_UP = 1000


def sample_hierarchical(
    model: Any, draws: int, chains: int, seed: int | None, *, sampler: Sampler, tune: int, options: Mapping[str, object]
) -> Posterior:
    """The posterior of a model by its hierarchical graph.

    sampler : "nutpie", "pymc", or "auto", nutpie where it is installed; tune : warm-up draws; options : those of the sampler

    Raises DependencyError where PyMC is absent, PriorError for an improper posterior.

    >>> post = model.sample(draws=200, seed=1, method="hierarchical")
    """
    require_one_of(sampler, get_args(Sampler), "sampler")
    number = seed_of_samplers(seed)  # what is no seed is refused before a graph is compiled
    begin = time.perf_counter()
    target = density(model.problem, model.spec.priors)
    require_proper_posterior(model.problem, target.priors)
    with optional_packages():
        from bayeslmm.bayes.pymc_model.model import to_pymc
    graph = to_pymc(model, "hierarchical")
    name, tree = draw_graph(graph, sampler, draws, chains, tune, number, options)
    kept, n = drawn_before_the_end(tree["posterior"])
    c = len(kept)
    if c * n == 0:  # only Ctrl-C ends a sampler before its first draw
        raise KeyboardInterrupt
    part = {"chain": kept, "draw": slice(n)}
    posterior = tree["posterior"].dataset.isel(part)
    phi = target_phi(target, posterior)
    alpha, mixing = _flat(posterior, "alpha"), target.layout.mixing
    if mixing is not None:
        phi[:, mixing.part] = mixing.draw_given(
            target.alpha.to_prior_scale(alpha)[:, target.alpha.mixed], np.random.default_rng(seed_sequence(seed))
        )
    found = PosteriorDraws(phi, alpha, effect_draws(target, posterior), target.values(phi))
    own = tree["sample_stats"].dataset.isel(part)
    statistics = {key: np.asarray(own[key]).ravel() for key in ("diverging", "energy") if key in own}
    interrupted = n < draws or c < chains
    checks = {check.name: check for check in (*_checks(name, phi.reshape(c, n, -1), statistics), *target.problem.design.notes)}
    if interrupted:
        remedy = "the draws so far are kept; sample again for the rest"
        checks["interrupted"] = Check("interrupted", "failed", c * n, draws * chains, remedy)
    return Posterior(
        model,
        target,
        found,
        chains=c,
        method=f"hierarchical ({name})",
        checks=checks,
        elapsed=time.perf_counter() - begin,
        interrupted=interrupted,
        statistics=statistics,
    )


def seed_of_samplers(seed: Any) -> int | None:
    """A seed as samplers of others take it, one whole number of 64 bits or None; what is larger, or several, is made one."""
    sequence = seed_sequence(seed)
    if seed is None or (isinstance(seed, int | np.integer) and seed < 2**64):
        return None if seed is None else int(seed)
    return int(unspent(sequence).generate_state(1, np.uint64)[0])


def draw_graph(
    graph: Any, sampler: str, draws: int, chains: int, tune: int, seed: int | None, options: Mapping[str, object]
) -> tuple[str, Any]:
    """Name of the sampler and its tree."""
    if sampler != "pymc":
        try:
            nutpie = optional("nutpie")
        except DependencyError:
            if sampler == "nutpie":
                raise
        else:
            with signals_afterwards():
                compiled = nutpie.compile_pymc_model(graph)
            own = {"progress_bar": False, **options}
            with interrupts_as_themselves():
                return "nutpie", nutpie.sample(compiled, draws=draws, tune=tune, chains=chains, seed=seed, **own)
    # left to itself, PyMC takes nutpie where that is installed
    own = {"progressbar": False, "compute_convergence_checks": False, "nuts_sampler": "pymc", **options}
    with graph, interrupts_as_themselves():
        return "pymc", optional("pymc").sample(draws=draws, tune=tune, chains=chains, random_seed=seed, **own)


def drawn_before_the_end(posterior: Any) -> tuple[Codes, int]:
    """The chains and the number of draws of each that were made: a sampler that was stopped fills up shorter chains with NaN.

    The most draws that chains of one length have among them.
    """
    c, n = int(posterior.sizes["chain"]), int(posterior.sizes["draw"])
    if c * n == 0:
        return np.arange(0), 0
    filled = np.ones((c, n), bool)
    for variable in posterior.data_vars.values():
        values = np.asarray(variable.values, float).reshape(c, n, -1)
        if values.shape[2]:
            filled &= np.isnan(values).all(axis=2)
    lengths = n - filled.sum(axis=1)
    longest = np.sort(lengths)[::-1]
    most = int(longest[np.argmax(longest * np.arange(1, c + 1))])
    return np.flatnonzero(lengths >= max(most, 1)), most


def _handle_again(handlers: dict[Any, Any]) -> None:
    """Give signals their handlers back, all of them: what one that came meanwhile raises comes out afterwards.

    A context that is thrown away is left in whatever thread does so, and only the main one may set handlers.
    """
    raised: BaseException | None = None
    while handlers and threading.current_thread() is threading.main_thread():
        try:
            number = next(iter(handlers))
            signal.signal(number, handlers[number])
            del handlers[number]
        except BaseException as error:
            raised = error
    if raised is not None:
        raise raised


def _raise_again(arrived: list[int]) -> None:
    """Raise signals one after another; what a handler raises keeps none of the others from its own."""
    try:
        if arrived:
            signal.raise_signal(arrived.pop(0))
    finally:
        if arrived:
            _raise_again(arrived)


@contextmanager
def signals_afterwards() -> Iterator[None]:
    """Signals are handled once what runs is done.

    A compiler calls back into Python from LLVM: what a handler raises there, as of Ctrl-C or of a timer, is lost, and what LLVM was making
    stays half made.
    """
    if threading.current_thread() is not threading.main_thread():  # where no handler runs
        yield
        return
    arrived: list[int] = []
    before = {number: handler for number in signal.valid_signals() if callable(handler := signal.getsignal(number))}
    try:
        for number in before:
            signal.signal(number, lambda came, frame: arrived.append(came))
        yield
    finally:
        try:
            _handle_again(before)
        finally:
            _raise_again(arrived)


@contextmanager
def interrupts_as_themselves() -> Iterator[None]:
    """Ctrl-C in a sampler of others, which some turn into an error about what is missing, comes out as KeyboardInterrupt."""
    pressed = False
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        before(number, frame)

    try:
        signal.signal(signal.SIGINT, press)
        yield
    except Exception as error:
        if pressed:
            raise KeyboardInterrupt from error
        raise
    finally:
        _handle_again({signal.SIGINT: before})


def _flat(posterior: Any, name: str) -> Array:
    values = np.asarray(posterior[name], float)
    return values.reshape(-1, *values.shape[2:])


def effect_draws(target: Density, posterior: Any) -> tuple[Array, ...]:
    """beta of every term, (S, K, q)."""
    found: dict[int, Array] = {}
    terms, called = target.problem.design.terms, tree_names(target.problem).groups
    for group, members in terms_by_group(terms).items():
        whole, begin = _flat(posterior, f"beta_{called[group]}"), 0
        for i in members:
            end = begin + terms[i].Z.shape[1]
            found[i] = whole[:, :, begin:end]
            begin = end
    return tuple(found[i] for i in range(len(terms)))


# -- from named variables to the axes of the density ---------------------------------------------------------------------------------------


def target_phi(target: Density, posterior: Any) -> Array:
    """phi (S, size) of the draws of a graph."""
    at = {str(name): _flat(posterior, name) for name in posterior.data_vars}
    S = int(posterior.sizes["chain"]) * int(posterior.sizes["draw"])
    phi, terms, called = np.empty((S, target.size)), target.problem.design.terms, tree_names(target.problem).groups
    for group, members in terms_by_group(terms).items():
        begin = 0
        for i in members:
            block, end = target.layout.terms[i], begin + terms[i].Z.shape[1]
            own = np.arange(begin, end)
            label = called[group]
            names = (f"sd_{label}", f"corr_{label}")
            phi[:, block.part] = _block(block.axes, block.term.covariance, at, *names, own, f" | {label}", terms[i].columns)
            begin = end
    for one in target.layout.sets:
        suffix = one.own.suffix
        sd = (f"sd{suffix}" if suffix else "sigma") if isinstance(one.covariance, Homogeneous) else f"sd_residual{suffix}"
        every = np.arange(one.covariance.q)
        phi[:, one.part] = _block(one.axes, one.covariance, at, sd, f"corr_residual{suffix}", every, suffix, one.own.labels)
    kernel = target.problem.structured
    if target.layout.variance is not None and kernel is not None:
        free = kernel.variance.free(np.stack([at[name] for name in kernel.variance.names], axis=-1))
        phi[:, target.layout.variance.part] = free / target.layout.variance.units
    if target.layout.sigma is not None:
        phi[:, target.layout.sigma_part] = target.layout.sigma.inverse(at["sigma"].reshape(S, 1), None)
    return phi


def _block(axes: Any, covariance: Any, at: dict[str, Array], sd: str, corr: str, own: Codes, suffix: str, labels: tuple[str, ...]) -> Array:
    if isinstance(axes, GeneralTransform):
        return at[f"axis{suffix}" if suffix else "axis_residual"]
    sds = at[sd].reshape(len(at[sd]), -1)
    sds = sds[:, own] if sds.shape[1] > 1 else sds
    if isinstance(axes, UnstructuredTransform):
        L = np.ones((len(sds), 1, 1)) if len(own) == 1 else cholesky(at[corr][:, own[:, None], own])
        return axes.inverse((sds[..., None] * L)[(..., *band_positions(len(own), len(own)))], None)
    assert isinstance(axes, ScaledTransform)
    k = axes.sds.count
    scales = axes.sds.inverse(sds[:, :k], None)
    if not axes.correlation.size:
        return scales
    name = f"axis{suffix}" if suffix else "axis_residual"
    if name in at:
        return np.concatenate([scales, at[name]], axis=1)
    r = np.stack([at[n + suffix] for n in covariance.natural_names_for(labels)[k:]], axis=-1)
    return np.concatenate([scales, axes.correlation.from_natural(r)], axis=1)


def _checks(name: str, phi: Array, statistics: dict[str, Array]) -> tuple[Check, ...]:
    c, n, d = phi.shape
    worst, least = max(r_hat(phi[..., j]) for j in range(d)), min(ess(phi[..., j]) for j in range(d))
    found = [
        Check("method", "passed", f"NUTS by {name} on the hierarchical graph"),
        limit_check("r_hat", worst, 1.01, worst < 1.01, "draw more, or use the collapsed method"),
        limit_check("ess", least, 400.0, least >= 400.0, "draw more, or use the collapsed method"),
    ]
    if "diverging" in statistics:
        count = int(np.sum(statistics["diverging"]))
        found.append(limit_check("divergences", count, 0, count == 0, "use the collapsed method, which has no funnel"))
    if "energy" in statistics and n > 2:
        fraction = bfmi(statistics["energy"].reshape(c, n))
        found.append(limit_check("bfmi", fraction, 0.3, not fraction < 0.3, "draw more, or use the collapsed method"))
    return tuple(found)


def limit_check(name: str, value: float, limit: float, fine: bool, remedy: str) -> Check:
    """A check that passed or failed at its limit; the remedy is said where it failed."""
    return Check(name, "passed" if fine else "failed", value, limit, "" if fine else remedy)
