"""What is said of storage that refuses before there is a configuration."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from chatkeep.config import storages
from chatkeep.config.errors import ChatkeepError
from chatkeep.config.model import ProviderConfig
from chatkeep.daemon.cli import provider_findings as findings
from chatkeep.daemon.cli import setup_storage, words_of_setup
from chatkeep.daemon.cli.output import Output
from chatkeep.daemon.cli.provider_findings import Check
from chatkeep.daemon.cli.provider_trial import Tried
from chatkeep.daemon.cli.saying import AGAIN
from chatkeep.daemon.cli.setup_draft import Asked, from_options
from chatkeep.daemon.cli.setup_storage import SecretFiles, Storing
from chatkeep.daemon.cli.telling import tell
from chatkeep.daemon.cli.words import WORDS
from chatkeep.daemon.cli.words_of_cases import CASES
from chatkeep.providers import base

WRONG = ("configuration", "next backup", "What waits", "What a backup", "chatkeep providers", "chatkeep mirror")
CODES = (
    *("unavailable", "throttled", "quota-exceeded", "permission-refused", "storage-credential-refused"),
    *("login-needed", "storage-missing", "clock-refused", "opendal-service-unknown", "opendal-options-refused"),
)
SAID = [*((code, "") for code in CODES), *((code, reason) for code, reason in CASES if code in CODES)]


@pytest.mark.parametrize(("code", "reason"), SAID)
def test_no_remedy_speaks_of_what_is_not_there_yet(code: str, reason: str) -> None:
    words = CASES.get((code, reason)) or WORDS[code]
    said = words_of_setup.remedy(code, reason, words.remedy)
    assert said
    assert not [wrong for wrong in WRONG if wrong in said], said


def test_every_remedy_belongs_to_something_that_is_told() -> None:
    assert all(code in WORDS and (not reason or (code, reason) in CASES) for code, reason in words_of_setup.REMEDIES)


def tried(error: ChatkeepError) -> Tried:
    return Tried((findings.failed(Check.REACH, error),), 0)


def test_what_storage_refuses_is_told_with_what_helps_in_setup() -> None:
    config = ProviderConfig("s3", "s3", storages.S3Options("chats"))
    error = base.CredentialRefused(provider="s3")
    assert "configuration" in tell(error).remedy
    with pytest.raises(base.CredentialRefused) as caught:
        setup_storage.require_enough(config, tried(error))
    assert "--secret-file" in tell(caught.value).remedy
    late = base.Unavailable(provider="s3", reason="timeout")
    assert tell(late).remedy == AGAIN
    row = setup_storage._softened(config, findings.failed(Check.REACH, late))
    assert row.remedy == words_of_setup.ANEW


def test_a_password_on_the_command_line_is_not_said_to_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "chat").mkdir()
    storing = Storing(type="s3", settings=("bucket=chats", "endpoint=http://me:hunter2@host"))
    asked = Asked((tmp_path / "chat",), every=False, storing=storing, files=SecretFiles(tmp_path), tries=False)
    with pytest.raises(click.UsageError) as caught:
        from_options(Output(), tmp_path / "c.yaml", (), asked)
    said = caught.value.format_message()
    assert said.startswith("endpoint: a secret is in it")
    assert "--secret-file" in said
    assert "this file" not in said
    assert "hunter2" not in said
