"""The demonstration shows what is so, and fails where it is not."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from scripts import demo_proof, demo_run
from scripts.demo_proof import Failed
from tests.independent_reader import Directory
from tests.support.independent import TALLY, again
from tests.support.station import fill, sql

SMALL = ["--messages", "300", "--snapshots", "1"]


def restored_twice(show: demo_run.Show, snap: str, name: str) -> tuple[Path, dict[str, Any]]:
    """A restore of the demonstration, and another by the reader that shares no code with the product."""
    target, done = RESTORE(show, snap, name)
    again(Directory(str(show.vault)), show.key.read_text(), target, done["snapshot"]["seq"], done["snapshot"]["id"])
    return target, done


RESTORE = demo_run.restore


def test_the_demonstration(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo_run, "restore", restored_twice)
    before = TALLY.snapshots
    assert demo_run.main(SMALL) == 0
    assert TALLY.snapshots - before == 3
    shown = capsys.readouterr().out
    assert "rows compared with the original's one by one, all equal" in shown
    assert "objects checked without any key" in shown
    assert re.search(r"none of \d+ texts", shown)
    assert "sent none before the unlock" in shown
    assert "All of it in" in shown


def lost(show: demo_run.Show, process: object, count: int) -> int:
    """In place of waiting for commits: the application wrote something that its ledger does not know."""
    seen = WAIT(show, process, count)  # type: ignore[arg-type]
    sql(show.profile / "messages.db", "UPDATE messages SET body = body || '!' WHERE id = 1")
    return seen


WAIT = demo_run.wait_for


def test_a_row_that_was_never_committed_fails_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_run, "wait_for", lost)
    assert demo_run.main(SMALL) == 1
    assert "not a state that was ever committed" in capsys.readouterr().err


def test_plaintext_in_the_vault_fails_it(tmp_path: Path) -> None:
    show = demo_run.Show(tmp_path)
    show.vault.mkdir(parents=True)
    (show.vault / "sealed").write_bytes(os.urandom(100_000))
    demo_run.prove_sealed(show, demo_proof.Proof(), [b"see you tomorrow"])
    (show.vault / ".leak").write_bytes(os.urandom(1000) + b"see you tomorrow" + os.urandom(1000))
    with pytest.raises(Failed, match="plaintext in the vault"):
        demo_run.prove_sealed(show, demo_proof.Proof(), [b"see you tomorrow"])


def test_rows_are_compared_one_by_one(tmp_path: Path) -> None:
    for name in ("one.db", "other.db"):
        fill(tmp_path / name, 20)
    assert demo_proof.rows_equal(tmp_path / "one.db", tmp_path / "other.db") == 20
    sql(tmp_path / "other.db", "UPDATE messages SET body = 'x' WHERE id = 7")
    with pytest.raises(Failed, match="messages differs"):
        demo_proof.rows_equal(tmp_path / "one.db", tmp_path / "other.db")
    sql(tmp_path / "other.db", "CREATE TABLE more(a)")
    with pytest.raises(Failed, match="other tables"):
        demo_proof.rows_equal(tmp_path / "one.db", tmp_path / "other.db")


def test_what_is_not_encrypted_shrinks(tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(b"only compressed, or not even that" * 1000)
    before, after = demo_proof.squeezed(tmp_path)
    assert after < before * 0.98
