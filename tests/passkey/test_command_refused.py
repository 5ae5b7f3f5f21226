"""What comes to nothing: each is told in the terminal and in the page, and nothing is changed by it."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from chatkeep.daemon.keys import recovery
from chatkeep.daemon.keys.methods import RecoveryMethod
from chatkeep.daemon.keys.root import EpochKeys, RootSecret, SigningKey
from chatkeep.daemon.keys.signed import sign_text
from chatkeep.daemon.keys.slot_file import SlotFile
from tests.passkey.conftest import Enrolled
from tests.support import chromium as c
from tests.support.owner import Owner
from tests.support.passkey_provider import PasskeyProvider
from tests.support.running_out import in_time
from tests.support.secret_hunt import Hunt
from tests.support.soft_key import SoftCtapDevice
from tests.support.station import Done, Station, finish
from tests.support.terminal import converse
from tests.support.visitor import TooLate


def adding(station: Station) -> list[object]:
    return ["key", "add", "passkey", "--key-file", station.key]


def unchanged(station: Station, act: Callable[[], Done]) -> Done:
    """How it ended, after storage is found to be as it was."""
    before = {name: path.read_bytes() for name, path in station.objects().items()}
    done = act()
    assert {name: path.read_bytes() for name, path in station.objects().items()} == before
    return done


def slots(station: Station) -> list[str]:
    return [name for name in station.objects() if name.startswith("slots/")]


def test_a_device_without_prf(station: Station, owner: Owner) -> None:
    owner.visitor.tab.authenticator(c.NO_PRF)
    done = unchanged(station, lambda: owner.run(station, *adding(station), state="over"))
    assert (done.code, done.error) == (1, "passkey-refused")
    assert done.json["error"]["params"] == {"reason": "no-prf"}
    assert "PRF" in done.json["error"]["text"] + done.json["error"]["remedy"]
    assert owner.visitor.title == "This passkey cannot open a vault"
    assert "security key" in owner.visitor.text


def test_a_device_that_does_not_know_who_it_is(station: Station, owner: Owner) -> None:
    owner.visitor.tab.authenticator(c.UV_FAILS)

    def tried() -> Done:
        process = owner.start(station, *adding(station))
        owner.visitor.presses("failed")
        owner.visitor.cancels()
        owner.visitor.sees("over")
        return finish(process)

    done = unchanged(station, tried)
    assert (done.code, done.error) == (6, "ceremony-cancelled")
    assert "That came to nothing" in done.err


def test_cancelled_in_the_page(station: Station, owner: Owner) -> None:
    def tried() -> Done:
        process = owner.start(station, *adding(station))
        owner.visitor.cancels()
        return finish(process)

    done = unchanged(station, tried)
    assert (done.code, done.error, done.json["error"]["params"]) == (6, "ceremony-cancelled", {"reason": "page"})
    owner.visitor.sees("over")
    assert owner.visitor.title == "Cancelled"


def test_cancelled_in_the_terminal(station: Station, owner: Owner) -> None:
    owner.visitor.tab.authenticator(automaticPresenceSimulation=False)
    ports = []

    def interrupt(shown: str) -> str:
        owner.visitor.visit(owner.desktop.address())
        owner.visitor.presses("busy")
        ports.append(int(owner.visitor.page.url.split(":")[2].strip("/")))
        socket.create_connection(("localhost", ports[0])).close()
        return "\x03"

    environment = {"XDG_RUNTIME_DIR": str(station.runtime), "TERM": "dumb"}
    code, shown = converse(station.argv(*adding(station)), [("the page must show the same", interrupt)], environment)
    assert code == 6, shown
    assert "Traceback" not in shown
    owner.visitor.sees("over")
    assert owner.visitor.title == "Cancelled"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("localhost", ports[0]))
    assert len(slots(station)) == 1


def test_nobody_comes(station: Station, owner: Owner) -> None:
    owner.visitor.tab.authenticator(automaticPresenceSimulation=False)

    def tried(seconds: float) -> Done:
        process = owner.start(station, *adding(station), "--passkey-timeout", seconds)
        try:
            owner.visitor.presses("busy")
            owner.visitor.sees("over")
        finally:
            done = finish(process)
        return done

    done = unchanged(station, lambda: in_time(tried, 4, TooLate))
    assert (done.code, done.error) == (3, "ceremony-timed-out")
    assert owner.visitor.title == "Time is up"


def provided(enrolled: Enrolled, owner: Owner) -> None:
    """The passkey is in this browser."""
    PasskeyProvider(SoftCtapDevice(enrolled.key)).serve(owner.visitor.tab)


def test_a_device_that_forgot(enrolled: Enrolled, owner: Owner) -> None:
    owner.visitor.tab.authenticator()
    process = owner.start(enrolled.station, "unlock", "--passkey")
    owner.visitor.presses("failed")
    owner.visitor.cancels()
    owner.visitor.sees("over")
    done = finish(process)
    assert (done.code, done.error) == (6, "ceremony-cancelled")
    assert enrolled.station.run("snapshots").error == "vault-locked"


def test_a_provider_that_lost_the_seed(enrolled: Enrolled, owner: Owner) -> None:
    """The passkey is there and signs: Chromium's own authenticator has its private key, and nothing else of it."""
    lost = enrolled.key.credentials[0]
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    texts = {
        "credentialId": lost.id,
        "userHandle": lost.user_id,
        "privateKey": lost.key.private_bytes(serialization.Encoding.DER, *private),
    }
    held = owner.visitor.tab.authenticator()
    plain = {name: base64.b64encode(value).decode() for name, value in texts.items()}
    held.add({**plain, "rpId": "localhost", "isResidentCredential": True, "signCount": 1})
    done = owner.run(enrolled.station, "unlock", "--passkey", state="over")
    assert (done.code, done.error, done.json["error"]["params"]) == (1, "passkey-refused", {"reason": "no-prf"})
    assert held.credentials()[0]["signCount"] > 1
    assert enrolled.station.run("snapshots").error == "vault-locked"


