"""Training curves: results of a sweep's checkpoints, whose names differ by a number, drawn over that number."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from dtrnet_eval.picture import Picture, colour, marker, picture
from dtrnet_eval.results import Results, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 3  # checkpoints that make a curve
MAIN = ("acc", "exact_match", "perplexity", "word_perplexity", "bits_per_byte")
COLUMNS = 3
Series = dict[str, list[tuple[int, Results]]]  # name without the number -> (number, results) in order


def series_of(models: list[Results]) -> Series:
    """Models whose names differ by their last number only; series of fewer than LEAST are left out."""
    found: Series = defaultdict(list)
    for model in models:
        named = re.fullmatch(r"(.*?)(\d+)(\D*)", model.name)
        if named:
            found[f"{named[1]}*{named[3]}"].append((int(named[2]), model))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in found.items() if len(points) >= LEAST}


def _main_metric(models: list[Results], task: str) -> str | None:
    return next((metric for metric in MAIN if all(metric in model.tasks.get(task, {}) for model in models)), None)


def panels(series: Series) -> list[tuple[str, str]]:
    """(task, metric) of each field: tasks that all have, groups in place of their parts."""
    models = [model for points in series.values() for _, model in points]
    inside = {task for model in models for task in model.parts}
    shared = set.intersection(*(set(model.tasks) for model in models)) - inside if models else set()
    return [(task, metric) for task in sorted(shared) if (metric := _main_metric(models, task))]


def _draw(axes: Axes, n: int, name: str, points: list[tuple[int, Value]]) -> None:
    xs, values = [x for x, _ in points], [value.value for _, value in points]
    axes.plot(xs, values, color=colour(n), marker=marker(n), markersize=4, fillstyle="none", label=name)
    errors = [value.error or 0.0 for _, value in points]
    low, high = ([value + side * error for value, error in zip(values, errors)] for side in (-1, 1))
    axes.fill_between(xs, low, high, color=colour(n), alpha=0.15, linewidth=0)


def training(models: list[Results]) -> Picture | None:
    """A field for each task; the band is one standard error to each side."""
    series = series_of(models)
    fields = panels(series)
    if not fields:
        return None
    rows = -(-len(fields) // COLUMNS)

    def draw(figure: Figure) -> None:
        every = figure.subplots(rows, min(COLUMNS, len(fields)), squeeze=False).ravel()
        for axes, (task, metric) in zip(every, fields):
            for n, (name, points) in enumerate(series.items()):
                _draw(axes, n, name, [(x, model.tasks[task][metric]) for x, model in points])
            axes.set_title(f"{task}, {metric}")
            axes.grid(alpha=0.6)
        for axes in every[len(fields) :]:
            axes.set_visible(False)
        figure.supxlabel("number in the checkpoint's name", fontsize=9)
        figure.legend(*every[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)

    return picture("training", draw, width=3.0 * min(COLUMNS, len(fields)) + 0.8, height=0.9 + 2.3 * rows)
