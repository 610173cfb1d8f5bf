"""What the end-to-end tests share: a session with the server, the harness run in process, skipping.

A test is a program: exit status 0 passed, 77 skipped (its last line says why), anything else failed. Programs need the packages of
tests/requirements.txt; when the running Python lacks them they start again with .venv/bin/python of the source tree.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from server_process import PATIENCE_S, ROOT, SHARED, SHIPPED, ServerProcess

TASKS = ROOT / "eval" / "src" / "dtrnet_eval" / "data" / "tasks"
PACKAGES = ("lm_eval", "matplotlib", "numpy", "openai", "requests", "sentencepiece", "tenacity")


def skip(reason: str) -> NoReturn:
    """Ends the program as skipped."""
    print(f"skipped: {reason}")
    sys.exit(77)


def need_packages() -> None:
    """Goes on with the Python that has the packages, or skips."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if not missing:
        return
    venv = ROOT / ".venv" / "bin" / "python"
    if venv.exists() and not os.environ.get("DTRNET_TEST_REEXEC"):
        os.environ["DTRNET_TEST_REEXEC"] = "1"
        os.execv(venv, [str(venv), *sys.argv])
    skip(f"no Python package {', '.join(missing)}; ./run-tests installs them into .venv")


def need_shared(*parts: str) -> Path:
    """A path below ../shared, or the end of the test."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        skip(f"../shared/{'/'.join(parts)} is not beside the source tree")
    return path


need_packages()
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1")

import requests  # noqa: E402  (only after need_packages)


class Server(ServerProcess):
    """A server and a session of connections to it."""

    def __init__(self, model: Path | None = SHIPPED, *flags: str, env: dict[str, str] | None = None) -> None:
        super().__init__(*flags, model=model, env=env)
        self.session = requests.Session()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON answer to a POST; an error status is an exception with the server's message."""
        answer = self.session.post(self.url + path, json=body)
        if answer.status_code != 200:
            raise RuntimeError(f"POST {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def get(self, path: str) -> requests.Response:
        """The answer to a GET."""
        return self.session.get(self.url + path)

    def metrics(self) -> dict[str, float]:
        """/metrics: series (name with its labels) to value."""
        lines = [line for line in self.get("/metrics").text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def idle_metrics(self, timeout_s: float = PATIENCE_S) -> dict[str, float]:
        """`metrics` once nothing runs: an answer may be out before the worker has given back what the sequence had reserved."""
        until = time.monotonic() + timeout_s
        while True:
            series = self.metrics()
            busy = series["dtrnet_running_sequences"] + series["dtrnet_queue_sequences"] + series["dtrnet_kv_reserved_rows"]
            if not busy or time.monotonic() > until:
                return series
            time.sleep(0.01)


def max_length(server: Server) -> int:
    """The harness's max_length that lets a prompt fill the server's positions."""
    return server.get("/version").json()["max_model_len"] + 1


def harness(
    server: Server,
    tasks: list[str],
    include: Path = TASKS,
    limit: int | None = None,
    batch_size: int = 16,
    **model_args: object,
) -> dict[str, Any]:
    """Runs lm-evaluation-harness with its own `local-completions` client; what `simple_evaluate` returns, samples included."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    args = {"model": "dtrnet", "base_url": server.url + "/v1/completions", "tokenizer_backend": "remote"}
    args |= {"num_concurrent": 1, "max_length": max_length(server), **model_args}
    manager = TaskManager(include_path=str(include), include_defaults=False)
    run = {"tasks": tasks, "task_manager": manager, "limit": limit, "batch_size": batch_size, "bootstrap_iters": 0}
    return simple_evaluate(model="local-completions", model_args=args, log_samples=True, **run)


def answers(results: dict[str, Any]) -> dict[tuple[str, int], list[tuple[tuple[str, ...], Any]]]:
    """(task, doc_id) -> [(arguments, response)] in order of the item's choices."""
    out = {}
    for task, samples in results["samples"].items():
        for sample in samples:
            args = [tuple(a) for a in sample["arguments"]]
            out[task, sample["doc_id"]] = list(zip(args, [r[0] if isinstance(r[0], (tuple, list)) else r for r in sample["resps"]]))
    return out


def write_json(path: Path, value: object) -> None:
    """Writes JSON with two blanks of indentation."""
    path.write_text(json.dumps(value, indent=2) + "\n")
