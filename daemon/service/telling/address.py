"""A URL that may be a secret, from a file of this user alone."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit, urlunsplit

from chatkeep.daemon.service.telling.errors import AddressRefused

_LARGEST: Final = 16_384
_OTHERS: Final = 0o077
_HEADER: Final = re.compile(r"([A-Za-z0-9-]{1,60}): ?([\x21-\x7e][\x20-\x7e]*)")
_URL: Final = re.compile(r"https?://[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Address:
    """Where something is sent. Shows nothing of it when printed.

    Attributes:
        url: with whatever token it holds.
        headers: sent with every request.
        clear: whether it goes over a network unencrypted, readable on the way.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    clear: bool

    @classmethod
    def load(cls, path: Path) -> Self:
        """The address in a file: its first line is the URL, each further line a header, `Name: value`.

        Raises AddressRefused.
        """
        text = _read(path)
        first, *more = [line.strip() for line in text.strip().split("\n")]
        parts = _split(first)
        found = [_HEADER.fullmatch(line) for line in more if line]
        if parts is None or not all(found):
            raise AddressRefused(path=str(path), reason="malformed")
        headers = {match[1]: match[2] for match in found if match is not None}
        return cls(first, headers, parts.scheme == "http" and not _is_near(parts.hostname or ""))

    def below(self, name: str) -> str:
        """The URL with one more part at the end of its path."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        usable = _URL.fullmatch(text) and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    return parts if usable else None


def _is_near(host: str) -> bool:
    """Whether it never leaves this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        missing = exc.errno in {errno.ENOENT, errno.ENOTDIR}
        raise AddressRefused(path=str(path), reason="missing" if missing else "unreadable") from None
    try:
        facts = os.fstat(descriptor)
        for wrong, reason in (
            (not stat.S_ISREG(facts.st_mode), "kind"),
            # systemd gives credentials to a service as files of root that this user alone may read.
            (facts.st_uid not in {os.geteuid(), 0}, "owner"),
            (facts.st_mode & _OTHERS, "mode"),
        ):
            if wrong:
                raise AddressRefused(path=str(path), reason=reason)
        return os.read(descriptor, _LARGEST).decode("ascii")
    except OSError:
        raise AddressRefused(path=str(path), reason="unreadable") from None
    except UnicodeDecodeError:
        raise AddressRefused(path=str(path), reason="malformed") from None  # the cause would hold what it says
    finally:
        os.close(descriptor)
