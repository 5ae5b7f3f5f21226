"""Pictures of the passkey page: the real page of a real ceremony in Chromium, with a virtual authenticator.

python -m scripts.page_pictures [FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

from playwright.sync_api import Browser, Page, sync_playwright

from chatkeep.daemon.control.ceremony.client import ChildCeremony
from chatkeep.daemon.control.ceremony.events import Event, Ready
from chatkeep.daemon.control.errors import CeremonyError
from chatkeep.daemon.keys.passkey import Question

CODE: Final = 271828  # what the pictures show in place of a random number
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
AUTHENTICATOR: Final = {
    "protocol": "ctap2",
    "ctap2Version": "ctap2_1",
    "transport": "usb",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
    "hasHmacSecret": True,
}


@dataclass(frozen=True)
class Picture:
    """What is shown, and how the browser that shows it is set up."""

    name: str
    act: Callable[[ChildCeremony], object]
    steps: int
    state: str
    context: dict[str, Any]


def enrol(ceremony: ChildCeremony) -> None:
    """A new passkey."""
    made = ceremony.enrol([])
    question = Question(made.credential, bytes(32))
    ceremony.ask([question])
    ceremony.ask([question])
    ceremony.end()


def unlock(ceremony: ChildCeremony) -> None:
    """A passkey that is not there: the page waits, or says that it came to nothing."""
    ceremony.ask([Question(bytes(32), bytes(32))])


PICTURES: Final = (
    Picture("light", enrol, 3, "ready", {"viewport": {"width": 1000, "height": 740}}),
    Picture("dark", enrol, 3, "done", {"viewport": {"width": 1000, "height": 740}, "color_scheme": "dark"}),
    Picture("narrow", unlock, 1, "ready", {"viewport": {"width": 360, "height": 640}, "device_scale_factor": 2}),
)


@contextlib.contextmanager
def page_of(browser: Browser, picture: Picture) -> Iterator[Page]:
    """The page of a ceremony, opened in a tab of its own; the ceremony ends with the block."""
    links: queue.Queue[str] = queue.Queue()

    def tell(event: Event) -> None:
        if isinstance(event, Ready):
            links.put(event.url)

    def hold() -> None:
        user = "Ada's chats 2026-01-31 08:05 UTC: backup key, do not delete"
        # The tab is closed when the picture is taken: that it was cancelled is how it ends.
        with (
            contextlib.suppress(CeremonyError),
            mock.patch.object(secrets, "randbelow", return_value=CODE),
            ChildCeremony(
                "browser", vault="Ada's chats", user=user, steps=picture.steps, tell=tell, open_browser=False
            ) as ceremony,
        ):
            picture.act(ceremony)

    holding = threading.Thread(target=hold)
    holding.start()
    context = browser.new_context(**picture.context)
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    session.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
    page.goto(links.get(timeout=30))
    yield page
    context.close()
    holding.join()


def take(browser: Browser, picture: Picture, folder: Path) -> Path:
    """Takes a picture, and returns its file."""
    file = folder / f"passkey-page-{picture.name}.png"
    with page_of(browser, picture) as page:
        page.wait_for_selector("body[data-state=ready]")
        if picture.state != "ready":
            page.click("#go")
            page.wait_for_selector(f"body[data-state={picture.state}]")
        page.screenshot(path=file, full_page=True, animations="disabled")
    return file


def main() -> None:
    """Takes them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/images"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(FLAGS))
        for picture in PICTURES:
            file = take(browser, picture, folder)
            print(f"{file}  {file.stat().st_size // 1024} KiB")
        browser.close()


if __name__ == "__main__":
    main()
