"""The report's pictures. Each function returns None where the results hold nothing to draw."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from dtrnet_eval.picture import GRID, Picture, colour, marker, picture
from dtrnet_eval.results import RULER_METRIC, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = list[tuple[str, dict[str, Any]]]


def short(tokens: float) -> str:
    """2048 as 2k, 1536 as 1.5k; what is no multiple of 512 stays a number with separators."""
    return f"{tokens / 1024:g}k" if tokens >= 1024 and tokens % 512 == 0 else f"{tokens:,g}"


def tokens_ticks(low: float, high: float) -> list[int]:
    """Powers of two in a range, every second or third where there are many, and the range's end where it is not near one."""
    powers = [2**n for n in range(math.ceil(math.log2(max(low, 1))), math.floor(math.log2(max(high, 1))) + 1)]
    step = 1 + len(powers) // 6
    ticks = powers[::-1][::step][::-1]
    return [tick for tick in ticks if tick == high or high / tick > 1.4] + ([int(high)] if high not in ticks else [])


def _by_tokens(axes: Axes, what: str, ticks: list[int]) -> None:
    """A logarithmic axis of tokens with ticks that people read."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [short(tick) for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel(what)
    axes.grid(alpha=0.6)


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    """Outside of every field."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=columns)


def _curves(models: list[Results]) -> Curves:
    return [(f"{model.name}: {one['label']}", one) for model in models for one in model.long]


def _routed(models: list[Results]) -> Curves:
    """Those of models in which a layer leaves rows out."""
    return [(label, one) for label, one in _curves(models) if min(min(p["routed_share"]) for p in one["by_position"]) < 1]


def _middles(one: dict[str, Any]) -> list[float]:
    """Where a bucket of positions is drawn: the geometric middle of its ends, the first one's begin taken as 16."""
    edges = [max(row["from"], 16) for row in one["by_position"]]
    ends = [*edges[1:], max(one["by_length"][-1]["length"], edges[-1] + 1)]
    return [math.sqrt(a * b) for a, b in zip(edges, ends)]


def _line(axes: Axes, n: int, label: str, xs: list[float], rows: list[dict[str, Any]]) -> None:
    """Nats a token with a band of 95 % over documents, where a file has it."""
    nll = [row["nll"] for row in rows]
    axes.plot(xs, nll, color=colour(n), marker=marker(n), markersize=4, fillstyle="none", label=label)
    errors = [row.get("nll_stderr") for row in rows]
    if all(error is not None for error in errors):
        low, high = ([value + side * error for value, error in zip(nll, errors)] for side in (-1.96, 1.96))
        axes.fill_between(xs, low, high, color=colour(n), alpha=0.15, linewidth=0)


def context(models: list[Results]) -> Picture | None:
    """NLL by window length (left) and by position (right)."""
    curves = _curves(models)
    if not curves:
        return None

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for n, (label, one) in enumerate(curves):
            _line(left, n, label, [p["length"] for p in one["by_length"]], one["by_length"])
            _line(right, n, label, _middles(one), one["by_position"])
        lengths = sorted({p["length"] for _, one in curves for p in one["by_length"]})
        _by_tokens(left, "window length, tokens", lengths)
        _by_tokens(right, "position, tokens", tokens_ticks(32, lengths[-1]))
        left.set_ylabel("nats a token")
        _legend(figure, left, 2)

    return picture("context", draw, height=4.0 + 0.15 * len(curves))


class Point(NamedTuple):
    """Share of items right at a length; n: items, None where a run counted all lengths together."""

    tokens: int
    share: float
    n: int | None = None


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % of a share of n items, by Wilson's score; it holds for few items, too."""
    z = 1.96
    middle, width = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (middle - width) / (1 + z * z / n)), min(1.0, (middle + width) / (1 + z * z / n))


