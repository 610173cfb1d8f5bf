"""Result folders as one HTML page without outside parts, and as Markdown.

Each folder is one model. The page has accuracies with standard errors, the DTRNet papers' averages beside them (marked as theirs), the
first two models compared item by item, perplexity against context length and position, routed share by layer, and what the runs cost.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dtrnet_eval import results
from dtrnet_eval.results import Results

PAPER_AVERAGES = {"bilayer": 44.36, "dense": 44.23, "trilayer": 43.56, "MoD": 43.13}
SHOWN = ("acc", "acc_norm", "perplexity", "word_perplexity", "bits_per_byte", "exact_match")
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
td,th{border-bottom:1px solid #ccc;padding:.25rem .75rem;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%}h1,h2{line-height:1.2}.note{color:#555}"""
Table = tuple[list[str], list[list[str]]]
Part = tuple[str, str, Table | None, bytes | None]


# ---- tables ----


def accuracy_table(models: list[Results]) -> Table:
    """Tasks and metrics by model."""
    rows = []
    for task in sorted({task for model in models for task in model.tasks}):
        for metric in SHOWN:
            cells = [model.tasks.get(task, {}).get(metric) for model in models]
            if any(cells):
                shown = [f"{c[0]:.4f}" + (f" ± {c[1]:.4f}" if c[1] else "") if c else "" for c in cells]
                rows.append([task, metric, *shown])
    return ["task", "metric", *(model.name for model in models)], rows


def paired_table(first: Results, second: Results) -> Table:
    """McNemar and bootstrap for every task that both models have item by item."""
    rows = []
    for task in sorted(first.samples.keys() & second.samples.keys()):
        pair = results.compare(first.samples[task], second.samples[task])
        if pair:
            interval = f"{pair.second - pair.first:+.4f} [{pair.low:+.4f}, {pair.high:+.4f}]"
            rows.append([task, str(pair.n), str(pair.only_first), str(pair.only_second), interval, f"{pair.p:.3g}"])
    head = ["task", "items", f"only {first.name} right", f"only {second.name} right", "difference [95 %]", "McNemar p"]
    return head, rows


def cost_table(models: list[Results]) -> Table:
    """Tokens, reuse, KV rows against dense and seconds of each run that our plugin made."""
    rows = []
    for model in models:
        for run in model.runs:
            cost = run.get("dtrnet_run")
            if not isinstance(cost, dict):
                continue
            computed, cached = cost.get("computed_tokens", 0), cost.get("cached_tokens", 0)
            share = cost.get("routed_share") or [1.0]
            reuse = cached / (computed + cached) if computed + cached else 0.0
            seconds = ", ".join(f"{phase} {value:.1f} s" for phase, value in cost.get("seconds", {}).items())
            dtype = run.get("dtrnet_server", {}).get("dtype", "")
            rows.append([model.name, dtype, f"{computed:,}", f"{reuse:.0%}", f"{sum(share) / len(share):.3f}", seconds])
    return ["model", "dtype", "rows computed", "rows reused", "KV rows against dense", "time by phase"], rows


# ---- plots ----


def _png(draw: Callable[[Any], None], height: float = 4.0) -> bytes:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    draw(figure)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


def context_plot(models: list[Results]) -> bytes | None:
    """NLL by context length (left) and by position (right)."""
    curves = [(f"{model.name}: {one['label']}", one) for model in models for one in model.long]
    if not curves:
        return None

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        for label, one in curves:
            left.plot([p["length"] for p in one["by_length"]], [p["nll"] for p in one["by_length"]], marker="o", label=label)
            right.plot([max(p["from"], 32) for p in one["by_position"]], [p["nll"] for p in one["by_position"]], marker=".", label=label)
        for axes, what in ((left, "window length, tokens"), (right, "position, tokens")):
            axes.set_xscale("log", base=2)
            axes.set_xlabel(what)
            axes.grid(alpha=0.3)
        left.set_ylabel("nats a token")
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", fontsize=8, ncols=2)

    return _png(draw)


