"""A passkey from its making to a new machine: the real command, the real page, a real browser."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.passkey.conftest import Enrolled
from tests.support import chromium as c
from tests.support.owner import Owner
from tests.support.passkey_provider import PasskeyProvider
from tests.support.soft_key import SoftCtapDevice
from tests.support.station import Station, fill, finish, rows
from tests.support.terminal import converse
from tests.support.visitor import Visitor


@pytest.fixture
def kept(station: Station) -> Station:
    """With one backup."""
    fill(station.source / "messages.db")
    station.backup()
    return station


@pytest.fixture
def fresh(kept: Station, tmp_path: Path) -> Iterator[Station]:
    """Another machine, which has nothing of the first but what lies in storage."""
    room = tmp_path / "fresh"
    room.mkdir()
    fresh = Station(room)
    yield fresh
    fresh.run("lock")


def test_made_locked_unlocked_used(kept: Station, owner: Owner) -> None:
    owner.visitor.tab.authenticator()
    slot = owner.add_passkey(kept, "--label", "phone")
    assert f"slots/{slot}.json" in kept.objects()
    assert kept.run("snapshots").error == "vault-locked"
    session = owner.touches(kept, "unlock", "--passkey").json
    assert session["began"]
    assert len(kept.ok("snapshots")["snapshots"]) == 1  # nobody was asked again
    ways = kept.ok("key", "list", "--labels")["ways"]
    assert [(way["kind"], way["label"]) for way in ways if way["id"] == slot] == [("webauthn-prf", "phone")]
    assert len(kept.ok("lock")["locked"]) == 1
    assert kept.run("snapshots").error == "vault-locked"
    assert not owner.visitor.tab.seen.errors


def test_a_lost_machine(kept: Station, fresh: Station, owner: Owner) -> None:
    """Storage and the passkey, and nothing else: no recovery key, no configuration, no state. Then it goes on there."""
    owner.visitor.tab.authenticator(c.PRF)
    owner.add_passkey(kept)
    shutil.move(kept.storage(), fresh.storage())
    kept.room.rename(kept.room.with_name("lost"))
    before = fresh.config.read_text()
    fresh.config.unlink()
    words = ("restore", "latest", "--from", fresh.storage(), "--passkey", "--target", fresh.room / "out")
    owner.touches(fresh, *words)
    assert rows(fresh.room / "out" / "messages.db") == rows(kept.room.with_name("lost") / "chat" / "messages.db")

    fresh.config.write_text(before)
    owner.touches(fresh, "join", "--passkey")
    (fresh.room / "out" / "messages.db").rename(fresh.source / "messages.db")
    fill(fresh.source / "messages.db", 10)
    fresh.backup()
    owner.touches(fresh, "unlock", "--passkey")
    assert len(fresh.ok("snapshots")["snapshots"]) == 2
    assert not owner.visitor.tab.seen.errors


def test_from_the_beginning(tmp_path: Path, owner: Owner) -> None:
    """A vault is made with its passkey at once."""
    station = Station(tmp_path)
    owner.visitor.tab.authenticator()
    owner.touches(station, "init", "--recovery-key-file", station.key, "--passkey")
    fill(station.source / "messages.db")
    station.backup()
    owner.touches(station, "restore", "latest", "--passkey", "--target", station.room / "out")
    assert len(rows(station.room / "out" / "messages.db")) == 200


def test_the_terminal_and_the_page_show_the_same(enrolled: Enrolled, owner: Owner) -> None:
    PasskeyProvider(SoftCtapDevice(enrolled.key)).serve(owner.visitor.tab)
    process = owner.start(enrolled.station, "unlock", "--passkey", json=False)
    code = owner.visitor.code
    owner.visitor.presses("done")
    done = finish(process)
    assert done.code == 0
    assert f"{code[:3]} {code[3:]}" in done.err
    assert "http://localhost:" in done.err
    assert done.out.startswith('Unlocked, with passkey "phone", until ')
    assert owner.visitor.title == "Unlocked"


def test_a_second_passkey(kept: Station, owner: Owner) -> None:
    """The first one unlocks: two ceremonies of one command, each with a page of its own. Each then opens by itself."""
    first = owner.visitor.tab.authenticator()
    owner.add_passkey(kept, "--label", "phone")
    process = owner.start(kept, "key", "add", "passkey", "--passkey", "--label", "laptop")
    owner.visitor.presses("done")
    first.remove()
    owner.visitor.tab.authenticator(c.PRF)
    owner.page(process)
    owner.visitor.presses("done")
    assert finish(process).code == 0
    session = owner.touches(kept, "unlock", "--passkey").json["session"]
    assert session["label"] == "laptop"
    ways = kept.ok("key", "list", "--labels")["ways"]
    assert {way["label"] for way in ways} == {"recovery key", "phone", "laptop"}


def test_the_same_device_twice(enrolled: Enrolled, owner: Owner) -> None:
    station = enrolled.station
    PasskeyProvider(SoftCtapDevice(enrolled.key)).serve(owner.visitor.tab)
    before = station.objects().keys()
    done = owner.run(station, "key", "add", "passkey", "--key-file", station.key, state="over")
    assert (done.code, done.error) == (1, "already-enrolled")
    assert station.objects().keys() == before
    assert len(enrolled.key.credentials) == 1


def test_the_link_is_in_no_argument_and_in_a_file_for_one_visit(enrolled: Enrolled, owner: Owner) -> None:
    """Every user of a machine can read the arguments of every process."""
    PasskeyProvider(SoftCtapDevice(enrolled.key)).serve(owner.visitor.tab)
    process = enrolled.station.start("unlock", "--passkey")
    file = Path(owner.desktop.opened(process))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_text().partition("#")[2].partition('"')[0]
    assert len(token) == 43
    arguments = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert any(b"chatkeep.daemon.control.ceremony" in one for one in arguments)
    assert not [one for one in arguments if token.encode() in one]
    owner.visitor.visit(file.as_uri())
    assert not file.exists()
    owner.visitor.presses("done")
    assert finish(process).code == 0
    assert token not in str(owner.visitor.tab.history())


def test_without_a_desktop_the_terminal_has_the_link(
    enrolled: Enrolled, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    PasskeyProvider(SoftCtapDevice(enrolled.key)).serve(visitor.tab)

    def follow(shown: str) -> str:
        visitor.visit("http://" + shown.split("http://")[1].split()[0])
        visitor.presses("done")
        return ""

    environment = {"XDG_RUNTIME_DIR": str(enrolled.station.runtime), "TERM": "dumb"}
    code, shown = converse(enrolled.station.argv("unlock"), [("the page must show the same", follow)], environment)
    assert code == 0, shown
    assert 'Unlocked, with passkey "phone"' in shown
