"""The ceremony in the person's browser: a page on this machine, served for one ceremony and for one tab."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import Coroutine, Mapping
from importlib.resources import files
from typing import Any, Final

from chatkeep.config.errors import ChatkeepError
from chatkeep.daemon.control.ceremony.child import Ask, Command, End, Enrol, Parent, code_of
from chatkeep.daemon.control.ceremony.events import Event, PageOpened, Ready
from chatkeep.daemon.control.ceremony.loopback import listen
from chatkeep.daemon.control.ceremony.opening import Redirect, has_desktop, open_file
from chatkeep.daemon.control.ceremony.server import File, Server
from chatkeep.daemon.control.ceremony.talk import Talk
from chatkeep.daemon.control.ceremony.webauthn import Verifier
from chatkeep.daemon.control.errors import CeremonyCancelled, CeremonyTimedOut
from chatkeep.daemon.keys.passkey import Answer, NewCredential

FAREWELL: Final = 2.0
"""Seconds for the page to hear how it ended."""

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}


def perform(parent: Parent) -> None:
    """Serves the page until the command ends it. Raises `CeremonyError` and `PasskeyRefused`."""
    asyncio.run(_Ceremony(parent).run())


def page_files() -> dict[str, File]:
    """What the page is made of, by the path that it has in the browser."""
    folder = files(__package__) / "page"
    found = {
        f"/{each.name}": File(each.read_bytes(), _TYPES[each.name.rpartition(".")[2]]) for each in folder.iterdir()
    }
    page = found.pop("/index.html")
    markup = page.body
    for path in ("/page.js", "/page.css"):
        # A worker that another program left in the browser would otherwise put its own in their place.
        digest = base64.b64encode(hashlib.sha256(found[path].body).digest())
        markup = markup.replace(b'"%s"' % path.encode(), b'"%s" integrity="sha256-%s"' % (path.encode(), digest))
    found["/"] = File(markup, page.type)
    return found


class _Ceremony:
    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self._redirect: Redirect | None = None

    async def run(self) -> None:
        loop, commands = asyncio.get_running_loop(), asyncio.Queue[Command]()

        def heard(command: Command) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: this process is about to end by itself
                loop.call_soon_threadsafe(commands.put_nowait, command)

        self._parent.listen(heard)
        with contextlib.closing(listen()) as loopback:
            talk = Talk(self._parent.opening, Verifier(f"http://localhost:{loopback.port}"), self._tell)
            server = Server(loopback.port, os.geteuid(), page_files(), talk.call, talk.refused)
            async with server.serving(loopback):
                url = f"http://localhost:{loopback.port}/#{talk.token}"
                self._tell(Ready(url, self._parent.opening.code, self._open(url, os.environ)))
                await self._follow(talk, commands)

    async def _follow(self, talk: Talk, commands: asyncio.Queue[Command]) -> None:
        command = await commands.get()
        try:
            while not isinstance(command, End):
                done = await self._gesture(talk, command, commands)
                if isinstance(done, End):
                    command = done
                    break
                self._answer(done)
                command = await commands.get()
        except ChatkeepError as error:
            await _at_most(FAREWELL, talk.finish(ok=False, code=code_of(error)))
            raise
        await _at_most(FAREWELL, talk.finish(ok=command.ok, code=command.code))

    async def _gesture(
        self, talk: Talk, asked: Enrol | Ask, commands: asyncio.Queue[Command]
    ) -> NewCredential | Answer | End:
        """What comes of it, or the command's word that it is over, whichever is first."""
        deadline = self._parent.opening.deadline
        gesture = asyncio.create_task(talk.gesture(asked))
        closed = asyncio.create_task(talk.closed())
        told = asyncio.create_task(commands.get())
        try:
            done, _ = await asyncio.wait((gesture, closed, told), timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (gesture, closed, told):
                each.cancel()
        if gesture in done:
            return gesture.result()
        if told in done:
            command = told.result()
            if isinstance(command, End):
                return command
            raise AssertionError("a second question before the first was answered")
        if closed in done:
            raise CeremonyCancelled(reason="page")
        raise CeremonyTimedOut(seconds=round(deadline))

    def _answer(self, done: NewCredential | Answer) -> None:
        if isinstance(done, Answer):
            self._parent.answered(done)
        else:
            self._parent.enrolled(done)

    def _open(self, url: str, environment: Mapping[str, str]) -> bool:
        if not self._parent.opening.open or not has_desktop(environment):
            return False
        try:
            self._redirect = Redirect(url, environment)
        except OSError:
            return False
        self._parent.before_leaving(self._redirect.remove)
        return open_file(self._redirect.path, environment)

    def _tell(self, event: Event) -> None:
        if isinstance(event, PageOpened) and self._redirect is not None:
            self._redirect.remove()  # it has done its work, and holds the link
        self._parent.tell(event)


async def _at_most(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await work
