"""A real browser for the pages, and the pages' own server.

Pages are opened in Debian's Chromium, headless, each in a context of its own. Whatever a page
reports on its console, any script error, and any request to another host fails the test that
opened it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import final
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from gaba.web.server import Server

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
PATIENCE = 60_000
"""Milliseconds; for machines that have other things to do. What is there is not waited for."""

ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@final
@dataclass
class Watch:
    """What pages reported and asked for that they must not."""

    host: str = "127.0.0.1"
    troubles: list[str] = field(default_factory=list)

    def __call__(self, page: Page) -> None:
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("request", lambda request: self._request(request.url))

    def _console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.troubles.append(f"console {kind}: {text}")

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "file") and parts.hostname != self.host:
            self.troubles.append(f"request to another host: {url}")


Open = Callable[..., Page]
"""``open_page(url, *, width, height, theme)``: a page in a fresh context, loaded."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for the tests of a module, with a profile that is thrown away."""
    if not CHROMIUM.exists():
        pytest.skip(
            f"no Chromium at {CHROMIUM}: install it (Debian: apt-get install chromium), or name "
            "one in $CHROMIUM"
        )
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the server of the pages is, without any runs."""
    server = Server(port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server.address
    server.stop()
    thread.join()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Open]:
    """Opens pages; at the end of the test they must have been without troubles."""
    watch = Watch()
    contexts: list[BrowserContext] = []

    def opened(url: str, *, width: int = 1440, height: int = 900, theme: str = "light") -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if theme == "dark" else "light",
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        watch(page)
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not watch.troubles


@pytest.fixture(scope="module")
def _kept(chromium: Browser) -> Iterator[tuple[Page, Watch]]:
    context = chromium.new_context(reduced_motion="reduce")
    page, watch = context.new_page(), Watch()
    page.set_default_timeout(PATIENCE)
    watch(page)
    yield page, watch
    context.close()


@pytest.fixture
def kept_page(_kept: tuple[Page, Watch]) -> Iterator[Open]:
    """Opens the same as ``open_page``, but in one page for all tests of a module.

    With ``fresh=False`` what is open already stays as other tests left it: the test must set all
    that it looks at.
    """
    page, watch = _kept

    def opened(
        url: str, *, width: int = 1440, height: int = 900, theme: str = "light", fresh: bool = True
    ) -> Page:
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        known = unquote(page.url.partition("#")[0]) == url
        if known and fresh:
            page.evaluate("localStorage.clear()")
        if fresh or not known:
            page.goto(url)
        return page

    yield opened
    troubles = list(watch.troubles)
    watch.troubles.clear()
    assert not troubles
