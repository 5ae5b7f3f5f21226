"""From nothing to a vault that restores, with questions and without; a second time; broken off anywhere."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.control.client import Daemon
from tests.support.newcomer import WRITTEN, Newcomer, lines_of, states, typed_back
from tests.support.station import COMMAND, drop_powers, met, rows, until
from tests.support.terminal import Answer

STEPS = ["configuration", "vault", "snapshot"]
MANAGER = """case "$*" in
  *is-active*) [ -e "$HOME/active" ];;
  *is-enabled*) [ -e "$HOME/enabled" ];;
  *enable*) touch "$HOME/enabled";;
  *restart*) touch "$HOME/active";;
esac"""


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    return Newcomer(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def outcome(done: Any) -> list[str]:
    """What became of the steps but the service."""
    return [states(done)[step] for step in STEPS]


def questions(newcomer: Newcomer) -> list[tuple[str, Answer]]:
    """The whole way, with one application found."""
    return [
        ("all, or none", "1"),
        ("Enter to go on", ""),
        ("Directory", str(newcomer.store)),
        ("Use it all the same?", "y"),
        ("Go on?", ""),
        ("Add one now?", "n"),
        ("Add a passphrase?", "n"),
        *typed_back(),
    ]


def test_at_a_terminal_from_nothing_to_a_vault_that_restores(newcomer: Newcomer) -> None:
    newcomer.signal()
    own = newcomer.home / "my chats"
    own.mkdir()
    (own / "letter.txt").write_text("dear")
    talk: list[tuple[str, Answer]] = [
        ("all, or none", "7"),  # there is no such number
        ("all, or none", "all"),
        ("Enter to go on", "~/nowhere"),
        ("Enter to go on", "~/my chats"),
        ("Enter to go on", ""),
        ("Directory", str(newcomer.disk / "not/there")),
        ("Directory", str(own / "vault")),  # would back itself up
        *questions(newcomer)[2:],
    ]
    code, shown = newcomer.at_terminal(talk)
    assert code == 0, shown
    assert "Signal Desktop" in shown
    assert "system's keyring" in shown  # what has to be kept besides
    assert "there is no such directory" in shown
    assert f"There is no directory {newcomer.disk / 'not'} to make it in." in shown
    assert "Everything is set up." in shown
    # There is no service manager of this user here, and that is no reason to fail.
    assert "there is no systemd of this user" in shown
    assert "chatkeep run" in shown[shown.index("What to do next") :]
    assert "chatkeep key add passkey" in shown[shown.index("What to do next") :]  # there is only a paper
    before_key = shown[: shown.index("Your recovery key")]
    assert newcomer.config.read_text().splitlines()[-1].strip() in before_key  # it was shown before it was written
    assert (mode(newcomer.config), mode(newcomer.config.parent)) == (0o600, 0o700)

    newcomer.key.touch(mode=0o600)
    newcomer.key.write_text("\n".join(lines_of(shown)))
    back = newcomer.restore("Signal", "signal")
    assert len(rows(back / "sql/db.sqlite")) == 200
    assert (back / "config.json").exists()
    assert not (back / "Cache").exists()
    assert (newcomer.restore("my chats", "own") / "letter.txt").read_text() == "dear"


def test_what_is_shown_fits_a_terminal(newcomer: Newcomer) -> None:
    """But for paths, which are as long as they are."""
    newcomer.signal()
    _, shown = newcomer.at_terminal([*questions(newcomer)[:4], ("Go on?", "n")])
    wide = [line for line in shown.splitlines() if len(line) > 80 and str(newcomer.room) not in line]
    assert wide == []


def test_by_options_alone_and_a_second_time(newcomer: Newcomer) -> None:
    newcomer.signal()
    done = newcomer.set_up()
    assert states(done) == {**dict.fromkeys(STEPS, "done"), "service": "impossible"}
    assert [one["application"] for one in done["found"]] == ["Signal"]
    assert done["found"][0]["kept"]
    assert done["init"]["recovery_key_file"] == str(newcomer.key)
    assert done["backup"]["sources"][0]["snapshots"] == 1
    assert (done["error"], done["dry_run"]) == (None, False)
    assert mode(newcomer.config) == 0o600
    assert len(rows(newcomer.restore("Signal", "out") / "sql/db.sqlite")) == 200

    text, objects = newcomer.config.read_bytes(), newcomer.everything()
    again = newcomer.ok("setup")
    assert states(again) == {**dict.fromkeys(STEPS, "already"), "service": "impossible"}
    assert (again["init"], again["backup"], again["configuration"]["text"]) == (None, None, None)
    assert newcomer.config.read_bytes() == text
    assert {path for path in newcomer.everything() if path.startswith("disk/")} == {
        path for path in objects if path.startswith("disk/")
    }
    # The same options again ask for nothing else than what is there.
    assert states(newcomer.set_up()) == states(again)


def test_a_plan_changes_nothing(newcomer: Newcomer) -> None:
    newcomer.signal()
    before = newcomer.everything()
    words = ("setup", "--all-found", "--store", newcomer.store, "--dry-run")
    done = newcomer.ok(*words)
    assert outcome(done) == ["to-do"] * 3
    assert "~/.config/Signal" in done["configuration"]["text"]
    said = newcomer.run(*words, json=False)
    assert "What will be done" in said.out
    assert newcomer.everything() == before


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--all-found",),
        ("--all-found", "--store", "{disk}/vault"),  # nobody to show the recovery key to
        ("--source", "{home}/nowhere", "--store", "{disk}/vault", "--recovery-key-file", "{disk}/key"),
        ("--all-found", "--store", "{disk}/vault", "--recovery-key-file", "{disk}/no/key"),
        ("--remove-unit", "--store", "{disk}/vault"),
        ("--no-passkey", "--security-key"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_written(newcomer: Newcomer, words: tuple[str, ...]) -> None:
    newcomer.signal()
    before = newcomer.everything()
    done = newcomer.run("setup", *(word.format(home=newcomer.home, disk=newcomer.disk) for word in words))
    assert (done.code, done.error) == (2, "usage")
    assert newcomer.everything() == before


def test_nothing_found_and_nothing_named(newcomer: Newcomer) -> None:
    done = newcomer.run("setup", "--all-found", "--store", newcomer.store, "--recovery-key-file", newcomer.key)
    assert (done.code, done.error) == (2, "nothing-to-keep")
    assert not newcomer.config.exists()


@pytest.mark.parametrize("store", ["{home}/.config/Signal/vault", "{disk}/not/there"])
def test_a_store_that_cannot_be_is_refused_before_anything_is_written(newcomer: Newcomer, store: str) -> None:
    newcomer.signal()
    where = store.format(home=newcomer.home, disk=newcomer.disk)
    done = newcomer.run("setup", "--all-found", "--store", where, "--recovery-key-file", newcomer.key)
    assert (done.code, done.error) == (2, "usage")
    assert "chatkeep.yaml" not in done.json["error"]["text"], "a line of a file that is not there"
    assert not newcomer.config.exists()


def test_a_configuration_is_not_replaced_without_being_told(newcomer: Newcomer) -> None:
    newcomer.signal()
    newcomer.set_up("--no-backup")
    text = newcomer.config.read_bytes()
    other = newcomer.disk / "other"
    done = newcomer.run("setup", "--store", other)
    assert (done.code, done.error) == (2, "config-differs")
    assert str(other) in done.json["error"]["text"]
    assert newcomer.config.read_bytes() == text

    newcomer.config.write_text("nonsense: [")
    assert newcomer.run("setup").error == "config-invalid"
    again = newcomer.set_up("--replace-config", "--no-backup")
    assert states(again)["configuration"] == "done"
    assert states(again)["vault"] == "already"
    assert newcomer.config.read_bytes() == text
    old = Path(again["old_configuration"])
    assert (old.read_text(), mode(old), old.parent) == ("nonsense: [", 0o600, newcomer.config.parent)


def test_a_configuration_kept_elsewhere_by_a_link_is_written_there(newcomer: Newcomer) -> None:
    newcomer.signal()
    dotfiles = newcomer.home / "dotfiles/chatkeep.yaml"
    dotfiles.parent.mkdir()
    dotfiles.write_text("old")
    newcomer.config.parent.mkdir(mode=0o700)
    newcomer.config.symlink_to(dotfiles)
    newcomer.set_up("--replace-config", "--no-backup")
    assert newcomer.config.is_symlink()
    assert "Signal" in dotfiles.read_text()


def test_a_configuration_that_cannot_be_written(newcomer: Newcomer) -> None:
    newcomer.signal()
    (newcomer.home / ".config").chmod(0o500)
    words = ("setup", "--all-found", "--store", newcomer.store, "--recovery-key-file", newcomer.key)
    done = newcomer.run(*words, preexec_fn=drop_powers)
    assert (done.code, done.json["error"]["code"]) == (1, "file-refused")
    assert outcome(done.json) == ["failed", "to-do", "to-do"]
    assert not newcomer.key.exists()
    (newcomer.home / ".config").chmod(0o700)
    newcomer.config.mkdir(parents=True)  # something else of that name
    done = newcomer.run(*words, "--replace-config")
    assert (done.code, done.json["error"]["code"]) == (1, "file-refused")
    assert not newcomer.key.exists()


def test_what_cannot_be_read_is_told_and_stops_nothing(newcomer: Newcomer) -> None:
    (newcomer.signal() / "Cookies").touch(mode=0o000)
    words = ("setup", "--all-found", "--store", newcomer.store, "--recovery-key-file", newcomer.key)
    done = newcomer.run(*words, json=False, preexec_fn=drop_powers)
    assert done.code == 1
    assert "Cookies cannot be read" in done.err
    assert "Everything is set up, but for what is told above." in done.out


def test_a_source_that_is_gone_is_no_snapshot_and_no_service(newcomer: Newcomer) -> None:
    moved = newcomer.signal()
    newcomer.set_up("--no-backup")
    moved.rename(newcomer.home / "elsewhere")
    done = newcomer.run("setup")
    assert (done.code, done.json["error"]["code"]) == (1, "source-missing")
    assert outcome(done.json) == ["already", "already", "failed"]
    (newcomer.home / "elsewhere").rename(moved)
    assert outcome(newcomer.ok("setup")) == ["already", "already", "done"]


def test_what_came_since_is_told(newcomer: Newcomer) -> None:
    newcomer.signal()
    newcomer.set_up("--no-backup")
    telegram = newcomer.home / ".local/share/TelegramDesktop/tdata"
    telegram.mkdir(parents=True)
    (telegram / "key_datas").touch()
    said = newcomer.run("setup", "--no-backup", json=False)
    assert said.code == 0
    assert "Found, and not kept:" in said.out
    assert "~/.local/share/TelegramDesktop" in said.out


def test_directories_named_by_hand(newcomer: Newcomer) -> None:
    moved = newcomer.signal().rename(newcomer.home / "elsewhere")
    plain = newcomer.home / "-odd name"
    plain.mkdir()
    newcomer.ok(
        "setup", "--source", moved, "--source", plain, "--store", newcomer.store, "--recovery-key-file", newcomer.key
    )
    assert [one["name"] for one in newcomer.ok("config", "check")["sources"]] == ["Signal", "source"]
    assert not (newcomer.restore("Signal", "out") / "Cache").exists()


def test_where_another_machine_writes_already(newcomer: Newcomer, tmp_path: Path) -> None:
    """The configuration is written all the same: joining needs it, and setup goes on behind it."""
    (tmp_path / "first").mkdir()
    first = Newcomer(tmp_path / "first")
    first.signal()
    first.set_up()
    newcomer.signal()
    newcomer.disk.rmdir()
    newcomer.disk.symlink_to(first.disk)
    done = newcomer.run(
        "setup", "--all-found", "--store", newcomer.store, "--recovery-key-file", newcomer.room / "second"
    )
    assert done.code == 1
    assert (done.json["error"]["code"], "chatkeep join" in done.json["error"]["remedy"]) == ("vault-exists", True)
    assert outcome(done.json) == ["done", "failed", "to-do"]
    assert not (newcomer.room / "second").exists()

    newcomer.ok("join", "--key-file", first.key)
    assert outcome(newcomer.ok("setup")) == ["already", "already", "done"]


@pytest.mark.parametrize("at", range(5))
def test_given_up_at_a_question_nothing_is_there(newcomer: Newcomer, at: int) -> None:
    newcomer.signal()
    before = newcomer.everything()
    talk = questions(newcomer)
    code, shown = newcomer.at_terminal([*talk[:at], (talk[at][0], "\x03")])
    assert (code, "Cancelled" in shown) == (6, True)
    assert newcomer.everything() == before


@pytest.mark.parametrize("at", ["Add one now?", WRITTEN, "line 3:"])
def test_given_up_over_the_key_it_is_told_what_stands(newcomer: Newcomer, at: str) -> None:
    newcomer.signal()
    talk = questions(newcomer)
    until = [question for question, _ in talk].index(at)
    code, shown = newcomer.at_terminal([*talk[:until], (at, "\x03")])
    assert code == 6
    told = shown[shown.index("Setup is not finished.") :]
    assert "written to" in told
    assert "interrupted" in told
    assert "still to be done" in told
    assert "No vault was made" in told
    assert not (newcomer.state / "chatkeep-writer").exists()
    # And it goes on from there.
    again = newcomer.ok("setup", "--recovery-key-file", newcomer.key)
    assert outcome(again) == ["already", "done", "done"]


def test_interrupted_over_the_first_snapshot(newcomer: Newcomer) -> None:
    newcomer.signal()
    big = newcomer.home / ".config/Signal/attachments.noindex"
    big.mkdir()
    for number in range(12):
        (big / str(number)).write_bytes(os.urandom(8 << 20))
    newcomer.set_up("--no-backup")
    process = met(lambda: newcomer.start("setup"), lambda: list((newcomer.state / "outbox").rglob("*")))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 6, out
    assert '"snapshot", "state": "cancelled"' in out
    assert outcome(newcomer.ok("setup")) == ["already", "already", "done"]
    assert (newcomer.restore("Signal", "out") / "attachments.noindex/11").stat().st_size == 8 << 20


def test_of_a_first_snapshot_that_is_not_whole_the_rest_is_taken(newcomer: Newcomer) -> None:
    newcomer.signal()
    newcomer.set_up()
    assert outcome(newcomer.ok("setup")) == ["already", "already", "already"]
    with contextlib.closing(sqlite3.connect(newcomer.state / "state.db")) as records, records:
        # As Ctrl-C leaves it in the middle of many gigabytes: what was captured until then is a snapshot.
        assert records.execute("UPDATE snapshots SET complete=0").rowcount == 1
    assert outcome(newcomer.ok("setup")) == ["already", "already", "done"]


def test_the_service_comes_last_and_is_left_alone_afterwards(newcomer: Newcomer) -> None:
    """With a program in place of systemctl; with a real one: tests/systemd."""
    newcomer.signal()
    calls = newcomer.fake("systemctl", MANAGER)
    newcomer.fake("loginctl", "echo no")
    done = newcomer.set_up()
    assert states(done) == dict.fromkeys([*STEPS, "service"], "done")
    assert done["service"] == {"unit": str(newcomer.unit), "lingers": False}
    assert done["next"][0]["command"] == "chatkeep unlock"
    assert f"ExecStart={COMMAND[0]} -m chatkeep.daemon.cli.main run\n" in newcomer.unit.read_text()
    assert calls.read_text().splitlines()[-3:] == [
        "--user daemon-reload",
        "--user enable chatkeep.service",
        "--user restart chatkeep.service",
    ]
    before = newcomer.unit.stat()
    assert states(newcomer.ok("setup")) == dict.fromkeys([*STEPS, "service"], "already")
    assert newcomer.unit.stat().st_mtime_ns == before.st_mtime_ns
    assert "restart" not in calls.read_text().splitlines()[-1]

    assert newcomer.ok("setup", "--remove-unit") == {"unit": str(newcomer.unit), "removed": True, "dry_run": False}
    assert not newcomer.unit.exists()
    assert states(newcomer.ok("setup", "--no-unit"))["service"] == "left-out"


def test_while_the_daemon_runs_it_takes_the_snapshot(newcomer: Newcomer) -> None:
    """It holds the records, and what it was begun with is not what it is to go on with."""
    newcomer.signal()
    newcomer.set_up()
    own = newcomer.home / "letters"
    own.mkdir()
    (own / "one").write_text("dear")
    daemon = newcomer.start("run", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: Daemon.find(newcomer.state, newcomer.runtime / "chatkeep"), daemon)
        words = ("setup", "--replace-config", "--source", own, "--all-found", "--store", newcomer.store)
        done = newcomer.run(*words)
        assert done.code == 3  # the snapshot is taken, and waits for an unlock
        assert outcome(done.json) == ["done", "already", "done"]
        assert [(one["name"], one["last_seq"]) for one in done.json["backup"]["sources"]] == [
            ("Signal", 1),
            ("letters", 1),
        ]
        assert done.json["next"][0]["command"] == "chatkeep unlock"
        assert daemon.poll() is None
    finally:
        daemon.terminate()
        daemon.wait(60)


def test_a_service_that_was_asked_for_and_cannot_be_is_a_failure(newcomer: Newcomer) -> None:
    newcomer.signal()
    newcomer.set_up("--no-backup")
    done = newcomer.run("setup", "--no-backup", "--unit")
    assert (done.code, states(done.json)["service"]) == (1, "impossible")


@pytest.mark.parametrize(("answer", "lingers"), [("y", True), ("", False)])
def test_at_a_terminal_it_is_asked_whether_to_run_while_logged_out(
    newcomer: Newcomer, answer: str, lingers: bool
) -> None:
    newcomer.signal()
    newcomer.set_up("--no-unit")
    newcomer.fake("systemctl", MANAGER)
    calls = newcomer.fake("loginctl", "echo no")
    code, shown = newcomer.at_terminal([("Go on?", ""), ("with nobody logged in?", answer)])
    assert code == 0, shown
    assert "runs, and starts at every login" in shown
    assert ("enable-linger" in calls.read_text()) == lingers
