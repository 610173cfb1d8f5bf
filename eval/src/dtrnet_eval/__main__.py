"""The command `dtrnet-eval`.

    dtrnet-eval run ARGUMENT...        lm-evaluation-harness with the model type `dtrnet`; every argument is the harness's own
    dtrnet-eval local ARGUMENT...      starts `dtrnet serve` and runs the harness against it; what ./evaluate does
    dtrnet-eval suite NAME             a named list of runs against a server
    dtrnet-eval sweep NAME MODEL...    a suite over many checkpoints, a server for each; --watch DIR: as a training writes them
    dtrnet-eval sweep NAME --servers A B...     the same over servers that run
    dtrnet-eval merge NAME FOLDER...   results of what `suite --shard K/N` or `sweep --shard K/N` answered
    dtrnet-eval long DOCUMENTS         negative log likelihood by position and by context length
    dtrnet-eval report FOLDER...       results as one HTML page, Markdown and CSV
    dtrnet-eval seal FOLDER            a digest over all scores and their origin
    dtrnet-eval verify FOLDER          scores some items again on a server, and checks seal and values

Each command has --help. A server's key comes from $DTRNET_API_KEY, $OPENAI_API_KEY or a file, never from an argument.
"""

from __future__ import annotations

import importlib
import os
import sys

from dtrnet_eval.errors import EvalError

# Command -> module and function.
COMMANDS = {
    "run": ("harness", "run"),
    "local": ("local", "main"),
    "suite": ("suites", "main"),
    "sweep": ("sweep", "main"),
    "merge": ("merge", "main"),
    "long": ("longcontext", "main"),
    "report": ("report", "main"),
    "seal": ("sealing", "main"),
    "verify": ("verify", "main"),
    "tasks": ("local", "check_tasks"),  # what ./evaluate asks before it builds
}


def _call(name: str, arguments: list[str]) -> int:
    module, function = COMMANDS[name]
    return getattr(importlib.import_module(f"dtrnet_eval.{module}"), function)(arguments)


def main() -> int:
    """Entry point: mistakes and broken files are one line on stderr."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name not in COMMANDS:
        print(f"dtrnet-eval: no command {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return _call(name, sys.argv[2:])
    except EvalError as error:
        print(f"dtrnet-eval: {error}", file=sys.stderr)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more when it ends
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"dtrnet-eval: {where}{error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("dtrnet-eval: interrupted", file=sys.stderr)
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
