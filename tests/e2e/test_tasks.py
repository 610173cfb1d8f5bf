"""The offline tasks beside those of ../shared/harness/tasks, the long tasks, and the names of the papers' suite in the installed harness.

A stand-in model answers from a hash of the request, so equal requests get equal answers: for every task the requests (contexts,
continuations, generation arguments) must be the same, and so must the metrics' settings and all that the harness makes of the answers.
"""

import hashlib
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import support  # isort: skip  (first: it finds the Python that has the other packages)
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from sentencepiece import SentencePieceProcessor

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


class Reader(Hashed):
    """Finds what is hidden in a long task's text; keeps the texts."""

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """0 for the number of the box that is asked for, else -1."""
        out = []
        for text, choice in (request.args for request in requests):
            colour = re.search(r"The number in the (\w+) box is$", text)[1]
            found = re.findall(rf"The number in the {colour} box is (\d+)\.", text)
            out.append((0.0 if found == [choice.strip()] else -1.0, False))
            self.asked.append((text + choice,))
        return out

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The pass key."""
        self.asked += [(request.args[0],) for request in requests]
        return [" " + re.search(r"The pass key is (\d+)\.", request.args[0])[1] for request in requests]


def check_long() -> None:
    """Who reads has every item right, and the texts have the tokens that the tasks' names promise, or a little less."""
    tokenizer = SentencePieceProcessor(model_file=str(support.SHIPPED / "tokenizer.model"))
    tasks = sorted(path.stem for path in support.TASKS.glob("long_*.yaml"))
    for task in tasks:
        model = Reader()
        manager = TaskManager(include_path=str(support.TASKS), include_defaults=False)
        found = simple_evaluate(model=model, tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=False)["results"][task]
        right = found["acc,none"] if "needles" in task else found["exact_match,none"]
        sizes, named = [len(tokenizer.encode(asked[0])) for asked in model.asked], 1000 * int(re.search(r"(\d+)k$", task)[1])
        assert right == 1.0, f"{task}: {right} right"
        assert 0.85 * named < min(sizes) and max(sizes) < 1.01 * named, f"{task}: {min(sizes)} to {max(sizes)} tokens"
        print(f"{task}: {len(sizes)} requests of {min(sizes)} to {max(sizes)} tokens, all right for a reader")
    assert len(tasks) == 10


def check_papers() -> None:
    """Every task of the online suite has a name that this harness knows."""
    known = set(TaskManager().all_tasks)
    asked = [task for run in suites.load("papers").runs for task in run["tasks"]]
    unknown = [task for task in asked if task not in known]
    assert not unknown and len(asked) >= 9, f"the harness knows no {', '.join(unknown)}"
    print(f"papers: all {len(asked)} names known")


def main() -> int:
    """All parts."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    theirs = support.need_shared("harness", "tasks")
    os.environ["LOCAL_EVAL_DATA"] = str(theirs.parent / "data")
    check_papers()
    check_long()
    return 1 if check_pairs(theirs) else 0


if __name__ == "__main__":
    sys.exit(main())
