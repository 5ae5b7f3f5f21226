"""The person in front of the page: reads it, presses its buttons."""

from __future__ import annotations

from playwright.sync_api import Error

from tests.support.chromium import Tab


class TooLate(AssertionError):
    """The ceremony was over before the person came to what they were to do."""


class Visitor:
    """Somebody with the page of a ceremony in a tab."""

    def __init__(self, tab: Tab) -> None:
        self.tab, self.page = tab, tab.page

    def visit(self, address: str, state: str = "ready") -> None:
        """Opens the page, as the desktop would, and waits for it to be there."""
        try:
            self.page.goto(address, wait_until="commit")
        except Error as error:
            raise TooLate(f"nobody serves the page: {self.tab.seen}") from error
        self.sees(state)

    def sees(self, state: str) -> None:
        """Waits until the page is in a state: opening, ready, busy, waiting, failed, done or over."""
        # Which is not waited for any longer once the page is over.
        wanted = ", ".join(f"body[data-state={each}]" for each in dict.fromkeys((state, "over", "done")))
        try:
            self.page.locator(wanted).wait_for()
        except Error as error:
            raise AssertionError(f"the page never was {state}: {self.text!r} {self.tab.seen}") from error
        found = self.page.locator("body").get_attribute("data-state")
        if found in {"over", "done"} and found != state:
            raise TooLate(f"the page was not {state} but {found}: {self.text!r} {self.tab.seen}")

    def presses(self, state: str) -> None:
        """Presses the button that goes on, and waits until the page is in a state."""
        self.page.locator("#go:visible, body[data-state=over]").first.wait_for()
        try:
            self.page.locator("#go").click(timeout=20_000)
        except Error as error:
            raise TooLate(f"there is no button: {self.text!r} {self.tab.seen}") from error
        self.sees(state)

    def cancels(self) -> None:
        self.page.locator("#stop").click()

    @property
    def text(self) -> str:
        """All that the page shows."""
        return self.page.locator("body").inner_text()

    @property
    def title(self) -> str:
        return self.page.locator("#title").inner_text()

    @property
    def code(self) -> str:
        """The six digits to compare."""
        return "".join(self.page.locator("#code").inner_text().split())
