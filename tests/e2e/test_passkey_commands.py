"""Passkeys with the real command, its real ceremonies, and security keys in software: enrolled, used, lost, removed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click import unstyle

from tests.support.soft_key.ports import PluggedKey, Ports
from tests.support.station import Done, Station, copied, fill, rows, template
from tests.support.terminal import converse

TERMINAL = {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
BY_KEY = "--security-key"


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    with Ports() as ports, pytest.MonkeyPatch.context() as patch:
        for name, value in ports.environment().items():
            patch.setenv(name, value)
        yield ports


@pytest.fixture(scope="module")
def blue(ports: Ports) -> PluggedKey:
    """The security key with the passkey of `made`."""
    return ports.key("blue", plugged=False, uv=True)


@pytest.fixture(scope="module")
def made(blue: PluggedKey, tmp_path_factory: pytest.TempPathFactory) -> Station:
    """A vault at two places, with a recovery key and a passkey, and one snapshot."""
    station = template(tmp_path_factory.mktemp("passkeys") / "room", "disk", "usb")
    blue.plug()
    station.ok("key", "add", "security-key", "--key-file", station.key)
    blue.pull()
    fill(station.source / "messages.db")
    (station.source / "notes.txt").write_text("one, two\n")
    station.backup()
    return station


@pytest.fixture
def station(made: Station, blue: PluggedKey, tmp_path: Path) -> Iterator[Station]:
    """A copy of it, with the security key plugged in."""
    blue.plug()
    yield copied(made, tmp_path / "room")
    blue.person(touch="yes", finger=True)
    blue.lie()
    blue.pull()


def touched(key: PluggedKey) -> int:
    """How often it was to be touched so far."""
    found: int = key.state["blinked"]
    return found


def stored(station: Station) -> dict[str, str]:
    """Everything in storage."""
    return {
        f"{place}/{name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for place in station.names
        for name, path in station.objects(place).items()
    }


def ways(station: Station, *secret: object) -> dict[str, Any]:
    """What `key list --labels` says."""
    found: dict[str, Any] = station.ok("key", "list", "--labels", *(secret or ("--key-file", station.key)))
    return found


def way_of(station: Station, kind: str) -> dict[str, Any]:
    """The one way in of this kind."""
    [found] = [way for way in ways(station)["ways"] if way["kind"] == kind]
    return dict(found)


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "--deep"),
        ("prune", "--dry-run"),
        ("rebuild",),
        ("device", "list"),
        ("key", "rotate", "--yes"),
    ],
)
def test_every_command_that_unlocks_does_it_with_one_touch(
    station: Station, blue: PluggedKey, words: tuple[str, ...]
) -> None:
    before = touched(blue)
    done = station.run(*words, BY_KEY)
    assert done.code == 0, done
    assert done.json
    assert touched(blue) == before + 1
    assert done.err.count("Touch the security key.") == 1


def test_a_new_machine_with_nothing_but_the_passkey(station: Station, tmp_path: Path) -> None:
    for gone in (station.state, station.config, station.key):
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    storage = ("--from", station.storage("usb"), BY_KEY)
    target = tmp_path / "back"
    station.ok("restore", "latest", "--target", target, *storage)
    assert rows(target / "messages.db") == rows(station.source / "messages.db")
    assert [one["seq"] for one in station.ok("snapshots", *storage)["snapshots"]] == [1]
    assert station.run("cat", "latest", "notes.txt", *storage, json=False).out == "one, two\n"
    assert not station.state.exists()


def test_another_machine_joins_with_the_passkey_alone(station: Station, blue: PluggedKey) -> None:
    shutil.rmtree(station.state)
    station.key.unlink()
    before = touched(blue)
    station.ok("join", BY_KEY)
    fill(station.source / "messages.db", 10)
    station.backup()
    assert len(station.ok("device", "list", BY_KEY)["devices"]) == 2
    assert touched(blue) == before + 2
    # The new state directory has its own record of what was used here.
    assert {bool(way["used_here"]) for way in ways(station, BY_KEY)["ways"]} == {True, False}


class TestAdded:
    def test_the_way_in_is_listed_with_what_it_is(self, station: Station, ports: Ports, blue: PluggedKey) -> None:
        blue.pull()
        green = ports.key("green", uv=True)
        try:
            words = ("key", "add", "passkey", BY_KEY, "--label", "the green one", "--key-file", station.key)
            done = station.run(*words)
            assert done.code == 0, done
            assert {key: done.json[key] for key in ("kind", "label", "synced", "warnings", "recovery_key_file")} == {
                "kind": "webauthn-prf",
                "label": "the green one",
                "synced": False,
                "warnings": [],
                "recovery_key_file": None,
            }
            assert touched(green) == 3
            found = {way["id"]: way for way in ways(station, BY_KEY)["ways"]}
            assert touched(green) == 4
        finally:
            green.pull()
            blue.plug()
        assert found[done.json["id"]]["label"] == "the green one"
        assert found[done.json["id"]]["used_here"]
        assert {way["label"] for way in found.values()} == {"the green one", "security key", "recovery key"}
        # The one that was there before opens as well.
        assert len(ways(station, BY_KEY)["ways"]) == 3

    def test_one_that_is_synced_is_told(self, station: Station, ports: Ports, blue: PluggedKey) -> None:
        first = way_of(station, "webauthn-prf")["id"]
        blue.pull()
        account = ports.key("account", uv=True, synced=True)
        try:
            words = ("key", "add", "security-key", "--key-file", station.key)
            added = station.ok(*words)
            assert (added["synced"], added["warnings"]) == (True, [])
            # With the other one gone, only what goes with one account is left beside the paper.
            removed = station.ok("key", "remove", first, "--yes", "--key-file", station.key)
            assert removed["warnings"] == ["only-synced-passkeys"]
            assert ways(station, BY_KEY)["warnings"] == ["only-synced-passkeys"]
            told = station.run("key", "list", "--labels", BY_KEY, json=False)
            assert station.ok("unlock", BY_KEY)["warnings"] == ["only-synced-passkeys"]
            station.ok("lock")
        finally:
            account.pull()
            blue.plug()
        assert "passkey, synced" in told.out
        assert "chatkeep key add security-key" in " ".join(told.err.split())
        assert station.run("snapshots", BY_KEY).code == 3  # removed, it opens nothing

    def test_the_same_key_twice_is_refused(self, station: Station) -> None:
        before = stored(station)
        done = station.run("key", "add", "security-key", "--key-file", station.key)
        assert (done.code, done.error) == (1, "already-enrolled")
        assert stored(station) == before

    @pytest.mark.parametrize(
        ("lie", "error", "reason"),
        [
            ("OTHER_SECRET", "passkey-refused", "unstable"),
            ("NO_SECRET", "passkey-refused", "no-prf"),
            ("NOT_VERIFIED", "passkey-refused", "user-verification"),
        ],
    )
    def test_a_passkey_that_cannot_be_relied_on_leaves_nothing(
        self, station: Station, ports: Ports, blue: PluggedKey, lie: str, error: str, reason: str
    ) -> None:
        blue.pull()
        liar = ports.key(f"liar {lie}", uv=True)
        liar.lie(lie)
        before = stored(station)
        try:
            done = station.run("key", "add", "security-key", "--key-file", station.key)
            assert lie in liar.state["told"]
        finally:
            liar.pull()
            blue.plug()
        assert (done.error, done.json["error"]["params"]["reason"]) == (error, reason)
        assert "Delete it where it is kept." in done.err
        assert stored(station) == before

    def test_declined_it_leaves_nothing(self, station: Station, ports: Ports, blue: PluggedKey) -> None:
        blue.pull()
        other = ports.key("declining", uv=True)
        other.person(touch="deny")
        before = stored(station)
        try:
            done = station.run("key", "add", "security-key", "--key-file", station.key)
            assert touched(other) == 1
        finally:
            other.pull()
            blue.plug()
        assert (done.code, done.error) == (6, "ceremony-cancelled")
        assert "Delete it" not in done.err
        assert stored(station) == before

    def test_the_pin_is_typed_unseen(self, station: Station, ports: Ports, blue: PluggedKey) -> None:
        blue.pull()
        key = ports.key("with a PIN", pin="4711")
        pin = "PIN of the security key"
        try:
            argv = station.argv("key", "add", "security-key", "--key-file", station.key)
            code, shown = converse(argv, [(pin, "4712"), ("That PIN is wrong", "4711")], TERMINAL)
            assert code == 0, shown
            argv = station.argv("key", "list", "--labels", BY_KEY)
            code, listed = converse(argv, [(pin, "4711")], TERMINAL)
        finally:
            key.pull()
            blue.plug()
        assert "a passkey opens the vault now" in shown
        assert "471" not in shown + listed
        assert (code, listed.count("on one device")) == (0, 2), listed
        assert "Traceback" not in shown + listed

    def test_without_a_terminal_the_pin_cannot_be_asked_for(
        self, station: Station, ports: Ports, blue: PluggedKey
    ) -> None:
        blue.pull()
        key = ports.key("another PIN", pin="4711")
        try:
            done = station.run("key", "add", "security-key", "--key-file", station.key, start_new_session=True)
        finally:
            key.pull()
            blue.plug()
        assert (done.code, done.error) == (3, "no-terminal")


class TestTheKeysOfTheVault:
    def test_changed_without_any_gesture_of_the_others(self, station: Station, blue: PluggedKey) -> None:
        blue.pull()
        before = touched(blue)
        assert station.ok("key", "rotate", "--yes", "--key-file", station.key)["epoch"] == 2
        assert touched(blue) == before
        blue.plug()
        assert ways(station, BY_KEY)["warnings"] == []

    def test_the_last_recovery_key_stays(self, station: Station) -> None:
        paper = way_of(station, "recovery-64")["id"]
        before = stored(station)
        done = station.run("key", "remove", paper, "--yes", BY_KEY)
        assert (done.code, done.json["error"]["params"]["reason"]) == (2, "last-recovery-key")
        assert "key add recovery" in done.json["error"]["remedy"]
        assert stored(station) == before

    def test_a_damaged_one_counts_for_none(self, station: Station) -> None:
        """Nobody knows whether it opens: another must be there before it goes, and as long as it stays nothing changes.

        Its file lies there still, and is told (exit code 5).
        """
        paper = way_of(station, "recovery-64")["id"]
        for place in station.names:
            (station.storage(place) / "slots" / f"{paper}.json").write_bytes(b"damage")
        for words in (("key", "remove", paper), ("key", "rotate")):
            done = station.run(*words, "--yes", BY_KEY)
            assert done.error == "rotation-refused"
        found = ways(station, BY_KEY)
        assert found["warnings"] == ["few-ways"]
        assert {way["kind"] for way in found["ways"]} == {None, "webauthn-prf"}
        station.ok("key", "add", "recovery", "--recovery-key-file", station.room / "new.txt", BY_KEY)
        assert station.ok("key", "remove", paper, "--yes", BY_KEY)["warnings"] == []
        done = station.run("snapshots", "--key-file", station.room / "new.txt")
        assert (done.code, len(done.json["snapshots"])) == (5, 1)

    def test_a_lost_passkey_is_removed_and_forgotten(self, station: Station) -> None:
        lost = way_of(station, "webauthn-prf")["id"]
        ways(station, BY_KEY)
        assert (station.state / "used" / lost).exists()
        done = station.run("key", "remove", lost, "--yes", "--key-file", station.key, json=False)
        assert "There is only one way in" in done.err  # said before it is asked whether to
        assert "A removed passkey is still kept where it was made." in done.out
        assert not (station.state / "used" / lost).exists()
        done = station.run("snapshots", BY_KEY)
        assert (done.code, done.error) == (3, "slot-removed")


class TestInit:
    def fresh(self, tmp_path: Path) -> Station:
        room = tmp_path / "fresh"
        room.mkdir()
        return Station(room)

    def test_with_a_passkey(self, station: Station, tmp_path: Path, ports: Ports, blue: PluggedKey) -> None:
        fresh = self.fresh(tmp_path)
        before = touched(blue)
        made = fresh.ok("init", "--recovery-key-file", fresh.key, BY_KEY)
        assert touched(blue) == before + 3  # of another vault: the same key can have both
        assert [(slot["kind"], slot.get("synced")) for slot in made["slots"]] == [
            ("recovery-64", None),
            ("webauthn-prf", False),
        ]
        assert (made["passkey_error"], made["warnings"]) == (None, [])
        assert len(ways(fresh, BY_KEY)["ways"]) == 2
        assert len(ways(fresh)["ways"]) == 2
        assert len(ways(station, BY_KEY)["ways"]) == 2  # and the older one was not overwritten

    def test_the_vault_is_whole_when_the_passkey_is_not(
        self, station: Station, tmp_path: Path, blue: PluggedKey
    ) -> None:
        fresh = self.fresh(tmp_path)
        blue.person(touch="deny")
        before = touched(blue)
        done = fresh.run("init", "--recovery-key-file", fresh.key, BY_KEY)
        assert touched(blue) == before + 1
        assert done.code == 6
        assert done.json["passkey_error"]["code"] == "ceremony-cancelled"
        assert done.json["warnings"] == ["few-ways"]
        assert len(ways(fresh)["ways"]) == 1
        blue.person(touch="yes")
        fresh.ok("key", "add", "security-key", "--key-file", fresh.key)
        assert ways(fresh, BY_KEY)["warnings"] == []

    def test_offered_and_given_up_it_is_no_failure(self, tmp_path: Path) -> None:
        """Ctrl-C while the page waits: the person has written down a key, and that key opens the vault."""
        fresh = self.fresh(tmp_path)
        argv = fresh.argv("init", "--recovery-key-file", fresh.key)
        code, shown = converse(argv, [("Add one now?", ""), ("the page must show the same", "\x03")], TERMINAL)
        assert code == 0, shown
        assert "http://localhost:" in shown
        assert "Add a passphrase?" not in shown
        assert "There is no passkey yet. Cancelled.\n" in unstyle(shown)
        assert "The vault is made" in shown
        assert "chatkeep key add passkey" in shown
        assert [way["kind"] for way in ways(fresh)["ways"]] == ["recovery-64"]


class TestTheBrowserIsAskedFirst:
    def test_at_a_terminal_with_another_way_told(self, station: Station) -> None:
        over_ssh = TERMINAL | {"SSH_CONNECTION": "198.51.100.7 50000 203.0.113.5 22", "DISPLAY": ":0"}
        others = "Another way to unlock: --security-key, --recovery-key"
        code, shown = converse(station.argv("snapshots"), [(others, "\x03")], over_ssh)
        assert code == 6, shown
        assert "ssh -N -L " in shown
        assert "Cancelled. Nothing was changed." in shown

    def test_not_without_a_terminal(self, station: Station) -> None:
        done = station.run("snapshots")
        assert (done.code, done.error) == (3, "vault-locked")

    def test_asked_for_it_has_a_deadline(self, station: Station) -> None:
        done: Done = station.run("snapshots", "--passkey", "--passkey-timeout", "1")
        assert (done.code, done.error) == (3, "ceremony-timed-out")
        assert done.json["error"]["params"] == {"seconds": 1}
        assert "http://localhost:" in done.err
        assert "localhost" not in done.out
