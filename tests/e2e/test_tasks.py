"""The offline tasks beside those of ../shared/harness/tasks, and the names of the papers' suite in the installed harness.

A stand-in model answers from a hash of the request, so equal requests get equal answers: for every task the requests (contexts,
continuations, generation arguments) must be the same, and so must the metrics' settings and all that the harness makes of the answers.
"""

import hashlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

import support  # isort: skip  (first: it finds the Python that has the other packages)
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

sys.path.insert(0, str(support.ROOT / "eval" / "src"))
from dtrnet_eval import suites

PAIRS = {"offline_books": "local_books_ppl", "offline_lambada": "local_lambada_openai"}
SETTINGS = ("metric_list", "filter_list", "generation_kwargs", "num_fewshot", "output_type", "target_delimiter")
LIMIT = 30


class Hashed(LM):
    """Answers that depend on the request alone; keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple] = []

    def _number(self, request: Instance) -> float:
        key = repr(request.args)
        self.asked.append((request.request_type, key))
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Between -40 and 0; one in four is greedy."""
        return [(-40 * number, number < 0.25) for number in map(self._number, requests)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Between -4000 and 0."""
        return [-4000 * self._number(request) for request in requests]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Something that filters find a number in, now and then the one of the first question."""
        return [f"So 3 + {int(9 * number)}. The answer is {int(20 * number)}." for number in map(self._number, requests)]


def evaluate(task: str, folder: Path) -> tuple[list[tuple], dict[str, Any]]:
    """The requests in order; metrics and settings."""
    model = Hashed()
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    how = {"limit": LIMIT, "bootstrap_iters": 0, "log_samples": False, "num_fewshot": 5 if "_mmlu_" in task else None}
    found = simple_evaluate(model=model, tasks=[task], task_manager=manager, **how)
    metrics = {key: value for key, value in found["results"][task].items() if "," in key}
    return model.asked, metrics | {key: found["configs"][task].get(key) for key in SETTINGS}


def check_pairs(theirs: Path) -> int:
    """Every offline task; the number of those that differ."""
    bad = 0
    for path in sorted(support.TASKS.glob("offline_*.yaml")):
        ours = path.stem
        other = PAIRS.get(ours, ours.replace("offline_", "local_"))
        if not (theirs / f"{other}.yaml").is_file():
            raise AssertionError(f"{ours}: there is no {other} to compare with")
        asked, metrics = evaluate(ours, support.TASKS)
        want, want_metrics = evaluate(other, theirs)
        same = asked == want and metrics == want_metrics and asked
        bad += not same
        print(f"{ours}: {len(asked)} requests, {'all equal' if same else f'NOT EQUAL: {metrics}, but {other}: {want_metrics}'}")
    return bad


def check_papers() -> None:
    """Every task of the online suite has a name that this harness knows."""
    known = set(TaskManager().all_tasks)
    asked = [task for run in suites.load("papers").runs for task in run["tasks"]]
    unknown = [task for task in asked if task not in known]
    assert not unknown and len(asked) >= 9, f"the harness knows no {', '.join(unknown)}"
    print(f"papers: all {len(asked)} names known")


def main() -> int:
    """Both parts."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    theirs = support.need_shared("harness", "tasks")
    os.environ["LOCAL_EVAL_DATA"] = str(theirs.parent / "data")
    check_papers()
    return 1 if check_pairs(theirs) else 0


if __name__ == "__main__":
    sys.exit(main())
