"""One passkey in a browser and on the command line: the same secret, wherever it was made."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator

import pytest

from tests.passkey.conftest import Enrolled
from tests.support.owner import Owner
from tests.support.passkey_provider import PasskeyProvider
from tests.support.secret_hunt import P, hkdf
from tests.support.soft_key import SoftAuthenticator, SoftCtapDevice
from tests.support.soft_key.credentials import Credential
from tests.support.soft_key.ports import Ports
from tests.support.station import Station


def is_the_secret_of(station: Station, slot: str, credential: Credential) -> bool:
    """Whether what this credential gives is what the slot is sealed with, computed from the specifications alone:
    CTAP 2.2, section 12.7, Web Authentication Level 3, section 10.1.4, and docs/format.md, section 5."""
    first, second = map(json.loads, station.objects()[f"slots/{slot}.json"].read_bytes().splitlines()[:2])
    vault, place = bytes.fromhex(first["vault"]), bytes.fromhex(first["vault"]) + bytes.fromhex(slot)
    assert len(vault) == 16
    assert decoded(first["params"]["cred"]) == credential.id
    evaluation = hashlib.sha256(P + b"prf\0" + place + decoded(first["params"]["salt"])).digest()
    salt = hashlib.sha256(b"WebAuthn PRF\0" + evaluation).digest()
    assert credential.random_with_uv is not None
    secret = hmac.digest(credential.random_with_uv, salt, "sha256")
    schedule = hkdf(secret, P + b"kek/webauthn-prf\0" + place, 64, decoded(first["salt"]))
    return bool(schedule[32:].hex() == second["commit"])


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.replace("+", "-").replace("/", "_") + "==")


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ports]:
    """The USB ports that commands see."""
    with Ports() as ports:
        for name, value in ports.environment().items():
            monkeypatch.setenv(name, value)
        yield ports


def test_made_in_the_browser_it_opens_on_the_command_line(enrolled: Enrolled, owner: Owner, ports: Ports) -> None:
    station = enrolled.station
    ports.key("one", uv=True).restore(enrolled.key.export())
    session = station.ok("unlock", "--security-key")["session"]
    assert session["slot"] == enrolled.slot
    assert not owner.desktop.asked
    assert is_the_secret_of(station, enrolled.slot, enrolled.key.credentials[0])
    assert len(station.ok("lock")["locked"]) == 1
    PasskeyProvider(SoftCtapDevice(enrolled.key)).serve(owner.visitor.tab)
    assert owner.touches(station, "unlock", "--passkey").json["session"]["slot"] == enrolled.slot


def test_made_on_the_command_line_it_opens_in_the_browser(station: Station, owner: Owner, ports: Ports) -> None:
    plugged = ports.key("one", uv=True)
    slot = station.ok("key", "add", "security-key", "--key-file", station.key)["id"]
    key = SoftAuthenticator(uv=True)
    key.restore(plugged.export())
    assert is_the_secret_of(station, slot, key.credentials[0])
    provider = PasskeyProvider(SoftCtapDevice(key))
    provider.serve(owner.visitor.tab)
    assert owner.touches(station, "unlock", "--passkey").json["session"]["slot"] == slot
    assert provider.asked == ["get"]
    key.credentials[0].random_with_uv = bytes(32)
    assert not is_the_secret_of(station, slot, key.credentials[0])