def retrieval_series(model: Results) -> dict[str, list[Point]]:
    """Task -> points in order of length."""
    series: dict[str, list[Point]] = defaultdict(list)
    for task, metrics in model.tasks.items():
        named = re.fullmatch(r"(.+)_(\d+)k", task)
        right = metrics.get("acc", metrics.get("exact_match"))
        if named and right:
            series[named[1]].append(Point(1024 * int(named[2]), right.value, right.n))
        for metric, found in metrics.items():
            if metric.startswith(RULER_METRIC):
                series[task].append(Point(int(metric.removeprefix(RULER_METRIC)), found.value, found.n))
    return {task: sorted(points) for task, points in sorted(series.items())}


def _apart(xs: list[int], n: int, of: int) -> list[float]:
    """Moves series sideways on a logarithmic axis, so that equal points stay visible."""
    return [x * 2 ** (0.09 * (n - (of - 1) / 2)) for x in xs]


def _intervals(axes: Axes, n: int, xs: list[float], points: list[Point]) -> None:
    """Where the number of items is known."""
    for x, point in zip(xs, points):
        if point.n:
            axes.plot([x, x], wilson(point.share, point.n), color=colour(n), lw=1, alpha=0.6)


def retrieval(models: list[Results]) -> Picture | None:
    """Share of items right by length: a field for each task, a line for each model."""
    series = {model.name: retrieval_series(model) for model in models}
    tasks = sorted({task for one in series.values() for task in one})
    if not tasks:
        return None

    def draw(figure: Figure) -> None:
        fields = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
        for axes, task in zip(fields, tasks):
            for n, name in enumerate(series):
                points = series[name].get(task, [])
                xs = _apart([point.tokens for point in points], n, len(series))
                _intervals(axes, n, xs, points)
                axes.plot(
                    xs,
                    [point.share for point in points],
                    color=colour(n),
                    marker=marker(n),
                    markersize=5,
                    fillstyle="none",
                    lw=1,
                    label=name,
                )
            _by_tokens(axes, "tokens", sorted({point.tokens for one in series.values() for point in one.get(task, [])}))
            axes.set_title(task)
            axes.set_ylim(-0.05, 1.05)
        fields[0].set_ylabel("share of items right")
        _legend(figure, fields[0], 4)

    return picture("retrieval", draw, width=2 + 2.4 * len(tasks))


def _cell(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1)


def _heat(axes: Axes, grid: list[list[float]], columns: list[str], rows: list[str], size: int) -> Any:
    """Cells of shares between 0 and 1 with their numbers."""
    image = axes.pcolormesh(grid, vmin=0, vmax=1, cmap="viridis", edgecolors="face", linewidth=0.3)
    axes.invert_yaxis()
    axes.set_xticks([x + 0.5 for x in range(len(columns))], columns, fontsize=8, rotation=45 if len(columns) > 14 else 0)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], rows, fontsize=8)
    for y, line in enumerate(grid):
        for x, value in enumerate(line):
            if not math.isnan(value):
                shade = "black" if value > 0.55 else "white"
                axes.text(x + 0.5, y + 0.5, _cell(value), ha="center", va="center", color=shade, fontsize=size)
    return image


def _colour_bar(figure: Figure, image: Any, fields: list[Axes]) -> None:
    """Below all fields, as wide as they are: its label has room there."""
    figure.colorbar(
        image,
        ax=fields,
        location="bottom",
        label="share of rows that attend, or execute the layer where it says so",
        aspect=60,
        fraction=0.04,
        pad=0.02,
    )


def routing_by_position(models: list[Results]) -> Picture | None:
    """Share of rows that attend, layer by position: a heat map for each long-context file of a model that routes.

    A model with nested layers has a second one: the share of rows that execute the layer; the rest skip it.
    """
    routed = [(label, one["by_position"], "routed_share") for label, one in _routed(models)]
    skipping = [(f"{label}, executed", rows, "executed_share") for label, rows, _ in routed if "executed_share" in rows[0]]
    maps = sorted(routed + skipping, key=lambda one: one[0])
    if not maps:
        return None
    layers = max(len(rows[0][share]) for _, rows, share in maps)

    def draw(figure: Figure) -> None:
        every = list(figure.subplots(len(maps), 1, squeeze=False)[:, 0])
        for axes, (label, rows, share) in zip(every, maps):
            grid = [[row[share][layer] for row in rows] for layer in range(len(rows[0][share]))]
            image = _heat(axes, grid, [short(row["from"]) for row in rows], [str(layer) for layer in range(len(grid))], 7)
            axes.set_title(label)
            axes.set_xlabel("position from, tokens")
            axes.set_ylabel("layer")
        _colour_bar(figure, image, every)

    return picture("position", draw, height=0.8 + len(maps) * (1.3 + 0.22 * layers))


