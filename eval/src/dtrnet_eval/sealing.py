"""Seals of results: a digest over the origin, every reported value and every item's scores, in one canonical form.

The canonical form is lines of JSON: one of the origin, one for each value of a task, one for each request of each item, with sums as
hexadecimal floats, one of each item's metrics. Its SHA-256 is the digest that a paper can print. `dtrnet-eval verify` makes it again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtrnet_eval import results
from dtrnet_eval.errors import ResultsError
from dtrnet_eval.results import Results, Sample

SCHEMA = 1
SEAL = "seal.json"
LINES = "sealed.jsonl"


@dataclass(frozen=True)
class Scored:
    """One request of one item, and its answer as the results have it.

    Attributes:
        task: its name.
        item: number and document hash.
        request: which of the item's requests.
        kind: loglikelihood, loglikelihood_rolling or generate_until, as the harness calls them.
        arguments: as the harness sent it.
        value: a sum of log probabilities, or a text.
        greedy: of a loglikelihood; None else.
    """

    task: str
    item: tuple[int, str]
    request: int
    kind: str
    arguments: tuple[Any, ...]
    value: float | str
    greedy: bool | None = None

    def line(self) -> dict[str, Any]:
        """Its canonical form; arguments as their hash."""
        asked = hashlib.sha256(json.dumps(self.arguments, sort_keys=True).encode()).hexdigest()
        said: dict[str, Any] = {"text": self.value} if isinstance(self.value, str) else {"sum": self.value.hex(), "decimal": self.value}
        return {"task": self.task, "item": list(self.item), "request": self.request, "asked": asked, "greedy": self.greedy, **said}


def _arguments(row: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Newer harnesses write mappings, older ones lists."""
    asked = row.get("arguments") or {}
    each = asked.values() if isinstance(asked, dict) else asked
    return [tuple(one.values() if isinstance(one, dict) else one) for one in each]


def _scored(task: str, item: Any, sample: Sample) -> list[Scored]:
    out = []
    for number, (arguments, said) in enumerate(zip(_arguments(sample.row), sample.row.get("resps") or [], strict=True)):
        answer = said[0]
        if len(arguments) > 1 and isinstance(arguments[1], str):
            out.append(Scored(task, item, number, "loglikelihood", arguments, float(answer[0]), str(answer[1]) == "True"))
        elif len(arguments) > 1:
            out.append(Scored(task, item, number, "generate_until", arguments, str(answer)))
        else:
            value = float(answer[0] if isinstance(answer, (list, tuple)) else answer)
            out.append(Scored(task, item, number, "loglikelihood_rolling", arguments, value))
    return out


def scores_of(model: Results) -> list[Scored]:
    """Every request of every item, in order of task, item and request.

    Raises:
        ResultsError: there are no items, or one is damaged.
    """
    out: list[Scored] = []
    for task in sorted(model.samples):
        for item in sorted(model.samples[task]):
            try:
                out += _scored(task, item, model.samples[task][item])
            except (ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
                raise ResultsError(f"{model.folder}: item {item[0]} of {task} has no answers that can be read ({error})") from None
    if not out:
        raise ResultsError(f"{model.folder}: there are no items; run with --log_samples (a suite does)")
    return out


def lines_of(model: Results, scores: list[Scored]) -> list[str]:
    """The canonical form.

    Raises:
        ResultsError: the results have no record of origin.
    """
    if model.origin is None:
        raise ResultsError(f"{model.folder}: the results have no record of origin, nothing can be said of them")
    values = [
        {"task": task, "metric": metric, "value": value.value.hex(), "n": value.n}
        for task in sorted(model.tasks)
        for metric, value in sorted(model.tasks[task].items())
    ]
    versions = {name: version for run in model.runs.values() if run.origin for name, version in run.origin.tasks.items()}
    items = [
        {"task": task, "item": list(item), "metrics": {name: value.hex() for name, value in sorted(sample.metrics.items())}}
        for task in sorted(model.samples)
        for item, sample in sorted(model.samples[task].items())
    ]
    compared = {name: value for name, value in model.origin.compared().items() if name != "limit"}  # runs may differ in it; n tells
    head = {"schema": SCHEMA, "origin": compared, "tasks": versions}
    return [json.dumps(one, sort_keys=True, separators=(",", ":")) for one in (head, *values, *items, *(score.line() for score in scores))]


def digest_of(lines: list[str]) -> str:
    """SHA-256 of the lines."""
    return hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()


def main(arguments: list[str]) -> int:
    """`dtrnet-eval seal`."""
    about = "Writes a digest over all items' scores, all values and the origin of a folder of results; prints it."
    parser = argparse.ArgumentParser("dtrnet-eval seal", description=about)
    parser.add_argument("folder", type=Path, help="results of one model, with samples")
    args = parser.parse_args(arguments)
    model = results.read(args.folder)
    scores = scores_of(model)
    lines = lines_of(model, scores)
    digest = digest_of(lines)
    (args.folder / LINES).write_text("".join(line + "\n" for line in lines))
    items = len({(score.task, score.item) for score in scores})
    (args.folder / SEAL).write_text(json.dumps({"schema": SCHEMA, "digest": digest, "items": items, "requests": len(scores)}) + "\n")
    print(f"{digest}  {items:,} items, {len(scores):,} requests")
    return 0
