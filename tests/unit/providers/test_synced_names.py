"""The names that clients make in a folder they synchronise."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatkeep.providers import base
from chatkeep.providers.synced_names import Kind, read, stand_ins

HASH = "0123456789abcdef" * 4

COPIES = {
    f"{HASH} 2": HASH,  # iCloud Drive, Finder
    f"{HASH} 13": HASH,
    "a.json": None,
    "a 2.json": "a.json",
    f"{HASH}(1)": HASH,
    f"{HASH} (1)": HASH,  # Google Drive, OneDrive
    "a (2).json": "a.json",
    f"{HASH} (conflicted copy 2026-01-02)": HASH,  # Dropbox
    f"{HASH} (Anna's conflicted copy 2026-01-02)": HASH,
    f"{HASH} (laptop's conflicted copy 2026-01-02 (1))": HASH,
    "a (Case Conflict).json": "a.json",
    f"{HASH} (conflicted copy anna 2026-01-02 030405)": HASH,  # Nextcloud
    "a (conflicted copy 2026-01-02 030405).json": "a.json",
    "a_conflict-20260102-030405.json": "a.json",  # ownCloud
    f"{HASH}.sync-conflict-20260102-030405-ABCDEFG": HASH,  # Syncthing
    "a.sync-conflict-20260102-030405-ABCDEFG.json": "a.json",
    "a.sync-conflict-20260102-030405-abcdefg.json": "a.json",  # on a share that folds case
    f"{HASH} (SFConflict anna@example.org 2026-01-02-03-04-05)": HASH,  # Seafile
    f"{HASH}-LAPTOP": HASH,  # OneDrive
    "a-DESKTOP-7Q.json": "a.json",
    f"{HASH} 2 (1)": HASH,  # a copy of a copy
    f"000000000012-{HASH} 2": f"000000000012-{HASH}",
}


@pytest.mark.parametrize(("entry", "of"), COPIES.items(), ids=list(COPIES))
def test_conflict_copies(entry: str, of: str | None) -> None:
    assert read(entry) == ((entry, Kind.ITSELF) if of is None else (of, Kind.COPY))


def test_names_that_only_look_like_stand_ins() -> None:
    for name in ("a..nextcloud", "a-.-.owncloud"):
        assert base.is_name(name)
        assert read(name) is not None


@pytest.mark.parametrize("name", [HASH, "a.json", "a"])
def test_stand_ins(name: str) -> None:
    for each in stand_ins(name):
        assert read(each) == (name, Kind.AWAY)


@pytest.mark.parametrize(
    "entry",
    [
        *(".tmp", ".DS_Store", "._a", ".stfolder", "~0a1b.tmp", ".~lock.a#", "Icon\r", "desktop.ini\n", "A", "a b"),
        *("a\n 2", " 2", "(1)", "a 2000", "a (", "a )", "a/b 2", "..icloud", ".A.icloud", "A.nextcloud", "\udcff 2"),
    ],
)
def test_what_is_nobodys(entry: str) -> None:
    assert read(entry) is None


@given(st.from_regex(r"[a-z0-9-]([a-z0-9.-]{0,80}[a-z0-9-])?", fullmatch=True))
def test_names_of_objects_are_themselves(name: str) -> None:
    found = read(name)
    assert found is not None
    if found[1] is Kind.ITSELF:
        assert found[0] == name
    else:
        assert name.endswith(("cloud",)) or "conflict" in name


def forms(name: str) -> tuple[str, ...]:
    return name, *stand_ins(name), f"{name} 2", f"{name}.sync-conflict-20260102-030405-ABCDEFG"


@given(st.text(max_size=120) | st.text("a0/", max_size=6).map(forms).flatmap(st.sampled_from))
@example("0/0")
def test_nothing_read_is_outside_the_grammar(entry: str) -> None:
    found = read(entry)
    assert found is None or base.is_name(found[0])
    assert found is None or "/" not in found[0]


def test_a_long_entry_takes_no_time() -> None:
    for entry in ("a" + " (" * 5000, "a" + " (1)" * 5000 + "!", "a-" * 20_000 + "A!", "a" + " 1" * 5000 + "/"):
        assert read(entry) is None
