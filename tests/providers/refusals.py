"""What every provider must do when its storage refuses, or tells what is not so: as tests. See `faults.py`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from functools import partial

from chatkeep.config.errors import Disposition
from chatkeep.providers import base
from tests.providers.contract import is_missing, names, raised_by
from tests.providers.faults import (
    BODY,
    KEPT,
    NAME,
    all_well,
    stands_once,
    steadfast,
    tells_no_secret,
    tries_once,
    verbs,
)
from tests.providers.stations import Bench, Fired, Lack
from tests.support.fault_proxy import Fault, broken


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
            tries_once(fault, refusal.again)
            if error.disposition is not Disposition.RETRY:
                fault.fired = 0
                with broken(bench.proxy, fault):
                    raised_by(verbs(steadfast(bench.provider))[refusal.verb])
                tries_once(fault, refusal.again)
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
