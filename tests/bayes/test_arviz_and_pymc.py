"""What ArviZ and PyMC do with trees and graphs of any model, found by program: every function of theirs that takes one takes ours."""

from __future__ import annotations

import copy
import ctypes
import inspect
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytest
import xarray

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError
from tests.bayes import every_verb

OTHER_OBJECTS = {
    "dataset_to_dataarray": "a dataset",
    "dataset_to_dataframe": "a dataset",
    "dict_to_dataset": "a mapping",
    "explode_dataset_dims": "a dataset",
    "from_dict": "a mapping",
    "xarray_sel_iter": "a dataset",
    "xarray_to_ndarray": "a dataset",
    "xarray_var_iter": "a dataset",
    "ecdf": "not there for trees yet",
    "combine_plots": "names of other plots",
    "rhat_nested": "superchains",
    "kaplan_meier": "times of events",
    "generate_survival_curves": "times of events",
    "plot_ppc_censored": "times of events",
    "plot_ppc_rootogram": "counts",
    "plot_ecdf_pit": "draws of a calibration",
    "plot_lm": "a variable of the data along x",
    "plot_ppc_pava_residuals": "a variable of the data along x",
    "bayesian_r2": "a variable of fitted means",
    "residual_r2": "a variable of fitted means",
    "lfo_cv": "a wrapper that refits",
    "loo_kfold": "a wrapper that refits",
    "loo_moment_match": "functions of the unconstrained parameters",
    "loo_approximate_posterior": "an approximation",
    "plot_energy": "a Markov chain: importance draws have no energy",
    "bfmi": "a Markov chain: importance draws have no energy",
    "plot_psense_dist": "no variable called alpha, as its own dimension is: rename it",
    "plot_psense_quantities": "no variable called alpha, as its own dimension is: rename it",
}
"""What takes something else, or asks for what a model has not."""

OF_RESPONSES = ("ppc", "loo", "metrics", "get_log_likelihood")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "ci_in_rope": {"rope": (-1.0, 1.0)},
    "loo_r2": {"var_name": "y"},
    "loo_subsample": {"observations": 20},
    "plot_pair_focus": {"focus_var": "sigma", "var_names": ["alpha"]},
}


def taking_a_tree() -> Iterator[str]:
    """Functions of ArviZ whose first argument is a tree."""
    for name in sorted(set(dir(az)) - set(OTHER_OBJECTS)):
        function = getattr(az, name)
        if not name.startswith("_") and callable(function) and not inspect.isclass(function):
            arguments = list(inspect.signature(function).parameters)
            if arguments and arguments[0] in ("dt", "data", "idata"):
                yield name


@pytest.fixture(scope="module")
def tree() -> Any:
    model = every_verb.MODELS["slopes"]().updated(changes={"priors": blm.Priors(alpha="normal")})
    post = model.sample(draws=25, seed=1)
    post.prior_predictive(25, seed=1)
    return post.posterior_predictive(seed=1)


