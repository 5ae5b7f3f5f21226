"""How S3 is reached: credentials from each place they can come from, wrong ones, addresses, classes, versions, lock."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import http.server
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.config.errors import Disposition
from chatkeep.config.storages import S3Options
from chatkeep.providers import base
from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.registry import Opening
from chatkeep.providers.s3 import TYPE, client
from chatkeep.providers.s3.client import Settings
from chatkeep.providers.s3.facts import Facts
from chatkeep.providers.s3.payload import Payload
from chatkeep.providers.s3.provider import S3Provider
from tests.providers.contract import is_missing, raised_by
from tests.support import s3_policies, s3_servers
from tests.support.s3_servers import ACCESS, SECRET, Keys


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


@pytest.fixture
def works() -> Callable[..., None]:
    """Puts and gets with the credentials that are found."""
    server = s3_servers.minio()
    bucket = server.bucket()

    def tried(**settings: object) -> None:
        provider = S3Provider("s3", Settings(bucket, endpoint=server.url, **settings), MemoryMemo())  # type: ignore[arg-type]
        with contextlib.closing(provider):
            provider.put("a", b"1")
            assert provider.get("a") == b"1"

    return tried


def test_no_credentials(nowhere: Path, works: Callable[..., None]) -> None:
    assert type(raised_by(works)) is base.CredentialRefused
    assert type(raised_by(lambda: works(profile="other"))) is base.CredentialRefused


def test_credentials_of_the_environment(
    nowhere: Path, works: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    works()


def test_credentials_of_a_profile(nowhere: Path, works: Callable[..., None]) -> None:
    keys = f"aws_access_key_id={ACCESS}\naws_secret_access_key={SECRET}\n"
    (nowhere / "credentials").write_text(f"[default]\n{keys.replace(SECRET, 'wrong')}[other]\n{keys}")
    works(profile="other")
    assert type(raised_by(works)) is base.CredentialRefused


def test_credentials_of_a_file_of_one_s_own(nowhere: Path, works: Callable[..., None]) -> None:
    file = nowhere / "keys"
    file.write_text(f"[other]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n")
    file.chmod(0o644)
    refused = raised_by(lambda: works(credentials_file=file, profile="other"))
    assert (type(refused), refused.params["reason"]) == (base.SecretFileRefused, "mode")
    file.chmod(0o600)
    works(credentials_file=file, profile="other")
    for text in (f"[default]\n{SECRET}\n", "[default]\n", f"[other]\naws_secret_access_key={SECRET}", SECRET):
        file.write_text(text)
        refused = raised_by(lambda: works(credentials_file=file))
        assert (type(refused), refused.params["reason"]) == (base.SecretFileRefused, "malformed")
        assert SECRET not in repr(refused)
        assert refused.__cause__ is None


def test_credentials_of_systemd(nowhere: Path, works: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    (nowhere / "s3").write_text(f"[default]\naws_access_key_id={ACCESS}\naws_secret_access_key={SECRET}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(nowhere))
    works(credentials_file=Path("credential:s3"))


@pytest.fixture(params=s3_servers.VERIFYING)
def server(request: pytest.FixtureRequest) -> s3_servers.Server:
    found: s3_servers.Server = request.param()
    return found


class _Instance(http.server.BaseHTTPRequestHandler):
    """The metadata service of a machine in a cloud, version 2: a token first, then the role, then its keys."""

    def do_PUT(self) -> None:
        self._say("the-token")

    def do_GET(self) -> None:
        if self.headers["x-aws-ec2-metadata-token"] != "the-token":
            self.send_error(401)
        elif self.path.endswith("/security-credentials/"):
            self._say("a-role")
        else:
            until = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
            given = {"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": ACCESS, "SecretAccessKey": SECRET}
            # The server of these tests takes keys without a token only.
            self._say(json.dumps({**given, "Token": "", "Expiration": until}))

    def _say(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def test_credentials_of_an_instance(nowhere: Path, works: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Instance) as metadata:
        thread = threading.Thread(target=metadata.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{metadata.server_address[1]}")
        try:
            works()
        finally:
            metadata.shutdown()
            thread.join()


def are_refused(server: s3_servers.Server, keys: Keys) -> None:
    with contextlib.closing(server.provider(server.bucket(), keys=keys)) as provider:
        for call in (lambda: provider.put("a", b""), lambda: provider.get("a"), lambda: [*provider.list("")]):
            error = raised_by(call)
            assert type(error) is base.CredentialRefused
            assert error.disposition is Disposition.NEEDS_USER
            assert keys.secret not in repr(error)


@pytest.mark.parametrize("keys", [Keys(secret="wrong"), Keys(access="AKIANOBODY")])
def test_keys_that_the_server_refuses(keys: Keys, server: s3_servers.Server) -> None:
    are_refused(server, keys)


def test_a_token_that_the_server_refuses() -> None:
    are_refused(s3_servers.minio(), Keys(token="no-token"))


def test_a_bucket_that_is_not_there(server: s3_servers.Server) -> None:
    with contextlib.closing(server.provider("no-such-bucket")) as provider:
        calls: tuple[Callable[[], object], ...] = (
            lambda: provider.put("a", b""),
            lambda: provider.get("a"),
            lambda: provider.stat("a"),
            lambda: [*provider.list("")],
            lambda: provider.delete("a"),
            provider.probe,
        )
        for call in calls:
            assert type(raised_by(call)) is base.StorageMissing


@pytest.mark.parametrize(
    ("options", "address"),
    [
        (S3Options("my-chats", region="eu-central-1"), "https://my-chats.s3.eu-central-1.amazonaws.com/a/b"),
        (
            S3Options("my-chats", region="eu-central-1", style="path"),
            "https://s3.eu-central-1.amazonaws.com/my-chats/a/b",
        ),
        (S3Options("my-chats", endpoint="https://s3.example.org"), "https://s3.example.org/my-chats/a/b"),
        (
            S3Options("my-chats", endpoint="https://s3.example.org", style="virtual"),
            "https://my-chats.s3.example.org/a/b",
        ),
        (S3Options("my-chats", "in/here", endpoint="http://host:9000"), "http://host:9000/my-chats/in/here/a/b"),
    ],
)
def test_addresses(options: S3Options, address: str, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    asked: list[str] = []
    make = client.make_client

    def watched(*arguments: object) -> object:
        made = make(*arguments)  # type: ignore[arg-type]

        def stop(request: object, **_: object) -> None:
            asked.append(str(getattr(request, "url", "")))
            raise OSError

        made.meta.events.register_first("before-send.s3", stop)
        return made

    monkeypatch.setattr("chatkeep.providers.s3.provider.make_client", watched)
    with contextlib.closing(TYPE.open(Opening("s3", options, MemoryMemo()))) as provider:
        assert type(raised_by(lambda: provider.get("a/b"))) is base.Unavailable
    assert asked == [address]


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("boto3", "botocore") or name.startswith("chatkeep.providers.s3."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "botocore", None)
    monkeypatch.setitem(sys.modules, "boto3", None)
    missing = raised_by(lambda: TYPE.open(Opening("cloud", S3Options("my-chats"), MemoryMemo())))
    assert type(missing) is base.ClientMissing
    assert missing.params == {"provider": "cloud", "type": "s3", "package": "boto3", "extra": "s3"}


def test_a_known_digest_is_not_computed_again(server: s3_servers.Server) -> None:
    assert Payload(b"these bytes", "of another").sha256 == "of another"
    with contextlib.closing(server.fresh()) as provider:
        lying = f"d/{'0' * 64}"
        assert type(raised_by(lambda: provider.put(lying, b"bytes"))) is base.ObjectDamaged
        is_missing(provider, lying)


def test_the_storage_class_is_asked_for() -> None:
    server = s3_servers.moto()
    bucket = server.bucket()
    with contextlib.closing(server.provider(bucket, storage_class="STANDARD_IA")) as provider:
        provider.put("a", b"1")
    assert server.client().head_object(Bucket=bucket, Key="a")["StorageClass"] == "STANDARD_IA"


def test_versions_are_seen_and_a_deleted_object_is_gone(server: s3_servers.Server) -> None:
    bucket = server.bucket()
    server.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with contextlib.closing(server.provider(bucket)) as provider:
        assert provider.probe().versions is True
        assert provider.probe().object_lock is False
        provider.put("a", b"1")
        provider.delete("a")
        is_missing(provider, "a")
        provider.put("a", b"2")
        assert provider.get("a") == b"2"


def test_a_lock_that_is_extended_and_never_shortened(server: s3_servers.Server) -> None:
    bucket = server.bucket(lock=True)
    with contextlib.closing(server.provider(bucket, retain=3600.0)) as provider:
        assert isinstance(provider, base.Retains)
        provider.put("a", b"1")

        def held() -> float:
            found = server.client().head_object(Bucket=bucket, Key="a")["ObjectLockRetainUntilDate"]
            return found.timestamp() - time.time()

        assert 3500 < held() <= 3602
        provider.retain("a", time.time() + 7200)
        assert 7100 < held() <= 7202
        provider.retain("a", time.time() + 60)
        assert held() > 7100
        error = raised_by(lambda: provider.delete("a"))
        assert type(error) is base.ObjectHeld
        assert type(raised_by(lambda: provider.retain("b", time.time() + 60))) is base.ObjectNotFound
        provider.put("a", b"1")
        assert type(raised_by(lambda: provider.put("a", b"2"))) is base.ObjectConflict
        assert provider.get("a") == b"1"
    with contextlib.closing(server.provider(server.bucket())) as provider:
        provider.put("a", b"1")
        assert type(raised_by(lambda: provider.retain("a", time.time() + 60))) is base.PermissionRefused


@pytest.mark.parametrize("asked", [False, True], ids=["a memo that was lost", "a lock that may not be asked for"])
def test_what_is_locked_is_not_hidden_by_whoever_knows_of_no_lock(server: s3_servers.Server, asked: bool) -> None:
    """A bucket with a lock has versions, and lets a delete hide what it keeps."""
    bucket = server.bucket(lock=True)
    with contextlib.closing(server.provider(bucket, retain=3600.0)) as provider:
        provider.put("a", b"1")
    with contextlib.closing(server.provider(bucket)) as provider:
        if asked:
            provider.learned.keep(Facts(object_lock=None))
        assert type(raised_by(lambda: provider.delete("a"))) is base.ObjectHeld
        assert provider.get("a") == b"1"
        client = server.client()
        assert "DeleteMarkers" not in client.list_object_versions(Bucket=bucket, Prefix="a")
        client.put_object(Bucket=bucket, Key="free", Body=b"3")
        provider.delete("free")
        is_missing(provider, "free")


def test_a_policy_that_lets_nothing_be_asked(server: s3_servers.Server) -> None:
    """Nothing is proven then: what is named by its hash is put, and what may not be looked at is not overwritten."""
    bucket = server.bucket()
    policy = s3_policies.put_only(bucket, "laptop")
    policy["Statement"][0]["Resource"] = [f"arn:aws:s3:::{bucket}/laptop/d/*"]
    body = b"sealed"
    name = f"d/a/p/{hashlib.sha256(body).hexdigest()}"
    with contextlib.closing(server.provider(bucket, keys=server.restricted(policy), prefix="laptop")) as provider:
        for _ in range(2):
            provider.put(name, body)
        assert type(raised_by(lambda: provider.put("d/a", b"1"))) is base.PermissionRefused
        assert type(raised_by(provider.probe)) is base.PermissionRefused
    with contextlib.closing(server.provider(bucket, prefix="laptop")) as owner:
        assert owner.get(name) == body
        assert [found.name for found in owner.list("")] == [name]


def test_what_was_learned_is_not_asked_again_and_a_probe_asks_anew(server: s3_servers.Server) -> None:
    bucket, memo = server.bucket(), MemoryMemo()
    with contextlib.closing(server.provider(bucket, memo)) as provider:
        provider.put("a", b"1")
        assert provider.requests()["put"] == 4  # three to learn
    with contextlib.closing(server.provider(bucket, memo)) as provider:
        provider.put("b", b"1")
        assert dict(provider.requests()) == {"put": 1}
    with contextlib.closing(server.provider(server.bucket(), memo)) as provider:
        provider.put("b", b"1")
        assert provider.requests()["put"] == 4  # of another bucket nothing is known
        provider.probe()
        assert provider.requests()["put"] > 7
