"""A suite over many checkpoints: a server for each, finished work kept, progress shown."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from dtrnet_eval import suites
from dtrnet_eval.client import ServerError
from dtrnet_eval.server import LocalServer


def _names(models: list[Path]) -> list[str]:
    """A directory name for each checkpoint; the last two parts of the path where the last alone is not unique."""
    last = [model.resolve().name for model in models]
    return [name if last.count(name) == 1 else "-".join(model.resolve().parts[-2:]) for name, model in zip(last, models)]


def main(arguments: list[str]) -> int:
    """`dtrnet-eval sweep`."""
    parser = argparse.ArgumentParser("dtrnet-eval sweep", description=__doc__)
    parser.add_argument("suite", help="a suite's name or file")
    parser.add_argument("models", nargs="+", type=Path, help="checkpoint directories")
    parser.add_argument("--output", type=Path, required=True, help="results, a folder for each checkpoint")
    parser.add_argument("--dtrnet", type=Path, default=suites.REPOSITORY / "build" / "dtrnet", help="the server's program (%(default)s)")
    parser.add_argument("--server-flags", default="", help="more flags of the server, in one string")
    parser.add_argument("--limit", help="items of each task")
    args = parser.parse_args(arguments)
    suite = suites.load(args.suite)
    for model in args.models:
        if not (model / "config.json").is_file():
            raise ServerError(f"{model} is no checkpoint: it has no config.json")
    extra = ["--limit", args.limit] if args.limit else []
    names = _names(args.models)
    if len(set(names)) < len(names):
        raise ServerError("two checkpoints have the same name; give each its own directory name")
    failed = []
    for number, (name, model) in enumerate(zip(names, args.models), 1):
        out, start = args.output / name, time.monotonic()
        print(f"[{number}/{len(names)}] {name}", flush=True)
        try:
            if not all(suites.finished(run, out, extra) for run in suite.runs):
                with LocalServer(args.dtrnet, model, args.server_flags.split()) as server:
                    suites.run_suite(suite, server.url, out, extra)
            print(f"[{number}/{len(names)}] {name}: finished, {time.monotonic() - start:.0f} s", flush=True)
        except ServerError as error:
            failed.append(name)
            print(f"[{number}/{len(names)}] {name}: {error}", flush=True)
    if failed:
        which = ", ".join(failed)
        raise ServerError(f"{len(failed)} of {len(names)} checkpoints are not finished: {which}; start the same command to go on")
    return 0
