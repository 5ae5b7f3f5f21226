"""A session with the real command: one unlock, many commands without a secret, and its end in the middle of things."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from chatkeep.daemon.service.asking import Session
from chatkeep.daemon.service.device import CREDENTIAL
from chatkeep.daemon.service.places import Place, socket_name
from chatkeep.daemon.service.wire import FRAME, OPEN
from tests.support.nobody import NOBODY
from tests.support.sessions import end_all, ended
from tests.support.station import COMMAND, DEADLINE, Done, Station, copied, fill, rows
from tests.unit.cli.test_main import HEAVY

POLICY = "retention: {everything_for: 0 days, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0, minimum: 1}\n"


@pytest.fixture(scope="session")
def spoken(made: Station, tmp_path_factory: pytest.TempPathFactory) -> Station:
    """A station with two snapshots."""
    station = copied(made, tmp_path_factory.mktemp("spoken") / "room")
    fill(station.source / "chat.db", 50)
    (station.source / "note.txt").write_text("a note")
    station.backup()
    fill(station.source / "chat.db", 30)
    station.backup()
    return station


@pytest.fixture
def open_station(spoken: Station, tmp_path: Path) -> Iterator[Station]:
    """A station with two snapshots, whose vault is unlocked."""
    station = copied(spoken, tmp_path / "room")
    done = station.ok("unlock", "--key-file", station.key)
    assert done["began"]
    yield station
    end_all(sockets(station))


def sockets(station: Station) -> Path:
    return station.runtime / "chatkeep"


def vault_of(station: Station) -> bytes:
    return (station.state / CREDENTIAL).read_bytes()[8:24]  # docs/format.md, section 8


def session_of(station: Station) -> Session:
    found = Session.find(vault_of(station), sockets(station))
    assert found is not None
    return found


def test_no_command_that_reads_asks_for_anything(open_station: Station) -> None:
    station = open_station
    assert [one["seq"] for one in station.ok("snapshots")["snapshots"]] == [2, 1]
    assert {one["path"] for one in station.ok("ls", "latest")["entries"]} == {"chat.db", "note.txt"}
    assert station.run("cat", "latest", "note.txt", json=False).out == "a note"
    out = station.room / "out"
    station.ok("restore", "latest", "--target", out)
    assert rows(out / "chat.db") == rows(station.source / "chat.db")
    assert station.ok("verify", "--deep")["deep"]
    station.config.write_text(station.config.read_text() + POLICY)
    pruned = station.ok("prune", "--yes")
    assert (pruned["kept"], pruned["going"], pruned["checkpoint"]) == (1, 1, 1)
    assert station.ok("key", "list", "--labels")["ways"][0]["label"]
    assert len(station.ok("device", "list")["devices"]) == 1
    with session_of(station) as session:
        assert session.about.opened > 5
        assert session.about.signed == 1
    # Another reader, with the recovery key: what the session signed counts.
    assert [one["seq"] for one in station.ok("snapshots", "--key-file", station.key)["snapshots"]] == [2]
    assert station.ok("verify", "--deep", "--key-file", station.key)


def test_it_is_shown_and_locked(open_station: Station) -> None:
    station = open_station
    shown = station.ok("status")["session"]
    assert (shown["kind"], shown["label"], shown["epoch"]) == ("recovery-64", "recovery key", 1)
    assert {"no-core", "not-dumpable", "keys-locked"} <= set(shown["hardened"])
    text = station.run("status", json=False).out
    assert "session  unlocked since " in text
    with session_of(station) as session, ended(session.pid):
        assert station.ok("lock")["locked"] == [vault_of(station).hex()]
    assert station.ok("status")["session"] is None
    assert "session  locked: chatkeep unlock" in station.run("status", json=False).out
    for words in (["verify", "--deep"], ["prune"], ["restore", "1", "--target", "x"]):
        done = station.run(*words)
        assert (done.code, done.error) == (3, "vault-locked"), words
    assert station.ok("lock")["locked"] == []
    assert "there was no session" in station.run("lock", json=False).out


def test_looking_at_it_is_light(open_station: Station) -> None:
    """`status` asks the session, and is quick all the same: what takes time to import stays out of it."""
    words = open_station.argv("status")[len(COMMAND) :]
    script = f"""
