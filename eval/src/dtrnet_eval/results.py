"""Reads what the harness and `dtrnet-eval long` leave behind, for reports and comparisons."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtrnet_eval import origin
from dtrnet_eval.errors import OriginError, ResultsError
from dtrnet_eval.origin import Origin

PAIRED = ("acc", "acc_norm", "exact_match")
RULER_METRIC = "match at "  # and a number of tokens: RULER's tasks name their metrics by length


@dataclass(frozen=True)
class Run:
    """One run of the harness.

    Attributes:
        name: the folder below the model's, which a suite names after the run.
        origin: the record; None where another client made the run.
        cost: what the plugin counted; empty likewise.
    """

    name: str
    origin: Origin | None
    cost: dict[str, Any]


@dataclass(frozen=True)
class Value:
    """One metric of one task.

    Attributes:
        value: of the metric.
        error: standard error, or None.
        n: items that it is made of; None where the harness did not say.
        of: items that the task has.
    """

    value: float
    error: float | None = None
    n: int | None = None
    of: int | None = None

    @property
    def limited(self) -> bool:
        """True if not all items were asked."""
        return self.n is not None and self.of is not None and self.n < self.of


@dataclass(frozen=True)
class Sample:
    """One item as the harness wrote it down: its metrics, and the row with texts and answers."""

    metrics: dict[str, float]
    row: dict[str, Any]


@dataclass
class Results:
    """Everything found below one folder; all of it is of one model with one setting.

    Attributes:
        name: the folder's name.
        origin: the newest record; None where there is none.
        tasks: task -> metric -> value, from all runs.
        parts: tasks that belong to a group among them.
        samples: task -> item -> metrics. An item is its number and the hash of its document.
        sample_runs: task -> the run that its items are of.
        runs: the newest run of each name.
        long: what `dtrnet-eval long` wrote.
        folder: where it was read.
    """

    name: str
    origin: Origin | None = None
    tasks: dict[str, dict[str, Value]] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)
    samples: dict[str, dict[Hashable, Sample]] = field(default_factory=dict)
    sample_runs: dict[str, str] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    long: list[dict[str, Any]] = field(default_factory=list)
    folder: Path = Path()

    @property
    def limited(self) -> bool:
        """True if a task was not asked in whole."""
        return any(value.limited for metrics in self.tasks.values() for value in metrics.values())

    @property
    def forced_dense(self) -> tuple[int, ...]:
        """Layers that a flag of the server made dense."""
        return self.origin.info.forced_dense if self.origin else ()

    def metrics_of(self, task: str) -> dict[Hashable, dict[str, float]]:
        """Item -> metric -> value."""
        return {item: sample.metrics for item, sample in self.samples.get(task, {}).items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise ResultsError(f"{path}: not a JSON object")
    return value


def _name_of(metric: str, rest: str) -> str:
    if metric.isdigit():
        return RULER_METRIC + metric
    return metric if rest == "none" else f"{metric} ({rest})"


def _leaves(task: str, groups: dict[str, Any]) -> list[str]:
    """The tasks that a group is made of, in the end."""
    below = groups.get(task)
    return [leaf for one in below for leaf in _leaves(one, groups)] if isinstance(below, list) and below else [task]


def _counts(task: str, data: dict[str, Any]) -> tuple[int | None, int | None]:
    """Items asked and items there are, of a task or a group."""
    counted, groups = data.get("n-samples") or {}, data.get("group_subtasks") or {}
    each = [counted.get(leaf) for leaf in _leaves(task, groups)]
    if not each or not all(isinstance(one, dict) and isinstance(one.get("effective"), int) for one in each):
        return None, None
    return sum(one["effective"] for one in each), sum(int(one.get("original", one["effective"])) for one in each)


def _metrics_of(name: str, task: dict[str, Any], data: dict[str, Any]) -> dict[str, Value]:
    """The harness's `metric,filter` keys with their standard errors; a RULER length without items (-1) is left out.

    The harness counts a task's items over all RULER lengths of a run: they are those of one length where the run has no other.
    """
    out = {}
    n, of = _counts(name, data)
    if sum(key.partition(",")[0].isdigit() and value != -1 for key, value in task.items()) > 1:
        n = of = None
    for key, value in task.items():
        metric, _, rest = key.partition(",")
        no_items = metric.isdigit() and value == -1
        if metric.endswith("_stderr") or not isinstance(value, (int, float)) or not rest or no_items:
            continue
        error = task.get(f"{metric}_stderr,{rest}")
        out[_name_of(metric, rest)] = Value(float(value), float(error) if isinstance(error, (int, float)) else None, n, of)
    return out


def _add_run(out: Results, path: Path, name: str) -> None:
    data = _read_json(path)
    results, config = data.get("results"), data.get("config")
    if not isinstance(results, dict) or not isinstance(config, dict) or not all(isinstance(task, dict) for task in results.values()):
        raise ResultsError(f"{path}: not a results file of lm-evaluation-harness (it needs `results` and `config`)")
    tasks = {task: _metrics_of(task, metrics, data) for task, metrics in results.items()}
    if not any(tasks.values()):
        raise ResultsError(f"{path}: none of its metrics is named as lm-evaluation-harness 0.4 does (`acc,none`); was it another version?")
    groups = data.get("group_subtasks", {})
    out.parts.update(*(inside for inside in groups.values() if isinstance(groups, dict) and isinstance(inside, list)))
    for task, metrics in tasks.items():
        out.tasks.setdefault(task, {}).update(metrics)
    cost = config.get("dtrnet_run", {})
    if not isinstance(cost, dict) or not isinstance(cost.get("seconds", {}), dict):
        raise ResultsError(f"{path}: `dtrnet_run` is not as this version writes it")
    record = origin.read(config, path)
    _same_origin(out, record, path)
    out.runs[name] = Run(name, record, cost)


def _same_origin(out: Results, record: Origin | None, path: Path) -> None:
    """That a file of the harness has the origin of those before it: they share a column."""
    if out.runs:
        before = next(reversed(out.runs.values())).origin
        if (before is None) != (record is None):
            raise OriginError(f"{out.folder}: {path.name} and others: results with and without a record of origin are no single column")
        if before and record:
            differs = origin.differences(_in_a_column(before), _in_a_column(record))
            if differs:
                where = f"{out.folder} holds results of more than one origin ({path.name}: {'; '.join(differs)})"
                raise OriginError(f"{where}; name a folder for each, such as {_folders(out.folder)}")
    out.origin = record or out.origin


def _in_a_column(record: Origin) -> dict[str, Any]:
    """What values of one column share. Limits show at each value; 0.1 did not write down the harness's version."""
    return record.settings() | ({"harness": record.harness} if record.harness else {})


