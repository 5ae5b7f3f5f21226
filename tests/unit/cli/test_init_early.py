"""`chatkeep init` refuses before it asks for anything, and whoever gives up knows that there is no vault."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from chatkeep.providers.base import QuotaExceeded
from tests.support import odd_storage
from tests.support.station import COMMAND, Station
from tests.support.terminal import converse


def init(station: Station, key: Path) -> int:
    return main(["--config", str(station.config), "init", "--recovery-key-file", str(key)])


def at_a_terminal(station: Station, *words: str, answers: tuple[tuple[str, str], ...] = ()) -> tuple[int, str]:
    return converse([*COMMAND, "--config", str(station.config), "init", *words], answers, {"TERM": "dumb"})


def test_the_key_file_of_an_init_that_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    station = Station(tmp_path)
    station.key.write_text("1234 5678\n" * 8)
    assert init(station, station.key) == Exit.USAGE
    told = capsys.readouterr().err
    assert "exists; it is not replaced" in told
    assert "There is no vault in this storage" in told
    assert "its key opens nothing" in told
    assert station.key.read_text() == "1234 5678\n" * 8
    station.key.unlink()
    assert init(station, station.key) == Exit.DONE


def test_a_key_file_is_refused_before_a_question(tmp_path: Path) -> None:
    station = Station(tmp_path)
    station.key.write_text("")
    for file, why in ((station.key, "exists"), (tmp_path / "nowhere" / "key.txt", "there is no directory")):
        code, shown = at_a_terminal(station, "--recovery-key-file", str(file))
        assert code == Exit.USAGE
        assert why in shown
        assert "Add one now?" not in shown


def test_a_vault_that_is_there_is_told_before_anybody_writes_down_a_key(tmp_path: Path) -> None:
    station = Station(tmp_path)
    assert init(station, station.key) == Exit.DONE
    station.state.rename(tmp_path / "away")
    code, shown = at_a_terminal(station)
    assert code == Exit.FAILED
    assert "There is already a vault" in shown
    assert "chatkeep join" in shown
    assert "Add one now?" not in shown


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        ((), (("Add one now?", "\x03"),)),
        (("--no-passkey", "--no-passphrase"), (("when they are written down", ""), ("line 1:", "\x03"))),
    ],
    ids=["at the first question", "while it is typed back"],
)
def test_who_gives_up_is_told_that_there_is_no_vault(
    tmp_path: Path, words: tuple[str, ...], answers: tuple[tuple[str, str], ...]
) -> None:
    station = Station(tmp_path)
    code, shown = at_a_terminal(station, *words, answers=answers)
    assert code == Exit.CANCELLED
    assert "No vault was made" in shown
    assert "What was finished before stands" not in shown
    assert station.objects() == {}


def odd(tmp_path: Path) -> Station:
    station = Station(tmp_path)
    station.config.write_text(station.config.read_text().replace("type: folder", "type: odd"))
    return station


def test_storage_that_does_not_do_is_told_before_a_key_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    station = odd(tmp_path)
    odd_storage.install(monkeypatch)
    monkeypatch.setattr(odd_storage.OddStorage, "error", QuotaExceeded(provider="disk"))
    assert init(station, station.key) == Exit.STORAGE
    assert "Storage is full" in capsys.readouterr().err
    assert not station.key.exists()
    monkeypatch.setattr(odd_storage.OddStorage, "error", None)
    assert init(station, station.key) == Exit.DONE


@pytest.mark.parametrize("what", ["reads", "lists"])
def test_a_credential_that_may_only_put_makes_no_vault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    station = odd(tmp_path)
    odd_storage.install(monkeypatch, **{what: False})
    assert init(station, station.key) == Exit.USAGE
    assert "put one that may only write in its place" in capsys.readouterr().err
    assert not station.key.exists()
