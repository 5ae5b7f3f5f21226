"""The reader that needs no Chatkeep, and passkeys: a security key opens a vault with it, through libfido2's tool."""

from __future__ import annotations

import base64
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from fido2.client import DefaultClientDataCollector, Fido2Client, UserInteraction
from fido2.ctap2.base import Ctap2
from fido2.ctap2.pin import ClientPin
from fido2.utils import websafe_decode
from fido2.webauthn import PublicKeyCredentialCreationOptions, PublicKeyCredentialRequestOptions

from chatkeep.daemon.keys.methods import PasskeyMethod
from chatkeep.daemon.keys.passkey import Answer, NewCredential, Question
from chatkeep.daemon.vault.create import Way, create_vault
from chatkeep.providers.folder import FolderProvider
from tests import independent_reader
from tests.support.passkeys import AtHand
from tests.support.soft_key.authenticator import SoftAuthenticator
from tests.support.soft_key.device import SoftCtapDevice
from tests.support.terminal import converse
from tests.support.vaults import NOW, recovery

PIN = "2468"


class Key(UserInteraction):
    """A security key as a ceremony: the unmodified client of fido2, which speaks of the PRF."""

    def __init__(self) -> None:
        self.device = SoftCtapDevice(SoftAuthenticator(PIN))
        self.client = Fido2Client(self.device, DefaultClientDataCollector("http://localhost"), user_interaction=self)

    def request_pin(self, permissions: Any, rp_id: str | None) -> str | None:
        return PIN

    def enrol(self, exclude: Any) -> NewCredential:
        wanted = PublicKeyCredentialCreationOptions.from_dict(
            {
                "rp": {"id": "localhost", "name": "Chatkeep"},
                "user": {"id": b"user", "name": "vault"},
                "challenge": os.urandom(32),
                "pubKeyCredParams": [{"type": "public-key", "alg": -7}],
                "authenticatorSelection": {"userVerification": "required", "residentKey": "required"},
                "extensions": {"prf": {}},
            }
        )
        return NewCredential(bytes(self.client.make_credential(wanted).raw_id), synced=False)

    def ask(self, questions: Any) -> Answer:
        (one,) = questions
        assert isinstance(one, Question)
        wanted = PublicKeyCredentialRequestOptions.from_dict(
            {
                "rpId": "localhost",
                "challenge": os.urandom(32),
                "allowCredentials": [{"type": "public-key", "id": one.credential}],
                "userVerification": "required",
                "extensions": {"prf": {"eval": {"first": one.evaluation}}},
            }
        )
        got = self.client.get_assertion(wanted).get_response(0)
        results = got.client_extension_results["prf"]["results"]
        return Answer(one.credential, bytearray(websafe_decode(results["first"])))

    def fido2_assert(self, *lines: str) -> str:
        """What `fido2-assert -G -h -v` does, in the order of its manual: a hash, the relying party, the credential,
        the salt of hmac-secret, which the client of fido2 never sees. It knows nothing of the PRF."""
        client_hash, rp_id, credential, salt = lines
        ctap = Ctap2(self.device)
        pins = ClientPin(ctap)
        token = pins.get_pin_token(PIN, ClientPin.PERMISSION.GET_ASSERTION, rp_id)
        agreement, shared = pins._get_shared_secret()  # type: ignore[no-untyped-call]
        sealed = pins.protocol.encrypt(shared, base64.b64decode(salt))
        wanted = {1: agreement, 2: sealed, 3: pins.protocol.authenticate(shared, sealed), 4: pins.protocol.VERSION}
        raw = base64.b64decode(client_hash)
        got = ctap.get_assertion(
            rp_id,
            raw,
            [{"type": "public-key", "id": base64.b64decode(credential)}],
            extensions={"hmac-secret": wanted},
            pin_uv_param=pins.protocol.authenticate(token, raw),
            pin_uv_protocol=pins.protocol.VERSION,
        )
        assert got.auth_data.extensions is not None
        output = pins.protocol.decrypt(shared, got.auth_data.extensions["hmac-secret"])
        shown = [base64.b64encode(part).decode() for part in (got.auth_data, got.signature, output)]
        return "".join(f"{line}\n" for line in (client_hash, rp_id, *shown))


def vault_with(folder: Path, *methods: PasskeyMethod) -> None:
    ways = [Way(recovery(), "paper"), *(Way(method, "a key") for method in methods)]
    create_vault([FolderProvider("disk", folder, create=True)], ways, NOW)


