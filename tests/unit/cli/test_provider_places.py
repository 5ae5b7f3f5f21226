"""Where a provider is, in words: short, and without anything secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatkeep.config import storages
from chatkeep.config.model import ProviderConfig
from chatkeep.daemon.cli.provider_places import place

HOME = Path("/home/a")
S3 = storages.S3Options


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (storages.FolderOptions(HOME / "backup"), "~/backup"),
        (S3("chats"), "chats"),
        (S3("chats", region="eu-central-1"), "chats at eu-central-1"),
        (S3("chats", prefix="laptop", endpoint="http://127.0.0.1:9000/"), "chats/laptop at 127.0.0.1:9000"),
        (storages.DriveOptions(Path("/client.json")), "My Drive/chatkeep"),
        (storages.CloudKitOptions("iCloud.org.example", "ab", Path("/key")), "iCloud.org.example, production"),
        (storages.WebdavOptions("https://cloud.example.org/dav/me/"), "cloud.example.org/dav/me"),
        (storages.OpendalOptions("azblob", {"container": "chats", "root": "/x/"}), "azblob chats/x"),
        (storages.OpendalOptions("fs", {"root": "/mnt/x"}), "fs /mnt/x"),
        (storages.OpendalOptions("dropbox"), "dropbox"),
        (object(), ""),
    ],
)
def test_places(options: object, expected: str) -> None:
    assert place(ProviderConfig("p", "t", options), HOME) == expected


def test_a_key_in_the_options_is_not_shown() -> None:
    hidden = storages.OpendalOptions("azblob", {"container": "chats", "account_key": "SECRET", "endpoint": "SECRET"})
    assert "SECRET" not in place(ProviderConfig("p", "opendal", hidden), HOME)
    # The loader refuses these; a type of another version might not.
    for url in ("https://me:SECRET@host/dav", "https://host/dav?key=SECRET"):
        assert place(ProviderConfig("p", "webdav", storages.WebdavOptions(url)), HOME) == "host/dav"
    assert place(ProviderConfig("p", "s3", S3("b", endpoint="https://k:SECRET@host:1")), HOME) == "b at host:1"


def test_for_a_program_paths_are_whole() -> None:
    assert place(ProviderConfig("p", "folder", storages.FolderOptions(HOME / "x")), None) == "/home/a/x"
