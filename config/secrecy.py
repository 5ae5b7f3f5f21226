"""What looks like a secret where none belongs. Pure.

No rule finds every secret, and none of these is needed to be safe: they catch the slip of somebody who pastes what a
page of a service showed.
"""

from __future__ import annotations

import re
from typing import Final

# https://user:password@host, of any scheme.
_WITH_PASSWORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s@:]*:[^/?#\s@]*@")
# How services call what they want kept: secret_access_key, account_key, sas_token, refresh_token, credential,
# connection_string. Singular words; a name of several is judged by each.
_TELLING: Final = frozenset(
    {
        *("secret", "password", "passwd", "pass", "passphrase", "token", "credential", "credentials", "private"),
        *("signature", "sas", "apikey", "accesskey", "secretkey", "authorization", "cookie", "dsn"),
    }
)
_CONNECTION: Final = re.compile(r"(?i)connection_?string")
# What only speaks about a secret: where it is, which one, whether there is one.
_ABOUT: Final = frozenset(
    {"path", "file", "id", "name", "type", "algorithm", "url", "uri", "endpoint", "prefix", "root"}
)
_SWITCHES: Final = frozenset({"true", "false", "yes", "no", "on", "off", "0", "1", ""})


def holds_password(text: str) -> bool:
    """Whether a text is, or holds, a URL with a password in it."""
    return _WITH_PASSWORD.search(text) is not None


def looks_secret(name: str, value: str) -> bool:
    """Whether the value under such a name is probably a secret."""
    if holds_password(value):
        return True
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    parts = [word.lower() for word in words]
    if (
        not parts
        or value.strip().lower() in _SWITCHES
        or parts[-1] in _ABOUT
        or parts[0] in ("disable", "allow", "enable")
    ):
        return False
    return bool(_TELLING & set(parts)) or parts[-1] in ("key", "keys") or _CONNECTION.search(name) is not None
