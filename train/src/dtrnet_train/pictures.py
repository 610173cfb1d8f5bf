"""The same numbers drawn, where matplotlib is installed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtrnet_train.errors import fail

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = ("projections", "scores", "mlp", "router", "head")


def _figure(width: float, height: float) -> Figure | None:
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def flops(rows: list[dict[str, Any]], path: Path) -> None:
    """FLOPs a token by part, a bar for each length, with the share of the dense model's written on it."""
    figure = _figure(7, 4)
    if figure is None:
        fail("--picture needs matplotlib: pip install matplotlib")
    axes, base = figure.subplots(), [0.0] * len(rows)
    for part in PARTS:
        heights = [row[part] / 1e6 for row in rows]
        axes.bar(range(len(rows)), heights, bottom=base, label=part, width=0.6)
        base = [b + h for b, h in zip(base, heights)]
    for x, (row, top) in enumerate(zip(rows, base)):
        axes.text(x, top, f"{row['of_dense']:.0%} of dense", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(rows)), [f"{row['length']:,}" for row in rows])
    axes.set_xlabel("tokens")
    axes.set_ylabel("MFLOPs a token, forward")
    axes.margins(y=0.1)
    axes.legend(fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130)


def _heat(axes: Axes, grid: list[list[float | None]], columns: list[str], rows: list[str], low: float) -> Any:
    cells = [[math.nan if v is None else v for v in row] for row in grid]
    image = axes.pcolormesh(cells, vmin=low, vmax=1, cmap="viridis")
    axes.invert_yaxis()
    every = max(1, len(columns) // 24)
    axes.set_xticks([i + 0.5 for i in range(0, len(columns), every)], columns[::every], fontsize=7)
    axes.set_yticks([i + 0.5 for i in range(len(rows))], rows, fontsize=7)
    if len(columns) * len(rows) <= 400:
        for y, row in enumerate(cells):
            for x, value in enumerate(row):
                if not math.isnan(value):
                    middle = low + 0.55 * (1 - low)
                    axes.text(
                        x + 0.5, y + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=6, color="black" if value > middle else "white"
                    )
    return image


def _shares(result: dict[str, Any], what: str, columns: list[int]) -> Figure | None:
    """A field for each grouping, groups by layers."""
    fields = {name: [p for p in parts if p["tokens"]] for name, parts in result["by"].items()}
    figure = _figure(2.5 + 0.45 * len(columns), 1.2 + sum(0.5 + 0.26 * len(parts) for parts in fields.values()))
    if figure is None:
        return None
    every = figure.subplots(len(fields), 1, squeeze=False, height_ratios=[len(parts) for parts in fields.values()])[:, 0]
    for axes, (name, parts) in zip(every, fields.items()):
        grid = [[p["layers"][i][what] for i in columns] for p in parts]
        image = _heat(axes, grid, [str(i) for i in columns], [p["group"] for p in parts], 0)
        axes.set_ylabel(name, fontsize=8)
    every[-1].set_xlabel("layer")
    figure.colorbar(image, ax=list(every), location="bottom", aspect=50, label="share of tokens")
    return figure


def _layers(result: dict[str, Any]) -> Figure | None:
    figure, layers = _figure(7, 3), result["layers"]
    if figure is None:
        return None
    axes, xs = figure.subplots(), [x["layer"] for x in layers]
    axes.bar(xs, [x["execute"] for x in layers], label="execute", color="#c9d6e8", width=0.8)
    axes.bar(xs, [x["attend_of_all"] for x in layers], label="attend", color="#0b62a4", width=0.5)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("layer")
    axes.set_ylabel("share of tokens")
    axes.legend(fontsize=8, loc="upper right")
    return figure


def _cosine(result: dict[str, Any]) -> Figure | None:
    n = len(result["cosine"])
    size = 2.5 + min(0.34 * n, 12)
    figure = _figure(size, size)
    if figure is None:
        return None
    axes, names = figure.subplots(), [str(i) for i in range(n)]
    image = _heat(axes, result["cosine"], names, names, min(0.0, *(min(row) for row in result["cosine"])))
    axes.set_title("cosine of the residual stream before each layer and behind the last", fontsize=8)
    figure.colorbar(image, ax=axes, location="bottom", aspect=50)
    return figure


def routing(result: dict[str, Any], folder: Path) -> list[str]:
    """Writes the pictures; their names, none without matplotlib."""
    routed = [x["layer"] for x in result["layers"] if x["letter"] != "T"]
    nested = [x["layer"] for x in result["layers"] if x["letter"] in "SML"]
    made = {"layers.png": _layers(result), "cosine.png": _cosine(result)}
    made |= {"attend.png": _shares(result, "attend_of_all", routed)} if routed else {}
    made |= {"execute.png": _shares(result, "execute", nested)} if nested else {}
    made = {name: figure for name, figure in made.items() if figure is not None}
    for name, figure in made.items():
        _save(figure, folder / name)
    return list(made)
