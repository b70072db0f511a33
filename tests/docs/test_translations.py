"""Every model that a page translates has the criterion of the other package's own call: stored log likelihoods of one set of data."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

PAGES = Path(__file__).resolve().parents[2] / "docs" / "from"


@cache
def data() -> pd.DataFrame:
    """24 groups of 12 rows with intercepts, slopes, effects of classes and items, serial errors whose sd grows with age."""
    r = np.random.default_rng(20)
    G, n = 24, 12
    g, t = np.repeat(np.arange(G), n), np.tile(np.arange(1.0, n + 1), G)
    f, b = np.tile(np.repeat(list("uvw"), 4), G), np.tile(list("pqrs"), G * 3)
    x, age = r.normal(2, 1, G * n), r.uniform(1, 9, G * n)
    bg = r.normal(size=(G, 2)) @ np.array([[1.0, 0.4], [0, 0.6]])
    gb, fe = r.normal(size=(G, 4)), r.normal(size=(G, 3)) * [0.5, 1.0, 0.2]
    item, ib = np.tile(np.arange(n), G), r.normal(size=n)
    e = r.normal(size=(G, n))
    for k in range(1, n):
        e[:, k] = 0.5 * e[:, k - 1] + np.sqrt(0.75) * e[:, k]
    classes = 0.7 * gb[g, np.searchsorted(list("pqrs"), b)] + fe[g, np.searchsorted(list("uvw"), f)]
    y = 5 + x + bg[g, 0] + bg[g, 1] * x + classes + 0.8 * ib[item] + e.ravel() * (0.5 + 0.1 * age)
    named = {"g": [f"g{i:02d}" for i in g], "f": f, "b": b, "t": t, "age": age, "item": [f"i{i:02d}" for i in item]}
    return pd.DataFrame({"y": y, "x": x, **named, "arm": np.where(g % 2, "A", "B"), "c": x - 2, "s": age - 5, "u": 1 / age})


# page, what stands on it for the other package, what for this one, arguments of ours, the other's log likelihood (statsmodels 0.15 by the
# best of three optimisers, nlme 3.1, lme4 1.1-31, glmmTMB 1.1.5)
CASES = [
    ("statsmodels", '`mixedlm("y ~ x", d, groups="g")`', "y ~ x + (1 | g)", {}, -601.767717304),
    ("statsmodels", '`re_formula="~x"`', "y ~ x + (x | g)", {}, -583.491936174),
    ("statsmodels", '`re_formula="~0 + x"`', "y ~ x + (0 + x | g)", {}, -598.143435953),
    ("statsmodels", "with `free=` to hold the correlation at 0", "y ~ x + (x || g)", {}, -583.761150912),
    ("statsmodels", "for a factor `diag(f \\| g)`", "y ~ x + diag(f | g)", {}, -598.946103317),
    ("statsmodels", "without `re_formula`: no group intercept", "y ~ x + (1 | g:b)", {}, -644.761214294),
    ("statsmodels", 'the same with `re_formula="1"`', "y ~ x + (1 | g/b)", {}, -601.155982126),
    ("statsmodels", '`vc_formula={"h": "0 + c + s"}`', "y ~ x + id(0 + c + s | g)", {}, -701.924888637),
    ("statsmodels", "crossed: one group of ones", "y ~ x + (1 | g) + (1 | item)", {}, -574.830207843),
    ("statsmodels", "`.fit(reml=False)`", "y ~ x + (x | g)", {"method": "ML"}, -582.551032021),
    ("lme4", "`lmer(f, d)`", "y ~ x + (0 + f | g)", {}, -597.190519246),
    ("lme4", "`lmer(f, d, REML = FALSE)`", "y ~ x + (x | g)", {"method": "ML"}, -582.551032006),
    ("lme4", "`x %in% a` is `x:a`", "y ~ x %in% f + (1 | g)", {}, -603.758380046),
    ("nlme", "random = ~ x \\| g", "y ~ x + (x | g)", {}, -583.491936861),
    ("nlme", "pdDiag", "y ~ x + diag(x | g)", {}, -583.761150912),
    ("nlme", "pdCompSymm", "y ~ x + cs(0 + f | g)", {}, -598.893152107),
    ("nlme", "pdIdent", "y ~ x + id(0 + f | g)", {}, -626.818278692),
    ("nlme", "random = ~ 1 \\| a/b", "y ~ x + (1 | g/b)", {}, -601.155982467),
    ("nlme", "corAR1(form = ~ 1 \\| g)", "y ~ x", {"residual": "ar1(1 | g)"}, -609.993596577),
    ("nlme", "corAR1(form = ~ t \\| g)", "y ~ x", {"residual": "ar1(t | g)"}, -609.993596577),
    ("nlme", "corCAR1(form = ~ time \\| g)", "y ~ x", {"residual": "car1(t | g)"}, -609.993596577),
    ("nlme", "corCompSymm", "y ~ x", {"residual": "cs(t | g)"}, -601.767717304),
    ("nlme", "corARMA(form = ~ 1", "y ~ x", {"residual": "arma(t | g)"}, -598.700409805),
    ("nlme", "corExp", "y ~ x", {"residual": "sp_exp(t | g)"}, -609.993596577),
    ("nlme", "corGaus", "y ~ x", {"residual": "sp_gau(t | g)"}, -640.591580261),
    ("nlme", "corSpher", "y ~ x", {"residual": "sp_sph(t | g)"}, -618.86775919),
    ("nlme", "corRatio", "y ~ x", {"residual": "sp_ratio(t | g)"}, -619.256845936),
    ("nlme", "nugget = TRUE", "y ~ x", {"residual": "sp_exp(t | g) + local"}, -598.700409805),
    ("nlme", "varIdent(form = ~ 1 \\| Sex)", "y ~ x + (1 | g)", {"variance": "ident(arm)"}, -600.946850774),
    ("nlme", "varPower(form = ~ age)", "y ~ x + (1 | g)", {"variance": "power(age)"}, -601.013493727),
    ("nlme", "varPower()", "y ~ x", {"variance": "power(fitted)"}, -696.756568913),
    ("nlme", "varExp", "y ~ x + (1 | g)", {"variance": "exp(age)"}, -601.21717597),
    ("nlme", "varConstPower", "y ~ x + (1 | g)", {"variance": "const_power(age)"}, -601.013493855),
    ("nlme", "varComb(a, b)", "y ~ x + (1 | g)", {"variance": "ident(arm) * power(age)"}, -600.309342866),
    ("nlme", "varFixed(~ w)", "y ~ x + (1 | g)", {"weights": "u"}, -614.100102101),
    ("glmmTMB", "`REML = TRUE`", "y ~ x + (1 | g)", {}, -601.767717304),
    ("glmmTMB", "`(x \\| g)`, `us(x \\| g)`", "y ~ x + (x | g)", {"method": "ML"}, -582.551032006),
    ("glmmTMB", "`diag(x \\| g)`", "y ~ x + diag(x | g)", {"method": "ML"}, -582.874167627),
    ("glmmTMB", "`cs(0 + f \\| g)`", "y ~ x + csh(0 + f | g)", {"method": "ML"}, -597.232193656),
    ("glmmTMB", "`ar1(f + 0 \\| g)`", "y ~ x + ar1(0 + C(t) | g)", {"method": "ML"}, -597.444108304),
    ("glmmTMB", "`toep(f + 0 \\| g)`", "y ~ x + toeph(0 + C(f) | g)", {"method": "ML"}, -597.038603311),
    ("glmmTMB", "`ou(numFactor(t) + 0 \\| g)`", "y ~ x", {"method": "ML", "residual": "sp_exp(t | g) + local"}, -597.444108304),
    ("glmmTMB", "`mat(...)`", "y ~ x", {"method": "ML", "residual": "matern(t | g) + local"}, -594.368995903),
    ("glmmTMB", "`rr(0 + f \\| g, d = 1)`", "y ~ x + fa0(0 + f | g, 1)", {"method": "ML"}, -600.028363187),
    ("glmmTMB", "`us(visit + 0 \\| id), dispformula = ~ 0`", "y ~ x", {"method": "ML", "residual": "us(b | g:f)"}, -615.607613194),
    ("glmmTMB", "`ar1(visit + 0 \\| id), dispformula = ~ 0`", "y ~ x", {"method": "ML", "residual": "ar1(t | g)"}, -608.436602435),
    ("glmmTMB", "`dispformula = ~ arm`", "y ~ x + (1 | g)", {"method": "ML", "variance": "ident(arm)"}, -599.706219947),
    ("glmmTMB", "`dispformula = ~ age`", "y ~ x + (1 | g)", {"method": "ML", "variance": "exp(age)"}, -599.973032422),
    ("glmmTMB", "`dispformula = ~ arm + age`", "y ~ x + (1 | g)", {"method": "ML", "variance": "ident(arm) * exp(age)"}, -599.257375861),
]


@pytest.mark.parametrize(("page", "theirs", "formula", "options", "loglik"), CASES, ids=[f"{case[0]}: {case[1]}" for case in CASES])
def test_a_translation_is_the_same_model(page: str, theirs: str, formula: str, options: dict[str, str], loglik: float) -> None:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    assert theirs in text, "what the page translates"
    arguments = {key: value for key, value in options.items() if key != "method"}
    fit = blm.LMM(formula, data(), **arguments).fit(options.get("method", "REML"))
    assert fit.loglik > loglik - 1e-5, "never below"
    assert fit.loglik < loglik + 5e-4, "nor another model: the others' optimisers stop within this"
