"""What public verbs and classes do around their work: foreign names are answered by the right words, the state is left as it was."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import Any, NoReturn

from bayeslmm import errors
from bayeslmm.errors import (
    BayesLMMError,
    BayesLMMWarning,
    ForeignNameError,
    MissingArgumentError,
    UnknownArgumentError,
    UnknownKeyError,
    show_value,
)
from bayeslmm.estimate.estimate import Fitted, require_outcome
from bayeslmm.likelihood.threads import restore_state

NOT_LINEAR = frozenset({"glmer", "glm", "nlmer", "nlme", "GEE", "gee", "GLM", "geeglm"})
"""Functions for models that are not linear, or whose errors are not normal."""

_VERBS = ("confint", "contrast", "emmeans", "fixef", "icc", "influence", "plot", "predict", "ranef", "ranova", "sigma", "simulate")
_VALUES = ("aic", "bic", "fixef", "loglik", "plot", "sigma", "varcorr", "vcov")

FOREIGN_FUNCTIONS = {
    **dict.fromkeys(("lmer", "lme", "glmmTMB", "MixedLM", "mixedlm", "Lmer", "MixedModel", "LinearMixedModel"), "LMM(formula, data).fit()"),
    **dict.fromkeys(("gls", "Gls"), "LMM(formula, data, residual=..., variance=...).fit()"),
    **dict.fromkeys(("brm", "Model"), "LMM(formula, data).sample()"),
    **dict.fromkeys(("lm", "Lm", "Lm2", "ols", "OLS"), "LMM(formula, data).fit(), whose formula needs no random effects"),
    "blmer": 'LMM(formula, data, priors=Priors(preset="blme")).fit("MAP")',
    "anova": "lrt(fit, other), or fit.anova()",
    **dict.fromkeys(("prior", "set_prior", "Prior"), "Priors(alpha={coefficient: (family, ...)}, sd=..., sigma=..., corr=...)"),
    **dict.fromkeys(("loo_compare", "waic"), 'compare_models({name: posterior}, by="loo")'),
    **dict.fromkeys(("rbmi", "draws", "mice"), "impute(model, treatment=...)"),
    **dict.fromkeys(("modelsummary", "stargazer", "tab_model"), "tables(fit, other)"),
    "PROC": "proc_mixed(program, data)",
    **{name: f"fit.{name}" for name in _VERBS},
}
"""Function or class of another package -> what to write here."""

_CRITERIA = {
    **dict.fromkeys(("llf", "logLik", "logLike", "loglikelihood", "log_likelihood_"), "fit.loglik"),
    **dict.fromkeys(("deviance", "REMLcrit", "objective"), "fit.criterion"),
    "AIC": "fit.aic",
    "BIC": "fit.bic",
    "AICc": "fit.aicc",
    **dict.fromkeys(("df_resid", "df_residual", "dof_residual"), 'fit.glance()["df_residual"]'),
    **dict.fromkeys(("dof", "df_modelwc", "npar"), "fit.df_model"),
    **dict.fromkeys(("n_obs", "nobs_", "N"), "fit.nobs"),
}

_COEFFICIENTS = {
    **dict.fromkeys(("params", "fe_params", "fixed_effects", "coefs", "Coefs", "coef_", "beta", "betas", "coefficients"), "fit.fixef"),
    **dict.fromkeys(("bse", "bse_fe", "stderror", "std_errors"), 'fit.tidy()["std_error"]'),
    **dict.fromkeys(("tvalues", "zvalues"), 'fit.tidy()["statistic"]'),
    "pvalues": 'fit.tidy()["p_value"]',
    **dict.fromkeys(("coeftable", "coef_table", "result_fit", "params_table"), "fit.tidy()"),
    **dict.fromkeys(("result_fit_stats", "fit_stats"), "fit.glance()"),
    **dict.fromkeys(("lrt", "compare", "lrtest", "compare_lr_test"), "blm.lrt(fit, other), or blm.compare_models([fit, other])"),
    "vif": "fit.vcov, or the correlations of fit.summary(): they count in the standard errors",
    "plot_summary": "fit.plot.confint()",
    "empredict": "fit.emmeans(specs, at={...}), or fit.predict(newdata)",
    **dict.fromkeys(("conf_int", "confidence_intervals", "intervals"), "fit.confint()"),
    **dict.fromkeys(("cov_params", "vcov_", "normalized_cov_params"), "fit.vcov, or fit.covariance(vcov=...)"),
    **dict.fromkeys(("t_test", "wald_test", "f_test", "wald_test_terms"), "fit.contrast(L), or fit.anova() for whole terms"),
    **dict.fromkeys(("post_hoc", "difflsmeans"), "fit.emmeans(specs).pairs()"),
    **dict.fromkeys(("lsmeans", "ls_means", "lsmeansLT"), "fit.emmeans(specs)"),
    **dict.fromkeys(("wald", "aov_table", "anova_table", "Anova"), "fit.anova()"),
    **dict.fromkeys(("linearHypothesis", "contest", "lincon", "glht", "hypotheses"), "fit.contrast(L), rows tested one by one and jointly"),
    **dict.fromkeys(("cld", "letters"), "fit.emmeans(specs).letters()"),
    **dict.fromkeys(("HSD_test", "LSD_test", "tukey", "TukeyHSD", "pairs", "lsd"), 'fit.emmeans(specs).pairs(adjust="tukey" or "none")'),
    **dict.fromkeys(("sed", "sedv", "avsed"), 'fit.emmeans(specs).pairs()["std_error"]'),
    **dict.fromkeys(("predictmeans", "classify", "marginal_means"), "fit.emmeans(specs)"),
    **dict.fromkeys(("slopes", "simple_slopes", "avg_slopes", "probe_interaction"), "fit.emtrends(x, specs)"),
    **dict.fromkeys(("step", "stepwise", "backward"), "fit.ranova() and fit.anova(): no verb selects terms by p values"),
    **dict.fromkeys(("standardize", "std_coef"), "fit.standardized()"),
    **dict.fromkeys(("joint_tests", "test_terms"), "fit.anova(), or fit.emmeans(specs, by=...).joint()"),
    **dict.fromkeys(("emmip", "ggemmeans", "plot_model"), "fit.emmeans(specs, by=...).plot(), or fit.plot.effects(term)"),
    **dict.fromkeys(("eta_squared", "omega_squared", "epsilon_squared"), 'fit.anova(effect_size="eta"), "omega" or "epsilon"'),
    **dict.fromkeys(
        ("effectsize", "effect_size", "effect_sizes", "eff_size"), 'fit.emmeans(specs).effect_size(), or fit.anova(effect_size="eta")'
    ),
    "hessian": "fit.vcov, the inverse for the fixed effects; fit.varcomp() has standard errors of the covariance parameters",
    **dict.fromkeys(("cohens_d", "hedges_g", "d"), "fit.emmeans(specs).effect_size()"),
}

_RANDOM = {
    **dict.fromkeys(("random_effects", "raneftables", "b", "u", "blup", "BLUP", "blups"), "fit.ranef()"),
    **dict.fromkeys(("bartlett", "levene", "heteroscedasticity"), 'blm.lrt(fit, fit.update(variance="ident(f)"))'),
    **dict.fromkeys(("component", "cov_type", "getVarCov"), "fit.R, fit.residual_params and fit.marginal_cov(level)"),
    **dict.fromkeys(("random_effects_cov", "condVar"), "fit.ranef(se=True)"),
    **dict.fromkeys(("cov_re", "cov_re_unscaled", "ranef_corr"), "fit.D"),
    **dict.fromkeys(("vcomp", "VarCorr", "ranef_var", "sigmas", "sigmarhos"), "fit.varcorr"),
    **dict.fromkeys(("isREML", "is_reml"), "fit.method"),
    "refitML": 'fit.update(method="ML")',
    "drop1": "fit.anova() for fixed terms, fit.ranova() for random ones",
    **dict.fromkeys(("allFit", "all_fit"), "fit.path, the search as it went, and fit.checks"),
    "devcomp": "fit.criterion and fit.sigma",
    **dict.fromkeys(("terms", "Terms"), "fit.formula, and fit.model.coef_names"),
    **dict.fromkeys(("qqnorm", "qqPlot"), "fit.plot.qq()"),
    "bse_re": 'fit.tidy("ran_vals")["std_error"]',
    "scale": "fit.sigma ** 2",
    **dict.fromkeys(("heritability", "h2", "H2", "repeatability", "vpredict", "pin"), 'fit.ratio("g"), or fit.ratio(lambda v: ...)'),
    "lambda_": "fit.theta",
    "profile_re": "fit.profile()",
    **dict.fromkeys(("isSingular", "issingular"), "fit.singular"),
    **dict.fromkeys(("rePCA", "PCA"), "fit.varcorr and fit.checks"),
    "ngrps": "fit.model.groups",
}

_SETTERS = {
    **dict.fromkeys(("set_factors", "unset_factors"), "C(x) in the formula for a factor whose labels are numbers"),
    "set_contrasts": 'blm.LMM(formula, data, contrasts={"a": "sum"})',
    **dict.fromkeys(("set_transforms", "unset_transforms"), "center(x), standardize(x) or log(x) in the formula"),
}

_ROWS = {
    **dict.fromkeys(("fittedvalues", "fits"), "fit.fitted()"),
    **dict.fromkeys(("resid", "resids", "resid_pearson"), "fit.residuals()"),
    **dict.fromkeys(("leverage", "hatvalues", "cooks_distance", "get_influence"), "fit.influence()"),
    **dict.fromkeys(("parametricbootstrap", "bootMer"), "fit.bootstrap(n, seed)"),
    **dict.fromkeys(("design_matrix", "modelmatrix", "model_matrix"), "fit.model.X"),
    **dict.fromkeys(("response", "endog"), "fit.model.y"),
    "getME": "fit.model.X, fit.model.Z, fit.model.y, fit.theta or fit.sigma",
    **dict.fromkeys(("model_frame", "data"), "fit.augment()"),
    **dict.fromkeys(("dropped", "na_action", "missing", "n_missing"), "fit.model.design.dropped for counts, fit.rows for the rows used"),
    **dict.fromkeys(("rmse", "mae", "mse"), "fit.residuals(), as (fit.residuals() ** 2).mean() ** 0.5"),
    "score": "fit.r2(), or blm.LMMRegressor(formula), which scikit-learn scores",
    **{name: f"fit.model.{name}(...)" for name in ("fit", "sample", "write", "to_pymc", "to_bambi", "describe")},
    **dict.fromkeys(("contrasts", "coding"), "fit.model.spec.contrasts"),
    **_SETTERS,
    "sresid": 'fit.residuals("pearson")',
    "AME": "fit.emtrends(x, specs), or marginaleffects on fit.to_marginaleffects()",
    **dict.fromkeys(("show_logs", "convergence_status"), "fit.checks"),
    "load": "blm.load(path)",
    **dict.fromkeys(("impute", "imputations"), "blm.impute(fit.model, treatment=...)"),
    **dict.fromkeys(("optsum", "optinfo", "hist", "warnings"), "fit.checks, and fit.path for the search"),
    **dict.fromkeys(("load_pickle", "remove_data"), "blm.load(path)"),
    **dict.fromkeys(("as_latex", "as_html", "to_latex"), "fit.summary() in a notebook, or fit.tidy().to_latex()"),
}

FIT_ATTRIBUTES = _CRITERIA | _COEFFICIENTS | _RANDOM | _ROWS
"""Attribute of a fit in statsmodels, lme4, pymer4 or MixedModels.jl -> what to write here."""

MODEL_ATTRIBUTES = {
    **dict.fromkeys(("exog", "modelmatrix", "design_matrix"), "model.X"),
    "exog_re": "model.Z",
    **dict.fromkeys(("endog", "response"), "model.y"),
    "exog_names": "model.coef_names",
    "endog_names": "model.spec.formula.response",
    **dict.fromkeys(("n_groups", "ngrps", "group_labels"), "model.groups"),
    **dict.fromkeys(("loglike", "objective", "deviance"), "model.criterion(theta)"),
    "score": "model.gradient(theta)",
    "from_formula": "blm.LMM(formula, data)",
    **_SETTERS,
    "show_logs": "fit = model.fit(), then fit.checks",
    **dict.fromkeys(("k_fe", "n_coefs"), "len(model.coef_names)"),
    "hessian": "model.gradient(theta); fit.varcomp() has standard errors of the covariance parameters",
    **dict.fromkeys(("get_prior", "prior_summary", "default_prior"), "model.priors"),
    **dict.fromkeys(("stan_code", "stancode", "make_stancode", "standata"), "model.to_pymc(), whose graph is the model"),
    **dict.fromkeys(("fit_regularized", "set_priors"), "blm.LMM(..., priors=blm.Priors(...))"),
    **dict.fromkeys(("build", "backend", "graph"), "model.to_pymc(), or model.to_bambi()"),
    "plot_priors": "model.priors.plot()",
    **dict.fromkeys(("components", "terms"), "model.design.terms"),
    **dict.fromkeys(("update", "refit_on", "copy"), 'model.updated(". ~ . + x", data=...)'),
    **{
        name: f"fit = model.fit(), then {told}"
        for name, told in FIT_ATTRIBUTES.items()
        if told.startswith("fit.") and "fit.model." not in told and name != "data"
    },
}
MODEL_ATTRIBUTES |= {name: f"fit = model.fit(), then fit.{name}" for name in _VALUES}
MODEL_ATTRIBUTES |= {
    name: f"fit = model.fit(), then fit.{name}()"
    for name in (*_VERBS, "anova", "fitted", "report", "residuals", "summary", "tidy")
    if name not in (*_VALUES, "simulate")
}
MODEL_ATTRIBUTES |= {"contrasts": "model.spec.contrasts", "coding": "model.spec.contrasts"}
MODEL_ATTRIBUTES |= {"exog": "model.X", "endog": "model.y", "response": "model.y", "modelmatrix": "model.X", "design_matrix": "model.X"}
"""Attribute of a model in statsmodels, Bambi or pymer4 -> what to write here."""

POSTERIOR_ATTRIBUTES = {
    **dict.fromkeys(("posterior", "sample_stats", "observed_data", "constant_data", "log_prior"), "post.tree, an ArviZ DataTree"),
    **dict.fromkeys(("plot_trace", "traceplot"), "post.plot.trace()"),
    **dict.fromkeys(("plot_posterior", "plot_dist", "mcmc_plot"), "post.plot.dist()"),
    "plot_forest": "post.plot.forest()",
    **dict.fromkeys(("pp_check", "plot_ppc"), "post.plot.predictive()"),
    **dict.fromkeys(("posterior_predict", "posterior_epred"), "post.posterior_predictive(), or post.predict(newdata)"),
    **dict.fromkeys(("to_netcdf", "to_zarr"), "post.save(path); post.tree.to_netcdf(path) needs netCDF4 or h5netcdf"),
    **dict.fromkeys(("extract", "get_draws", "as_draws", "as_draws_df", "as_draws_matrix"), "post.draws, or post.tree.posterior"),
    **dict.fromkeys(("to_dataframe", "to_pandas", "as_data_frame", "as_matrix"), "post.tree.posterior.to_dataframe(), or one variable's"),
    **dict.fromkeys(("rhat", "ess", "diagnose", "diagnostics", "nuts_params", "divergences"), "post.summary() and post.checks"),
    **dict.fromkeys(("fitted", "fittedvalues", "resid", "residuals"), "post.augment(), which has fitted values and residuals of every row"),
    **dict.fromkeys(("bayes_R2", "bayes_r2", "r2_bayes", "r2_score"), "post.r2()"),
    **dict.fromkeys(("report", "to_html"), 'post.to_table(format="html", path=...), or fit.report(path) of model.fit()'),
    **dict.fromkeys(("priors", "prior_summary", "get_prior"), "model.priors"),
    **dict.fromkeys(("powerscale_sensitivity", "psens", "powerscale"), "post.sensitivity()"),
    **dict.fromkeys(
        ("plot_energy", "energy", "bfmi"), 'az.plot_energy(post.tree) of model.sample(method="nuts"): draws by importance have no energy'
    ),
    **dict.fromkeys(("log_lik", "loglik"), "post.log_likelihood"),
    "waic": "post.loo()",
    **dict.fromkeys(("bayes_factor", "bayesfactor", "savage_dickey"), 'post.hypothesis("x = 0")["bayes_factor"]'),
    **dict.fromkeys(("conditional_effects", "marginal_effects", "plot_predictions"), "post.plot.effects(term), or post.plot.lines(x)"),
    **dict.fromkeys(("p_direction", "pd", "describe_posterior"), 'post.hypothesis("x > 0"), or post.tidy(conf_int=True)'),
    **{name: told.replace("fit.", "post.") for name, told in FIT_ATTRIBUTES.items() if told in ("fit.fixef", "fit.ranef()", "fit.varcorr")},
}
"""Attribute of draws in Bambi, ArviZ, brms or rstanarm -> what to write here."""

SUMMARY_ATTRIBUTES = {
    **dict.fromkeys(("as_text", "as_csv"), "str(fit.summary()), or fit.tidy().to_csv()"),
    **dict.fromkeys(("to_markdown", "as_markdown"), 'fit.to_table(format="markdown")'),
    **dict.fromkeys(("as_latex", "as_html", "to_html", "to_latex"), "fit.tidy().to_latex(), or fit.report(path) for HTML"),
    **dict.fromkeys(("coefficients", "coefs", "params"), "fit.tidy()"),
    "varcor": "fit.varcorr",
}
"""Attribute of a summary in statsmodels or lme4 -> what to write here."""

MEANS_ATTRIBUTES = {
    **dict.fromkeys(("eff_size", "cohens_d"), "means.effect_size()"),
    **dict.fromkeys(("cld", "multcompView"), "means.letters()"),
    **dict.fromkeys(("lsd", "LSD", "hsd"), 'means.pairs(adjust="none"), or "tukey"'),
    **dict.fromkeys(("sed", "sedv"), 'means.pairs()["std_error"]'),
    **{f"to_{kind}": "means.frame, which office programs read by to_excel(path) or to_html(path)" for kind in ("rtf", "docx", "table")},
    **dict.fromkeys(("summary", "confint", "tidy", "to_frame", "to_pandas", "as_data_frame", "table"), "means.frame"),
    **dict.fromkeys(("joint_tests", "test"), "means.joint()"),
    **dict.fromkeys(("regrid", "ratio"), 'fit.emmeans(specs, type="response")'),
    **dict.fromkeys(("pwpm", "pwpp", "diffs", "pairwise"), "means.pairs()"),
    **dict.fromkeys(("emmip", "lines"), 'means.plot(x="a factor")'),
    "linfct": "means.L",
    **{f"to_{kind}": f"means.frame.to_{kind}(...)" for kind in ("latex", "html", "csv", "markdown", "excel", "string")},
}
"""Attribute of marginal means in R's emmeans or of a table -> what to write here."""

