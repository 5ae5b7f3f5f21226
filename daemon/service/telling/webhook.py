"""Notices as JSON, posted to a URL."""

from __future__ import annotations

from typing import Any, Final

from chatkeep.daemon.service.telling.address import Address
from chatkeep.daemon.service.telling.notice import Notice, Said
from chatkeep.daemon.service.telling.post import Post
from chatkeep.daemon.service.telling.scrub import scrub

VERSION: Final = 1
URGENT, USUAL, GOOD = 5, 3, 2  # as ntfy and Gotify count


class Webhook:
    """Posts notices to one address. To be closed."""

    name: Final = "webhook"

    def __init__(self, address: Address) -> None:
        self._address = address
        self._post = Post(self.name)

    async def deliver(self, notice: Notice, said: Said) -> None:
        """Posts one. Raises Undelivered."""
        await self._post.send(self._address.url, self._address.headers, body_of(notice, said))

    async def close(self) -> None:
        """Ends every connection."""
        await self._post.close()


def body_of(notice: Notice, said: Said) -> dict[str, Any]:
    """What is posted, and given to the command: the notice, and its words under the names that the usual services
    look for: title and message (ntfy, Gotify), text (Slack, Mattermost), content (Discord)."""
    message = "\n".join(filter(None, (said.text, said.remedy)))
    words = {
        "title": said.title,
        "message": message,
        "text": "\n".join(filter(None, (said.title, message))),
        "content": "\n".join(filter(None, (said.title, message))),
        "priority": GOOD if notice.over else USUAL if notice.slight else URGENT,
    }
    body: dict[str, Any] = scrub({"version": VERSION, **notice.plain(), **words})
    return body
