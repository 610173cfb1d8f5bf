"""A suite over many checkpoints: a server for each, finished work kept, progress shown. With --servers, over servers that run."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import time
from pathlib import Path
from typing import Any

from dtrnet_eval import access, fleet, serverflags, shardrun, suites, watch
from dtrnet_eval.access import Access
from dtrnet_eval.client import Client
from dtrnet_eval.errors import EvalError, UsageError
from dtrnet_eval.server import LocalServer
from dtrnet_eval.serverflags import ServerFlags
from dtrnet_eval.shards import Shard
from dtrnet_eval.suites import Suite

CHECKPOINT = "checkpoint.json"


def _names(models: list[Path]) -> list[str]:
    """A directory name for each checkpoint; the last two parts of the path where the last alone is not unique."""
    last = [model.resolve().name for model in models]
    return [name if last.count(name) == 1 else "-".join(model.resolve().parts[-2:]) for name, model in zip(last, models)]


def default_program() -> Path | None:
    """build/dtrnet of the source tree that this package lies in, or dtrnet on the PATH."""
    import shutil

    built = [folder / "build" / "dtrnet" for folder in Path(__file__).resolve().parents]
    found = next((path for path in built if os.access(path, os.X_OK) and path.is_file()), None) or shutil.which("dtrnet")
    return Path(found) if found else None


def _stamp(model: Path, program: Path, flags: ServerFlags) -> dict[str, Any]:
    """Changes whenever a checkpoint's files, the program or its flags do; cheaper than loading the checkpoint to learn its hash."""
    files = [path for path in sorted(model.iterdir()) if path.is_file()] + [program]
    return {"files": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files], "flags": flags.flags}


def _unchanged(path: Path, stamp: dict[str, Any]) -> bool:
    try:
        return json.loads(path.read_text()) == stamp
    except (OSError, ValueError):
        return False


class Sweep:
    """One suite, one program, one set of flags; all of it, or one shard of every run."""

    def __init__(self, suite: Suite, program: Path, flags: ServerFlags, extra: list[str], shard: Shard | None = None) -> None:
        self.suite, self.program, self.flags, self.extra, self.shard = suite, program, flags, extra, shard

    def _stamped(self, out: Path) -> Path:
        """File that says of which checkpoint the results are."""
        return out / (f"checkpoint-{self.shard.number}-of-{self.shard.of}.json" if self.shard else CHECKPOINT)

    def _finished(self, out: Path) -> bool:
        if self.shard:
            return all(shardrun.shard_finished(self.suite, self.shard, out, run) for run in self.suite.runs)
        return all(suites.finished(self.suite, run, out, self.extra) for run in self.suite.runs)

    def _ask(self, server: Access, out: Path) -> None:
        if self.shard:
            shardrun.run_shard(self.suite, server, out, self.extra, self.shard)
        else:
            suites.run_suite(self.suite, server, out, self.extra)

    def run(self, model: Path, out: Path) -> None:
        """One checkpoint: nothing is started where all is finished and nothing has changed.

        Raises:
            EvalError: not finished, or `out` has results of another origin.
        """
        stamp = _stamp(model, self.program, self.flags)
        if _unchanged(self._stamped(out), stamp) and self._finished(out):
            return
        with LocalServer(self.program, model, self.flags.flags, self.flags.environment()) as server:
            place = Access(server.url, verify_certificate=not self.flags.tls)  # our own child on the loopback
            info = Client(place).version()
            suites.check_server(self.suite, info, "--server-flags '--max-model-len {}'")
            suites.check_origin(self.suite, out, info, self.extra)
            self._ask(place, out)
        self._stamped(out).write_text(json.dumps(stamp) + "\n")


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("dtrnet-eval sweep", description=__doc__)
    parser.add_argument("suite", help="a suite's name or file")
    parser.add_argument("models", nargs="*", type=Path, help="checkpoint directories")
    parser.add_argument("--watch", type=Path, metavar="DIR", help="in place of them: those of this directory, as a training writes them")
    parser.add_argument(
        "--servers", nargs="+", metavar="URL", help="in place of them: servers that run; those that serve the same share the work"
    )
    parser.add_argument("--shard", metavar="K/N", help="the Kth of N parts of each checkpoint; `dtrnet-eval merge` makes results of all")
    access.add_security_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="results, a folder for each checkpoint")
    parser.add_argument("--dtrnet", type=Path, default=default_program(), help="the server's program (%(default)s)")
    parser.add_argument("--server-flags", default="", help="more flags of the server, in one string")
    parser.add_argument("--limit", help="items of each task")
    args = parser.parse_args(arguments)
    if [bool(args.models), bool(args.watch), bool(args.servers)].count(True) != 1:
        parser.error("give checkpoint directories, --watch DIR or --servers URL")
    if args.shard and not args.models:
        parser.error("--shard goes with checkpoint directories; servers that run divide the work themselves")
    return args


def _check(args: argparse.Namespace, names: list[str]) -> None:
    """What can be known before a server starts."""
    for model in args.models:
        if not (model / "config.json").is_file():
            raise UsageError(f"{model} is no checkpoint: it has no config.json")
    if len(set(names)) < len(names):
        raise UsageError("two checkpoints have the same name; give each its own directory name")
    if args.dtrnet is None:
        raise UsageError("there is no dtrnet program in build/ or on the PATH; name it with --dtrnet")
    if not args.dtrnet.is_file():
        raise UsageError(f"cannot start {args.dtrnet}: there is no such program")


def _run_each(names: list[str], args: argparse.Namespace, sweep: Sweep) -> int:
    failed = []
    for number, (name, model) in enumerate(zip(names, args.models), 1):
        start, where = time.monotonic(), f"[{number}/{len(names)}] {name}"
        print(where, flush=True)
        try:
            sweep.run(model, args.output / name)
            print(f"{where}: finished, {time.monotonic() - start:.0f} s", flush=True)
        except EvalError as error:
            failed.append(name)
            print(f"{where}: {error}", flush=True)
    if failed:
        which = ", ".join(failed)
        raise EvalError(f"{len(failed)} of {len(names)} checkpoints are not finished: {which}; start the same command to go on")
    return 0


def main(arguments: list[str]) -> int:
    """`dtrnet-eval sweep`."""
    args = _arguments(arguments)
    suite = suites.load(args.suite)
    extra = ["--limit", args.limit] if args.limit else []
    if args.servers:
        servers = Access("+".join(args.servers), args.api_key_file, not args.no_verify_certificate, args.ca_cert_path)
        return fleet.sweep(suite, servers, args.output, extra)
    shard = Shard.read(args.shard) if args.shard else None
    names = _names(args.models)
    _check(args, names)
    flags = serverflags.read(shlex.split(args.server_flags))
    os.environ.update({name: value for name, value in flags.environment().items() if name.endswith("_API_KEY")})
    sweep = Sweep(suite, args.dtrnet, flags, extra, shard)
    return watch.main(args.watch, args.output, sweep.run) if args.watch else _run_each(names, args, sweep)
