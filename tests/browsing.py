"""A page in the system's headless Chromium, and what goes wrong in it."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Page, async_playwright

_FOUND = filter(None, map(shutil.which, ("chromium", "google-chrome")))
CHROMIUM = next((path for path in _FOUND if Path(path).resolve().name != "snap"), None)  # a snap sees no temporary files

# Continuous integration has set the browser up, or has to say why not.
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="Chromium is not installed: apt-get install chromium, or `make setup` as root"
)


@dataclass
class Opened:
    """An open page. `trouble` is every error, console message and request beyond the file itself."""

    page: Page
    trouble: list[str] = field(default_factory=list)

    async def evaluate(self, script: str) -> Any:
        return await self.page.evaluate(script)


@asynccontextmanager
async def opened(
    file: Path, *, width: int = 1280, scheme: Literal["light", "dark"] = "light", media: Literal["screen", "print"] = "screen"
) -> AsyncIterator[Opened]:
    """Open a file without a network."""
    assert CHROMIUM is not None, "Chromium is not installed"
    async with async_playwright() as playwright:
        # Our own page, and often as root: its sandbox has nothing to protect here.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            context = await browser.new_context(viewport={"width": width, "height": 800}, offline=True, color_scheme=scheme)
            page = await context.new_page()
            await page.emulate_media(media=media, color_scheme=scheme)
            looked = Opened(page)
            page.on("console", lambda message: looked.trouble.append(f"console: {message.text}"))
            page.on("pageerror", lambda error: looked.trouble.append(f"error: {error}"))
            page.on("requestfailed", lambda request: looked.trouble.append(f"failed: {request.url[:200]}"))
            page.on("dialog", lambda dialog: looked.trouble.append(f"dialog: {dialog.message}"))
            page.on(
                "request",
                lambda request: (
                    None
                    if request.url == file.as_uri() or request.url.startswith("data:")
                    else looked.trouble.append(f"request: {request.url[:200]}")
                ),
            )
            await page.goto(file.as_uri(), wait_until="load")
            yield looked
        finally:
            await browser.close()
