"""Looking for applications in trees that are made here: found where they are, and nothing else is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chatkeep.config.applications import Base
from chatkeep.daemon.cli import setup_search
from chatkeep.daemon.cli.setup_search import amount, bases, find, look_at


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


def where(home: Path) -> dict[Base, Path]:
    return {
        Base.HOME: home,
        Base.CONFIG: home / ".config",
        Base.DATA: home / ".local/share",
        Base.DOWNLOADS: home / "Téléchargements",
        Base.DOCUMENTS: home / "Documents",
    }


def make(top: Path, *names: str) -> Path:
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(b"x" * 100)
    return top


def signal(top: Path) -> Path:
    return make(top, "config.json", "sql/db.sqlite", "Cache/f_000001")


def names(home: Path) -> list[tuple[str, Path]]:
    return [(found.application.name if found.application else "", found.path) for found in find(where(home))]


def test_nothing_is_found_where_nothing_is(home: Path) -> None:
    assert names(home) == []


def test_each_way_to_install_is_found(home: Path) -> None:
    native = signal(home / ".config/Signal")
    flatpak = signal(home / ".var/app/org.signal.Signal/config/Signal")
    exports = make(home / "Téléchargements/Telegram Desktop", "ChatExport_2026-06-12/result.json", "photo.jpg")
    zips = make(home / "Documents/WhatsApp Chat - Ann", "_chat.txt")
    assert names(home) == [
        ("Signal", native),
        ("Signal", flatpak),
        ("Telegram-exports", exports),
        ("WhatsApp-exports", zips),
    ]


def test_the_current_version_of_a_snap_is_reached_through_its_link(home: Path) -> None:
    signal(home / "snap/signal-desktop/690/.config/Signal")
    (home / "snap/signal-desktop/current").symlink_to("690")
    assert names(home) == [("Signal", home / "snap/signal-desktop/current/.config/Signal")]


def test_a_link_out_of_what_belongs_to_the_user_is_not_followed(home: Path, tmp_path: Path) -> None:
    elsewhere = signal(tmp_path / "elsewhere/.config/Signal")
    (home / ".config").symlink_to(elsewhere.parent)
    found = {**where(home), Base.CONFIG: home / "other"}
    (home / "other").mkdir()
    (home / "other/Signal").symlink_to(elsewhere)  # the directory itself
    (home / "snap").mkdir()
    (home / "snap/signal-desktop").symlink_to(tmp_path / "elsewhere")  # one above it
    (tmp_path / "elsewhere/current").symlink_to(".")
    assert find(found) == []


def test_links_in_it_prove_nothing(home: Path) -> None:
    top = make(home / ".config/Signal", "config.json", "sql/")
    (top / "sql/db.sqlite").symlink_to("/etc/hostname")
    assert names(home) == []


def test_a_name_that_drives_terminals_keeps_nothing_else_out(home: Path) -> None:
    make(home / "Téléchargements/WhatsApp Chat \x1b[2J", "_chat.txt")
    make(home / os.fsdecode(b"T\xc3\xa9l\xc3\xa9chargements/WhatsApp Chat \xff"), "_chat.txt")
    good = make(home / "Téléchargements/WhatsApp Chat 🐦", "_chat.txt")
    assert names(home) == [("WhatsApp-exports", good)]


def test_one_directory_under_two_names_is_one(home: Path) -> None:
    telegram = make(home / ".local/share/TelegramDesktop", "tdata/key_datas")
    (home / ".var/app/org.telegram.desktop").mkdir(parents=True)
    (home / ".var/app/org.telegram.desktop/data").symlink_to(home / ".local/share")
    assert names(home) == [("Telegram", telegram)]


def test_nothing_is_opened_to_find_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal(home / ".config/Signal")

    def refused(*_args: object, **_named: object) -> int:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(AssertionError):
        open(home / ".config/Signal/config.json")  # noqa: SIM115  # the trap works
    assert len(find(where(home))) == 1
    assert amount(home / ".config/Signal", ()).files == 3


def test_a_directory_that_a_person_names(home: Path) -> None:
    known = look_at(signal(home / "anywhere/at all"))
    assert known.application is not None
    assert known.application.name == "Signal"
    assert "*Cache/" in known.exclude
    own = look_at(make(home / "mine", "messages.db"))
    assert (own.application, own.exclude) == (None, ())
    assert look_at(home / "is not there").application is None


def test_the_size_is_of_what_is_kept(home: Path) -> None:
    top = signal(home / "Signal")
    (top / "link").symlink_to("/usr")
    os.mkfifo(top / "pipe")
    kept = amount(top, ("Cache/",))
    assert (kept.files, kept.bytes, kept.whole) == (2, 200, True)
    assert amount(top, ()).files == 3


def test_counting_has_an_end(home: Path) -> None:
    top = make(home / "many", *(f"file-{number}" for number in range(50)))
    some = amount(top, (), most=10)
    assert (some.files, some.whole) == (10, False)
    none = amount(top, (), seconds=-1.0)
    assert (none.files, none.whole) == (0, False)
    assert not amount(home / "is not there", ()).whole


def test_listing_has_an_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = make(home / "Téléchargements/Telegram Desktop", *(f"photo-{number}" for number in range(50)))
    assert len(setup_search.listing(downloads, ())) == 50
    monkeypatch.setattr(setup_search, "MOST_LISTED", 10)
    assert len(setup_search.listing(downloads, ())) == 10


def test_places_are_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # not to be followed
    monkeypatch.delenv("XDG_DOWNLOAD_DIR", raising=False)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/user-dirs.dirs").write_text('XDG_DOWNLOAD_DIR="$HOME/Téléchargements"\n')
    found = bases()
    assert found[Base.HOME] == tmp_path
    assert found[Base.CONFIG] == tmp_path / "elsewhere"
    assert found[Base.DATA] == tmp_path / ".local/share"
    assert found[Base.DOWNLOADS] == tmp_path / "Téléchargements"
