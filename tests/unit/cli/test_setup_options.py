"""What setup asks of a type of storage, and the provider that comes of the answers."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import MappingProxyType

import click
import pytest

from chatkeep.config import storages
from chatkeep.config.loader import parse
from chatkeep.config.proposal import ProposedSource, text
from chatkeep.daemon.cli import setup_options, setup_storage
from chatkeep.daemon.cli.setup_options import Held
from chatkeep.daemon.cli.setup_storage import SecretFiles, Storing, secret_files

EVERY: Mapping[str, type] = MappingProxyType(
    {
        "folder": storages.FolderOptions,
        "s3": storages.S3Options,
        "gdrive": storages.DriveOptions,
        "icloud": storages.CloudKitOptions,
        "webdav": storages.WebdavOptions,
        "opendal": storages.OpendalOptions,
    }
)
HOME = Path.home()


@pytest.fixture(autouse=True)
def every_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "BUILT_IN_OPTIONS", EVERY)


def loaded(storing: Storing, files: SecretFiles) -> object:
    """The options as the loader reads them from the file that would be written."""
    chosen = setup_storage.from_options(storing, files)
    written = text([ProposedSource("chat", Path("/chat"))], chosen.provider, HOME, None)
    (provider,) = parse(written, Path("chatkeep.yaml")).providers
    assert provider.type == storing.word
    return provider.options


def test_every_type_is_known_and_can_be_asked_for() -> None:
    assert setup_options.KINDS.keys() == EVERY.keys()
    for word in EVERY:
        known = setup_options.keys(word)
        kind = setup_options.kind(word)
        assert {*kind.besides, *kind.secrets} <= known.keys()
        assert all(known[name].key.secret for name in kind.secrets)
        asked = {shape.name for shape in setup_options.asked_for(word)}
        assert {name for name, shape in known.items() if shape.required} <= asked


def test_s3_from_options(tmp_path: Path) -> None:
    given = ("bucket=chats", "endpoint=http://127.0.0.1:9000", "retain=30 days", "prefix=laptop")
    key = tmp_path / "key"
    key.write_text("AKIA\nSECRET\n")
    files = SecretFiles(tmp_path / "etc")
    options = loaded(Storing(type="s3", settings=given, secret_files=(str(key),)), files)
    assert isinstance(options, storages.S3Options)
    assert (options.bucket, options.endpoint, options.prefix) == ("chats", "http://127.0.0.1:9000", "laptop")
    assert options.retain == 30 * 86400
    assert options.credentials_file == tmp_path / "etc/s3-credentials"
    assert not options.credentials_file.exists(), "nothing is written before it is wanted"


def test_several_options_of_one_key() -> None:
    given = ("service=azblob", "options.container=chats", "options.root=/x", "options_file=credential:azure")
    options = loaded(Storing(type="opendal", settings=given), SecretFiles(Path("/etc/x")))
    assert options == storages.OpendalOptions("azblob", {"container": "chats", "root": "/x"}, Path("credential:azure"))


def test_a_path_may_be_written_as_people_write_it() -> None:
    given = ("client_file=~/client.json", "folder=my chats")
    options = loaded(Storing(type="gdrive", settings=given), SecretFiles(Path("/etc/x")))
    assert options == storages.DriveOptions(HOME / "client.json", "my chats")


@pytest.mark.parametrize(
    ("storing", "said"),
    [
        (Storing(type="webdaf"), "Did you mean 'webdav'?"),
        (Storing(type="s3", settings=("bukket=x",)), "Did you mean 'bucket'?"),
        (Storing(type="s3", settings=("bucket",)), "takes KEY=VALUE"),
        (Storing(type="opendal", settings=("options=x",)), "options.NAME=VALUE"),
        (Storing(type="folder", secret_files=("/x",)), "no key that names a secret file"),
        (Storing(type="s3", secret_files=("/there/is/none",)), "No such file"),
        (Storing(type="webdav", store=Path("/x")), "--store names a directory"),
        (Storing(settings=("bucket=x",)), "--type"),
        (Storing(), "--store FOLDER"),
    ],
)
def test_what_cannot_be_meant(storing: Storing, said: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        setup_storage.from_options(storing, SecretFiles(Path("/etc/x")))
    assert said in caught.value.format_message()


@pytest.mark.parametrize(
    ("held", "given", "kept"),
    [
        (Held.LINE, "s3cret \n", "s3cret \n"),
        (Held.LINE, "s3cret", "s3cret\n"),
        (Held.LINE, "two\nlines", None),
        (Held.LINE, "\n", None),
        (Held.KEY_PAIR, "AK\nSK\n", "[default]\naws_access_key_id = AK\naws_secret_access_key = SK\n"),
        (Held.KEY_PAIR, "[x]\naws_access_key_id = A\n", "[x]\naws_access_key_id = A\n"),
        (Held.KEY_PAIR, "one", None),
        (Held.PAIRS, "a=b\n\nc=d=\n", "a=b\nc=d=\n"),
        (Held.PAIRS, "a=b\nc", None),
        (Held.PAIRS, "=b", None),
        (Held.FILE, "{}\n", "{}\n"),
        (Held.FILE, "", None),
    ],
)
def test_the_form_of_a_secret(held: Held, given: str, kept: str | None) -> None:
    assert setup_options.secret_text(held, given) == kept


def chosen(tmp_path: Path, files: SecretFiles, password: str) -> setup_options.Chosen:
    given = tmp_path / "given"
    given.write_text(password)
    return setup_storage.from_options(
        Storing(type="webdav", settings=("url=https://h/x",), secret_files=(f"password_file={given}",)), files
    )


def test_a_secret_is_for_this_user_alone_and_never_replaces_another(tmp_path: Path) -> None:
    beside = tmp_path / "etc"
    with secret_files(beside) as files:
        first = chosen(tmp_path, files, "one")
        files.write(first.secrets)
        files.keep()
    file = beside / "webdav-password"
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("one\n", 0o600)
    assert stat.S_IMODE(beside.stat().st_mode) == 0o700

    with secret_files(beside) as files:
        again = chosen(tmp_path, files, "one")
        assert again.secrets[0].path == file, "the same secret has its file already"
        files.write(again.secrets)
        other = chosen(tmp_path, files, "two")
        assert other.secrets[0].path == beside / "webdav-password-2"
        files.write(other.secrets)
        assert sorted(os.listdir(beside)) == ["webdav-password", "webdav-password-2"]
    assert os.listdir(beside) == ["webdav-password"], "what no configuration names is taken away, and nothing else"


def test_a_file_that_others_may_read_is_not_taken_for_the_secret(tmp_path: Path) -> None:
    (tmp_path / "webdav-password").write_text("one\n")
    (tmp_path / "webdav-password").chmod(0o644)
    assert chosen(tmp_path, SecretFiles(tmp_path), "one").secrets[0].path == tmp_path / "webdav-password-2"


def test_no_secret_is_in_what_is_written_or_shown(tmp_path: Path) -> None:
    found = chosen(tmp_path, SecretFiles(tmp_path), "hunter2")
    assert "hunter2" not in text([ProposedSource("c", Path("/c"))], found.provider, HOME, None)
    assert "hunter2" not in repr(found)


def config_of(storing: Storing, files: SecretFiles) -> str:
    chosen = setup_storage.from_options(storing, files)
    return text([ProposedSource("chat", Path("/chat"))], chosen.provider, HOME, None)


def test_what_a_configuration_that_is_there_lacks(tmp_path: Path) -> None:
    files = SecretFiles(tmp_path)
    here = parse(config_of(Storing(type="s3", settings=("bucket=chats", "retain=30 days")), files), Path("c.yaml"))
    same = Storing(type="s3", settings=("bucket=chats", "retain=30 days"))
    assert setup_storage.lacking(here, same) == []
    assert setup_storage.lacking(here, Storing()) == []
    other = Storing(type="s3", settings=("bucket=chats", "prefix=x"))
    assert setup_storage.lacking(here, other) == ["--set prefix=x"]
    assert setup_storage.lacking(here, Storing(type="gdrive")) == ["--type gdrive"]
    assert setup_storage.lacking(here, Storing(store=Path("/x"))) == ["--store /x"]


def test_a_type_of_a_package_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("broken", "no_such_module:TYPE", storages.GROUP)
    monkeypatch.setattr(storages, "entry_of", lambda word: entry if word == "broken" else None)
    assert "no_such_module" in setup_options.kind("broken").title
    with pytest.raises(click.BadParameter, match="cannot be used"):
        setup_options.require_kind("broken")
