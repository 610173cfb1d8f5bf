"""Result folders as one HTML page without outside parts, and as Markdown.

Each folder is one model. The page has accuracies with standard errors, the DTRNet papers' averages beside them (marked as theirs), the
first two models compared item by item, likelihood against context length and position, routed share by layer and position, FLOPs and KV
rows against dense, and where the time went.
"""

from __future__ import annotations

import argparse
import base64
import html
import math
import re
from pathlib import Path
from typing import NamedTuple

from dtrnet_eval import plots, results
from dtrnet_eval.results import Results

PAPER_AVERAGES = {"bilayer": 44.36, "dense": 44.23, "trilayer": 43.56, "MoD": 43.13}
AVERAGED = ("arc_challenge", "arc_easy", "boolq", "hellaswag", "lambada", "piqa", "tinymmlu", "winogrande")
SHOWN = ("acc", "acc_norm", "exact_match", "perplexity", "word_perplexity", "bits_per_byte")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;font-size:.9rem;font-variant-numeric:tabular-nums}
td,th{border-bottom:1px solid #ccc;padding:.2rem .6rem;text-align:right}
td{white-space:nowrap}td:first-child,th:first-child{text-align:left}img{max-width:100%}h1,h2{line-height:1.2}.note{color:#555}"""
Table = tuple[list[str], list[list[str]]]


class Part(NamedTuple):
    """A section: its text, and a table, a picture or both."""

    title: str
    text: str
    table: Table | None = None
    picture: bytes | None = None

    def file(self, stem: str) -> str:
        """Name of the picture beside `stem`.md."""
        return f"{stem}-{self.title.lower().replace(' ', '-')}.png"


# ---- tables ----


def _shown(cell: tuple[float, float | None] | None) -> str:
    return "" if cell is None else f"{cell[0]:.4f}" + (f" ± {cell[1]:.4f}" if cell[1] else "")


def _rank(metric: str) -> int | None:
    """Place among SHOWN, where a filter's name behind the metric's does not count; RULER's come last."""
    name = metric.split(" (")[0]
    if name.startswith(results.RULER_METRIC):
        return len(SHOWN)
    return SHOWN.index(name) if name in SHOWN else None


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts passkey_2k before passkey_16k."""
    return [(int(digits or 0), rest) for digits, rest in re.findall(r"(\d*)(\D*)", name)]


def accuracy_table(models: list[Results], parts_of_groups: bool) -> Table:
    """Tasks and metrics by model: the tasks that are parts of a group, or the others."""
    inside = {task for model in models for task in model.parts}
    rows = []
    for task in sorted({task for model in models for task in model.tasks if (task in inside) == parts_of_groups}, key=_natural):
        have = {metric for model in models for metric in model.tasks.get(task, {})}
        for metric in sorted((name for name in have if _rank(name) is not None), key=lambda name: (_rank(name), _natural(name))):
            rows.append([task, metric, *(_shown(model.tasks.get(task, {}).get(metric)) for model in models)])
    return ["task", "metric", *(model.name for model in models)], rows


def average_of(model: Results) -> tuple[float, float] | None:
    """Mean `acc` in per cent over AVERAGED with its standard error; None where one of them was not run."""
    found = {task.removeprefix("offline_").removesuffix("_openai").lower(): m["acc"] for task, m in model.tasks.items() if "acc" in m}
    if not found.keys() >= set(AVERAGED):
        return None
    values, errors = zip(*(found[task] for task in AVERAGED))
    return 100 * sum(values) / len(AVERAGED), 100 * math.hypot(*(error or 0.0 for error in errors)) / len(AVERAGED)


def average_table(models: list[Results]) -> Table:
    """Our averages, then the papers'."""
    ours = [(model.name, average_of(model)) for model in models]
    rows = [[name, f"{value[0]:.2f} ± {value[1]:.2f}", "measured here"] for name, value in ours if value]
    rows += [[name, f"{value:.2f}", "theirs, not measured here"] for name, value in PAPER_AVERAGES.items()]
    return ["model", "average, per cent", "by whom"], rows


def _pair_row(task: str, metric: str, pair: results.Paired) -> list[str]:
    interval = f"{pair.second - pair.first:+.4f} [{pair.low:+.4f}, {pair.high:+.4f}]"
    return [task, metric, str(pair.n), str(pair.only_first), str(pair.only_second), interval, f"{pair.p:.3g}"]


def paired_table(first: Results, second: Results) -> Table:
    """McNemar and bootstrap for every task that both models have item by item, and for all items with `acc` together."""
    rows = []
    shared = sorted(first.samples.keys() & second.samples.keys(), key=_natural)
    for task in shared:
        for metric in sorted({name for side in (first, second) for item in side.samples[task].values() for name in item}):
            pair = results.compare(first.samples[task], second.samples[task], metric)
            if pair:
                rows.append(_pair_row(task, metric, pair))
    pooled = [{(task, i): item for task in shared for i, item in side.samples[task].items()} for side in (first, second)]
    pair = results.compare(*pooled)
    if pair:
        rows.append(_pair_row("all of these", "acc", pair))
    head = ["task", "metric", "items", f"only {first.name}", f"only {second.name}", "difference [95 %]", "McNemar p"]
    return head, rows


def _ratio(cost: dict[str, int], what: str) -> str:
    return f"{cost[what] / cost['dense_' + what]:.3f}" if cost.get("dense_" + what) else ""


def cost_table(models: list[Results]) -> Table:
    """Rows, reuse, FLOPs and KV rows against dense of each run that our plugin made."""
    rows = []
    for model in models:
        for run in model.runs.values():
            computed, cached = run.cost.get("computed_tokens", 0), run.cost.get("cached_tokens", 0)
            if not computed + cached:
                continue
            cost = run.cost.get("cost", {})
            seconds = plots.phases(run.cost) or run.cost.get("seconds", {})
            shares = [_ratio(cost, what) for what in ("flops_causal", "flops_full", "kv_rows")]
            spent = ", ".join(f"{phase} {value:.1f}" for phase, value in seconds.items())
            where = f"{run.server.get('device', '')} {run.server.get('dtype', '')}"
            rows.append([f"{model.name}: {run.name}", where, f"{computed:,}", f"{cached / (computed + cached):.0%}", *shares, spent])
    return ["run", "", "rows computed", "rows reused", "FLOPs, causal", "FLOPs, full", "KV rows", "seconds"], rows


def length_table(models: list[Results]) -> Table:
    """NLL and cost by window length."""
    rows = []
    for model in models:
        for one in model.long:
            for p in one["by_length"]:
                shares = [_ratio(p["cost"], what) for what in ("flops_causal", "flops_full", "kv_rows")]
                where = f"{one['server'].get('device', '')} {one['server']['dtype']}"
                rows.append([f"{model.name}: {one['label']}", where, f"{p['length']:,}", f"{p['nll']:.4f}", f"{p['tokens']:,}", *shares])
    return ["model", "", "window", "nats a token", "tokens", "FLOPs, causal", "FLOPs, full", "KV rows"], rows


# ---- the page ----


def parts(models: list[Results]) -> list[Part]:
    """What there is to show, in order."""
    average = f"Mean acc over {', '.join(AVERAGED)}. The DTRNet papers' averages are over their own models, tasks and metrics."
    out = [
        Part("Tasks", "Values with their standard errors.", accuracy_table(models, parts_of_groups=False)),
        Part("Averages", average, average_table(models)),
    ]
    if len(models) > 1:
        text = f"{models[0].name} against {models[1].name}; the difference is the second's share minus the first's."
        out.append(Part("Item by item", text, paired_table(models[0], models[1])))
    text = "Negative log likelihood of long documents: within windows of a length that move by half of it, and by position in one window."
    out.append(Part("Long context", text, length_table(models), plots.context(models)))
    text = "Items right by length of the text that hides them: tasks named by length (..._8k) and RULER's."
    out.append(Part("Retrieval by length", text, None, plots.retrieval(models)))
    text = "Share of rows that attend, by layer and by position in one window over the same documents."
    out.append(Part("Routing by position", text, None, plots.routing_by_position(models)))
    text = "Share of rows that attend in each layer, over all positions that the scored sequences of a run rest on."
    out.append(Part("Routing by run", text, None, plots.routing_by_run(models)))
    text = "FLOPs of the layers without the head, from the rows that did attend: causal counts the keys that a position sees, full T²"
    text += " as the papers do."
    out.append(Part("FLOPs and KV rows against dense", text, None, plots.cost_by_length(models)))
    text = "FLOPs and KV rows are those of the sequences without reuse, against the same with every layer dense."
    out.append(Part("Cost of the runs", text, cost_table(models), plots.time_by_phase(models)))
    out.append(Part("Parts of groups", "", accuracy_table(models, parts_of_groups=True)))
    measured = any(average_of(model) is not None for model in models)
    return [part for part in out if (part.table and part.table[1] and (part.title != "Averages" or measured)) or part.picture]


def as_markdown(title: str, shown: list[Part], stem: str) -> str:
    """Markdown; the pictures lie beside it."""
    lines = [f"# {title}", ""]
    for part in shown:
        lines += [f"## {part.title}", "", *([part.text, ""] if part.text else [])]
        if part.table and part.table[1]:
            lines += ["| " + " | ".join(row) + " |" for row in (part.table[0], ["---"] * len(part.table[0]), *part.table[1])] + [""]
        if part.picture:
            lines += [f"![{part.title}]({part.file(stem)})", ""]
    return "\n".join(lines)


def as_html(title: str, shown: list[Part]) -> str:
    """One page; pictures are inside it, and its policy lets a browser load nothing else."""

    def row(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = [f"<h1>{html.escape(title)}</h1>"]
    for part in shown:
        body.append(f"<h2>{html.escape(part.title)}</h2>" + (f'<p class="note">{html.escape(part.text)}</p>' if part.text else ""))
        if part.table and part.table[1]:
            body.append("<table>" + row(part.table[0], "th") + "".join(row(cells, "td") for cells in part.table[1]) + "</table>")
        if part.picture:
            body.append(f'<img alt="{html.escape(part.title)}" src="data:image/png;base64,{base64.b64encode(part.picture).decode()}">')
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{html.escape(title)}</title>'
    head += f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


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
    for part in shown:
        if part.picture:
            args.output.with_name(part.file(args.output.name)).write_bytes(part.picture)
    print(f"wrote {args.output.with_suffix('.html')} and {args.output.with_suffix('.md')}")
    return 0
