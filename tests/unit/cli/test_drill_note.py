"""What is remembered of drills: by source, and nothing that somebody else wrote stops `status`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatkeep.daemon.cli.drill_note import FOLDER, DrillNote, recall, remember

GOOD = DrillNote(1_700_000_000_000_000_000, 3, True, (), 10, 1, 4096, 0.25)
BAD = DrillNote(1_700_000_001_000_000_000, 4, False, ("captured-damaged",), 10, 1, 4096, 1)


def test_it_is_kept_by_source(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    assert recall(tmp_path) == {}
    remember(tmp_path, {"chat": BAD, "caf\u00e9": GOOD})
    remember(tmp_path, {"chat": GOOD})
    assert recall(tmp_path) == {"chat": GOOD, "caf\u00e9": GOOD}
    assert (tmp_path / FOLDER / "last.json").stat().st_mode & 0o777 == 0o600


ROW = {"at": 1, "seq": 1, "good": True, "codes": [], "files": 1, "databases": 1, "size": 1, "seconds": 1}


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "7", '{"chat": 7}', '{"chat": {}}', "{", "\xff"),
        json.dumps({"chat": ROW | {"at": "x"}}),
        json.dumps({"chat": ROW | {"codes": [7]}}),
        json.dumps({"chat": ROW | {"more": 7}}),
    ],
)
def test_what_is_no_note_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / FOLDER).mkdir()
    file = tmp_path / FOLDER / "last.json"
    file.write_text(json.dumps({"chat": ROW}))
    assert list(recall(tmp_path)) == ["chat"]
    file.write_text(text, "latin-1")
    assert recall(tmp_path) == {}
    remember(tmp_path, {"chat": GOOD})
    assert recall(tmp_path) == {"chat": GOOD}