def _folders(folder: Path) -> str:
    below = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return ", ".join(str(folder / name) for name in below[:3]) or "one of each"


def _sample_of(row: dict[str, Any]) -> tuple[Hashable, Sample]:
    values = {_name_of(m, row.get("filter", "none")): float(row[m]) for m in PAIRED if isinstance(row.get(m), (int, float))}
    return (int(row["doc_id"]), str(row.get("doc_hash", ""))), Sample(values, row)


def _add_samples(out: Results, path: Path) -> None:
    task = path.name.removeprefix("samples_").rsplit("_", 1)[0]
    found: dict[Hashable, Sample] = {}
    try:
        for item, sample in map(_sample_of, map(json.loads, path.read_text(encoding="utf-8").splitlines())):
            before = found.get(item)
            found[item] = Sample({**before.metrics, **sample.metrics}, before.row) if before else sample
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path}: not a samples file of lm-evaluation-harness ({type(error).__name__}: {error})") from None
    out.samples[task] = found
    out.sample_runs[task] = _run_name(path, out.folder)


def _add_long(out: Results, path: Path) -> None:
    data = _read_json(path)
    if data.get("kind") != "dtrnet-long":
        return
    try:
        for one in data["by_length"]:
            float(one["length"]), float(one["nll"]), float(one["cost"]["flops_full"])
        for one in data["by_position"]:
            float(one["from"]), float(one["nll"]), [float(share) for share in one["routed_share"]]
        str(data["label"]), int(data["documents"])
        record = origin.read(data, path)
        data["origin"], data["server"] = record, record.server if record else data["server"]
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{path}: not as this version of `dtrnet-eval long` writes it ({type(error).__name__}: {error})") from None
    _same_model(out, data, record, path)
    out.long.append(data)


def _same_model(out: Results, data: dict[str, Any], record: Origin | None, path: Path) -> None:
    """Curves of one folder are of one model; their settings may differ, each has a line of its own."""
    known = {one["server"].get("model_hash") for one in out.long} | ({out.origin.info.model_hash} if out.origin else set())
    digest = data["server"].get("model_hash")
    if known - {digest}:
        raise OriginError(f"{out.folder} holds results of more than one model ({path.name} is of another); name a folder for each")
    if out.origin is None and not out.runs:
        out.origin = record


def _run_name(path: Path, folder: Path) -> str:
    """The folder below the model's; a run that lies in the model's own is called run."""
    inside = path.relative_to(folder).parts
    return inside[0] if len(inside) > 1 else "run"


def read(folder: Path) -> Results:
    """All results below a folder; of several files for one task the newest counts.

    Raises:
        ResultsError: nothing is there, or a file is damaged.
        OriginError: the results are of more than one origin.
    """
    out = Results(folder.resolve().name, folder=folder)
    if not folder.is_dir():
        raise ResultsError(f"{folder} is not a folder")
    for path in sorted(folder.rglob("results_*.json"), key=lambda p: p.name):
        _add_run(out, path, _run_name(path, folder))
    for path in sorted(folder.rglob("samples_*.jsonl"), key=lambda p: p.name):
        _add_samples(out, path)
    for path in sorted(folder.rglob("*.json")):
        if not path.name.startswith("results_"):
            _add_long(out, path)
    if not out.tasks and not out.long:
        raise ResultsError(f"{folder}: there are no results of the harness and none of `dtrnet-eval long` below it")
    return out


def read_all(folders: list[Path]) -> list[Results]:
    """A column for each folder, with names that differ.

    Raises:
        ResultsError: a folder is named twice, or as `read`.
        OriginError: as `read`.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ResultsError("a folder is named twice")
    found = [read(folder) for folder in folders]
    names = [one.name for one in found]
    for one in found:
        if names.count(one.name) > 1:
            one.name = "/".join(one.folder.resolve().parts[-2:])
    return found
