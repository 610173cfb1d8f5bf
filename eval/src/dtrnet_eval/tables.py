"""The report's tables. A cell is a text and a note in small print beside it; notes carry n, limits and forced-dense layers."""

from __future__ import annotations

import html
import math
import re
from typing import NamedTuple

from dtrnet_eval import compare, plots, results
from dtrnet_eval.answers import ServerInfo
from dtrnet_eval.origin import Origin
from dtrnet_eval.results import Results, Value

PAPER_AVERAGES = {"bilayer": 44.36, "dense": 44.23, "trilayer": 43.56, "MoD": 43.13}
AVERAGED = ("arc_challenge", "arc_easy", "boolq", "hellaswag", "lambada", "piqa", "tinymmlu", "winogrande")
SHOWN = ("acc", "acc_norm", "exact_match", "perplexity", "word_perplexity", "bits_per_byte")


class Cell(NamedTuple):
    """A text, a note, and whether the note warns."""

    text: str
    note: str = ""
    warns: bool = False

    def as_markdown(self) -> str:
        """With the note in brackets."""
        text = self.text.replace("|", "\\|")
        return f"{text} ({'**' * self.warns}{self.note}{'**' * self.warns})" if self.note else text

    def as_html(self) -> str:
        """With the note as small print."""
        kind = ' class="warns"' if self.warns else ""
        return html.escape(self.text) + (f" <small{kind}>{html.escape(self.note)}</small>" if self.note else "")


class Table(NamedTuple):
    """A head and rows; the first cell of a row names it."""

    head: list[Cell]
    rows: list[list[Cell]]


def _cells(*texts: str | Cell) -> list[Cell]:
    return [text if isinstance(text, Cell) else Cell(text) for text in texts]


def head_of(model: Results) -> Cell:
    """A model's name as a column's head; layers forced dense are not the model as it was trained."""
    forced = model.forced_dense
    return Cell(model.name, f"forced dense: {','.join(map(str, forced))}" if forced else "", warns=bool(forced))


def shown(value: Value | None) -> Cell:
    """A value with its standard error; n beside it, marked where a limit left items out."""
    if value is None:
        return Cell("")
    text = f"{value.value:.4f}" + (f" ± {value.error:.4f}" if value.error else "")
    note = "" if value.n is None else f"n {value.n:,}" + (f" of {value.of:,}, limited" if value.limited else "")
    return Cell(text, note, value.limited)


def _rank(metric: str) -> int | None:
    """Place among SHOWN, where a filter's name behind the metric's does not count; RULER's come last."""
    name = metric.split(" (")[0]
    if name.startswith(results.RULER_METRIC):
        return len(SHOWN)
    return SHOWN.index(name) if name in SHOWN else None


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts passkey_2k before passkey_16k."""
    return [(int(digits or 0), rest) for digits, rest in re.findall(r"(\d*)(\D*)", name)]


# ---- where results come from ----


def _limit_of(record: Origin) -> Cell:
    return Cell("all") if record.limit is None else Cell(f"{record.limit:g}", "limited", warns=True)


def _rope(record: Origin) -> str:
    rope = record.info.rope
    return rope.type + (f" x {rope.factor:g}" if rope.factor != 1 else "")


def _tokenizer(info: ServerInfo) -> Cell:
    """Hash of its files, and whose ids."""
    rules = info.raw.get("tokenizer_rules")
    return Cell(str(info.raw.get("tokenizer_hash", ""))[:8], f"rules {rules}" if rules else "")


def _origin_row(name: str, record: Origin | None) -> list[Cell]:
    if record is None:
        return _cells(name, Cell("", "no record of origin", warns=True), *[""] * 8)
    info = record.info
    forced = Cell(",".join(map(str, info.forced_dense)), "forced", warns=True) if info.forced_dense else Cell("none")
    choice = info.raw.get("expert_choice")
    rope = Cell(_rope(record), "" if choice is None else f"expert choice {choice}")
    model, where = Cell(info.model, info.model_hash[:12]), Cell(f"{info.device} {info.dtype}", info.numerics_class)
    server = Cell(info.version, info.commit[:8])
    return _cells(name, model, _tokenizer(info), where, rope, forced, _limit_of(record), server, record.harness, record.date[:10])


def origin_table(models: list[Results]) -> Table:
    """A row for each run and each long-context file."""
    rows = []
    for model in models:
        for run in model.runs.values():
            rows.append(_origin_row(f"{model.name}: {run.name}", run.origin))
        for one in model.long:
            rows.append(_origin_row(f"{model.name}: {one['label']}", one["origin"]))
    return Table(
        _cells("results", "model", "tokenizer", "computed on", "rope", "dense by flag", "items", "server", "harness", "date"), rows
    )


# ---- scores ----


def accuracy_table(models: list[Results], parts_of_groups: bool) -> Table:
    """Tasks and metrics by model: the tasks that are parts of a group, or the others."""
    inside = {task for model in models for task in model.parts}
    rows = []
    for task in sorted({task for model in models for task in model.tasks if (task in inside) == parts_of_groups}, key=natural):
        have = {metric for model in models for metric in model.tasks.get(task, {})}
        for metric in sorted((name for name in have if _rank(name) is not None), key=lambda name: (_rank(name), natural(name))):
            rows.append(_cells(task, metric, *(shown(model.tasks.get(task, {}).get(metric)) for model in models)))
    return Table([*_cells("task", "metric"), *map(head_of, models)], rows)


def average_of(model: Results) -> Value | None:
    """Mean `acc` in per cent over AVERAGED with its standard error; None where one of them was not run."""
    found = {task.removeprefix("offline_").removesuffix("_openai").lower(): m["acc"] for task, m in model.tasks.items() if "acc" in m}
    if not found.keys() >= set(AVERAGED):
        return None
    values = [found[task] for task in AVERAGED]
    error = 100 * math.hypot(*(value.error or 0.0 for value in values)) / len(AVERAGED)
    known = all(value.n is not None for value in values)
    n, of = (sum(getattr(value, name) or 0 for value in values) if known else None for name in ("n", "of"))
    return Value(100 * sum(value.value for value in values) / len(AVERAGED), error, n, of)


def average_table(models: list[Results]) -> Table:
    """Our averages, then the papers'."""
    rows = []
    for model in models:
        value = average_of(model)
        if value:
            note = shown(value)
            rows.append(_cells(head_of(model), Cell(f"{value.value:.2f} ± {value.error or 0:.2f}", note.note, note.warns), "measured here"))
    rows += [_cells(name, f"{value:.2f}", "theirs, not measured here") for name, value in PAPER_AVERAGES.items()]
    return Table(_cells("model", "average, per cent", "by whom"), rows)


