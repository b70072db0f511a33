"""TYPE= of RANDOM and REPEATED: SAS's covariance structures and ours.

| SAS | ours | | SAS | ours |
|---|---|---|---|---|
| VC, SIMPLE | one variance per effect | | HF | hf |
| UN, UNR | us | | FA(q), FA0(q), FA1(q) | fa, fa0, fa1 of order q |
| UN(q), UNR(q) | un of order q; diag for q = 1 | | ANTE(1) | adh |
| CS, CSH | cs, csh | | ARMA(1,1) | arma |
| AR(1), ARH(1) | ar1, ar1h | | SP(EXP), SP(GAU), SP(POW) | sp_exp, sp_gau, sp_pow |
| TOEP, TOEPH | toep, toeph | | SP(SPH), SP(LIN), SP(MATERN) | sp_sph, sp_lin, matern |
| TOEP(q), TOEPH(q) | toep, toeph of order q; id, diag for q = 1 | | UN@AR(1), UN@CS, UN@UN | us@ar1, us@cs, us@us |
| SP(POWA)(x y) | sp_pow@sp_pow, a factor for each coordinate | | | |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from bayeslmm.covariance.base import StructureOrder
from bayeslmm.covariance.registry import STRUCTURES, structure
from bayeslmm.sas.language.tokens import SASCursor


@dataclass(frozen=True, slots=True)
class CovType:
    """A value of TYPE=.

    name : "UN", "AR(1)", "SP(POW)", "UN@AR(1)", ... in capitals
    order : the q of TOEP(q), UN(q), FA(q), ...
    coordinates : columns of a spatial structure
    """

    name: str = "VC"
    order: int | None = None
    coordinates: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As SAS writes it, in capitals: `TOEP(2)`, `SP(POW)(time)`, `UN@AR(1)`."""
        order = f"({self.order})" if self.order is not None else ""
        coordinates = f"({' '.join(self.coordinates)})" if self.coordinates else ""
        return f"{self.name}{order}{coordinates}"

    @property
    def spatial(self) -> bool:
        """Whether the covariance depends on distances between coordinates."""
        return self.name.startswith("SP(")

    @property
    def known(self) -> bool:
        """Whether matrices of a data set stand behind it: LIN(q) of LDATA=, and all of G by GDATA=."""
        return self.name in ("LIN", "GDATA", "GDATA RATIOS")

    @property
    def kronecker(self) -> bool:
        """Whether it is a product of two structures, over two effects."""
        return "@" in self.name


VC = CovType()
POWERS = "SP(POWA)"
"""The product over coordinates of a correlation to the power of the distance along each."""
_POWER_FACTORS = frozenset({"sp_pow", "car1", "ar1"})


def _ours() -> dict[str, str]:
    """The name before any bracket of an order -> ours, from the registry. A structure of order 1 is simpler than its name."""
    found = {"UNR": "us", "UN@AR(1)": "us@ar1", "UN@CS": "us@cs", "UN@UN": "us@us"}
    for name, row in STRUCTURES.items():
        if row.sas and name not in _SPECIAL:
            found.setdefault(row.sas, name)
    return found


_OF_ORDER: Mapping[str, str] = {"UN": "un", "UNR": "un"}
_OF_ORDER_ONE: Mapping[str, str] = {"UN": "diag", "UNR": "diag", "TOEP": "id", "TOEPH": "diag"}

# What stands in the brackets: a fixed text, an order that may be left out, an order that must be there.
_FIXED: Mapping[str, str] = {"AR": "1", "ARH": "1", "ANTE": "1", "ARMA": "1,1"}
_OPTIONAL = frozenset({"UN", "UNR", "TOEP", "TOEPH"})
_REQUIRED = frozenset({"FA", "FA0", "FA1", "LIN"})
_SPECIAL = frozenset({"un", "diag", "id"})  # which SAS writes as another structure of an order


def _plain() -> set[str]:
    """Types without a bracket and without an order."""
    return {name for name in _ours() if "(" not in name and "@" not in name and name not in _OPTIONAL | _REQUIRED}


def _spatial_kinds() -> set[str]:
    return {name[3:-1] for name in _ours() if name.startswith("SP(")}


_REFUSED: Mapping[str, str] = {
    "SP(EXPA)": "use type=sp(powa)(...), a correlation for each coordinate",
    "SP(EXPGA)": "use type=sp(exp)(...) with rotated and scaled coordinates",
    "SP(GAUGA)": "use type=sp(gau)(...) with rotated and scaled coordinates",
    "SP(SPHGA)": "use type=sp(sph)(...) with rotated and scaled coordinates",
    "SP(LINL)": "use type=sp(lin)(...)",
    "SP(MATHSW)": "use type=sp(matern)(...)",
}


