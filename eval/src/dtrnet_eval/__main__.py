"""The command `dtrnet-eval`.

    dtrnet-eval run ARGUMENT...        lm-evaluation-harness with the model type `dtrnet`; every argument is the harness's own
    dtrnet-eval suite NAME             a named list of runs against a server
    dtrnet-eval sweep NAME MODEL...    a suite over many checkpoints, a server for each
    dtrnet-eval long DOCUMENTS         negative log likelihood by position and by context length
    dtrnet-eval report FOLDER...       results as one HTML page and Markdown

Each command has --help. The harness discovers no outside packages, so `run` registers the model and hands over to the harness's
command line.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys

from dtrnet_eval.client import ServerError

MODULES = {"suite": "suites", "sweep": "sweep", "long": "longcontext", "report": "report"}


def register() -> None:
    """Makes `--model dtrnet` known. The harness's own models are registered first: it does so by itself only while there are none."""
    import lm_eval.models  # noqa: F401
    from lm_eval.api.registry import register_model

    from dtrnet_eval.lm import DtrnetLM

    register_model("dtrnet")(DtrnetLM)


def run(arguments: list[str]) -> int:
    """Hands over to the harness. Its command line has had the subcommand `run` since 0.4.10."""
    register()
    from lm_eval.__main__ import cli_evaluate

    version = tuple(int(part) for part in importlib.metadata.version("lm_eval").split(".")[:3] if part.isdigit())
    sys.argv = ["dtrnet-eval", *(["run"] if version >= (0, 4, 10) else []), *arguments]
    cli_evaluate()
    return 0


def main() -> int:
    """Entry point."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name != "run" and name not in MODULES:
        print(f"dtrnet-eval: no command {name!r}; there are run, {', '.join(MODULES)}", file=sys.stderr)
        return 2
    try:
        if name == "run":
            return run(sys.argv[2:])
        return importlib.import_module(f"dtrnet_eval.{MODULES[name]}").main(sys.argv[2:])
    except ServerError as error:
        print(f"dtrnet-eval: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
