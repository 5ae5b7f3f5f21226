"""The types of providers: their keys, packages that bring one, and secrets that stand where none belongs."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import pytest
import yaml

from chatkeep.config import storages
from chatkeep.config.amounts import UNLIMITED, Duration, Rate, TimeOfDay
from chatkeep.config.example import example
from chatkeep.config.key import Key
from chatkeep.config.loader import load_providers, memory, parse
from chatkeep.config.model import ProviderConfig, shapes
from chatkeep.config.problems import ConfigInvalid, Problem, Reason
from chatkeep.config.schema import schema
from chatkeep.config.secrecy import holds_password, looks_secret
from chatkeep.daemon.cli.main import main as chatkeep
from chatkeep.providers import base, registry
from tests.support.memory_provider import MemoryProvider
from tests.unit.config.test_example import switched_on, valid

FILE = Path("c.yaml")
KINDS = {
    "folder": storages.FolderOptions,
    "s3": storages.S3Options,
    "gdrive": storages.DriveOptions,
    "icloud": storages.CloudKitOptions,
    "webdav": storages.WebdavOptions,
    "opendal": storages.OpendalOptions,
}


@pytest.fixture
def every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every class of options has its word, also one whose provider is not there."""
    monkeypatch.setattr(storages, "BUILT_IN_OPTIONS", MappingProxyType(KINDS))


def provider(text: str) -> ProviderConfig:
    return parse(f"sources: [/a]\nproviders:\n  - {{name: d, {text}}}\n", FILE).providers[0]


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigInvalid) as caught:
        provider(text)
    return caught.value.problems


def full(kind: str) -> str:
    text = example(kind)
    while (more := switched_on(text)) != text:
        text = more
    return text


@pytest.mark.usefixtures("every_kind")
@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_every_kind_loads_and_obeys_the_schema(kind: str) -> None:
    for text in (example(kind), full(kind)):
        (found,) = parse(text, FILE).providers
        assert (found.type, type(found.options)) == (kind, KINDS[kind])
        assert valid(yaml.safe_load(text), schema())
    for shape in shapes(KINDS[kind]):
        assert re.search(rf"(?m)^ *(- )?{shape.name}:", full(kind)), shape.name
        assert json.dumps(shape.key.doc, ensure_ascii=False) in json.dumps(schema(), ensure_ascii=False)


@pytest.mark.usefixtures("every_kind")
def test_the_schema_tells_the_kinds_apart() -> None:
    kinds = schema()["properties"]["providers"]["items"]["oneOf"]
    assert [kind["properties"]["type"] for kind in kinds if "const" in kind["properties"]["type"]]
    assert [kind["title"] for kind in kinds] == list(KINDS)
    mixed = {"name": "d", "type": "s3", "path": "/m"}
    assert not valid({"sources": ["/a"], "providers": [mixed]}, schema())


@pytest.mark.usefixtures("every_kind")
def test_what_is_written_arrives() -> None:
    found = provider(
        "type: s3, bucket: chats, prefix: a/b, endpoint: 'http://127.0.0.1:9000', retain: 30 days, "
        "credentials_file: 'credential:s3', connections: 9, "
        "limit: {upload: 500 KB/s, hours: [{from: '22:30', to: '06:00', days: [sat], upload: unlimited}]}"
    )
    assert found.options.retain == Duration(30 * 86_400)
    assert found.options.credentials_file == Path("credential:s3")
    assert (found.connections, found.limit.upload, found.limit.download) == (9, 500_000, UNLIMITED)
    (hours,) = found.limit.hours
    assert (hours.from_, hours.to, hours.days) == (TimeOfDay(22 * 60 + 30), TimeOfDay(360), ("sat",))
    assert (hours.upload, hours.download) == (UNLIMITED, None)
    opendal = provider(
        "type: opendal, service: webdav, options: {endpoint: 'http://x', depth: 3, secure: yes, n: 0x1F}"
    )
    assert opendal.options.options == {"endpoint": "http://x", "depth": "3", "secure": "yes", "n": "0x1F"}


@pytest.mark.parametrize(
    ("text", "rate", "said"),
    [
        ("500 KB/s", 500_000, "500 KB/s"),
        ("2MB/s", 2_000_000, "2 MB/s"),
        ("1000 KB/s", 1_000_000, "1 MB/s"),
        ("unlimited", UNLIMITED, "unlimited"),
    ],
)
def test_rates(text: str, rate: int, said: str) -> None:
    found = Rate.parse(text)
    assert (found, str(found)) == (rate, said)
    assert Rate.parse(said) == rate


