"""What stands behind an error, without what a library wrote there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from chatkeep.config.errors import ChatkeepError
from chatkeep.providers import base
from chatkeep.providers.wrap.around import Around

T = TypeVar("T")

_DEEPEST: Final = 8  # exceptions behind one another that are named


class Cause(Exception):
    """In place of an exception of a library: its type and number, and those of what was behind it. Nothing of its text.

    Libraries put addresses into texts, and keep whole requests with an exception: a proxy with its password, the header
    that says who asks, an address that is a key by itself.
    """

    def __init__(self, problem: BaseException) -> None:
        super().__init__(", ".join(_named(each) for each in _behind(problem)))


class Discreet(Around):
    """Lets errors out with a `Cause` in place of the exceptions of libraries."""

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        with discreetly():
            drawn = self.inner.list(prefix)
        return self._drawn(drawn)

    def _drawn(self, drawn: Iterator[base.ObjectStat]) -> Iterator[base.ObjectStat]:
        with discreetly():
            yield from drawn

    def _call(self, verb: str, call: Callable[[], T]) -> T:  # noqa: ARG002  # all the same
        with discreetly():
            return call()


@contextlib.contextmanager
def discreetly() -> Iterator[None]:
    """What comes out of the block as an error of ours has no exception of a library behind it, but a `Cause`."""
    try:
        yield
    except ChatkeepError as error:
        _tidy(error)
        raise


def _tidy(error: ChatkeepError) -> None:
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    # What is not shown stays with the error all the same, for whoever keeps or copies it.
    error.__context__ = None
    if isinstance(behind, ChatkeepError):
        _tidy(behind)
    elif behind is not None and not isinstance(behind, Cause):
        behind = Cause(behind)
    error.__cause__ = behind


def _behind(problem: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_DEEPEST):
        if problem is None:
            return
        yield problem
        problem = problem.__cause__ or problem.__context__


def _named(problem: BaseException) -> str:
    kind = type(problem)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    number = problem.errno if isinstance(problem, OSError) else None
    return f"{name} [Errno {number}]" if isinstance(number, int) else name
