"""A folder that a client synchronises: what it takes away, renames and doubles, and what is made of that."""

from __future__ import annotations

import errno
import hashlib
import os
import plistlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.config.model import ProviderConfig
from chatkeep.config.storages import FolderOptions
from chatkeep.providers import base, durable
from chatkeep.providers.folder import STALE_AFTER, FolderProvider
from chatkeep.providers.registry import open_provider
from chatkeep.providers.synced import SyncedFolder
from chatkeep.providers.wrap.around import Around
from tests.providers.contract import is_missing, names, pack, raised_by

# The same in every process that collects: names of it are parameters of tests.
BODY = random.Random(20).randbytes(20_000)
NAME = pack(BODY)
SLOT = "slots/ab.json"


@pytest.fixture
def provider(tmp_path: Path) -> SyncedFolder:
    return SyncedFolder("drive", tmp_path / "vault", create=True)


def place(provider: SyncedFolder, name: str) -> Path:
    return provider._path(name)


def evict(path: Path, told: object = None) -> Path:
    """As iCloud Drive on macOS does it."""
    stand_in = path.with_name(f".{path.name}.icloud")
    raw = plistlib.dumps(
        {"NSURLNameKey": path.name, "NSURLFileSizeKey": path.stat().st_size, "NSURLFileResourceTypeKey": "x"}
    )
    stand_in.write_bytes(raw if told is None else told)  # type: ignore[arg-type]
    path.unlink()
    return stand_in


def hollow(path: Path) -> None:
    """As clients do that keep the size."""
    size = path.stat().st_size
    path.unlink()
    with path.open("wb") as file:
        file.truncate(size)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def suffixed(path: Path) -> None:
    path.with_name(f"{path.name}.nextcloud").write_bytes(b" ")
    path.unlink()


AWAY: dict[str, Callable[[Path], object]] = {"stand-in": evict, "hollow": hollow, "empty": empty, "suffixed": suffixed}


def test_a_configured_folder_is_one(tmp_path: Path) -> None:
    for synced, kind in ((True, SyncedFolder), (False, FolderProvider)):
        options = FolderOptions(tmp_path / str(synced), synced=synced)
        opened = open_provider(ProviderConfig("drive", "folder", options), create=True)
        assert isinstance(opened, Around)
        assert type(opened.inner) is kind
        assert opened.probe().acknowledges is not synced


def test_nothing_is_linked_or_shared(provider: SyncedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise AssertionError("a second name for one file")

    monkeypatch.setattr(os, "link", link)
    provider.put(NAME, BODY)
    mine = tmp_path / "mine"
    mine.write_bytes(BODY)
    assert not provider.adopt(pack(b""), mine)
    assert place(provider, NAME).stat().st_nlink == 1


def test_what_is_being_written_lies_beside_under_a_name_that_clients_leave_out(
    provider: SyncedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path, Path]] = []

    def publish(temporary: Path, path: Path) -> bool:
        seen.append((temporary, path))
        return real(temporary, path)

    real = durable.publish_exclusively
    monkeypatch.setattr(durable, "publish_exclusively", publish)
    provider.put(NAME, BODY)
    ((temporary, path),) = seen
    assert temporary.parent == path.parent
    assert temporary.name.startswith("~")
    assert temporary.name.endswith(".tmp")
    assert not temporary.exists()


def test_what_killed_writers_left_goes_after_a_day(provider: SyncedFolder) -> None:
    provider.put(SLOT, BODY)
    old, young, others = (place(provider, SLOT).with_name(each) for each in ("~01.tmp", "~02.tmp", "Other.tmp"))
    for each in (old, young, others):
        each.write_bytes(b"x")
    for each in (old, others):
        os.utime(each, (each.stat().st_atime, each.stat().st_mtime - STALE_AFTER - 10))
    assert names(provider) == [SLOT]
    again = SyncedFolder("drive", provider._root)
    again.put("slots/cd.json", b"1")
    assert not old.exists()
    assert young.exists()
    assert others.exists()


@pytest.mark.parametrize("how", AWAY, ids=str)
def test_what_is_away_is_unavailable_and_not_missing(how: str, provider: SyncedFolder) -> None:
    provider.put(NAME, BODY)
    AWAY[how](place(provider, NAME))
    for call in (lambda: provider.get(NAME), lambda: provider.get(NAME, -10), lambda: provider.stat(NAME)):
        error = raised_by(call)
        assert type(error) is base.Unavailable
        assert error.params["object"] == NAME