def routing_plot(models: list[Results]) -> bytes | None:
    """Share of rows that attend, by layer, a line of cells for each run."""
    lines = [(model.name, run.get("dtrnet_run", {}).get("routed_share")) for model in models for run in model.runs]
    lines = [(name, share) for name, share in lines if share]
    if not lines:
        return None
    width = max(len(share) for _, share in lines)
    grid = [list(share) + [float("nan")] * (width - len(share)) for _, share in lines]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        image = axes.imshow(grid, aspect="auto", vmin=0, vmax=1, cmap="viridis")
        axes.set_yticks(range(len(lines)), [name for name, _ in lines])
        axes.set_xticks(range(width))
        axes.set_xlabel("layer")
        for y, line in enumerate(grid):
            for x, value in enumerate(line):
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.6 else "white", fontsize=8)
        figure.colorbar(image, label="share of rows that attend")

    return _png(draw, 1.5 + 0.5 * len(lines))


# ---- the page ----


def parts(models: list[Results]) -> list[Part]:
    """(title, text, table, picture) in order."""
    averages = ", ".join(f"{value} {name}" for name, value in PAPER_AVERAGES.items())
    note = f"The averages that the DTRNet papers report, theirs and not measured here: {averages} (per cent)."
    out: list[Part] = [("Tasks", note, accuracy_table(models), None)]
    if len(models) > 1:
        text = f"{models[0].name} against {models[1].name}, item by item; the difference is the second's share minus the first's."
        out.append(("Item by item", text, paired_table(models[0], models[1]), None))
    text = "Negative log likelihood of long documents: within windows of a length that move by half of it, and by position in one window."
    out.append(("Long context", text, None, context_plot(models)))
    text = "Share of rows that attend in each layer, over all rows that the scored sequences rest on."
    out.append(("Routing", text, None, routing_plot(models)))
    out.append(("Cost", "", cost_table(models), None))
    return [part for part in out if (part[2] and part[2][1]) or part[3]]


def as_markdown(title: str, shown: list[Part], pictures: str) -> str:
    """Markdown; pictures lie beside it as `<pictures>-<n>.png`."""
    lines = [f"# {title}", ""]
    for number, (head, text, table, picture) in enumerate(shown):
        lines += [f"## {head}", "", *([text, ""] if text else [])]
        if table:
            lines += ["| " + " | ".join(row) + " |" for row in (table[0], ["---"] * len(table[0]), *table[1])] + [""]
        if picture:
            lines += [f"![{head}]({pictures}-{number}.png)", ""]
    return "\n".join(lines)


def as_html(title: str, shown: list[Part]) -> str:
    """One page; pictures are inside it."""

    def row(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = [f"<h1>{html.escape(title)}</h1>"]
    for head, text, table, picture in shown:
        body.append(f"<h2>{head}</h2>" + (f'<p class="note">{html.escape(text)}</p>' if text else ""))
        if table:
            body.append("<table>" + row(table[0], "th") + "".join(row(cells, "td") for cells in table[1]) + "</table>")
        if picture:
            body.append(f'<img alt="{head}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">')
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    return f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{"".join(body)}</body></html>\n'


def main(arguments: list[str]) -> int:
    """`dtrnet-eval report`."""
    parser = argparse.ArgumentParser("dtrnet-eval report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="results of one model each")
    parser.add_argument("--output", type=Path, default=Path("report"), help="stem of the .html and .md files (%(default)s)")
    parser.add_argument("--title", default="Evaluation", help="(%(default)s)")
    args = parser.parse_args(arguments)
    shown = parts([results.read(folder) for folder in args.folders])
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".html").write_text(as_html(args.title, shown), encoding="utf-8")
    args.output.with_suffix(".md").write_text(as_markdown(args.title, shown, args.output.name), encoding="utf-8")
    for number, part in enumerate(shown):
        if part[3]:
            args.output.with_name(f"{args.output.name}-{number}.png").write_bytes(part[3])
    print(f"wrote {args.output.with_suffix('.html')} and {args.output.with_suffix('.md')}")
    return 0
