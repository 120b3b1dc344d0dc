"""Headless Chromium for tests of pages; collects the errors that it reports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WHERE = "install requirements-app.txt and chromium; `make test-app` runs them"
try:
    import gradio  # noqa: F401
    from playwright import sync_api
except ImportError as error:
    pytest.skip(
        f"these tests need Gradio and Playwright ({error}): {WHERE}", allow_module_level=True
    )
CHROMIUM = next(
    (shutil.which(n) for n in ("chromium", "chromium-browser", "google-chrome") if shutil.which(n)),
    None,
)
if CHROMIUM is None:
    pytest.skip(f"these tests need Chromium: {WHERE}", allow_module_level=True)


class Visitor:
    """One person's browser window, at an address."""

    def __init__(self, context: Any, address: str) -> None:
        self.address = address
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._on_request)
        self.page.goto(address)

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(
            self.page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
        )


class Browser:
    """Opens windows, each with its own cookies and storage."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium

    @contextmanager
    def visit(self, address: str, width: int = 1280, height: int = 900) -> Iterator[Visitor]:
        """A visitor; at the end, the page must have had no errors and contacted no other machine."""
        context = self._chromium.new_context(
            viewport={"width": width, "height": height}, accept_downloads=True
        )
        try:
            visitor = Visitor(context, address)
            yield visitor
            assert visitor.errors == []
            assert visitor.elsewhere == []
        finally:
            context.close()


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser process."""
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield Browser(chromium)
        finally:
            chromium.close()