def asked_for(shown: str) -> list[list[str]]:
    """The four lines that each command would hand to fido2-assert."""
    found = []
    for line in re.findall(r"^  (printf .*)$", shown, re.MULTILINE):
        before, _, after = line.partition(" | ")
        assert after == "fido2-assert -G -h -v -o answer DEVICE"
        words = shlex.split(before)
        assert words[:2] == ["printf", "%s\\n"]
        found.append(words[2:])
    return found


def test_a_security_key_opens_a_vault_without_chatkeep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, vault = Key(), tmp_path / "vault"
    vault_with(vault, PasskeyMethod(key))
    assert independent_reader.main([str(vault), "--passkeys"]) == 0
    ((client_hash, rp_id, credential, salt),) = asked_for(capsys.readouterr().out)
    assert (rp_id, len(base64.b64decode(client_hash)), len(base64.b64decode(salt))) == ("localhost", 32, 32)
    answer = tmp_path / "answer"
    answer.write_text(key.fido2_assert(client_hash, rp_id, credential, salt))
    assert len(answer.read_text().splitlines()) == 5
    assert independent_reader.main([str(vault), "--prf-file", str(answer)]) == 0
    answer.write_bytes(base64.b64decode(answer.read_text().split()[-1]))  # the bytes alone do as well
    assert independent_reader.main([str(vault), "--prf-file", str(answer)]) == 0
    other = base64.b64encode(bytes(32)).decode()
    answer.write_text(key.fido2_assert(client_hash, rp_id, credential, other))
    capsys.readouterr()
    assert independent_reader.main([str(vault), "--prf-file", str(answer)]) == 3
    assert "opens no slot" in capsys.readouterr().err


@pytest.mark.parametrize("raw", [b"", b"x", bytes(31), bytes(33), b"QUJD\n", b"=" * 44, b"\xff" * 44 + b"\n"])
def test_what_is_no_answer_is_told(raw: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vault_with(tmp_path / "vault")
    (tmp_path / "answer").write_bytes(raw)
    assert independent_reader.main([str(tmp_path / "vault"), "--prf-file", str(tmp_path / "answer")]) == 3
    assert "no answer of a passkey" in capsys.readouterr().err


def test_both_alphabets_of_base64_are_read() -> None:
    raw = b"\xfb\xff" * 16
    for text in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
        assert independent_reader.answered(b"localhost\n" + text + b"\n") == raw


def test_who_is_asked_for_a_key_is_told_that_a_passkey_does_not_do(tmp_path: Path) -> None:
    with_one, without = tmp_path / "with", tmp_path / "without"
    vault_with(with_one, AtHand({b"c" * 16: b"r" * 32}).method(), AtHand({b"d" * 16: b"r" * 32}).method())
    vault_with(without)
    program = tmp_path / "reader.py"
    program.write_text(independent_reader.TEXT)
    for vault, said in ((with_one, True), (without, False)):
        ended, shown = converse(
            [sys.executable, "-W", "ignore", str(program), str(vault)], [("passphrase:", "7" * 8 + "\n")]
        )
        assert ended == 3
        assert ("A passkey cannot be used here: use the recovery key" in shown) is said, shown
        assert ("1 recovery key, 2 passkeys" in shown) is said, shown


def test_where_no_passkey_is_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vault_with(tmp_path / "vault")
    assert independent_reader.main([str(tmp_path / "vault"), "--passkeys"]) == 0
    assert capsys.readouterr().out == "No passkey opens this vault: use the recovery key.\n"


def test_a_slot_of_another_relying_party_is_told_and_not_offered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tool would ask a security key for any name: what storage says must not get into the command."""
    vault = tmp_path / "vault"
    vault_with(vault, AtHand({b"c" * 16: b"r" * 32}).method())
    (slot,) = (path for path in (vault / "slots").iterdir() if b"webauthn-prf" in path.read_bytes())
    whole = slot.read_bytes()
    slot.chmod(0o600)
    for name in (b"bank.example", b"localhost; rm -rf x", b"$(id)"):
        slot.write_bytes(whole.replace(b'"localhost"', b'"%s"' % name))
        assert independent_reader.main([str(vault), "--passkeys"]) == 5
        shown = capsys.readouterr()
        assert name.decode() not in shown.out + shown.err
        assert asked_for(shown.out) == []
        assert "somebody else's" in shown.err
