"""A client of S3 as this provider needs one: no retries of its own, bounded waits, requests counted by kind."""

from __future__ import annotations

import configparser
import functools
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from chatkeep.providers import base
from chatkeep.providers.secret_file import read_secret

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CONNECT: Final = 10.0  # seconds
READ: Final = 60.0  # seconds for the next byte, in either direction
_CONNECTIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """Which bucket, and how it is reached.

    Attributes:
        prefix: folder in the bucket, without slashes at its ends; "" for the bucket itself.
        endpoint: URL of the service; "" for Amazon's.
        profile: of the usual files or of `credentials_file`; "" for what the library finds by itself: environment,
            default profile, container or instance.
        credentials_file: a file as ~/.aws/credentials, of this user alone.
        retain: seconds for which what is put is locked; None for no lock.
        connect, read: time-outs in seconds.
        page: most objects of one page of a listing.
    """

    bucket: str
    prefix: str = ""
    region: str = ""
    endpoint: str = ""
    style: Literal["auto", "path", "virtual"] = "auto"
    profile: str = ""
    credentials_file: Path | None = None
    storage_class: str = ""
    retain: float | None = None
    connect: float = CONNECT
    read: float = READ
    page: int = 1000


def make_client(settings: Settings, requests: Requests) -> S3Client:
    """A client; nothing is asked of the service.

    Raises:
        ClientMissing: boto3 is not installed.
        SecretFileRefused: the file of the credentials.
    """
    try:
        import boto3.session
        import botocore.session
        from botocore.config import Config
    except ImportError as problem:
        raise base.ClientMissing(type="s3", package="boto3", extra="s3") from problem
    from chatkeep.providers.s3.payload import use_known_digests

    keys: dict[str, Any] = {}
    profile: str | None = settings.profile or None
    if settings.credentials_file is not None:
        keys = _keys_of(settings.credentials_file, settings.profile or "default")
        profile = None  # the file stands in place of the usual ones, which need not have that profile
    style = settings.style if settings.style != "auto" else ("path" if settings.endpoint else "virtual")
    core = botocore.session.get_session()
    core.register_component("data_loader", _loader())
    session = boto3.session.Session(
        botocore_session=core, profile_name=profile, region_name=settings.region or None, **keys
    )
    client = session.client(
        "s3",
        endpoint_url=settings.endpoint or None,
        region_name=settings.region or session.region_name or "us-east-1",
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": style, "payload_signing_enabled": True},
            # Checksums that the library adds by itself are refused by some services and verified by few.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=settings.connect,
            read_timeout=settings.read,
            max_pool_connections=_CONNECTIONS,
            tcp_keepalive=True,
        ),
    )
    use_known_digests(client)
    # Asked for by the library alone, when a redirection does not say of which region the bucket is. A service that
    # answers that question with another redirection would be asked again, and again.
    client.meta.events.register_first("before-send.s3.HeadBucket", _no_such_question)
    requests.watch(client)
    return client


class _Nothing:
    def stream(self) -> Iterator[bytes]:
        return iter(())


def _no_such_question(request: Any = None, **_: object) -> Any:
    from botocore.awsrequest import AWSResponse

    headers: Any = {}
    return AWSResponse(request.url, 404, headers, _Nothing())


@functools.cache
def _loader() -> Any:
    """What reads the library's descriptions of services: some megabytes, and once is enough for all providers."""
    from botocore.loaders import create_loader

    return create_loader()


_KEYS: Final = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


def _keys_of(path: Path, profile: str) -> dict[str, str]:
    """The keys of a profile in a credentials file. What is wrong with it is said without quoting it."""
    # Without interpolation: a per cent sign is a character of secrets.
    parser = configparser.ConfigParser(interpolation=None, default_section="\0")
    try:
        parser.read_string(read_secret(path))
        section = parser[profile]
        found = {key: section[key].strip() for key in _KEYS if key in section}
    except (configparser.Error, KeyError):
        # Not `from`: the exception quotes lines of the file.
        raise base.SecretFileRefused(path=str(path), reason="malformed") from None
    if not found.get(_KEYS[0]) or not found.get(_KEYS[1]):
        raise base.SecretFileRefused(path=str(path), reason="malformed")
    return found


_KINDS: Final = (
    (re.compile("List.*"), "list"),
    (re.compile("(Head|Get).*"), "get"),
    (re.compile("(Delete|Abort).*"), "delete"),
    (re.compile(".*"), "put"),
)


class Requests:
    """Requests that left this machine, by the kinds of a price list: put (all that write), get, list, delete."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def watch(self, client: Any) -> None:
        """Counts what this client sends, from now on."""
        client.meta.events.register_first("before-send.s3", self._count)

    def counts(self) -> Mapping[str, int]:
        """Until now."""
        with self._lock:
            return dict(self._counts)

    def _count(self, event_name: str = "", **_: object) -> None:
        operation = event_name.rpartition(".")[2]
        kind = next(kind for pattern, kind in _KINDS if pattern.fullmatch(operation))
        with self._lock:
            self._counts[kind] = self._counts.get(kind, 0) + 1
