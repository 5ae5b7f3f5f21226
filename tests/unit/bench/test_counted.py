"""Calls of a provider, counted."""

from __future__ import annotations

from pathlib import Path

from bench.counted import Counted
from chatkeep.providers.folder import FolderProvider


def test_every_verb_is_counted_and_done(tmp_path: Path) -> None:
    counted = Counted(FolderProvider("disk", tmp_path / "vault", create=True), tmp_path / "calls")
    assert counted.name == "disk"
    assert not (tmp_path / "calls").exists()
    counted.put("vault/one", b"body")
    assert counted.get("vault/one") == b"body"
    assert [found.name for found in counted.list("vault/")] == ["vault/one"]
    counted.delete("vault/one")
    assert (tmp_path / "calls").read_bytes() == b"...."
