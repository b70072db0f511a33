"""`Priors`: what a user says about priors, checked and frozen. Densities live where they are used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from bayeslmm.errors import PriorError
from bayeslmm.spec.families import COEFFICIENTS, CORRELATIONS, SCALES, SHAPES, Prior, read_prior

PRESETS = ("brms", "bambi", "blme", "reml")
Named = tuple[tuple[str, Prior], ...]


@dataclass(frozen=True, slots=True, init=False)
class Priors:
    """Priors of a model; what is not said is scaled from the data.

    alpha : "flat"; "normal" (N(mean(y), 2.5 sd(y)) for the intercept, N(0, 2.5 sd(y)/sd(x)) for the others); or
        {coefficient: ("normal", mean, sd)}
    sd : `(family, *parameters)` for every random-effect sd, or {"Subject": ..., "Subject/Days": ...}
    corr : ("lkj", eta), or {"Subject": ("lkj", eta)}
    sigma : `(family, *parameters)`, or by name where the residual structure has several sds
    residual : parameters of the residual structure or variance function by name: {"rho": ("uniform", 0, 1)}; plain names may be given
        as keywords, `Priors(rho=("uniform", 0, 1))`
    preset : "brms", "bambi", "blme" or "reml": the defaults of that package for all that is not said

    Raises PriorError, which names the parameter.

    >>> Priors(sd={"Subject/Days": ("half_normal", 10)}, corr=("lkj", 2)).sd_of("Subject", "Days")
    Prior(family='half_normal', parameters=(10.0,))
    """

    alpha: str | Named
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
        if preset is not None and preset not in PRESETS:
            raise PriorError(f"there is no preset {preset!r}", "preset", "use one of " + ", ".join(PRESETS))
        put = object.__setattr__
        put(self, "alpha", _read_alpha(alpha, preset))
        put(self, "sd", _read(sd, SCALES, "sd"))
        put(self, "corr", _read(corr, CORRELATIONS, "corr"))
        put(self, "sigma", _read(sigma, SCALES, "sigma"))
        put(self, "residual", _named({**dict(residual or {}), **named}, SHAPES, "residual"))
        put(self, "preset", preset)

    def alpha_of(self, coefficient: str) -> Prior | None:
        """The prior said for one coefficient; None where only "flat" or "normal" was said for all."""
        return None if isinstance(self.alpha, str) else dict(self.alpha).get(coefficient)

    def sd_of(self, group: str, term: str) -> Prior | None:
        """The prior said for the sd of a term of a group: `group/term` before `group` before the one for all; None if nothing was said."""
        return _lookup(self.sd, (f"{group}/{term}", group))

    def corr_of(self, group: str) -> Prior | None:
        """The prior said for the correlation matrix of a group; None if nothing was said."""
        return _lookup(self.corr, (group,))

    def sigma_of(self, name: str = "sigma") -> Prior | None:
        """The prior said for a residual sd; None if nothing was said."""
        return _lookup(self.sigma, (name,))

    def residual_of(self, name: str) -> Prior | None:
        """The prior said for a parameter of the residual structure or variance function; None if nothing was said."""
        return dict(self.residual).get(name)

    def demand_known(self, coefficients: Iterable[str], terms: Mapping[str, Sequence[str]], residual: Iterable[str] = ()) -> None:
        """Raise PriorError for a name that the model does not have; `terms` maps group -> its terms, `residual` names R's parameters."""
        groups = list(terms)
        parameters = list(residual)
        _demand("alpha", self.alpha, list(coefficients))
        _demand("sd", self.sd, [*groups, *(f"{group}/{term}" for group in groups for term in terms[group])])
        _demand("corr", self.corr, groups)
        _demand("sigma", self.sigma, ["sigma", *parameters])
        _demand("residual", self.residual, parameters)

    def told(self) -> dict[str, Any]:
        """What was said, as plain values: `Priors(**priors.told()) == priors`."""
        alpha: Any = self.alpha if isinstance(self.alpha, str) else _plain(self.alpha)
        said = {"sd": self.sd, "corr": self.corr, "sigma": self.sigma, "residual": self.residual}
        out: dict[str, Any] = {} if alpha == _default_alpha(self.preset) else {"alpha": alpha}
        out.update({key: _plain(value) for key, value in said.items() if value})
        if self.preset is not None:
            out["preset"] = self.preset
        return out


def _default_alpha(preset: str | None) -> str:
    return "normal" if preset == "bambi" else "flat"


def _read_alpha(given: Any, preset: str | None) -> str | Named:
    if given is None:
        return _default_alpha(preset)
    if isinstance(given, str) and given in COEFFICIENTS:
        return given
    if isinstance(given, Mapping) or _is_named(given):
        return _named(dict(given), COEFFICIENTS, "alpha")
    raise PriorError(
        "the prior of alpha cannot be read", f"alpha: {given!r:.80}", 'write "flat", "normal" or {coefficient: ("normal", mean, sd)}'
    )


def _read(given: Any, allowed: Sequence[str], name: str) -> Prior | Named | None:
    if given is None:
        return None
    if isinstance(given, Mapping) or _is_named(given):
        return _named(dict(given), allowed, name)
    return read_prior(given, allowed, name)


def _is_named(given: Any) -> bool:
    """Whether it is the stored form of a mapping: pairs (name, Prior)."""
    return isinstance(given, tuple) and bool(given) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in given)


def _named(given: Mapping[Any, Any], allowed: Sequence[str], room: str) -> Named:
    for key in given:
        if not isinstance(key, str) or not key:
            raise PriorError(f"a prior of {room} has no name", f"{room}: {key!r:.80}", "name the parameter by a string")
    # Sorted, so that two sets of priors that say the same are equal.
    return tuple(sorted(((key, read_prior(value, allowed, f"{room} {key!r}")) for key, value in given.items()), key=lambda pair: pair[0]))


def _lookup(said: Prior | Named | None, names: Sequence[str]) -> Prior | None:
    if said is None or isinstance(said, Prior):
        return said
    table = dict(said)
    return next((table[name] for name in names if name in table), None)


def _demand(room: str, said: str | Prior | Named | None, known: list[str]) -> None:
    if said is None or isinstance(said, str | Prior):
        return
    for name, _ in said:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.5) or known[:10]
            remedy = "the model has " + ", ".join(near) if near else f"leave it out: the model has no such parameters of {room}"
            raise PriorError(f"the model has no parameter {name!r} for a prior of {room}", f"{room}: {name}", remedy)


def _plain(said: Prior | Named | None) -> Any:
    if isinstance(said, Prior):
        return said.told()
    return {name: prior.told() for name, prior in said or ()}
