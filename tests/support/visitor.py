"""The person in front of the page: reads it, presses its buttons."""

from __future__ import annotations

from playwright.sync_api import Error

from tests.support.chromium import Tab


class Visitor:
    """Somebody with the page of a ceremony in a tab."""

    def __init__(self, tab: Tab) -> None:
        self.tab, self.page = tab, tab.page

    def visit(self, address: str, state: str = "ready") -> None:
        """Opens the page, as the desktop would, and waits for it to be there."""
        self.page.goto(address, wait_until="commit")
        self.sees(state)

    def sees(self, state: str) -> None:
        """Waits until the page is in a state: opening, ready, busy, waiting, failed, done or over."""
        try:
            self.page.locator(f"body[data-state={state}]").wait_for()
        except Error as error:
            raise AssertionError(f"the page never was {state}: {self.text!r} {self.tab.seen}") from error

    def presses(self, state: str) -> None:
        """Presses the button that goes on, and waits until the page is in a state."""
        self.page.locator("#go").click()
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
