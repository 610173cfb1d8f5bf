"""A figure as SVG for the page, where colours follow the reader's light or dark setting, and as PNG for Markdown."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, GRID = "#101010", "#c9c9c8"
# Eight colours for lines and bars, each with a contrast of 3 or more to the page in its setting.
LIGHT = ("#0b62a4", "#c2410c", "#15803d", "#9333ea", "#b91c1c", "#0e7490", "#854d0e", "#4b5563")
DARK = ("#60a5fa", "#fb923c", "#4ade80", "#c084fc", "#f87171", "#22d3ee", "#facc15", "#9ca3af")
MARKERS = "os^DvPX*"
SETTINGS = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


class Picture(NamedTuple):
    """One drawing in both forms."""

    svg: str
    png: bytes


def colour(n: int) -> str:
    """The n-th series' colour."""
    return LIGHT[n % len(LIGHT)]


def marker(n: int) -> str:
    """The n-th series' marker."""
    return MARKERS[n % len(MARKERS)]


def _themed(svg: str, name: str) -> str:
    """The SVG element alone: colours as the page's variables, ids that no other picture has, no fixed size."""
    svg = svg[svg.index("<svg") :]
    for n, hexa in enumerate(LIGHT):
        svg = svg.replace(hexa, f"var(--s{n})")
    svg = svg.replace(INK, "currentColor").replace(GRID, "var(--grid)")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1)


def picture(name: str, draw: Callable[[Figure], None], width: float = 9.0, height: float = 4.0) -> Picture:
    """Draws twice.

    Args:
        name: prefix of the SVG's ids.
        draw: puts everything on an empty figure.
        width: inches.
        height: inches.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=130, facecolor="white")
        svg = io.StringIO()
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return Picture(_themed(svg.getvalue(), name), png.getvalue())
