"""Starts `dtrnet serve` and runs the harness's own client against it: all of ./evaluate that comes behind the build.

Arguments behind `--` go to the server, unknown ones before it to `lm_eval run`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dtrnet_eval import access, harness, serverflags, tasks
from dtrnet_eval.access import Access
from dtrnet_eval.answers import ServerInfo
from dtrnet_eval.client import Client
from dtrnet_eval.errors import EvalError, UsageError
from dtrnet_eval.server import LocalServer
from dtrnet_eval.sweep import default_program

LAST_LINES = 20
# Less of the harness's log, and progress only of what takes longer than a second.
QUIET = {"LMEVAL_LOG_LEVEL": "ERROR", "TQDM_DELAY": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dtrnet-eval local", description=__doc__, allow_abbrev=False)
    parser.add_argument("--dtrnet", type=Path, default=default_program(), help="the server's program (%(default)s)")
    parser.add_argument("--model", type=Path, help="checkpoint to serve; default: the one that comes with the program")
    parser.add_argument("--tasks", "-t", default="samples,sample_passage", help="(%(default)s)")
    parser.add_argument("--include_path", type=Path, default=tasks.FOLDER, help="folder of task files (the package's own)")
    parser.add_argument("--model_args", default="", help="added to the harness's model arguments")
    parser.add_argument("--batch_size", default="16", help="prompts a request (%(default)s)")
    return parser


def _split(arguments: list[str]) -> tuple[argparse.Namespace, list[str], list[str]]:
    """Ours, the harness's, the server's."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    args, rest = _parser().parse_known_args(arguments[:at])
    access.refuse_secrets([args.model_args, *rest])
    return args, rest, arguments[at + 1 :]


def _check(args: argparse.Namespace) -> None:
    """What can be known before a server starts."""
    if args.model and not (args.model / "config.json").is_file():
        raise UsageError(f"--model {args.model} is no checkpoint: it has no config.json")
    tasks.check(args.tasks.split(","), args.include_path)


def check_tasks(arguments: list[str]) -> int:
    """`dtrnet-eval tasks`: with the arguments of `local`, only says what is not there."""
    _check(_split(arguments)[0])
    return 0


def _harness_arguments(args: argparse.Namespace, rest: list[str], url: str, info: ServerInfo, tls: bool) -> list[str]:
    """The harness's max_length is one more than the positions it lets a prompt fill."""
    given = {"model": info.model, "base_url": f"{url}/v1/completions", "tokenizer_backend": "remote", "num_concurrent": "4"}
    given |= {"max_length": str(info.max_model_len + 1)} | ({"verify_certificate": "False"} if tls else {})
    model_args = ",".join(f"{name}={value}" for name, value in given.items()) + (f",{args.model_args}" if args.model_args else "")
    line = ["--model", "local-completions", "--batch_size", args.batch_size, "--include_path", str(args.include_path)]
    return [*line, "--tasks", args.tasks, "--model_args", model_args, *rest]


def main(arguments: list[str]) -> int:
    """`dtrnet-eval local`."""
    args, rest, behind = _split(arguments)
    _check(args)
    if args.dtrnet is None:
        raise UsageError("there is no dtrnet program in build/ or on the PATH; name it with --dtrnet")
    flags = serverflags.read(behind)
    os.environ.update(QUIET | dict(os.environ))
    with LocalServer(args.dtrnet, args.model, flags.flags, flags.environment()) as server:
        os.environ.update({name: flags.key for name in access.KEY_VARIABLES if flags.key})
        print("\n".join(server.said()), flush=True)
        info = Client(Access(server.url, verify_certificate=not flags.tls)).version()  # our own child on the loopback
        if not info.raw.get("tokenizer", True):
            raise UsageError(f"{args.model} has no tokenizer, and the tasks are text")
        try:
            return harness.run(_harness_arguments(args, rest, server.url, info, flags.tls))
        except (EvalError, SystemExit) as error:
            if server.process.poll() is not None or not isinstance(error, (UsageError, SystemExit)):
                print("\n".join(server.text().splitlines()[-LAST_LINES:]), file=sys.stderr)
            raise
