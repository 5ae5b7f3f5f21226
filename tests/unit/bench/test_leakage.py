"""What storage sees of backups: the measure of how well it tells them apart, its tables, and a real run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.leakage import NOTHING, PAIRS, main
from bench.sight import Sight, acts_table, pairs_table, told_apart, types_table

KIB = 1024


def sight(act: str, *packs: int, truth: int = 0) -> Sight:
    manifests = (8 * KIB,) if packs else ()
    return Sight(act, truth, packs, manifests, ("stat",) + ("put",) * (len(packs) + len(manifests)), 0.1)


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ("aaaa", "aaaa", 0.0),
        ("aaaa", "bbbb", 1.0),
        ("aabb", "aaaa", 0.5),
        ("ab", "aaabbb", 0.0),
        ("abcd", "ab", 0.5),
    ],
)
def test_two_things_are_told_apart_by_how_often_they_look_different(one: str, other: str, share: float) -> None:
    assert told_apart(one, other) == share
    assert told_apart(other, one) == share


def test_the_tables() -> None:
    sights = [
        sight("a message", 32 * KIB, truth=200),
        sight("a message", 32 * KIB, truth=900),
        sight("a message", 64 * KIB, truth=500),
        sight(NOTHING),
        sight("a photo", 32 * KIB, 96 * KIB, truth=80_000),
    ]
    acts = {row[0]: row[1:] for row in acts_table(sights).rows}
    assert acts["a message"] == ["3", "200 to 900", "2", "32 KiB", "2 of 3", "8 KiB", "2 put, 1 stat"]
    assert acts["a photo"] == ["1", "80.0 kB", "3", "32 KiB + 96 KiB", "1 of 1", "8 KiB", "3 put, 1 stat"]
    assert acts[NOTHING] == ["1", "0", "0", "none", "1 of 1", "", "1 stat"]
    assert list(acts) == [NOTHING, "a message", "a photo"]
    assert pairs_table(sights).rows[0] == [NOTHING, "a message", "100%"]
    seen = {row[0]: row[1] for row in types_table(sights).rows}
    assert seen["sizes"] == "padded: 3 different ones among 5 packs"
    assert seen["requests when nothing changed"] == "1 stat"


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One vault, everything that may happen once: what is said must be what the product does."""
    out = tmp_path / "sights.json"
    assert main(["--rounds", "1", "--size", "200kB", "--work", str(tmp_path), "--json", str(out), "--seed", "3"]) == 0
    sights = {one["act"]: one for one in json.loads(out.read_text())}
    assert {act for pair in PAIRS for act in pair} <= set(sights)
    assert sights[NOTHING]["packs"] == sights[NOTHING]["manifests"] == []
    assert sights["1 message"]["packs"] == [32 * KIB]
    for act, packs in (("photo of 60 kB", [32 * KIB, 64 * KIB]), ("photo of 350 kB", [32 * KIB, 352 * KIB])):
        assert sights[act]["packs"] == packs
        assert sights[act]["truth"] == int(act.split()[2]) * 1000
    assert sights["the same photo again"]["packs"] == sights["photo of 350 kB"]["packs"]
    shown = capsys.readouterr().out
    assert "| one backup" not in shown
    assert "one backup, as storage sees it" in shown
    assert f"{len(sights)} backups, 1 vaults, seed 3" in shown
    assert not list(tmp_path.glob("chatkeep-leakage-*"))