POSTERIOR_MEANS_ATTRIBUTES = {
    **{name: told for name, told in MEANS_ATTRIBUTES.items() if told.startswith(("means.frame", "means.pairs()[", "means.plot"))},
    **dict.fromkeys(("pwpm", "pwpp", "diffs", "pairwise"), "means.pairs()"),
    **dict.fromkeys(("cld", "letters", "joint", "joint_tests", "test", "lsd"), "model.fit().emmeans(specs), whose tests these are"),
    **dict.fromkeys(
        ("rope", "p_rope", "equivalence_test", "p_direction", "pd", "effect_size", "eff_size", "cohens_d", "bayes_factor", "dist"),
        "draws = post.emmeans(specs).draws, a column for each mean, and count: (abs(draws[:, 0] - draws[:, 1]) < 0.5).mean()",
    ),
}
"""Attribute of marginal means as draws, in R's bayestestR or emmeans -> what to write here."""

MANY_ATTRIBUTES = {
    name: f"many.fit(name).{name}, of one response or group: {{name: many.fit(name) for name in many.names}} has them all"
    for name in (*_VERBS, "anova", "augment", "coef", "emtrends", "fitted", "r2", "report", "residuals", "summary")
    if name != "contrast"
}
"""Verb of a fit -> where it is of many fits."""

