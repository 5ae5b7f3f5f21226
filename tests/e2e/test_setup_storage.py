"""`chatkeep setup` for storage that is no folder: a bucket of S3, with questions and without, and with every slip."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.support.newcomer import Newcomer, states, typed_back
from tests.support.station import rows
from tests.support.terminal import Answer

KEY, SECRET = "AKIAEXAMPLE", "a-secret-that-is-never-shown"


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    made = Newcomer(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        made.environment.pop(name, None)
    made.environment |= {"AWS_EC2_METADATA_DISABLED": "true"}
    made.signal()
    return made


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 in this process, with a bucket `chats`."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        client = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key=SECRET
        )
        client.create_bucket(Bucket="chats")
        yield url
    finally:
        server.stop()


def options(newcomer: Newcomer, endpoint: str, bucket: str = "chats") -> list[object]:
    secret = newcomer.room / "secret"
    secret.write_text(f"{KEY}\n{SECRET}\n")
    key = ("--recovery-key-file", newcomer.key)
    words = ("setup", "--all-found", "--type", "s3", "--set", f"bucket={bucket}", "--set", f"endpoint={endpoint}")
    return [*words, "--set", f"prefix={newcomer.room.name.replace('_', '-')}", "--secret-file", secret, *key]


def files(newcomer: Newcomer) -> set[str]:
    return set(os.listdir(newcomer.config.parent)) if newcomer.config.parent.exists() else set()


def test_at_a_terminal_with_a_slip_to_a_backup(newcomer: Newcomer, endpoint: str) -> None:
    talk: list[tuple[str, Answer]] = [
        ("all, or none", "all"),
        ("Enter to go on", ""),
        ("or kind of storage", "webdaf"),
        ("or kind of storage", "s3"),
        ("bucket", "no-such-bucket"),
        ("prefix", "mine"),
        ("region", ""),
        ("endpoint", endpoint),
        ("Access key id", KEY),
        ("not shown", SECRET),
        ("Answer anew?", "y"),
        ("or kind of storage", ""),  # what was said before need not be typed again
        ("bucket", "chats"),
        ("prefix", ""),
        ("region", ""),
        ("endpoint", ""),
        ("Access key id", ""),
        ("Go on?", ""),
        ("Add one now?", "n"),
        ("Add a passphrase?", "n"),
        *typed_back(),
    ]
    code, shown = newcomer.at_terminal(talk)
    assert code == 0, shown
    assert "Nothing can be backed up there now." in shown[: shown.index("Answer anew?")]
    assert "Backups can go there." in shown[shown.index("Answer anew?") :]
    assert "Did you mean webdav?" in shown
    assert SECRET not in shown
    assert SECRET not in newcomer.config.read_text()
    kept = newcomer.config.parent / "s3-credentials"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert SECRET in kept.read_text()
    assert files(newcomer) == {"chatkeep.yaml", "s3-credentials"}
    assert "Everything is set up." in shown
    seen = [re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", line.rpartition("\x1b[K")[2]) for line in shown.splitlines()]
    wide = [line for line in seen if len(line) > 80 and str(newcomer.room) not in line]
    assert wide == []


def test_by_options_alone_and_again(newcomer: Newcomer, endpoint: str) -> None:
    words = options(newcomer, endpoint)
    done = newcomer.ok(*words)
    assert [states(done)[step] for step in ("configuration", "vault", "snapshot")] == ["done"] * 3
    assert done["providers"] == [{"name": "s3", "type": "s3"}]
    assert files(newcomer) == {"chatkeep.yaml", "s3-credentials"}
    target = newcomer.room / "out"
    newcomer.ok("restore", "latest", "--target", target, "--key-file", newcomer.key)
    assert len(rows(target / "sql/db.sqlite")) == 200
    again = newcomer.ok(*words)
    assert states(again)["configuration"] == "already"
    assert files(newcomer) == {"chatkeep.yaml", "s3-credentials"}, "safe to run again"
    differs = newcomer.run(*words, "--set", "region=elsewhere")
    assert (differs.code, differs.error) == (2, "config-differs")


def test_what_storage_refuses_is_told_before_anything_is_written(newcomer: Newcomer, endpoint: str) -> None:
    before = newcomer.everything()
    done = newcomer.run(*options(newcomer, endpoint, "no-such-bucket"))
    assert (done.code, done.error) == (4, "storage-missing")
    assert newcomer.everything() == before
    gone = newcomer.run(*options(newcomer, "http://127.0.0.1:9"))  # discard: nobody listens there
    assert (gone.code, gone.error) == (4, "unavailable")
    assert not files(newcomer)


def test_a_plan_asks_no_storage_and_writes_nothing(newcomer: Newcomer) -> None:
    before = newcomer.everything()
    done = newcomer.ok(*options(newcomer, "http://127.0.0.1:9"), "--dry-run")
    assert "credentials_file: ~/.config/chatkeep/s3-credentials" in done["configuration"]["text"]
    assert newcomer.everything() == before


def test_a_key_that_the_type_does_not_have(newcomer: Newcomer, endpoint: str) -> None:
    done = newcomer.run(*options(newcomer, endpoint), "--set", "secret_access_key=x")
    assert (done.code, done.error) == (2, "usage")
    wrong = newcomer.run(*options(newcomer, "not a url"))
    assert (wrong.code, wrong.error) == (2, "usage")
    assert "chatkeep.yaml" not in wrong.json["error"]["text"]
    assert not files(newcomer)
