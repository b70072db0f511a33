"""A reader over the tokens of one statement, and the errors it raises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NoReturn

from bayeslmm.spec.sas.tokens import Token, refuse, spot, syntax_error


class Cursor:
    """Reads the tokens of one statement from left to right; the last token is the semicolon.

    names : lower-case name -> its spelling, shared by all statements; a name in its own spelling stands for itself
    """

    __slots__ = ("_index", "_names", "_tokens", "program", "statement")

    def __init__(self, program: str, tokens: tuple[Token, ...], statement: str, names: dict[str, str]) -> None:
        self.program = program
        self.statement = statement
        self._tokens = tokens
        self._names = names
        self._index = 0

    @property
    def token(self) -> Token:
        """The token to be read next."""
        return self._tokens[self._index]

    @property
    def ahead(self) -> Token:
        """The token after the next one (the last one at the end)."""
        return self._tokens[min(self._index + 1, len(self._tokens) - 1)]

    @property
    def at_end(self) -> bool:
        """Whether only the semicolon is left."""
        return self.token.kind == "end"

    @property
    def at_options(self) -> bool:
        """Whether the options (or the end) come next."""
        return self.at_end or self.token.is_symbol("/")

    def sees(self, symbol: str) -> bool:
        """Whether the symbol comes next."""
        return self.token.is_symbol(symbol)

    def sees_word(self, *words: str) -> bool:
        """Whether one of the words comes next (lower case)."""
        return self.token.kind == "name" and self.token.lower in words

    def take(self) -> Token:
        """The next token, read."""
        token = self.token
        if token.kind != "end":
            self._index += 1
        return token

    def accept(self, symbol: str) -> bool:
        """Read the symbol if it comes next."""
        found = self.sees(symbol)
        if found:
            self._index += 1
        return found

    def expect(self, symbol: str) -> Token:
        """Read the symbol, which must come next."""
        if not self.sees(symbol):
            self.fail(f"expected `{symbol}` here")
        return self.take()

    def name(self, of: str = "a variable name") -> str:
        """Read a name; the program's first spelling of it is the one kept."""
        token = self.token
        if token.kind != "name":
            self.fail(f"expected {of} here")
        self._index += 1
        return self.spelling(token.text)

    def spelling(self, name: str) -> str:
        """The name as the data, or the program where it first stands, spells it."""
        return self._names[name] if name in self._names else self._names.setdefault(name.lower(), name)

    def word(self) -> str:
        """Read a keyword, in lower case."""
        if self.token.kind != "name":
            self.fail("expected a word here")
        return self.take().lower

    def label(self) -> str:
        """Read a quoted text."""
        if self.token.kind != "string":
            self.fail("expected a quoted label here", "every ESTIMATE and CONTRAST has one: estimate 'A against B' trt 1 -1;")
        return self.take().text

    def sees_number(self) -> bool:
        """Whether a number, signed or not, comes next."""
        if self.token.kind == "symbol" and self.token.text in "+-":
            return self.ahead.kind == "number"
        return self.token.kind == "number"

    def number(self) -> float:
        """Read a number with its sign."""
        if not self.sees_number():
            self.fail("expected a number here")
        sign = self.take().text if self.token.kind == "symbol" else "+"
        token = self.take()
        value = float(token.text)
        if not math.isfinite(value):
            self.fail_at(token, "this number is beyond double precision")
        return -value if sign == "-" else value

    def integer(self) -> int:
        """Read a whole number, at least 1."""
        token = self.token
        value = self.number()
        if value != int(value) or value < 1:
            self.fail_at(token, "expected a whole number from 1 up here")
        return int(value)

    def bracketed[T](self, read: Callable[[], T]) -> T:
        """Read `( ... )` around what `read` reads."""
        self.expect("(")
        value = read()
        self.expect(")")
        return value

    def until_options[T](self, read: Callable[[], T]) -> tuple[T, ...]:
        """Read items until `/` or the end of the statement."""
        items: list[T] = []
        while not self.at_options:
            items.append(read())
        return tuple(items)

    def finish(self) -> None:
        """Nothing may be left."""
        if not self.at_end:
            self.fail(f"`{self.token.text}` is not expected in the {self.statement} statement here")

    def here(self) -> str:
        """The place of the next token, for a person."""
        return spot(self.program, self.token.position)

    def fail(self, what: str, remedy: str = "") -> NoReturn:
        """Raise for text that is not SAS at the next token."""
        syntax_error(self.program, self.token.position, what, remedy)

    def fail_at(self, token: Token, what: str, remedy: str = "") -> NoReturn:
        """Raise for text that is not SAS at this token."""
        syntax_error(self.program, token.position, what, remedy)

    def refuse_at(self, token: Token, what: str, remedy: str = "") -> NoReturn:
        """Raise for SAS that is not supported at this token."""
        refuse(self.program, token.position, what, remedy)
