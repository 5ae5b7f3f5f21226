"""Which key files sign requests to CloudKit, and what is signed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chatkeep.providers.icloud_signing import Signer
from tests.providers.contract import raised_by
from tests.support.fake_cloudkit import FakeCloudKit


@pytest.fixture
def fake() -> Iterator[FakeCloudKit]:
    made = FakeCloudKit()
    yield made
    made.close()


def test_key_files(tmp_path: Path, fake: FakeCloudKit) -> None:
    options = fake.options(tmp_path)
    path = options.key_file

    def reason() -> object:
        return raised_by(lambda: Signer(options.key_id, path)).params["reason"]

    path.chmod(0o644)
    assert reason() == "mode"
    path.chmod(0o600)
    form, pem = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    locked = fake.key.private_bytes(pem, form, serialization.BestAvailableEncryption(b"secret"))
    other = ec.generate_private_key(ec.SECP384R1()).private_bytes(pem, form, serialization.NoEncryption())
    for raw in (b"nothing", b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", locked, other):
        path.write_bytes(raw)
        assert reason() == "malformed"
    path.write_bytes(fake.key.private_bytes(pem, form, serialization.NoEncryption()))
    assert Signer(options.key_id, path)
    path.unlink()
    assert reason() == "missing"


def test_what_is_signed(tmp_path: Path, fake: FakeCloudKit) -> None:
    """By hand, as the reference says it: date, hash of the body, path."""
    options = fake.options(tmp_path)
    found = Signer(options.key_id, options.key_file).headers(
        "/database/1/c/production/public/records/query", b"{}", 0.9
    )
    assert found["X-Apple-CloudKit-Request-KeyID"] == options.key_id
    assert found["X-Apple-CloudKit-Request-ISO8601Date"] == "1970-01-01T00:00:00Z"
    digest = base64.b64encode(hashlib.sha256(b"{}").digest()).decode()
    message = f"1970-01-01T00:00:00Z:{digest}:/database/1/c/production/public/records/query"
    signature = base64.b64decode(found["X-Apple-CloudKit-Request-SignatureV1"])
    fake.key.public_key().verify(signature, message.encode(), ec.ECDSA(hashes.SHA256()))
