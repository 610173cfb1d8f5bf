"""Reads what the harness and `dtrnet-eval long` leave behind, for reports and comparisons."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtrnet_eval.client import ServerError

PAIRED = ("acc", "acc_norm", "exact_match")


@dataclass
class Run:
    """One run of the harness.

    Attributes:
        name: the folder below the model's, which a suite names after the run.
        server: what the server said of itself; empty unless our plugin made the run.
        cost: what the plugin counted; empty likewise.
    """

    name: str
    server: dict[str, Any]
    cost: dict[str, Any]


@dataclass
class Results:
    """Everything found below one folder.

    Attributes:
        name: the folder's name.
        tasks: task -> metric -> (value, standard error or None), from all runs.
        parts: tasks that belong to a group among them.
        samples: task -> document id -> metric -> value.
        runs: the newest run of each name.
        long: what `dtrnet-eval long` wrote.
    """

    name: str
    tasks: dict[str, dict[str, tuple[float, float | None]]] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)
    samples: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    long: list[dict[str, Any]] = field(default_factory=list)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ServerError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise ServerError(f"{path}: not a JSON object")
    return value


RULER_METRIC = "match at "  # and a number of tokens: RULER's tasks name their metrics by length


def _name_of(metric: str, rest: str) -> str:
    if metric.isdigit():
        return RULER_METRIC + metric
    return metric if rest == "none" else f"{metric} ({rest})"


def _metrics_of(task: dict[str, Any]) -> dict[str, tuple[float, float | None]]:
    """The harness's `metric,filter` keys with their standard errors; a RULER length without items (-1) is left out."""
    out = {}
    for key, value in task.items():
        metric, _, rest = key.partition(",")
        no_items = metric.isdigit() and value == -1
        if metric.endswith("_stderr") or not isinstance(value, (int, float)) or not rest or no_items:
            continue
        error = task.get(f"{metric}_stderr,{rest}")
        out[_name_of(metric, rest)] = (float(value), float(error) if isinstance(error, (int, float)) else None)
    return out


def _add_run(out: Results, path: Path, name: str) -> None:
    data = _read_json(path)
    results, config = data.get("results"), data.get("config")
    if not isinstance(results, dict) or not isinstance(config, dict) or not all(isinstance(task, dict) for task in results.values()):
        raise ServerError(f"{path}: not a results file of lm-evaluation-harness (it needs `results` and `config`)")
    tasks = {task: _metrics_of(metrics) for task, metrics in results.items()}
    if not any(tasks.values()):
        raise ServerError(f"{path}: none of its metrics is named as lm-evaluation-harness 0.4 does (`acc,none`); was it another version?")
    groups = data.get("group_subtasks", {})
    out.parts.update(*(inside for inside in groups.values() if isinstance(groups, dict) and isinstance(inside, list)))
    for task, metrics in tasks.items():
        out.tasks.setdefault(task, {}).update(metrics)
    server, cost = config.get("dtrnet_server", {}), config.get("dtrnet_run", {})
    if not isinstance(server, dict) or not isinstance(cost, dict) or not isinstance(cost.get("seconds", {}), dict):
        raise ServerError(f"{path}: `dtrnet_server` and `dtrnet_run` are not as this version writes them")
    out.runs[name] = Run(name, server, cost)


def _add_samples(out: Results, path: Path) -> None:
    task = path.name.removeprefix("samples_").rsplit("_", 1)[0]
    found: dict[int, dict[str, float]] = {}
    try:
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            values = {_name_of(m, row.get("filter", "none")): float(row[m]) for m in PAIRED if isinstance(row.get(m), (int, float))}
            found.setdefault(int(row["doc_id"]), {}).update(values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerError(f"{path}: not a samples file of lm-evaluation-harness ({type(error).__name__}: {error})") from None
    out.samples[task] = found


def _add_long(out: Results, path: Path) -> None:
    data = _read_json(path)
    if data.get("kind") != "dtrnet-long":
        return
    try:
        for one in data["by_length"]:
            float(one["length"]), float(one["nll"]), float(one["cost"]["flops_full"])
        for one in data["by_position"]:
            float(one["from"]), float(one["nll"]), [float(share) for share in one["routed_share"]]
        str(data["label"]), int(data["documents"]), str(data["server"]["dtype"])
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(f"{path}: not as this version of `dtrnet-eval long` writes it ({type(error).__name__}: {error})") from None
    out.long.append(data)


def read(folder: Path) -> Results:
    """All results below a folder; of several files for one task the newest counts.

    Raises:
        ServerError: nothing is there, or a file is damaged.
    """
    out = Results(folder.resolve().name)
    if not folder.is_dir():
        raise ServerError(f"{folder} is not a folder")
    for path in sorted(folder.rglob("results_*.json"), key=lambda p: p.name):
        inside = path.relative_to(folder).parts
        _add_run(out, path, inside[0] if len(inside) > 1 else "run")
    for path in sorted(folder.rglob("samples_*.jsonl"), key=lambda p: p.name):
        _add_samples(out, path)
    for path in sorted(folder.rglob("*.json")):
        if not path.name.startswith("results_"):
            _add_long(out, path)
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