RESULT_ATTRIBUTES = {
    **{
        name: f'result["{name}"]'
        for name in ("Tests3", "SolutionF", "SolutionR", "CovParms", "LSMeans", "Diffs", "Slices", "Estimates", "Contrasts")
    },
    **dict.fromkeys(("tables", "ods", "ods_tables"), "result.keys() for the names, result[name] for a frame"),
    **dict.fromkeys(("report", "to_html", "to_table"), "result.listing, the printed text; result.fit.report(path) is a page of HTML"),
    **dict.fromkeys(("summary", "print", "output"), "print(result.listing)"),
}
"""ODS table of PROC MIXED, asked for as an attribute -> what to write here."""

IMPUTATION_ATTRIBUTES = {
    **dict.fromkeys(("complete", "extract_imputed_dfs", "completed", "datasets"), "imp.data(k), or imp.data() for all of them"),
    **dict.fromkeys(("pool", "ancova", "analyze"), 'imp.analyse("y ~ arm + base").pool()'),
    **dict.fromkeys(("delta_template", "delta_adjust"), "imp.delta({arm: number})"),
    **dict.fromkeys(("tipping_point", "point", "tips"), "tipping.frame, where p_value crosses the level, or tipping.plot()"),
}
"""Name of rbmi, mice or SAS, of imputations, analyses and tipping points -> what to write here."""