@pytest.mark.parametrize("how", AWAY, ids=str)
def test_what_is_away_and_may_be_named_otherwise(how: str, provider: SyncedFolder) -> None:
    """A name that says no hash: a slot."""
    provider.put(SLOT, BODY)
    AWAY[how](place(provider, SLOT))
    if how == "empty":  # nothing tells it from an object without bytes
        assert provider.get(SLOT) == b""
        return
    for call in (lambda: provider.get(SLOT), lambda: provider.stat(SLOT), lambda: provider.put(SLOT, BODY)):
        assert type(raised_by(call)) is base.Unavailable


@pytest.mark.parametrize("how", AWAY, ids=str)
def test_a_listing_with_something_away(how: str, provider: SyncedFolder) -> None:
    provider.put(NAME, BODY)
    provider.put(SLOT, b"1")
    AWAY[how](place(provider, NAME))
    listing, found = provider.list(""), {}
    if how == "stand-in":  # which tells the size
        found = {each.name: each.size for each in listing}
        assert found == {SLOT: 1, NAME: len(BODY)}
        return

    def draw() -> None:
        for each in listing:
            found[each.name] = each.size

    error = raised_by(draw)
    assert type(error) is base.Unavailable
    assert error.params["objects"] == 1
    assert found == {SLOT: 1}  # what is known is listed first
    assert names(provider, "slots/") == [SLOT]  # and the rest of the vault is not held up


@pytest.mark.parametrize(
    "told", [b"", b"junk", b"x" * 100_000, plistlib.dumps([1]), plistlib.dumps({"NSURLFileSizeKey": -1})]
)
def test_a_stand_in_that_tells_nothing(told: bytes, provider: SyncedFolder) -> None:
    provider.put(NAME, BODY)
    evict(place(provider, NAME), told)
    assert type(raised_by(lambda: names(provider))) is base.Unavailable
    assert type(raised_by(lambda: provider.get(NAME))) is base.Unavailable


def test_a_folder_that_is_away(provider: SyncedFolder) -> None:
    provider.put(NAME, BODY)
    shard = place(provider, NAME).parent
    place(provider, NAME).unlink()
    shard.rmdir()
    shard.with_name(f".{shard.name}.icloud").write_bytes(b"")
    assert type(raised_by(lambda: provider.stat(NAME))) is base.Unavailable
    assert type(raised_by(lambda: provider.put(NAME, BODY))) is base.Unavailable


def test_small_files_that_are_hollow(provider: SyncedFolder) -> None:
    provider.put(SLOT, b"{}")
    hollow(place(provider, SLOT))
    assert type(raised_by(lambda: provider.get(SLOT))) is base.Unavailable
    durable.write_durably(place(provider, SLOT), bytes(2))  # zeros that were written, as after a power cut
    os.sync()
    assert provider.get(SLOT) == bytes(2)


def test_putting_what_is_away(provider: SyncedFolder) -> None:
    """The receipt of an earlier put was lost, and the client took the file: the upload must not wait for ever."""
    provider.put(NAME, BODY)
    stand_in = evict(place(provider, NAME))
    provider.put(NAME, BODY)
    assert stand_in.exists()
    stand_in.unlink()
    evicted_of_other_size = place(provider, NAME)
    evicted_of_other_size.write_bytes(b"1")
    evict(evicted_of_other_size)
    assert type(raised_by(lambda: provider.put(NAME, BODY))) is base.Unavailable


@pytest.mark.parametrize("how", ["hollow", "empty"])
def test_putting_again_over_what_has_no_bytes(how: str, provider: SyncedFolder) -> None:
    provider.put(NAME, BODY)
    AWAY[how](place(provider, NAME))
    assert type(raised_by(lambda: provider.put(NAME, BODY[::-1]))) is base.Unavailable
    provider.put(NAME, BODY)
    assert provider.get(NAME) == BODY


MOVES = [" 2", " (conflicted copy 2026-01-02)", ".sync-conflict-20260102-030405-ABCDEFG"]


@pytest.mark.parametrize("mark", MOVES)
@pytest.mark.parametrize("name", [NAME, SLOT, f"d/aa/s/bb/000000000001-{hashlib.sha256(BODY).hexdigest()}"])
def test_an_object_that_was_renamed_is_found(name: str, mark: str, provider: SyncedFolder) -> None:
    provider.put(name, BODY)
    path = place(provider, name)
    stem, dot, end = path.name.partition(".")
    copy = path.with_name(f"{stem}{mark}{dot}{end}")
    path.rename(copy)
    assert provider.get(name) == BODY
    assert provider.get(name, -100, 10) == BODY[-100:-90]
    assert provider.stat(name).size == len(BODY)
    assert names(provider) == [name]
    assert provider.strays().copies == (os.fspath(copy.relative_to(provider._root)),)
    provider.put(name, BODY)
    assert path.exists()
    assert names(provider) == [name]
    provider.delete(name)
    is_missing(provider, name)
    assert not copy.exists()


