"""What a reply of Drive means, whatever is in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatkeep.config.errors import Disposition
from chatkeep.providers import base
from chatkeep.providers.gdrive_names import by_name, in_folder, properties, the_folder
from chatkeep.providers.gdrive_replies import DAY, drive_file, error_of, reason_of
from tests.support.fake_drive.queries import parse

FILE = {"id": "1a", "name": "a/b", "size": "10", "createdTime": "2026-05-01T10:00:00.000Z", "mimeType": "x/y"}


def error(status: int, reason: str, **headers: str) -> base.ProviderError:
    body = json.dumps({"error": {"code": status, "errors": [{"reason": reason}], "message": "secret?"}}).encode()
    found = error_of(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, body, 0.0, provider="drive"
    )
    assert found.params["reason"] == reason
    assert "secret" not in str(found)
    return found


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (403, "rateLimitExceeded", base.Throttled),
        (403, "userRateLimitExceeded", base.Throttled),
        (403, "sharingRateLimitExceeded", base.Throttled),
        (429, "rateLimitExceeded", base.Throttled),
        (403, "dailyLimitExceeded", base.Throttled),
        (403, "storageQuotaExceeded", base.QuotaExceeded),
        (403, "teamDriveFileLimitExceeded", base.QuotaExceeded),
        (403, "numChildrenInNonRootLimitExceeded", base.QuotaExceeded),
        (403, "insufficientPermissions", base.LoginNeeded),
        (403, "insufficientFilePermissions", base.PermissionRefused),
        (403, "appNotAuthorizedToFile", base.PermissionRefused),
        (403, "domainPolicy", base.PermissionRefused),
        (403, "accessNotConfigured", base.PermissionRefused),
        (401, "authError", base.LoginNeeded),
        (400, "badRequest", base.Unavailable),
        (500, "backendError", base.Unavailable),
        (502, "backendError", base.Unavailable),
        (503, "backendError", base.Unavailable),
    ],
)
def test_published_reasons(status: int, reason: str, kind: type[base.ProviderError]) -> None:
    found = error(status, reason)
    assert type(found) is kind
    assert (found.disposition is Disposition.RETRY) == (kind in (base.Throttled, base.Unavailable))


def test_how_long_to_wait() -> None:
    for found, after in (
        (error(429, "rateLimitExceeded", retry_after="9"), 9.0),
        (error(403, "userRateLimitExceeded"), None),
        (error(503, "backendError", retry_after="30"), 30.0),
        (error(403, "dailyLimitExceeded"), DAY),
    ):
        assert isinstance(found, base.Throttled)
        assert found.after == after


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"code": 403, "status": "PERMISSION_DENIED"}}', "PERMISSION_DENIED"),
        (b'{"error": {"errors": [{"reason": "two words"}]}}', None),
        (b'{"error": {"errors": [{"reason": "' + b"x" * 65 + b'"}]}}', None),
        (b'{"error": {"errors": ["text"]}}', None),
        (b'{"error": "invalid_grant"}', None),
        (b'{"error": {"errors": [{"reason": 7}]}}', None),
        (b"<html>", None),
        (b"", None),
        (b"[" * 100_000, None),
        (b"\xff", None),
    ],
)
def test_reasons_are_words(body: bytes, reason: str | None) -> None:
    assert reason_of(body) == reason


def test_a_file() -> None:
    found = drive_file({**FILE, "sha256Checksum": "A" * 64, "md5Checksum": "b" * 31, "trashed": False})
    assert found is not None
    assert (found.id, found.size, found.sha256, found.md5) == ("1a", 10, "a" * 64, None)
    assert found.created == 1777629600.0


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": None},
        {"name": 7},
        {"size": None},
        {"size": 10},
        {"size": "-1"},
        {"size": "\u0663"},
        {"size": "9" * 19},
        {"createdTime": "yesterday"},
        {"createdTime": "2026-05-01T10:00:00"},
        {"createdTime": None},
    ],
)
def test_what_is_no_file(change: dict[str, Any]) -> None:
    assert drive_file({**FILE, **change}) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FILE, "errors", "error"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(_JSON)
def test_anything_at_all(found: object) -> None:
    drive_file(found)
    if isinstance(found, dict):
        drive_file({**FILE, **found})
    reason_of(json.dumps(found).encode())


@given(st.text(max_size=30))
def test_every_text_is_quoted(text: str) -> None:
    """A name of a folder with quotes and backslashes in it asks for that folder, not for another question."""

    class Named:
        name = text
        mime = "application/vnd.google-apps.folder"

        def parents_seen(self) -> list[str]:
            return ["root"]

        def is_trashed(self) -> bool:
            return False

    assert parse(the_folder(text))(Named())  # type: ignore[arg-type]


def test_every_level_of_a_name_can_be_asked_for() -> None:
    name = f"d/{'a' * 32}/s/{'b' * 32}/{'0' * 12}-{'c' * 64}"
    marks = properties(name)
    assert marks == {"a1": "d", "a2": f"d/{'a' * 32}", "a3": f"d/{'a' * 32}/s", "a4": f"d/{'a' * 32}/s/{'b' * 32}"}
    for end in range(len(name) + 1):
        query = in_folder("1f", name[:end])
        level = name[:end].count("/")
        assert (f"key='a{level}'" in query) == (level > 0)
    for long in ("/".join(["a" * 40] * 4) + "/x", "/".join("a" * 100)):
        marks = properties(long)
        assert all(len(f"{key}{value}".encode()) <= 124 for key, value in marks.items())
        assert len(marks) <= 8
        assert in_folder("1f", long).count("key=") == 1
    assert by_name("1f", "a/b") == "'1f' in parents and trashed = false and name = 'a/b'"