def routing_by_run(models: list[Results]) -> Picture | None:
    """Share of rows that attend by layer, a line of cells for each run of a model that routes, and one of those that execute the layer."""
    runs = [(f"{model.name}: {run.name}", run.cost) for model in models for run in model.runs.values()]
    named = (("", "routed_share"), (", executed", "executed_share"))
    lines = [(label + about, cost.get(name)) for label, cost in runs for about, name in named]
    lines = [(name, share) for name, share in lines if share and min(share) < 1]
    if not lines:
        return None
    width = max(len(share) for _, share in lines)
    grid = [list(share) + [float("nan")] * (width - len(share)) for _, share in lines]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        image = _heat(axes, grid, [str(layer) for layer in range(width)], [name for name, _ in lines], 8)
        axes.set_xlabel("layer")
        _colour_bar(figure, image, [axes])

    return picture("run", draw, height=2.0 + 0.35 * len(lines))


COSTS = (("flops_full", "FLOPs, full T²"), ("flops_causal", "FLOPs, causal"), ("kv_rows", "KV rows"))


def cost_by_length(models: list[Results]) -> Picture | None:
    """FLOPs under both labels and KV rows against the same with every layer dense, by window length: a field for each."""
    curves = _routed(models)
    if not curves:
        return None

    def draw(figure: Figure) -> None:
        fields = figure.subplots(1, len(COSTS), sharey=True)
        ticks = sorted({p["length"] for _, one in curves for p in one["by_length"]})
        for axes, (what, title) in zip(fields, COSTS):
            for n, (label, one) in enumerate(curves):
                xs = _apart([p["length"] for p in one["by_length"]], n, len(curves))
                ratio = [p["cost"][what] / p["cost"]["dense_" + what] for p in one["by_length"]]
                axes.plot(xs, ratio, color=colour(n), marker=marker(n), markersize=5, fillstyle="none", label=label)
            _by_tokens(axes, "window length, tokens", ticks)
            axes.set_ylim(0, 1.02)
            axes.set_title(title)
        fields[0].set_ylabel("against all layers dense")
        _legend(figure, fields[0], 2)

    return picture("cost", draw, height=3.6 + 0.15 * len(curves))


def phases(cost: dict[str, Any]) -> dict[str, float] | None:
    """Seconds of a run, from the model's making to its results: forward passes, what else requests took, the harness's own work."""
    whole, engine, asked = cost.get("seconds_in_all"), cost.get("seconds_in_engine"), sum(cost.get("seconds", {}).values())
    if whole is None or engine is None:
        return None
    return {"forward passes": engine, "rest of the requests": max(0.0, asked - engine), "harness": max(0.0, whole - max(asked, engine))}


def time_by_phase(models: list[Results]) -> Picture | None:
    """Seconds by phase, a bar for each run."""
    bars = [(f"{model.name}: {run.name}", phases(run.cost)) for model in models for run in model.runs.values()]
    bars = [(name, parts) for name, parts in bars if parts]
    if not bars:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        begin = [0.0] * len(bars)
        for n, phase in enumerate(bars[0][1]):
            widths = [parts[phase] for _, parts in bars]
            axes.barh(range(len(bars)), widths, left=begin, label=phase, color=colour(n), edgecolor=GRID, linewidth=0.5)
            begin = [a + b for a, b in zip(begin, widths)]
        axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("seconds")
        _legend(figure, axes, 3)

    return picture("time", draw, height=1.6 + 0.32 * len(bars))
