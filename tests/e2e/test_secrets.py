"""Wrong secrets: each is told for what it is, and a slip on its line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chatkeep.daemon.keys import recovery
from tests.support.station import Station, fill, rows


@pytest.fixture
def kept(station: Station) -> Station:
    fill(station.source / "messages.db")
    station.backup()
    return station


def secret(station: Station, text: str) -> Path:
    file = station.room / "secret"
    file.touch(mode=0o600)
    file.write_text(text)
    return file


def restoring(station: Station, option: str, file: object) -> list[object]:
    return ["restore", "latest", "--target", station.room / "out", option, file]


@pytest.mark.parametrize("line", [1, 4, 8])
def test_a_slip_is_told_on_its_line(kept: Station, line: int) -> None:
    lines = kept.key.read_text().splitlines()
    digit = (int(lines[line - 1][2]) + 1) % 10
    lines[line - 1] = lines[line - 1][:2] + str(digit) + lines[line - 1][3:]
    words = restoring(kept, "--key-file", secret(kept, "\n".join(lines)))
    done = kept.run(*words)
    assert (done.code, done.error) == (3, "recovery-typo")
    assert done.json["error"]["params"]["line"] == line
    assert f"There is a slip in line {line} of the recovery key." in kept.run(*words, json=False).err
    assert not (kept.room / "out").exists()


def test_two_lines_that_changed_places(kept: Station) -> None:
    lines = kept.key.read_text().splitlines()
    lines[2], lines[5] = lines[5], lines[2]
    done = kept.run(*restoring(kept, "--key-file", secret(kept, "\n".join(lines))))
    assert (done.code, done.error, done.json["error"]["params"]["line"]) == (3, "recovery-typo", 3)


def test_a_recovery_key_of_another_vault(kept: Station) -> None:
    other = "\n".join(recovery.generate().lines)
    words = restoring(kept, "--key-file", secret(kept, other))
    done = kept.run(*words)
    assert (done.code, done.error) == (3, "wrong-recovery-key")
    assert "This is not a recovery key of this vault." in kept.run(*words, json=False).err


def test_a_passphrase(kept: Station) -> None:
    new = secret(kept, "correct horse battery")
    added = kept.ok("key", "add", "passphrase", "--new-passphrase-file", new, "--key-file", kept.key, "--label", "mine")
    listed = kept.ok("key", "list", "--labels", "--passphrase-file", new)["ways"]
    assert {(way["kind"], way["label"]) for way in listed} == {("recovery-64", "recovery key"), ("passphrase", "mine")}
    assert added["id"] in {way["id"] for way in listed}
    kept.ok(*restoring(kept, "--passphrase-file", new))
    assert len(rows(kept.room / "out" / "messages.db")) == 200

    done = kept.run(*restoring(kept, "--passphrase-file", secret(kept, "incorrect horse battery")))
    assert (done.code, done.error) == (3, "wrong-passphrase")


def test_another_recovery_key(kept: Station) -> None:
    second = kept.room / "second.txt"
    kept.ok("key", "add", "recovery", "--recovery-key-file", second, "--key-file", kept.key)
    assert second.stat().st_mode & 0o777 == 0o600
    assert second.read_text() != kept.key.read_text()
    kept.ok(*restoring(kept, "--key-file", second))


def test_no_secret_and_no_terminal(kept: Station) -> None:
    done = kept.run("snapshots")
    assert (done.code, done.error) == (3, "vault-locked")
    assert "--key-file" in done.json["error"]["remedy"]


def test_two_secrets(kept: Station) -> None:
    assert kept.run("snapshots", "--key-file", kept.key, "--passphrase").code == 2


def test_a_secret_through_a_descriptor(kept: Station) -> None:
    reading, writing = os.pipe()
    os.write(writing, kept.key.read_bytes())
    os.close(writing)
    done = kept.run("snapshots", "--key-file", f"/dev/fd/{reading}", pass_fds=(reading,))
    os.close(reading)
    assert done.code == 0
    assert len(done.json["snapshots"]) == 1
    with kept.key.open() as stdin:
        assert kept.run("snapshots", "--key-file", "-", stdin=stdin).code == 0


def test_a_vault_that_is_not_there(station: Station) -> None:
    empty = station.room / "empty"
    empty.mkdir()
    done = station.run("snapshots", "--from", empty, "--key-file", station.key)
    assert (done.code, done.error) == (4, "storage-missing")
    done = station.run("snapshots", "--from", station.room / "nowhere", "--key-file", station.key)
    assert (done.code, done.error) == (4, "storage-missing")


def test_nothing_secret_is_in_what_is_printed_or_stored(kept: Station) -> None:
    digits = "".join(kept.key.read_text().split())
    shown = [kept.run("doctor").out, kept.run("status").out, kept.run("key", "list").out]
    stored = [path.read_bytes() for path in kept.room.rglob("*") if path.is_file() and path != kept.key]
    for eight in (digits[i : i + 8] for i in range(0, 64, 8)):
        assert all(eight not in text.replace(" ", "") for text in shown)
        assert all(eight.encode() not in body for body in stored)
