"""Draws what a served model does with each token of a text in each layer: the README's figure.

build/dtrnet serve --port 8000 &
.venv/bin/python docs/draw_routing.py --output docs/routing.png
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

TEXT = (
    "Maria put the red book on the table and went to the garden. Her brother Tom took the red book and read it in the kitchen. "
    "When Maria came back, she asked Tom for the"
)
SKIP, LINEAR, ATTEND, DENSE = "#f4f1ea", "#cfe5e2", "#0b6e69", "#b9bfc1"
NAMES = {SKIP: "skips the layer", LINEAR: "linear path", ATTEND: "attends", DENSE: "dense layer: attends"}


def ask(url: str, text: str) -> dict:
    """The answer of POST /v1/routing."""
    body = json.dumps({"text": text, "add_bos": True, "top_logprobs": 1}).encode()
    request = urllib.request.Request(f"{url}/v1/routing", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def colours(layer: dict) -> list[int]:
    """Index into NAMES for each token."""
    if layer["router"] == "none":
        return [3] * len(layer["routing"])
    return ["-01".index(code) for code in layer["routing"]]


def draw(answer: dict, path: Path) -> None:
    """Rows are layers, the first at the bottom, as the text rises through them; columns are tokens."""
    cells = [colours(layer) for layer in answer["layers"]]
    rows, columns = len(cells), len(cells[0])
    pyplot.rcParams.update({"font.family": "DejaVu Sans", "font.size": 8})
    figure, axes = pyplot.subplots(figsize=(0.165 * columns + 1.6, 0.2 * rows + 1.25))
    axes.pcolormesh(cells, cmap=ListedColormap(list(NAMES)), vmin=0, vmax=3, edgecolors="white", linewidth=0.8)
    names = [token.replace("\n", "⏎").strip() or "␣" for token in answer["token_strings"]]
    axes.set_xticks([i + 0.5 for i in range(columns)], names, rotation=90)
    axes.set_yticks([i + 0.5 for i in range(rows)], [f"{i}" for i in range(rows)])
    axes.set_ylabel("layer")
    axes.tick_params(length=0)
    for layer, row in enumerate(answer["layers"]):
        axes.text(columns + 0.4, layer + 0.5, f"{100 * row['attended'] / columns:.0f} %", va="center")
    for side in axes.spines.values():
        side.set_visible(False)
    seen = [colour for i, colour in enumerate(NAMES) if any(i in row for row in cells)]
    axes.legend(
        handles=[Patch(facecolor=colour, label=NAMES[colour]) for colour in reversed(seen)],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=4,
        frameon=False,
        borderaxespad=0.2,
    )
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")


def main() -> None:
    """Asks, draws, and says what is saved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (%(default)s)")
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--output", type=Path, default=Path("routing.png"))
    args = parser.parse_args()
    answer = ask(args.url, args.text)
    draw(answer, args.output)
    cost = answer["usage"]["cost"]
    flops = cost["flops_causal"] / cost["dense_flops_causal"]
    print(f"{cost['kv_rows']} of {cost['dense_kv_rows']} rows of K and V, {flops:.3f} of the FLOPs")


if __name__ == "__main__":
    main()
