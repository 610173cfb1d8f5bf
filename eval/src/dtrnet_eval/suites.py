"""Suites: named lists of harness runs, read from YAML files.

A suite file holds `about`, `runs` (each with `tasks` and optional harness arguments), and optionally `include` (a folder of task
files, from the suite file's own place; `own` is this package's), `needs` (environment variables that must be set) and `positions`
(what the server's max_model_len must be at least).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from dtrnet_eval import access, origin, tasks
from dtrnet_eval.access import Access
from dtrnet_eval.answers import ServerInfo
from dtrnet_eval.errors import EvalError, UsageError
from dtrnet_eval.itemrouting import FILE as ROUTING_FILE
from dtrnet_eval.pool import Pool
from dtrnet_eval.server import end_with_parent
from dtrnet_eval.shards import Shard

SUITES = tasks.DATA / "suites"
KEYS = {"about", "runs", "include", "needs", "positions"}
FINISHED = "finished.json"


@dataclass
class Suite:
    """One suite file.

    Attributes:
        name: the file's stem.
        about: one line for people.
        runs: each with `name`, `tasks` (a list) and `args` (harness arguments).
        include: folder of task files, or None for the harness's own tasks.
        positions: the least max_model_len of a server; 0: any.
    """

    name: str
    about: str
    runs: list[dict[str, Any]] = field(default_factory=list)
    include: Path | None = None
    positions: int = 0


def _fail(path: Path, what: str) -> UsageError:
    return UsageError(f"suite {path}: {what}")


def _read_run(path: Path, i: int, run: Any) -> dict[str, Any]:
    if not isinstance(run, dict) or not isinstance(run.get("tasks"), list) or not run["tasks"]:
        raise _fail(path, f"runs[{i}] must have a list of tasks")
    unknown = set(run) - {"name", "tasks", "args"}
    if unknown or not isinstance(run.get("args", {}), dict):
        raise _fail(path, f"runs[{i}] may have name, tasks and args (a mapping); it has {', '.join(sorted(run))}")
    return {"name": str(run.get("name", f"run{i}")), "tasks": [str(task) for task in run["tasks"]], "args": run.get("args", {})}


def _include(path: Path, given: Any) -> Path | None:
    if not given:
        return None
    folder = tasks.FOLDER if given == "own" else (path.parent / str(given)).resolve()
    if not folder.is_dir():
        raise _fail(path, f"include: there is no folder {folder}")
    return folder


def known() -> list[str]:
    """Names of the suites that come with the package."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise _fail(path, f"not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict) or not isinstance(data.get("runs"), list) or not data["runs"] or set(data) - KEYS:
        raise _fail(path, f"must have runs (a list), and may have {', '.join(sorted(KEYS - {'runs'}))}")
    positions = data.get("positions", 0)
    if not isinstance(positions, int) or not isinstance(data.get("needs", []), list):
        raise _fail(path, "positions must be a whole number, needs a list")
    return data


def load(name: str) -> Suite:
    """Reads a suite by name, or by the path of its file.

    Raises:
        UsageError: there is no such suite, the file is wrong, or something that it needs is missing.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else SUITES / f"{name}.yaml"
    if not path.is_file():
        raise UsageError(f"there is no suite {name!r}; known suites: {', '.join(known()) or 'none'}; or give a .yaml file")
    data = _read(path)
    for variable in data.get("needs", []):
        if not os.environ.get(str(variable)):
            raise _fail(path, f"needs the environment variable {variable}")
    runs = [_read_run(path, i, run) for i, run in enumerate(data["runs"])]
    if len({run["name"] for run in runs}) < len(runs):
        raise _fail(path, "two runs have one name")
    return Suite(path.stem, str(data.get("about", "")), runs, _include(path, data.get("include")), data.get("positions", 0))


def split_model_args(extra: list[str]) -> tuple[list[str], list[str]]:
    """The values of --model_args among the harness's arguments, and the arguments without them."""
    values, rest, at = [], [], 0
    while at < len(extra):
        name, equals, value = extra[at].partition("=")
        if name != "--model_args":
            rest.append(extra[at])
        elif equals:
            values.append(value)
        else:
            values += extra[at + 1 : at + 2]
            at += 1
        at += 1
    return values, rest


def command(suite: Suite, run: dict[str, Any], model: str, model_args: str, extra: list[str], out: Path | None = None) -> list[str]:
    """The command line of one run of a suite; no key is in it.

    Args:
        suite: whose run it is.
        run: what is asked.
        model: type of the harness's model.
        model_args: its arguments.
        extra: more arguments for the harness.
        out: folder of the run's results; None: it has none.
    """
    more, extra = split_model_args(extra)
    model_args = ",".join([model_args, *more])  # as one: the harness's older command lines take the last only
    line = [sys.executable, "-m", "dtrnet_eval", "run", "--model", model, "--model_args", model_args, "--tasks", ",".join(run["tasks"])]
    if out:
        line += ["--output_path", str(out), "--log_samples"]
    if suite.include:
        line += ["--include_path", str(suite.include)]
    for key, value in run["args"].items():
        line += [f"--{key}", str(value)]
    return line + extra


def _digest(folder: Path | None) -> str | None:
    """Of all task files of a folder."""
    if folder is None:
        return None
    sums = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        sums.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return sums.hexdigest()[:16]


def record(suite: Suite, run: dict[str, Any], extra: list[str]) -> dict[str, Any]:
    """What finished.json says: a run counts as finished only with the same tasks, arguments and task files."""
    return {"tasks": run["tasks"], "args": run["args"], "extra": extra, "include": _digest(suite.include)}