ESTIMATOR_ATTRIBUTES = {
    **dict.fromkeys(("coef_", "intercept_", "params_"), "regressor.fit_.fixef"),
    "feature_importances_": "regressor.fit_.standardized(), or regressor.fit_.anova()",
    "random_effects_": "regressor.fit_.ranef()",
    "residuals_": "regressor.fit_.residuals()",
    **dict.fromkeys(("summary", "tidy", "anova", "emmeans", "report"), "regressor.fit_, which has the verbs of a fit"),
}
"""What other estimators hold once they are fitted -> what to write here."""

PLOT_ATTRIBUTES = {
    **dict.fromkeys(("dotplot", "caterpillar", "random"), "plot.ranef()"),
    **dict.fromkeys(("qqnorm", "qqplot", "qq_plot"), "plot.qq()"),
    **dict.fromkeys(("resid", "residual", "resid_fitted", "diagnostics"), "plot.residuals(), or plot() for four figures"),
    **dict.fromkeys(("emmip", "interaction", "means"), "plot.emmeans(specs, by=...)"),
    **dict.fromkeys(("predictions", "conditional_effects", "marginal_effects"), "plot.effects(term)"),
    **dict.fromkeys(("forest", "coef", "coefs"), "plot.confint()"),
    **dict.fromkeys(("spaghetti", "trajectories"), "plot.profiles()"),
    **dict.fromkeys(("cooks", "cooks_distance"), "plot.influence()"),
}
"""Figure of another package -> what to write here."""

