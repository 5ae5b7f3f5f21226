"""Secrets of a provider, read from where they may stand: a file of this user alone, or a credential of systemd.

The configuration names the place and never holds the secret. A path `credential:NAME` is the file NAME that systemd
(LoadCredential=, SetCredential= and their encrypted kin) put into $CREDENTIALS_DIRECTORY for this service:
https://systemd.io/CREDENTIALS/. Nothing that is read here is ever put into an error.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from chatkeep.config.key import CREDENTIAL
from chatkeep.providers.base import SecretFileRefused

_REASONS: Final = {errno.ENOENT: "missing", errno.ENOTDIR: "missing", errno.EISDIR: "kind", errno.ENXIO: "kind"}
LIMIT: Final = 64 * 1024
"""Most bytes of a secret when the caller does not say: a key, a token, a password."""


def read_secret(path: Path, limit: int = LIMIT) -> str:
    """The text of a secret file, without line ends after it.

    The file is a regular one that belongs to this user, and nobody else may read or write it. For a credential systemd
    vouches, and only its kind and size are looked at.

    Raises:
        SecretFileRefused: `reason` is `missing`, `unreadable`, `kind` (not a regular file), `owner`, `mode` (others may
            read or write it), `malformed` (empty, larger than `limit` bytes, not text) or `no-credentials` (a
            credential is asked for, and systemd gave none to this process).
    """
    vouched = str(path).startswith(CREDENTIAL)
    place = _credential(path) if vouched else path
    try:
        # O_NONBLOCK: a pipe in place of the file must not hold up a daemon.
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            _require(path, os.fstat(descriptor), vouched=vouched)
            raw = file.read(limit + 1)
    except OSError as problem:
        raise _refused(path, _REASONS.get(problem.errno or 0, "unreadable")) from problem
    try:
        text = raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        # Not `from`: the exception holds the bytes.
        raise _refused(path, "malformed") from None
    if not text or len(raw) > limit or "\0" in text:
        raise _refused(path, "malformed")
    return text


def _credential(path: Path) -> Path:
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not directory:
        raise _refused(path, "no-credentials")
    return Path(directory) / str(path).removeprefix(CREDENTIAL)


def _require(path: Path, facts: os.stat_result, *, vouched: bool) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise _refused(path, "kind")
    if vouched:  # systemd gives it by an ACL or to root: owner and mode say something else than they do for a file
        return
    if facts.st_uid != os.geteuid():
        raise _refused(path, "owner")
    if facts.st_mode & 0o077:
        raise _refused(path, "mode")


def _refused(path: Path, reason: str) -> SecretFileRefused:
    return SecretFileRefused(path=str(path), reason=reason)
