"""The suite must notice a provider that is wrong. Each class below breaks one promise; the clause beside it must fail.

What is wrong only for an instant is wrong for a whole `moment` here, so that a reader cannot happen to miss it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatkeep.providers import base
from chatkeep.providers.folder import FolderProvider
from tests.providers.contract import ProviderContract
from tests.providers.stations.folder import Folder


def moment() -> None:
    threading.Event().wait(0.05)


class TruncatingPut(FolderProvider):
    def put(self, name: str, body: bytes) -> None:
        super().put(name, body[: 1 << 20])


class SilentlyReplacingPut(FolderProvider):
    def put(self, name: str, body: bytes) -> None:
        self.delete(name)
        super().put(name, body)


class ConflictOnRepeat(FolderProvider):
    def put(self, name: str, body: bytes) -> None:
        try:
            self.stat(name)
        except base.ObjectNotFound:
            super().put(name, body)
        else:
            raise base.ObjectConflict(provider=self.name, object=name)


class ComparesSizesOnly(FolderProvider):
    def put(self, name: str, body: bytes) -> None:
        try:
            if self.stat(name).size == len(body):
                return
        except base.ObjectNotFound:
            pass
        super().put(name, body)


class LooksThenWrites(FolderProvider):
    """Compares first and then replaces: right alone, wrong in a race."""

    def put(self, name: str, body: bytes) -> None:
        try:
            if self.get(name) != body:
                raise base.ObjectConflict(provider=self.name, object=name)
        except base.ObjectNotFound:
            moment()
            path = self._path(name)
            os.makedirs(path.parent, exist_ok=True)
            temporary = path.with_name(f".{os.urandom(8).hex()}")
            temporary.write_bytes(body)
            os.replace(temporary, path)


class WritesInPlace(FolderProvider):
    def put(self, name: str, body: bytes) -> None:
        path = self._path(name)
        os.makedirs(path.parent, exist_ok=True)
        with path.open("wb", buffering=0) as file:
            file.write(body[:-1])
            moment()
            file.write(body[-1:])


class SuffixOneTooMany(FolderProvider):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().get(name, offset - 1 if offset < 0 else offset, length)


class LengthOneTooMany(FolderProvider):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().get(name, offset, None if length is None else length + 1)


class IgnoresRanges(FolderProvider):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().get(name)


class RefusesRangesPastTheEnd(FolderProvider):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if offset > self.stat(name).size:
            raise base.Unavailable(provider=self.name, object=name)
        return super().get(name, offset, length)


class EmptyForMissing(FolderProvider):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            return super().get(name, offset, length)
        except base.ObjectNotFound:
            return b""


class LeaksKeyError(FolderProvider):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            return super().get(name, offset, length)
        except base.ObjectNotFound as problem:
            raise KeyError(name) from problem


class RemembersOldBytes(FolderProvider):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        cache: dict[str, bytes] = self.__dict__.setdefault("cache", {})
        if name not in cache:
            cache[name] = super().get(name)
            return super().get(name, offset, length)
        self.stat(name)
        return cache[name]


class LosesDeletes(FolderProvider):
    def delete(self, name: str) -> None:
        base.validate_name(name)


class DeleteMustFind(FolderProvider):
    def delete(self, name: str) -> None:
        self.stat(name)
        super().delete(name)


class DeletesTheFolder(FolderProvider):
    def delete(self, name: str) -> None:
        super().delete(name)
        for found in super().list(""):
            super().delete(found.name)


class ListsOnePage(FolderProvider):
    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        found = sorted(super().list(prefix), key=lambda each: each.name)
        return iter(found[:30])


class ListsTwice(FolderProvider):
    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        found = [*super().list(prefix)]
        return iter(found + found[-1:])


class ListsWholeComponents(FolderProvider):
    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        folder = prefix if prefix.endswith("/") else f"{prefix}/"
        return (found for found in super().list(prefix) if not prefix or f"{found.name}/".startswith(folder))


class ListsWrongSizes(FolderProvider):
    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        return (base.ObjectStat(found.name, 0, found.modified) for found in super().list(prefix))


class ShowsUnfinishedPuts(FolderProvider):
    def put(self, name: str, body: bytes) -> None:
        super().put(name, body[: len(body) // 2])
        moment()
        super().delete(name)
        super().put(name, body)


class TakesAnyName(FolderProvider):
    def _path(self, name: str) -> Path:
        return self._root / f"{name}"


class FoldsCase(FolderProvider):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().get(name.lower(), offset, length)


class LeavesItsProbe(FolderProvider):
    def probe(self) -> base.Capabilities:
        seen = super().probe()
        self.put("probe/left", b"")
        return seen


class FindsThingsRetryable(FolderProvider):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            return super().get(name, offset, length)
        except base.ObjectNotFound as problem:
            raise base.Unavailable(provider=self.name, object=name) from problem


class TakesAnyPrefix(FolderProvider):
    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        return self._walk(self._root, "", prefix)


class OneListingAtATime(FolderProvider):
    """And one that is dropped stays open."""

    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        if self.__dict__.setdefault("open", False):
            raise base.Unavailable(provider=self.name)
        self.__dict__["open"] = True
        yield from super().list(prefix)
        self.__dict__["open"] = False


class CallsAnImpossibleNameAnOutage(FolderProvider):
    def put(self, name: str, body: bytes) -> None:
        try:
            super().put(name, body)
        except base.InvalidName as problem:
            raise base.Unavailable(provider=self.name, object=name) from problem


class ShortNamesOnly(FolderProvider):
    def put(self, name: str, body: bytes) -> None:
        if len(name) > 150:
            raise base.InvalidName(provider=self.name, object=name)
        super().put(name, body)


class ConflictInARace(FolderProvider):
    def put(self, name: str, body: bytes) -> None:
        there = self._path(name).exists()
        moment()
        with self.__dict__.setdefault("turn", threading.Lock()):
            if not there and self._path(name).exists():
                raise base.ObjectConflict(provider=self.name, object=name)
            super().put(name, body)


class ClosesOnce(FolderProvider):
    def close(self) -> None:
        if self.__dict__.setdefault("closed", False):
            raise ValueError("closed")
        self.__dict__["closed"] = True


class TriesForEverAtAWrongName(FolderProvider):
    def put(self, name: str, body: bytes) -> None:
        if base.named_sha256(name) not in (None, hashlib.sha256(body).hexdigest()):
            raise base.Unavailable(provider=self.name, object=name)
        super().put(name, body)


class ListsOtherTimes(FolderProvider):
    def list(self, prefix: str) -> Iterator[base.ObjectStat]:
        return (base.ObjectStat(found.name, found.size, 0.0) for found in super().list(prefix))


class TellsMilliseconds(FolderProvider):
    def stat(self, name: str) -> base.ObjectStat:
        found = super().stat(name)
        return base.ObjectStat(name, found.size, (found.modified or 0) * 1000)


class RefusesHalfAVault(FolderProvider):
    """Says of a credential or a place what is not so."""

    def probe(self) -> base.Capabilities:
        return dataclasses.replace(super().probe(), exclusive_create=False, deletes=False)


BROKEN: tuple[tuple[type[FolderProvider], str], ...] = (
    (TruncatingPut, "test_put_is_read_back"),
    (SilentlyReplacingPut, "test_other_bytes_are_refused"),
    (ConflictOnRepeat, "test_same_bytes_again"),
    (ComparesSizesOnly, "test_other_bytes_are_refused"),
    (LooksThenWrites, "test_racing_puts_of_other_bytes"),
    (WritesInPlace, "test_a_reader_sees_all_or_nothing"),
    (ShowsUnfinishedPuts, "test_a_reader_sees_all_or_nothing"),
    (SuffixOneTooMany, "test_ranges"),
    (LengthOneTooMany, "test_ranges"),
    (IgnoresRanges, "test_ranges"),
    (RefusesRangesPastTheEnd, "test_ranges_of_an_empty_object"),
    (EmptyForMissing, "test_missing_object"),
    (LeaksKeyError, "test_missing_object"),
    (RemembersOldBytes, "test_a_deleted_name_is_free"),
    (LosesDeletes, "test_delete"),
    (DeleteMustFind, "test_delete"),
    (DeletesTheFolder, "test_delete"),
    (ListsOnePage, "test_list_of_many"),
    (ListsTwice, "test_same_bytes_again"),
    (ListsWholeComponents, "test_list_by_prefix"),
    (ListsWrongSizes, "test_list_by_prefix"),
    (TakesAnyName, "test_hostile_names"),
    (FoldsCase, "test_hostile_names"),
    (LeavesItsProbe, "test_probe_reports_and_leaves_nothing"),
    (FindsThingsRetryable, "test_errors_say_what_may_be_done"),
    (TakesAnyPrefix, "test_hostile_prefixes"),
    (OneListingAtATime, "test_listing_dropped_half_way"),
    (CallsAnImpossibleNameAnOutage, "test_one_name_inside_another"),
    (ShortNamesOnly, "test_names_at_the_limit"),
    (ConflictInARace, "test_racing_puts_of_the_same_bytes"),
    (ClosesOnce, "test_close_twice"),
    (TriesForEverAtAWrongName, "test_bytes_that_are_not_what_the_name_says"),
    (ListsOtherTimes, "test_modified_is_a_time"),
    (TellsMilliseconds, "test_modified_is_a_time"),
    (RefusesHalfAVault, "test_probe_reports_and_leaves_nothing"),
)


def contract() -> ProviderContract:
    """The clauses, as they are for a folder."""
    clauses = ProviderContract()
    clauses.lacks = Folder.lacks
    return clauses


@pytest.mark.parametrize(("broken", "clause"), BROKEN, ids=[f"{broken.__name__}-{clause}" for broken, clause in BROKEN])
def test_the_clause_fails(broken: type[FolderProvider], clause: str, tmp_path: Path) -> None:
    provider = broken("disk", tmp_path / "vault", create=True)
    with pytest.raises((AssertionError, base.ProviderError, OSError, ValueError)):
        getattr(contract(), clause)(provider)


@pytest.mark.parametrize("clause", sorted({clause for _, clause in BROKEN}))
def test_the_clause_passes_without_what_is_wrong(clause: str, tmp_path: Path) -> None:
    getattr(contract(), clause)(FolderProvider("disk", tmp_path / "vault", create=True))


def test_every_clause_catches_somebody() -> None:
    clauses = {name: each for name, each in vars(ProviderContract).items() if name.startswith("test_")}
    assert set(clauses) == {clause for _, clause in BROKEN}
    assert all([*inspect.signature(clause).parameters] == ["self", "provider"] for clause in clauses.values())
