"""The report's numbers as CSV: one file of metrics with the origin of each, one of items."""

from __future__ import annotations

import csv
import io

from dtrnet_eval.results import Results
from dtrnet_eval.tables import natural

ORIGIN = ("model", "model_hash", "dtype", "device", "numerics_class", "version", "commit")
TOKENIZER = ("tokenizer_hash", "tokenizer_rules")


def _origin(model: Results) -> list[str]:
    if model.origin is None:
        return [""] * (len(ORIGIN) + len(TOKENIZER) + 4)
    info, record = model.origin.info, model.origin
    forced = " ".join(map(str, info.forced_dense))
    tokenizer = [str(info.raw.get(name, "")) for name in TOKENIZER]
    return [*(getattr(info, name) for name in ORIGIN), info.rope.type, forced, record.harness, record.date, *tokenizer]


def _text(rows: list[list[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def metrics(models: list[Results]) -> str:
    """A row for each model, task and metric; numbers in full."""
    head = ["results", "task", "metric", "value", "stderr", "n", "of", "limited"]
    rows: list[list[object]] = [[*head, *ORIGIN, "rope", "forced_dense_layers", "harness", "date", *TOKENIZER]]
    for model in models:
        origin = _origin(model)
        for task in sorted(model.tasks, key=natural):
            for metric, value in sorted(model.tasks[task].items()):
                found = [value.value, value.error, value.n, value.of]
                rows.append([model.name, task, metric, *("" if one is None else one for one in found), int(value.limited), *origin])
    return _text(rows)


def items(models: list[Results]) -> str:
    """A row for each item and metric that a model has item by item, a column for each model."""
    rows: list[list[object]] = [["task", "doc_id", "doc_hash", "metric", *(model.name for model in models)]]
    for task in sorted({task for model in models for task in model.samples}, key=natural):
        sides = [model.metrics_of(task) for model in models]
        for item in sorted({item for side in sides for item in side}):
            for metric in sorted({name for side in sides for name in side.get(item, {})}):
                rows.append([task, *item, metric, *(side.get(item, {}).get(metric, "") for side in sides)])
    return _text(rows) if len(rows) > 1 else ""
