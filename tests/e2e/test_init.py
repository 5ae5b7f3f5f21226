"""Setting up: the recovery key shown once and typed back, or in a file; twice; where something is in the way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.station import Station, drop_powers, fill, rows
from tests.support.terminal import Answer, converse

TERMINAL = {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
WRITTEN = "Press Enter when they are written down"


@pytest.fixture
def fresh(tmp_path: Path) -> Station:
    """A station where nothing was set up yet."""
    room = tmp_path / "room"
    room.mkdir()
    return Station(room)


def lines_of(shown: str) -> list[str]:
    """The recovery key as it was shown last."""
    found = re.findall(r"^ +[1-8]   (\d{4} \d{4})\r?$", shown, re.MULTILINE)
    assert len(found) % 8 == 0, shown
    return found[-8:]


def line(number: int) -> tuple[str, Answer]:
    return f"line {number}:", lambda shown: lines_of(shown)[number - 1]


def by_hand(station: Station, *words: object) -> list[str]:
    return station.argv("init", *words)


def test_at_a_terminal_the_key_is_shown_and_typed_back(fresh: Station) -> None:
    talk: list[tuple[str, Answer]] = [
        ("Add one now?", "n"),
        ("Add a passphrase?", "n"),
        (WRITTEN, ""),
        ("line 1:", "1234 5678"),  # a slip
        line(1),
        ("line 2:", "show"),
        (WRITTEN, ""),
        ("line 2:", lambda shown: lines_of(shown)[0]),  # another line
        *(line(number) for number in range(2, 9)),
    ]
    code, shown = converse(by_hand(fresh), talk, TERMINAL)
    assert code == 0
    assert shown.count("There is a slip in this line, or it is another line's place.") == 2
    assert "every way into it was tried" in shown
    assert "only one way in" in shown
    # All of it happened on the second screen, which was emptied before it was left.
    assert shown.index("[?1049h") < shown.index("Your recovery key")
    after = shown[shown.index("[?1049l") :]
    key = lines_of(shown)
    assert not any(part in after for part in key)

    fill(fresh.source / "messages.db")
    fresh.backup()
    fresh.key.touch(mode=0o600)
    fresh.key.write_text("\n".join(key))
    assert len(rows(fresh.restore("latest", "out") / "messages.db")) == 200


def test_the_key_is_in_no_output_of_a_program(fresh: Station) -> None:
    """With --json the result goes to standard output; here both are the terminal, so only the end of it counts."""
    talk: list[tuple[str, Answer]] = [(WRITTEN, ""), *(line(number) for number in range(1, 9))]
    code, shown = converse([*by_hand(fresh, "--no-passphrase"), "--json"], talk, TERMINAL)
    assert code == 0
    result = json.loads(shown[shown.index("[?1049l") + len("[?1049l") :].strip())
    assert result["recovery_key_file"] is None
    assert not any(part.replace(" ", "") in json.dumps(result).replace(" ", "") for part in lines_of(shown))


@pytest.mark.parametrize("at", ["Add one now?", "Add a passphrase?", WRITTEN, "line 1:"])
def test_given_up_nothing_was_made(fresh: Station, at: str) -> None:
    talk: list[tuple[str, Answer]] = [("Add one now?", "n"), ("Add a passphrase?", "n"), (WRITTEN, ""), ("line 1:", "")]
    until = [question for question, _ in talk].index(at)
    code, shown = converse(by_hand(fresh), [*talk[:until], (at, "\x03")], TERMINAL)
    assert (code, "Cancelled" in shown) == (6, True)
    assert not [name for name in fresh.objects() if "/" in name]
    assert not (fresh.state / "chatkeep-writer").exists()
    fresh.init()


def test_without_a_terminal_the_option_is_told(fresh: Station) -> None:
    done = fresh.run("init")
    assert (done.code, done.error) == (2, "usage")
    assert "--recovery-key-file" in done.json["error"]["text"]
    assert not fresh.storage().exists()


def test_the_key_file(fresh: Station) -> None:
    made = fresh.init()
    assert fresh.key.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"(\d{4} \d{4}\n){8}", fresh.key.read_text())
    assert made["recovery_key_file"] == str(fresh.key)
    assert (fresh.state / "chatkeep-writer").stat().st_mode & 0o777 == 0o600
    assert fresh.state.stat().st_mode & 0o777 == 0o700


def test_a_key_file_that_exists_is_not_replaced(fresh: Station) -> None:
    fresh.key.write_text("another key")
    done = fresh.run("init", "--recovery-key-file", fresh.key)
    assert (done.code, done.error) == (2, "usage")
    assert fresh.key.read_text() == "another key"
    assert not (fresh.state / "chatkeep-writer").exists()


def test_twice(fresh: Station) -> None:
    vault = fresh.init()["vault"]
    before = fresh.objects().keys()
    done = fresh.run("init", "--recovery-key-file", fresh.room / "second.txt")
    assert (done.code, done.error) == (1, "already-set-up")
    assert vault in done.json["error"]["text"]
    assert not (fresh.room / "second.txt").exists()
    assert fresh.objects().keys() == before


def test_where_there_is_a_vault_already(made: Station, fresh: Station) -> None:
    fresh.storage().symlink_to(made.storage())
    before = made.objects().keys()
    done = fresh.run("init", "--recovery-key-file", fresh.key)
    assert (done.code, done.error) == (1, "vault-exists")
    assert "chatkeep join" in done.json["error"]["remedy"]
    assert made.objects().keys() == before
    # Refused before a key was made: one that nothing was made with must not lie about.
    assert (fresh.key.exists(), (fresh.state / "chatkeep-writer").exists()) == (False, False)


def test_where_the_disk_is_not_mounted(fresh: Station) -> None:
    """A folder is made, what holds it is not."""
    fresh.config.write_text(fresh.config.read_text().replace(str(fresh.storage()), str(fresh.room / "mnt" / "vault")))
    done = fresh.run("init", "--recovery-key-file", fresh.key)
    assert (done.code, done.error) == (4, "storage-missing")
    assert not (fresh.room / "mnt").exists()
    assert not fresh.key.exists()


def test_where_this_user_may_not_write(fresh: Station) -> None:
    fresh.storage().mkdir(mode=0o500)
    done = fresh.run("init", "--recovery-key-file", fresh.key, preexec_fn=drop_powers)
    assert (done.code, done.error) == (4, "permission-refused")
    assert not fresh.key.exists()


def test_two_ways_in(fresh: Station) -> None:
    phrase = fresh.room / "phrase"
    phrase.write_text("a long passphrase\n")
    phrase.chmod(0o600)
    words = ["init", "--recovery-key-file", fresh.key, "--passphrase-file", phrase]
    said = fresh.run(*words, json=False)
    assert said.code == 0
    assert "only one way in" not in said.err
    assert sorted(way["kind"] for way in fresh.ok("key", "list")["ways"]) == ["passphrase", "recovery-64"]


def test_a_source_that_is_missing_is_told_before_anything_is_made(fresh: Station) -> None:
    fresh.source.rmdir()
    done = fresh.run("init", "--recovery-key-file", fresh.key)
    assert (done.code, done.error) == (2, "config-invalid")
    assert not fresh.key.exists()
