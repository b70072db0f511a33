"""`Priors`: the priors that a user gives, checked and frozen; `prior_families` has the densities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from bayeslmm._validation import number_below, require_mapping, require_name
from bayeslmm.errors import PriorError, show_value
from bayeslmm.specification.prior_families import (
    COEFFICIENT_FAMILIES,
    CORRELATION_FAMILIES,
    FAMILIES,
    SCALE_FAMILIES,
    SHAPE_FAMILIES,
    Prior,
)

HALVES = {"student_t": "half_t", "cauchy": "half_cauchy", "normal": "half_normal"}
"""brms' words for the prior of an sd, which it cuts off at 0."""


LARGEST = 1e150
"""Bound of the parameters of a prior, and of the inverse of a scale: their squares are numbers still."""


def read_prior(value: Any, allowed: Sequence[str], name: str) -> Prior:
    """A prior from `(family, *parameters)`, a family's name or a `Prior`; `name` is what the error calls the parameter."""
    if isinstance(value, Prior):
        value = value.as_dict()
    if isinstance(value, str):
        value = _call(value)
    if not isinstance(value, Sequence) or not value or not isinstance(value[0], str):
        raise PriorError(
            f"the prior of {name} is not (family, *parameters)",
            f"{name}: {show_value(value)}",
            'write it as ("half_t", 3, 10) or as "flat"',
        )
    family, rest = _OTHER_FAMILIES.get(value[0], value[0]), value[1:]
    if family in HALVES and allowed is SCALE_FAMILIES:
        family, rest = _half(family, rest, name)
    if family not in allowed:
        near = get_close_matches(family, allowed, 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        remedy = "correlations have theirs in corr=" if family == "lkj" else f"{meant}use one of {', '.join(allowed)}"
        raise PriorError(f"the prior family {family!r} cannot be used for {name}", name, remedy)
    numbers = _numbers(rest, family, name)
    declared = len(FAMILIES[family].parameters)
    if family.startswith("half") and len(numbers) == declared + 1 and numbers[-2] == 0.0:
        numbers = (*numbers[:-2], numbers[-1])  # the way it is written in books: half-t(3, 0, scale)
    _require_valid(family, numbers, name, positive=allowed is SCALE_FAMILIES)
    return Prior(family, numbers)


def _call(text: str) -> tuple[str | float, ...]:
    """A family and its numbers written as a call, as in brms and Stan: "normal(0, 2.5)"; any other text is the name of a family."""
    word, bracket, inner = text.strip().partition("(")
    if not bracket or not inner.endswith(")"):
        return (text,)
    try:
        return (word.strip(), *map(float, filter(None, inner[:-1].split(","))))
    except ValueError:
        return (text,)


_OTHER_FAMILIES = {
    **{family.graph[0]: family.name for family in FAMILIES.values() if family.graph[0]},
    **dict.fromkeys(("lkj_corr", "lkj_corr_cholesky", "LKJCorr"), "lkj"),
    "inv_gamma": "inverse_gamma",
    "double_exponential": "laplace",
    "constant": "fixed",
}
"""What PyMC, Bambi, brms and Stan call a family, with the same parameters -> its name here."""


def _half(family: str, rest: Sequence[Any], name: str) -> tuple[str, Sequence[Any]]:
    """The part above 0 of a family of the whole line, as brms reads it."""
    full = FAMILIES[family]
    numbers = _numbers(rest, family, name)
    if len(numbers) != len(full.parameters):
        raise PriorError(f"the prior of {name} has {len(numbers)} parameters", f"{name}: {family}{numbers}", _usage(family))
    location = numbers[-2]
    if location == 0.0:
        return HALVES[family], (*numbers[:-2], numbers[-1])
    if family == "normal":
        return "truncated_normal", numbers
    raise PriorError(
        f"the prior of {name} is a {family} around {location:g}, cut off at 0",
        f"{name}: {family}{numbers}",
        "centre it at 0, or use normal",
    )


def _numbers(values: Sequence[Any], family: str, name: str) -> tuple[float, ...]:
    numbers = tuple(number_below(value, LARGEST) for value in values)
    for value, number in zip(values, numbers, strict=True):
        if math.isnan(number):
            what = f"the prior of {name} has a parameter that is not a finite number whose square is one"
            raise PriorError(what, f"{family}: {show_value(value)}", _usage(family))
    return numbers


def _require_valid(family: str, numbers: tuple[float, ...], name: str, *, positive: bool) -> None:
    declared = FAMILIES[family].parameters
    required = sum(not parameter.endswith("?") for parameter in declared)
    if not required <= len(numbers) <= len(declared):
        raise PriorError(f"the prior of {name} has {len(numbers)} parameters", f"{name}: {family}{numbers}", _usage(family))
    for parameter, value in zip(declared, numbers, strict=False):
        if ("+" in parameter and value <= 1.0 / LARGEST) or ("0" in parameter and value < 0):
            word, limit = parameter.strip("+0?"), 0.0 if value <= 0 else 1.0 / LARGEST
            raise PriorError(f"the {word} of the prior of {name} is {value:g}", f"{name}: {family}{numbers}", f"give one above {limit:g}")
    if family != "uniform":
        return
    lower, upper = numbers
    if lower >= upper:
        raise PriorError(f"the uniform prior of {name} is empty", f"{name}: lower {lower:g}, upper {upper:g}", "give lower below upper")
    if positive and upper <= 0.0:
        raise PriorError(
            f"the uniform prior of {name} has no positive number", f"{name}: lower {lower:g}, upper {upper:g}", "give an upper end above 0"
        )


def _usage(family: str) -> str:
    return f"write {family}({', '.join(FAMILIES[family].names)})"


PRESETS = ("brms", "rstanarm", "bambi", "blme", "reml")
Named = tuple[tuple[str, Prior], ...]

SLOPES = ("slopes", "b")
"""Keys that mean every coefficient but the intercept: ours, and brms' class."""


def same_term(name: str) -> str:
    """A name by which `z:x` is `x:z`: its factors in order, colons within brackets left alone.

    >>> same_term("z:x[a:b]")
    'x[a:b]:z'
    """
    parts, depth = [""], 0
    for letter in name:
        depth += (letter in "([") - (letter in ")]")
        if letter == ":" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return ":".join(sorted(parts))


@dataclass(frozen=True, slots=True, init=False)
class Priors:
    """Priors of a model; what is not said is scaled from the data.

    Parameters
    ----------
    alpha : str, Prior or Mapping of str to tuple, optional
        "flat"; "normal" (N(mean(y), 2.5 sd(y)) for the intercept, N(0, 2.5 sd(y)/sd(x)) for the others); or {coefficient: (family,
        *parameters)} with normal, student_t, cauchy, laplace, flat; the key "slopes" means every coefficient but the intercept, and `z:x`
        is `x:z`.
    sd : tuple or Mapping of str to tuple, optional
        `(family, *parameters)` for every random-effect sd, or {"Subject": ..., "Subject/Days": ...}; half_t, half_normal, half_cauchy,
        exponential, gamma, inverse_gamma, lognormal, truncated_normal, uniform, flat, flat_log, fixed; brms' student_t, cauchy and normal
        are read as their halves.
    corr : tuple or Mapping of str to tuple, optional
        ("lkj", eta), or {"Subject": ("lkj", eta)}.
    sigma : tuple or Mapping of str to tuple, optional
        `(family, *parameters)`, or by name where the residual structure has several sds; ("fixed", 1) where it is known.
    preset : str, optional
        "brms", "rstanarm", "bambi", "blme" or "reml": the defaults of that package for all that is not said.
    residual : Mapping of str to tuple, optional
        Parameters of the residual structure or variance function by name: {"rho": ("uniform", 0, 1)}; plain names may be given as keywords,
        `Priors(rho=("uniform", 0, 1))`.
    **named : tuple
        Parameters of the residual structure or variance function, by plain names: `Priors(rho=("uniform", 0, 1))`.

    Raises
    ------
    PriorError
        Which names the parameter.

    Examples
    --------
    >>> Priors(sd={"Subject/Days": ("half_normal", 10)}, corr=("lkj", 2)).sd_of("Subject", "Days")
    Prior(family='half_normal', parameters=(10.0,))
    """

    alpha: str | Named
    alpha_given: bool
    sd: Prior | Named | None
    corr: Prior | Named | None
    sigma: Prior | Named | None
    residual: Named
    preset: str | None

    def __init__(
        self,
        alpha: str | Mapping[str, Any] | Named | None = None,
        sd: Any = None,
        corr: Any = None,
        sigma: Any = None,
        preset: str | None = None,
        *,
        residual: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> None:
        if preset is not None and (not isinstance(preset, str) or preset not in PRESETS):
            raise PriorError(f"there is no preset {show_value(preset)}", "preset", "use one of " + ", ".join(PRESETS))
        put = object.__setattr__
        put(self, "alpha", ("normal" if preset in ("bambi", "rstanarm") else "flat") if alpha is None else _read_alpha(alpha))
        put(self, "alpha_given", alpha is not None and (preset is not None or alpha != "flat"))
        put(self, "sd", _read(sd, SCALE_FAMILIES, "sd"))
        put(self, "corr", _read(corr, CORRELATION_FAMILIES, "corr"))
        put(self, "sigma", _read(sigma, SCALE_FAMILIES, "sigma"))
        foreign = next((name for name in named if name in _OTHER_WORDS), None)
        if foreign is not None:
            where, remedy = f"{foreign}: {show_value(named[foreign])}", f"write Priors({_OTHER_WORDS[foreign]})"
            raise PriorError(f"Priors has no argument {foreign!r}", where, remedy)
        whole = require_mapping(residual, "residual", '{"rho": ("uniform", -1, 1)}')
        # A keyword may be meant for a coefficient or a group, which only the model knows: until then it goes by its name alone.
        shapes = {**dict(_read_named(whole, SHAPE_FAMILIES, "residual")), **dict(_read_named(named, SHAPE_FAMILIES, ""))}
        put(self, "residual", tuple(sorted(shapes.items(), key=lambda pair: pair[0])))
        put(self, "preset", preset)

    def alpha_of(self, coefficient: str) -> Prior | None:
        """The prior said for one coefficient, by its name before that of all slopes; None where nothing was said for it.

        Parameters
        ----------
        coefficient : str
            Name of a coefficient.

        Returns
        -------
        Prior or None
            The prior, if any.

        Examples
        --------
        >>> blm.Priors(alpha={"Days": ("normal", 0, 5)}).alpha_of("Days")
        Prior(family='normal', parameters=(0.0, 5.0))
        """
        require_name(coefficient, "coefficient")
        if isinstance(self.alpha, str):
            return None
        priors = {same_term(name): prior for name, prior in self.alpha}
        keys = (same_term(coefficient), *(SLOPES if coefficient != "Intercept" else ()))
        return next((priors[key] for key in keys if key in priors), None)

    def sd_of(self, group: str, term: str) -> Prior | None:
        """The prior said for the sd of a term of a group: `group/term` before `group` before the one for all; None if nothing was said.

        Parameters
        ----------
        group : str
            Grouping factor.
        term : str
            Name of a random column.

        Returns
        -------
        Prior or None
            The prior, if any.

        Examples
        --------
        >>> blm.Priors(sd=("half_normal", 10)).sd_of("Subject", "Days")
        Prior(family='half_normal', parameters=(10.0,))
        """
        return _lookup(self.sd, (f"{require_name(group, 'group')}/{require_name(term, 'term')}", group))

    def corr_of(self, group: str) -> Prior | None:
        """The prior said for the correlation matrix of a group; None if nothing was said.

        Parameters
        ----------
        group : str
            Grouping factor.

        Returns
        -------
        Prior or None
            The prior, if any.

        Examples
        --------
        >>> blm.Priors(corr=("lkj", 2)).corr_of("Subject")
        Prior(family='lkj', parameters=(2.0,))
        """
        return _lookup(self.corr, (require_name(group, "group"),))

    def sigma_of(self, name: str = "sigma") -> Prior | None:
        """The prior said for a residual sd; None if nothing was said.

        Parameters
        ----------
        name : str, default "sigma"
            Name of a residual sd.

        Returns
        -------
        Prior or None
            The prior, if any.

        Examples
        --------
        >>> blm.Priors(sigma=("half_normal", 30)).sigma_of("sigma")
        Prior(family='half_normal', parameters=(30.0,))
        """
        return _lookup(self.sigma, (require_name(name, "name"),))

    def residual_of(self, name: str) -> Prior | None:
        """The prior said for a parameter of the residual structure or variance function; None if nothing was said.

        Parameters
        ----------
        name : str
            Name of a parameter of the errors.

        Returns
        -------
        Prior or None
            The prior, if any.

        Examples
        --------
        >>> blm.Priors(rho=("uniform", 0, 1)).residual_of("rho")
        Prior(family='uniform', parameters=(0.0, 1.0))
        """
        return dict(self.residual).get(require_name(name, "name"))

    def require_known(self, coefficients: Iterable[str], terms: Mapping[str, Sequence[str]], residual: Iterable[str] = ()) -> None:
        """Raise PriorError for a name that the model does not have; `terms` maps group -> its terms, `residual` names R's parameters.

        Parameters
        ----------
        coefficients : iterable of str
            Coefficients of the model.
        terms : Mapping of str to sequence of str
            Group -> its random columns.
        residual : iterable of str, default ()
            Parameters of R.

        Examples
        --------
        >>> blm.Priors(sd={"Subject": ("half_normal", 10)}).require_known([], {"Subject": ["Days"]}, [])
        """
        groups = list(terms)
        parameters = list(residual)
        own = list(coefficients)
        if not isinstance(self.alpha, str):
            known = {same_term(name) for name in own} | (set(SLOPES) if set(own) - {"Intercept"} else set())
            _require_known("alpha", tuple(pair for pair in self.alpha if same_term(pair[0]) not in known), own)
        _require_known("sd", self.sd, [*groups, *(f"{group}/{term}" for group in groups for term in terms[group])])
        _require_known("corr", self.corr, groups)
        _require_known("sigma", self.sigma, ["sigma", *parameters])
        _require_known("residual", self.residual, parameters, own, groups)

    def as_dict(self) -> dict[str, Any]:
        """What was said, as plain values: `Priors(**priors.as_dict()) == priors`.

        Returns
        -------
        dict of str to object
            Arguments of `Priors`.

        Examples
        --------
        >>> blm.Priors(**blm.Priors(corr=("lkj", 2)).as_dict()) == blm.Priors(corr=("lkj", 2))
        True
        """
        alpha: Any = self.alpha if isinstance(self.alpha, str) else _plain(self.alpha)
        priors = {"sd": self.sd, "corr": self.corr, "sigma": self.sigma, "residual": self.residual}
        out: dict[str, Any] = {"alpha": alpha} if self.alpha_given else {}
        out.update({key: _plain(value) for key, value in priors.items() if value})
        if self.preset is not None:
            out["preset"] = self.preset
        return out


def _read_alpha(value: Any) -> str | Named:
    if isinstance(value, str) and value in ("flat", "normal"):
        return value
    if isinstance(value, Mapping) or _is_named(value):
        return _read_named(dict(value), COEFFICIENT_FAMILIES, "alpha")
    if isinstance(value, Prior | tuple | list) or (isinstance(value, str) and "(" in value):
        # one prior for an intercept and for slopes in other units is hardly ever meant, and brms' class b leaves the intercept out
        prior = read_prior(value, COEFFICIENT_FAMILIES, "alpha")
        said = (prior.family, *prior.parameters)
        what = "a prior of alpha without names does not say whether it is that of the intercept too"
        raise PriorError(what, f"alpha: {value!r:.80}", f'write alpha={{"slopes": {said}}}, and add "Intercept": {said} if it is')
    raise PriorError(
        "the prior of alpha cannot be read",
        f"alpha: {show_value(value)}",
        'write "flat", "normal", {"slopes": ("normal", mean, sd)} for all but the intercept, or {coefficient: ("normal", mean, sd)}',
    )


def _read(value: Any, allowed: Sequence[str], name: str) -> Prior | Named | None:
    if value is None:
        return None
    if isinstance(value, Mapping) or _is_named(value):
        return _read_named(dict(value), allowed, name)
    return read_prior(value, allowed, name)


def _is_named(value: Any) -> bool:
    """Whether it is the stored form of a mapping: pairs (name, Prior)."""
    return isinstance(value, tuple) and bool(value) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value)


def _read_named(values: Mapping[Any, Any], allowed: Sequence[str], argument: str) -> Named:
    for key in values:
        if not isinstance(key, str) or not key:
            raise PriorError(f"a prior of {argument} has no name", f"{argument}: {show_value(key)}", "name the parameter by a string")
    # Sorted, so that two sets of priors that say the same are equal.
    return tuple(
        sorted(
            ((key, read_prior(value, allowed, f"{argument} {key!r}".strip())) for key, value in values.items()), key=lambda pair: pair[0]
        )
    )


def _lookup(prior: Prior | Named | None, names: Sequence[str]) -> Prior | None:
    if prior is None or isinstance(prior, Prior):
        return prior
    table = dict(prior)
    return next((table[name] for name in names if name in table), None)


_OTHER_WORDS = {
    "sigma": "sigma=...",  # the table of residual parameters has it
    **dict.fromkeys(("b", "beta", "fixed", "slope", "slopes", "coef"), 'alpha={"slopes": ...}'),
    **dict.fromkeys(("Intercept", "intercept"), 'alpha={"Intercept": ...}'),
    **dict.fromkeys(("cor", "L", "lkj", "chol", "correlation"), 'corr=("lkj", 2)'),
    **dict.fromkeys(("sds", "tau", "random"), "sd=..."),
}
"""Class of a parameter in brms, Bambi and Stan, which arrives as the name of a residual parameter -> what it is here."""


def _require_known(
    argument: str, prior: str | Prior | Named | None, known: list[str], coefficients: Sequence[str] = (), groups: Sequence[str] = ()
) -> None:
    if prior is None or isinstance(prior, str | Prior):
        return
    for name, _ in prior:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.5) or known[:10]
            remedy = "the model has " + ", ".join(near) if near else f"leave it out: the model has no such parameters of {argument}"
            if argument == "residual" and name in _OTHER_WORDS:
                remedy = f"write Priors({_OTHER_WORDS[name]})"
            elif argument == "residual" and name in coefficients:
                remedy = f'the prior of a coefficient stands in alpha: Priors(alpha={{"{name}": ...}})'
            elif argument == "residual" and (group := name.rpartition("|")[2].strip()) in groups:
                remedy = f'the prior of the standard deviations of random effects stands in sd: Priors(sd={{"{group}": ...}})'
            raise PriorError(f"the model has no parameter {name!r} for a prior of {argument}", f"{argument}: {name}", remedy)


def _plain(own: Prior | Named | None) -> Any:
    if isinstance(own, Prior):
        return own.as_dict()
    return {name: prior.as_dict() for name, prior in own or ()}
