"""A real Chromium for the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.absent import give_up

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def chromium() -> Iterator[Browser]:
    """Starts Debian's Chromium, and ends it."""
    program = shutil.which("chromium")
    if program is None:
        give_up("there is no chromium here (Debian's package chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from chromium()
