"""A formula as tokens from a closed list, each with its place in the text, and errors that mark the place."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal
from unicodedata import category

from bayeslmm.errors import FormulaError, FormulaLimitError
from bayeslmm.formula.syntax import RESERVED, Name, column_remedy

SHOWN_CHARACTERS = 100  # characters of a long formula shown around the spot


def error_at(text: str, start: int, end: int, what: str, remedy: str = "", kind: type[FormulaError] = FormulaError) -> FormulaError:
    """A FormulaError whose `where` is the text with characters start..end-1 underlined.

    >>> print(error_at("y ~ x + + z", 8, 9, "a term is missing before '+'").where)
    <BLANKLINE>
        y ~ x + + z
                ^
    """
    first = max(0, start - SHOWN_CHARACTERS // 2)
    last = min(len(text), first + SHOWN_CHARACTERS)
    before, after = ("... " if first else ""), (" ..." if last < len(text) else "")
    shown = "".join(map(visible_character, text[first:last]))
    marks = max(1, min(end, last) - start)
    return kind(what, f"\n    {before}{shown}{after}\n    {' ' * (len(before) + start - first)}{'^' * marks}", remedy)


def visible_character(character: str) -> str:
    """The character, or one stand-in of the same width for white space and what would not show or would steer a terminal."""
    if character.isspace():
        return " "
    return "�" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") else character


def name_character(character: str) -> str:
    """A character with its code point, for one that may be invisible or look like another."""
    name = unicodedata.name(character, "a control character")
    shown = f"{character!r} " if visible_character(character) == character else ""
    return f"{shown}(U+{ord(character):04X} {name})"


MAX_BYTES = 64 * 1024
MAX_DEPTH = 64
MAX_DIGITS = 40

TokenKind = Literal["name", "quoted", "number", "string", "op", "end"]


@dataclass(frozen=True, slots=True)
class Token:
    """One token. `text` of a quoted name is the bare name, of a string its content."""

    kind: TokenKind
    text: str
    start: int
    end: int

    def says(self, *texts: str) -> bool:
        """Whether it is one of these operators."""
        return self.kind == "op" and self.text in texts


_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[^\W\d]\w*(?:\.\w+)*)"
    r"|(?P<quoted>`(?:[^`]|``)+`)"
    r"|(?P<string>\"[^\"\\\r\n]*\"|'[^'\\\r\n]*')"
    r"|(?P<op>\*\*|\|\||%in%|==|!=|<=|>=|//|[-+*/^:~|(),=<>%\[\]@])",
)
_OPENING, _CLOSING = {"(": ")", "[": "]"}, (")", "]")
_SEMANTICS = {
    ".": ("'.' does not stand for all other columns here", "name the columns"),
    "{": ("braces are not part of a formula", "write I(...) for arithmetic"),
    "}": ("braces are not part of a formula", "write I(...) for arithmetic"),
    "`": ("a backtick is not closed", "close it; a backtick inside a name is doubled"),
    '"': ("a string is not closed", "close it on the same line; strings have no backslashes"),
    "'": ("a string is not closed", "close it on the same line; strings have no backslashes"),
    "&": ("'&' joins nothing here", "an interaction is written a:b"),
    "#": ("a comment is not part of a formula", "leave it out"),
    ";": ("a formula is one formula", "leave out the semicolon"),
}


def tokenize(text: str) -> tuple[Token, ...]:
    """The tokens of a text, an end token last. Errors: FormulaError with the spot, FormulaLimitError beyond 64 KB or a depth of 64."""
    _require_size(text)
    tokens: list[Token] = []
    depth: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _unknown(text, at)
        if match.lastgroup != "space":
            token = _token(text, match)
            _require_apart(text, tokens, token)
            _follow_brackets(text, depth, token)
            tokens.append(token)
            at = token.end
        else:
            at = match.end()
    if depth:
        raise error_at(text, depth[-1].start, depth[-1].end, "a bracket is not closed", f"close it with {_OPENING[depth[-1].text]!r}")
    return (*tokens, Token("end", "", len(text), len(text)))


def _require_size(text: str) -> None:
    if not isinstance(text, str):
        raise FormulaError(f"a formula is a text, not {type(text).__name__}", "", 'write it as "y ~ x + (x | g)"')
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise FormulaLimitError(f"the formula has {len(text):,} characters", "", "a formula is at most 64 KB; make columns beforehand")


def _token(text: str, match: re.Match[str]) -> Token:
    kind, found, start, end = match.lastgroup, match.group(), match.start(), match.end()
    if kind == "name":
        end = _name_end(text, end)
        if "._" in found:
            raise error_at(text, start, end, "a formula has no attributes", "a column of this name is quoted in backticks")
        return Token("name", text[start:end], start, end)
    if kind == "quoted":
        return Token("quoted", found[1:-1].replace("``", "`"), start, end)
    if kind == "string":
        return Token("string", found[1:-1], start, end)
    if kind == "number":
        if len(found) > MAX_DIGITS:
            raise error_at(text, start, end, f"a number with {len(found)} characters", "round it", FormulaLimitError)
        return Token("number", found, start, end)
    return Token("op", found, start, end)


def _name_end(text: str, end: int) -> int:
    """The end of a name with its combining marks, which belong to identifiers though they are no letters; invisible joiners do not."""
    while end < len(text) and ("_" + text[end]).isidentifier() and category(text[end]) != "Cf":
        end += 1
    return end


def _require_apart(text: str, tokens: list[Token], token: Token) -> None:
    """Refuse `2x`, `f"..."` and `a``b`: two words that touch."""
    if tokens and token.kind != "op" and tokens[-1].kind != "op" and tokens[-1].end == token.start:
        raise error_at(
            text,
            token.start,
            token.end,
            f"an operator is missing before {describe_token(token)}",
            "separate terms by an operator such as +",
        )


def _follow_brackets(text: str, depth: list[Token], token: Token) -> None:
    if token.says(*_OPENING):
        depth.append(token)
        if len(depth) > MAX_DEPTH:
            raise error_at(
                text, token.start, token.end, f"more than {MAX_DEPTH} nested brackets", "simplify the formula", FormulaLimitError
            )
    elif token.says(*_CLOSING) and (not depth or _OPENING[depth.pop().text] != token.text):
        raise error_at(text, token.start, token.end, f"{token.text!r} closes nothing", "balance the brackets")


def _unknown(text: str, at: int) -> FormulaError:
    if text.startswith("``", at):
        return error_at(text, at, at + 2, "a name in backticks is empty", "write the name of a column between the backticks")
    if text[at] == "." and at and (text[at - 1].isalnum() or text[at - 1] in ")_]`"):
        return error_at(text, at, at + 1, "a formula has no attributes", "a column with a dot in its name is quoted in backticks")
    what, remedy = _SEMANTICS.get(
        text[at], (f"the character {name_character(text[at])} has no meaning in a formula", "quote strange names in backticks")
    )
    return error_at(text, at, at + 1, what, remedy)


def _with_quotations(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    """`Q("strange name")`, as patsy has it, as the name in backticks that it is."""
    found: list[Token] = []
    at = 0
    while at < len(tokens):
        name, *rest = tokens[at : at + 4]
        quotes = len(rest) == 3 and rest[0].says("(") and rest[1].kind == "string" and rest[2].says(")")
        if quotes and name.kind == "name" and name.text == "Q" and rest[1].text:
            found.append(Token("quoted", rest[1].text, name.start, rest[2].end))
            at += 4
        else:
            found.append(name)
            at += 1
    return tuple(found)


def describe_token(token: Token) -> str:
    """A token as an error names it."""
    return "the end" if token.kind == "end" else repr(token.text)


class Cursor:
    """Where a parser is in its tokens."""

    __slots__ = ("at", "depth", "functions", "operations", "text", "tokens")

    def __init__(self, text: str, functions: frozenset[str] | None = frozenset()) -> None:
        """functions : the user's own; None lets every name be called (for a text that has been checked before)."""
        self.text = text
        self.tokens = tokenize(text)
        if functions is not None and "Q" not in functions:
            self.tokens = _with_quotations(self.tokens)
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

    def names_in_brackets(self) -> list[str]:
        """The columns of a bracket ahead, as they are written; none where it holds anything but names and commas."""
        names: list[str] = []
        for steps in range(1, len(self.tokens), 2):
            name, after = self.ahead(steps), self.ahead(steps + 1)
            if name.kind not in ("name", "quoted") or not after.says(",", ")"):
                return []
            names.append(self.text[name.start : name.end])
            if after.says(")"):
                break
        return names

    def column(self, role: str) -> Name:
        """Take the bare name of a column."""
        token = self.next()
        if token.kind not in ("name", "quoted"):
            raise self.error(token, f"{role} is missing before {describe_token(token)}", "name a column")
        if self.token.says("("):
            raise self.error(token, f"{role} is a function of columns here", column_remedy(token.text, self.names_in_brackets()))
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
        return error_at(self.text, start, end, what, remedy, kind)

    def require_end(self) -> None:
        """Raise if anything is left."""
        token = self.token
        if token.kind != "end":
            raise self.error(token, f"{describe_token(token)} is out of place", "separate terms by an operator such as +")