@pytest.mark.parametrize("name", list(taking_a_tree()))
def test_every_function_of_arviz_that_takes_a_tree_takes_ours(name: str, tree: Any) -> None:
    function = getattr(az, name)
    options = dict(ARGUMENTS.get(name, {}))
    if "var_names" in inspect.signature(function).parameters and not any(word in name for word in OF_RESPONSES):
        options.setdefault("var_names", ["alpha", "sigma", "cor_s"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert function(tree, **options) is not None or name == "diagnose"
        finally:
            plt.close("all")


def test_most_of_arviz_takes_a_tree() -> None:
    assert len(list(taking_a_tree())) > 55
    assert all(hasattr(az, name) for name in OTHER_OBJECTS)


def test_figures_of_sensitivity_take_a_tree_with_alpha_renamed(tree: Any) -> None:
    renamed = tree.map_over_datasets(lambda part: part.rename(alpha="coefficients") if "alpha" in part else part)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert az.plot_psense_dist(renamed, var_names=["coefficients", "sigma"]) is not None
    plt.close("all")


@pytest.mark.parametrize("name", ["plot_energy", "bfmi"])
def test_draws_by_importance_are_refused_for_their_energy(name: str, tree: Any) -> None:
    """What is left out above is left out for the reason given there, and would run if ArviZ or the tree came to allow it."""
    assert tree.sample_stats.attrs["inference_method"] == "importance"
    with pytest.raises((AttributeError, KeyError), match="energy"):
        getattr(az, name)(tree)


def test_chains_have_their_energy() -> None:
    tree = every_verb.MODELS["one factor"]().sample(draws=30, chains=2, seed=1, method="nuts").tree
    assert np.isfinite(az.bfmi(tree)["energy"]).all()
    assert az.plot_energy(tree) is not None
    plt.close("all")


def test_each_correlation_stands_once_among_the_pairs(tree: Any) -> None:
    pairs, matrix = tree.posterior["cor_s"], tree.posterior["corr_s"]
    assert pairs.coords["s_pair"].values.tolist() == ["Intercept.x"]
    np.testing.assert_array_equal(pairs[..., 0], matrix[..., 0, 1])


@pytest.mark.parametrize("labels", ["intervals", "tuples", "dates", "text"])
def test_a_tree_is_stored_and_read_whatever_its_levels_are(labels: str, tmp_path: Path) -> None:
    frame = every_verb.rows(8, 5, False, 1.0)
    number = frame["s"].str[1:].astype(int)
    made = {
        "intervals": lambda: pd.cut(number, 4),
        "tuples": lambda: pd.Series([(k, "a") for k in number]),
        "dates": lambda: pd.to_datetime("2024-01-01") + pd.to_timedelta(number, unit="D"),
        "text": lambda: frame["s"],
    }[labels]()
    post = blm.LMM("y ~ x + (x | s)", frame.assign(s=made)).sample(draws=20, seed=1)
    for group in post.tree.children:
        # one file for each group, as SciPy's format takes them
        post.tree[group].to_dataset().to_netcdf(tmp_path / f"{group}.nc", engine="scipy")
    with xarray.open_dataset(tmp_path / "posterior.nc", engine="scipy") as again:
        np.testing.assert_array_equal(again["beta_s"], post.tree.posterior["beta_s"])
        assert again["s"].values.astype(str).tolist() == [str(level) for level in post.tree.posterior["s"].values]


# -- graphs --------------------------------------------------------------------------------------------------------------------------------

GRAPHS = {
    "slopes": {},
    "weights and offset": {},
    "structured errors": {},
    "independent slopes": {"priors": blm.Priors(preset="bambi")},
    "variance function": {"priors": blm.Priors(alpha="normal")},
}


COPIED = ("slopes", "structured errors", "variance function")


@pytest.mark.parametrize("form", [pytest.param("marginal", marks=pytest.mark.slow), "hierarchical"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in COPIED else pytest.mark.slow) for n in every_verb.MODELS])
def test_graphs_are_copied_intervened_on_and_observed(name: str, form: Any) -> None:
    graph = every_verb.MODELS[name]().updated(changes=GRAPHS.get(name, {})).to_pymc(form)
    given = {"alpha": np.zeros(len(graph.coords["coef"]))}
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        start = graph.initial_point()
        whole = graph.compile_logp()(start)
        assert copy.deepcopy(graph).compile_logp()(start) == pytest.approx(whole)
        held = pm.do(graph, given)
        assert "alpha" not in {v.name for v in held.free_RVs}
        assert np.isfinite(held.compile_logp()(held.initial_point()))
        seen = pm.observe(graph, given)
        assert "alpha" in {v.name for v in seen.observed_RVs}
        assert np.isfinite(seen.compile_logp()(seen.initial_point()))


@pytest.mark.parametrize("form", ["marginal", pytest.param("hierarchical", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "weights and offset" else pytest.mark.slow) for n in every_verb.MODELS])
def test_log_likelihoods_and_log_priors_of_draws_are_computed(name: str, form: Any) -> None:
    graph = every_verb.MODELS[name]().to_pymc(form)
    with pytensor.config.change_flags(mode="FAST_COMPILE"), graph, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"draws": 3, "tune": 3, "chains": 1, "progressbar": False, "random_seed": 1, "compute_convergence_checks": False}
        tree = pm.sample(step=pm.Metropolis(), idata_kwargs={"log_likelihood": True, "log_prior": True}, **options)
        assert "log_likelihood" in tree.children
        assert "log_prior" in tree.children
        again = pm.sample(step=pm.Metropolis(), **options)
        pm.compute_log_prior(pm.compute_log_likelihood(again, progressbar=False), progressbar=False)
        assert {"log_likelihood", "log_prior"} <= set(again.children)


