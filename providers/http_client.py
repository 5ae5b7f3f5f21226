"""A client of HTTP, opened by what the environment says of proxies."""

from __future__ import annotations

from typing import Any

import httpx

from chatkeep.providers import base


def opened(provider: str, **settings: Any) -> httpx.Client:
    """The client. Nothing is asked yet.

    Args:
        provider: the configured name, for errors.
        settings: as `httpx.Client` takes them. With `trust_env`, the environment's proxies are used.

    Raises:
        Unavailable: the environment names a proxy that the library cannot speak to, or by something that is no URL.
    """
    try:
        return httpx.Client(**settings)
    except (ImportError, ValueError, httpx.InvalidURL):
        # Not `from`: it may quote the address, and with it a password, which is often what is not of its form.
        raise base.Unavailable(provider=provider, reason="proxy") from None
