"""Pictures of the page for docs, with few colours so that they stay small: screenshots.py DIR."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import browser as tools  # isort: skip  (first: it finds the Python that has the other packages)
from PIL import Image
from test_page import ask

sys.path.insert(0, str(tools.ROOT / "docs"))
from draw_routing import TEXT

from support import Server

COLOURS = 96


def main() -> None:
    """A desktop in light, a phone in dark."""
    folder = Path(sys.argv[1])
    with tools.chromium() as browser, Server() as server:
        for name, size, theme, height in (("page-desktop", "desktop", "light", 1420), ("page-phone", "phone", "dark", 1180)):
            with tools.opened(browser, server.url + "/", [], size, theme) as page:
                page.check("#bos")
                ask(page, TEXT)
                page.locator("#token-21").click()
                page.select_option("#view", "p")
                page.evaluate("drawMap()")
                width = tools.SIZES[size][0]
                png = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})
            picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            picture.save(folder / f"{name}.png", optimize=True)
            print(f"{name}.png: {(folder / f'{name}.png').stat().st_size} bytes")


if __name__ == "__main__":
    main()
