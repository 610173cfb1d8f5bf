"""The command `dtrnet-eval`.

    dtrnet-eval run ARGUMENT...      lm-evaluation-harness with the model type `dtrnet`; every argument is the harness's own

The harness discovers no outside packages, so this command registers the model and hands over to the harness's command line.
"""

from __future__ import annotations

import importlib.metadata
import sys

from dtrnet_eval.client import ServerError


def register() -> None:
    """Makes `--model dtrnet` known. The harness's own models are registered first: it does so by itself only while there are none."""
    import lm_eval.models  # noqa: F401
    from lm_eval.api.registry import register_model

    from dtrnet_eval.lm import DtrnetLM

    register_model("dtrnet")(DtrnetLM)


def run(arguments: list[str]) -> int:
    """Hands over to the harness."""
    register()
    from lm_eval.__main__ import cli_evaluate

    version = tuple(int(part) for part in importlib.metadata.version("lm_eval").split(".")[:3] if part.isdigit())
    sys.argv = ["dtrnet-eval", *(["run"] if version >= (0, 4, 10) else []), *arguments]
    cli_evaluate()
    return 0


COMMANDS = {"run": run}


def main() -> int:
    """Entry point."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name not in COMMANDS:
        print(f"dtrnet-eval: no command {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return COMMANDS[name](sys.argv[2:])
    except ServerError as error:
        print(f"dtrnet-eval: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