@pytest.mark.parametrize(
    ("kind", "text", "meant"),
    [
        (Rate, "500k", "500 KB/s"),
        (Rate, "2 MiB/s", "2 MB/s"),
        (Rate, "2 MBps", "2 MB/s"),
        (Rate, "off", "unlimited"),
        (Rate, "500 kbit/s", ""),
        (Rate, "0 KB/s", ""),
        (TimeOfDay, "8", "08:00"),
        (TimeOfDay, "8:30", "08:30"),
        (TimeOfDay, "10pm", "22:00"),
        (TimeOfDay, "24:00", "00:00"),
        (TimeOfDay, "noon", ""),
    ],
)
def test_what_was_probably_meant(kind: type[Rate | TimeOfDay], text: str, meant: str) -> None:
    assert kind.parse(text) is None
    assert kind.nearest(text) == meant


@pytest.mark.usefixtures("every_kind")
@pytest.mark.parametrize(
    ("text", "reason", "key"),
    [
        ("type: s4, bucket: b", Reason.UNKNOWN_WORD, "type"),
        ("type: [s3], bucket: b", Reason.WRONG_TYPE, "type"),
        ("type: s3, bucket: b2b, style: both", Reason.UNKNOWN_WORD, "style"),
        ("type: s3, bucket: b2b, endpoint: example.org", Reason.BAD_URL, "endpoint"),
        ("type: s3, bucket: b2b, endpoint: 'https://x/?a=b'", Reason.BAD_URL, "endpoint"),
        ("type: s3, bucket: b2b, prefix: a//b", Reason.BAD_FORM, "prefix"),
        ("type: s3, bucket: b2b, retain: 5 seconds", Reason.TOO_SHORT, "retain"),
        ("type: s3, bucket: b2b, secret_access_key: hunter2", Reason.SECRET_HERE, "secret_access_key"),
        ("type: webdav, url: 'https://me:hunter2@x/dav'", Reason.SECRET_HERE, "url"),
        ("type: webdav, url: 'https://hunter2@x/dav'", Reason.BAD_URL, "url"),
        ("type: webdav, url: 'https://x/dav', password_file: hunter2", Reason.BAD_SECRET_FILE, "password_file"),
        ("type: webdav, url: 'https://x/dav', password_file: 4711", Reason.BAD_SECRET_FILE, "password_file"),
        (
            "type: webdav, url: 'https://x/dav', password_file: 'credential:../x'",
            Reason.BAD_SECRET_FILE,
            "password_file",
        ),
        ("type: webdav, url: 'https://x/dav', ca_file: 'credential:x'", Reason.NOT_ABSOLUTE, "ca_file"),
        (
            "type: opendal, service: s3, options: {secret_access_key: hunter2}",
            Reason.SECRET_HERE,
            "options.secret_access_key",
        ),
        (
            "type: opendal, service: s3, options: {endpoint: 'http://a:hunter2@b'}",
            Reason.SECRET_HERE,
            "options.endpoint",
        ),
        ("type: opendal, service: s3, options: {bucket: [x]}", Reason.WRONG_TYPE, "options.bucket"),
        ("type: opendal, service: s3, options: {bucket: }", Reason.WRONG_TYPE, "options.bucket"),
        ("type: opendal, service: s3, options: x", Reason.WRONG_TYPE, "options"),
    ],
)
def test_refused(text: str, reason: Reason, key: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = problems(text)
    assert [(problem.reason, problem.key) for problem in found] == [(reason, f"providers[0].{key}")]
    file = tmp_path / "c.yaml"
    file.write_text(f"sources: [/a]\nproviders:\n  - {{name: d, {text}}}\n")
    for more in ((), ("--json",)):
        assert chatkeep(["--config", str(file), "config", "check", *more]) == 2
        told = "".join(capsys.readouterr())
        assert key in told
        assert "hunter2" not in told
        assert "4711" not in told


@pytest.mark.usefixtures("every_kind")
def test_an_unknown_kind_is_answered_with_the_nearest_and_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = problems("type: webdva, url: x")
    assert (found.nearest, found.wanted) == ("webdav", " or ".join(KINDS))
    assert chatkeep(["config", "example", "--type", "webdva"]) == 2
    told = capsys.readouterr().err
    assert "Did you mean webdav?" in told
    assert all(kind in told for kind in KINDS)
    assert chatkeep(["config", "example", "--type", "s3"]) == 0
    assert "bucket: my-chats" in capsys.readouterr().out


@pytest.mark.usefixtures("every_kind")
@pytest.mark.parametrize(
    ("text", "reason", "wanted", "nearest"),
    [
        ("type: webdav, url: 'https://x/dav', password: hunter2", Reason.SECRET_HERE, "password_file", ""),
        ("type: webdav, url: 'https://x/dav', token: hunter2", Reason.SECRET_HERE, "token_file", ""),
        (
            "type: webdav, url: 'https://x/dav', passphrase: hunter2",
            Reason.SECRET_HERE,
            "password_file or token_file",
            "",
        ),
        ("type: s3, bucket: b2b, secret_key: hunter2", Reason.SECRET_HERE, "credentials_file", ""),
        ("type: s3, bucket: b2b, access_key: hunter2", Reason.SECRET_HERE, "credentials_file", ""),
        ("type: opendal, service: s3, api_key: hunter2", Reason.SECRET_HERE, "options_file", ""),
        ("type: webdav, url: 'https://x/dav', password: ~/x", Reason.UNKNOWN_KEY, "", "password_file"),
        ("type: webdav, url: 'https://x/dav', pasword_file: ~/x", Reason.UNKNOWN_KEY, "", "password_file"),
        ("type: folder, path: /m, password: hunter2", Reason.UNKNOWN_KEY, "", ""),
    ],
)
def test_a_secret_under_a_key_that_there_is_not(text: str, reason: Reason, wanted: str, nearest: str) -> None:
    (found,) = problems(text)
    assert (found.reason, found.wanted, found.nearest) == (reason, wanted, nearest)
    assert "hunter2" not in str(found)


@pytest.mark.usefixtures("every_kind")
def test_two_providers_that_are_one_are_refused() -> None:
    one = "{name: a, type: webdav, url: 'https://x/dav', user: me}"
    other = "{name: b, type: webdav, url: 'https://x/dav/', user: me, connections: 2}"
    third = "{name: c, type: webdav, url: 'https://x/dav2', user: me}"
    with pytest.raises(ConfigInvalid) as caught:
        parse(f"sources: [/a]\nproviders: [{one}, {other}, {third}]\n", FILE)
    (problem,) = caught.value.problems
    assert (problem.reason, problem.key, problem.other) == (Reason.SAME_STORAGE, "providers[1].type", "providers[0]")


@pytest.mark.usefixtures("every_kind")
def test_a_secret_file_inside_a_folder_that_is_storage_is_refused() -> None:
    text = "sources: [/a]\nproviders: [{{name: a, type: folder, path: /m}}, {{name: b, type: s3, bucket: chats{}}}]\n"
    for harmless in ("", ", credentials_file: /k/key", ", credentials_file: credential:m"):
        parse(text.format(harmless), FILE)
    with pytest.raises(ConfigInvalid) as caught:
        parse(text.format(", credentials_file: /m/x/key"), FILE)
    (problem,) = caught.value.problems
    assert (problem.reason, problem.key, problem.other) == (
        Reason.SECRET_IN_PROVIDER,
        "providers[1].credentials_file",
        "providers[0].path",
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("secret_access_key", "x", True),
        ("account_key", "x", True),
        ("sasToken", "x", True),
        ("refresh_token", "x", True),
        ("password", "x", True),
        ("connection_string", "x", True),
        ("credential", "x", True),
        ("endpoint", "https://a:b@c", True),
        ("access_key_id", "x", False),
        ("credential_path", "/x", False),
        ("disable_config_load", "true", False),
        ("allow_anonymous", "true", False),
        ("key", "x", True),
        ("keyspace", "x", False),
        ("bucket", "x", False),
        ("endpoint", "https://c:9000/a@b:c", False),
        ("token", "", False),
    ],
)
def test_what_looks_like_a_secret(name: str, value: str, *, expected: bool) -> None:
    assert looks_secret(name, value) is expected


