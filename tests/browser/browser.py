"""What the browser tests share: Debian's Chromium without a head, pages at two widths in two themes, and what is wrong with a page.

A page must not ask for anything but its own, write to its console, be wider than the window, or have a serious finding of axe.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import support  # noqa: E402  (finds the Python that has the packages, or skips)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
THEMES = ("light", "dark")
SERIOUS = ("serious", "critical")


def require() -> None:
    """Ends the test as skipped where there is no browser or no axe."""
    if CHROMIUM is None:
        support.skip("no Chromium")
    if importlib.util.find_spec("axe_playwright_python") is None:
        support.skip("no Python package axe_playwright_python; ./run-tests installs it into .venv")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser, or the end of the test as skipped."""
    require()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(
    browser: Any,
    url: str,
    wrong: list[str],
    size: str = "desktop",
    theme: str = "light",
    inline: tuple[str, ...] = ("data:", "blob:"),
    **options: object,
) -> Iterator[Any]:
    """A page of its own; requests to elsewhere, messages on its console and exceptions go to `wrong`."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme, **options)
    context.set_default_timeout(120_000)
    page = context.new_page()
    own = (url.split("#")[0], *inline)
    page.on("request", lambda request: None if request.url.startswith(own) else wrong.append(f"request: {request.url}"))
    page.on("console", lambda message: wrong.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"exception: {error}"))
    page.goto(url)
    yield page
    context.close()


def too_wide(page: Any) -> list[str]:
    """Does the page reach beyond the window?"""
    wide, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return [f"the page is {wide} pixels wide in a window of {window}"] if wide > window else []


def findings(page: Any) -> list[str]:
    """Serious findings of axe. The page must have been opened with bypass_csp, since axe is a script."""
    from axe_playwright_python.sync_playwright import Axe

    found = [one for one in Axe().run(page).response["violations"] if one["impact"] in SERIOUS]
    return [f"axe: {one['id']}: {one['nodes'][0]['html'][:200]}: {one['nodes'][0]['failureSummary']}" for one in found]


def wait_until(page: Any, script: str, wanted: object = True) -> None:
    """Until the script's value in the page is the wanted one.

    Playwright's wait_for_function would need eval, which the page's policy forbids.
    """
    for _ in range(2400):
        if page.evaluate(script) == wanted:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{script} never became {wanted!r}")
