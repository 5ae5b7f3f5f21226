"""What is taken for an application's directory, and what is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chatkeep.config.applications import APPLICATIONS, Application, free_name, known_as, recognised, worth_listing
from chatkeep.config.model import NAME, PATTERN
from chatkeep.daemon.capture.exclude import Exclusions

BY_NAME = {application.name: application for application in APPLICATIONS}
GENUINE = {
    "Signal": ["config.json", "sql/", "sql/db.sqlite", "attachments.noindex/"],
    "Telegram": ["tdata/", "tdata/key_datas"],
    "Telegram-exports": ["ChatExport_2026-06-12 (1)/", "ChatExport_2026-06-12 (1)/result.json"],
    "Element": ["IndexedDB/", "IndexedDB/vector_vector_0.indexeddb.leveldb/"],
    "Beeper": ["index.db", "account.db"],
    "WhatsApp-phone": ["Databases/", "Databases/msgstore.db.crypt15", "Media/"],
    "WhatsApp-exports": ["WhatsApp Chat with Ann.txt"],
    "iMessage": ["chat.db", "Attachments/"],
}


def listed(*entries: str) -> dict[str, bool]:
    return {entry.rstrip("/"): entry.endswith("/") for entry in entries}


@pytest.mark.parametrize("name", GENUINE)
def test_genuine_ones_are_known_for_what_they_are(name: str) -> None:
    there = listed(*GENUINE[name])
    assert recognised(BY_NAME[name], there)
    assert known_as(there) is BY_NAME[name]


def test_every_application_has_an_example_here() -> None:
    assert GENUINE.keys() == BY_NAME.keys()


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("WhatsApp-phone", ["WhatsApp/", "WhatsApp/Databases/", "WhatsApp/Databases/msgstore.db.crypt14"]),
        ("WhatsApp-phone", ["Databases/", "Databases/msgstore-2026-01-31.1.db.crypt14"]),
        ("WhatsApp-exports", ["_chat.txt", "00000335-PHOTO-2023-09-08-13-42-59.jpg"]),
        ("WhatsApp-exports", ["WhatsApp-Chat mit Ann.zip"]),
        ("Telegram-exports", ["DataExport_2026-01-31/", "DataExport_2026-01-31/export_results.html"]),
        ("Element", ["EventStore/", "Local Storage/", "IndexedDB/"]),
    ],
)
def test_they_come_in_several_shapes(name: str, entries: list[str]) -> None:
    assert known_as(listed(*entries)) is BY_NAME[name]


@pytest.mark.parametrize(
    "entries",
    [
        [],
        ["config.json", "sql/"],  # Signal was removed, and its database with it
        ["config.json", "sql/", "sql/db.sqlite/"],  # a directory of that name
        ["sql/", "sql/db.sqlite"],  # some application's database
        ["tdata/", "tdata/key_datas/"],
        ["key_datas"],  # tdata itself: its caches would have other paths
        ["ChatExport_2026/"],  # an export that was broken off
        ["result.json", "messages.html"],
        ["IndexedDB/", "IndexedDB/https_app.example_0.indexeddb.leveldb/"],  # another of Electron's applications
        ["Local Storage/", "IndexedDB/"],
        ["index.db"],
        ["Databases/", "Databases/notes.db", "Media/"],
        ["Databases/", "Databases/msgstore-increment-1.db.crypt15"],  # a part that nothing reads on its own
        ["chat.txt", "my WhatsApp Chat.txt"],
        ["chat.db"],  # anybody's
        ["chat.db", "Attachments"],  # a file of that name
    ],
)
def test_what_only_looks_similar_is_not_taken(entries: list[str]) -> None:
    assert known_as(listed(*entries)) is None


def test_only_what_can_tell_is_looked_into() -> None:
    signal = [BY_NAME["Signal"]]
    assert worth_listing(signal, "sql")
    assert not worth_listing(signal, "attachments.noindex")
    assert not worth_listing(signal, "sql/db.sqlite")
    assert worth_listing([BY_NAME["Telegram-exports"]], "ChatExport_2026-06-12")
    assert not worth_listing([BY_NAME["Telegram-exports"]], "holidays")


@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda one: one.name)
def test_what_is_proposed_is_right_in_a_configuration(application: Application) -> None:
    assert re.search(NAME, application.name)
    assert all(re.search(PATTERN, pattern) for pattern in application.exclude)
    assert application.places
    assert application.note == "" or application.note.endswith(".")


@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda one: one.name)
def test_what_makes_it_worth_keeping_is_not_left_out(application: Application) -> None:
    left_out = Exclusions(application.exclude)
    kept = [*GENUINE[application.name], *KEPT.get(application.name, ())]
    for entry in kept:
        assert not left_out.match(entry.rstrip("/").encode(), entry.endswith("/")), entry


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("Signal", "Cache/"),
        ("Signal", "Code Cache/"),
        ("Signal", "DawnWebGPUCache/"),
        ("Signal", "Partitions/x/Code Cache/"),
        ("Element", "Service Worker/CacheStorage/"),
        ("Signal", "SingletonLock"),
        ("Signal", "update-cache/"),
        ("Telegram", "tdata/user_data#2/media_cache/"),
        ("Telegram", "tdata/user_data/cache/"),
        ("Telegram", "log_start0.txt"),
        ("Element", "GPUCache/"),
        ("Beeper", "logs/"),
        ("WhatsApp-phone", "Media/.Thumbs/"),
    ],
)
def test_what_comes_again_by_itself_is_left_out(name: str, entry: str) -> None:
    left_out = Exclusions(BY_NAME[name].exclude)
    assert left_out.match(entry.rstrip("/").encode(), entry.endswith("/"))


KEPT = {
    "Signal": ["sql/db.sqlite-wal", "attachments.noindex/", "stickers.noindex/", "avatars.noindex/", "Local Storage/"],
    "Telegram": ["tdata/temp_data#2/", "tdata/settingss", "tdata/D877F783D5D3EF8C/"],
    "Element": [
        "Service Worker/",
        "Service Worker/Database/",
        "Partitions/x/Local Storage/",
        "EventStore/",
        "EventStore/events.db",
        "Local Storage/",
        "electron-config.json",
        "Cookies",
    ],
    "Beeper": ["media/", "local-whatsapp/", "local-whatsapp/megabridge.db"],
    "WhatsApp-phone": ["Media/", "Media/WhatsApp Images/", "Backups/"],
}


def test_a_name_that_is_taken_is_not_given_again() -> None:
    assert free_name(["Signal", "Signal-snap"], []) == "Signal"
    assert free_name(["Signal", "Signal-snap"], ["Signal"]) == "Signal-snap"
    assert free_name(["Signal", "Signal-snap"], ["Signal", "Signal-snap"]) == "Signal-2"
    assert free_name(["Signal"], ["Signal", "Signal-2"]) == "Signal-3"


def test_the_page_names_every_application_and_what_it_is_known_by() -> None:
    page = (Path(__file__).parents[3] / "docs/applications.md").read_text()
    for application in APPLICATIONS:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {application.title} |")]
        first = application.places[0].path
        assert first in row or first.rpartition("/")[2] in row, application.name