def _pair_row(task: str, metric: str, pair: compare.Paired) -> list[Cell]:
    interval = f"{pair.second - pair.first:+.4f} [{pair.low:+.4f}, {pair.high:+.4f}]"
    return _cells(task, metric, f"{pair.n:,}", str(pair.only_first), str(pair.only_second), interval, f"{pair.p:.3g}")


def paired_table(first: Results, second: Results) -> Table:
    """McNemar and bootstrap for every task that both models have item by item, and for all items with `acc` together."""
    rows = []
    shared = sorted(first.samples.keys() & second.samples.keys(), key=natural)
    for task in shared:
        sides = [side.metrics_of(task) for side in (first, second)]
        for metric in sorted({name for side in sides for item in side.values() for name in item}):
            pair = compare.compare(*sides, metric)
            if pair:
                rows.append(_pair_row(task, metric, pair))
    pooled = [{(task, i): item for task in shared for i, item in side.metrics_of(task).items()} for side in (first, second)]
    pair = compare.compare(*pooled)
    if pair:
        rows.append(_pair_row("all of these", "acc", pair))
    head = ["task", "metric", "items", f"only {first.name}", f"only {second.name}", "difference [95 %]", "McNemar p"]
    return Table(_cells(*head), rows)


# ---- cost ----


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
            seconds = [f"{value:,.1f}" for value in (plots.phases(run.cost) or {}).values()] or [""] * 3
            shares = [_ratio(cost, what) for what in ("flops_causal", "flops_full", "kv_rows")]
            rows.append(_cells(f"{model.name}: {run.name}", f"{computed:,}", f"{cached / (computed + cached):.0%}", *shares, *seconds))
    head = [
        "run",
        "rows computed",
        "rows reused",
        "FLOPs, causal",
        "FLOPs, full",
        "KV rows",
        "forward passes, s",
        "requests, s",
        "harness, s",
    ]
    return Table(_cells(*head), rows)


def length_table(models: list[Results]) -> Table:
    """NLL and cost by window length."""
    rows = []
    for model in models:
        for one in model.long:
            for p in one["by_length"]:
                shares = [_ratio(p["cost"], what) for what in ("flops_causal", "flops_full", "kv_rows")]
                error = p.get("nll_stderr")
                nll = f"{p['nll']:.4f}" + (f" ± {error:.4f}" if error is not None else "")
                documents = f"{one['documents']} document{'s' * (one['documents'] != 1)}"
                count = Cell(nll, f"n {p['tokens']:,} tokens, {documents}")
                rows.append(_cells(f"{model.name}: {one['label']}", f"{p['length']:,}", count, *shares))
    return Table(_cells("model", "window", "nats a token", "FLOPs, causal", "FLOPs, full", "KV rows"), rows)
