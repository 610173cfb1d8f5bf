"""The report's pictures, as PNG. Each function returns None where the results hold nothing to draw."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dtrnet_eval.results import RULER_METRIC, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = list[tuple[str, dict[str, Any]]]


def _png(draw: Callable[[Figure], None], width: float = 9.0, height: float = 4.0) -> bytes:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    draw(figure)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    return out.getvalue()


def short(tokens: float) -> str:
    """2048 as 2k, 20480 as 20k; what is not near a multiple of 512 stays."""
    return f"{tokens / 1024:g}k" if tokens >= 1024 and tokens % 512 == 0 else f"{tokens:g}"


def _curves(models: list[Results]) -> Curves:
    return [(f"{model.name}: {one['label']}", one) for model in models for one in model.long]


def _routed(models: list[Results]) -> Curves:
    """Those of models in which a layer leaves rows out."""
    return [(label, one) for label, one in _curves(models) if min(min(p["routed_share"]) for p in one["by_position"]) < 1]


def _by_tokens(axes: Axes, what: str, ticks: list[float]) -> None:
    """A logarithmic axis of tokens with ticks that people read."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [short(tick) for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel(what)
    axes.grid(alpha=0.3)


def context(models: list[Results]) -> bytes | None:
    """NLL by window length (left) and by position (right)."""
    curves = _curves(models)
    if not curves:
        return None

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for label, one in curves:
            left.plot([p["length"] for p in one["by_length"]], [p["nll"] for p in one["by_length"]], marker="o", label=label)
            right.plot([max(p["from"], 32) for p in one["by_position"]], [p["nll"] for p in one["by_position"]], marker=".", label=label)
        _by_tokens(left, "window length, tokens", sorted({p["length"] for _, one in curves for p in one["by_length"]}))
        _by_tokens(right, "position, tokens", [32, 128, 512, 2048, 8192, 20480])
        left.set_ylabel("nats a token")
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", fontsize=8, ncols=2)

    return _png(draw, height=4.2)


def retrieval_series(model: Results) -> dict[str, list[tuple[int, float]]]:
    """Task -> (tokens, share right) in order of length."""
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for task, metrics in model.tasks.items():
        named = re.fullmatch(r"(.+)_(\d+)k", task)
        right = metrics.get("acc", metrics.get("exact_match"))
        if named and right:
            series[named[1]].append((1024 * int(named[2]), right[0]))
        for metric, (value, _) in metrics.items():
            if metric.startswith(RULER_METRIC):
                series[task].append((int(metric.removeprefix(RULER_METRIC)), value))
    return {task: sorted(points) for task, points in sorted(series.items())}


def retrieval(models: list[Results]) -> bytes | None:
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
                axes.plot([length for length, _ in points], [right for _, right in points], marker="os^D"[n % 4], label=name, alpha=0.8)
            _by_tokens(axes, "tokens", sorted({length for one in series.values() for length, _ in one.get(task, [])}))
            axes.set_title(task, fontsize=9)
            axes.set_ylim(-0.03, 1.03)
        fields[0].set_ylabel("share of items right")
        figure.legend(*fields[0].get_legend_handles_labels(), loc="outside upper center", fontsize=8, ncols=4)

    return _png(draw, width=2 + 2.4 * len(tasks))


def _heat(axes: Axes, grid: list[list[float]], columns: list[str], rows: list[str], size: int) -> Any:
    """Cells of shares between 0 and 1 with their numbers."""
    image = axes.imshow(grid, aspect="auto", vmin=0, vmax=1, cmap="viridis")
    axes.set_xticks(range(len(columns)), columns, fontsize=8, rotation=45 if len(columns) > 12 else 0)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    for y, line in enumerate(grid):
        for x, value in enumerate(line):
            colour = "black" if value > 0.6 else "white"
            axes.text(x, y, f"{value:.2f}".replace("0.", ".", 1), ha="center", va="center", color=colour, fontsize=size)
    return image


