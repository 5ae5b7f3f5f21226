"""Files that hold a secret: who may read them, and what is never said about them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.config.errors import Disposition
from chatkeep.providers.base import SecretFileRefused
from chatkeep.providers.secret_file import read_secret

SECRET = "hunter2"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "secret"
    made.write_text(f"{SECRET}\n")
    made.chmod(0o600)
    return made


def test_a_secret_is_read_without_its_line_end(file: Path) -> None:
    assert read_secret(file) == SECRET
    file.write_bytes(b"two\r\nlines \r\n\n")
    assert read_secret(file) == "two\r\nlines "
    file.chmod(0o400)
    assert read_secret(file, 14) == "two\r\nlines "


def missing(file: Path) -> None:
    file.unlink()


def inside_a_file(file: Path) -> None:
    file.parent.joinpath("other").write_text("x")
    file.unlink()
    file.symlink_to(file.parent / "other" / "x")


def readable_by_others(file: Path) -> None:
    file.chmod(0o604)


def writable_by_the_group(file: Path) -> None:
    file.chmod(0o620)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir(mode=0o700)


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def empty(file: Path) -> None:
    file.write_text("\n\n")


def too_long(file: Path) -> None:
    file.write_text(SECRET * 10_000)


def not_text(file: Path) -> None:
    file.write_bytes(SECRET.encode() + b"\xff")


def with_a_zero(file: Path) -> None:
    file.write_bytes(SECRET.encode() + b"\0")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (missing, "missing"),
        (inside_a_file, "missing"),
        (readable_by_others, "mode"),
        (writable_by_the_group, "mode"),
        (a_folder, "kind"),
        (a_pipe, "kind"),
        (empty, "malformed"),
        (too_long, "malformed"),
        (not_text, "malformed"),
        (with_a_zero, "malformed"),
    ],
)
def test_refused(fault: Callable[[Path], None], reason: str, file: Path) -> None:
    fault(file)
    with pytest.raises(SecretFileRefused) as caught:
        read_secret(file)
    assert caught.value.params == {"path": str(file), "reason": reason}
    assert caught.value.disposition is Disposition.NEEDS_USER
    shown: list[BaseException | None] = [caught.value, caught.value.__cause__]
    assert all(SECRET not in f"{one!r} {vars(one) if one else ''}" for one in shown)
    assert not isinstance(caught.value.__cause__, UnicodeError), "it holds the bytes"


def test_a_file_of_somebody_else_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(SecretFileRefused) as caught:
        read_secret(file)
    assert caught.value.params["reason"] == "owner"


def test_a_credential_of_systemd(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SecretFileRefused) as caught:
        read_secret(Path("credential:secret"))
    assert caught.value.params == {"path": "credential:secret", "reason": "no-credentials"}
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(file.parent))
    file.chmod(0o440)  # as systemd gives it: by an access list, which shows as rights of the group
    assert read_secret(Path("credential:secret")) == SECRET
    with pytest.raises(SecretFileRefused) as caught:
        read_secret(Path("credential:other"))
    assert caught.value.params == {"path": "credential:other", "reason": "missing"}
