"""Where bytes of objects may be fetched from and sent to: addresses that CloudKit names in its replies.

They are not those of the configuration, and who could forge a reply would choose them: an address within this
machine or its network would turn the daemon into their messenger. So a named address is reached over TLS only, which
also proves the name, and lies outside. An endpoint that is itself on this machine (a test, a relay) may name its own
host without TLS, and nothing else.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from chatkeep.providers import base

_LONGEST = 4096  # characters; those that others have seen have some 600


def is_local(url: str) -> bool:
    """Whether a URL of the configuration is on this machine, by its address or as `localhost`."""
    host = urlsplit(url).hostname or ""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def allowed(url: str, endpoint: str) -> str:
    """Returns a named address that may be used, with what it wants in place of a file's name.

    Raises:
        Unavailable: it may not be used. The address itself is not in the error: it is a key to the bytes.
    """
    url = url.replace("${f}", "object")  # a part of the address that the reader fills in, for browsers
    try:
        found, home = urlsplit(url), urlsplit(endpoint)
        host, port = found.hostname or "", found.port
        odd = len(url) > _LONGEST or not url.isascii() or not url.isprintable() or "@" in found.netloc or " " in url
    except ValueError as problem:
        raise base.Unavailable(reason="address") from problem
    if odd or not host:
        raise base.Unavailable(reason="address")
    if is_local(endpoint) and (found.scheme, host, port) == (home.scheme, home.hostname, home.port):
        return url
    if found.scheme != "https" or any(not each.is_global for each in _addresses(host)):
        raise base.Unavailable(reason="address")
    return url


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """What a host is on the network. Empty when that cannot be found out: then the request does not reach it either,
    or goes through a proxy, which is where it is looked up."""
    literal = _address(host)
    if literal is not None:
        return [literal]
    try:
        found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [address for each in found if (address := _address(str(each[4][0]))) is not None]


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
