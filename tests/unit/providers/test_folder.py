"""What only a folder does: where its files lie, what else lies there, and a medium that is away, full or read-only."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from chatkeep.config.errors import Disposition
from chatkeep.config.model import FolderOptions, ProviderConfig
from chatkeep.providers import base, durable
from chatkeep.providers.folder import FolderProvider
from chatkeep.providers.registry import open_provider
from tests.support.nobody import as_nobody

HASH = "ab" + "0123456789abcdef" * 3 + "c" * 14
PACK = f"d/1/p/{HASH}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "vault"


@pytest.fixture
def folder(root: Path) -> FolderProvider:
    return FolderProvider("disk", root, create=True)


def verbs(folder: FolderProvider) -> dict[str, Callable[[], object]]:
    return {
        "put": partial(folder.put, PACK, b"x"),
        "get": partial(folder.get, PACK),
        "stat": partial(folder.stat, PACK),
        "delete": partial(folder.delete, PACK),
        "list": lambda: [*folder.list("")],
        "probe": folder.probe,
    }


def test_packs_are_spread_and_the_rest_lies_as_named(folder: FolderProvider, root: Path) -> None:
    folder.put(PACK, b"pack")
    folder.put(f"d/1/s/2/{HASH}", b"manifest")
    folder.put("p/short", b"")
    assert (root / "d/1/p/ab" / HASH).read_bytes() == b"pack"
    assert (root / "d/1/s/2" / HASH).read_bytes() == b"manifest"
    assert (root / "p/short").read_bytes() == b""
    assert (root / "d/1/p/ab" / HASH).stat().st_mode & 0o777 == 0o600


def test_a_name_inside_a_shard_is_refused(folder: FolderProvider) -> None:
    for name in (f"d/1/p/ab/{HASH}", "p/ab/c", "d/p/00/x/y"):
        for call in (partial(folder.put, name, b""), partial(folder.get, name), partial(folder.delete, name)):
            with pytest.raises(base.InvalidName):
                call()


def test_what_others_put_there_is_not_listed(folder: FolderProvider, root: Path) -> None:
    folder.put(PACK, b"pack")
    folder.put("slots/a.json", b"{}")
    for foreign in (
        ".DS_Store",
        "Thumbs.db",
        "slots/a 2.json",
        "slots/A.json",
        "slots/.a.json.icloud",
        f"d/1/p/{HASH}",  # a pack that is not in its shard
        "d/1/p/ab/" + "0" * 64,  # one in the wrong shard
        "d/1/p/ab/readme",
        ".tmp/left",
        "slots/\udcff",
    ):
        (root / foreign).write_bytes(b"foreign")
    (root / "slots" / "link").symlink_to(root / "slots" / "a.json")
    (root / "outside").symlink_to("/usr")
    os.mkfifo(root / "slots" / "pipe")
    assert sorted(found.name for found in folder.list("")) == [PACK, "slots/a.json"]


def test_links_and_pipes_are_not_objects(folder: FolderProvider, root: Path) -> None:
    folder.put("a/real", b"body")
    (root / "a/link").symlink_to(root / "a/real")
    os.mkfifo(root / "a/pipe")
    for name in ("a/link", "a/pipe"):
        for call in (partial(folder.get, name), partial(folder.stat, name), partial(folder.put, name, b"body")):
            with pytest.raises(base.ObjectDamaged):
                call()


def test_an_evicted_file_is_away_and_not_missing(folder: FolderProvider, root: Path) -> None:
    folder.put("a/real", b"body")
    (root / "a/real").rename(root / "a/.real.icloud")
    for call in (partial(folder.get, "a/real"), partial(folder.stat, "a/real")):
        with pytest.raises(base.Unavailable):
            call()


@pytest.mark.parametrize("verb", ["put", "get", "stat", "delete", "list", "probe"])
@pytest.mark.parametrize("state", ["missing", "empty mount point", "a file", "with lost+found"])
def test_a_medium_that_is_away_is_no_empty_vault(verb: str, state: str, root: Path) -> None:
    if state == "a file":
        root.write_bytes(b"")
    elif state != "missing":
        root.mkdir()
    if state == "with lost+found":
        (root / "lost+found").mkdir()
    before = [*root.parent.rglob("*")]
    with pytest.raises(base.StorageMissing) as caught:
        verbs(FolderProvider("disk", root))[verb]()
    assert caught.value.disposition is Disposition.NEEDS_USER
    assert [*root.parent.rglob("*")] == before


@pytest.mark.parametrize("verb", ["put", "get", "stat", "delete", "list", "probe"])
def test_a_medium_that_goes_away_later(verb: str, folder: FolderProvider, root: Path) -> None:
    folder.put(PACK, b"x")
    root.rename(root.with_name("elsewhere"))
    root.mkdir()
    with pytest.raises(base.StorageMissing):
        verbs(folder)[verb]()
    assert [*root.iterdir()] == []
    root.rmdir()
    root.with_name("elsewhere").rename(root)
    assert folder.get(PACK) == b"x"
    folder.put(f"{PACK[:-1]}d", b"y")


def test_a_copy_without_hidden_files_is_a_vault(folder: FolderProvider, root: Path) -> None:
    folder.put("vault/1", b"x")
    (root / ".tmp").rmdir()
    again = FolderProvider("disk", root)
    assert again.get("vault/1") == b"x"
    again.put("vault/2", b"y")
    assert again.get("vault/2") == b"y"


def test_folders_that_vanish_are_made_again(folder: FolderProvider, root: Path) -> None:
    folder.put(PACK, b"x")
    folder.delete(PACK)
    for gone in ("d/1/p/ab", "d/1/p", "d/1", "d"):
        (root / gone).rmdir()
    folder.put(PACK, b"y")
    assert folder.get(PACK) == b"y"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[str]:
    """What was synced, as paths below the root."""
    real, paths = os.fsync, list[str]()

    def fsync(descriptor: int) -> None:
        real(descriptor)
        paths.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), root))

    monkeypatch.setattr(os, "fsync", fsync)
    return paths


def test_every_name_above_an_object_is_synced_once(folder: FolderProvider, root: Path, synced: list[str]) -> None:
    folder.put(PACK, b"x")
    assert [path for path in synced if not path.startswith(".tmp")] == [".", "d", "d/1", "d/1/p", "d/1/p/ab"]
    synced.clear()
    folder.put(f"{PACK[:-1]}d", b"y")
    assert [path for path in synced if not path.startswith(".tmp")] == ["d/1/p/ab"]
    synced.clear()
    # Another process cannot know whether the one that made the folders lived to sync them.
    FolderProvider("disk", root).put(f"{PACK[:-1]}e", b"z")
    assert [path for path in synced if not path.startswith(".tmp")] == [".", "d", "d/1", "d/1/p", "d/1/p/ab"]


def test_an_object_that_is_there_is_made_durable(folder: FolderProvider, root: Path, synced: list[str]) -> None:
    folder.put(PACK, b"x")
    synced.clear()
    FolderProvider("disk", root).put(PACK, b"x")
    assert synced == [f"d/1/p/ab/{HASH}", ".", "d", "d/1", "d/1/p", "d/1/p/ab"]


def test_a_delete_is_synced_also_when_there_is_nothing(folder: FolderProvider, synced: list[str]) -> None:
    folder.put(PACK, b"x")
    for _ in range(2):
        synced.clear()
        folder.delete(PACK)
        assert synced == ["d/1/p/ab"]


def test_the_root_is_made_only_when_asked_and_never_its_parent(tmp_path: Path) -> None:
    with pytest.raises(base.StorageMissing):
        FolderProvider("disk", tmp_path / "no" / "vault", create=True)
    FolderProvider("disk", tmp_path / "vault")
    assert [*tmp_path.iterdir()] == []
    FolderProvider("disk", tmp_path / "vault", create=True)
    FolderProvider("disk", tmp_path / "vault", create=True).put("a", b"")


def test_what_a_killed_writer_left_is_removed_by_the_next(folder: FolderProvider, root: Path) -> None:
    left = durable.write_temporary(root / ".tmp", b"left")
    os.utime(left, (1, 1))
    young = durable.write_temporary(root / ".tmp", b"young")
    folder.put("a", b"x")
    assert [*(root / ".tmp").iterdir()] == [young]


def test_a_damaged_sector(folder: FolderProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put("a", b"body")
    asked: list[int] = []

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        asked.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", pread)
    for call in (partial(folder.get, "a"), partial(folder.put, "a", b"body")):
        with pytest.raises(base.ObjectDamaged):
            call()
    assert len(asked) == 2


def test_a_file_that_shrinks_while_it_is_read(folder: FolderProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put("a", b"body")
    monkeypatch.setattr(os, "pread", lambda _descriptor, _length, offset: b"bo"[offset:])
    with pytest.raises(base.ObjectDamaged) as caught:
        folder.get("a")
    assert caught.value.params == {"provider": "disk", "object": "a", "expected": 4, "found": 2}


def test_a_read_only_folder(folder: FolderProvider, root: Path) -> None:
    folder.put(PACK, b"x")
    for path in (root / "d/1/p/ab" / HASH, *root.rglob("*"), root):
        path.chmod(0o755 if path.is_dir() else 0o644)

    def refused() -> None:
        reader = FolderProvider("disk", root)
        assert reader.get(PACK) == b"x"
        assert [found.name for found in reader.list("")] == [PACK]
        reader.put(PACK, b"x")  # it is already there: nothing to write
        for call in (partial(reader.put, "other", b""), partial(reader.delete, PACK), reader.probe):
            with pytest.raises(base.PermissionRefused) as caught:
                call()
            assert caught.value.disposition is Disposition.NEEDS_USER

    if os.geteuid() == 0:
        as_nobody(refused, os.fsencode(root.parent))
    else:
        for path in (*root.rglob("*"), root):
            path.chmod(path.stat().st_mode & ~0o222)
        try:
            refused()
        finally:
            for path in (root, *root.rglob("*")):
                path.chmod(path.stat().st_mode | 0o200)
    assert folder.get(PACK) == b"x"


FILL = """
import sys
from pathlib import Path
from chatkeep.providers import base
from chatkeep.providers.folder import FolderProvider

