"""Unlocking that is stopped, wherever: there is no session then, as the person is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Never

import pytest

from chatkeep.daemon.cli import adding, proving, reading
from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from chatkeep.daemon.service import session
from chatkeep.daemon.service.asking import Session, present
from tests.support.sessions import end_all
from tests.support.station import Station, template

WHERE = [(adding, "ways"), (proving, "prove"), (reading, "tell_findings"), (session, "start"), (Session, "find")]


@pytest.fixture
def station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Station]:
    station = template(tmp_path / "room")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(station.runtime))
    yield station
    monkeypatch.undo()
    end_all(station.runtime / "chatkeep")


@pytest.mark.parametrize(("place", "name"), WHERE, ids=[name for _, name in WHERE])
def test_stopped_there_is_no_session(
    station: Station, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: object, name: str
) -> None:
    stopped = []

    def stop(*_: object, **__: object) -> Never:
        stopped.append(name)
        raise KeyboardInterrupt

    words = ["--config", str(station.config), "unlock", "--again", "--key-file", str(station.key)]
    with monkeypatch.context() as patch:
        patch.setattr(place, name, stop)
        assert main(words) == Exit.CANCELLED
    assert stopped == [name]
    assert present(station.runtime / "chatkeep") == []
    capsys.readouterr()
    assert main([*words, "--json"]) == Exit.DONE
    assert json.loads(capsys.readouterr().out)["began"]
    assert len(present(station.runtime / "chatkeep")) == 1


def test_one_provider_full_of_slots_keeps_nobody_from_what_the_other_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    station = template(tmp_path / "two", "disk", "usb")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(station.runtime))
    for number in range(300):
        (station.storage("usb") / "slots" / f"{number:032x}.json").write_bytes(b"planted")
    own = ["--key-file", str(station.key), "--json"]
    try:
        for words in (["unlock"], ["key", "list", "--labels"]):
            capsys.readouterr()
            code = main(["--config", str(station.config), *words, *own])
            said = json.loads(capsys.readouterr().out)
            assert code == (Exit.INTEGRITY if words == ["unlock"] else Exit.DONE), said
            assert said["warnings"] == ["few-ways"]
        # Nothing is added where it cannot be told what there is then: least of all something that is called failed.
        new, before = tmp_path / "new.txt", len(station.objects())
        words = ["key", "add", "recovery", "--recovery-key-file", str(new)]
        assert main(["--config", str(station.config), *words, *own]) == Exit.INTEGRITY
        assert (new.exists(), len(station.objects())) == (False, before)
    finally:
        monkeypatch.undo()
        end_all(station.runtime / "chatkeep")
