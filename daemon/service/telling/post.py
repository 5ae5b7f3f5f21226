"""Requests to the addresses of the webhook and the heartbeat. Over aiohttp's client; no cookie, no proxy, no netrc."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from chatkeep.daemon.service.telling.errors import Undelivered
from chatkeep.daemon.service.telling.threads import in_thread

SECONDS: Final = 20.0  # for one request, its connection included


class Post:
    """Sends requests for one way of telling. To be closed."""

    def __init__(self, channel: str, agent: str = "chatkeep") -> None:
        self._channel = channel
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=_Names(), limit=2, force_close=True),
            timeout=aiohttp.ClientTimeout(total=SECONDS),
            headers={"User-Agent": agent},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # a proxy, or the passwords of a .netrc, from whatever environment the daemon got
            requote_redirect_url=False,
        )

    async def send(self, url: str, headers: Mapping[str, str], body: Mapping[str, Any] | None) -> None:
        """Posts JSON, or asks with GET when there is none. The answer's body is not read.

        Raises Undelivered. It has no cause: those of the library hold the address.
        """
        reason, status = "unreachable", 0
        try:
            async with self._session.request(
                "GET" if body is None else "POST",
                url,
                data=None if body is None else json.dumps(body).encode(),
                headers={**headers, **({} if body is None else {"Content-Type": "application/json"})},
                allow_redirects=False,  # what is told, and any token beside it, is for this address alone
            ) as answer:
                status = answer.status
                if 200 <= status < 300:
                    return
                reason = "redirect" if 300 <= status < 400 else "refused"
        except TimeoutError:
            reason = "silent"
        except aiohttp.ClientSSLError:
            reason = "untrusted"
        except (aiohttp.ClientError, OSError, ValueError):
            reason = "unreachable"
        raise Undelivered(channel=self._channel, reason=reason, **({"status": status} if status else {}))

    async def close(self) -> None:
        """Ends every connection."""
        await self._session.close()


class _Names(AbstractResolver):
    """Looks up names in a thread that nobody waits for."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host."""
        flags = socket.AI_ADDRCONFIG
        found = await in_thread(
            lambda: socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=flags)
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(where[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, where in found
            if len(where) < 4 or not where[3]  # a link-local address needs its interface, and is no place for news
        ]

    async def close(self) -> None:
        """Nothing is open."""