folder = FolderProvider("disk", Path(sys.argv[1]), create=True)
folder.put("small", bytes(1000))
try:
    folder.put("large", bytes(3_000_000))
except base.QuotaExceeded as error:
    print("full", error.params["errno"])
assert [found.name for found in folder.list("")] == ["small"]
assert [*(Path(sys.argv[1]) / ".tmp").iterdir()] == []
folder.put("small-too", bytes(1000))
"""


def fill(root: Path, *prefix: str) -> str:
    """What a child said that put more than fits."""
    arguments = [*prefix, sys.executable, "-c", FILL, str(root)]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.strip()


def test_a_file_that_may_not_grow(root: Path) -> None:
    assert fill(root, "prlimit", "--fsize=1000000") == f"full {errno.EFBIG}"


def test_a_full_disk(tmp_path: Path) -> None:
    # A file system of 2 MB, mounted where only this child sees it: by root, or by a user in a namespace of its own.
    # Where a machine allows neither, a limit on the process stands in for the disk, so that this is never left out.
    private = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    mount = f"mount -t tmpfs -o size=2m none '{tmp_path}'"
    if subprocess.run([*private, "sh", "-c", mount], capture_output=True, check=False).returncode == 0:
        assert fill(tmp_path / "vault", *private, "sh", "-c", f'{mount} && exec "$@"', "sh") == f"full {errno.ENOSPC}"
        assert [*tmp_path.iterdir()] == []
    else:
        assert fill(tmp_path / "vault", "prlimit", "--fsize=2000000") == f"full {errno.EFBIG}"


def test_a_probe_measures(folder: FolderProvider, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = folder.probe()
    room = os.statvfs(root)
    assert seen.free_bytes is not None
    assert abs(seen.free_bytes - room.f_bavail * room.f_frsize) < 1 << 30
    assert (seen.exclusive_create, seen.lists_at_once, seen.deletes, seen.modified) == (True, True, True, True)

    def no_links(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    assert folder.probe().exclusive_create
    monkeypatch.setattr(durable, "_rename_exclusively", lambda _source, _target: False)
    assert not folder.probe().exclusive_create


def test_the_table_opens_what_is_configured(tmp_path: Path) -> None:
    config = ProviderConfig(name="disk", type="folder", options=FolderOptions(path=tmp_path / "vault"))
    with pytest.raises(base.StorageMissing):
        open_provider(config).put("a", b"x")
    provider = open_provider(config, create=True)
    provider.put("a", b"x")
    assert provider.name == "disk"
    assert open_provider(config).get("a") == b"x"


def test_types_are_imported_when_they_are_opened() -> None:
    script = "import sys, chatkeep.providers.registry; print('chatkeep.providers.folder' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
