"""`chatkeep setup` with a passkey: the real command, the real page, a real browser."""

from __future__ import annotations

from pathlib import Path

from tests.support.owner import Owner
from tests.support.station import Station, fill, rows


def test_set_up_with_one_touch_and_restored_with_another(tmp_path: Path, owner: Owner) -> None:
    station = Station(tmp_path)
    fill(station.source / "messages.db")
    owner.visitor.tab.authenticator()
    done = owner.touches(station, "setup", "--recovery-key-file", station.key, "--passkey", "--no-unit").json
    assert [step["state"] for step in done["steps"]] == ["already", "done", "done", "left-out"]
    assert [slot["kind"] for slot in done["init"]["slots"]] == ["recovery-64", "webauthn-prf"]
    owner.touches(station, "restore", "latest", "--passkey", "--target", station.room / "out")
    assert len(rows(station.room / "out/messages.db")) == 200
    assert not owner.visitor.tab.seen.errors


def test_a_passkey_that_comes_to_nothing_stops_neither_snapshot_nor_vault(tmp_path: Path, owner: Owner) -> None:
    """Asked for by an option it is a failure, told at the end; what can be done without it is done."""
    station = Station(tmp_path)
    fill(station.source / "messages.db")
    words = ("setup", "--recovery-key-file", station.key, "--passkey", "--passkey-timeout", "1", "--no-unit")
    done = owner.start(station, *words)
    out, _ = done.communicate(timeout=120)
    assert done.returncode == 3, out
    assert '"passkey_error": {"code": "ceremony-timed-out"' in out
    assert '{"step": "snapshot", "state": "done", "why": null}' in out
    assert len(rows(station.restore("latest", "out") / "messages.db")) == 200
