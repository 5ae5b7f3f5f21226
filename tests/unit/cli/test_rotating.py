"""Removing ways in: ids and the first digits of them, what is refused, a change that was cut short."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from chatkeep.daemon.cli.exits import Exit
from chatkeep.daemon.cli.main import main
from chatkeep.daemon.keys.root import EpochKeys, RootSecret
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.providers.base import PermissionRefused
from tests.support.station import Station, copied


def run(station: Station, *words: object) -> tuple[int, Any]:
    """A command in this process: its exit code, and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        code = main(["--config", str(station.config), "--json", *map(str, words)])
    return code, json.loads(said.getvalue())


def ok(station: Station, *words: object) -> Any:
    code, value = run(station, *words)
    assert code == 0, value
    return value


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Station:
    room = tmp_path_factory.mktemp("made") / "room"
    room.mkdir()
    station = Station(room, ("disk", "usb"))
    ok(station, "init", "--recovery-key-file", station.key)
    ok(station, "key", "add", "recovery", "--recovery-key-file", room / "second.txt", "--key-file", station.key)
    return station


@pytest.fixture
def ways(made: Station, tmp_path: Path) -> Station:
    """A vault at two places with two recovery keys: `key.txt` and `second.txt`."""
    return copied(made, tmp_path / "room")


def ids(station: Station) -> tuple[str, str]:
    """The way in of `key.txt`, then that of `second.txt`."""
    found = ok(station, "key", "list", "--labels", "--key-file", station.key)["ways"]
    first, second = (way["id"] for way in sorted(found, key=lambda way: way["since"]))
    return first, second


def remove(station: Station, *words: object) -> tuple[int, Any]:
    return run(station, "key", "remove", *words, "--key-file", station.key, "--yes")


def refusal(found: tuple[int, Any]) -> tuple[int, str]:
    code, value = found
    assert value["error"]["code"] == "rotation-refused"
    return code, value["error"]["params"]["reason"]


def test_what_cannot_be_removed_is_told(ways: Station) -> None:
    own, gone = ids(ways)
    before = {name: path.read_bytes() for name, path in ways.objects().items()}
    assert refusal(remove(ways, own)) == (2, "own-slot")
    assert refusal(remove(ways, own[:4], gone)) == (2, "own-slot")
    for word in ("0000", gone[:3], "", "not an id", gone + "00"):
        assert refusal(remove(ways, word)) == (2, "unknown-slot"), word
    slip = gone[:-1] + ("0" if gone[-1] != "0" else "1")
    _, value = remove(ways, slip)
    assert value["error"]["params"]["nearest"] == gone
    assert f"Did you mean {gone}?" in value["error"]["text"]
    assert run(ways, "key", "remove", gone, "--key-file", ways.key)[0] == 2  # nobody can answer
    assert refusal(run(ways, "device", "remove", "0000", "--key-file", ways.key, "--yes")) == (2, "unknown-device")
    assert {name: path.read_bytes() for name, path in ways.objects().items()} == before


def test_first_digits_are_enough_and_twice_is_told(ways: Station) -> None:
    own, gone = ids(ways)
    code, value = remove(ways, gone[:4].upper())
    assert code == 0
    assert [way["id"] for way in value["removed_ways"]] == [gone]
    assert [way["id"] for way in value["ways"]] == [own]
    assert refusal(remove(ways, gone)) == (2, "removed-slot")
    assert refusal(remove(ways, gone[:6])) == (2, "removed-slot")
    # Its file lies there still, and counts for nothing.
    assert {way["id"] for way in ok(ways, "key", "list")["ways"]} == {own, gone}
    assert [way["id"] for way in ok(ways, "key", "list", "--labels", "--key-file", ways.key)["ways"]] == [own]


def test_provider_that_is_away_keeps_the_keys_as_they_are(ways: Station) -> None:
    _, gone = ids(ways)
    away = ways.storage("usb").rename(ways.room / "elsewhere")
    before = set(ways.objects())
    assert remove(ways, gone)[0] == 4
    assert set(ways.objects()) == before
    away.rename(ways.storage("usb"))
    ok(ways, "key", "remove", gone, "--key-file", ways.key, "--yes")


def test_change_that_was_cut_short_is_finished_by_the_next(ways: Station) -> None:
    _, gone = ids(ways)
    done = ok(ways, "key", "remove", gone, "--key-file", ways.key, "--yes")
    record = f"epochs/00000002-{done['record']}"
    # What a kill between the two providers leaves, whichever of them comes first.
    for name in ("disk", "usb"):
        (ways.storage(name) / record).unlink()
        again = ok(ways, "key", "remove", gone, "--key-file", ways.key, "--yes")
        assert (again["epoch"], again["record"], again["changed"], again["finished"]) == (
            2,
            done["record"],
            False,
            True,
        )
        assert (ways.storage(name) / record).exists()


def test_damaged_slot_is_shown_and_may_be_removed(ways: Station) -> None:
    own, gone = ids(ways)
    for name in ways.names:
        file = ways.storage(name) / f"slots/{gone}.json"
        file.write_bytes(file.read_bytes()[:-20] + b"a" * 19 + b"\n")
    assert refusal(run(ways, "key", "rotate", "--key-file", ways.key, "--yes")) == (5, "slot-damaged")
    found = ok(ways, "key", "list", "--labels", "--key-file", ways.key)["ways"]
    assert {way["id"]: way["kind"] for way in found} == {own: "recovery-64", gone: None}
    value = ok(ways, "key", "remove", gone, "--key-file", ways.key, "--yes")
    assert value["removed_ways"] == [{"id": gone, "kind": None, "label": None, "since": None}]
    assert value["findings"]


