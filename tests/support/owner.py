"""The owner of a vault: starts the real command, and does in the browser what it then asks for."""

from __future__ import annotations

import subprocess

from tests.support.desktop import Desktop
from tests.support.station import Done, Station, finish
from tests.support.visitor import Visitor


class Owner:
    """Somebody at one desk, with one browser. What keeps the passkeys is in the browser's tab, whatever the machine."""

    def __init__(self, desktop: Desktop, visitor: Visitor) -> None:
        self.desktop, self.visitor = desktop, visitor

    def start(self, station: Station, *words: object, json: bool = True) -> subprocess.Popen[str]:
        """Begins a command, and opens the page that it asks the desktop to open."""
        process = station.start(*words, json=json)
        self.page(process)
        return process

    def page(self, process: subprocess.Popen[str]) -> None:
        """Opens the page that this command asks for now."""
        try:
            address = self.desktop.address(process)
        except AssertionError as error:
            process.kill()
            raise AssertionError(f"{error}: {finish(process)}") from None
        assert address.startswith("file:///")
        self.visitor.visit(address)

    def run(self, station: Station, *words: object, state: str = "done", json: bool = True) -> Done:
        """Runs a command whose page ends like that."""
        process = self.start(station, *words, json=json)
        try:
            self.visitor.presses(state)
        except AssertionError as error:
            process.kill()
            raise AssertionError(f"{error}: {finish(process)}") from None
        return finish(process)

    def touches(self, station: Station, *words: object) -> Done:
        """Runs a command that must succeed with one press of the page's button."""
        done = self.run(station, *words)
        assert done.code == 0, (words, done)
        return done

    def add_passkey(self, station: Station, *words: object) -> str:
        """Adds a passkey, with the recovery key on paper; returns the id of its slot."""
        added: str = self.touches(station, "key", "add", "passkey", "--key-file", station.key, *words).json["id"]
        return added
