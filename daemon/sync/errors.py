"""Errors of moving sealed bytes. What storage says has its own branch, in `chatkeep.providers.base`."""

from __future__ import annotations

from chatkeep.config.errors import Disposition
from chatkeep.daemon.state import StateError
from chatkeep.providers.base import ProviderError


class OutboxDamaged(StateError):
    """An object in the outbox is not what was sealed (params: name, path, reason: missing, size, hash or unreadable).

    It was not sent. No snapshot of its stream can be acknowledged any more at a provider that lacks it: the stream is
    abandoned and the next backup begins another.
    """

    code = "outbox-damaged"
    disposition = Disposition.REBUILD


class LackingWhatLives(ProviderError):
    """Nothing is deleted at a provider that will never get something that lives (params: provider, object)."""

    code = "lacking-what-lives"
    disposition = Disposition.NEEDS_USER


class RetentionBehind(ProviderError):
    """Not everything that lives could be locked for longer (params: provider, object, reason: a code).

    It is tried again after the next backup; what is locked now runs out some time.
    """

    code = "retention-behind"
    disposition = Disposition.NEEDS_USER


class NowhereWhole(ProviderError):
    """No provider that was asked has an object whole, so it cannot be copied (params: object; reasons: a code by
    provider).
    """

    code = "nowhere-whole"
