"""A known name of another package is answered by the right words; a word of an option by whatever spelling."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm import errors
from bayeslmm.bayes.posterior.plots import PosteriorPlots
from bayeslmm.bayes.posterior.tables import PosteriorMeans
from bayeslmm.errors import BayesLMMError, DataError, ForeignNameError, MissingArgumentError, SpecificationError, UnknownArgumentError
from bayeslmm.inference.means.marginal_means import EMMeans
from bayeslmm.model.fit_plots import FitPlots
from bayeslmm.model.many_fits import ManyFits
from bayeslmm.results import foreign_names
from bayeslmm.trials.imputations import Imputations
from bayeslmm.trials.tipping import Tipping


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"g": np.repeat([f"g{i}" for i in range(10)], 6), "x": rng.normal(size=60), "arm": np.tile(["a", "b"], 30)})
    frame["y"] = frame["x"] + rng.normal(size=10)[frame["g"].str[1:].astype(int)] + rng.normal(size=60)
    frame.index = pd.Index([f"row {i}" for i in range(60)])
    frame.loc["row 7", "x"] = np.nan
    return frame


@pytest.fixture(scope="module")
def fit(rows: pd.DataFrame) -> blm.Fit:
    return blm.LMM("y ~ x + arm + (1 | g)", rows).fit()


@pytest.mark.parametrize("name", foreign_names.FIT_ATTRIBUTES)
def test_a_fit_answers_foreign_attributes_with_words_that_run(fit: blm.Fit, name: str) -> None:
    with pytest.raises(ForeignNameError) as caught:
        getattr(fit, name)
    assert caught.value.remedy
    assert not hasattr(fit, name)


RUN: dict[str, Callable[[blm.Fit], object]] = {
    "fit.fixef": lambda f: f.fixef,
    'fit.tidy()["std_error"]': lambda f: f.tidy()["std_error"],
    'fit.glance()["df_residual"]': lambda f: f.glance()["df_residual"],
    'fit.tidy("ran_vals")["std_error"]': lambda f: f.tidy("ran_vals")["std_error"],
    "fit.ranef(se=True)": lambda f: f.ranef(se=True),
    "fit.model.groups": lambda f: f.model.design.groups,
    "fit.emmeans(specs).pairs()": lambda f: f.emmeans("arm").pairs(),
}


@pytest.mark.parametrize("words", RUN)
def test_what_is_said_instead_exists(fit: blm.Fit, words: str) -> None:
    assert words in foreign_names.FIT_ATTRIBUTES.values()
    assert RUN[words](fit) is not None


def test_models_posteriors_and_summaries_answer_too(rows: pd.DataFrame, fit: blm.Fit) -> None:
    model = blm.LMM("y ~ x + (1 | g)", rows)
    post = model.sample(draws=20, seed=1)
    for owner, table in (
        (model, foreign_names.MODEL_ATTRIBUTES),
        (post, foreign_names.POSTERIOR_ATTRIBUTES),
        (fit.summary(), foreign_names.SUMMARY_ATTRIBUTES),
    ):
        for name in table:
            with pytest.raises(ForeignNameError):
                getattr(owner, name)
    with pytest.raises(AttributeError):
        _ = fit.nothing_of_the_kind


OBJECTS: dict[str, type] = {
    "means": EMMeans,
    "plot": FitPlots,
    "imp": Imputations,
    "tipping": Tipping,
    "many": ManyFits,
}
TABLES = [value for name, value in vars(foreign_names).items() if name.endswith("_ATTRIBUTES")]


def test_every_remedy_names_what_is_there(fit: blm.Fit) -> None:
    made = {"fit": fit, "fit_": fit, "model": fit.model, "post": fit.model.sample(draws=20, seed=1)}
    told = [words for table in (*TABLES, foreign_names.FOREIGN_KEYWORDS, *foreign_names.VERB_KEYWORDS.values()) for words in table.values()]
    wrong = {
        (words, f"{owner}.{name}")
        for words in told
        for owner, name in re.findall(r"\b(fit_|fit|model|post|means|plot|imp|tipping|many)\.(\w+)", words)
        if not hasattr(made.get(owner, OBJECTS.get(owner)), name)
    }
    of_draws = {
        (words, name)
        for words in foreign_names.POSTERIOR_MEANS_ATTRIBUTES.values()
        for name in re.findall(r"\bmeans\.(\w+)", words)
        if not hasattr(PosteriorMeans, name)
    } | {
        (words, name)
        for words in foreign_names.POSTERIOR_PLOT_ATTRIBUTES.values()
        for name in re.findall(r"\bplot\.(\w+)", words)
        if not hasattr(PosteriorPlots, name)
    }
    named = {(words, name) for words in told for name in re.findall(r"\bblm\.(\w+)", words) if name not in blm.__all__}
    assert not wrong | named | of_draws


def test_no_name_of_another_package_is_a_name_of_ours() -> None:
    """What an object has is never answered as what it has not."""
    for owner, table in (
        (blm.Fit, foreign_names.FIT_ATTRIBUTES),
        (blm.LMM, foreign_names.MODEL_ATTRIBUTES),
        (blm.Posterior, foreign_names.POSTERIOR_ATTRIBUTES),
        (EMMeans, foreign_names.MEANS_ATTRIBUTES),
        (PosteriorMeans, foreign_names.POSTERIOR_MEANS_ATTRIBUTES),
        (PosteriorPlots, foreign_names.POSTERIOR_PLOT_ATTRIBUTES),
        (FitPlots, foreign_names.PLOT_ATTRIBUTES),
        (Tipping, foreign_names.IMPUTATION_ATTRIBUTES),
    ):
        assert not {name for name in table if name in vars(owner)}


def test_a_regressor_answers_what_other_estimators_hold(rows: pd.DataFrame) -> None:
    regressor = blm.LMMRegressor("y ~ x + (1 | g)")
    for name in foreign_names.ESTIMATOR_ATTRIBUTES:
        assert not hasattr(regressor, name)
        with pytest.raises(ForeignNameError, match="fit_"):
            getattr(regressor, name)
    with pytest.raises(AttributeError) as unknown:
        _ = regressor.classes_
    assert not isinstance(unknown.value, BayesLMMError)


PEERS = {
    "lme4, lmerTest, emmeans": "isSingular VarCorr getME refit step contest ls_means cld pairs joint_tests eff_size emmip",
    "effectsize, performance": "cohens_d eta_squared omega_squared bartlett rmse H2 heritability blup",
    "agronomy": "HSD_test LSD_test sed predictmeans aov_table lsd",
}


@pytest.mark.parametrize("package", PEERS)
def test_words_of_a_field_lead_somewhere(fit: blm.Fit, package: str) -> None:
    for name in PEERS[package].split():
        if not hasattr(type(fit), name):
            with pytest.raises(ForeignNameError, match="another package"):
                getattr(fit, name)


CALLS: dict[str, Callable[[pd.DataFrame, blm.Fit], object]] = {
    "groups": lambda d, f: blm.LMM("y ~ x", d, groups="g"),  # type: ignore[call-arg]
    "re_formula": lambda d, f: blm.LMM("y ~ x", d, re_formula="~x"),  # type: ignore[call-arg]
    "reml": lambda d, f: blm.LMM("y ~ x", d).fit(reml=False),  # type: ignore[call-arg]
    "maxiter": lambda d, f: blm.LMM("y ~ x", d).fit(maxiter=9),  # type: ignore[call-arg]
    "random_seed": lambda d, f: blm.LMM("y ~ x", d).sample(random_seed=1),  # type: ignore[call-arg]
    "exog": lambda d, f: f.predict(exog=d),  # type: ignore[call-arg]
    "parm": lambda d, f: f.confint(parm="x"),  # type: ignore[call-arg]
    "nsim": lambda d, f: f.bootstrap(nsim=9),  # type: ignore[call-arg]
    "ddf": lambda d, f: f.anova(ddf="kr"),  # type: ignore[call-arg]
    "adjust": lambda d, f: f.emmeans("arm", adjust="holm"),  # type: ignore[call-arg]
    "condVar": lambda d, f: f.ranef(condVar=True),  # type: ignore[call-overload]
    "colour": lambda d, f: f.update(colour="red"),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("name", CALLS)
def test_a_foreign_argument_is_answered_by_ours(rows: pd.DataFrame, fit: blm.Fit, name: str) -> None:
    with pytest.raises(UnknownArgumentError, match=name) as caught:
        CALLS[name](rows, fit)
    assert caught.value.remedy
    assert isinstance(caught.value, TypeError)
    assert name == "colour" or caught.value.remedy == foreign_names.FOREIGN_KEYWORDS[name]


@pytest.mark.parametrize("method", ["lbfgs", ["lbfgs"], "L-BFGS-B"])
def test_methods_of_optimisation_are_no_methods_of_estimation(rows: pd.DataFrame, method: object) -> None:
    with pytest.raises(SpecificationError, match="not how it is searched for"):
        blm.LMM("y ~ x", rows).fit(method)  # type: ignore[arg-type]


def test_words_are_read_in_the_spellings_of_others(rows: pd.DataFrame, fit: blm.Fit) -> None:
    known = fit.tidy(df="kenward-roger")
    for spelling in ("kr", "KR", "kenward roger", "Kenward_Roger", "KENWARD-ROGER"):
        assert fit.tidy(df=spelling).equals(known)  # type: ignore[arg-type]
        assert str(fit.summary(df=spelling)) == str(fit.summary(df="kenward-roger"))  # type: ignore[arg-type]
        assert fit.emmeans("arm", df=spelling).frame.equals(fit.emmeans("arm", df="kenward-roger").frame)  # type: ignore[arg-type]
    assert fit.anova(df="bw").equals(fit.anova(df="between-within"))
    assert fit.anova(type="III").equals(fit.anova(type=3))
    assert fit.tidy(conf_int=True, conf_method="Wald").equals(fit.tidy(conf_int=True))  # type: ignore[arg-type]
    assert fit.confint("Wald", conf_level=0.9).equals(fit.confint(level=0.9))  # type: ignore[arg-type]
    assert blm.LMM("y ~ x", rows).fit("ml").method == "ML"  # type: ignore[arg-type]
    profile = fit.profile(terms=["x"])
    assert profile.confint(conf_level=0.8).equals(profile.confint(0.8))
    with pytest.raises(BayesLMMError, match="krr"):
        fit.tidy(df="krr")  # type: ignore[arg-type]


def test_values_of_rows_go_back_into_the_frame(rows: pd.DataFrame, fit: blm.Fit) -> None:
    back = rows.assign(residual=fit.residuals(), fitted=fit.fitted("population"))
    assert back["residual"].isna().tolist() == rows["x"].isna().tolist()
    used = rows.iloc[fit.rows]
    np.testing.assert_allclose(back["fitted"][used.index], fit.predict(used, level="population")["estimate"], rtol=1e-12)
    bare = blm.LMM("y ~ x", {name: rows[name].to_numpy() for name in ("y", "x")}).fit()
    assert isinstance(bare.residuals(), np.ndarray)


def test_replicates_have_a_tidy_table_and_models_can_be_listed(fit: blm.Fit) -> None:
    boot = fit.bootstrap(12, seed=1)
    table = boot.tidy(conf_int=True, conf_level=0.8)
    assert table.drop(columns=["conf_low", "conf_high"]).equals(boot.summary())
    assert table[["term", "conf_low", "conf_high"]].equals(boot.confint(0.8))
    other = fit.update(". ~ . - arm")
    listed = blm.compare_models([fit.model.fit("ML"), other.model.fit("ML")])
    assert set(listed["model"]) == {fit.formula, other.formula}


def test_boot_is_what_lme4_calls_the_bootstrap() -> None:
    own = blm.LMM("Reaction ~ Days + (1 | Subject)", blm.load_dataset("sleepstudy")).fit()
    told = own.confint("boot", n=40, seed=1)
    assert told.equals(own.confint("bootstrap", n=40, seed=1))


def test_marginal_tests_of_nlme_are_told_apart_from_those_of_type_3(fit: blm.Fit) -> None:
    with pytest.raises(BayesLMMError) as told:
        fit.anova(type="marginal")
    assert "joint" in told.value.remedy


CLASSES = sorted(name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, BayesLMMError | UserWarning))


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_of_errors_asked_of_the_package_is_told_where_it_stands(name: str) -> None:
    with pytest.raises(ForeignNameError, match=f"write errors.{name}$"):
        getattr(blm, name)


def test_a_word_that_is_nearly_one_of_an_option_is_told(rows: pd.DataFrame) -> None:
    model = blm.LMM("y ~ x + arm + (1 | g)", rows)
    with pytest.raises(SpecificationError, match="did you mean 'ML'"):
        model.fit("MLE")  # type: ignore[arg-type]
    with pytest.raises(SpecificationError, match="did you mean 'prediction'"):
        model.fit().predict(interval="predictive")  # type: ignore[arg-type]


@pytest.mark.parametrize(("residual", "within"), [("sp_exp(t)", True), ("sp_exp(t | g)", False)])
def test_places_that_are_twice_are_those_of_a_subject_only_where_one_is_named(rows: pd.DataFrame, residual: str, within: bool) -> None:
    with pytest.raises(DataError) as refusal:
        blm.LMM("y ~ arm", rows.assign(t=rows["g"].factorize()[0] * 1.0), residual=residual)
    assert ("of subject" in refusal.value.what) is not within
    assert ("sp_exp(t | subject)" in refusal.value.remedy) is within


@pytest.mark.parametrize(("levels", "remedy"), [(("1.5", "2"), "astype"), (("low", "high"), "no numbers")])
def test_a_factor_is_to_be_converted_only_where_its_levels_are_numbers(rows: pd.DataFrame, levels: tuple[str, str], remedy: str) -> None:
    factor = pd.Categorical(np.where(rows["arm"] == "a", *levels))
    with pytest.raises(DataError) as refusal:
        blm.LMM("y ~ x", rows.assign(t=factor), residual="sp_exp(t | g) + local")
    assert remedy in refusal.value.remedy


def test_a_verb_without_an_argument_that_it_needs_names_it(rows: pd.DataFrame) -> None:
    """Every verb of a fit and of its figures: the error is ours, and Python's as well."""
    fit = blm.LMM("y ~ x + arm + (1 | g)", rows).fit()
    asked = 0
    for owner in (fit, fit.plot):
        for name in sorted(name for name in dir(type(owner)) if not name.startswith("_")):
            verb = inspect.getattr_static(type(owner), name)
            if not inspect.isfunction(verb):
                continue
            needed = [
                one for one in list(inspect.signature(verb).parameters.values())[1:] if one.default is one.empty and one.kind in (1, 3)
            ]
            if needed:
                asked += 1
                with pytest.raises(MissingArgumentError, match=f"{name} needs '{needed[0].name}'") as refusal:
                    getattr(owner, name)()
                assert isinstance(refusal.value, TypeError)
    assert asked > 5
    with pytest.raises(MissingArgumentError, match="LMM needs 'data'"):
        blm.LMM("y ~ x")  # type: ignore[call-arg]
