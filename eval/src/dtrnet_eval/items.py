"""Items on which two models disagree: what was asked, what each answered, and how each routed it where that was kept."""

from __future__ import annotations

import html
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtrnet_eval import itemrouting
from dtrnet_eval.results import Results, Sample
from dtrnet_eval.tables import natural

MOST = 300  # items on a page
CONTEXT_CHARS = 1500
JUDGED_BY = ("acc", "exact_match")


@dataclass
class Answer:
    """One choice, or one generated text.

    Attributes:
        text: of the choice; empty for a generated text.
        right: True for the target.
        said: for each model its log probability, or the text that it generated.
        picked: for each model True if this is its answer.
        routing: for each model the share of rows that attend by layer; empty where it was not kept.
    """

    text: str
    right: bool
    said: list[str]
    picked: list[bool]
    routing: list[list[float]] = field(default_factory=list)


@dataclass
class Disagreement:
    """One item that one model has right and the other wrong."""

    task: str
    number: int
    metric: str
    right: int  # which of the two models
    context: str
    target: str
    answers: list[Answer]


def _judged(sample: Sample) -> str | None:
    return next((name for metric in JUDGED_BY for name in sample.metrics if name.split(" (")[0] == metric), None)


def _pairs(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Context and continuation of each request; newer harnesses write mappings, older ones lists."""
    asked = row.get("arguments") or {}
    each = [list(one.values()) for one in asked.values()] if isinstance(asked, dict) else [list(one) for one in asked]
    return [(str(one[0]), one[1] if len(one) > 1 and isinstance(one[1], str) else "") for one in each if one]


def _said(row: dict[str, Any]) -> list[Any]:
    """The model's answer to each request."""
    return [one[0] if isinstance(one, list) and one else one for one in row.get("resps") or []]


def _score(said: Any) -> float | None:
    try:
        return float(said[0]) if isinstance(said, (list, tuple)) else None
    except (TypeError, ValueError, IndexError):
        return None


def _answers(rows: list[dict[str, Any]], routes: list[dict[str, list[float]]]) -> list[Answer]:
    pairs = _pairs(rows[0])
    said = [_said(row) for row in rows]
    target = str(rows[0].get("target", ""))
    out = []
    scores = [[_score(one) for one in side] for side in said]
    best = [max((s for s in side if s is not None), default=None) for side in scores]
    for i, pair in enumerate(pairs):
        texts = [side[i] if i < len(side) else "" for side in said]
        mine = [side[i] if i < len(side) else None for side in scores]
        shown = [f"{score:.3f}" if score is not None else str(text) for score, text in zip(mine, texts)]
        picked = [len(pairs) > 1 and score is not None and score == top for score, top in zip(mine, best)]
        routing = [route.get(itemrouting.pair_key(*pair), []) for route in routes]
        out.append(Answer(pair[1], len(pairs) > 1 and target == str(i), shown, picked, routing))
    return out


def _routes(model: Results) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for path in sorted(Path(model.folder).rglob(itemrouting.FILE)):
        found |= itemrouting.read(path)
    return found


def _of_task(task: str, models: list[Results]) -> list[tuple[Hashable, str, int]]:
    """Items of a task that disagree: key, metric, which model is right."""
    sides = [model.samples[task] for model in models]
    out = []
    for item in sides[0].keys() & sides[1].keys():
        metric = _judged(sides[0][item])
        values = [side[item].metrics.get(metric or "") for side in sides]
        if metric and None not in values and (values[0] > 0.5) != (values[1] > 0.5):
            out.append((item, metric, 0 if values[0] > 0.5 else 1))
    return sorted(out, key=lambda one: one[0])


def disagreements(first: Results, second: Results, most: int = MOST) -> tuple[list[Disagreement], int]:
    """Up to `most` of them, the same share of each task, and how many there are."""
    models = [first, second]
    routes = [_routes(model) for model in models]
    shared = sorted(first.samples.keys() & second.samples.keys(), key=natural)
    by_task = {task: _of_task(task, models) for task in shared}
    count = sum(map(len, by_task.values()))
    share = min(1.0, most / count) if count else 0
    out = []
    for task, found in by_task.items():
        for item, metric, right in found[: max(1, int(len(found) * share)) if found else 0]:
            rows = [model.samples[task][item].row for model in models]
            context = (_pairs(rows[0]) or [("", "")])[0][0]
            out.append(Disagreement(task, int(item[0]), metric, right, context, str(rows[0].get("target", "")), _answers(rows, routes)))
    return out[:most], count


# ---- as HTML ----


def _strip(shares: list[float]) -> str:
    """Layers as cells, darker the more rows attend; the numbers stand in them."""
    cells = "".join(
        f'<span style="--v:{share:.2f}">{"1" if share == 1 else f"{share:.2f}".replace("0.", ".", 1)}</span>' for share in shares
    )
    return f'<span class="strip" aria-label="share of rows that attend, by layer">{cells}</span>' if shares else ""


def _answer_row(answer: Answer) -> str:
    cells = [f"<td>{html.escape(said)}{' ✓' if picked else ''}</td>" for said, picked in zip(answer.said, answer.picked)]
    head = html.escape(answer.text) or "generated"
    row = (
        f'<tr{" class=right" if answer.right else ""}><th scope="row">{head}{" (right)" if answer.right else ""}</th>{"".join(cells)}</tr>'
    )
    strips = [_strip(shares) for shares in answer.routing]
    if any(strips):
        row += f'<tr><th scope="row"><small>routing</small></th>{"".join(f"<td>{strip}</td>" for strip in strips)}</tr>'
    return row


def _cut(text: str) -> str:
    return text if len(text) <= CONTEXT_CHARS else "… " + text[-CONTEXT_CHARS:]


def item_html(item: Disagreement, names: list[str]) -> str:
    """One item, closed until it is opened."""
    title = f"{item.task} {item.number}: {names[item.right]} is right"
    target = f"<p><small>target: {html.escape(item.target[:200])}</small></p>" if not any(answer.right for answer in item.answers) else ""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    table = (
        f'<table><thead><tr><th scope="col">answer</th>{head}</tr></thead><tbody>{"".join(map(_answer_row, item.answers))}</tbody></table>'
    )
    scroll = f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(title)}">{table}</div>'
    text = f"<pre>{html.escape(_cut(item.context))}</pre>"
    data = f'data-task="{html.escape(item.task)}" data-right="{item.right}"'
    return f'<details class="item" {data}><summary>{html.escape(title)}</summary>{text}{target}{scroll}</details>'


def browser(first: Results, second: Results) -> str:
    """The whole section, or an empty text where the models agree on everything or share nothing."""
    found, count = disagreements(first, second)
    if not found:
        return ""
    names = [first.name, second.name]
    tasks = sorted({item.task for item in found}, key=natural)
    options = "".join(f"<option>{html.escape(task)}</option>" for task in tasks)
    who = "".join(f'<option value="{n}">only {html.escape(name)} is right</option>' for n, name in enumerate(names))
    controls = f'<label>task <select id="item-task"><option value="">all</option>{options}</select></label> '
    controls += f'<label>which <select id="item-right"><option value="">both</option>{who}</select></label> '
    controls += '<label>text <input id="item-text" type="search"></label> '
    shown = f"{len(found):,} of {count:,}" if len(found) < count else f"{count:,}"
    told = f'<p><output id="item-count">{shown} items</output></p>'
    return f'<form class="filter">{controls}</form>{told}' + "".join(item_html(item, names) for item in found)