def routing_by_position(models: list[Results]) -> bytes | None:
    """Share of rows that attend, layer by position: a heat map for each long-context file of a model that routes."""
    routed = _routed(models)
    if not routed:
        return None
    layers = max(len(one["by_position"][0]["routed_share"]) for _, one in routed)

    def draw(figure: Figure) -> None:
        every = figure.subplots(len(routed), 1, squeeze=False)[:, 0]
        for axes, (label, one) in zip(every, routed):
            rows = one["by_position"]
            grid = [[row["routed_share"][layer] for row in rows] for layer in range(len(rows[0]["routed_share"]))]
            image = _heat(axes, grid, [short(row["from"]) for row in rows], [str(layer) for layer in range(len(grid))], 7)
            axes.set_title(label, fontsize=9)
            axes.set_xlabel("position from, tokens")
            axes.set_ylabel("layer")
        figure.colorbar(image, ax=list(every), label="share of rows that attend", aspect=40)

    return _png(draw, height=len(routed) * (1.4 + 0.22 * layers))


def routing_by_run(models: list[Results]) -> bytes | None:
    """Share of rows that attend by layer, a line of cells for each run of a model that routes."""
    lines = [(f"{model.name}: {run.name}", run.cost.get("routed_share")) for model in models for run in model.runs.values()]
    lines = [(name, share) for name, share in lines if share and min(share) < 1]
    if not lines:
        return None
    width = max(len(share) for _, share in lines)
    grid = [list(share) + [float("nan")] * (width - len(share)) for _, share in lines]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        image = _heat(axes, grid, [str(layer) for layer in range(width)], [name for name, _ in lines], 8)
        axes.set_xlabel("layer")
        figure.colorbar(image, label="share of rows that attend")

    return _png(draw, height=1.5 + 0.4 * len(lines))


def cost_by_length(models: list[Results]) -> bytes | None:
    """FLOPs under both labels (left) and KV rows (right) against the same with every layer dense, by window length."""
    curves = _routed(models)
    if not curves:
        return None

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for n, (label, one) in enumerate(curves):
            lengths = [p["length"] for p in one["by_length"]]
            for what, style in (("flops_full", "-"), ("flops_causal", "--")):
                ratio = [p["cost"][what] / p["cost"]["dense_" + what] for p in one["by_length"]]
                left.plot(lengths, ratio, style, color=f"C{n}", marker="o", label=f"{label}, {what.removeprefix('flops_')}")
            right.plot(lengths, [p["cost"]["kv_rows"] / p["cost"]["dense_kv_rows"] for p in one["by_length"]], color=f"C{n}", marker="o")
        ticks = sorted({p["length"] for _, one in curves for p in one["by_length"]})
        for axes, what in ((left, "FLOPs against dense"), (right, "KV rows against dense")):
            _by_tokens(axes, "window length, tokens", ticks)
            axes.set_ylim(0, 1.02)
            axes.set_ylabel(what)
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", fontsize=8, ncols=2)

    return _png(draw)


def phases(cost: dict[str, Any]) -> dict[str, float] | None:
    """Seconds of a run, from the model's making to its results: forward passes, what else requests took, the harness's own work."""
    whole, engine, asked = cost.get("seconds_in_all"), cost.get("seconds_in_engine"), sum(cost.get("seconds", {}).values())
    if whole is None or engine is None:
        return None
    return {"forward passes": engine, "rest of the requests": max(0.0, asked - engine), "harness": max(0.0, whole - max(asked, engine))}


def time_by_phase(models: list[Results]) -> bytes | None:
    """Seconds by phase, a bar for each run."""
    bars = [(f"{model.name}: {run.name}", phases(run.cost)) for model in models for run in model.runs.values()]
    bars = [(name, parts) for name, parts in bars if parts]
    if not bars:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        begin = [0.0] * len(bars)
        for phase in bars[0][1]:
            widths = [parts[phase] for _, parts in bars]
            axes.barh(range(len(bars)), widths, left=begin, label=phase)
            begin = [a + b for a, b in zip(begin, widths)]
        axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("seconds")
        axes.legend(fontsize=8)

    return _png(draw, height=1.4 + 0.32 * len(bars))
