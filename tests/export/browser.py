"""Debian's Chromium, headless, for tests of pages."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
LIMIT_S = 30.0
SIZES = {"desktop": (1440, 1000), "phone": (390, 844)}


class OpenedPage:
    """A page in a browser, all that it asked for, and what went wrong in it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.problems: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._note)
        page.on("dialog", self._refuse)

    def _note(self, message: Any) -> None:
        if message.type == "error":
            self.problems.append(message.text)

    def _refuse(self, dialog: Any) -> None:
        self.problems.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def wait_for(self, script: str) -> None:
        """Wait until an expression is true. Not Playwright's own way, which the pages' policy forbids: it evaluates strings."""
        give_up_s = time.monotonic() + LIMIT_S
        while not self.page.evaluate(script):
            assert time.monotonic() < give_up_s, f"{script} stays false"
            self.page.wait_for_timeout(20)

    def number(self, script: str) -> float:
        """Return the value of an expression."""
        return float(self.page.evaluate(script))


@contextmanager
def launched() -> Iterator[Any]:
    """Yield a browser. Skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, size: str = "desktop", color_scheme: str = "light") -> Iterator[OpenedPage]:
    """Yield a page that was loaded from disk."""
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=color_scheme)
    found = OpenedPage(page)
    page.goto(path.absolute().as_uri())
    page.wait_for_load_state("load")
    yield found
    page.close()
