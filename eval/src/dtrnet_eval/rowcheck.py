"""Compares items of results with the tasks that they are of: documents, targets, and what the task makes of the answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dtrnet_eval import results, tasks
from dtrnet_eval.errors import EvalError
from dtrnet_eval.results import Results, Sample


class RowError(EvalError):
    """An item is not one of the task's, or is not judged as the task judges."""


def _load(names: list[str], include: Path) -> dict[str, Any]:
    """The harness's tasks by name; its own are read only where they are needed."""
    from lm_eval.tasks import TaskManager, get_task_dict

    ours = tasks.in_folder(names, include, every=True)
    manager = TaskManager(include_path=str(include), include_defaults=not ours)
    return dict(get_task_dict(names, manager))


def _document_hash(document: Any) -> str:
    """As the harness makes it."""
    from lm_eval.utils import handle_non_serializable, hash_string

    return hash_string(json.dumps(document, indent=2, default=handle_non_serializable, ensure_ascii=False))


def _answers(sample: Sample) -> list[Any]:
    """What the harness hands to the task."""
    said = sample.row.get("filtered_resps") or []
    return [(float(one[0]), str(one[1]) == "True") if isinstance(one, (list, tuple)) else one for one in said]


def _check(task: Any, name: str, item: tuple[int, str], sample: Sample) -> None:
    document = task.eval_docs[item[0]]
    if _document_hash(document) != item[1]:
        raise RowError(f"item {item[0]} of {name} is another than the task's own")
    target = str(task.doc_to_target(document))
    if target != str(sample.row.get("target")):
        raise RowError(f"item {item[0]} of {name}: its target is {target!r}, in the results {sample.row.get('target')!r}")
    judged = task.process_results(document, _answers(sample))
    for metric in results.PAIRED:
        if metric in judged and metric in sample.metrics and float(judged[metric]) != sample.metrics[metric]:
            raise RowError(
                f"item {item[0]} of {name}: {metric} of these answers is {judged[metric]}, in the results {sample.metrics[metric]}"
            )


def check(model: Results, chosen: list[tuple[str, tuple[int, str]]], include: Path | None) -> str:
    """All chosen items; says so, or why the tasks could not be read here.

    Raises:
        RowError: an item is not what the task has or makes of it.
    """
    names = sorted({name for name, _ in chosen})
    try:
        loaded = _load(names, include or tasks.FOLDER)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"rows were not compared with the tasks' own: {first}"
    for name, item in chosen:
        _check(loaded[name], name, item, model.samples[name][item])
    return f"the rows of {len(chosen)} items are the tasks' own, and judged as they do"