POSTERIOR_PLOT_ATTRIBUTES = {
    **dict.fromkeys(("posterior", "density", "hist", "areas"), "post.plot.dist()"),
    **dict.fromkeys(("ppc", "ppc_dist", "pp_check"), "post.plot.predictive()"),
    **dict.fromkeys(("traces", "chains"), "post.plot.trace()"),
    **dict.fromkeys(("dotplot", "caterpillar"), "post.plot.ranef()"),
    **dict.fromkeys(("predictions", "conditional_effects", "marginal_effects"), "post.plot.effects(term)"),
    **dict.fromkeys(("intervals", "coef", "coefs", "confint"), "post.plot.forest()"),
    **dict.fromkeys(("pair", "scatter"), "post.plot.pairs()"),
}
"""Figure of draws in ArviZ, Bambi or bayesplot -> what to write here."""

FOREIGN_KEYWORDS: dict[str, str] = {
    **dict.fromkeys(("groups", "group_var"), "name the groups in the formula: y ~ x + (1 | g)"),
    **dict.fromkeys(("re_formula", "exog_re", "vc_formula", "random"), "write random effects into the formula: y ~ x + (x | g)"),
    **dict.fromkeys(("reml", "REML", "use_reml"), 'fit("REML"), or fit("ML")'),
    **dict.fromkeys(("correlation", "corr_struct"), 'residual="ar1(visit | g)"'),
    **dict.fromkeys(("family", "link"), "models here are linear, with normal errors: leave it out"),
    **dict.fromkeys(
        ("maxiter", "max_iter", "start_params", "start", "optimizer", "control", "disp", "full_output", "gtol", "ftol"),
        "the search needs no settings: leave it out; fit.checks and fit.path tell how it went",
    ),
    **dict.fromkeys(("cov_type", "use_t", "vcov"), 'choose by df= and vcov= where you ask: fit.tidy(vcov="CR2")'),
    **dict.fromkeys(("cov_pen", "fe_pen"), 'leave it out: priors=blm.Priors(...) with fit("MAP") penalise'),
    **dict.fromkeys(("do_cg", "niter_sa"), "the search needs no settings: leave it out; fit.checks and fit.path tell how it went"),
    "free": "say in the formula which correlations are 0: (x || g), or diag(x | g)",
    **dict.fromkeys(("nboot", "conf_method"), 'fit.confint("boot"), or fit.bootstrap(n, seed)'),
    "covariance": 'write the structure into the formula, us(visit | subject), or residual="us(visit | subject)"',
    "drop_visit_levels": "visits without rows are left out where this changes no spacing, and named in fit.checks",
    "n_cores": "leave it out: threads are those of BLAS",
    **dict.fromkeys(("subset", "dropna"), "give the rows that you want, or missing="),
    **dict.fromkeys(("na_action", "na"), 'missing="drop" or missing="raise"'),
    **dict.fromkeys(("prior", "auto_scale", "priors_cor"), "priors=blm.Priors(...)"),
    **dict.fromkeys(("random_seed", "rng", "random_state"), "seed="),
    **dict.fromkeys(("inference_method", "nuts_sampler"), 'method=, and sampler= with method="hierarchical"'),
    **dict.fromkeys(("target_accept", "cores", "iter", "warmup", "init"), 'method="hierarchical", tune= and sampler_options={...}'),
    **dict.fromkeys(("exog", "newx", "data_new", "X_new"), "newdata="),
    **dict.fromkeys(("re_form", "use_rfx", "include_group_specific"), 'level="conditional" or level="population"'),
    **dict.fromkeys(("allow_new_levels", "sample_new_groups"), 'new_levels="population"'),
    "skip_data_vars": "leave it out",
    "alpha": "conf_level=, which is 1 - alpha",
    **dict.fromkeys(("verbose", "trace", "refresh", "silent", "progressbar"), "leave it out: what takes long shows progress"),
    **dict.fromkeys(("hdi_prob", "prob"), "conf_level="),
    "ci_method": 'leave it out: limits have equal tails; az.summary(post.tree, ci_kind="hdi") has the highest density',
    **dict.fromkeys(("adapt_delta", "max_treedepth", "thin", "backend"), "leave it out: draws need no settings, see post.checks"),
    "return_std": 'interval="prediction"',
    **dict.fromkeys(("parm", "param"), "terms="),
    "oldNames": "leave it out: parameters are called sd__Days|Subject, cor__Intercept.Days|Subject, sd__Observation",
    **dict.fromkeys(("nsim", "R", "B", "nreps"), "n="),
    **dict.fromkeys(("boot_type", "ci_type"), "interval="),
    "method": 'fit("REML") or fit("ML") for the estimates, df="kenward-roger" where you ask for tests',
    **dict.fromkeys(("infer", "ci"), "leave it out: limits and tests stand in the frame"),
    **dict.fromkeys(("ddf", "mode", "lmer_df", "ddfm"), "df="),
    **dict.fromkeys(("typ", "ss_type"), "type="),
    **dict.fromkeys(("condVar", "postVar"), "se=True"),
    **dict.fromkeys(("adjust", "padjust", "p_adjust"), "fit.emmeans(...).pairs(adjust=...)"),
    **dict.fromkeys(("scaled", "residual_type"), 'kind="pearson"'),
    "use_u": "leave it out: random effects are drawn anew",
    "summarize": "fit.summary()",
    **dict.fromkeys(("draws", "chains", "tune"), "model.sample(draws=, chains=) draws from the posterior"),
}
"""Keyword argument of another package -> what to write here."""

