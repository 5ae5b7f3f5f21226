"""A key that is put right while its provider is open."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import pytest

from chatkeep.providers import base
from chatkeep.providers.wrap import Renewed
from tests.support.faulty_provider import Fault, FaultyProvider
from tests.support.memory_provider import MemoryProvider


class Keyed(FaultyProvider):
    """Knows the requests it made, and whether it is closed."""

    closed = False

    def requests(self) -> Mapping[str, int]:
        return {"get": 3}

    def close(self) -> None:
        self.closed = True


def _refused() -> Fault:
    return Fault("stat", base.CredentialRefused(provider="memory"), times=None)


def _renewed(*faults: Fault) -> tuple[Renewed, Keyed, list[Keyed]]:
    """One around a provider with these faults; and those that it opened after that, without faults."""
    store, opened = MemoryProvider(), list[Keyed]()
    store.put("d/a", b"body")
    first = Keyed(store, *faults)

    def reopening() -> base.Provider:
        opened.append(Keyed(store))
        return opened[-1]

    return Renewed(first, reopening), first, opened


def test_after_a_refusal_it_goes_by_the_key_that_is_there_then() -> None:
    fault = _refused()
    provider, first, opened = _renewed(fault)
    with pytest.raises(base.CredentialRefused):
        provider.stat("d/a")
    assert fault.fired == 1
    assert [first.closed] == [False]
    assert provider.stat("d/a").size == 4
    assert [found.name for found in provider.list("d/")] == ["d/a"]
    assert [first.closed, len(opened)] == [True, 1]


@pytest.mark.parametrize(
    "error", [base.PermissionRefused, base.LoginNeeded, base.Unavailable, base.ObjectNotFound, base.StorageMissing]
)
def test_other_errors_open_nothing(error: Callable[..., base.ProviderError]) -> None:
    fault = Fault("stat", error(provider="memory"), times=2)
    provider, _, opened = _renewed(fault)
    for _ in range(2):
        with pytest.raises(base.ProviderError):
            provider.stat("d/a")
    assert fault.fired == 2
    assert provider.stat("d/a").size == 4
    assert not opened


def test_what_keeps_it_from_opening_is_said_and_tried_again() -> None:
    store, tries = MemoryProvider(), list[int]()
    first = Keyed(store, _refused())

    def reopening() -> base.Provider:
        tries.append(1)
        if len(tries) == 1:
            raise base.SecretFileRefused(path="/key", reason="mode")
        return MemoryProvider()

    provider = Renewed(first, reopening)
    for error in (base.CredentialRefused, base.SecretFileRefused, base.ObjectNotFound):
        with pytest.raises(error):
            provider.stat("d/a")
    assert len(tries) == 2


def test_it_is_not_closed_below_another_call() -> None:
    held, go_on = threading.Event(), threading.Event()
    provider, first, opened = _renewed(_refused())

    def slowly(_name: str, _offset: int = 0, _length: int | None = None) -> bytes:
        held.set()
        assert go_on.wait(30)
        assert not first.closed
        return b"body"

    first.get = slowly  # type: ignore[method-assign, assignment]
    bodies: list[bytes] = []
    thread = threading.Thread(target=lambda: bodies.append(provider.get("d/a")))
    thread.start()
    assert held.wait(30)
    for _ in range(2):
        with pytest.raises(base.CredentialRefused):
            provider.stat("d/a")
    assert not opened
    go_on.set()
    thread.join(30)
    assert bodies == [b"body"]
    assert provider.stat("d/a").size == 4
    assert len(opened) == 1


def test_requests_add_up() -> None:
    provider, _, _ = _renewed(_refused())
    with pytest.raises(base.CredentialRefused):
        provider.stat("d/a")
    provider.stat("d/a")
    assert isinstance(provider, base.Usage)
    assert provider.requests() == {"get": 6}


def test_a_listing_keeps_its_provider_until_it_is_dropped() -> None:
    provider, first, opened = _renewed(_refused())
    drawn = provider.list("d/")
    next(drawn)
    for _ in range(2):
        with pytest.raises(base.CredentialRefused):
            provider.stat("d/a")
    assert not first.closed
    del drawn
    assert provider.stat("d/a").size == 4
    assert len(opened) == 1


def test_a_listing_that_is_refused_counts_too() -> None:
    fault = Fault("list", base.CredentialRefused(provider="memory"), times=None)
    provider, _, opened = _renewed(fault)
    with pytest.raises(base.CredentialRefused):
        list(provider.list("d/"))
    assert fault.fired == 1
    assert [found.name for found in provider.list("d/")] == ["d/a"]
    assert len(opened) == 1
