"""The note that uploads are open: kept for this start of the machine, private, and never in the way."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from chatkeep.daemon.service import uploads_open
from chatkeep.daemon.service.places import Place, vault_of
from chatkeep.daemon.service.uploads_open import UploadsOpen

VAULT, OTHER = b"\x01" * 16, b"\x02" * 16


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run" / "chatkeep"


def test_it_is_kept_for_a_daemon_that_is_started_again(directory: Path) -> None:
    assert not UploadsOpen(VAULT, directory).read()
    UploadsOpen(VAULT, directory).write()
    UploadsOpen(VAULT, directory).write()
    assert UploadsOpen(VAULT, directory).read()
    assert not UploadsOpen(OTHER, directory).read()
    (name,) = os.listdir(directory)
    assert VAULT.hex() in name
    assert vault_of(name) is None, "it is not taken for a socket"
    assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600


def test_it_is_forgotten(directory: Path) -> None:
    note = UploadsOpen(VAULT, directory)
    note.forget()  # where there is no directory yet
    note.write()
    note.forget()
    note.forget()
    assert not note.read()
    assert os.listdir(directory) == []


def test_it_counts_until_the_machine_is_started_anew(directory: Path) -> None:
    """Where the directory outlives the login, as in the state directory."""
    UploadsOpen(VAULT, directory, boot="one").write()
    assert UploadsOpen(VAULT, directory, boot="one").read()
    assert not UploadsOpen(VAULT, directory, boot="two").read()


def test_where_the_kernel_does_not_say_which_start_it_is_nothing_is_remembered(
    directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(uploads_open, "_BOOT_ID", tmp_path / "absent")
    note = UploadsOpen(VAULT, directory)
    were_open = set(os.listdir("/proc/self/fd"))
    note.write()
    assert not note.read()
    assert set(os.listdir("/proc/self/fd")) <= were_open


@pytest.mark.parametrize("content", [b"", b"one\n", b"ONE", b"one" * 1000])
def test_anything_else_in_its_place_means_no(directory: Path, content: bytes) -> None:
    note = UploadsOpen(VAULT, directory, boot="one")
    note.write()
    assert note.read()
    (directory / f"{VAULT.hex()}.uploads").write_bytes(content)
    assert not note.read()


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "open to others"])
def test_what_is_no_file_of_this_user_alone_means_no(directory: Path, tmp_path: Path, kind: str) -> None:
    note = UploadsOpen(VAULT, directory, boot="one")
    note.write()
    path = directory / f"{VAULT.hex()}.uploads"
    if kind == "open to others":
        path.chmod(0o644)
    else:
        path.unlink()
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(b"one")
        (tmp_path / "elsewhere").chmod(0o600)
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "directory":
        path.mkdir(0o700)
    were_open = set(os.listdir("/proc/self/fd"))
    assert not note.read()
    assert set(os.listdir("/proc/self/fd")) <= were_open


def test_a_directory_that_others_can_enter_is_not_believed_and_not_used(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    note = UploadsOpen(VAULT, directory, boot="one")
    note.write()
    directory.chmod(0o755)
    assert not note.read()
    note.write()
    note.forget()
    assert [record.getMessage() for record in caplog.records] == [
        *("uploads-open-not-kept: mode", "uploads-open-not-forgotten: mode"),
    ]


def test_a_full_disk_ends_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    note = UploadsOpen(VAULT, directory, boot="one")
    refused = []

    def full(*_args: object, **_named: object) -> None:
        refused.append(True)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    note.write()
    assert refused
    assert not note.read()
    assert "No space left on device" in caplog.text
    monkeypatch.undo()
    note.write()
    assert note.read()


def test_it_stands_beside_the_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    UploadsOpen(VAULT).write()
    place = Place.open()
    assert place is not None
    with place:
        assert os.listdir(place.path) == [f"{VAULT.hex()}.uploads"]
    assert UploadsOpen(VAULT).read()