_ADJUSTMENTS = ("p_adjust", "padjust", "p_adjust_method")

VERB_KEYWORDS: dict[str, dict[str, str]] = {
    "LMM": dict.fromkeys(("endog", "exog", "X", "y"), "blm.LMM(formula, data): the formula names columns of the data"),
    "fit": {
        **dict.fromkeys(("factors", "ordered"), 'blm.LMM(formula, data, contrasts={"a": ("treatment", "level")}), or "poly"'),
        **dict.fromkeys(("permute", "rank"), "fit.bootstrap(n, seed) for intervals that need no normal distribution"),
    },
    "summary": {
        **dict.fromkeys(("correlation", "corr"), "leave it out: print(fit.tidy()) is the table of coefficients alone"),
        **dict.fromkeys(("alpha", "conf_level"), "fit.tidy(conf_int=True, conf_level=0.9)"),
        **dict.fromkeys(("float_format", "xname_fe", "xname_re", "yname", "title"), "fit.to_table(), or fit.tidy(), a frame to format"),
    },
    "pairs": {
        **dict.fromkeys(_ADJUSTMENTS, "adjust="),
        **dict.fromkeys(("method", "ref"), 'contrast("trt.vs.ctrl", ref=...): pairs are all differences'),
        "simple": 'by= with the other variables: pairs(by="b") compares the levels of a within each b',
        "interaction": 'contrast(interaction="pairwise")',
    },
    "contrast": {
        **dict.fromkeys(_ADJUSTMENTS, "adjust="),
        "simple": "by= with the other variables",
        "control": "ref=",
        "alternative": 'side="less" or "greater"',
        **dict.fromkeys(("null", "margin"), "delta="),
        **dict.fromkeys(("conf_level", "level", "df", "vcov"), "give it to emmeans(), which made these means"),
    },
    "effect_size": {"edf": "leave it out: the limits have the uncertainty of the sd as it was estimated"},
    "predict": {
        "classify": "fit.emmeans(specs) for means of a factor",
        "kind": 'interval="prediction" for a new response, the mean without',
        "return_std": 'interval="prediction", output="pandas"',
    },
    "sample": dict.fromkeys(("target_accept", "cores"), "leave it out: draws need no settings, and no process for each chain"),
    "lrt": dict.fromkeys(("refit", "test"), "leave it out: fits are refitted by ML only where their fixed effects differ"),
    "influence": dict.fromkeys(("obs", "groups"), 'group="g" for the levels of g, nothing for single rows'),
    "rope": {
        **dict.fromkeys(("range", "rope"), "low=, high="),
        **dict.fromkeys(("parameters", "term", "coef"), "terms="),
    },
    "residuals": dict.fromkeys(("type", "resid_type"), 'kind= of "response", "pearson", "normalized", "marginal"'),
    "anova": {
        **dict.fromkeys(("force_orthogonal", "contr"), "leave it out: tests of type 3 do not depend on the coding"),
        **dict.fromkeys(("es", "eta"), 'effect_size="eta", "omega" or "epsilon"'),
        "test": "leave it out: terms are tested by F; blm.lrt(fit, smaller) by chi-square",
    },
    "emmeans": {
        **dict.fromkeys(("marginal_vars", "factors", "variables"), "specs="),
        "grouping_vars": "by=",
        **dict.fromkeys(("contrasts", "contrast"), 'fit.emmeans(specs).pairs(), or .contrast("trt.vs.ctrl")'),
        **dict.fromkeys(("pbkrtest_limit", "lmerTest_limit"), "leave it out: there is no limit of rows"),
        **dict.fromkeys(("cov_reduce", "cov_keep"), 'at={"x": [1, 2]} for values of a covariate; else its mean'),
    },
}
"""Verb -> keyword that means something else, or something of its own, in it."""