def finished(suite: Suite, run: dict[str, Any], out: Path, extra: list[str]) -> bool:
    """True if this run has left its results in `out`. Whose they are is `check_origin`'s business."""
    try:
        return json.loads((out / run["name"] / FINISHED).read_text()) == record(suite, run, extra)
    except (OSError, ValueError):
        return False


def check_server(suite: Suite, info: ServerInfo, flag: str = "--max-model-len {}") -> None:
    """That the server's positions are enough.

    Raises:
        UsageError: they are not; with the flag to set.
    """
    if info.max_model_len < suite.positions:
        need = f"start it with {flag.format(suite.positions)}"
        raise UsageError(f"the suite {suite.name} needs {suite.positions} positions, but the server takes {info.max_model_len}; {need}")


def _limit(arguments: list[str]) -> float | None:
    """The harness's --limit, of several the last."""
    found = None
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in ("--limit", "-L") and (equals or at + 1 < len(arguments)):
            found = value if equals else arguments[at + 1]
    try:
        return None if found is None else float(found)
    except ValueError:
        raise UsageError(f"--limit must be a number, but is {found!r}") from None


def check_origin(suite: Suite, out: Path, info: ServerInfo, extra: list[str]) -> None:
    """That what lies in `out` is of this server and this harness, and what a run of the suite left there of its limit.

    Raises:
        OriginError: it is not. The harness's seeds are checked when a run begins.
    """
    now = origin.Origin.now(info, "dtrnet", harness=origin.harness_version())
    origin.check(out, now, without=("seeds", "limit"))
    for run in suite.runs:
        given = [part for name, value in run["args"].items() for part in (f"--{name}", str(value))]
        origin.check(out / run["name"], replace(now, limit=_limit([*given, *extra])), without=("seeds",))


def call(suite: Suite, run: dict[str, Any], line: list[str], environment: dict[str, str] | None = None) -> None:
    """Runs a command line of `command`.

    Raises:
        EvalError: it failed.
    """
    status = subprocess.run(line, check=False, preexec_fn=end_with_parent, env=environment).returncode
    if status != 0:
        raise EvalError(f"{suite.name}: run {run['name']} ended with status {status}; start it again to go on from here")


def each(suite: Suite, done: Callable[[dict[str, Any]], bool], what: str = "") -> Iterator[dict[str, Any]]:
    """Runs that are not done, announced."""
    for number, run in enumerate(suite.runs, 1):
        title = f"{suite.name} {number}/{len(suite.runs)} {run['name']}{what}"
        if done(run):
            print(f"{title}: finished before", flush=True)
            continue
        print(f"{title}: {', '.join(run['tasks'])}", flush=True)
        yield run


def run_suite(suite: Suite, server: Access, out: Path, extra: list[str], routing: bool = False) -> None:
    """Every run of a suite that is not finished in `out`; the finished ones leave `<run>/finished.json`.

    Args:
        suite: the runs.
        server: whom to ask.
        out: folder of the results.
        extra: more arguments for the harness.
        routing: keep each item's routing beside the results.

    Raises:
        EvalError: a run failed; what is finished stays, and the same command goes on behind it.
    """
    for run in each(suite, lambda run: finished(suite, run, out, extra)):
        place = out / run["name"]
        more = ["--model_args", f"routing_file={place / ROUTING_FILE}"] if routing else []
        call(suite, run, command(suite, run, "dtrnet", server.model_args(), [*extra, *more], place), server.environment())
        mark_finished(suite, run, out, extra)


def mark_finished(suite: Suite, run: dict[str, Any], out: Path, extra: list[str]) -> None:
    """The run has left its results."""
    (out / run["name"]).mkdir(parents=True, exist_ok=True)
    (out / run["name"] / FINISHED).write_text(json.dumps(record(suite, run, extra)) + "\n")


def parser_of_suite() -> argparse.ArgumentParser:
    """Arguments of `dtrnet-eval suite`; what it does not know goes to the harness."""
    about = "Runs a suite against a server; finished runs are not repeated. Other arguments go to the harness."
    parser = argparse.ArgumentParser("dtrnet-eval suite", description=about, allow_abbrev=False)
    parser.add_argument("suite", help="a suite's name or file; `list` names the known ones")
    access.add_arguments(parser)
    parser.add_argument("--output", type=Path, help="folder of the results (results/NAME of the model)")
    parser.add_argument("--item_routing", action="store_true", help="keep each item's routing, for the report's items")
    parser.add_argument("--shard", metavar="K/N", help="answer the Kth of N parts alone; `dtrnet-eval merge` makes results of all parts")
    return parser


def main(arguments: list[str]) -> int:
    """`dtrnet-eval suite`."""
    from dtrnet_eval import shardrun  # which needs this module

    args, extra = parser_of_suite().parse_known_args(arguments)
    if args.suite == "list":
        for name in known():
            print(f"{name:12} {_read(SUITES / f'{name}.yaml').get('about', '')}")
        return 0
    access.refuse_secrets(extra)
    _limit(extra)
    suite, server = load(args.suite), access.of_arguments(args)
    shard = Shard.read(args.shard) if args.shard else None
    if shard and args.item_routing:
        raise UsageError("--item_routing does not go with --shard")
    info = Pool(server).version()
    check_server(suite, info)
    out = args.output or Path("results") / info.model
    check_origin(suite, out, info, extra)
    if shard:
        shardrun.run_shard(suite, server, out, extra, shard)
    else:
        run_suite(suite, server, out, extra, args.item_routing)
    return 0
