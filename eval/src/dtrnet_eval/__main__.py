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

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
from typing import Any

from dtrnet_eval.client import ServerError

# ValueErrors of the harness and of the task files that say what a person got wrong: shown without a traceback.
PERSONS_MISTAKES = ("Tasks not found", "LOCAL_EVAL_DATA")
MODULES = {"suite": "suites", "sweep": "sweep", "long": "longcontext", "report": "report"}


def register() -> None:
    """Makes `--model dtrnet` known. The harness's own models are registered first: it does so by itself only while there are none."""
    import lm_eval.models  # noqa: F401
    from lm_eval.api.registry import register_model

    from dtrnet_eval.lm import DtrnetLM

    register_model("dtrnet")(DtrnetLM)


def keep_templates() -> None:
    """Keeps the harness's compiled templates: it compiles a task's prompt, choices and target anew for every item."""
    from lm_eval import utils

    utils.env.from_string = functools.lru_cache(maxsize=1024)(utils.env.from_string)


def add_model_info() -> None:
    """Makes a harness before 0.4.13, which asks only its own models for it, put our model's info into the results."""
    from lm_eval import evaluator

    from dtrnet_eval.lm import DtrnetLM

    evaluate = evaluator.simple_evaluate

    def with_info(*args: Any, **kwargs: Any) -> Any:
        results = evaluate(*args, **kwargs)
        if results and DtrnetLM.latest and "dtrnet_server" not in results["config"]:
            results["config"].update(DtrnetLM.latest.get_model_info())
        return results

    evaluator.simple_evaluate = with_info


def run(arguments: list[str]) -> int:
    """Hands over to the harness, whose newer command lines (`lm_eval._cli`) have a subcommand `run`."""
    register()
    keep_templates()
    from lm_eval.__main__ import cli_evaluate

    version = tuple(int(part) for part in importlib.metadata.version("lm_eval").split(".")[:3] if part.isdigit())
    if version < (0, 4, 13):
        add_model_info()
    sys.argv = ["dtrnet-eval", *(["run"] if importlib.util.find_spec("lm_eval._cli") else []), *arguments]
    try:
        cli_evaluate()
    except ValueError as error:
        if not any(known in str(error) for known in PERSONS_MISTAKES):
            raise
        raise ServerError(str(error).splitlines()[0]) from None
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
