"""What stands behind an error of a provider, and what does not."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Iterator

import pytest

from chatkeep.providers import base
from chatkeep.providers.wrap import Discreet
from chatkeep.providers.wrap.discreet import Cause
from tests.support.memory_provider import MemoryProvider

SECRET = "s3kritpassage"


class Library(Exception):
    """As client libraries raise: with an address in its text, and a request that it keeps."""

    def __init__(self) -> None:
        super().__init__(f"cannot reach http://me:{SECRET}@proxy")
        self.request = {"Authorization": SECRET}


def library_trouble() -> None:
    try:
        raise ConnectionRefusedError(errno.ECONNREFUSED, SECRET)
    except OSError as problem:
        raise Library from problem


class Talkative(MemoryProvider):
    """Raises in each of the ways that a provider may: with a cause, without a word about it, and behind errors of its
    own."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            library_trouble()
        except Library as problem:
            raise base.Unavailable(provider=self.name) from problem
        raise AssertionError

    def stat(self, name: str) -> base.ObjectStat:
        try:
            library_trouble()
        except Library:
            raise base.Unavailable(provider=self.name)  # noqa: B904  # forgotten, which is what this is about
        raise AssertionError

    def delete(self, name: str) -> None:
        try:
            library_trouble()
        except Library:
            raise base.Unavailable(provider=self.name) from None

    def put(self, name: str, body: bytes) -> None:
        try:
            self.get(name)
        except base.Unavailable as problem:
            raise base.ObjectConflict(provider=self.name) from problem

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        yield base.ObjectStat("a", 1, None)
        self.stat("b")


def error_of(verb: str) -> base.ProviderError:
    provider = Discreet(Talkative())
    drawn = provider.list("")
    assert next(drawn).name == "a"
    calls: dict[str, Callable[[], object]] = {
        "list": lambda: next(drawn),
        "get": lambda: provider.get("a"),
        "stat": lambda: provider.stat("a"),
        "delete": lambda: provider.delete("a"),
        "put": lambda: provider.put("a", b""),
    }
    with pytest.raises(base.ProviderError) as caught:
        calls[verb]()
    return caught.value


@pytest.mark.parametrize("verb", ["get", "stat", "put", "list", "delete"])
def test_types_and_numbers_alone(verb: str) -> None:
    error = error_of(verb)
    assert SECRET not in "".join(traceback.format_exception(error))
    each: BaseException | None = error
    while each is not None:
        assert each.__context__ is None
        assert SECRET not in f"{vars(each)} {each.args}"
        last, each = each, each.__cause__
    if verb == "delete":
        assert last is error
        return
    assert type(last) is Cause
    assert str(last) == f"{__name__}.Library, ConnectionRefusedError [Errno {errno.ECONNREFUSED}]"


def test_errors_of_our_own_stay() -> None:
    error = error_of("put")
    assert type(error) is base.ObjectConflict
    assert type(error.__cause__) is base.Unavailable


def test_what_is_no_error_of_a_provider_passes() -> None:
    """A mistake of the caller, or of ours: its traceback is the report."""

    class Wrong(MemoryProvider):
        def stat(self, name: str) -> base.ObjectStat:
            raise ValueError(name) from KeyError(name)

    with pytest.raises(ValueError, match="a") as caught:
        Discreet(Wrong()).stat("a")
    assert isinstance(caught.value.__cause__, KeyError)