def test_this_device_goes_on_at_once(ways: Station) -> None:
    """A rival that storage shows in place of the new epoch, or nothing, never leads it elsewhere."""
    record = ok(ways, "key", "rotate", "--key-file", ways.key, "--yes")["record"]
    status = ok(ways, "status")["epoch"]
    assert (status["number"], status["record"]) == (2, record)
    for name in ways.names:
        (ways.storage(name) / f"epochs/00000002-{record}").unlink()
    code, value = run(ways, "key", "rotate", "--key-file", ways.key, "--yes")
    assert (code, value["error"]["code"]) == (5, "missing-object")
    assert ok(ways, "status")["epoch"]["record"] == record


def rotated_elsewhere(station: Station) -> str:
    """New keys, made where this device does not learn of them; the record's hash."""
    credential = station.state / "chatkeep-writer"
    before = credential.read_bytes()
    record: str = ok(station, "key", "rotate", "--key-file", station.key, "--yes")["record"]
    credential.write_bytes(before)
    return record


def test_epoch_that_the_vault_did_not_sign_is_told_and_not_followed(ways: Station) -> None:
    record = rotated_elsewhere(ways)
    with EpochKeys(RootSecret.generate()) as attacker:
        for name in ways.names:
            file = ways.storage(name) / f"epochs/00000002-{record}"
            fields = json.loads(file.read_bytes().split(b"\n")[0])
            file.unlink()
            fields["sign"] = attacker.sign.public.raw.hex()
            raw = sign_text("epoch", bytes.fromhex(fields["vault"]), [json.dumps(fields).encode()], attacker.sign)
            file.with_name(f"00000002-{hashlib.sha256(raw).hexdigest()}").write_bytes(raw)
    (ways.source / "note").write_text("kept")
    code, value = run(ways, "backup")
    assert (code, value["new_epoch"]) == (5, None)
    assert [one["code"] for one in value["findings"]] == ["authentication-failed"]
    assert value["sources"][0]["snapshots"] == 1
    assert ok(ways, "status")["epoch"]["number"] == 1


def test_storage_that_was_rolled_back_is_told_and_gets_no_second_epoch(ways: Station) -> None:
    record = ok(ways, "key", "rotate", "--key-file", ways.key, "--yes")["record"]
    ok(ways, "backup")
    assert ok(ways, "status")["epoch"]["number"] == 2
    file = Path(f"epochs/00000002-{record}")
    (ways.storage("disk") / file).rename(ways.room / "aside")
    # One that has it is enough, in whichever order they are asked.
    assert run(ways, "snapshots", "--key-file", ways.key)[0] == 0
    (ways.storage("usb") / file).unlink()
    code, value = run(ways, "snapshots", "--key-file", ways.key)
    assert code == 5
    assert str(file) in [finding["params"].get("name") for finding in value["findings"]]
    before = set(ways.objects())
    for words in (["key", "rotate", "--yes"], ["key", "remove", ids(ways)[1], "--yes"]):
        code, value = run(ways, *words, "--key-file", ways.key)
        assert (code, value["error"]["code"]) == (5, "missing-object")
    assert set(ways.objects()) == before
    # Found again at one of them, it is brought to all.
    (ways.room / "aside").rename(ways.storage("disk") / file)
    again = ok(ways, "key", "rotate", "--key-file", ways.key, "--yes")
    assert (again["epoch"], again["finished"]) == (2, True)
    assert (ways.storage("usb") / file).exists()
    assert ok(ways, "key", "rotate", "--key-file", ways.key, "--yes")["epoch"] == 3


def test_rivals_are_told_with_what_to_do(ways: Station) -> None:
    record = rotated_elsewhere(ways)
    file = Path(f"epochs/00000002-{record}")
    aside = ways.room / "aside"
    aside.mkdir()
    for name in ways.names:
        (ways.storage(name) / file).rename(aside / name)
    rotated_elsewhere(ways)
    (aside / "usb").rename(ways.storage("usb") / file)
    code, value = run(ways, "key", "rotate", "--key-file", ways.key, "--yes")
    assert (code, value["error"]["code"]) == (5, "fork-detected")
    assert record in value["error"]["text"]
    assert "Take the one that you did not make out of the storage" in value["error"]["remedy"]
    # The device stays where it is, says so, and backs up all the same.
    (ways.source / "note").write_text("kept")
    code, value = run(ways, "backup")
    assert code == 5
    assert value["findings"][0]["code"] == "fork-detected"
    assert value["sources"][0]["snapshots"] == 1
    assert ok(ways, "status")["epoch"]["number"] == 1


def test_a_key_that_was_not_added_is_not_to_be_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    station = Station(tmp_path)
    ok(station, "init", "--recovery-key-file", station.key)
    new = tmp_path / "new.txt"
    refused: list[str] = []

    def refuse(*_: object) -> None:
        refused.append("add_slot")
        raise PermissionRefused(provider="disk")

    monkeypatch.setattr("chatkeep.daemon.vault.create.add_slot", refuse)
    words = ["key", "add", "recovery", "--recovery-key-file", str(new), "--key-file", str(station.key)]
    capsys.readouterr()
    assert main(["--config", str(station.config), *words]) == Exit.STORAGE
    assert refused == ["add_slot"]
    assert f"Do not keep {new}: " in capsys.readouterr().err
