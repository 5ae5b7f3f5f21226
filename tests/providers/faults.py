"""What every provider must do when its storage, or the way there, fails: as tests.

`FaultContract` needs a storage that speaks plain http, to put `FaultProxy` before it. `RefusalContract` holds what
every storage can be brought to do. Each clause asserts that its fault fired: `broken` does, at the end of its block.

A clause is a plain method that takes a `Bench`, so that `test_broken_faults.py` can run it on providers that are wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import pytest

from chatkeep.config.errors import Cancelled, Disposition
from chatkeep.providers import base
from chatkeep.providers.base import Provider
from chatkeep.providers.wrap import Retrying
from tests.providers.contract import is_missing, names, pack, raised_by
from tests.providers.stations import Bench, Fired, Lack
from tests.support.fault_proxy import Fault, broken

T = TypeVar("T")

BODY = random.Random(7).randbytes(150_000)
NAME = pack(BODY)
KEPT = "slots/kept.json"
MOST = 6
"""Requests that one call makes at most of a storage that refuses each: a provider tries once, in a few steps."""

PAGE = b"<!DOCTYPE html><html><title>Welcome</title><p>Please log in to use this network.</p></html>"


F = TypeVar("F", bound=Callable[..., None])


def hasty(clause: F) -> F:
    """Marks a clause that waits for time-outs to pass: its providers are opened with short ones."""
    HASTY_CLAUSES.add(clause.__name__)
    return clause


HASTY_CLAUSES: set[str] = set()


def steadfast(provider: Provider) -> Retrying:
    """Tries again as the product does, without the waiting."""
    return Retrying(provider, sleep=lambda _seconds: None)


def verbs(provider: Provider) -> Mapping[str, Callable[[], object]]:
    """Every verb, to be called once; `KEPT` is there."""
    return {
        "put": partial(provider.put, NAME, BODY),
        "get": partial(provider.get, KEPT),
        "stat": partial(provider.stat, KEPT),
        "list": partial(names, provider),
        "delete": partial(provider.delete, KEPT),
    }


def all_well(bench: Bench) -> None:
    """Asserts that nothing is broken any more, and puts things back as `verbs` needs them."""
    provider = steadfast(bench.provider)
    for call in verbs(provider).values():
        call()
    assert bench.direct.get(NAME) == BODY
    is_missing(bench.direct, KEPT)
    bench.direct.delete(NAME)
    bench.direct.put(KEPT, b"kept")


def passing(call: Callable[[], object]) -> base.ProviderError:
    """The error of a call that must be one after which the same call may succeed."""
    error = raised_by(call)
    assert error.disposition is Disposition.RETRY, repr(error)
    assert type(error) in (base.Unavailable, base.Throttled)
    return error


def outcome(call: Callable[[], T]) -> tuple[T | None, base.ProviderError | None]:
    """What a call returned, or the provider error it raised."""
    try:
        return call(), None
    except base.ProviderError as error:
        return None, error
    except Exception as error:
        raise AssertionError(f"{error!r} left the provider untranslated") from error


def stands_once(bench: Bench, name: str, body: bytes) -> None:
    """Asserts that the storage has these bytes under the name, and has them once."""
    assert bench.direct.get(name) == body
    assert names(bench.direct, name) == [name]
    if bench.place.copies is not None:
        assert bench.place.copies(name) == 1


def tells_no_secret(bench: Bench, error: base.ProviderError) -> None:
    """Asserts that no key is in what is shown or logged of an error, or of what caused it."""
    assert bool(bench.station.secrets) == (Lack.CREDENTIALS not in bench.station.lacks), "a station names its secrets"
    each: BaseException | None = error
    shown = repr(error.params)
    while each is not None:
        shown += f"{each} {each!r}"
        each = each.__cause__ or each.__context__
    assert not [secret for secret in bench.station.secrets if secret in shown]


def tries_once(bench: Bench, fault: Fault) -> None:
    """Asserts that the fault did not hit a loop, except where the client has one that cannot be switched off."""
    if Lack.REPEATS in bench.station.lacks:
        assert fault.fired > 1
    else:
        assert fault.fired <= MOST


class FaultContract:
    """The clauses for a storage behind a proxy."""

    @pytest.fixture(autouse=True)
    def _kept(self, request: pytest.FixtureRequest) -> None:
        request.getfixturevalue("bench").direct.put(KEPT, b"kept")

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_a_status_that_passes(self, bench: Bench, status: int) -> None:
        for verb, call in verbs(bench.provider).items():
            fault = bench.station.answer(status, after=7 if status == 429 else None)
            with broken(bench.proxy, fault):
                error = passing(call)
            assert error.params["provider"] == bench.provider.name, verb
            tells_no_secret(bench, error)
            if status == 429:
                assert isinstance(error, base.Throttled), verb
                assert error.after == (None if Lack.RETRY_AFTER in bench.station.lacks else 7), verb
            tries_once(bench, fault)
        all_well(bench)

    def test_it_passes_and_the_same_call_succeeds(self, bench: Bench) -> None:
        for status in (500, 503):
            for call in verbs(steadfast(bench.provider)).values():
                with broken(bench.proxy, dataclasses.replace(bench.station.answer(status), times=2)):
                    call()
            all_in_place = names(bench.direct)
            assert all_in_place == [NAME]
            bench.direct.delete(NAME)
            bench.direct.put(KEPT, b"kept")

    def test_cancelled_between_two_attempts(self, bench: Bench) -> None:
        def stop(_seconds: float) -> None:
            raise Cancelled

        with broken(bench.proxy, bench.station.answer(503)), pytest.raises(Cancelled):
            Retrying(bench.provider, sleep=stop).put(NAME, BODY)
        is_missing(bench.direct, NAME)
        all_well(bench)

    def test_cancelled_in_the_middle_of_a_put(self, bench: Bench) -> None:
        provider = bench.provider
        if not isinstance(provider, base.Paced):
            assert not hasattr(provider, "put_paced")
            return
        told: list[int] = []

        def stop(size: int) -> None:
            told.append(size)
            if sum(told) > len(BODY) // 2:
                raise Cancelled

        with pytest.raises(Cancelled):
            provider.put_paced(NAME, BODY, stop)
        is_missing(bench.direct, NAME)
        told.clear()
        provider.put_paced(NAME, BODY, told.append)
        assert sum(told) == len(BODY)
        assert max(told) <= 65536
        stands_once(bench, NAME, BODY)

    def test_reset_in_the_middle_of_a_put(self, bench: Bench) -> None:
        for name in (NAME, "a/b"):
            fault = Fault("reset", on=bench.station.writes, times=None)
            with broken(bench.proxy, fault):
                passing(partial(bench.provider.put, name, BODY))
            tries_once(bench, fault)
            is_missing(bench.direct, name)
            assert names(bench.direct, name) == []
            bench.provider.put(name, BODY)
            stands_once(bench, name, BODY)

    def test_a_reply_that_is_lost_after_the_put(self, bench: Bench) -> None:
        for name in (NAME, "a/b"):
            fault = Fault("lost", on=bench.station.commits)
            with broken(bench.proxy, fault):
                steadfast(bench.provider).put(name, BODY)
            assert fault.answers[0] < 400, "the storage had not carried it out"
            stands_once(bench, name, BODY)

    def test_a_put_after_one_whose_reply_was_lost(self, bench: Bench) -> None:
        for name in (NAME, "a/b"):
            with broken(bench.proxy, Fault("lost", on=bench.station.commits)), contextlib.suppress(base.Unavailable):
                bench.provider.put(name, BODY)
            stands_once(bench, name, BODY)
            bench.provider.put(name, BODY)
            stands_once(bench, name, BODY)
        assert type(raised_by(partial(bench.provider.put, "a/b", BODY[::-1]))) is base.ObjectConflict
        stands_once(bench, "a/b", BODY)

    def test_a_reply_that_is_lost_after_the_delete(self, bench: Bench) -> None:
        fault = Fault("lost", on=bench.station.deletes)
        with broken(bench.proxy, fault):
            steadfast(bench.provider).delete(KEPT)
        assert fault.answers[0] < 400
        is_missing(bench.direct, KEPT)

    def test_a_body_that_breaks_off(self, bench: Bench) -> None:
        bench.direct.put(NAME, BODY)
        for times in (1, None):
            for offset, length in ((0, None), (1000, 100_000), (-100_000, None), (-90_000, 50_000), (149_000, 5000)):
                rest = BODY[max(offset, -len(BODY)) :]
                wanted = rest if length is None else rest[:length]
                fault = Fault("truncated", on=bench.station.reads, times=times)
                with broken(bench.proxy, fault):
                    self._whole_or_passing(bench.provider, wanted, offset, length)
                assert fault.fired < 100
        assert bench.provider.get(NAME) == BODY

    @staticmethod
    def _whole_or_passing(provider: Provider, wanted: bytes, offset: int, length: int | None) -> None:
        body, error = outcome(lambda: provider.get(NAME, offset, length))
        assert body == wanted if error is None else type(error) is base.Unavailable

    def test_a_listing_that_breaks_off(self, bench: Bench) -> None:
        stored = [KEPT, *(f"a/{number}" for number in range(8))]
        for name in stored[1:]:
            bench.direct.put(name, b"")
        with broken(bench.proxy, Fault("truncated", on=bench.station.lists)):
            found, error = outcome(lambda: names(bench.provider))
        assert found == sorted(stored) if error is None else type(error) is base.Unavailable
        with broken(bench.proxy, Fault("truncated", on=bench.station.lists)):
            assert names(steadfast(bench.provider)) == sorted(stored)

    @hasty
    def test_a_black_hole(self, bench: Bench) -> None:
        began = time.monotonic()
        with (
            broken(bench.proxy, Fault("hole", times=None)),
            ThreadPoolExecutor(5) as pool,  # at once, so that it takes one time-out
        ):
            ended = [pool.submit(partial(raised_by, call)) for call in verbs(bench.provider).values()]
            assert [type(each.result()) for each in ended] == [base.Unavailable] * 5
        assert time.monotonic() - began < 3 + 10 * bench.station.timeout
        all_well(bench)

    @hasty
    def test_one_call_that_hangs_holds_up_no_other(self, bench: Bench) -> None:
        def passed_by() -> bool:
            with broken(bench.proxy, Fault("hole", on=bench.station.writes, times=None)), ThreadPoolExecutor(1) as pool:
                fault = bench.proxy.faults[0]
                hanging = pool.submit(raised_by, partial(bench.provider.put, NAME, BODY))
                while not fault.fired and not hanging.done():
                    time.sleep(0.001)
                bench.provider.get(KEPT)
                first = not hanging.done()
                hanging.result()
            return first

        assert any(passed_by() for _ in range(5)), "its callers wait for each other"

    @hasty
    def test_a_slow_line_that_moves(self, bench: Bench) -> None:
        bench.direct.put(NAME, BODY)
        with broken(bench.proxy, Fault("slow", on=bench.station.reads, seconds=0.6 * bench.station.timeout, pieces=3)):
            if Lack.PATIENCE in bench.station.lacks:
                passing(partial(bench.provider.get, NAME))
            else:
                assert bench.provider.get(NAME) == BODY

    def test_nobody_listens(self, bench: Bench) -> None:
        for call in verbs(bench.provider).values():
            with broken(bench.proxy, Fault("refused")):
                error = raised_by(call)
            assert type(error) is base.Unavailable
            tells_no_secret(bench, error)
        all_well(bench)

    def test_connections_that_were_idle_for_too_long(self, bench: Bench) -> None:
        for call in verbs(steadfast(bench.provider)).values():
            bench.proxy.drop_idle()
            call()
        stands_once(bench, NAME, BODY)

    def test_one_bit_of_a_request(self, bench: Bench) -> None:
        with broken(bench.proxy, Fault("flip-request", on=bench.station.writes)):
            if bench.station.digest is None:
                with contextlib.suppress(base.Unavailable):
                    bench.provider.put(NAME, BODY)
                with contextlib.suppress(base.ObjectNotFound, base.ObjectDamaged):
                    assert hashlib.sha256(bench.direct.get(NAME)).hexdigest() != base.named_sha256(NAME)
                bench.direct.delete(NAME)
            else:
                passing(partial(bench.provider.put, NAME, BODY))
        steadfast(bench.provider).put(NAME, BODY)
        stands_once(bench, NAME, BODY)

    def test_one_bit_of_a_body_that_is_read(self, bench: Bench) -> None:
        bench.direct.put(NAME, BODY)
        with broken(bench.proxy, Fault("flip-reply", on=bench.station.reads)):
            body, error = outcome(lambda: bench.provider.get(NAME))
        if body is None:
            assert type(error) in (base.Unavailable, base.ObjectDamaged)
        elif body != BODY:  # who reads it compares; a provider that does may have asked again
            assert len(body) == len(BODY)
            assert hashlib.sha256(body).hexdigest() != base.named_sha256(NAME)
        assert bench.provider.get(NAME) == BODY

    def test_one_bit_of_a_listing(self, bench: Bench) -> None:
        bench.direct.put(NAME, BODY)
        with broken(bench.proxy, Fault("flip-reply", on=bench.station.lists, times=None)):
            found, _ = outcome(lambda: names(bench.provider))
        assert all(base.is_name(name) for name in found or [])
        assert names(bench.provider) == sorted([NAME, KEPT])

    def test_a_page_that_is_no_answer(self, bench: Bench) -> None:
        """A network that answers every request itself: whoever believes that has lost a backup."""
        page = Fault("status", status=200, headers=(("Content-Type", "text/html"),), body=PAGE, times=None)
        for verb in ("put", "stat", "list"):
            with broken(bench.proxy, page):
                if Lack.ANY_REPLY in bench.station.lacks and verb == "put":
                    verbs(bench.provider)[verb]()
                else:
                    raised_by(verbs(bench.provider)[verb])
            page.fired = 0
        is_missing(bench.direct, NAME)
        all_well(bench)

    def test_racing_puts_on_a_bad_line(self, bench: Bench) -> None:
        bad = (
            dataclasses.replace(bench.station.answer(503), on=bench.station.writes, times=3),
            Fault("lost", on=bench.station.commits, times=2),
        )
        with broken(bench.proxy, *bad), ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(steadfast(bench.provider).put, NAME, BODY) for _ in range(8)]:
                done.result()
        stands_once(bench, NAME, BODY)


class RefusalContract:
    """The clauses for every storage: what it refuses, and what it tells that is not so."""

    def test_what_each_refusal_means(self, bench: Bench) -> None:
        bench.direct.put(KEPT, b"kept")
        for word, refusal in bench.station.refusals.items():
            call = verbs(bench.provider)[refusal.verb]
            fault = dataclasses.replace(refusal.fault, times=None)
            with broken(bench.proxy, fault):
                error = raised_by(call)
            assert type(error) is refusal.means, word
            assert error.params["provider"] == bench.provider.name
            tells_no_secret(bench, error)
            once = fault.fired
            if error.disposition is not Disposition.RETRY:
                fault.fired = 0
                with broken(bench.proxy, fault):
                    raised_by(verbs(steadfast(bench.provider))[refusal.verb])
                assert fault.fired == once, f"{word} is repeated"
        is_missing(bench.direct, NAME)
        if bench.station.refusals:
            all_well(bench)

    def test_no_room(self, bench: Bench) -> None:
        meant = [each for each in bench.station.refusals.values() if each.means is base.QuotaExceeded]
        if Lack.QUOTA in bench.station.lacks:
            assert bench.place.full is None
            assert not meant
            assert bench.direct.probe().free_bytes is None
            return
        assert meant or bench.place.full, "a station says how its storage is full"
        if bench.place.full is not None:
            bench.direct.put(KEPT, b"kept")
            with self._fired(bench.place.full()):
                assert type(raised_by(partial(bench.provider.put, NAME, BODY))) is base.QuotaExceeded
                assert bench.direct.get(KEPT) == b"kept"
                is_missing(bench.direct, NAME)
            bench.provider.put(NAME, BODY)
            stands_once(bench, NAME, BODY)

    def test_a_credential_that_is_no_longer_accepted(self, bench: Bench) -> None:
        meant = [each for each in bench.station.refusals.values() if issubclass(each.means, base.CredentialRefused)]
        if Lack.CREDENTIALS in bench.station.lacks:
            assert bench.place.expired is None
            assert not meant
            return
        assert meant or bench.place.expired, "a station says how its storage refuses a credential"
        if bench.place.expired is not None:
            bench.direct.put(KEPT, b"kept")
            with self._fired(bench.place.expired()):
                for verb, call in verbs(bench.provider).items():
                    assert isinstance(raised_by(call), base.CredentialRefused), verb
            bench.provider.put(NAME, BODY)
            assert names(bench.direct) == sorted([NAME, KEPT])

    def test_a_credential_that_may_only_put(self, bench: Bench) -> None:
        if Lack.PUT_ONLY in bench.station.lacks:
            assert bench.place.put_only is None
            return
        assert bench.place.put_only is not None, "a station opens one, or says that there is none"
        with contextlib.closing(bench.place.put_only()) as provider:
            for _ in range(2):
                provider.put(NAME, BODY)
            stands_once(bench, NAME, BODY)
            for verb, call in verbs(provider).items():
                if verb != "put":
                    assert type(raised_by(call)) is base.PermissionRefused, verb
            provider.put("a/b", BODY)
            assert isinstance(raised_by(partial(provider.put, "a/b", BODY[::-1])), base.ProviderError)
            stands_once(bench, "a/b", BODY)
            seen = provider.probe()
            assert (seen.reads, seen.lists, seen.deletes) == (False, False, False)

    def test_listings_that_are_old(self, bench: Bench) -> None:
        provider = bench.provider
        if Lack.STALE_LISTS in bench.station.lacks:
            assert bench.place.stale is None
            for number in range(20):
                provider.put(f"a/{number}", b"")
                assert len(names(bench.direct)) == number + 1
            return
        provider.put("gone", b"1")
        with self._old_listings(bench) as fired:
            provider.delete("gone")
            for name in (NAME, "a/b"):
                provider.put(name, BODY)
            assert names(provider) == ["gone"]
            assert fired() >= 1
            for name in (NAME, "a/b"):
                assert provider.get(name, 5, 5) == BODY[5:10]
                assert provider.stat(name).size == len(BODY)
                provider.put(name, BODY)
            assert type(raised_by(partial(provider.put, "a/b", b"other"))) is base.ObjectConflict
            is_missing(provider, "gone")
            provider.delete(NAME)
            is_missing(provider, NAME)
            provider.put(NAME, BODY)
        for name in (NAME, "a/b"):
            stands_once(bench, name, BODY)

    @contextlib.contextmanager
    def _old_listings(self, bench: Bench) -> Iterator[Fired]:
        if bench.place.stale is not None:
            with self._fired(bench.place.stale()) as fired:
                yield fired
            return
        bench.proxy.remember = bench.station.lists
        assert names(bench.provider) == ["gone"]
        bench.proxy.remember = None
        fault = Fault("stale", on=bench.station.lists, times=None)
        with broken(bench.proxy, fault):
            yield lambda: fault.fired

    def test_a_clock_that_is_ahead(self, bench: Bench) -> None:
        if Lack.TIMES in bench.station.lacks:
            assert bench.provider.probe().clock_ahead is None
            return
        if Lack.CLOCK in bench.station.lacks:
            ahead = bench.provider.probe().clock_ahead
            assert ahead is not None
            assert abs(ahead) < 5
            return
        bench.direct.put(KEPT, b"kept")
        for seconds in (7200.0, -7200.0):
            fault = Fault("skew", seconds=seconds, times=None)
            hook = bench.place.skewed
            with broken(bench.proxy, fault) if hook is None else self._fired(hook(seconds)):
                ahead = bench.provider.probe().clock_ahead
                assert ahead is not None
                assert abs(ahead - seconds) < 5
                for call in verbs(bench.provider).values():
                    call()
            assert bench.direct.get(NAME) == BODY
            bench.direct.delete(NAME)
            bench.direct.put(KEPT, b"kept")

    @staticmethod
    @contextlib.contextmanager
    def _fired(hook: contextlib.AbstractContextManager[Fired]) -> Iterator[Fired]:
        with hook as fired:
            yield fired
            assert fired() >= 1
