"""Google Drive as it is opened from a configuration: without a request, and only for Google."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chatkeep.config.loader import load
from chatkeep.config.storages import DriveOptions
from chatkeep.providers import base, registry
from chatkeep.providers.gdrive import DriveProvider
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.registry import Opening
from chatkeep.providers.wrap.around import Around

CLIENT = {
    "installed": {
        "client_id": "1-x.apps.googleusercontent.com",
        "client_secret": "GOCSPX-of-a-test",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "redirect_uris": ["http://localhost"],
    }
}


@pytest.fixture
def client(tmp_path: Path) -> Path:
    path = tmp_path / "client.json"
    path.write_text(json.dumps(CLIENT))
    path.chmod(0o600)
    return path


def test_from_a_configuration(client: Path, tmp_path: Path) -> None:
    source = tmp_path / "chats"
    source.mkdir()
    file = tmp_path / "chatkeep.yaml"
    file.write_text(
        f"sources: [{source}]\nproviders:\n  - name: drive\n    type: gdrive\n    client_file: {client}\n"
        f"state_dir: {tmp_path / 'state'}\n"
    )
    config = load(file).providers[0]
    assert config.options == DriveOptions(client)
    provider = registry.open_provider(config)
    assert isinstance(provider, Around)
    inner = provider.inner
    assert isinstance(inner, DriveProvider)
    transport = inner._files.google.transport
    assert transport.origins == {"https://www.googleapis.com", "https://oauth2.googleapis.com"}
    with pytest.raises(base.LoginNeeded) as caught:  # before any request
        provider.get("a")
    assert caught.value.params == {"provider": "drive", "reason": "never", "object": "a"}
    assert transport._idle == {}
    provider.close()


def test_every_address_is_at_the_endpoint(client: Path) -> None:
    """Calls, uploads and batches are made from one origin: the trap is that a client made otherwise keeps Google's."""
    from chatkeep.providers.gdrive import open_drive

    endpoint = "http://127.0.0.1:9"
    provider = open_drive(Opening("drive", DriveOptions(client), MemoryMemo()), endpoint=endpoint)
    files = provider._files._files
    requests = [
        files.get(fileId="x"),
        files.get_media(fileId="x"),
        files.list(),
        files.generateIds(),
        files.create(body={}),
    ]
    assert [each.uri.startswith(f"{endpoint}/drive/v3/") for each in requests] == [True] * 5
    from googleapiclient.http import MediaInMemoryUpload

    for resumable in (False, True):
        media = MediaInMemoryUpload(b"x", resumable=resumable)
        assert files.create(body={}, media_body=media).uri.startswith(f"{endpoint}/upload/drive/v3/")
    provider.close()


@pytest.mark.parametrize("mode", [0o644, 0o604])
def test_a_client_file_that_others_may_read(client: Path, mode: int) -> None:
    client.chmod(mode)
    with pytest.raises(base.SecretFileRefused) as caught:
        registry.provider_type("gdrive").open(Opening("drive", DriveOptions(client), MemoryMemo()))
    assert caught.value.params["reason"] == "mode"
    assert "GOCSPX" not in str(caught.value)


@pytest.mark.parametrize("package", ["googleapiclient.discovery", "google.oauth2.credentials", "httplib2"])
def test_without_the_client_library(client: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(base.ClientMissing) as caught:
        registry.provider_type("gdrive").open(Opening("drive", DriveOptions(client), MemoryMemo()))
    assert caught.value.params == {
        "provider": "drive",
        "type": "gdrive",
        "package": "google-api-python-client",
        "extra": "gdrive",
    }


def test_nothing_of_google_is_loaded_before_it_is_opened() -> None:
    code = (
        "import sys, chatkeep.providers.gdrive, chatkeep.providers.google_login\n"
        "print([each for each in sys.modules if each.split('.')[0] in ('google', 'googleapiclient', 'httplib2')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
