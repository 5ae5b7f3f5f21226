"""A full run of the product, with mistakes; then every secret is looked for in everything it stored, kept and said."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from chatkeep.daemon.keys.methods import PassphraseMethod, RecoveryMethod
from chatkeep.daemon.keys.recovery import generate, parse
from chatkeep.daemon.service.device import CREDENTIAL
from chatkeep.daemon.vault.credential import WriterCredential
from tests.support import secret_hunt
from tests.support.secret_hunt import Hunt, found_in, spellings, typed
from tests.support.station import Station, fill

PASSPHRASE = "Zwölf Boxkämpfer jagen Viktor"


class Run:
    """A station, and everything its commands said."""

    def __init__(self, room: Path) -> None:
        room.mkdir()
        self.station = Station(room)
        self.said: dict[str, bytes] = {}
        self.secrets_of_files: set[Path] = {self.station.key}

    def run(self, *words: object, code: int = 0, json: bool = True) -> None:
        """One command, as a program or as a person sees it; it must end as expected."""
        done = self.station.run(*words, json=json)
        assert done.code == code, (words, done)
        self.said[f"{len(self.said)}: {' '.join(map(str, words))}"] = (done.out + "\n" + done.err).encode()

    def secret(self, name: str, text: str) -> Path:
        path = self.station.room / name
        path.touch(mode=0o600)
        path.write_text(text)
        self.secrets_of_files.add(path)
        return path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("secrets") / "room")
    station = run.station
    key = ("--key-file", station.key)
    run.run("init", "--recovery-key-file", station.key, json=False)
    fill(station.source / "messages.db")
    (station.source / "photo").write_bytes(random.Random(1).randbytes(40_000))
    run.run("backup")
    passphrase = run.secret("passphrase", PASSPHRASE)
    run.run("key", "add", "passphrase", "--new-passphrase-file", passphrase, *key)
    run.run("key", "rotate", "--yes", *key)
    fill(station.source / "messages.db", 3)
    run.run("backup", json=False)
    run.run("prune", *key)
    run.run("doctor")
    run.run("status", json=False)
    run.run("key", "list", "--labels", *key, json=False)
    run.run("device", "list", *key)
    run.run("restore", "latest", "--target", station.room / "out", *key)
    run.run("verify", "--deep", *key, json=False)
    slip = run.secret("slip", station.key.read_text().replace("1", "2", 1))
    run.run("snapshots", "--key-file", slip, code=3)
    run.run("snapshots", "--key-file", slip, code=3, json=False)
    run.run("snapshots", "--key-file", run.secret("other", "\n".join(generate().lines)), code=3)
    run.run("snapshots", "--passphrase-file", run.secret("wrong", PASSPHRASE.swapcase()), code=3)
    return run


@pytest.fixture(scope="module")
def secrets(done: Run) -> dict[str, bytes]:
    """Everything that reads the vault or signs in its name."""
    objects = {name: path.read_bytes() for name, path in done.station.objects().items()}
    key = parse(done.station.key.read_text())
    hunt = Hunt(objects)
    hunt.slots(recovery=RecoveryMethod(key), passphrase=PassphraseMethod(lambda: PASSPHRASE))
    hunt.objects()
    lines = [line.replace(" ", "") for line in key.lines]
    made = hunt.secrets | typed("recovery key", "\n".join(key.lines)) | typed("passphrase", PASSPHRASE)
    return made | {f"line {number}": line.encode() for number, line in enumerate(lines, 1)}


def test_every_kind_of_secret_is_looked_for(secrets: dict[str, bytes]) -> None:
    """A hunt that collected nothing would find nothing."""
    kinds = {name.split()[0] for name in secrets}
    assert {"root", "open", "sign", "checkpoint", "older", "pack", "manifest", "line", "passphrase"} <= kinds
    assert {"root 1", "root 2", "checkpoint 2"} <= set(secrets)
    assert len([name for name in secrets if name.endswith(" seed")]) == 2
    assert len([name for name in secrets if name.endswith(" kek")]) == 2
    assert len([name for name in secrets if name.startswith(("pack ", "manifest "))]) >= 4


def test_no_secret_is_stored_kept_or_said(done: Run, secrets: dict[str, bytes]) -> None:
    bodies = secret_hunt.files(done.station.room, but=done.secrets_of_files)
    assert any("/disk/d/" in name for name in bodies)
    assert any(name.startswith(str(done.station.state)) for name in bodies)
    everything = {**bodies, **done.said}
    leaks = {name: found for name, body in everything.items() if (found := found_in(body, secrets))}
    assert leaks == {}


def test_the_keys_of_the_device_are_in_its_credential_and_nowhere_else(done: Run) -> None:
    """They write and do not read. Storage has them sealed only; and the search finds them where they are."""
    path = done.station.state / CREDENTIAL
    credential = WriterCredential.load(path)
    raw = path.read_bytes()
    keys = {"id key": bytes(credential.id_key.view()), "device key": raw[-96:-64]}
    everything = {**secret_hunt.files(done.station.room), **done.said}
    assert {name for name, body in everything.items() if found_in(body, keys)} == {str(path)}
    assert {name for name, _ in found_in(raw, keys)} == set(keys)


def test_the_search_finds_every_spelling_of_every_secret(secrets: dict[str, bytes]) -> None:
    noise = random.Random(2).randbytes(500)
    for name, secret in secrets.items():
        for spelling, text in spellings(secret).items():
            assert (name, spelling) in found_in(noise + text + noise, {name: secret}), (name, spelling)


def test_the_search_finds_a_key_that_is_shown_in_groups(done: Run, secrets: dict[str, bytes]) -> None:
    shown = done.station.key.read_bytes()
    assert {name for name, _ in found_in(shown, secrets)} >= {"recovery key, dense", "line 1", "line 8"}
