"""The suite must notice a provider that is wrong when its storage fails. Each class below breaks one promise, and the
clause beside it must fail."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chatkeep.providers import base
from tests.providers.faults import HASTY_CLAUSES, KEPT, FaultContract
from tests.providers.refusals import RefusalContract
from tests.providers.stations import UNHURRIED, Bench
from tests.providers.stations.plain import Plain
from tests.support.fault_proxy import FaultProxy
from tests.support.plain_http import PlainProvider, PlainServer, Reply


class SwallowsTruncatedBodies(PlainProvider):
    def resumed(self, name: str, reply: Reply) -> bytes:
        return reply.body


class AsksForTheSameRangeAgain(PlainProvider):
    """And puts what comes behind what it has."""

    def resumed(self, name: str, reply: Reply) -> bytes:
        first, last = (int(each) for each in reply.headers["Content-Range"][6:].split("/")[0].split("-"))
        wanted = {"Range": f"bytes={first}-{last}"}
        return (reply.body + self.ask("GET", name, headers=wanted).body)[: last + 1 - first]


class ConflictAfterALostReply(PlainProvider):
    def settle(self, name: str, body: bytes, headers: dict[str, str]) -> None:
        raise base.ObjectConflict(provider=self.name, object=name)


class TakesEveryTakenNameForItsOwn(PlainProvider):
    def settle(self, name: str, body: bytes, headers: dict[str, str]) -> None:
        self.stat(name)


class MakesASecondOne(PlainProvider):
    """As a storage does whose objects have ids, asked twice to create."""

    def put(self, name: str, body: bytes) -> None:
        with contextlib.suppress(base.ObjectNotFound):
            if self.stat(name).size != len(body):
                raise base.ObjectConflict(provider=self.name, object=name)
            super().put(f"{name}-{os.urandom(8).hex()}", body)
        super().put(name, body)


class Means(PlainProvider):
    """Takes a status for something else."""

    status = 0
    kind: type[base.ProviderError] = base.ProviderError

    def meant(self, reply: Reply, name: str) -> None:
        if reply.status == self.status:
            raise self.kind(provider=self.name, object=name)
        super().meant(reply, name)


class TakesABusyServerForAMissingObject(Means):
    status, kind = 503, base.ObjectNotFound


class TakesAGatewayForTheServer(Means):
    status, kind = 404, base.ObjectNotFound


class FailsForGood(Means):
    status, kind = 500, base.ProviderError


class TakesRatesForOutages(Means):
    status, kind = 429, base.Unavailable


class ForgetsHowLongToWait(Means):
    status, kind = 429, base.Throttled


class TakesQuotaForPermission(Means):
    status, kind = 507, base.PermissionRefused


class TakesQuotaForAnOutage(Means):
    status, kind = 507, base.Unavailable


class TakesAnExpiredKeyForAnOutage(Means):
    status, kind = 401, base.Unavailable


class TakesAnExpiredKeyForPermission(Means):
    status, kind = 401, base.PermissionRefused


class TellsTheKey(PlainProvider):
    def meant(self, reply: Reply, name: str) -> None:
        try:
            super().meant(reply, name)
        except base.ProviderError as error:
            error.params["header"] = f"Bearer {self._key}"
            raise


class NamesNoProvider(PlainProvider):
    def meant(self, reply: Reply, name: str) -> None:
        try:
            super().meant(reply, name)
        except base.ProviderError as error:
            error.params["provider"] = "http"
            raise


class TriesOnAndOn(PlainProvider):
    def ask(self, method: str, name: str, body: Any = None, headers: Any = None) -> Reply:
        kept = None if body is None else b"".join(body) if not isinstance(body, bytes) else body
        for _ in range(20):
            with contextlib.suppress(base.Unavailable):
                return super().ask(method, name, kept, headers)
        return super().ask(method, name, kept, headers)


class TriesTwice(PlainProvider):
    """Once more than it should, whatever it was told."""

    def ask(self, method: str, name: str, body: Any = None, headers: Any = None) -> Reply:
        kept = None if body is None else b"".join(body) if not isinstance(body, bytes) else body
        with contextlib.suppress(base.ProviderError):
            return super().ask(method, name, kept, headers)
        return super().ask(method, name, kept, headers)


class DeletesFiveTimes(PlainProvider):
    def delete(self, name: str) -> None:
        for _ in range(4):
            with contextlib.suppress(base.Unavailable):
                super().delete(name)


class TriesOnWhenThereIsNoRoom(PlainProvider):
    def put(self, name: str, body: bytes) -> None:
        try:
            super().put(name, body)
        except base.QuotaExceeded as full:
            raise base.Throttled(provider=self.name, object=name) from full


class LeaksLibraryErrors(PlainProvider):
    def ask(self, method: str, name: str, body: Any = None, headers: Any = None) -> Reply:
        try:
            return super().ask(method, name, body, headers)
        except base.Unavailable as translated:
            if translated.__cause__ is not None:
                raise translated.__cause__ from None
            raise


class WaitsTooLong(PlainProvider):
    def ask(self, method: str, name: str, body: Any = None, headers: Any = None) -> Reply:
        self._timeout = max(self._timeout, 5.5)
        return super().ask(method, name, body, headers)


class OneAtATime(PlainProvider):
    def ask(self, method: str, name: str, body: Any = None, headers: Any = None) -> Reply:
        with self.__dict__.setdefault("lock", threading.Lock()):
            return super().ask(method, name, body, headers)


class BoundsTheWhole(PlainProvider):
    """A time-out for all of a transfer: a large object on a slow line never comes."""

    def ask(self, method: str, name: str, body: Any = None, headers: Any = None) -> Reply:
        began = time.monotonic()
        reply = super().ask(method, name, body, headers)
        if time.monotonic() - began > self._timeout:
            raise base.Unavailable(provider=self.name, object=name)
        return reply


class StaysBroken(PlainProvider):
    """Keeps a connection that has ended."""

    def ask(self, method: str, name: str, body: Any = None, headers: Any = None) -> Reply:
        if self.__dict__.get("broken"):
            raise base.Unavailable(provider=self.name, object=name)
        try:
            return super().ask(method, name, body, headers)
        except base.Unavailable:
            self.__dict__["broken"] = True
            raise


class KeepsOneConnection(PlainProvider):
    """And never opens another."""

    def ask(self, method: str, name: str, body: Any = None, headers: Any = None) -> Reply:
        seen = self.__dict__.setdefault("seen", len(PROXIES[-1].dropped))
        if seen != len(PROXIES[-1].dropped):
            raise base.Unavailable(provider=self.name, object=name)
        return super().ask(method, name, body, headers)


class TakesHalfAListingForAll(PlainProvider):
    def page(self, prefix: str, after: str) -> tuple[base.ObjectStat, ...]:
        try:
            return super().page(prefix, after)
        except base.Unavailable:
            return ()


class LeaksParserErrors(PlainProvider):
    def page(self, prefix: str, after: str) -> tuple[base.ObjectStat, ...]:
        reply = self.ask("GET", f"?prefix={prefix}&after={after}")
        return tuple(base.ObjectStat(*each) for each in json.loads(reply.body))


class ListsWhatIsNoName(PlainProvider):
    def pages(self, prefix: str) -> Iterator[base.ObjectStat]:
        after = ""
        while found := self.page(prefix, after):
            after = found[-1].name
            yield from (base.ObjectStat(f"../{each.name}", each.size, each.modified) for each in found)


class ListsWhateverItIsTold(PlainProvider):
    def pages(self, prefix: str) -> Iterator[base.ObjectStat]:
        after = ""
        while found := self.page(prefix, after):
            after = found[-1].name
            yield from found


class DeclaresNoDigest(PlainProvider):
    def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
        headers = {"If-None-Match": "*", "Content-Length": str(len(body))}
        if self.ask("PUT", base.validate_name(name), self.pieces(body, pace), headers).status == 412:
            self.settle(name, body, headers)


class LeavesWhatCameDamaged(PlainProvider):
    """Compares what the storage reports and forgets that it is there now."""

    def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
        headers = {"If-None-Match": "*", "Content-Length": str(len(body))}
        reply = self.ask("PUT", base.validate_name(name), self.pieces(body, pace), headers)
        if reply.status == 412:
            self.settle(name, body, headers)
        elif reply.headers["ETag"] != hashlib.md5(body, usedforsecurity=False).hexdigest():
            raise base.Unavailable(provider=self.name, object=name)


class MendsWhatItReads(PlainProvider):
    """Cuts a body to what it believes, and finds a reply of another length whole."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        body = super().get(name, offset, length)
        return body if hashlib.sha256(body).hexdigest() == base.named_sha256(name) else body[: len(body) // 2]


class BelievesEveryPage(PlainProvider):
    def ask(self, method: str, name: str, body: Any = None, headers: Any = None) -> Reply:
        reply = super().ask(method, name, body, headers)
        if reply.headers["Content-Type"] == "text/html" and method == "PUT":
            del reply.headers["ETag"]
            pieces = headers["Content-MD5"]
            reply.headers["ETag"] = base64.b64decode(pieces).hex()
        return reply


class ReadsEveryPage(PlainProvider):
    def answered(self, reply: Reply, status: int, name: str) -> None:
        if status != 206:
            super().answered(reply, status, name)


class TakesEveryPageForADelete(PlainProvider):
    def answered(self, reply: Reply, status: int, name: str) -> None:
        if status != 204:
            super().answered(reply, status, name)


class TakesEveryPageForNoObject(PlainProvider):
    def stat(self, name: str) -> base.ObjectStat:
        try:
            return super().stat(name)
        except base.Unavailable as problem:
            raise base.ObjectNotFound(provider=self.name, object=name) from problem


class ListsEveryPageAsEmpty(PlainProvider):
    def page(self, prefix: str, after: str) -> tuple[base.ObjectStat, ...]:
        try:
            return super().page(prefix, after)
        except base.Unavailable as problem:
            if isinstance(problem.__cause__, ValueError):
                return ()
            raise


class WritesInTwoSteps(PlainProvider):
    """Takes the name first, then sends the body."""

    def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
        reply = self.ask("PUT", base.validate_name(name), b"", {"If-None-Match": "*"})
        headers = {"Content-Length": str(len(body))}
        if reply.status == 412:
            self.settle(name, body, headers)
        else:
            self.ask("PUT", name, self.pieces(body, pace), headers)


class DeletesOnlyWhatIsThere(PlainProvider):
    def delete(self, name: str) -> None:
        self.stat(name)
        super().delete(name)


class GivesUpOnClocks(PlainProvider):
    def stat(self, name: str) -> base.ObjectStat:
        found = super().stat(name)
        if found.modified is None or found.modified > time.time() + 60:
            raise base.Unavailable(provider=self.name, object=name)
        return found


class ShowsItsOwnTime(PlainProvider):
    def stat(self, name: str) -> base.ObjectStat:
        return dataclasses.replace(super().stat(name), modified=time.time())


class LooksInListings(PlainProvider):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if all(each.name != name for each in self.list(name)):
            raise base.ObjectNotFound(provider=self.name, object=name)
        return super().get(name, offset, length)


class MustReadToPut(PlainProvider):
    def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
        with contextlib.suppress(base.ObjectNotFound):
            self.stat(name)
        super().put_paced(name, body, pace)


class OverwritesWhatItCannotSee(PlainProvider):
    def settle(self, name: str, body: bytes, headers: dict[str, str]) -> None:
        try:
            super().settle(name, body, headers)
        except base.PermissionRefused:
            self.ask("PUT", name, body, headers)


class PacesAllAtOnce(PlainProvider):
    def pieces(self, body: bytes, pace: Callable[[int], None]) -> Iterator[bytes]:
        pace(len(body))
        yield body


class PutsWhatWasCancelled(PlainProvider):
    def put_paced(self, name: str, body: bytes, pace: Callable[[int], None]) -> None:
        super().put_paced(name, body, lambda _size: None)
        for start in range(0, len(body), 65536):
            pace(min(65536, len(body) - start))


BROKEN: tuple[tuple[type[PlainProvider], str], ...] = (
    (SwallowsTruncatedBodies, "test_a_body_that_breaks_off"),
    (AsksForTheSameRangeAgain, "test_a_body_that_breaks_off"),
    (ConflictAfterALostReply, "test_a_reply_that_is_lost_after_the_put"),
    (ConflictAfterALostReply, "test_a_put_after_one_whose_reply_was_lost"),
    (ConflictAfterALostReply, "test_racing_puts_on_a_bad_line"),
    (TakesEveryTakenNameForItsOwn, "test_a_put_after_one_whose_reply_was_lost"),
    (MakesASecondOne, "test_a_reply_that_is_lost_after_the_put"),
    (MakesASecondOne, "test_a_put_after_one_whose_reply_was_lost"),
    (TakesABusyServerForAMissingObject, "test_a_status_that_passes"),
    (TakesABusyServerForAMissingObject, "test_it_passes_and_the_same_call_succeeds"),
    (TakesABusyServerForAMissingObject, "test_cancelled_between_two_attempts"),
    (FailsForGood, "test_a_status_that_passes"),
    (TakesRatesForOutages, "test_a_status_that_passes"),
    (ForgetsHowLongToWait, "test_a_status_that_passes"),
    (TellsTheKey, "test_a_status_that_passes"),
    (NamesNoProvider, "test_a_status_that_passes"),
    (TriesOnAndOn, "test_a_status_that_passes"),
    (TriesOnAndOn, "test_reset_in_the_middle_of_a_put"),
    (TriesTwice, "test_a_status_that_passes"),
    (TriesTwice, "test_reset_in_the_middle_of_a_put"),
    (TriesTwice, "test_what_each_refusal_means"),
    (DeletesFiveTimes, "test_a_status_that_passes"),
    (LeaksLibraryErrors, "test_reset_in_the_middle_of_a_put"),
    (LeaksLibraryErrors, "test_a_black_hole"),
    (LeaksLibraryErrors, "test_nobody_listens"),
    (WaitsTooLong, "test_a_black_hole"),
    (OneAtATime, "test_one_call_that_hangs_holds_up_no_other"),
    (BoundsTheWhole, "test_a_slow_line_that_moves"),
    (StaysBroken, "test_nobody_listens"),
    (StaysBroken, "test_a_black_hole"),
    (KeepsOneConnection, "test_connections_that_were_idle_for_too_long"),
    (TakesHalfAListingForAll, "test_a_listing_that_breaks_off"),
    (LeaksParserErrors, "test_a_listing_that_breaks_off"),
    (LeaksParserErrors, "test_one_bit_of_a_listing"),
    (ListsWhatIsNoName, "test_one_bit_of_a_listing"),
    (ListsWhateverItIsTold, "test_a_listing_with_what_is_no_name"),
    (DeclaresNoDigest, "test_one_bit_of_a_request"),
    (LeavesWhatCameDamaged, "test_one_bit_of_a_request"),
    (MendsWhatItReads, "test_one_bit_of_a_body_that_is_read"),
    (BelievesEveryPage, "test_a_page_that_is_no_answer"),
    (ReadsEveryPage, "test_a_page_that_is_no_answer"),
    (TakesEveryPageForADelete, "test_a_page_that_is_no_answer"),
    (TakesEveryPageForNoObject, "test_a_page_that_is_no_answer"),
    (ListsEveryPageAsEmpty, "test_a_page_that_is_no_answer"),
    (TakesAGatewayForTheServer, "test_a_page_that_says_there_is_no_such_page"),
    (WritesInTwoSteps, "test_reset_in_the_middle_of_a_put"),
    (WritesInTwoSteps, "test_cancelled_in_the_middle_of_a_put"),
    (DeletesOnlyWhatIsThere, "test_a_reply_that_is_lost_after_the_delete"),
    (PacesAllAtOnce, "test_cancelled_in_the_middle_of_a_put"),
    (PutsWhatWasCancelled, "test_cancelled_in_the_middle_of_a_put"),
    (TakesQuotaForPermission, "test_what_each_refusal_means"),
    (TakesQuotaForPermission, "test_no_room"),
    (TakesQuotaForAnOutage, "test_no_room"),
    (TriesOnWhenThereIsNoRoom, "test_what_each_refusal_means"),
    (TakesAnExpiredKeyForAnOutage, "test_what_each_refusal_means"),
    (TakesAnExpiredKeyForPermission, "test_what_each_refusal_means"),
    (TakesAnExpiredKeyForPermission, "test_a_credential_that_is_no_longer_accepted"),
    (LooksInListings, "test_listings_that_are_old"),
    (MustReadToPut, "test_a_credential_that_may_only_put"),
    (OverwritesWhatItCannotSee, "test_a_credential_that_may_only_put"),
    (GivesUpOnClocks, "test_a_clock_that_is_ahead"),
    (ShowsItsOwnTime, "test_a_clock_that_is_ahead"),
)

PROXIES: list[Any] = []


class _Counted(FaultProxy):
    """Says when it ended connections, for the provider that keeps one."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.dropped: list[int] = []

    def drop_idle(self) -> None:
        super().drop_idle()
        self.dropped.append(1)


@contextlib.contextmanager
def tried(provider: type[PlainProvider], folder: Path, timeout: float) -> Iterator[Bench]:
    """A bench for a provider of that class."""
    station = Plain()
    station.provider, station.timeout = provider, timeout
    with PlainServer() as server, station.place(server, folder) as place:
        direct = PlainProvider(station.name, f"http://127.0.0.1:{place.port}", place_of(place))
        with _Counted(server.server_address[1]) as proxy:
            PROXIES.append(proxy)
            yield Bench(station, place, proxy, place.open(proxy.url), direct)


def place_of(place: Any) -> str:
    """Where on the server a place is."""
    return str(place.open(None)._place)


@pytest.mark.parametrize(("wrong", "clause"), BROKEN, ids=[f"{wrong.__name__}-{clause}" for wrong, clause in BROKEN])
def test_the_clause_fails(wrong: type[PlainProvider], clause: str, tmp_path: Path) -> None:
    contract: Any = FaultContract() if hasattr(FaultContract, clause) else RefusalContract()
    statuses = (429, 500, 503) if clause == "test_a_status_that_passes" else (None,)
    with tried(wrong, tmp_path, 0.25 if clause in HASTY_CLAUSES else UNHURRIED) as bench:
        bench.direct.put(KEPT, b"kept")

        def run() -> None:
            for status in statuses:
                getattr(contract, clause)(bench, *([status] if status else []))

        with pytest.raises((AssertionError, base.ProviderError)) as caught:
            run()
    assert "never fired" not in str(caught.value), "it must be the promise that fails, not the test"


def test_every_clause_catches_somebody() -> None:
    clauses = {name for kind in (FaultContract, RefusalContract) for name in vars(kind) if name.startswith("test_")}
    assert clauses == {clause for _, clause in BROKEN}