def test_a_folder_that_was_renamed(provider: SyncedFolder) -> None:
    for name in (NAME, SLOT):
        provider.put(name, BODY)
    (provider._root / "d").rename(provider._root / "d 2")
    place(provider, SLOT).parent.rename(provider._root / "slots (1)")
    (provider._root / "d").mkdir()
    assert names(provider) == sorted([NAME, SLOT])
    assert names(provider, NAME) == [NAME]
    assert provider.get(NAME) == BODY
    assert provider.get(SLOT) == BODY
    provider.delete(NAME)
    is_missing(provider, NAME)


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(BODY[:-1]), lambda path: path.write_bytes(BODY[::-1]), empty, hollow]
)
def test_a_copy_is_used_where_the_object_is_damaged(spoil: Callable[[Path], None], provider: SyncedFolder) -> None:
    provider.put(NAME, BODY)
    path = place(provider, NAME)
    wrong, right = path.with_name(f"{path.name} 2"), path.with_name(f"{path.name} 3")
    wrong.write_bytes(b"wrong")
    right.write_bytes(BODY)
    assert provider.get(NAME) == BODY
    spoil(path)
    assert provider.get(NAME) == BODY
    assert provider.get(NAME, 100, 5) == BODY[100:105]
    assert names(provider) == [NAME]
    right.unlink()
    if path.stat().st_size and path.stat().st_blocks:
        assert provider.get(NAME) == path.read_bytes()  # as a damaged disk: who reads checks
    else:
        assert type(raised_by(lambda: provider.get(NAME))) is base.Unavailable


def test_a_copy_is_used_where_the_disk_cannot_read(provider: SyncedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    provider.put(NAME, BODY)
    path = place(provider, NAME)
    path.with_name(f"{path.name} 2").write_bytes(BODY)
    bad, fired = path.stat().st_ino, []
    real = os.pread

    def pread(descriptor: int, *rest: int) -> bytes:
        if os.fstat(descriptor).st_ino == bad:
            fired.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, *rest)

    monkeypatch.setattr(os, "pread", pread)
    assert provider.get(NAME) == BODY
    assert fired


def test_copies_with_other_bytes_are_never_taken(provider: SyncedFolder) -> None:
    provider.put(NAME, BODY)
    path = place(provider, NAME)
    path.rename(path.with_name(f"{path.name} 2"))
    path.with_name(f"{path.name} 2").write_bytes(b"other")
    is_missing(provider, NAME)
    assert names(provider) == []
    provider.put(SLOT, b"1")
    slot = place(provider, SLOT)
    slot.with_name("ab 2.json").write_bytes(b"2")
    assert provider.get(SLOT) == b"1"
    slot.rename(slot.with_name("ab 3.json"))  # now two copies that differ: nobody can say which
    is_missing(provider, SLOT)
    assert names(provider) == []


def test_what_is_nobodys_is_neither_listed_nor_reported(provider: SyncedFolder) -> None:
    provider.put(NAME, BODY)
    for each in (".DS_Store", "desktop.ini 2 x", "Photo 2.JPG", ".stfolder", "~99.tmp"):
        (provider._root / "d" / each).write_bytes(b"1")
    (provider._root / "d" / "link 2").symlink_to("/etc/passwd")
    os.mkfifo(provider._root / "d" / "pipe 2")
    packs = place(provider, NAME).parent.parent
    (packs / NAME[-64:]).write_bytes(BODY)  # not where packs are
    assert names(provider, "d/a") == [NAME]
    assert provider.strays().copies == ()


def test_strays(provider: SyncedFolder) -> None:
    for name in (NAME, SLOT, "a"):
        provider.put(name, BODY)
    evict(place(provider, NAME))
    (provider._root / "a 2").write_bytes(BODY)
    found = provider.strays()
    assert found.copies == ("a 2",)
    assert found.away == (NAME,)


def test_an_empty_place_is_not_a_vault(tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir()
    provider = SyncedFolder("drive", tmp_path / "vault")
    for call in (
        lambda: provider.get(NAME),
        lambda: names(provider),
        lambda: provider.put(NAME, BODY),
        provider.strays,
    ):
        assert type(raised_by(call)) is base.StorageMissing


def test_a_file_is_hashed_once(provider: SyncedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    provider.put(NAME, BODY)
    provider.get(NAME, 0, 1)
    hashed: list[int] = []
    monkeypatch.setattr(hashlib, "sha256", lambda *_: hashed.append(1))
    for offset in range(10):
        assert provider.get(NAME, offset, 1) == BODY[offset : offset + 1]
    assert hashed == []
