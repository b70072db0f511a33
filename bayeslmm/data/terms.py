"""The right-hand side of a formula as a list of terms: the algebra of `+ - : * / ^ %in%`, as formulaic expands it.

The text comes from `bayeslmm.formula`, which has walked and limited it; what stands between the operators (a column, `log(x)`,
`poly(x, 2)`) is an atom and is left to `bayeslmm.data.atoms`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce

from bayeslmm.errors import FormulaError

_POWER: dict[str, tuple[int, bool]] = {  # operator -> (binding power, right associative)
    "+": (1, False),
    "-": (1, False),
    "*": (2, False),
    "/": (2, False),
    "%in%": (2, False),
    ":": (3, False),
    "^": (4, True),
    "**": (4, True),
}


@dataclass(frozen=True, slots=True)
class Term:
    """A product of atoms; the empty product is the intercept. Two terms are equal when their atoms are, in any order."""

    atoms: tuple[str, ...]

    @property
    def name(self) -> str:
        """The term as a formula writes it, backticks left out."""
        return ":".join(atom_name(atom) for atom in self.atoms) or "Intercept"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Term) and frozenset(self.atoms) == frozenset(other.atoms)

    def __hash__(self) -> int:
        return hash(frozenset(self.atoms))

    def __mul__(self, other: Term) -> Term:
        return Term(tuple(dict.fromkeys((*self.atoms, *other.atoms))))


def atom_name(atom: str) -> str:
    """A bare column in backticks without them; anything else as it is."""
    return atom[1:-1].replace("``", "`") if is_quoted(atom) else atom


def is_quoted(atom: str) -> bool:
    """Whether the atom is nothing but a name in backticks."""
    return len(atom) > 2 and atom[0] == atom[-1] == "`" and "`" not in atom[1:-1].replace("``", "")


@lru_cache(maxsize=1024)
def expand(text: str) -> tuple[Term, ...]:
    """The terms of a right-hand side, by degree, an implicit intercept first unless the text removes it.

    >>> [term.name for term in expand("0 + a * b")]
    ['a', 'b', 'a:b']
    """
    parser = _Parser(tokens(text), text)
    terms = parser.parse()
    return tuple(sorted(terms, key=lambda term: len(term.atoms)))


Terms = dict[Term, None]  # an ordered set
INTERCEPT = Term(())


class _Parser:
    """Precedence climbing over the tokens; sums know about `0` and `1`."""

    def __init__(self, words: list[str], text: str) -> None:
        self.words, self.text, self.at = [*words, ""], text, 0

    def parse(self) -> Terms:
        terms = self._sum(dict.fromkeys([INTERCEPT]))
        if self.words[self.at]:
            raise self._error(f"{self.words[self.at]!r} is out of place")
        return terms

    def _sum(self, terms: Terms) -> Terms:
        sign = "+"
        while True:
            while self.words[self.at] in ("+", "-"):
                sign = "-" if (self._next() == "-") != (sign == "-") else "+"
            terms = self._add(terms, sign)
            if self.words[self.at] not in ("+", "-"):
                return terms
            sign = self._next()

    def _add(self, terms: Terms, sign: str) -> Terms:
        if self.words[self.at] in ("0", "1") and self.words[self.at + 1] in ("+", "-", ")", ""):
            keep = (self._next() == "1") == (sign == "+")
            rest = {term: None for term in terms if term != INTERCEPT}
            return {INTERCEPT: None, **rest} if keep else rest
        operand = self._product(2)
        return {**terms, **operand} if sign == "+" else {term: None for term in terms if term not in operand}

    def _product(self, least: int) -> Terms:
        left = self._operand()
        while (operator := self.words[self.at]) in _POWER and _POWER[operator][0] >= least:
            power, right_first = _POWER[self._next()]
            combine = _COMBINE.get(operator)
            left = self._raise_to(left) if combine is None else combine(left, self._product(power + (not right_first)))
        return left

    def _raise_to(self, base: Terms) -> Terms:
        exponent = self._next()
        if not exponent.isdecimal() or int(exponent) < 1:
            raise self._error("an exponent is a positive integer; arithmetic goes inside I()")
        # Step by step, repetitions dropped on the way: ten terms to the eighth are 1,012 terms but 10^8 products.
        return reduce(_interact, [base] * int(exponent))

    def _operand(self) -> Terms:
        word = self._next()
        if word == "(":
            inside = self._sum({})
            if self._next() != ")":
                raise self._error("a bracket is not closed")
            return inside
        if word == "1":
            return {INTERCEPT: None}
        if not word or word in _POWER or word == ")" or word[0].isdigit():
            raise self._error(f"a term is missing before {word!r}" if word else "a term is missing at the end")
        return {Term((word,)): None}

    def _next(self) -> str:
        word = self.words[self.at]
        self.at += bool(word)
        return word

    def _error(self, what: str) -> FormulaError:
        return FormulaError(f"the right-hand side cannot be read: {what}", self.text, "see the formula syntax of lme4")


def _interact(left: Iterable[Term], right: Iterable[Term]) -> Terms:
    return dict.fromkeys(a * b for a in left for b in right)


def _cross(left: Terms, right: Terms) -> Terms:
    return {**left, **right, **_interact(left, right)}


def _nest(left: Terms, right: Terms) -> Terms:
    parent = reduce(Term.__mul__, left)
    return {**left, **_interact([parent], right)}


_COMBINE: dict[str, Callable[[Terms, Terms], Terms]] = {
    "*": _cross,
    "/": _nest,
    ":": _interact,
    "%in%": lambda nested, parents: _nest(parents, nested),
}


# ----------------------------------------------------------------------------------------------------------------- words


def tokens(text: str) -> list[str]:
    """Operators, brackets of the algebra, and atoms (a call is one atom, with its brackets)."""
    words: list[str] = []
    at = 0
    while at < len(text):
        letter = text[at]
        if letter.isspace():
            at += 1
            continue
        end = _operator_end(text, at) or _atom_end(text, at)
        words.append(text[at:end].strip())
        at = end
    return words


def _operator_end(text: str, at: int) -> int:
    for operator in ("%in%", "**"):
        if text.startswith(operator, at):
            return at + len(operator)
    return at + 1 if text[at] in "+-:*/^()" else 0


def _atom_end(text: str, at: int) -> int:
    """The end of a name, a name in backticks, a number, or a name with its bracket."""
    end = at
    if text[at] == "`":
        end = _quote_end(text, at)
    else:
        while end < len(text) and (text[end].isalnum() or text[end] in "_." or text[end] > "\x7f"):
            end += 1
    if end == at:
        raise FormulaError(f"{text[at]!r} cannot be read in a right-hand side", text, "quote strange column names in backticks")
    if end < len(text) and text[end] == "(":
        end = _bracket_end(text, end)
    return end


def _quote_end(text: str, at: int) -> int:
    mark, end = text[at], at + 1
    while end < len(text):
        if text[end] == mark:
            if mark == "`" and text.startswith("``", end):
                end += 2
                continue
            return end + 1
        end += 1
    raise FormulaError("a quotation is not closed", text[at:], f"close it with {mark}")


def _bracket_end(text: str, at: int) -> int:
    depth, end = 0, at
    while end < len(text):
        letter = text[end]
        if letter in "`'\"":
            end = _quote_end(text, end)
            continue
        depth += (letter in "([") - (letter in ")]")
        end += 1
        if depth == 0:
            return end
    raise FormulaError("a bracket is not closed", text[at:], "close it")