def hint(name: str) -> str | None:
    """What to do about a name that the package does not have; None where it is unknown."""
    if name in NOT_LINEAR:
        return "models here are linear, with normal errors"
    if inspect.isclass(vars(errors).get(name)) and issubclass(vars(errors)[name], BayesLMMError | BayesLMMWarning):
        return f"write errors.{name}"
    return f"write {FOREIGN_FUNCTIONS[name]}" if name in FOREIGN_FUNCTIONS else None


LISTED = 24
"""Names of an object that an error lists."""


def no_attribute(owner: type, name: str, table: Mapping[str, str]) -> AttributeError:
    """The error for an attribute that a class, or an object of it, does not have: what other packages call so is named."""
    kind = owner.__name__
    if name.startswith("_"):  # asked by Python and by notebooks, not by people
        return AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=owner)
    if name in table:
        return ForeignNameError(f"{kind} has no {name!r}: it is a name of another package", name, f"write {table[name]}")
    own = [known for known in dir(owner) if not known.startswith("_")]
    near = get_close_matches(name, own, 2, 0.6)
    several = ", ".join(own) if len(own) <= LISTED else f"{', '.join(own[:LISTED])}, ...: dir() lists them all"
    remedy = f"did you mean {' or '.join(near)}?" if near else f"there are {several}"
    return ForeignNameError(f"{kind} has no {name!r}", name, remedy)


class AnsweringClass(type):
    """The class of a class that answers names which it does not have as its objects do: `LMM.from_formula`."""

    _foreign_names: Mapping[str, str] = {}

    def __getattr__(cls, name: str) -> NoReturn:
        raise no_attribute(cls, name, cls._foreign_names)


def known_arguments[Made: type](owner: Made, synonyms: Mapping[str, str] | None = None, attributes: dict[str, str] | None = None) -> Made:
    """Let a class answer names that it does not have, and every verb of it a keyword that it does not have, by the right one.

    synonyms : other word -> the keyword that it is read as, where a verb has that one and not the word itself
    attributes : name in other packages -> what to write here
    """
    table = attributes or {}

    def answer(self: object, name: str) -> NoReturn:
        raise no_attribute(type(self), name, table)

    def answer_key(self: object, key: object) -> NoReturn:
        raise _no_key(type(self), key, table)

    # not written in the class: a type checker knows every name that there is
    if isinstance(owner, AnsweringClass):
        owner._foreign_names = table
    setattr(owner, "__getattr__", answer)  # noqa: B010
    if not hasattr(owner, "__getitem__") and not hasattr(owner, "__len__"):  # NumPy takes what has both for a sequence
        setattr(owner, "__getitem__", answer_key)  # noqa: B010
        setattr(owner, "__iter__", None)  # noqa: B010 - or Python would iterate by asking for the keys 0, 1, ...
    return public_verbs(owner, synonyms)


