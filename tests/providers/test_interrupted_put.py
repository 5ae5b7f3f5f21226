"""A put that is killed or fails at every one of its steps: what a reader finds, and that a second put mends it."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from chatkeep.providers import base, durable
from chatkeep.providers.folder import STALE_AFTER, FolderProvider
from tests.providers.contract import PACK
from tests.providers.faulty_os import body_of, failing

SIZE = 100_000
PROJECT = Path(__file__).parents[2]


def whole_or_absent(provider: FolderProvider) -> bool:
    """Whether the object is there; fails when it is there in part, by any way to look."""
    listed = [found.size for found in provider.list("d")]
    try:
        body = provider.get(PACK)
    except base.ObjectNotFound:
        assert listed == []
        return False
    assert body == body_of(SIZE)
    assert listed == [SIZE]
    return True


def kill_at(root: Path, step: int) -> str:
    """Kills a child in the middle of its put; what it said it was about to do, or that it finished."""
    arguments = [sys.executable, "-m", "tests.providers.faulty_os", str(root), PACK, str(SIZE), str(step)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as child:
        assert child.stdout is not None
        said = child.stdout.readline().strip()
        child.kill()
    return said


def error_of(call: Callable[[], None]) -> base.ProviderError | None:
    """The provider error of a call, or None if it went well."""
    try:
        call()
    except base.ProviderError as error:
        return error
    return None


def test_killed_at_every_step(tmp_path: Path) -> None:
    halted: list[str] = []
    found: list[bool] = []
    while True:
        root = tmp_path / str(len(halted))
        FolderProvider("disk", root, create=True)
        said = kill_at(root, len(halted) + 1)
        provider = FolderProvider("disk", root)
        if said == "finished":
            assert whole_or_absent(provider)
            break
        assert said.startswith("halted before ")
        halted.append(said.split()[-1])
        found.append(whole_or_absent(provider))
        provider.put(PACK, body_of(SIZE))
        assert whole_or_absent(provider)
        durable.sweep_temporaries(root / ".tmp", STALE_AFTER, _in_two_days(root))
        assert [*(root / ".tmp").iterdir()] == []
    assert halted.count("mkdir") == 4
    assert [each for each in halted if each in ("write", "link")] == ["write", "link"]
    named = halted.index("link") + 1
    assert found == [False] * named + [True] * (len(halted) - named)
    assert halted[named:].count("fsync") == 1  # the last step: the directory


def _in_two_days(root: Path) -> float:
    return root.stat().st_mtime + 2 * 86400


MEANINGS = {
    errno.ENOSPC: base.QuotaExceeded,
    errno.EDQUOT: base.QuotaExceeded,
    errno.EFBIG: base.QuotaExceeded,
    errno.EROFS: base.PermissionRefused,
    errno.EACCES: base.PermissionRefused,
    errno.EPERM: base.PermissionRefused,
    errno.ENODEV: base.StorageMissing,
    errno.ENOTCONN: base.StorageMissing,
    errno.EIO: base.Unavailable,
    errno.ESTALE: base.Unavailable,
    errno.ENAMETOOLONG: base.InvalidName,
}


@pytest.mark.parametrize("number", MEANINGS, ids=errno.errorcode.get)
def test_what_each_error_means(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = FolderProvider("disk", tmp_path, create=True)
    faulty = failing(1, number)
    monkeypatch.setattr(durable, "os", faulty)
    error = error_of(partial(provider.put, "a", b"x"))
    assert faulty.seen[0] == "open"
    assert type(error) is MEANINGS[number]


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, base.QuotaExceeded), (errno.EIO, base.Unavailable), (errno.EROFS, base.PermissionRefused)],
)
def test_failed_at_every_step(
    number: int, kind: type[base.ProviderError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = 1
    failed: set[str] = set()
    while True:
        root = tmp_path / str(step)
        provider = FolderProvider("disk", root, create=True)
        faulty = failing(step, number)
        with monkeypatch.context() as patched:
            patched.setattr(durable, "os", faulty)
            error = error_of(partial(provider.put, PACK, body_of(SIZE)))
        if len(faulty.seen) < step:
            break
        failed.add(faulty.seen[step - 1])
        if error is None:  # the step that cannot be done leaves only a temporary file behind, to be swept
            assert faulty.seen[step - 1] == "unlink"
            assert whole_or_absent(provider)
        else:
            assert type(error) is kind
            assert error.params == {"provider": "disk", "object": PACK, "errno": number}
            assert [*(root / ".tmp").iterdir()] == []  # nothing that counts against the room there is
        whole_or_absent(provider)
        provider.put(PACK, body_of(SIZE))
        assert whole_or_absent(provider)
        step += 1
    assert failed == {"mkdir", "open", "write", "fsync", "close", "link", "unlink"}


def test_a_failed_fsync_is_never_repeated_on_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[int] = []  # descriptors kept open, so that the next file cannot get the same inode

    def fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        assert not any(os.path.samestat(found, os.fstat(each)) for each in failed), "the next one reports a success"
        if stat.S_ISREG(found.st_mode) and not failed:
            failed.append(os.dup(descriptor))
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    provider = FolderProvider("disk", tmp_path / "vault", create=True)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(base.Unavailable):
        provider.put(PACK, body_of(SIZE))
    assert len(failed) == 1
    assert not whole_or_absent(provider)
    provider.put(PACK, body_of(SIZE))
    assert whole_or_absent(provider)
    os.close(failed[0])