def test_a_provider_whose_seed_is_another(enrolled: Enrolled, owner: Owner) -> None:
    enrolled.key.credentials[0].random_with_uv = bytes(32)
    provided(enrolled, owner)
    done = owner.run(enrolled.station, "unlock", "--passkey", state="over")
    assert (done.code, done.error) == (3, "wrong-passkey")
    assert owner.visitor.title == "Not the right passkey"


def forge(station: Station, change: Callable[[dict[str, str]], object], key: SigningKey | None = None) -> None:
    """Changes what the passkey's slot says, and signs that with a key of the vault if there is one."""
    name = next(name for name, path in station.objects().items() if name in slots(station) and passkey(path))
    path = station.objects()[name]
    vault_id = SlotFile.parse(path.read_bytes()).vault_id
    first, second, signature = path.read_bytes().splitlines()
    said = json.loads(first)
    change(said["params"])
    text = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    raw = b"\n".join([text, second, signature, b""])
    if key is not None:
        raw = sign_text("slot", vault_id, [text, second], key)
    path.chmod(0o600)
    path.write_bytes(raw)


def passkey(path: Path) -> bool:
    return SlotFile.parse(path.read_bytes()).kind == "webauthn-prf"


def signing_key(station: Station) -> SigningKey:
    """The key that makes a slot one of the vault's, got with the recovery key."""
    hunt = Hunt({name: path.read_bytes() for name, path in station.objects().items()})
    hunt.slots(paper=RecoveryMethod(recovery.parse(station.key.read_text())))
    return EpochKeys(RootSecret(bytearray(hunt.secrets["root 1"]))).sign


def elsewhere(params: dict[str, str]) -> None:
    params["rp_id"] = "example.com"


def salted(params: dict[str, str]) -> None:
    params["salt"] = base64.b64encode(bytes(32)).decode().rstrip("=") + "=" * params["salt"].count("=")


@pytest.mark.parametrize("change", [elsewhere, salted])
def test_a_slot_that_storage_changed_is_shown_to_nobody(
    enrolled: Enrolled, owner: Owner, change: Callable[[dict[str, str]], None]
) -> None:
    station = enrolled.station
    forge(station, change)
    done = station.run("unlock", "--passkey")
    assert (done.code, done.error) == (3, "no-slot-opened")
    assert [reason for _, reason, _ in done.json["error"]["params"]["slots"]] == ["signature-invalid"]
    assert not owner.desktop.asked


def test_a_slot_for_another_site(enrolled: Enrolled, owner: Owner) -> None:
    """Also when somebody with a key of the vault made it, no authenticator is asked in the name of another site."""
    station = enrolled.station
    forge(station, elsewhere, signing_key(station))
    done = station.run("unlock", "--passkey")
    assert "rp-id" in str(done.json["error"]["params"]), done
    assert not owner.desktop.asked


def test_a_slot_with_another_salt(enrolled: Enrolled, owner: Owner) -> None:
    """The right passkey answers, with a secret that opens nothing."""
    station = enrolled.station
    provided(enrolled, owner)
    forge(station, salted, signing_key(station))
    done = owner.run(station, "unlock", "--passkey", state="over")
    assert (done.code, done.error) == (3, "wrong-passkey")
    assert owner.visitor.title == "Not the right passkey"
