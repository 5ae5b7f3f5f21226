"""Servers of S3 that nobody here wrote, each a process that ends with the one that started it.

One of a kind for each process of the tests: a test has a bucket of its own.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from chatkeep.providers.base import Provider
from chatkeep.providers.memo import Memo, MemoryMemo
from chatkeep.providers.s3.client import Settings
from chatkeep.providers.s3.provider import S3Provider
from tests.support import built_servers, ceph
from tests.support.ports import free_port

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

ACCESS, SECRET = "AKIACHATKEEPTESTS", "secret-of-the-tests"
REGION = "us-east-1"
DEADLINE = 60.0
_SETTINGS = Config(
    signature_version="s3v4",
    s3={"addressing_style": "path"},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)


@dataclass(frozen=True)
class Keys:
    """Who asks. `token`: of a session."""

    access: str = ACCESS
    secret: str = SECRET
    token: str = ""


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    port: int
    room: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, keys: Keys | None = None) -> S3Client:
        """A client of the library's own making, to look behind the provider."""
        return boto3.client("s3", **self._access(keys or Keys()), config=_SETTINGS)

    def bucket(self, *, lock: bool = False) -> str:
        """A new bucket."""
        name = f"b-{os.urandom(8).hex()}"
        more: dict[str, Any] = {"ObjectLockEnabledForBucket": True} if lock else {}
        self.client().create_bucket(Bucket=name, **more)
        return name

    def provider(
        self,
        bucket: str,
        memo: Memo | None = None,
        *,
        url: str | None = None,
        keys: Keys | None = None,
        name: str = "s3",
        **more: Any,
    ) -> S3Provider:
        """The provider of this project at a bucket. `url`: of a proxy. `more`: further fields of `Settings`."""
        settings = Settings(bucket, endpoint=url or self.url, credentials_file=self.keys_file(keys or Keys()), **more)
        return S3Provider(name, settings, memo if memo is not None else MemoryMemo())

    def fresh(self, **more: Any) -> Provider:
        """A provider at a new bucket."""
        return self.provider(self.bucket(), **more)

    def keys_file(self, keys: Keys) -> Path:
        """A file with these keys, as the provider wants it."""
        path = self.room / f"keys-{os.urandom(8).hex()}"
        lines = ["[default]", f"aws_access_key_id = {keys.access}", f"aws_secret_access_key = {keys.secret}"]
        if keys.token:
            lines.append(f"aws_session_token = {keys.token}")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write("\n".join(lines) + "\n")
        return path

    def restricted(self, policy: dict[str, Any]) -> Keys:
        """Keys that a policy restricts: those of a session, which a server with a user directory gives (MinIO)."""
        sts = boto3.client("sts", **self._access(Keys()))
        given = sts.assume_role(RoleArn="arn:minio:iam:::role/any", RoleSessionName="tests", Policy=json.dumps(policy))
        found = given["Credentials"]
        return Keys(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"])

    def _access(self, keys: Keys) -> dict[str, Any]:
        return {
            "endpoint_url": self.url,
            "region_name": REGION,
            "aws_access_key_id": keys.access,
            "aws_secret_access_key": keys.secret,
            "aws_session_token": keys.token or None,
        }


# One request at a time: while an object is deleted in one thread of moto, another that looks at it fails with 500.
_MOTO = """
import sys, threading
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple
inner, turn = DomainDispatcherApplication(create_backend_app), threading.Lock()
def app(environ, start_response):
    with turn:
        return [b"".join(inner(environ, start_response))]
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True, request_handler=MotoRequestHandler)
"""


@functools.cache
def moto() -> Server:
    """moto: knows every verb and verifies nothing, neither keys nor digests."""
    room = _room()
    port = free_port()
    return _started([sys.executable, "-W", "ignore", "-c", _MOTO, str(port)], room, port)


@functools.cache
def minio() -> Server:
    """MinIO: verifies, has conditional puts, versions, object lock and policies."""
    room = _room()
    port = free_port()
    program = [built_servers.minio(), "server", "--quiet", "--address", f"127.0.0.1:{port}", str(room / "files")]
    more = {
        "MINIO_ROOT_USER": ACCESS,
        "MINIO_ROOT_PASSWORD": SECRET,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "MINIO_CI_CD": "1",
        "HOME": str(room),
    }
    return _started(program, room, port, **more)


@functools.cache
def rclone() -> Server:
    """rclone serve s3: has no conditional put, answers ranges with 200."""
    room = _room()
    port = free_port()
    (room / "files").mkdir()
    keys = f"{ACCESS},{SECRET}"
    program = [built_servers.rclone(), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", keys]
    return _started([*program, "--config", str(room / "rclone.conf"), str(room / "files")], room, port)


@functools.cache
def radosgw() -> Server:
    """Ceph's gateway: verifies, has conditional puts (not for uploads in parts), versions, object lock and policies."""
    room = _room()
    cluster = ceph.begin(room)
    cluster.user(_OWNER, ACCESS, SECRET)
    port = free_port()
    return Gateway(_started(cluster.gateway(port), room, port).port, room)


_OWNER = "tests"
_OWNERS = {"s3:GetObject", "s3:DeleteObject", "s3:ListMultipartUploadParts", "s3:PutObjectRetention"}


class Gateway(Server):
    """Ceph's. Whoever is restricted is a user of its own there, whom the bucket's policy lets in."""

    def restricted(self, policy: dict[str, Any]) -> Keys:
        name = f"u{os.urandom(8).hex()}"
        keys = Keys(f"AKIA{os.urandom(8).hex()}", os.urandom(16).hex())
        ceph.Ceph(self.room).user(name, keys.access, keys.secret)
        bucket = policy["Statement"][0]["Resource"][0].removeprefix("arn:aws:s3:::").partition("/")[0]
        may = {action for each in policy["Statement"] for action in each["Action"]}
        whole = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        statements = [
            *({**each, "Principal": self._user(name)} for each in policy["Statement"]),
            # What a user has put is its own, and is read by it whoever is let in: unless that is denied.
            {"Effect": "Deny", "Principal": self._user(name), "Action": sorted(_OWNERS - may), "Resource": whole},
            # For the same reason the bucket's owner has to be let in to what others put there.
            {"Effect": "Allow", "Principal": self._user(_OWNER), "Action": ["s3:*"], "Resource": whole},
        ]
        policy = {"Version": "2012-10-17", "Statement": statements}
        self.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
        return keys

    @staticmethod
    def _user(name: str) -> dict[str, list[str]]:
        return {"AWS": [f"arn:aws:iam:::user/{name}"]}


VERIFYING = [pytest.param(minio, id="minio"), pytest.param(radosgw, id="radosgw", marks=pytest.mark.ceph)]
"""Those that hold to what S3 promises, as parameters of a fixture."""


def _room() -> Path:
    room = Path(tempfile.mkdtemp(prefix="chatkeep-s3-"))
    atexit.register(shutil.rmtree, room, ignore_errors=True)
    return room


def _started(program: list[str], room: Path, port: int, **environment: str) -> Server:
    with open(room / "log", "wb") as log:
        environment = {**os.environ, **environment}
        server = subprocess.Popen(
            program, env=environment, cwd=room, stdout=log, stderr=log, preexec_fn=ceph.end_with_parent
        )
    atexit.register(ceph.end, server)
    found = Server(port, room)
    until = time.monotonic() + DEADLINE
    while not _answers(found):
        if server.poll() is not None or time.monotonic() > until:
            raise AssertionError(f"{program[0]} does not serve: {(room / 'log').read_text()[-2000:]}")
        time.sleep(0.05)
    return found


def _answers(server: Server) -> bool:
    """Whether it does what it is asked, not merely listens."""
    try:
        server.client().list_buckets()
    except Exception:  # whatever a server that is starting says
        return False
    return True