def our_name(cov: CovType) -> tuple[str, int | None]:
    """Our name of the structure, and its order when it has one.

    >>> our_name(CovType("TOEP", 2)), our_name(CovType("UN", 1))
    (('toep', 2), ('diag', None))
    """
    if cov.name == POWERS:
        return "@".join(["sp_pow"] * len(cov.coordinates)), None
    if cov.order == 1 and cov.name in _OF_ORDER_ONE:
        return _OF_ORDER_ONE[cov.name], None
    if cov.order is not None:
        return _OF_ORDER.get(cov.name, _ours()[cov.name]), cov.order
    return _ours()[cov.name], None


def sas_type(name: str, order: StructureOrder | None = None, coordinates: tuple[str, ...] = ()) -> CovType | None:
    """The TYPE= of one of our structures; None when SAS has no such structure."""
    if isinstance(order, tuple):
        return None
    special = {"diag": CovType("UN", 1), "id": CovType("TOEP", 1), "un": CovType("UN", order)}
    if name in special:
        return special[name]
    factors = name.split("@")
    sas = POWERS if len(factors) > 1 and set(factors) <= _POWER_FACTORS else structure(name).sas
    return CovType(sas, order, coordinates if sas.startswith("SP(") else ()) if sas else None


def parse_type(cursor: SASCursor) -> CovType:
    """Read what follows `TYPE=`."""
    start = cursor.token
    name = cursor.word().upper()
    if name in {"VC", "SIMPLE"}:
        return VC
    if name == "SP":
        return _spatial(cursor)
    if name in _REFUSED:
        cursor.not_supported_at(start, f"TYPE={name} is not supported", _REFUSED[name])
    cov = _serial(cursor, name)
    if cov is None:
        near = get_close_matches(name, ["VC", "SP(POW)", *_FIXED, *_OPTIONAL, *_REQUIRED, *_plain()], 3)
        cursor.fail_at(start, f"TYPE={start.text} is not a covariance structure of PROC MIXED", f"near: {', '.join(near)}" if near else "")
    if not cursor.accept("@"):
        return cov
    right = cursor.token
    second = _serial(cursor, cursor.word().upper())
    if cov != CovType("UN") or second is None or second.text not in {"AR(1)", "CS", "UN"}:
        cursor.fail_at(right, "a product of structures is UN@AR(1), UN@CS or UN@UN")
    return CovType(f"UN@{second.text}")


def _serial(cursor: SASCursor, name: str) -> CovType | None:
    """A structure whose name has been read, with what stands in its brackets; None if there is none of this name."""
    if name in _plain():
        return CovType(name)
    if name in _FIXED:
        token = cursor.token
        inside = cursor.in_brackets(lambda: _orders(cursor)) if cursor.sees("(") else ""
        if inside != _FIXED[name]:
            cursor.fail_at(token, f"TYPE={name} is written {name}({_FIXED[name]})")
        return CovType(f"{name}({inside})")
    if name in _OPTIONAL or name in _REQUIRED:
        if not cursor.sees("("):
            return CovType(name, 1 if name in _REQUIRED else None)
        return CovType(name, cursor.in_brackets(cursor.integer))
    return None


def _orders(cursor: SASCursor) -> str:
    orders = [cursor.integer()]
    while cursor.accept(","):
        orders.append(cursor.integer())
    return ",".join(map(str, orders))


def _spatial(cursor: SASCursor) -> CovType:
    start = cursor.token
    name = f"SP({cursor.in_brackets(cursor.word).upper()})"
    if name in _REFUSED:
        cursor.not_supported_at(start, f"TYPE={name} is not supported", _REFUSED[name])
    if name != POWERS and name[3:-1] not in _spatial_kinds():
        cursor.fail_at(start, f"TYPE={name} is not a covariance structure of PROC MIXED", f"one of {', '.join(sorted(_spatial_kinds()))}")
    if not cursor.sees("("):
        cursor.fail(f"TYPE={name} needs its coordinates", f"type={name.lower()}(time)")
    return CovType(name, None, cursor.in_brackets(lambda: _coordinates(cursor)))


def _coordinates(cursor: SASCursor) -> tuple[str, ...]:
    names = [cursor.name()]
    while not cursor.sees(")"):
        names.append(cursor.name())
    return tuple(names)