def test_urls_with_a_password() -> None:
    assert holds_password("see redis://u:p@host/0")
    assert not holds_password("https://host:80/a@b")


@dataclass(frozen=True, slots=True)
class TapeOptions:
    """A tape."""

    drive: Annotated[Path, Key("Its device.", example="/dev/st0")]
    labels: Annotated[Mapping[str, str], Key("What is written on it.", example="a: b")] = field(default_factory=dict)


TAPE = registry.ProviderType(TapeOptions, lambda opening: MemoryProvider(opening.name))
BROKEN = "not a type"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Packages of somebody else, installed as pip installs them: their metadata lies on the path."""
    place = tmp_path / "tape_drive-1.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: tape-drive\nVersion: 1\n")
    (place / "entry_points.txt").write_text(
        f"[{storages.GROUP}]\ntape = {__name__}:TAPE\nbroken = {__name__}:BROKEN\ngone = no_such_module_here:TYPE\n"
        f"folder = {__name__}:TAPE\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    importlib.invalidate_caches()
    yield
    importlib.invalidate_caches()


@pytest.mark.usefixtures("packages")
def test_a_package_brings_a_type() -> None:
    config = provider("type: tape, drive: /dev/st0, labels: {year: 2026}")
    assert config.options == TapeOptions(Path("/dev/st0"), {"year": "2026"})
    opened = registry.open_provider(config)
    opened.put("a", b"x")
    assert (opened.name, opened.get("a")) == ("d", b"x")
    assert "tape" in [kind["title"] for kind in schema()["properties"]["providers"]["items"]["oneOf"]]
    assert "drive: /dev/st0" in example("tape")
    (problem,) = problems("type: tape, drve: /dev/st0, drive: /dev/st0")
    assert (problem.reason, problem.nearest) == (Reason.UNKNOWN_KEY, "drive")
    (problem,) = problems("type: tap")
    assert problem.nearest == "tape"


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("word", ["broken", "gone"])
def test_a_package_that_does_not_work_is_named_and_keeps_nothing_else_from_working(word: str) -> None:
    (problem,) = problems(f"type: {word}, drive: /dev/st0")
    assert (problem.reason, problem.key) == (Reason.TYPE_UNUSABLE, "providers[0].type")
    assert provider("type: folder, path: /m").type == "folder"
    assert next(kind["title"] for kind in schema()["properties"]["providers"]["items"]["oneOf"]) == "folder"


@pytest.mark.usefixtures("packages")
def test_a_package_does_not_replace_a_built_in_type() -> None:
    assert storages.PROVIDER_OPTIONS["folder"] is storages.FolderOptions
    assert registry.provider_type("folder").options is storages.FolderOptions


def test_a_type_that_nobody_has_is_not_opened() -> None:
    with pytest.raises(KeyError):
        registry.open_provider(ProviderConfig("d", "tape", None))


def test_a_provider_that_cannot_be_opened_says_which() -> None:
    def refuse(_opening: registry.Opening) -> base.Provider:
        raise base.SecretFileRefused(path="/x", reason="missing")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "provider_type", lambda _word: registry.ProviderType(TapeOptions, refuse))
        with pytest.raises(base.SecretFileRefused) as caught:
            registry.open_provider(ProviderConfig("disk", "tape", None))
    assert caught.value.params["provider"] == "disk"


def test_what_is_remembered_has_its_place_in_the_state_directory() -> None:
    name = "𝄞" * 100
    config = parse(f"sources: [/a]\nstate_dir: /s\nproviders: [{{name: {name}, type: folder, path: /m}}]\n", FILE)
    found = config.providers[0].memory
    assert found == memory(Path("/s"), name)
    assert found is not None
    assert found.parent == Path("/s/providers")
    assert re.fullmatch(r"[0-9a-f]{32}\.db", found.name)
    assert memory(Path("/s"), "a") != memory(Path("/s"), "A")


def test_reading_needs_no_sources(tmp_path: Path) -> None:
    file = tmp_path / "there.yaml"
    file.write_text("providers: [{name: d, type: folder, path: /m}]\n")
    (found,) = load_providers(file)
    assert (found.name, found.options, found.memory) == ("d", storages.FolderOptions(Path("/m")), None)
    file.write_text("sources: [/m/x]\nproviders: [{name: d, type: folder, path: /n}]\n")
    assert [one.options.path for one in load_providers(file)] == [Path("/n")]
    for text, reason in (("vault: {name: x}\n", Reason.MISSING_KEY), ("providers: []\n", Reason.NO_VALUE)):
        file.write_text(text)
        with pytest.raises(ConfigInvalid) as caught:
            load_providers(file)
        assert [problem.reason for problem in caught.value.problems] == [reason]
