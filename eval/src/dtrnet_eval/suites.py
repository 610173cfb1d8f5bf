"""Suites: named lists of harness runs, read from YAML files.

A suite file holds `about`, `runs` (each with `tasks` and optional harness arguments), and optionally `include` (a folder of task
files, from the suite file's own place) and `needs` (environment variables that must be set).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dtrnet_eval.client import Client, ServerError
from dtrnet_eval.server import end_with_parent

REPOSITORY = Path(__file__).resolve().parents[3]
SUITES = REPOSITORY / "configs" / "suites"
KEYS = {"about", "runs", "include", "needs"}


@dataclass
class Suite:
    """One suite file.

    Attributes:
        name: the file's stem.
        about: one line for people.
        runs: each with `name`, `tasks` (a list) and `args` (harness arguments).
        include: folder of task files, or None for the harness's own tasks.
    """

    name: str
    about: str
    runs: list[dict[str, Any]] = field(default_factory=list)
    include: Path | None = None


def _fail(path: Path, what: str) -> ServerError:
    return ServerError(f"suite {path}: {what}")


def _read_run(path: Path, i: int, run: Any) -> dict[str, Any]:
    if not isinstance(run, dict) or not isinstance(run.get("tasks"), list) or not run["tasks"]:
        raise _fail(path, f"runs[{i}] must have a list of tasks")
    unknown = set(run) - {"name", "tasks", "args"}
    if unknown or not isinstance(run.get("args", {}), dict):
        raise _fail(path, f"runs[{i}] may have name, tasks and args (a mapping); it has {', '.join(sorted(run))}")
    return {"name": run.get("name", f"run{i}"), "tasks": [str(task) for task in run["tasks"]], "args": run.get("args", {})}


def load(name: str) -> Suite:
    """Reads a suite by name, or by the path of its file.

    Raises:
        ServerError: there is no such suite, the file is wrong, or something that it needs is missing.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else SUITES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in SUITES.glob("*.yaml"))) or "none"
        raise ServerError(f"there is no suite {name!r}; known suites: {known}; or give a .yaml file")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise _fail(path, f"not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict) or not isinstance(data.get("runs"), list) or not data["runs"] or set(data) - KEYS:
        raise _fail(path, f"must have runs (a list), and may have {', '.join(sorted(KEYS - {'runs'}))}")
    for variable in data.get("needs", []):
        if not os.environ.get(variable):
            raise _fail(path, f"needs the environment variable {variable}")
    include = (path.parent / data["include"]).resolve() if data.get("include") else None
    return Suite(path.stem, data.get("about", ""), [_read_run(path, i, run) for i, run in enumerate(data["runs"])], include)


def command(suite: Suite, run: dict[str, Any], base_url: str, out: Path, extra: list[str]) -> list[str]:
    """The command line of one run of a suite."""
    line = [sys.executable, "-m", "dtrnet_eval", "run", "--model", "dtrnet", "--model_args", f"base_url={base_url}"]
    line += ["--tasks", ",".join(run["tasks"]), "--output_path", str(out / run["name"]), "--log_samples"]
    if suite.include:
        line += ["--include_path", str(suite.include)]
    for key, value in run["args"].items():
        line += [f"--{key}", str(value)]
    return line + extra


def _record(run: dict[str, Any], extra: list[str]) -> dict[str, Any]:
    """What finished.json says: a run counts as finished only with the same tasks and arguments."""
    return {"tasks": run["tasks"], "args": run["args"], "extra": extra}


def finished(run: dict[str, Any], out: Path, extra: list[str]) -> bool:
    """True if this run has left its results in `out`."""
    mark = out / run["name"] / "finished.json"
    try:
        return json.loads(mark.read_text()) == _record(run, extra)
    except (OSError, ValueError):
        return False


def run_suite(suite: Suite, base_url: str, out: Path, extra: list[str]) -> None:
    """Every run of a suite that is not finished in `out`; the finished ones leave `<run>/finished.json`.

    Raises:
        ServerError: a run failed; what is finished stays, and the same command goes on behind it.
    """
    for number, run in enumerate(suite.runs, 1):
        if finished(run, out, extra):
            print(f"{suite.name} {number}/{len(suite.runs)} {run['name']}: finished before", flush=True)
            continue
        print(f"{suite.name} {number}/{len(suite.runs)} {run['name']}: {', '.join(run['tasks'])}", flush=True)
        status = subprocess.run(command(suite, run, base_url, out, extra), check=False, preexec_fn=end_with_parent).returncode
        if status != 0:
            raise ServerError(f"{suite.name}: run {run['name']} ended with status {status}; start it again to go on from here")
        (out / run["name"]).mkdir(parents=True, exist_ok=True)
        (out / run["name"] / "finished.json").write_text(json.dumps(_record(run, extra)) + "\n")


def main(arguments: list[str]) -> int:
    """`dtrnet-eval suite`."""
    parser = argparse.ArgumentParser("dtrnet-eval suite", description="Runs a suite against a server; finished runs are not repeated.")
    parser.add_argument("suite", help="a suite's name or file; `list` names the known ones")
    parser.add_argument("--base_url", default="http://127.0.0.1:8000", help="the server (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the results (%(default)s)")
    args, extra = parser.parse_known_args(arguments)
    if args.suite == "list":
        for path in sorted(SUITES.glob("*.yaml")):
            print(f"{path.stem:12} {yaml.safe_load(path.read_text(encoding='utf-8')).get('about', '')}")
        return 0
    suite = load(args.suite)
    Client(args.base_url).version()
    run_suite(suite, args.base_url, args.output, extra)
    return 0
