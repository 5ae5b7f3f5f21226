"""Software keys in a process of their own: `python -m tests.support.soft_key.desk DIRECTORY`.

Requests come as JSON lines on standard input, each is answered by one line; the end of the input ends the process.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from tests.support.soft_key.acts import Lie
from tests.support.soft_key.authenticator import SoftAuthenticator
from tests.support.soft_key.presence import Touch
from tests.support.soft_key.usb import Port


class Desk:
    """Keys by name; what may be done with them."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._ports: dict[str, Port] = {}

    def make(self, key: str, pin: str | None, traits: dict[str, Any]) -> None:
        if "protocols" in traits:
            traits["protocols"] = tuple(traits["protocols"])
        if key in self._ports:
            self._ports[key].pull()
        self._ports[key] = Port(os.path.join(self._directory, key), SoftAuthenticator(pin, **traits))

    def clear(self) -> None:
        for port in self._ports.values():
            port.pull()
        self._ports = {}

    def plug(self, key: str) -> None:
        self._ports[key].plug()

    def pull(self, key: str) -> None:
        self._ports[key].pull()

    def pull_at(self, key: str, command: int) -> None:
        self._ports[key].pull_at = command

    def person(
        self,
        key: str,
        touch: str | None = None,
        finger: bool | None = None,
        patience: float | None = None,
        wrong_fingers: int = 0,
    ) -> None:
        person = self._ports[key].authenticator.person
        person.touch = person.touch if touch is None else Touch(touch)
        person.finger_matches = person.finger_matches if finger is None else finger
        person.patience = person.patience if patience is None else patience
        person.wrong_fingers = wrong_fingers

    def pin_left(self, key: str, tries: int) -> None:
        self._ports[key].authenticator.parts.pin.pin_left = tries

    def lie(self, key: str, lies: list[str]) -> None:
        self._ports[key].authenticator.lie(*(Lie[name] for name in lies))

    def waits(self, key: str, seconds: float) -> bool:
        return self._ports[key].authenticator.person.waiting.wait(seconds)

    def export(self, key: str) -> list[dict[str, Any]]:
        return self._ports[key].authenticator.export()

    def restore(self, key: str, exported: list[dict[str, Any]]) -> None:
        self._ports[key].authenticator.restore(exported)

    def state(self, key: str) -> dict[str, Any]:
        port = self._ports[key]
        authenticator = port.authenticator
        return {
            "commands": authenticator.commands,
            "pin_retries": authenticator.pin_retries,
            "uv_retries": authenticator.parts.pin.uv_left,
            "blinked": authenticator.person.blinked,
            "waiting": authenticator.person.waiting.is_set(),
            "pulled": port.pulled,
            "told": [lie.name for lie in authenticator.parts.told],
        }


def main() -> None:
    desk = Desk(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(desk, request.pop("do"))(**request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
