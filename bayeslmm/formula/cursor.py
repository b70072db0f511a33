"""A walk over tokens, with errors that mark the spot."""

from __future__ import annotations

from bayeslmm.errors import FormulaError, FormulaLimitError
from bayeslmm.formula.functions import RESERVED
from bayeslmm.formula.spot import spotted
from bayeslmm.formula.tokens import MAX_DEPTH, Token, shown, tokenize
from bayeslmm.formula.tree import Name


class Cursor:
    """Where a parser is in its tokens."""

    __slots__ = ("at", "depth", "functions", "operations", "text", "tokens")

    def __init__(self, text: str, functions: frozenset[str] | None = frozenset()) -> None:
        """functions : the user's own; None lets every name be called (for a text that has been checked before)."""
        self.text = text
        self.tokens = tokenize(text)
        self.functions = functions
        self.at = 0
        self.depth = 0
        self.operations = 0  # of arithmetic, in the term that is being read

    @property
    def token(self) -> Token:
        """The token ahead."""
        return self.tokens[self.at]

    def ahead(self, steps: int = 1) -> Token:
        """The token `steps` further on."""
        return self.tokens[min(self.at + steps, len(self.tokens) - 1)]

    def next(self) -> Token:
        """Take the token ahead."""
        token = self.tokens[self.at]
        self.at += token.kind != "end"
        return token

    def take(self, *operators: str) -> Token | None:
        """Take the token ahead if it is one of the operators."""
        return self.next() if self.token.says(*operators) else None

    def expect(self, operator: str, what: str, remedy: str = "") -> Token:
        """Take the operator, or raise."""
        if not self.token.says(operator):
            raise self.error(self.token, what, remedy)
        return self.next()

    def column(self, role: str) -> Name:
        """Take the bare name of a column."""
        token = self.next()
        if token.kind not in ("name", "quoted"):
            raise self.error(token, f"{role} is missing before {shown(token)}", "name a column")
        if self.token.says("("):
            raise self.error(token, f"{role} is a function of columns here", "compute the column beforehand and name it")
        if token.kind == "name" and token.text in RESERVED:
            raise self.error(token, f"{token.text!r} is a word of Python", f"a column of this name is quoted: `{token.text}`")
        return Name(token.text, token.kind == "quoted", token.start, token.end)

    def deeper(self) -> None:
        """Count one more level of nesting."""
        self.depth += 1
        if self.depth > MAX_DEPTH + 1:  # the outermost expression has no bracket
            raise self.error(self.token, f"more than {MAX_DEPTH} nested expressions", "simplify the formula", FormulaLimitError)

    def error(self, token: Token, what: str, remedy: str = "", kind: type[FormulaError] = FormulaError) -> FormulaError:
        """An error at a token."""
        return self.error_between(token.start, token.end, what, remedy, kind)

    def error_between(self, start: int, end: int, what: str, remedy: str = "", kind: type[FormulaError] = FormulaError) -> FormulaError:
        """An error at characters start..end-1."""
        return spotted(self.text, start, end, what, remedy, kind)

    def demand_end(self) -> None:
        """Raise if anything is left."""
        token = self.token
        if token.kind != "end":
            raise self.error(token, f"{shown(token)} is out of place", "separate terms by an operator such as +")
