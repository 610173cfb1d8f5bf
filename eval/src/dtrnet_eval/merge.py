"""Makes results of shards: the harness runs once more over what they wrote down, so that all that it computes is as of an undivided run.

No server is asked. Shards of another origin, of other tasks, arguments or task files, missing ones and those that are not finished are
refused by name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dtrnet_eval import shardrun, suites
from dtrnet_eval.errors import ResultsError, UsageError
from dtrnet_eval.merged import Whole
from dtrnet_eval.suites import Suite


def merge(suite: Suite, out: Path) -> None:
    """All runs of a suite whose shards lie in `out`; results lie where `suite` leaves them.

    Raises:
        EvalError: something is missing, or does not belong together.
    """
    if not (out / shardrun.SHARDS).is_dir():
        raise ResultsError(f"{out}: there are no shards")
    for run in suite.runs:
        told = shardrun.told(suite, run, out)
        if told is None:
            raise ResultsError(f"{shardrun.shards_of(out, run)}: there are no shards of the run {run['name']}")
        extra = list(told["extra"])
        if suites.finished(suite, run, out, extra):
            print(f"{suite.name} {run['name']}: merged before", flush=True)
            continue
        folder = shardrun.shards_of(out, run)
        print(f"{suite.name} {run['name']}: {len(Whole(folder))} shards", flush=True)
        suites.call(suite, run, suites.command(suite, run, "dtrnet-answers", f"answers={folder}", _without_model(extra), out / run["name"]))
        suites.mark_finished(suite, run, out, extra)


def _without_model(extra: list[str]) -> list[str]:
    """The harness's arguments without those of the model, which was asked before."""
    return suites.split_model_args(extra)[1]


def main(arguments: list[str]) -> int:
    """`dtrnet-eval merge`."""
    parser = argparse.ArgumentParser("dtrnet-eval merge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", help="the suite's name or file")
    parser.add_argument("folders", nargs="+", type=Path, help="folders that `suite --shard` or `sweep --shard` filled, one a model")
    args = parser.parse_args(arguments)
    suite = suites.load(args.suite)
    for folder in args.folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder")
        merge(suite, folder)
    return 0