import sys
from chatkeep.daemon.cli.main import main
code = main({words!r})
print(code, *sorted({HEAVY - {"sqlite3"}!r} & {{name.split(".")[0] for name in sys.modules}}))
"""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(open_station.runtime)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "unlocked since" in done.stdout
    assert done.stdout.splitlines()[-1] == "0"


def test_unlocked_already_it_asks_nothing(open_station: Station) -> None:
    station = open_station
    before = station.ok("status")["session"]
    done = station.ok("unlock")
    assert not done["began"]
    assert (done["session"]["since"], done["session"]["slot"]) == (before["since"], before["slot"])
    with session_of(station) as session, ended(session.pid):
        again = station.ok("unlock", "--again", "--key-file", station.key)
    assert again["began"]
    assert again["session"]["since"] > before["since"]
    assert station.run("unlock", "--again").error == "vault-locked"
    assert station.ok("snapshots"), "an unlock that failed changes nothing"


def test_a_wrong_secret_begins_nothing(station: Station) -> None:
    station.key.write_text(station.key.read_text().replace("1", "2"))
    done = station.run("unlock", "--key-file", station.key)
    assert done.code == 3
    assert station.ok("status")["session"] is None
    assert not sockets(station).exists()


def test_a_secret_that_is_named_is_used_and_not_the_session(open_station: Station) -> None:
    station = open_station
    wrong = station.room / "wrong.txt"
    wrong.write_text("not a key\n")
    assert station.run("snapshots", "--key-file", wrong).code != 0
    assert station.ok("snapshots")


def test_commands_that_change_keys_ask_all_the_same(open_station: Station) -> None:
    for words in (["key", "rotate", "--yes"], ["key", "add", "recovery", "--recovery-key-file", "new"]):
        done = open_station.run(*words)
        assert (done.code, done.error) == (3, "vault-locked"), words


def test_without_a_configuration_by_the_storage_alone(open_station: Station) -> None:
    station = open_station
    storage = station.storage()
    station.config.unlink()
    assert len(station.ok("snapshots", "--from", storage)["snapshots"]) == 2
    out = station.room / "out"
    station.ok("restore", "latest", "--from", storage, "--target", out)
    assert rows(out / "chat.db") == rows(station.source / "chat.db")
    assert station.ok("lock", "--from", storage)["locked"]
    assert station.run("snapshots", "--from", storage).error == "vault-locked"
    assert station.ok("unlock", "--from", storage, "--key-file", station.key)["began"]
    assert len(station.ok("snapshots", "--from", storage)["snapshots"]) == 2
    assert station.ok("lock")["locked"], "which vault is meant nobody can say: all of them"


def test_without_a_configuration_by_a_file_that_names_the_storage(open_station: Station) -> None:
    station = open_station
    named = station.room / "storage.yaml"
    named.write_text(f"providers:\n  - {{name: disk, type: folder, path: {station.storage()}}}\n")
    whole = station.config.rename(station.room / "of-the-lost-machine.yaml")
    for file, out in ((named, "one"), (whole, "two")):
        assert len(station.ok("snapshots", "--from", file)["snapshots"]) == 2
        station.ok("restore", "latest", "--from", file, "--target", station.room / out)
        assert rows(station.room / out / "chat.db") == rows(station.source / "chat.db")
    named.write_text("providers:\n  - {name: disk, type: foldr, path: /x}\n")
    assert station.run("snapshots", "--from", named).error == "config-invalid"
    named.unlink()
    assert station.run("snapshots", "--from", named).error == "config-missing"
    assert station.ok("lock", "--from", whole)["locked"]


def test_the_session_of_one_vault_opens_no_other(open_station: Station, tmp_path: Path) -> None:
    room = tmp_path / "other"
    room.mkdir()
    other = Station(room)
    other.init()
    other.runtime = open_station.runtime
    assert other.run("snapshots").error == "vault-locked"
    assert other.ok("lock")["locked"] == []
    os.link(sockets(other) / socket_name(vault_of(open_station)), sockets(other) / socket_name(vault_of(other)))
    done = other.run("snapshots")
    assert (done.code, done.error) == (1, "socket-refused")
    assert "another vault" in done.json["error"]["text"]
    assert other.ok("lock")["locked"] == [vault_of(other).hex()]


class Between:
    """Stands between a command and the session, and ends the session when so many openings were asked for."""

    def __init__(self, station: Station, runtime: Path, most: int | None = None) -> None:
        self.asked = 0
        self.killed = False
        self._most = most
        self._session = session_of(station)
        directory = runtime / "chatkeep"
        directory.mkdir(parents=True, mode=0o700)
        self._listener = socket.socket(socket.AF_UNIX)
        with Place.open(directory) as place:  # type: ignore[union-attr]
            self._listener.bind(place.reach(socket_name(vault_of(station))))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._pass_on, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        self._listener.close()
        self._session.close()

    def _pass_on(self) -> None:
        connection, _ = self._listener.accept()
        upstream = self._session._connection
        assert upstream is not None
        with connection:
            while head := connection.recv(FRAME.size, socket.MSG_WAITALL):
                what, size = FRAME.unpack(head)
                body = connection.recv(size, socket.MSG_WAITALL) if size else b""
                if what == OPEN:
                    self.asked += 1
                    if self.asked == self._most:
                        os.kill(self._session.pid, signal.SIGKILL)
                        self.killed = True
                        return  # as the kernel closes what a killed process had
                upstream.sendall(head + body)
                answer = upstream.recv(FRAME.size, socket.MSG_WAITALL)
                size = FRAME.unpack(answer)[1]
                connection.sendall(answer + (upstream.recv(size, socket.MSG_WAITALL) if size else b""))


def between(station: Station, words: tuple[object, ...], name: str, most: int | None = None) -> tuple[Done, Between]:
    """Runs a command by the session, which ends when so many openings were asked for."""
    elsewhere = station.room / f"runtime-{name}"
    with Between(station, elsewhere, most) as stands:
        here, station.runtime = station.runtime, elsewhere
        try:
            return station.run(*words), stands
        finally:
            station.runtime = here


@pytest.mark.parametrize("words", [("device", "list"), ("key", "list", "--labels"), ("drill",), ("prune", "--yes")])
def test_the_session_ends_in_the_middle_of_anything(
    spoken: Station, open_station: Station, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """What could not be opened any more does not look as if it were not there, or had failed."""
    station, twin = open_station, copied(spoken, tmp_path / "twin")
    before = station.objects()
    for one in (station, twin):
        one.config.write_text(one.config.read_text() + POLICY)
    twin.ok("unlock", "--key-file", twin.key)
    done, whole = between(twin, words, "whole")
    assert (done.code, whole.killed) == (0, False), done
    assert twin.ok("lock")["locked"]
    done, stands = between(station, words, "ended", whole.asked)
    assert stands.killed
    assert (done.code, done.error) == (3, "vault-locked"), done
    assert station.objects() == before
    assert "drill    never" in station.run("status", json=False).out
    station.ok(*words, "--key-file", station.key)


def test_the_session_ends_in_the_middle_of_a_restore(open_station: Station) -> None:
    """Killed at the first and at the last opening: the command says that it is locked, and nothing looks restored."""
    station = open_station

    def restore(name: str, most: int | None = None) -> tuple[Done, Between, Path]:
        target = station.room / f"out-{name}"
        return *between(station, ("restore", "latest", "--target", target), name, most), target

    done, whole, target = restore("whole")
    assert (done.code, whole.killed) == (0, False), done
    assert rows(target / "chat.db") == rows(station.source / "chat.db")
    assert whole.asked > 2
    for name, most in (("first", 1), ("last", whole.asked)):
        station.ok("unlock", "--again", "--key-file", station.key)
        done, stands, target = restore(name, most)
        assert stands.killed
        assert (done.code, done.error) == (3, "vault-locked")
        assert "The session ended" in done.json["error"]["text"]
        assert not target.exists() or os.listdir(target) == [], "nothing half done"
        left = [path for path in station.room.glob(".chatkeep-restore-*") if any((path / "tree").iterdir())]
        assert [done.json["error"]["params"].get("staging")] == [str(path) for path in left] or not left
        assert all(str(path) in done.json["error"]["text"] for path in left), "where the plain files are is told"


def test_a_restore_over_a_source_that_the_session_cuts_short_is_not_backed_up(open_station: Station) -> None:
    """Whatever of it lies there goes when it is run again; the source is as it was until then."""
    station = open_station
    (station.source / "media.bin").write_bytes(os.urandom(3_000_000))
    station.backup()
    station.ok("snapshots")  # what the backup sealed is proven once, and not while it is counted
    (station.source / "note.txt").write_text("newer")
    words = ("restore", "1", "--target", station.source, "--overwrite")
    done, whole = between(station, words, "whole")
    assert done.code == 0, done
    (station.source / "note.txt").write_text("newest")
    fill(station.source / "chat.db", 10)
    done, stands = between(station, words, "ended", whole.asked)
    assert (stands.killed, done.code, done.error) == (True, 3, "vault-locked")
    assert list(station.source.glob(".chatkeep-restore-*/tree/*")), "it was cut short before anything was written"
    assert (station.source / "note.txt").read_text() == "newest"
    station.backup()
    own = ("--key-file", station.key)
    shown = {one["path"] for one in station.ok("ls", "latest", *own)["entries"]}
    assert not [path for path in shown if "/tree" in path or "/parts" in path]
    station.ok(*words, *own)
    assert (station.source / "note.txt").read_text() == "a note"
    assert not list(station.source.glob(".chatkeep-restore-*"))


def test_new_keys_end_the_session(open_station: Station) -> None:
    station = open_station
    with session_of(station) as session, ended(session.pid):
        done = station.run("key", "rotate", "--yes", "--key-file", station.key)
    assert done.code == 0
    assert "was ended" in done.err
    assert station.ok("status")["session"] is None
    assert station.run("snapshots").error == "vault-locked"
    assert station.ok("unlock", "--key-file", station.key)["session"]["epoch"] == 2
    assert len(station.ok("snapshots")["snapshots"]) == 2


def test_keys_that_were_changed_elsewhere(open_station: Station) -> None:
    """By a machine with a runtime directory of its own, as another machine has."""
    station = open_station
    here, station.runtime = station.runtime, station.room / "elsewhere"
    station.runtime.mkdir(mode=0o700)
    station.ok("key", "rotate", "--yes", "--key-file", station.key)
    station.runtime = here
    done = station.run("snapshots")
    assert (done.code, done.error) == (3, "session-outdated")
    assert "chatkeep unlock --again" in done.json["error"]["remedy"]
    assert "--again" in station.run("status", json=False).out
    assert station.ok("unlock", "--key-file", station.key)["began"], "the one that there is opens nothing new"
    assert len(station.ok("snapshots")["snapshots"]) == 2


def test_after_a_logout_the_vault_is_locked(open_station: Station) -> None:
    station = open_station
    with session_of(station) as session, ended(session.pid):
        shutil.rmtree(station.runtime)
    station.runtime.mkdir(mode=0o700)
    assert station.run("snapshots").error == "vault-locked"


def test_it_lasts_as_long_as_the_configuration_says(station: Station) -> None:
    station.config.write_text(station.config.read_text() + "session: {lock_after: 90 minutes}\n")
    shown = station.ok("unlock", "--key-file", station.key)["session"]
    try:
        with session_of(station) as session:
            facts = session.about.facts
        began, ends = (dt.datetime.fromisoformat(shown[key]) for key in ("since", "until"))
        assert abs((ends - began).total_seconds() - 5400) < 5
        assert facts.until > 0
    finally:
        assert station.ok("lock")["locked"]


@pytest.mark.parametrize("what", ["mode", "symlink", "owner"])
def test_a_directory_that_is_not_ours_alone_is_refused(station: Station, what: str) -> None:
    directory = sockets(station)
    if what == "symlink":
        (station.room / "real").mkdir(mode=0o700)
        directory.symlink_to(station.room / "real")
    else:
        directory.mkdir(mode=0o700)
    if what == "mode":
        directory.chmod(0o755)
    if what == "owner" and os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
    elif what == "owner":
        what = "mode"  # who is not root gives nothing away
        directory.chmod(0o711)
    for words in (["unlock", "--key-file", station.key], ["snapshots"], ["lock"]):
        done = station.run(*words)
        assert (done.code, done.error) == (1, "socket-refused"), words
        assert done.json["error"]["params"] == {"path": str(directory), "reason": what}
    problem = station.ok("status")["problems"]
    assert [one["about"] for one in problem if one["about"] == "session"]
    assert station.ok("snapshots", "--key-file", station.key), "a secret does without a session"


def test_its_files_are_for_this_user_alone(open_station: Station) -> None:
    directory = sockets(open_station)
    modes = {name: stat.S_IMODE((directory / name).lstat().st_mode) for name in os.listdir(directory)}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}
