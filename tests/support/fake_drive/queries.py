"""The language of `files.list`'s `q`, as published. A term, an operator or a value it does not know is an error: a fake
that ignored what it does not know would find everything.

https://developers.google.com/workspace/drive/api/guides/ref-search-terms
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.fake_drive.world import File

Predicate = Callable[["File"], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|\\['\\])*')|(?P<op><=|>=|!=|=|<|>)|(?P<mark>[(){}])|(?P<word>[A-Za-z][A-Za-z.]*))"
)


class BadQuery(Exception):
    """Not in the language."""


def parse(text: str) -> Predicate:
    """What a query finds. Raises BadQuery."""
    reader = _Reader(text)
    found = reader.either()
    if reader.tokens:
        raise BadQuery(text)
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise BadQuery(text)
            kind = found.lastgroup or ""
            self.tokens.append((kind, found[kind]))
            at = found.end()
        if not self.tokens:
            raise BadQuery(text)

    def either(self) -> Predicate:
        parts = [self.both()]
        while self._is("word", "or"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else lambda file: any(part(file) for part in parts)

    def both(self) -> Predicate:
        parts = [self.one()]
        while self._is("word", "and"):
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else lambda file: all(part(file) for part in parts)

    def one(self) -> Predicate:
        if self._is("word", "not"):
            inner = self.one()
            return lambda file: not inner(file)
        if self._is("mark", "("):
            inner = self.either()
            self._must("mark", ")")
            return inner
        kind, value = self._next()
        if kind == "text":
            self._must("word", "in")
            self._must("word", "parents")
            parent = _plain(value)
            return lambda file: parent in file.parents_seen()
        if kind != "word":
            raise BadQuery(value)
        return self._term(value)

    def _term(self, term: str) -> Predicate:
        if term == "trashed":
            operator, wanted = self._next()[1], self._next()[1]
            if operator not in ("=", "!=") or wanted not in ("true", "false"):
                raise BadQuery(term)
            expected = (wanted == "true") == (operator == "=")
            return lambda file: file.is_trashed() == expected
        if term == "appProperties":
            return self._property()
        operator = self._next()[1]
        value = _plain(self._must("text"))
        if term == "name" and operator in ("=", "!=", "contains"):
            if operator == "contains":  # words that begin so, not any place in the name
                return lambda file: any(word.startswith(value) for word in re.split(r"\W+", file.name))
            return lambda file: (file.name == value) == (operator == "=")
        if term == "mimeType" and operator in ("=", "!="):
            return lambda file: (file.mime == value) == (operator == "=")
        if term == "createdTime" and operator in ("=", "<", ">", "<=", ">=", "!="):
            return _compared(operator, value)
        raise BadQuery(f"{term} {operator}")

    def _property(self) -> Predicate:
        self._must("word", "has")
        self._must("mark", "{")
        found: list[str] = []
        for word in ("key", "and", "value"):
            self._must("word", word)
            if word != "and":
                self._must("op", "=")
                found.append(_plain(self._must("text")))
        self._must("mark", "}")
        return lambda file: file.properties.get(found[0]) == found[1]

    def _next(self) -> tuple[str, str]:
        if not self.tokens:
            raise BadQuery("it ends")
        return self.tokens.pop(0)

    def _is(self, kind: str, value: str) -> bool:
        if self.tokens and self.tokens[0] == (kind, value):
            self.tokens.pop(0)
            return True
        return False

    def _must(self, kind: str, value: str | None = None) -> str:
        found = self._next()
        if found[0] != kind or (value is not None and found[1] != value):
            raise BadQuery(found[1])
        return found[1]


def _plain(quoted: str) -> str:
    return re.sub(r"\\(['\\])", r"\1", quoted[1:-1])


def _compared(operator: str, value: str) -> Predicate:
    try:
        at = datetime.fromisoformat(value)
    except ValueError as problem:
        raise BadQuery(value) from problem
    results = {"=": (0,), "!=": (-1, 1), "<": (-1,), ">": (1,), "<=": (-1, 0), ">=": (0, 1)}[operator]

    def holds(file: File) -> bool:
        created = datetime.fromisoformat(file.created)
        return ((created > at) - (created < at)) in results

    return holds
