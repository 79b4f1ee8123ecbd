"""Pages of the console in a tab of a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.beam_pipeline.web.serving import PASSWORD, Served
from tests.browser.looks import SIZES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ALL_DETAILS = "document.querySelectorAll('details')"
WIDTH = "document.documentElement.scrollWidth"


class Tab:
    """A page in a tab, and all that it complains of."""

    def __init__(
        self, browser: Browser, here: Served, path: str, size: str = "desk", **how: Any
    ) -> None:
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, **how)
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url, here.url))
        self.page.goto(here.url + path)

    def _note(self, url: str, own: str) -> None:
        if not url.startswith(own):
            self.elsewhere.append(url)

    def log_in(self, name: str) -> None:
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url("**/alerts**")

    def close(self) -> None:
        self.page.context.close()
