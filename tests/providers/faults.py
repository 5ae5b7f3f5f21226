"""What every provider must do when its storage, or the way there, fails: as tests.

They need a storage that speaks plain http, to put `FaultProxy` before it; what every storage can be brought to do is in
`refusals.py`. Each clause asserts that its fault fired: `broken` does, at the end of its block.

A clause is a plain method that takes a `Bench`, so that `test_broken_faults.py` can run it on providers that are wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import pytest

from chatkeep.config.errors import Cancelled, Disposition
from chatkeep.providers import base
from chatkeep.providers.base import Provider
from chatkeep.providers.wrap import Patience, Retrying
from tests.providers.contract import is_missing, names, pack, raised_by
from tests.providers.stations import Bench, Lack
from tests.support.fault_proxy import Fault, broken

T = TypeVar("T")

BODY = random.Random(7).randbytes(150_000)
NAME = pack(BODY)
KEPT = "slots/kept.json"

PAGE = b"<!DOCTYPE html><html><title>Welcome</title><p>Please log in to use this network.</p></html>"


F = TypeVar("F", bound=Callable[..., None])


def hasty(clause: F) -> F:
    """Marks a clause that waits for time-outs to pass: its providers are opened with short ones."""
    HASTY_CLAUSES.add(clause.__name__)
    return clause


HASTY_CLAUSES: set[str] = set()


def steadfast(provider: Provider) -> Retrying:
    """Tries again as the product does, without the waiting, and so more often."""
    return Retrying(provider, Patience(attempts=12), sleep=lambda _seconds: None)


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


def tries_once(fault: Fault, again: str | None = None) -> None:
    """Asserts that the one call that the fault hit made no request twice, and forgets it; `again`: as of `Refusal`.

    After a refusal a provider may still tidy up, or ask what the refusal means: each in a way of its own. The same
    method again is an attempt again, under another name too, as a put that goes through a temporary one has.
    """
    methods = [request.split(" ")[0] for request in fault.hit]
    assert methods, "it hit nothing"
    most = max(methods.count(method) for method in methods)
    assert most <= (1 if again is None else 2), fault.hit
    fault.hit.clear()


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
                assert error.after == 7, verb
            tries_once(fault)
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
            tries_once(fault)
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
        # Each page, and more than one listing: half of a last page that is empty by right is no less than the whole.
        with broken(bench.proxy, Fault("truncated", on=bench.station.lists, times=None)):
            for _ in range(3):
                passing(lambda: names(bench.provider))
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
                _, error = outcome(lambda: bench.provider.get(KEPT))
                first = error is None and not hanging.done()
                hanging.result()
            return first

        assert any(passed_by() for _ in range(5)), "its callers wait for each other"

    @hasty
    def test_a_slow_line_that_moves(self, bench: Bench) -> None:
        bench.direct.put(NAME, BODY)
        slow = Fault("slow", on=bench.station.reads, seconds=bench.station.timeout / 5, pieces=6)
        with broken(bench.proxy, slow):
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

    def test_a_listing_with_what_is_no_name(self, bench: Bench) -> None:
        """Somebody else's things, or an attack: a caller may join a name to a path."""
        bench.direct.put("foreign-object", b"1")
        for shown in (b"../../etc/pass", b"FOREIGN-OBJECT", b"foreign object", b".oreign-object"):
            swap = Fault("swap", on=bench.station.lists, find=b"foreign-object", put=shown, times=None)
            with broken(bench.proxy, swap):
                found, _ = outcome(lambda: names(bench.provider))
            assert found is None or (KEPT in found and all(base.is_name(name) for name in found)), shown
        assert names(bench.provider) == ["foreign-object", KEPT]

    def test_a_page_that_is_no_answer(self, bench: Bench) -> None:
        """A network that answers every request itself: whoever believes that has lost a backup. It says nothing of any
        object, so it is neither missing nor damaged, and nothing is listed, stored or removed."""
        page = Fault("status", status=200, headers=(("Content-Type", "text/html"),), body=PAGE, times=None)
        for verb, call in verbs(bench.provider).items():
            with broken(bench.proxy, page):
                got, error = outcome(call)
            assert type(error) is base.Unavailable, f"{verb}: {error!r}, {got!r}"
            page.fired = 0
        is_missing(bench.direct, NAME)
        assert bench.direct.get(KEPT) == b"kept"
        all_well(bench)

    def test_a_page_that_says_there_is_no_such_page(self, bench: Bench) -> None:
        """Of a gateway while what it passes on to is away. That says nothing of any object: what is believed gone is
        struck from records that are right."""
        page = Fault("status", status=404, headers=(("Content-Type", "text/html"),), body=PAGE, times=None)
        for verb, call in verbs(bench.provider).items():
            with broken(bench.proxy, page):
                error = raised_by(call)
            assert type(error) in (base.Unavailable, base.StorageMissing), verb
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