def _no_key(owner: type, key: object, table: dict[str, str]) -> UnknownKeyError:
    """The error for brackets behind an object that has none: a key that other packages have is told as an attribute of that name is."""
    if not isinstance(key, str):
        remedy = "its parts are attributes: dir() lists them"
        return UnknownKeyError(f"{owner.__name__} has no {show_value(key)}: it is no table and no sequence", "brackets", remedy)
    found = no_attribute(owner, key.lstrip("_") or key, table)
    remedy = found.remedy if isinstance(found, ForeignNameError) else "dir() lists its parts"
    return UnknownKeyError(f"{owner.__name__} has no [{key!r}]: it is no table", "brackets", remedy)


def public_verbs[Made: type](owner: Made, synonyms: Mapping[str, str] | None = None) -> Made:
    """Wrap every public method of a class by `answer_keywords_of`, those of its bases in the package too."""
    bases = [base for base in owner.__mro__[1:] if base.__module__.startswith("bayeslmm")]
    inherited = {name: base for base in reversed(bases) for name in vars(base)}
    for name, home in (inherited | dict.fromkeys(vars(owner), owner)).items():
        value = vars(home)[name]
        bound = type(value) if isinstance(value, classmethod | staticmethod) else None
        verb = value.__func__ if bound else value
        public = not name.startswith("_") or name in {"__init__", "__call__"}
        wrapped_there = home is not owner and hasattr(verb, "__wrapped__")  # by a base that is public itself
        if public and inspect.isfunction(verb) and not wrapped_there:
            wrapped = answer_keywords_of(verb, owner.__name__ if name.startswith("_") else name, synonyms or {})
            setattr(owner, name, bound(wrapped) if bound else wrapped)
    return owner


def refuse_outcome(verb: Callable[..., Any], fit_of: Callable[[Any], Fitted], title: str = "{}") -> Any:
    """The refusal of a verb that reads an outcome, where parameters were assumed.

    fit_of : the fit that the owner of the verb is, or is of; title : how a verb is named
    """

    @wraps(verb)
    def refuse(self: object, *_given: object, **_named: object) -> None:
        require_outcome(fit_of(self), title.format(verb.__name__))

    return refuse


def answers_keywords[**P, Result](function: Callable[P, Result]) -> Callable[P, Result]:
    """`answer_keywords_of` as a decorator of a function."""
    return answer_keywords_of(function, function.__name__, {})


def answer_keywords_of[**P, Result](function: Callable[P, Result], name: str, synonyms: Mapping[str, str]) -> Callable[P, Result]:
    """The function by `restore_state`, with an error that names the right argument where a keyword is not one of its own."""
    work = restore_state(function, name)
    parameters = inspect.signature(function).parameters
    known = frozenset(parameters) - {"self", "cls"}
    needed = [
        (place if one.kind is one.POSITIONAL_OR_KEYWORD else sys.maxsize, one.name)
        for place, one in enumerate(parameters.values())
        if "self" in parameters
        and one.default is one.empty
        and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        and one.name in known
    ]
    words = {word: own for word, own in synonyms.items() if own in known and word not in known}

    @wraps(work)
    def verb(*args: P.args, **options: P.kwargs) -> Result:
        if not known.issuperset(options):
            for word, own in words.items():
                if word in options and own not in options:
                    options[own] = options.pop(word)
            for option in options:
                if option not in known:
                    raise _unknown_argument(name, option, known)
        for place, own in needed:
            if args and place >= len(args) and own not in options:  # without an object it is no call of a method
                written = ", ".join(needs for _, needs in needed)
                raise MissingArgumentError(f"{name} needs {own!r}", name, f"write {name}({written}), of which help() tells more")
        return work(*args, **options)

    return verb


def _unknown_argument(verb: str, option: Any, known: frozenset[str]) -> UnknownArgumentError:
    near = get_close_matches(option, known, 1)
    translations = (table[option] for table in (VERB_KEYWORDS.get(verb, {}), FOREIGN_KEYWORDS) if option in table)
    # an argument of other verbs is no way out of this one
    foreign = next((words for words in translations if not (named := re.match(r"(\w+)=", words)) or named[1] in known), None)
    if foreign is not None:
        remedy = foreign
    elif near:
        remedy = f"did you mean {near[0]}=?"
    else:
        remedy = f"use one of {', '.join(sorted(known))}" if known else "leave it out"
    return UnknownArgumentError(f"{verb} has no argument {option!r}", verb, remedy)
