"""Result folders as one HTML page without outside parts, as Markdown, and as CSV.

Each folder is one model; a folder with results of more than one is refused. The page says where each number comes from, has scores with
standard errors and n, the DTRNet papers' averages beside them (marked as theirs), two models compared item by item, training curves of a
sweep, likelihood against context length and position, routed share by layer and position, FLOPs and KV rows against dense, and where the
time went.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dtrnet_eval import curves, export, items, page, plots, results, tables
from dtrnet_eval.page import Part
from dtrnet_eval.results import Results


def _compared(models: list[Results]) -> tuple[Results, Results] | None:
    """The two models that are compared item by item: of a sweep the first and the last checkpoint, else the first two."""
    if len(models) < 2:
        return None
    series = list(curves.series_of(models).values())
    if len(series) == 1 and len(series[0]) == len(models):
        return series[0][0][1], series[0][-1][1]
    return models[0], models[1]


def _scores(models: list[Results]) -> list[Part]:
    average = f"Mean acc over {', '.join(tables.AVERAGED)}. The DTRNet papers' averages are over their own models, tasks and metrics."
    measured = any(tables.average_of(model) for model in models)
    out = [
        Part("Origin", "Where the results come from.", tables.origin_table(models)),
        Part(
            "Tasks", "Values with their standard errors, and n, the number of items.", tables.accuracy_table(models, parts_of_groups=False)
        ),
        Part("Averages", average, tables.average_table(models) if measured else None),
        Part("Training curves", "Tasks over the checkpoints of a sweep; bands are one standard error.", None, curves.training(models)),
    ]
    pair = _compared(models)
    if pair:
        text = f"{pair[0].name} against {pair[1].name}; the difference is the second's share minus the first's."
        out.append(Part("Item by item", text, tables.paired_table(*pair)))
        text = "Items that one has right and the other wrong. ✓ is what a model picked by the sum of log probabilities."
        out.append(Part("Disagreements", text, markup=items.browser(*pair)))
    return out


def _length_and_cost(models: list[Results]) -> list[Part]:
    flops = "FLOPs of the layers without the head, from the rows that did attend: causal counts the keys that a position sees, full T²"
    long = "Negative log likelihood of long documents: within windows of a length that move by half of it, and by position in one window."
    by_length = (
        "Items right by length of the text that hides them: tasks named by length (..._8k) and RULER's. "
        "Lines are moved apart a little; bars are 95 %."
    )
    by_position = "Share of rows that attend, by layer and by position in one window over the same documents."
    by_run = "Share of rows that attend in each layer, over all positions that the scored sequences of a run rest on."
    cost = "FLOPs and KV rows are those of the sequences without reuse, against the same with every layer dense."
    if any(row.get("nll_stderr") is not None for model in models for one in model.long for row in one["by_length"]):
        long += " Bands are 95 % over documents."
    return [
        Part("Long context", long, tables.length_table(models), plots.context(models)),
        Part("Retrieval by length", by_length, None, plots.retrieval(models)),
        Part("Routing by position", by_position, None, plots.routing_by_position(models)),
        Part("Routing by run", by_run, None, plots.routing_by_run(models)),
        Part("FLOPs and KV rows against dense", f"{flops} as the papers do.", None, plots.cost_by_length(models)),
        Part("Cost of the runs", cost, tables.cost_table(models), plots.time_by_phase(models)),
        Part("Parts of groups", "", tables.accuracy_table(models, parts_of_groups=True)),
    ]


def parts(models: list[Results]) -> list[Part]:
    """What there is to show, in order."""
    return [part for part in _scores(models) + _length_and_cost(models) if not part.empty]


def _write(models: list[Results], stem: Path, title: str) -> list[Path]:
    """All files; the paths of those that a person opens."""
    shown = parts(models)
    stem.parent.mkdir(parents=True, exist_ok=True)
    texts = {".html": page.as_html(title, shown), ".md": page.as_markdown(title, shown, stem.name), ".csv": export.metrics(models)}
    by_item = export.items(models)
    texts |= {"-items.csv": by_item} if by_item else {}
    written = []
    for end, text in texts.items():
        written.append(stem.with_name(stem.name + end))
        written[-1].write_text(text, encoding="utf-8")
    for part in shown:
        if part.picture:
            stem.with_name(part.file(stem.name)).write_bytes(part.picture.png)
    return written


def main(arguments: list[str]) -> int:
    """`dtrnet-eval report`."""
    parser = argparse.ArgumentParser("dtrnet-eval report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="results of one model each")
    parser.add_argument("--output", type=Path, default=Path("report"), help="stem of the .html, .md and .csv files (%(default)s)")
    parser.add_argument("--title", default="Evaluation", help="(%(default)s)")
    args = parser.parse_args(arguments)
    models = results.read_all(args.folders)
    if curves.series_of(models):
        models.sort(key=lambda model: tables.natural(model.name))  # a shell gives step-1000 before step-200
    written = _write(models, args.output, args.title)
    print(f"wrote {', '.join(map(str, written))}")
    return 0