@pytest.mark.slow
@pytest.mark.parametrize("chains", [1, 2])
def test_ctrl_c_in_pymc_keeps_the_draws_made_and_says_so(chains: int) -> None:
    calls = []

    def press(trace: Any, draw: Any) -> None:
        if draw.chain == chains - 1:
            calls.append(draw)
            if len(calls) == 30:
                raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT), np.geterr()
    options = {"callback": press, "cores": 1}
    with pytensor.config.change_flags(mode="FAST_COMPILE"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = every_verb.MODELS["one factor"]()
        post = model.sample(40, chains, 1, "hierarchical", sampler="pymc", tune=10, sampler_options=options)
    assert post.interrupted
    assert post.checks["interrupted"].verdict == "failed"
    assert 0 < post.draws.size < 40 * chains
    assert np.isfinite(post.tidy()["estimate"]).all()
    assert before == (signal.getsignal(signal.SIGINT), np.geterr())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM])
def test_a_signal_inside_a_compiler_is_raised_after_it(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM calls back into Python by ctypes, which loses what a handler raises: the compiler here does nothing but that."""
    nutpie = pytest.importorskip("nutpie")
    lost, done = [], []

    def compiled(graph: Any) -> None:
        ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(number))()
        done.append(graph)

    monkeypatch.setattr(nutpie, "compile_pymc_model", compiled)
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            every_verb.MODELS["one factor"]().sample(10, 1, 1, "hierarchical", sampler="nutpie")
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert done and not lost


STOPPED = """
import warnings
import numpy as np
import nutpie
import bayeslmm as blm
warnings.simplefilter("ignore")
draw = nutpie.sample
def told(*args, **options):
    print("drawing", flush=True)
    return draw(*args, **options)
nutpie.sample = told
model = blm.LMM("Reaction ~ Days + (1 | Subject)", blm.load_dataset("sleepstudy"), priors=blm.Priors(sd=("uniform", 0, 5000)))
post = model.sample(300_000, 2, 1, "hierarchical", sampler="nutpie")
found = [post.interrupted, post.checks["interrupted"].verdict, bool(np.isfinite(post.draws.phi).all()), 0 < post.size < 600_000]
print(*found, float(post.tidy("ran_pars")["estimate"].iloc[0]))
"""


@pytest.mark.slow
def test_a_signal_in_nutpie_keeps_the_draws_made() -> None:
    """A signal to a process of its own, and an sd far from the middle of its uniform prior."""
    pytest.importorskip("nutpie")
    with subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "drawing\n"
        time.sleep(3.0)
        run.send_signal(signal.SIGINT)
        words = run.communicate(timeout=60)[0].split()
    assert words[:4] == ["True", "failed", "True", "True"]
    assert 30.0 < float(words[4]) < 50.0


def test_new_rows_are_set_with_their_weights_and_columns() -> None:
    frame = every_verb.rows(10, 5, False, 1.0)
    model, other = blm.LMM("y ~ x + (x | s)", frame, weights="w"), blm.LMM("y ~ x + (x | s)", frame.iloc[::-1], weights="w")
    graph, turned = model.to_pymc("hierarchical"), other.to_pymc("hierarchical")
    taken = ("X", "Z_s", "index_s", "weights")
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        (given_values,) = graph.replace_rvs_by_values(graph["y"].owner.op.dist_params(graph["y"].owner)[:1])
        mean = graph.compile_fn(given_values, inputs=graph.value_vars, on_unused_input="ignore")
        start = {v.name: np.asarray(graph.initial_point()[v.name]) + 0.1 for v in graph.value_vars}
        before = mean(start)
        with graph:
            pm.set_data({name: turned[name].get_value() for name in taken})
        np.testing.assert_allclose(mean(start), before[::-1])
        with graph:
            pm.set_data({"X": 2.0 * model.X})
        with pytest.raises(BayesLMMError, match="Z_s"):
            mean(start)
