"""Reads what the harness and `dtrnet-eval long` leave behind, for reports and comparisons."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtrnet_eval.client import ServerError


@dataclass
class Results:
    """Everything found below one folder.

    Attributes:
        name: the folder's name.
        tasks: task -> metric -> (value, standard error or None), from all runs.
        samples: task -> document id -> metric -> value.
        runs: the `config` of each harness run (with `dtrnet_server` and `dtrnet_run` where our plugin made it).
        long: what `dtrnet-eval long` wrote.
    """

    name: str
    tasks: dict[str, dict[str, tuple[float, float | None]]] = field(default_factory=dict)
    samples: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    long: list[dict[str, Any]] = field(default_factory=list)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ServerError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise ServerError(f"{path}: not a JSON object")
    return value


def _add_run(out: Results, path: Path) -> None:
    data = _read_json(path)
    if not isinstance(data.get("results"), dict) or not isinstance(data.get("config"), dict):
        raise ServerError(f"{path}: not a results file of lm-evaluation-harness (it needs `results` and `config`)")
    out.runs.append(data["config"])
    for task, metrics in data["results"].items():
        for key, value in metrics.items():
            metric, _, rest = key.partition(",")
            if metric.endswith("_stderr") or not isinstance(value, (int, float)) or not rest:
                continue
            error = metrics.get(f"{metric}_stderr,{rest}")
            name = metric if rest == "none" else f"{metric} ({rest})"
            out.tasks.setdefault(task, {})[name] = (float(value), float(error) if isinstance(error, (int, float)) else None)


def _add_samples(out: Results, path: Path) -> None:
    task = path.name.removeprefix("samples_").rsplit("_", 1)[0]
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            values = {m: float(row[m]) for m in ("acc", "acc_norm", "exact_match") if isinstance(row.get(m), (int, float))}
            out.samples.setdefault(task, {})[int(row["doc_id"])] = values
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{path}: not a samples file of lm-evaluation-harness ({type(error).__name__}: {error})") from None


def read(folder: Path) -> Results:
    """All results below a folder; of several files for one task the newest counts.

    Raises:
        ServerError: nothing is there, or a file is damaged.
    """
    out = Results(folder.resolve().name)
    if not folder.is_dir():
        raise ServerError(f"{folder} is not a folder")
    for path in sorted(folder.rglob("results_*.json"), key=lambda p: p.name):
        _add_run(out, path)
    for path in sorted(folder.rglob("samples_*.jsonl"), key=lambda p: p.name):
        _add_samples(out, path)
    for path in sorted(folder.rglob("*.json")):
        if not path.name.startswith("results_"):
            data = _read_json(path)
            if data.get("kind") == "dtrnet-long":
                out.long.append(data)
    if not out.tasks and not out.long:
        raise ServerError(f"{folder}: there are no results of the harness and none of `dtrnet-eval long` below it")
    return out


@dataclass
class Paired:
    """Two models on the items of one task that both have.

    Attributes:
        n: items.
        first, second: shares that each has right.
        only_first, only_second: items that one has right and the other wrong.
        p: McNemar's exact two-sided probability.
        low, high: 95 % bootstrap interval of the difference (second - first).
    """

    n: int
    first: float
    second: float
    only_first: int
    only_second: int
    p: float
    low: float
    high: float


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p of McNemar's test with b and c discordant pairs."""
    n, k = b + c, min(b, c)
    if n == 0:
        return 1.0
    log_half = n * math.log(2)
    tail = sum(math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - log_half) for i in range(k + 1))
    return min(1.0, 2 * tail)


def compare(first: dict[int, dict[str, float]], second: dict[int, dict[str, float]], metric: str = "acc") -> Paired | None:
    """Item by item; None where no item has the metric in both."""
    import numpy as np

    shared = sorted(i for i in first.keys() & second.keys() if metric in first[i] and metric in second[i])
    if not shared:
        return None
    a, b = (np.array([side[i][metric] for i in shared]) for side in (first, second))
    draw = np.random.default_rng(0).integers(0, len(shared), (2000, len(shared)))
    low, high = np.quantile((b - a)[draw].mean(1), [0.025, 0.975])
    only_a, only_b = int(((a > 0.5) & (b <= 0.5)).sum()), int(((b > 0.5) & (a <= 0.5)).sum())
    return Paired(len(shared), float(a.mean()), float(b.mean()), only_a, only_b, mcnemar(only_a, only_b), float(low), float(high))
